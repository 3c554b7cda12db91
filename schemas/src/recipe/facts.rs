//! What filters ask of attempts, folded from the tape without keeping what was said.
//!
//! The fold ends at the same facts however the streams were interleaved, as long as each
//! stream keeps its own order: facts of a stream come from its events alone, and clocks
//! enter where a recipe asks for dates and nowhere else.
//!
//! What was said is kept beside the facts as far as it fits ([`Fold::new`]'s budget): of small
//! tapes one pass is enough. Of larger ones another pass reads what did not fit.

use crate::attempt::{AttemptEnd, AttemptKey, EndReason, Step};
use crate::event::{Event, Record, TrajectoryImported};
use crate::failure::Failure;
use crate::finding::{Finding, Severity, refuses};
use crate::ids::{AttemptId, Digest, TaskId};
use crate::task::Task;
use crate::verdict::VerdictOutcome;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A tape, or a prefix of it, that can be read from its beginning more than once.
pub trait Source {
    /// Hands every record on, in order.
    ///
    /// # Errors
    /// The tape's.
    fn scan(&self, each: &mut dyn FnMut(Record)) -> Result<(), Failure>;
}

/// Records in memory.
#[derive(Clone, Copy, Debug)]
pub struct Records<'a>(pub &'a [Record]);

impl Source for Records<'_> {
    fn scan(&self, each: &mut dyn FnMut(Record)) -> Result<(), Failure> {
        self.0.iter().cloned().for_each(each);
        Ok(())
    }
}

/// An attempt without what was said in it.
#[derive(Clone, PartialEq, Debug)]
pub struct AttemptFacts {
    /// The attempt.
    pub attempt: AttemptId,
    /// What it means.
    pub key: AttemptKey,
    /// Which phase asked for it.
    pub purpose: String,
    /// Steps that are in order.
    pub steps: u32,
    /// Tokens that the policy said.
    pub tokens: u64,
    /// What its answers cost, US dollars: what an imported record says, else the endpoints.
    pub cost_usd: f64,
    /// How it ended.
    pub end: Option<EndReason>,
    /// Digest of its patch.
    pub patch: Option<Digest>,
    /// Whose rules read the tests last, and what they said.
    pub graded: Option<(String, VerdictOutcome)>,
    /// What was found when its conduct was examined last.
    pub findings: Vec<Finding>,
    /// Whether a replay diverged.
    pub abandoned: bool,
    /// Whether a failure of ours hit it.
    pub failed: bool,
    /// Clock readings of the first and the last event that counts, microseconds since 1970.
    pub at_micros: (u64, u64),
    /// Positions in the stream and ids of the events that count, steps apart.
    pub events: Vec<(u64, String)>,
    /// Sequence number of the last event that says what it did.
    pub last_content: u64,
}

impl AttemptFacts {
    /// What the tests said, in the light of its conduct; `None` when it was not graded.
    pub fn outcome(&self) -> Option<VerdictOutcome> {
        let (rules, outcome) = self.graded.as_ref()?;
        let refused =
            *outcome == VerdictOutcome::Resolved && refuses(rules, &self.findings).is_some();
        Some(if refused {
            VerdictOutcome::Unresolved
        } else {
            *outcome
        })
    }

    /// Whether the hidden tests pass.
    pub fn is_resolved(&self) -> bool {
        self.outcome() == Some(VerdictOutcome::Resolved)
    }

    /// The worst that was found.
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }

    fn saw(&mut self, record: &Record) {
        self.at_micros.0 = self.at_micros.0.min(record.at_micros);
        self.at_micros.1 = self.at_micros.1.max(record.at_micros);
    }
}

/// What was said and done in an attempt.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Content {
    /// Its steps, without sampled tokens and what endpoints said of their work.
    pub steps: Vec<Step>,
    /// How it ended.
    pub end: Option<AttemptEnd>,
    /// The record that it was imported from.
    pub imported: Option<TrajectoryImported>,
    /// Positions in the stream and ids of its steps' events.
    pub events: Vec<(u64, String)>,
    bytes: usize,
}

