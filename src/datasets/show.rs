//! What is in a dataset, for people and machines.

use crate::trajectories::paint::harmless;
use gametape_schemas::TaskId;
use gametape_schemas::event::DatasetBuilt;
use gametape_schemas::recipe::diff::{Change, Diff};
use gametape_schemas::recipe::{Built, BuiltRow, Stage};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Upper bounds of the histogram's bins, in tokens; the last bin has none.
const BINS: [u64; 9] = [256, 512, 1024, 2048, 4096, 8192, 16_384, 32_768, 65_536];

/// Rows that people are shown the beginning of.
const FIRST: usize = 3;

/// A dataset in numbers.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// Its name.
    pub name: String,
    /// Digest of its rows.
    pub digest: String,
    /// The prefix that it was folded over.
    pub prefix_end: u64,
    /// Attempts of the prefix.
    pub attempts: u64,
    /// Rows.
    pub rows: u64,
    /// Tokens of all rows.
    pub tokens: u64,
    /// What was left after each filter.
    pub funnel: Vec<Stage>,
    /// Rows by label.
    pub labels: BTreeMap<String, u64>,
    /// Rows that are off-policy.
    pub off_policy: u64,
    /// Rows by repository.
    pub repos: BTreeMap<String, u64>,
    /// Tasks that have a row.
    pub tasks: u64,
    /// Rows of at most so many tokens that are in no smaller bin; the last is of all above.
    pub tokens_histogram: Vec<(Option<u64>, u64)>,
    /// The first rows, as `task attempt: the first trained turn`.
    pub first: Vec<String>,
}

/// Rows on their way to a [`Summary`].
#[derive(Debug, Default)]
pub struct Tally {
    repos: BTreeMap<String, u64>,
    tasks: BTreeSet<TaskId>,
    bins: [u64; BINS.len() + 1],
    off_policy: u64,
    first: Vec<String>,
}

impl Tally {
    /// Takes one more row.
    pub fn add(&mut self, row: &BuiltRow) {
        let parts = row.row.parts();
        let Some(part) = parts.first() else { return };
        *self.repos.entry(part.repo.clone()).or_default() += 1;
        self.tasks.insert(part.task.clone());
        let at = BINS.iter().position(|most| row.tokens <= *most);
        if let Some(bin) = self.bins.get_mut(at.unwrap_or(BINS.len())) {
            *bin += 1;
        }
        self.off_policy += u64::from(parts.iter().any(|part| part.off_policy));
        if self.first.len() < FIRST
            && let Some(said) = part.messages.iter().find(|message| message.train)
        {
            let words: Vec<&str> = said.content.split_whitespace().collect();
            let line: String = words.join(" ").chars().take(100).collect();
            let attempt: String = part.attempt.as_str().chars().take(12).collect();
            self.first.push(format!("{} {attempt}: {line}", part.task));
        }
    }
}

impl Summary {
    /// Of a dataset that was built or rebuilt.
    pub fn of(event: &DatasetBuilt, built: &Built, tally: Tally) -> Self {
        Self {
            name: event.name.clone(),
            digest: event.digest.to_string(),
            prefix_end: event.prefix_end,
            attempts: built.attempts,
            rows: built.sum.rows,
            tokens: built.sum.tokens,
            funnel: built.funnel.clone(),
            labels: built.labels(),
            off_policy: tally.off_policy,
            tasks: tally.tasks.len() as u64,
            repos: tally.repos,
            tokens_histogram: BINS
                .iter()
                .map(|most| Some(*most))
                .chain([None])
                .zip(tally.bins)
                .collect(),
            first: tally.first,
        }
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut out = format!(
            "{}: {} rows of {} tasks, {} tokens, digest {} (first {} events, {} attempts)\n\n{:<18} {:>9}   dropped\n",
            self.name,
            self.rows,
            self.tasks,
            self.tokens,
            self.digest.get(..12).unwrap_or(&self.digest),
            self.prefix_end,
            self.attempts,
            "filter",
            "left"
        );
        out.push_str(&format!("{:<18} {:>9}\n", "(scheduled)", self.attempts));
        for stage in &self.funnel {
            let dropped: Vec<String> = stage
                .dropped
                .iter()
                .map(|(reason, count)| format!("{reason} {count}"))
                .collect();
            out.push_str(&format!(
                "{:<18} {:>9}   {}\n",
                stage.name,
                stage.left,
                dropped.join(", ")
            ));
        }
        let counts = |map: &BTreeMap<String, u64>| {
            let all = map
                .iter()
                .map(|(name, count)| format!("{} {count}", harmless(name)));
            all.collect::<Vec<_>>().join(", ")
        };
        out.push_str(&format!(
            "\nlabels: {}; off-policy {}\nrepositories: {}\n\ntokens of a row\n",
            counts(&self.labels),
            self.off_policy,
            counts(&self.repos)
        ));
        let most = self
            .tokens_histogram
            .iter()
            .map(|(_, count)| *count)
            .max()
            .unwrap_or(0)
            .max(1);
        for (bound, count) in self.tokens_histogram.iter().filter(|(_, count)| *count > 0) {
            let name = bound.map_or("more".to_owned(), |bound| format!("<= {bound}"));
            let bar = usize::try_from((count * 40).div_ceil(most)).unwrap_or(40);
            out.push_str(&format!("{name:>9} {count:>8} {}\n", "#".repeat(bar)));
        }
        if !self.first.is_empty() {
            out.push_str("\nfirst rows\n");
        }
        for line in &self.first {
            out.push_str(&format!("  {}\n", harmless(line)));
        }
        out
    }
}

/// A difference, for people; at most `most` rows of each sort.
pub fn diff_text(diff: &Diff, most: usize) -> String {
    let mut out = String::new();
    for line in &diff.recipe {
        out.push_str(&format!("recipe: {}\n", harmless(line)));
    }
    out.push_str(&format!(
        "{} rows added, {} removed, {} changed, {} the same\n",
        diff.added.len(),
        diff.removed.len(),
        diff.changed.len(),
        diff.same
    ));
    let mut tell = |sign: char, changes: &[Change]| {
        for change in changes.iter().take(most) {
            let names: Vec<&str> = change.attempts.iter().map(|a| a.as_str()).collect();
            let line = format!("{} {}", change.task, names.join(" / "));
            out.push_str(&format!("{sign} {}\n", harmless(&line)));
            for line in &change.other_dropped {
                out.push_str(&format!("    dropped there: {}\n", harmless(line)));
            }
            for line in change.events.iter().take(5) {
                out.push_str(&format!("    event {}\n", harmless(line)));
            }
        }
        if changes.len() > most {
            out.push_str(&format!(
                "{sign} … and {} more (--json has all)\n",
                changes.len() - most
            ));
        }
    };
    tell('+', &diff.added);
    tell('-', &diff.removed);
    tell('~', &diff.changed);
    out
}
