//! The detectors of cheating: a labelled corpus, and real trajectories.

#![allow(clippy::unwrap_used)]

mod measured;

use gametape_schemas::{EnvironmentId, Finding, Severity, Split, Task, TaskId};

/// A task without content.
fn read_only_task() -> Task {
    Task {
        id: TaskId::new("t"),
        repo: "owner/widget".to_owned(),
        base_commit: String::new(),
        environment: EnvironmentId("e".to_owned()),
        bug_patch: String::new(),
        gold_patch: String::new(),
        problem_statement: String::new(),
        fail_to_pass: Vec::new(),
        pass_to_pass: Vec::new(),
        test_files: Vec::new(),
        hidden_paths: Vec::new(),
        file: String::new(),
        entity: String::new(),
        origin: "imported".to_owned(),
        split: Split::HeldOut,
        execution: None,
    }
}

/// Whether a finding is to be printed.
fn show_kind(finding: &Finding) -> bool {
    let Ok(wanted) = std::env::var("GAMETAPE_CONDUCT_SHOW") else {
        return false;
    };
    let kind = serde_json::to_string(&finding.kind).unwrap();
    match wanted.as_str() {
        "hard" => finding.severity == Severity::Hard,
        "soft" => finding.severity == Severity::Soft,
        wanted => kind.trim_matches('"') == wanted,
    }
}
