//! Stored logs graded beside the official harness (package `swebench`): the same logs, the
//! same tasks, parse, grade and report, in one run. Verdicts must be equal.
//!
//! ```text
//! cargo bench -p gametape-benches --bench score -- [--tasks FILE]… [--logs FILE]… [--rounds N] [--quick]
//! ```
//!
//! FILEs are tasks of the SWE-bench family and logs as JSON lines of `instance_id` and
//! `log`; logs of early 2024, which have no markers, get some. Without them 300 logs of
//! pytest with 400 tests each are made up. Tasks are read once and not counted, neither
//! are Python's start and imports. The harness is installed into a virtual environment of
//! its own, below the user's cache; where that cannot be, it is left out aloud.

mod made_up;
mod peer;

use gametape_grader::score::{Rules, ScoreOptions, input, logs, score_rows};
use gametape_schemas::formats::{Prediction, TaskRow};
use std::collections::BTreeSet;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Anything that goes wrong ends the benchmark.
pub type Outcome<T> = Result<T, Box<dyn Error>>;

/// The harness that is the peer.
pub const HARNESS: &str = "swebench==5.0.2";

struct Options {
    tasks: Vec<PathBuf>,
    logs: Vec<PathBuf>,
    rounds: usize,
}

fn options() -> Outcome<Options> {
    let mut options = Options {
        tasks: vec![],
        logs: vec![],
        rounds: 5,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} wants a value"));
        match argument.as_str() {
            "--tasks" => options.tasks.push(value()?.into()),
            "--logs" => options.logs.push(value()?.into()),
            "--rounds" => options.rounds = value()?.parse::<usize>()?.max(1),
            "--quick" => options.rounds = 2,
            "--bench" => {}
            other => return Err(format!("unknown argument {other}").into()),
        }
    }
    Ok(options)
}

/// What is graded, as both sides read it.
pub struct Work {
    /// Tasks that have a log.
    pub tasks: Vec<serde_json::Value>,
    /// Id and log with markers.
    pub logs: Vec<(String, String)>,
}

#[derive(serde::Deserialize)]
struct LogRow {
    instance_id: String,
    log: String,
}

/// Tasks and logs of files. Of several logs of a task the first counts.
fn of_files(options: &Options) -> Outcome<Work> {
    let mut rows = std::collections::BTreeMap::new();
    for file in &options.tasks {
        for row in input::tasks(file, 1)?.rows {
            rows.entry(row.instance_id().to_owned()).or_insert(row);
        }
    }
    let mut work = Work {
        tasks: vec![],
        logs: vec![],
    };
    let mut seen = BTreeSet::new();
    for file in &options.logs {
        let mut lines = logs::LogLines::open(file)?;
        while let Some((_, line)) = lines.next_line()? {
            let row: LogRow = serde_json::from_slice(&line)?;
            if let Some(task) = rows.get(&row.instance_id)
                && seen.insert(row.instance_id.clone())
            {
                work.tasks.push(serde_json::to_value(task.row())?);
                work.logs.push((row.instance_id, with_markers(&row.log)));
            }
        }
    }
    Ok(work)
}

/// The part behind the patch of a log of early 2024, between markers.
fn with_markers(log: &str) -> String {
    if log.contains(">>>>> Start Test Output") {
        return log.to_owned();
    }
    let tests = log.rsplit(">>>>> Applied Patch (pred)").next();
    let tests = tests.unwrap_or(log).replace(">>>>> ", "");
    format!(">>>>> Start Test Output\n{tests}\n>>>>> End Test Output\n")
}

fn write(work: &Work, place: &Path) -> Outcome<u64> {
    let lines = |rows: &mut dyn Iterator<Item = serde_json::Value>| {
        rows.map(|row| format!("{row}\n")).collect::<String>()
    };
    std::fs::write(
        place.join("tasks.jsonl"),
        lines(&mut work.tasks.iter().cloned()),
    )?;
    let predictions = lines(&mut work.logs.iter().map(|(id, _)| {
        serde_json::json!({ "instance_id": id, "model_name_or_path": "m", "model_patch": "p" })
    }));
    std::fs::write(place.join("predictions.jsonl"), predictions)?;
    let mut bytes = 0;
    for (id, log) in &work.logs {
        let directory = place.join("logs/run_evaluation/r/m").join(id);
        std::fs::create_dir_all(&directory)?;
        std::fs::write(directory.join("test_output.txt"), log)?;
        bytes += log.len() as u64;
    }
    Ok(bytes)
}

/// Parse, grade and report; the ids that are resolved.
fn ours(tasks: Vec<TaskRow>, predictions: Vec<Prediction>, place: &Path) -> Outcome<Vec<String>> {
    let options = ScoreOptions {
        tasks: vec![],
        predictions: None,
        logs: place.join("logs"),
        rules: Rules::Swebench,
        threads: None,
    };
    let scored = score_rows(tasks, predictions, &options)?;
    let report = std::fs::File::create(place.join("ours.json"))?;
    scored.write_json(std::io::BufWriter::with_capacity(1 << 18, report))?;
    Ok(scored.run_report().resolved_ids)
}

/// The middle one of some numbers.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn main() -> Outcome<()> {
    let options = options()?;
    let work = if options.logs.is_empty() {
        made_up::work()
    } else {
        of_files(&options)?
    };
    let place = tempfile::tempdir()?;
    let bytes = write(&work, place.path())?;
    let megabytes = bytes as f64 / 1e6;
    println!("{} logs, {megabytes:.1} MB", work.logs.len());
    let tasks = input::tasks(&place.path().join("tasks.jsonl"), 1)?.rows;
    let predictions = input::predictions(&place.path().join("predictions.jsonl"))?.rows;
    let mut seconds = Vec::new();
    let mut resolved = Vec::new();
    for _ in 0..options.rounds {
        let (tasks, predictions) = (tasks.clone(), predictions.clone());
        let begin = Instant::now();
        resolved = ours(tasks, predictions, place.path())?;
        seconds.push(begin.elapsed().as_secs_f64());
    }
    let ours = median(seconds);
    resolved.sort();
    let theirs = match peer::run(place.path(), options.rounds) {
        Ok(theirs) => Some(theirs),
        Err(reason) => {
            println!("SKIPPED: {HARNESS}: {reason}");
            None
        }
    };
    println!("| | s | MB/s | resolved |");
    println!("|---|---|---|---|");
    println!(
        "| gametape | {ours:.3} | {:.0} | {} |",
        megabytes / ours,
        resolved.len()
    );
    let mut ratio = None;
    if let Some(theirs) = theirs {
        let time = median(theirs.seconds);
        println!(
            "| {HARNESS} | {time:.3} | {:.0} | {} |",
            megabytes / time,
            theirs.resolved.len()
        );
        if theirs.resolved != resolved {
            return Err("the two do not agree on what is resolved".into());
        }
        ratio = Some((time / ours * 100.0).round() / 100.0);
    }
    let line = serde_json::json!({
        "bench": "score",
        "ratios": { "speed_vs_swebench": ratio },
        "detail": {
            "logs": work.logs.len(),
            "bytes": bytes,
            "mb_per_s": (megabytes / ours).round(),
            "resolved": resolved.len(),
        },
    });
    println!("{line}");
    Ok(())
}
