//! Recorded runs of the official harness, graded again: every recorded verdict must come
//! out, except where the record itself has drifted from its logs.
//!
//! The runs are not part of the repository. They are looked for where
//! `GAMETAPE_SCORED_LOGS` (a directory of `RUN/{logs.jsonl.gz, predictions.jsonl.gz,
//! recorded.json}`) and `GAMETAPE_TASKS` (a directory of Parquet files) say, else in
//! `../shared/data` beside the repository.

#![allow(clippy::unwrap_used)]

use gametape_grader::score::{Outcome, Rules, ScoreOptions, Scored, Unscored, score};
use gametape_schemas::formats::{RunReport, TaskRow, rows};
use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

/// Recorded as resolved or not against what their own logs say.
const DRIFTED: &[(&str, &str)] = &[
    (
        "django__django-11039",
        "recorded as resolved; in its log one of the tests that must stay passing does not",
    ),
    (
        "django__django-13660",
        "recorded as unresolved; every expected test passes in its log",
    ),
    (
        "matplotlib__matplotlib-25433",
        "recorded as resolved; in its log the tests cannot be collected",
    ),
    (
        "psf__requests-2317",
        "recorded as resolved; its log ends in a time-out",
    ),
];

struct Data {
    logs: PathBuf,
    tasks: Vec<PathBuf>,
}

/// Where the recorded runs lie; `None` (said aloud) if they are not there.
fn data(test: &str) -> Option<Data> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let place = |name: &str, inner: &str| match std::env::var_os(name) {
        Some(path) => PathBuf::from(path),
        None => beside.join(inner),
    };
    let logs = place("GAMETAPE_SCORED_LOGS", "scored-logs");
    let folder = place("GAMETAPE_TASKS", "tasks");
    let mut tasks: Vec<PathBuf> = std::fs::read_dir(&folder)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "parquet"))
        .collect();
    tasks.sort();
    if tasks.is_empty() || !logs.is_dir() {
        eprintln!("SKIPPED: {test}: no recorded runs (GAMETAPE_SCORED_LOGS, GAMETAPE_TASKS)");
        return None;
    }
    Some(Data { logs, tasks })
}

/// The runs in the data, by name.
fn runs(data: &Data) -> Vec<PathBuf> {
    let mut runs: Vec<PathBuf> = std::fs::read_dir(&data.logs)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("recorded.json").is_file())
        .collect();
    runs.sort();
    assert!(!runs.is_empty(), "{}: no runs", data.logs.display());
    runs
}

fn grade(data: &Data, run: &Path, rules: Rules, threads: usize) -> Scored {
    score(&ScoreOptions {
        tasks: data.tasks.clone(),
        predictions: Some(run.join("predictions.jsonl.gz")),
        logs: run.join("logs.jsonl.gz"),
        rules,
        threads: NonZeroUsize::new(threads),
    })
    .unwrap()
}

/// A list of ids in a run's record.
fn recorded(run: &Path, list: &str) -> BTreeSet<String> {
    let text = std::fs::read(run.join("recorded.json")).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&text).unwrap();
    serde_json::from_value(record[list].clone()).unwrap()
}

/// Graded ids on which our verdict and the record differ.
fn misses(run: &Path, scored: &Scored) -> BTreeSet<String> {
    let resolved = recorded(run, "resolved");
    scored
        .graded()
        .filter(|(id, graded)| graded.swebench.resolved != resolved.contains(*id))
        .map(|(id, _)| id.to_owned())
        .collect()
}

#[test]
fn every_recorded_verdict_comes_out() {
    let Some(data) = data("every_recorded_verdict_comes_out") else {
        return;
    };
    for run in runs(&data) {
        let scored = grade(&data, &run, Rules::Swebench, 2);
        let name = run.file_name().unwrap().to_string_lossy().into_owned();
        // Some files of predictions hold a task twice; nothing else is wrong with them.
        let strange = scored
            .problems
            .iter()
            .find(|p| !p.row.message.contains("comes again"));
        assert_eq!(strange, None, "{name}");
        let errors = scored
            .outcomes
            .values()
            .filter(|o| matches!(o, Outcome::Error(_)))
            .count();
        let graded = scored.graded().count();
        let missed = misses(&run, &scored);
        println!(
            "{name}: {graded} logs graded, {} verdicts differ: {missed:?}",
            missed.len()
        );
        assert_eq!(errors, 0, "{name}");
        assert!(graded > 0, "{name}: no log has a task");
        // Only the record of the gold patches was put together from several runs.
        let is_gold = name.to_lowercase().contains("gold");
        let excused = |id: &String| is_gold && DRIFTED.iter().any(|(known, _)| known == id);
        let wrong: Vec<&String> = missed.iter().filter(|id| !excused(id)).collect();
        assert!(wrong.is_empty(), "{name}: {wrong:?}");
    }
}