impl Content {
    /// Takes one more record of the attempt's; gives how many bytes it holds more.
    pub fn take(&mut self, record: Record) -> usize {
        let before = self.bytes;
        match record.event {
            Event::StepTaken(body) if body.step.index as usize == self.steps.len() => {
                let mut step = body.step;
                step.completion.tokens = Vec::new();
                step.completion.logprobs = Vec::new();
                step.completion.reasoning = String::new();
                step.completion.served = None;
                let further = step.further.iter().map(|acted| acted.observation.len());
                self.bytes +=
                    step.completion.text.len() + step.observation.len() + further.sum::<usize>();
                self.bytes += std::mem::size_of::<Step>() + record.event_id.len();
                self.events.push((record.version, record.event_id));
                self.steps.push(step);
            }
            Event::PatchSubmitted(body) => {
                self.bytes += body.end.patch.len();
                self.end = Some(body.end);
            }
            Event::TrajectoryImported(body) => {
                self.bytes += body.record.len();
                self.imported = Some(body);
            }
            _ => {}
        }
        self.bytes - before
    }
}

/// Facts of a prefix.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Facts {
    /// Tasks that were validated.
    pub tasks: BTreeMap<TaskId, Task>,
    /// Tasks that were registered and neither validated nor quarantined.
    pub unvalidated: BTreeMap<TaskId, Task>,
    /// Tasks that were found unfit.
    pub quarantined: BTreeSet<TaskId>,
    /// Attempts by id.
    pub attempts: BTreeMap<AttemptId, AttemptFacts>,
    /// Events that were read.
    pub events: u64,
}

/// Which attempts' content may be wanted: by what is known when they are scheduled, and by
/// a verdict (which may still change).
pub type Wanted<'a> = &'a dyn Fn(&AttemptFacts) -> bool;

/// The fold.
pub struct Fold<'a> {
    tasks: BTreeMap<TaskId, Task>,
    unvalidated: BTreeMap<TaskId, Task>,
    quarantined: BTreeSet<TaskId>,
    index: HashMap<AttemptId, usize>,
    attempts: Vec<(AttemptFacts, Option<Content>)>,
    wanted: Wanted<'a>,
    bytes: usize,
    budget: usize,
    events: u64,
}

impl<'a> Fold<'a> {
    /// An empty one that keeps at most `budget` bytes of content of wanted attempts.
    pub fn new(wanted: Wanted<'a>, budget: usize) -> Self {
        Self {
            tasks: BTreeMap::new(),
            unvalidated: BTreeMap::new(),
            quarantined: BTreeSet::new(),
            index: HashMap::new(),
            attempts: Vec::new(),
            wanted,
            bytes: 0,
            budget,
            events: 0,
        }
    }

    /// Takes one more record: what [`crate::trajectory::Ledger::apply`] says, without steps.
    pub fn apply(&mut self, record: Record) {
        self.events += 1;
        match &record.event {
            Event::TaskRegistered(body) => {
                self.unvalidated
                    .insert(body.task.id.clone(), body.task.clone());
            }
            Event::TaskValidated(body) => {
                if let Some(task) = self.unvalidated.remove(&body.task) {
                    self.tasks.insert(body.task.clone(), task);
                }
            }
            Event::TaskQuarantined(body) => {
                self.unvalidated.remove(&body.task);
                self.tasks.remove(&body.task);
                self.quarantined.insert(body.task.clone());
            }
            Event::AttemptScheduled(body) => {
                if self.index.contains_key(&body.attempt) {
                    return;
                }
                let facts = AttemptFacts {
                    attempt: body.attempt.clone(),
                    key: body.key.clone(),
                    purpose: body.purpose.clone(),
                    steps: 0,
                    tokens: 0,
                    cost_usd: 0.0,
                    end: None,
                    patch: None,
                    graded: None,
                    findings: Vec::new(),
                    abandoned: false,
                    failed: false,
                    at_micros: (record.at_micros, record.at_micros),
                    events: vec![(record.version, record.event_id.clone())],
                    last_content: record.seq,
                };
                let content =
                    ((self.wanted)(&facts) && self.bytes < self.budget).then(Content::default);
                self.index.insert(body.attempt.clone(), self.attempts.len());
                self.attempts.push((facts, content));
            }
            _ => self.of_attempt(record),
        }
    }

