//! Grades stored test logs, as `gametape score` does:
//!
//! ```text
//! score --tasks FILE… --predictions FILE|gold --logs DIR|FILE --out report.json
//!       [--rules swebench|strict] [--threads N]
//! ```

use gametape_grader::score::{Rules, ScoreOptions, score};
use std::error::Error;
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Options of the command line.
struct Arguments {
    options: ScoreOptions,
    out: PathBuf,
}

fn arguments(words: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut options = ScoreOptions {
        tasks: Vec::new(),
        predictions: None,
        logs: PathBuf::new(),
        rules: Rules::default(),
        threads: None,
    };
    let mut out = None;
    let mut predictions = None;
    let mut words = words;
    while let Some(word) = words.next() {
        let mut value = || {
            words
                .next()
                .ok_or_else(|| format!("`{word}` wants a value"))
        };
        match word.as_str() {
            "--tasks" => options.tasks.push(value()?.into()),
            "--predictions" => predictions = Some(value()?),
            "--logs" => options.logs = value()?.into(),
            "--out" => out = Some(PathBuf::from(value()?)),
            "--rules" => options.rules = value()?.parse()?,
            "--threads" => {
                let threads = value()?.parse();
                options.threads = Some(threads.map_err(|e| format!("--threads: {e}"))?);
            }
            other => return Err(format!("`{other}` is unknown")),
        }
    }
    match predictions.as_deref() {
        None => return Err("`--predictions` is missing".to_owned()),
        Some("gold") => {}
        Some(path) => options.predictions = Some(path.into()),
    }
    if options.tasks.is_empty() || options.logs == Path::new("") {
        return Err("`--tasks` and `--logs` are needed".to_owned());
    }
    let out = out.ok_or("`--out` is missing")?;
    Ok(Arguments { options, out })
}

fn run() -> Result<(), Box<dyn Error>> {
    let Arguments { options, out } = arguments(std::env::args().skip(1))?;
    let begun = std::time::Instant::now();
    let scored = score(&options)?;
    let taken = begun.elapsed();
    let report = scored.run_report();
    for problem in &scored.problems {
        eprintln!("{problem}");
    }
    println!(
        "{} tasks, {} predictions: {} completed, {} resolved ({} rules), {} unresolved, {} empty, {} without a verdict; {:.3} s",
        report.total_instances,
        report.submitted_instances,
        report.completed_instances,
        report.resolved_instances,
        scored.rules,
        report.unresolved_instances,
        report.empty_patch_instances,
        report.error_instances,
        taken.as_secs_f64(),
    );
    for difference in scored.differences() {
        println!(
            "strict rules differ: {}: {}",
            difference.instance_id,
            serde_json::to_string(&difference.graded.why)?
        );
    }
    File::create(&out)
        .and_then(|file| scored.write_json(BufWriter::new(file)))
        .map_err(|e| format!("{}: {e}", out.display()))?;
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::from(2)
        }
    }
}
