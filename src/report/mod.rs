//! What a run did and what came of it, read off its tape and nothing else.
//!
//! The loop and `gametape report` use the same functions: [`evaluate`] and
//! [`selections`] make the bodies that the loop appends, and
//! [`Report::from_records`] recomputes them from verdicts and scores and says whether
//! they equal what is on the tape.
//!
//! Layout, in reading order:
//! - [`heldout`]: attempts at held-out tasks, side by side
//! - [`evaluation`]: estimates with intervals, and the verifier's picks
//! - [`tally`]: tasks, attempts, datasets, trainings and phases in numbers
//! - [`rounds`]: rounds of the policy and what the guard decided
//! - [`mod@text`]: the tables for a terminal
//! - [`picture`]: the SVG
//! - [`html`], [`html_evaluation`]: pages that stand alone

pub mod evaluation;
pub mod heldout;
pub mod html;
pub mod html_evaluation;
pub mod picture;
pub mod rounds;
#[cfg(test)]
mod synthetic;
pub mod tally;
pub mod text;

pub use evaluation::{EVALUATION, evaluate, selections};
pub use picture::svg;
pub use text::text;

use gametape_schemas::event::{Estimate, EvaluationFinished, SelectionMade};
use gametape_schemas::trajectory::Ledger;
use gametape_schemas::{Event, Failure, Record};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tally::{AttemptTally, DatasetTally, ModifierTally, PackageTally, Phases, TrainingTally};

/// Everything that a report says. Its JSON form is `report.json`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Raised when the shape of this changes.
    pub schema_version: u32,
    /// The run; absent on a tape without `RunStarted`.
    pub run: Option<String>,
    /// Version of gametape that began it.
    pub code_version: Option<String>,
    /// Whether the loop came to its end.
    pub finished: bool,
    /// How often another process took it up.
    pub resumed: u32,
    /// Events on the tape.
    pub events: u64,
    /// Seed of the run, also of the bootstrap; 0 when the configuration names none.
    pub seed: u64,
    /// The settings that decide most, by dotted name, in reading order.
    pub settings: Vec<Setting>,
    /// Digests of what the configuration names.
    pub inputs: BTreeMap<String, String>,
    /// Tasks by package.
    pub packages: Vec<PackageTally>,
    /// Tasks by how the bug was made.
    pub modifiers: BTreeMap<String, ModifierTally>,
    /// Attempts by phase, in the order of the loop.
    pub attempts: Vec<AttemptTally>,
    /// Datasets in order of building.
    pub datasets: Vec<DatasetTally>,
    /// Trainings in order of beginning.
    pub trainings: Vec<TrainingTally>,
    /// Rounds of the policy, the base first; empty on a tape without rounds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rounds: Vec<rounds::RoundTally>,
    /// Held-out estimates, recomputed.
    pub evaluation: EvaluationFinished,
    /// The verifier's pick of each held-out task, recomputed.
    pub selections: Vec<SelectionMade>,
    /// Whether the recomputed evaluation equals the newest one on the tape; absent
    /// while there is none.
    pub evaluation_on_tape_agrees: Option<bool>,
    /// Where the time went.
    pub phases: Phases,
    /// Deaths of actors.
    pub actor_deaths: u32,
}

/// One setting of the configuration.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Setting {
    /// Dotted name, such as `policy_training.epochs`.
    pub name: String,
    /// Its value as text.
    pub value: String,
}

/// Settings that a report shows, when the configuration has them.
const SETTINGS: &[&str] = &[
    "model.source",
    "scaffold.turns",
    "rounds.count",
    "rounds.start",
    "rounds.guard_share",
    "explore.attempts",
    "explore.sampling.temperature",
    "evaluate_base.attempts",
    "evaluate_base.sampling.temperature",
    "evaluate_tuned.attempts",
    "evaluate_tuned.sampling.temperature",
    "policy_training.epochs",
    "policy_training.batch_size",
    "policy_training.learning_rate",
    "policy_training.lora_rank",
    "policy_training.frozen_layers",
    "verifier_training.epochs",
    "verifier_training.batch_size",
    "verifier_training.learning_rate",
    "verifier_training.lora_rank",
    "verifier_training.frozen_layers",
];

impl Report {
    /// Reads a tape, or a prefix of it, from its first record on. The bootstrap is
    /// seeded by the `seed` of the configuration on the tape.
    pub fn from_records(records: &[Record]) -> Self {
        let ledger = Ledger::fold(records);
        let config = config_of(records);
        let seed = config.get("seed").and_then(|s| s.as_u64()).unwrap_or(0);
        let mut report = Self {
            schema_version: 1,
            run: None,
            code_version: None,
            finished: false,
            resumed: 0,
            events: records.len() as u64,
            seed,
            settings: settings_of(&config),
            inputs: BTreeMap::new(),
            packages: tally::packages(records, &ledger),
            modifiers: tally::modifiers(records, &ledger),
            attempts: tally::attempts(&ledger),
            datasets: tally::datasets(records),
            trainings: tally::trainings(records),
            rounds: rounds::rounds(records, &ledger, seed),
            evaluation: evaluate(records, seed),
            selections: selections(records),
            evaluation_on_tape_agrees: None,
            phases: tally::phases(records, &ledger),
            actor_deaths: 0,
        };
        for record in records {
            match &record.event {
                Event::RunStarted(body) => {
                    report.run = Some(body.run.to_string());
                    report.code_version = Some(body.code_version.clone());
                }
                Event::ConfigResolved(body) => {
                    report.inputs = body
                        .inputs
                        .iter()
                        .map(|(name, digest)| (name.clone(), digest.to_string()))
                        .collect();
                }
                Event::RunResumed(_) => report.resumed += 1,
                Event::RunFinished(_) => report.finished = true,
                Event::ActorDied(_) => report.actor_deaths += 1,
                Event::EvaluationFinished(body) => {
                    report.evaluation_on_tape_agrees = Some(*body == report.evaluation);
                }
                _ => {}
            }
        }
        report
    }

