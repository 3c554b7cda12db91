//! What a recipe gives: rows, and what became of the attempts that are in none.

use super::facts::AttemptFacts;
use super::select::Candidate;
use super::spec::Kind;
use crate::dataset::DatasetRow;
use crate::failure::{Failure, FailureKind};
use crate::ids::{AttemptId, Digest, TaskId};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// A row: what its JSON line says.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(untagged)]
pub enum Row {
    /// Of a policy or a verifier.
    Chat(DatasetRow),
    /// Of a recovery.
    Recovery(RecoveryRow),
    /// Of a win and a loss.
    Preference(PreferenceRow),
}

/// A recovery.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct RecoveryRow {
    /// Position of the step that failed.
    pub fail: usize,
    /// Position of the step that passed: the last turn.
    pub pass: usize,
    /// The rest; losses on the turns between the two and on the last.
    #[serde(flatten)]
    pub row: DatasetRow,
}

/// A win and a loss at one task.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct PreferenceRow {
    /// The task.
    pub task: TaskId,
    /// Its repository.
    pub repo: String,
    /// The win: the last view of it.
    pub chosen: DatasetRow,
    /// The loss: the last view of it.
    pub rejected: DatasetRow,
}

impl Row {
    /// Its conversations.
    pub fn parts(&self) -> Vec<&DatasetRow> {
        match self {
            Self::Chat(row) => vec![row],
            Self::Recovery(row) => vec![&row.row],
            Self::Preference(row) => vec![&row.chosen, &row.rejected],
        }
    }
}

/// A row, and what is not part of its line.
#[derive(Clone, PartialEq, Debug)]
pub struct BuiltRow {
    /// The row.
    pub row: Row,
    /// Tokens of it, as the recipe counts.
    pub tokens: u64,
    /// Messages with native calls and the tools, where they were asked for: one entry for
    /// each of [`Row::parts`].
    pub native: Vec<(Vec<Value>, Vec<Value>)>,
}

impl BuiltRow {
    /// Its JSON line, with the line's end.
    ///
    /// # Errors
    /// Never for rows read from a tape; kept because JSON writing is fallible.
    pub fn line(&self) -> Result<Vec<u8>, Failure> {
        let mut line = Vec::new();
        serde_json::to_writer(&mut line, &self.row).map_err(|e| {
            Failure::new(
                FailureKind::Internal,
                "GT-RUN-INTERNAL",
                format!("a row has no JSON form: {e}"),
            )
        })?;
        line.push(b'\n');
        Ok(line)
    }
}

/// A step of the funnel.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Stage {
    /// `admission`, the name of a filter (`turns`, the second one `turns#2`), `rows`, `pairs`.
    pub name: String,
    /// Attempts that are left after it.
    pub left: u64,
    /// Attempts that it dropped, by reason.
    pub dropped: BTreeMap<String, u64>,
}

/// Why attempts are in no row: stage and reason.
pub type Fates = BTreeMap<AttemptId, (String, String)>;

/// What a recipe gives.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Built {
    /// Rows in order of (task, attempt, place in the attempt); empty where they were handed
    /// on one by one ([`super::each`]).
    pub rows: Vec<BuiltRow>,
    /// What they are together.
    pub sum: Sum,
    /// Attempts of the prefix.
    pub attempts: u64,
    /// Events of the prefix.
    pub events: u64,
    /// What was left after each step.
    pub funnel: Vec<Stage>,
    /// Why each attempt that is not in the rows is not: stage and reason.
    pub fates: Fates,
    /// How often the tape was read.
    pub passes: u32,
}

/// Rows in numbers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sum {
    /// Rows.
    pub rows: u64,
    /// Tokens of them, as the recipe counts.
    pub tokens: u64,
    /// Conversations of wins. A pair has one, and one of a loss.
    pub resolved: u64,
    /// Conversations of losses.
    pub unresolved: u64,
    /// Digest of the rows as JSON lines.
    pub digest: Digest,
}

impl Default for Sum {
    /// Of no row.
    fn default() -> Self {
        Summing::default().finish()
    }
}

/// Rows on their way to a [`Sum`].
#[derive(Default)]
pub struct Summing {
    hasher: blake3::Hasher,
    counts: [u64; 4],
}

impl Summing {
    /// Takes one more row, and gives its line.
    ///
    /// # Errors
    /// As [`BuiltRow::line`].
    pub fn add(&mut self, row: &BuiltRow) -> Result<Vec<u8>, Failure> {
        let line = row.line()?;
        self.take(row, &line);
        Ok(line)
    }

