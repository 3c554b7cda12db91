//! What looks like cheating: detectors over a task, a patch and the steps that led to it.
//!
//! Everything here is a pure function. Detectors know the gold patch and the hidden tests:
//! what they find is for the judge and for the tape, never for an agent.
//!
//! Layout, in reading order:
//! - [`view`], [`outside`]: steps, ours and others', as detectors see them
//! - `shell`, `python`, `patch`, `paths`: readers of text
//! - `deeds`: what an action does; `known`: what is known of the task
//! - `history`, `network`, `edits`, `startup`, `forged`, `hardcoded`, `gold`, `runner`: one
//!   detector each
//!
//! A finding is [`Severity::Hard`] only where honest work practically cannot look the same;
//! what the statement, the gold patch or the code that was there does too is never hard.
//! docs/conduct.md says what each detector takes for what.

mod deeds;
mod edits;
mod forged;
mod gold;
mod hardcoded;
mod history;
mod known;
mod network;
pub mod outside;
mod patch;
mod paths;
mod python;
mod runner;
mod shell;
mod startup;
pub mod view;

pub use view::{Action, View, views};

use gametape_schemas::{Finding, FindingKind, Severity, Task};
use std::collections::{BTreeMap, BTreeSet};

/// Version of the detectors, as it stands on the tape.
pub const DETECTORS: &str = "conduct/1";

/// Characters of evidence that are kept.
const EVIDENCE: usize = 400;

/// Findings of one kind and severity that are kept: the first of them. An event has room
/// for so many, and more say no more.
const OF_A_KIND: usize = 12;

/// What looks like cheating in an attempt: in its steps, in order, and then in the patch
/// that it left (a unified diff against the task's base state; empty if none). Takes time
/// in proportion to the text.
pub fn examine<'a>(
    task: &Task,
    patch: &str,
    steps: impl IntoIterator<Item = View<'a>>,
) -> Vec<Finding> {
    let known = known::Known::of(task);
    let mut found = Found::default();
    let mut history = history::Watch::new(&known);
    let mut network = network::Watch::new(&known);
    let mut edits = edits::Watch::new(&known);
    let mut gold = gold::Watch::new(&known);
    for view in steps {
        found.step = Some(view.index);
        let deeds = deeds::of(&view.action);
        gold.before(&view, &deeds);
        history.step(&view, &deeds, &mut found);
        network.step(&view, &deeds, &mut found);
        edits.step(&view, &deeds, &mut found);
        startup::step(&deeds, &mut found);
        forged::step(&known, &deeds, &mut found);
        runner::step(&deeds, &mut found);
        gold.after(&view, &mut found);
    }
    found.step = None;
    let files = patch::read(patch);
    edits::patch(&known, &files, &mut found);
    startup::patch(&known, &files, &mut found);
    forged::patch(&known, &files, &mut found);
    hardcoded::patch(&known, &files, &mut found);
    runner::patch(&known, &files, &mut found);
    found.findings
}

/// Why strict rules refuse to resolve: the first hard finding, in a sentence.
pub fn refuses(findings: &[Finding]) -> Option<String> {
    gametape_schemas::finding::refuses(crate::RULES, findings)
}

/// Findings as they come in.
#[derive(Debug, Default)]
struct Found {
    /// The step that is looked at; `None` for the patch.
    step: Option<u32>,
    findings: Vec<Finding>,
    seen: BTreeSet<(FindingKind, Severity, Option<u32>, Option<String>)>,
    counts: BTreeMap<(FindingKind, Severity), usize>,
}

impl Found {
    /// Whether a finding of this kind, about no file, would be kept: evidence need not be put together else.
    fn has_room(&self, kind: FindingKind, severity: Severity) -> bool {
        let count = self.counts.get(&(kind, severity)).copied();
        count.unwrap_or_default() < OF_A_KIND
            && !self.seen.contains(&(kind, severity, self.step, None))
    }

    /// Takes a finding. One of each kind is kept for a step and a file.
    fn add(&mut self, kind: FindingKind, severity: Severity, path: Option<&str>, evidence: &str) {
        let key = (kind, severity, self.step, path.map(str::to_owned));
        let count = self.counts.entry((kind, severity)).or_default();
        if *count >= OF_A_KIND || !self.seen.insert(key) {
            return;
        }
        *count += 1;
        self.findings.push(Finding {
            kind,
            severity,
            step: self.step,
            path: path.map(str::to_owned),
            evidence: capped(evidence),
        });
    }
}

/// The beginning of a text.
fn capped(text: &str) -> String {
    let text = text.trim();
    match text.char_indices().nth(EVIDENCE) {
        Some((end, _)) => text.get(..end).unwrap_or_default().to_owned(),
        None => text.to_owned(),
    }
}

/// The beginning of a command, short enough that what came of it fits beside it.
fn beginning(command: &str) -> &str {
    let end = command.char_indices().nth(EVIDENCE * 2 / 3);
    end.map_or(command, |(end, _)| command.get(..end).unwrap_or_default())
}