    fn of_attempt(&mut self, record: Record) {
        let id = match &record.event {
            Event::StepTaken(body) => &body.attempt,
            Event::PatchSubmitted(body) => &body.end.attempt,
            Event::Graded(body) => &body.attempt,
            Event::Regraded(body) => &body.attempt,
            Event::ConductExamined(body) => &body.attempt,
            Event::AttemptAbandoned(body) => &body.attempt,
            Event::AttemptFailed(body) => &body.attempt,
            Event::TrajectoryImported(body) => &body.attempt,
            _ => return,
        };
        let Some((facts, content)) = self.index.get(id).and_then(|at| self.attempts.get_mut(*at))
        else {
            return;
        };
        let mut is_content = false;
        match &record.event {
            Event::StepTaken(body) if body.step.index == facts.steps => {
                facts.steps += 1;
                facts.tokens += body.step.completion.said_tokens();
                facts.cost_usd += body.step.completion.cost_usd();
                facts.saw(&record);
                is_content = true;
            }
            Event::PatchSubmitted(body) => {
                facts.end = Some(body.end.reason);
                facts.patch = Some(Digest::of_bytes(body.end.patch.as_bytes()));
                facts.events.push((record.version, record.event_id.clone()));
                facts.saw(&record);
                is_content = true;
            }
            Event::Graded(_) | Event::Regraded(_) => {
                let (rules, outcome) = match &record.event {
                    Event::Regraded(body) => (&body.rules, body.verdict.outcome),
                    Event::Graded(body) => (&body.rules, body.verdict.outcome),
                    _ => return,
                };
                facts.graded = Some((rules.clone(), outcome));
                facts.events.push((record.version, record.event_id.clone()));
                facts.saw(&record);
                // A verdict that changes later brings it back, in a second pass.
                if let (Some(held), false) = (content.as_ref(), (self.wanted)(facts)) {
                    self.bytes -= held.bytes;
                    *content = None;
                }
            }
            Event::ConductExamined(body) => facts.findings = body.findings.clone(),
            Event::AttemptAbandoned(_) => facts.abandoned = true,
            Event::AttemptFailed(_) => facts.failed = true,
            Event::TrajectoryImported(body) => {
                if let Some(cost) = body.cost_usd {
                    facts.cost_usd = cost;
                }
                is_content = true;
            }
            _ => {}
        }
        if is_content {
            facts.last_content = record.seq;
            if let Some(held) = content {
                self.bytes += held.take(record);
                if self.bytes > self.budget {
                    // This one no longer fits: another pass reads it, if it is selected.
                    self.bytes -= held.bytes;
                    *content = None;
                }
            }
        }
    }

    /// The facts, and the content that was kept.
    pub fn finish(self) -> (Facts, HashMap<AttemptId, Content>) {
        let mut contents = HashMap::new();
        let mut attempts = BTreeMap::new();
        for (facts, content) in self.attempts {
            if let Some(content) = content {
                contents.insert(facts.attempt.clone(), content);
            }
            attempts.insert(facts.attempt.clone(), facts);
        }
        let facts = Facts {
            tasks: self.tasks,
            unvalidated: self.unvalidated,
            quarantined: self.quarantined,
            attempts,
            events: self.events,
        };
        (facts, contents)
    }
}