    /// Takes one more row, whose line this is.
    pub(super) fn take(&mut self, row: &BuiltRow, line: &[u8]) {
        self.hasher.update(line);
        let [rows, tokens, wins, losses] = &mut self.counts;
        *rows += 1;
        *tokens += row.tokens;
        for part in row.row.parts() {
            *if part.resolved {
                &mut *wins
            } else {
                &mut *losses
            } += 1;
        }
    }

    /// All that was taken.
    pub fn finish(self) -> Sum {
        let [rows, tokens, resolved, unresolved] = self.counts;
        Sum {
            rows,
            tokens,
            resolved,
            unresolved,
            digest: Digest(self.hasher.finalize().to_hex().to_string()),
        }
    }
}

impl Built {
    /// The rows that are kept, as JSON lines.
    ///
    /// # Errors
    /// As [`Summing::add`].
    pub fn to_jsonl(&self) -> Result<Vec<u8>, Failure> {
        let mut sum = Summing::default();
        let mut out = Vec::new();
        for row in &self.rows {
            out.extend_from_slice(&sum.add(row)?);
        }
        Ok(out)
    }

    /// Attempts that were dropped, by stage and reason.
    pub fn dropped(&self) -> BTreeMap<String, u64> {
        let all = self.funnel.iter().flat_map(|stage| {
            stage.dropped.iter().map(|(reason, count)| {
                let name = if *reason == stage.name {
                    reason.clone()
                } else {
                    format!("{}:{reason}", stage.name)
                };
                (name, *count)
            })
        });
        all.collect()
    }

    /// Conversations by label. A pair is one of each.
    pub fn labels(&self) -> BTreeMap<String, u64> {
        BTreeMap::from([
            ("resolved".to_owned(), self.sum.resolved),
            ("unresolved".to_owned(), self.sum.unresolved),
        ])
    }

    /// Refuses a dataset that nothing can be learned from.
    ///
    /// # Errors
    /// `GT-DATASET-EMPTY`: which filter emptied it, or which class is missing and which
    /// filters dropped it.
    pub fn usable(&self, kind: Kind) -> Result<(), Failure> {
        let table = || {
            let lines = self.funnel.iter().map(|stage| {
                let why: Vec<String> = stage
                    .dropped
                    .iter()
                    .map(|(reason, n)| format!("{reason} {n}"))
                    .collect();
                format!(
                    "  {:<16} {:>8} left   {}",
                    stage.name,
                    stage.left,
                    why.join(", ")
                )
            });
            lines.collect::<Vec<_>>().join("\n")
        };
        let message = if self.attempts == 0 {
            "the tape holds no attempt".to_owned()
        } else if let Some(stage) = self.funnel.iter().find(|stage| stage.left == 0) {
            format!(
                "`{}` leaves none of {} attempts:\n{}",
                stage.name,
                self.attempts,
                table()
            )
        } else if self.sum.rows == 0 {
            format!("no row comes of {} attempts:\n{}", self.attempts, table())
        } else {
            let labels = self.labels();
            let missing = labels.iter().find(|(_, count)| **count == 0);
            match missing {
                Some((class, _)) if kind.needs_both() => {
                    format!(
                        "a {} dataset is of wins and losses, and none is {class}:\n{}",
                        kind.as_str(),
                        table()
                    )
                }
                _ => return Ok(()),
            }
        };
        Err(Failure::new(FailureKind::Input, "GT-DATASET-EMPTY", message)
            .with_help("loosen the filter that empties it, or make more attempts; `docs/datasets.md` says what each drops"))
    }
}

impl Stage {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            left: 0,
            dropped: BTreeMap::new(),
        }
    }

    pub(super) fn drop(&mut self, fates: &mut Fates, attempt: &AttemptFacts, reason: &str) {
        *self.dropped.entry(reason.to_owned()).or_default() += 1;
        fates.insert(
            attempt.attempt.clone(),
            (self.name.clone(), reason.to_owned()),
        );
    }
}

pub(super) fn retain<'a>(
    pool: &mut Vec<Candidate<'a>>,
    kept: Vec<bool>,
    mut dropped: impl FnMut(&Candidate<'a>),
) {
    let mut kept = kept.into_iter();
    pool.retain(|candidate| {
        let stays = kept.next().unwrap_or(false);
        if !stays {
            dropped(candidate);
        }
        stays
    });
}
