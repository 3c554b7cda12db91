//! Trajectories of other people's agents with recorded verdicts, where they are at hand:
//! read as `gametape trajectories import` reads them, one ledger of all.

use flate2::read::GzDecoder;
use gametape_schemas::formats::trajectories::{Hint, ImportedTrajectory};
use gametape_schemas::trajectory::Ledger;
use gametape_schemas::{Record, StreamId, Task, Trajectory};
use gametape_verifier::stated;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;

/// The runs that have verdicts.
pub const RUNS: [&str; 4] = [
    "mini-swe-agent-gemini3pro-verified",
    "moatless-claude-3.5-sonnet",
    "moatless-gpt-4o-2024-05-13",
    "moatless-gpt4o",
];

/// Attempts of one run at SWE-bench tasks; `None` where the data is not at hand.
pub fn load(run: &str) -> Option<Vec<(Task, Trajectory)>> {
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let shared = std::env::var_os("GAMETAPE_SHARED").map_or(beside, PathBuf::from);
    let file = shared
        .join("data/trajectories")
        .join(run)
        .join("trajectories.jsonl.gz");
    let file = std::fs::File::open(file).ok()?;
    let mut items = Vec::new();
    for line in BufReader::new(GzDecoder::new(file)).lines() {
        let row = serde_json::from_str(&line.expect("a gzipped text")).expect("a JSON object");
        let read = ImportedTrajectory::read(&row, None, &Hint::default()).expect("a trajectory");
        let key = read.key(&row);
        let task = stated::task(&key.task, &read.opening);
        let events = read.events(key, String::new(), String::new(), None);
        let records: Vec<Record> = events
            .into_iter()
            .enumerate()
            .map(|(at, new)| Record {
                seq: at as u64,
                stream: StreamId::new("test"),
                version: at as u64,
                event_id: format!("test#{at}"),
                causation: None,
                correlation: None,
                at_micros: 0,
                event: new.event,
            })
            .collect();
        items.extend(
            Ledger::fold(&records)
                .attempts
                .into_iter()
                .map(|attempt| (task.clone(), attempt)),
        );
    }
    Some(items)
}
