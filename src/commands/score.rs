//! `gametape score`: stored logs, graded.

use super::{output, print_json, put, unwritable};
use gametape_grader::score::{ScoreOptions, Scored, score};
use gametape_schemas::Failure;
use std::path::Path;
use std::process::ExitCode;

/// Grades, writes the report, and says what came of it. What cannot be used is told on
/// standard error, row by row.
pub fn run(options: &ScoreOptions, out: &Path, json: bool) -> Result<ExitCode, Failure> {
    let scored = score(options)?;
    for problem in &scored.problems {
        eprintln!("{problem}");
    }
    std::fs::File::create(out)
        .and_then(|file| scored.write_json(std::io::BufWriter::new(file)))
        .map_err(|error| unwritable(out, &error))?;
    if json {
        print_json(&scored.to_json().map_err(output)?)?;
    } else {
        put(&summary(&scored)?)?;
    }
    Ok(if scored.problems.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn summary(scored: &Scored) -> Result<String, Failure> {
    let report = scored.run_report();
    let mut text = format!(
        "{} tasks, {} predictions: {} graded, {} resolved ({} rules), {} unresolved, \
         {} without a patch, {} without a verdict\n",
        report.total_instances,
        report.submitted_instances,
        report.completed_instances,
        report.resolved_instances,
        scored.rules,
        report.unresolved_instances,
        report.empty_patch_instances,
        report.error_instances,
    );
    for difference in scored.differences() {
        let why = serde_json::to_string(&difference.graded.why).map_err(output)?;
        text.push_str(&format!(
            "the rules differ on {}: {why}\n",
            difference.instance_id
        ));
    }
    Ok(text)
}
