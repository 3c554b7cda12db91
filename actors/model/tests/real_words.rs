//! The default model's tokenizer on real test logs, which are not part of the repository:
//! they are looked for where `GAMETAPE_SCORED_LOGS` (a directory of `RUN/logs.jsonl.gz`)
//! says, else in `../shared/data/scored-logs` beside the repository.
#![allow(clippy::unwrap_used)]

mod common;

use flate2::read::GzDecoder;
use gametape_schemas::{ChatMessage, Role};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

/// Logs of every run, each cut to `length` characters, `count` a run.
fn logs(count: usize, length: usize) -> Option<Vec<String>> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/scored-logs");
    let place = std::env::var_os("GAMETAPE_SCORED_LOGS").map_or(beside, PathBuf::from);
    let mut out = Vec::new();
    for run in std::fs::read_dir(place).ok()?.flatten() {
        let Ok(file) = std::fs::File::open(run.path().join("logs.jsonl.gz")) else {
            continue;
        };
        for line in BufReader::new(GzDecoder::new(file)).lines().take(count) {
            let row: Value = serde_json::from_str(&line.unwrap()).unwrap();
            // The end is where the tests are.
            let text = row["log"].as_str().unwrap();
            let skip = text.chars().count().saturating_sub(length);
            out.push(text.chars().skip(skip).collect());
        }
    }
    (!out.is_empty()).then_some(out)
}

#[test]
fn real_logs_survive_and_are_those_of_transformers() {
    let name = "real_logs_survive_and_are_those_of_transformers";
    let Some(model) = common::smollm2() else {
        eprintln!("SKIPPED: {name}: SmolLM2 is not in the cache");
        return;
    };
    let Some(texts) = logs(40, 6000) else {
        eprintln!("SKIPPED: {name}: no shared/data/scored-logs, GAMETAPE_SCORED_LOGS not set");
        return;
    };
    let (_, tokenizer) = gametape_model::load_tokenizer(&model).unwrap();
    let mut pairs = Vec::new();
    for text in &texts {
        let ids = tokenizer.encode(text).unwrap();
        assert_eq!(tokenizer.decode(&ids).unwrap(), *text);
        // As a turn: the same bytes as the model's own template writes.
        let turns = [ChatMessage::new(Role::User, text.as_str())];
        let rendered = tokenizer.render(&turns, true).unwrap().tokens;
        let written = tokenizer.template_text(&turns, true).unwrap();
        assert_eq!(tokenizer.decode(&rendered).unwrap(), written);
        pairs.push((text, ids));
    }
    let Some(python) = common::python() else {
        eprintln!("SKIPPED: {name}, the half with transformers: no virtual environment");
        return;
    };
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("words.json");
    std::fs::write(&file, serde_json::to_string(&pairs).unwrap()).unwrap();
    let out = common::record(&python, "words").arg(file).output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout);
    eprintln!("{said}");
    let errors = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{said}{errors}");
}