    /// The report as JSON text, indented.
    ///
    /// # Errors
    /// Never for a report read from a tape; kept because JSON writing is fallible.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self)
    }

    /// The report as tables for a terminal ([`text()`]).
    pub fn to_text(&self) -> String {
        text(self)
    }

    /// The report as a picture ([`svg`]).
    ///
    /// # Errors
    /// `GT-REPORT-PICTURE`.
    pub fn to_svg(&self) -> Result<String, Failure> {
        svg(self)
    }

    /// A held-out estimate by name, such as `tuned.pass@1`.
    pub fn estimate(&self, name: &str) -> Option<Estimate> {
        self.evaluation.estimates.get(name).copied()
    }

    /// The estimates `{prefix}{k}{suffix}` in order of k, for curves:
    /// `curve("tuned.best@", ".verifier")`.
    pub fn curve(&self, prefix: &str, suffix: &str) -> Vec<(u32, Estimate)> {
        let mut points: Vec<(u32, Estimate)> = self
            .evaluation
            .estimates
            .iter()
            .filter_map(|(name, estimate)| {
                let k = name.strip_prefix(prefix)?.strip_suffix(suffix)?;
                Some((k.parse().ok()?, *estimate))
            })
            .collect();
        points.sort_by_key(|(k, _)| *k);
        points
    }
}

/// The newest configuration on the tape; null when there is none that can be read.
fn config_of(records: &[Record]) -> serde_json::Value {
    records
        .iter()
        .rev()
        .find_map(|record| match &record.event {
            Event::ConfigResolved(body) => serde_json::from_str(&body.config_json).ok(),
            _ => None,
        })
        .unwrap_or(serde_json::Value::Null)
}

fn settings_of(config: &serde_json::Value) -> Vec<Setting> {
    SETTINGS
        .iter()
        .filter_map(|name| {
            let value = config.pointer(&format!("/{}", name.replace('.', "/")))?;
            Some(Setting {
                name: (*name).to_owned(),
                value: value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned),
            })
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use synthetic::{Plan, tape};

    #[test]
    fn it_is_read_off_the_tape_alone_and_survives_json() {
        let records = tape(&Plan::small());
        let report = Report::from_records(&records);
        assert_eq!(report.run.as_deref(), Some("run-1"));
        assert_eq!(report.seed, 7);
        assert!(report.finished);
        assert_eq!(report.evaluation_on_tape_agrees, Some(true));
        assert!(
            report
                .settings
                .iter()
                .any(|s| s.name == "model.source" && s.value == "smollm2")
        );
        // Through JSON a float may lose its last bit, never what is printed.
        let again: Report = serde_json::from_str(&report.to_json().unwrap()).unwrap();
        assert_eq!(text(&again), text(&report));
        assert_eq!(Report::from_records(&records), report);
        let curve = report.curve("tuned.best@", ".verifier");
        assert_eq!(curve.iter().map(|p| p.0).collect::<Vec<_>>(), [1, 2, 3, 4]);
    }

    #[test]
    fn any_prefix_of_a_tape_has_a_report() {
        let records = tape(&Plan::small());
        for end in (0..records.len()).step_by(5) {
            let report = Report::from_records(&records[..end]);
            assert!(!text(&report).is_empty());
        }
        let none = Report::from_records(&[]);
        assert_eq!(none.evaluation.tasks, 0);
        assert!(svg(&none).unwrap().contains("no held-out"));
    }

    #[test]
    fn estimates_keep_the_names_that_they_have_on_tapes() {
        // Renamed, they would differ from what every older tape says.
        let report = Report::from_records(&tape(&Plan::small()));
        let k = report.evaluation.k;
        for rule in ["random", "shortest", "confidence", "majority", "oracle"] {
            let name = format!("tuned.best@{k}.{rule}");
            assert!(report.estimate(&name).is_some(), "{name}");
        }
    }

    #[test]
    fn an_evaluation_that_was_tampered_with_is_noticed() {
        let mut records = tape(&Plan::small());
        for record in &mut records {
            if let Event::EvaluationFinished(body) = &mut record.event {
                body.estimates.get_mut("tuned.pass@1").unwrap().mean = 0.99;
            }
        }
        let report = Report::from_records(&records);
        assert_eq!(report.evaluation_on_tape_agrees, Some(false));
        assert!(text(&report).contains("differ"));
    }
}