#[test]
fn what_did_not_apply_is_what_the_record_says() {
    let Some(data) = data("what_did_not_apply_is_what_the_record_says") else {
        return;
    };
    for run in runs(&data) {
        let scored = grade(&data, &run, Rules::Swebench, 1);
        let refused: BTreeSet<String> = scored
            .graded()
            .filter(|(_, graded)| graded.unscored == Some(Unscored::PatchNotApplied))
            .map(|(id, _)| id.to_owned())
            .collect();
        for id in recorded(&run, "no_apply") {
            if scored.outcomes.contains_key(&id) {
                assert!(refused.contains(&id), "{}: {id}", run.display());
            }
        }
    }
}

#[test]
fn the_strict_rules_only_withhold_and_always_say_why() {
    let Some(data) = data("the_strict_rules_only_withhold_and_always_say_why") else {
        return;
    };
    for run in runs(&data) {
        let scored = grade(&data, &run, Rules::Strict, 2);
        for (id, graded) in scored.graded() {
            assert!(graded.swebench.resolved || !graded.strict.resolved, "{id}");
        }
        for difference in scored.differences() {
            let why = &difference.graded.why;
            println!("{}: {}: {why:?}", run.display(), difference.instance_id);
            assert!(!why.is_empty(), "{}", difference.instance_id);
        }
    }
}

#[test]
fn threads_and_directories_make_no_difference_to_the_report() {
    let Some(data) = data("threads_and_directories_make_no_difference_to_the_report") else {
        return;
    };
    let run = runs(&data).remove(0);
    let one = grade(&data, &run, Rules::Swebench, 1);
    let four = grade(&data, &run, Rules::Swebench, 4);
    assert_eq!(one, four);
    // The same logs as files, in the harness' layout.
    let root = tempfile::tempdir().unwrap();
    let model = one.predictions[0].model_name_or_path.replace('/', "__");
    let mut lines =
        gametape_grader::score::logs::LogLines::open(&run.join("logs.jsonl.gz")).unwrap();
    while let Some((_, line)) = lines.next_line().unwrap() {
        let (id, source) = gametape_grader::score::logs::log_row(&line).unwrap();
        let folder = root.path().join("run").join(&model).join(id);
        std::fs::create_dir_all(&folder).unwrap();
        let mut file = std::fs::File::create(folder.join("test_output.txt")).unwrap();
        std::io::copy(&mut source.open().unwrap(), &mut file).unwrap();
    }
    let from_files = score(&ScoreOptions {
        tasks: data.tasks.clone(),
        predictions: Some(run.join("predictions.jsonl.gz")),
        logs: root.path().to_owned(),
        rules: Rules::Swebench,
        threads: None,
    })
    .unwrap();
    assert_eq!(from_files.run_report(), one.run_report());
    assert_eq!(from_files.instance_reports(), one.instance_reports());
    let json = one.to_json().unwrap();
    let read: RunReport = serde_json::from_value(json).unwrap();
    assert_eq!(read, one.run_report());
}

#[test]
fn rows_of_real_task_sets_come_out_as_they_went_in() {
    let Some(data) = data("rows_of_real_task_sets_come_out_as_they_went_in") else {
        return;
    };
    use gametape_grader::score::input;
    for file in &data.tasks {
        let raw = input::raw_rows(file).unwrap();
        let tasks = input::tasks(file, 2).unwrap();
        assert_eq!(tasks.problems, [], "{}", file.display());
        assert!(!raw.is_empty());
        let again: Vec<_> = tasks.rows.into_iter().map(|task| task.into_row()).collect();
        assert_eq!(again, raw, "{}", file.display());
        for row in &raw {
            // As JSON lines they say the same.
            let line = rows::to_lines([row]).unwrap();
            let read = TaskRow::read_all(line.as_bytes()).rows.remove(0);
            assert_eq!(read.row(), row);
        }
    }
}
