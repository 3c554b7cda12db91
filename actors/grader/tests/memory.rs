//! However long a log and its lines are, little of it is held. The only test of its
//! process: it looks at the process' peak.

#![allow(clippy::unwrap_used)]

use gametape_grader::score::{Rules, ScoreOptions, score};
use std::io::{Seek, SeekFrom, Write};
use std::num::NonZeroUsize;

/// The most memory that the process ever held, in KiB; `None` where the system does not say.
fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[test]
fn a_log_of_half_a_gibibyte_in_a_single_line_takes_little_memory() {
    const LENGTH: u64 = 512 << 20;
    let root = tempfile::tempdir().unwrap();
    let task = r#"{"instance_id": "a", "repo": "psf/requests", "FAIL_TO_PASS": ["t"], "PASS_TO_PASS": []}"#;
    let prediction = r#"{"instance_id": "a", "model_patch": "p"}"#;
    std::fs::write(root.path().join("tasks.jsonl"), task).unwrap();
    std::fs::write(root.path().join("predictions.jsonl"), prediction).unwrap();
    std::fs::create_dir(root.path().join("logs")).unwrap();
    // A hole in the file: it is read as zeros and takes no place on the disk.
    let mut log = std::fs::File::create(root.path().join("logs/a.log")).unwrap();
    log.write_all(b">>>>> Start Test Output\nPASSED t\n")
        .unwrap();
    log.seek(SeekFrom::Start(LENGTH)).unwrap();
    log.write_all(b">>>>> End Test Output\n").unwrap();
    drop(log);
    let options = ScoreOptions {
        tasks: vec![root.path().join("tasks.jsonl")],
        predictions: Some(root.path().join("predictions.jsonl")),
        logs: root.path().join("logs"),
        rules: Rules::Swebench,
        threads: NonZeroUsize::new(1),
    };
    let before = peak();
    let scored = score(&options).unwrap();
    assert_eq!(scored.problems, []);
    assert_eq!(scored.run_report().resolved_ids, ["a"]);
    match before.zip(peak()) {
        Some((before, after)) => {
            let grown = after - before;
            assert!(grown < 32 << 10, "{grown} KiB for a log of {LENGTH} bytes");
        }
        None => eprintln!("SKIPPED: the peak of memory: /proc/self/status does not say it"),
    }
}
