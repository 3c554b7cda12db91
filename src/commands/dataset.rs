//! `gametape dataset …`: datasets are rebuilt from the tape whenever they are asked for.

use crate::config::Config;
use crate::run::learning::fold_dataset;
use gametape_schemas::event::DatasetBuilt;
use gametape_schemas::trajectory::Ledger;
use gametape_schemas::{Dataset, DatasetKind, Digest, Event, Failure, FailureKind, Record};

/// The outcome for one dataset.
#[derive(Debug, serde::Serialize)]
pub struct Check {
    /// Its name.
    pub name: String,
    /// Rows on the tape's word.
    pub rows: u64,
    /// Digest on the tape's word.
    pub recorded: Digest,
    /// Digest of what the recipe gives now.
    pub rebuilt: Digest,
}

impl Check {
    /// Whether they agree.
    pub fn agrees(&self) -> bool {
        self.recorded == self.rebuilt
    }
}

/// Rebuilds every dataset of a tape.
///
/// # Errors
/// `GT-DATASET-NONE` when there is none, `GT-RUN-CONFIG` when the tape's configuration
/// cannot be read by this version.
pub fn verify(records: &[Record]) -> Result<Vec<Check>, Failure> {
    let config = recorded_config(records)?;
    let mut checks = Vec::new();
    for built in built(records) {
        let dataset = rebuild(&config, records, &built)?;
        checks.push(Check {
            name: built.name.clone(),
            rows: built.rows,
            recorded: built.digest.clone(),
            rebuilt: dataset.digest().map_err(unreadable)?,
        });
    }
    if checks.is_empty() {
        return Err(none("no dataset has been built on this tape yet"));
    }
    Ok(checks)
}

/// Rows of one dataset as JSON lines.
///
/// # Errors
/// As [`verify`].
pub fn export(records: &[Record], name: &str) -> Result<Vec<u8>, Failure> {
    let config = recorded_config(records)?;
    let built = built(records)
        .into_iter()
        .find(|b| b.name == name)
        .ok_or_else(|| none(format!("no dataset `{name}` is on this tape")))?;
    rebuild(&config, records, &built)?
        .to_jsonl()
        .map_err(unreadable)
}

fn built(records: &[Record]) -> Vec<DatasetBuilt> {
    records
        .iter()
        .filter_map(|r| match &r.event {
            Event::DatasetBuilt(body) => Some(body.clone()),
            _ => None,
        })
        .collect()
}

fn rebuild(config: &Config, records: &[Record], built: &DatasetBuilt) -> Result<Dataset, Failure> {
    let kind = match built.name.as_str() {
        "policy" => DatasetKind::Policy,
        "verifier" => DatasetKind::Verifier,
        other => return Err(none(format!("`{other}` is not a dataset that I can build"))),
    };
    let prefix = records.iter().filter(|r| r.seq < built.prefix_end);
    Ok(fold_dataset(config, kind, &Ledger::fold(prefix)))
}

/// The configuration that is on the tape.
fn recorded_config(records: &[Record]) -> Result<Config, Failure> {
    records
        .iter()
        .find_map(|r| match &r.event {
            Event::ConfigResolved(body) => {
                Some(serde_json::from_str(&body.config_json).map_err(unreadable))
            }
            _ => None,
        })
        .unwrap_or_else(|| Err(none("the tape holds no configuration")))
}

fn none(message: impl Into<String>) -> Failure {
    Failure::new(FailureKind::Input, "GT-DATASET-NONE", message).with_help(
        "`gametape loop` builds the datasets; `gametape tape stats` shows what a tape holds",
    )
}

fn unreadable(error: serde_json::Error) -> Failure {
    Failure::new(
        FailureKind::Input,
        "GT-RUN-CONFIG",
        format!("what the tape holds cannot be read by this version: {error}"),
    )
    .with_help("use the version of gametape that wrote the tape (`gametape tape tail` shows it)")
}
