//! What filters ask of attempts, folded from the tape without keeping what was said.
//!
//! The fold ends at the same facts however the streams were interleaved, as long as each
//! stream keeps its own order: facts of a stream come from its events alone, and clocks
//! enter where a recipe asks for dates and nowhere else.
//!
//! What was said is kept beside the facts as far as it fits ([`Fold::new`]'s budget): of small
//! tapes one pass is enough. Of larger ones another pass reads what did not fit.

use crate::attempt::{AttemptEnd, AttemptKey, EndReason, Step};
use crate::codec::CodecError;
use crate::event::{Event, Graded, Record, Regraded, TrajectoryImported};
use crate::failure::Failure;
use crate::finding::{Finding, Severity, refuses};
use crate::ids::{AttemptId, Digest, TaskId};
use crate::lazy::{LazyBody, LazyRecord, StepBytes};
use crate::task::Task;
use crate::verdict::VerdictOutcome;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A tape, or a prefix of it, that can be read from its beginning more than once.
pub trait Source: Sync {
    /// Hands every record on, in order; steps may still be bytes.
    ///
    /// # Errors
    /// The tape's.
    fn scan(&self, each: &mut dyn FnMut(LazyRecord)) -> Result<(), Failure>;
}

/// Records in memory.
#[derive(Clone, Copy, Debug)]
pub struct Records<'a>(pub &'a [Record]);

impl Source for Records<'_> {
    fn scan(&self, each: &mut dyn FnMut(LazyRecord)) -> Result<(), Failure> {
        self.0.iter().cloned().map(LazyRecord::from).for_each(each);
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

    /// A step: whether it is in order.
    fn stepped(&mut self, record: &LazyRecord, index: u32, tokens: u64, cost_usd: f64) -> bool {
        let is_next = index == self.steps;
        if is_next {
            self.steps += 1;
            self.tokens += tokens;
            self.cost_usd += cost_usd;
            self.saw(record.at_micros);
        }
        is_next
    }

    /// Another event of it: whether it says what it did.
    fn heard(&mut self, record: &LazyRecord, event: &Event) -> bool {
        match event {
            Event::PatchSubmitted(body) => {
                self.end = Some(body.end.reason);
                self.patch = Some(Digest::of_bytes(body.end.patch.as_bytes()));
                self.counts(record);
                return true;
            }
            Event::TrajectoryImported(body) => {
                if let Some(cost) = body.cost_usd {
                    self.cost_usd = cost;
                }
                return true;
            }
            Event::ConductExamined(body) => self.findings = body.findings.clone(),
            Event::AttemptAbandoned(_) => self.abandoned = true,
            Event::AttemptFailed(_) => self.failed = true,
            _ => {}
        }
        false
    }

    /// An event that a row names.
    fn counts(&mut self, record: &LazyRecord) {
        self.events.push((record.version, record.event_id.clone()));
        self.saw(record.at_micros);
    }

    fn saw(&mut self, at_micros: u64) {
        self.at_micros.0 = self.at_micros.0.min(at_micros);
        self.at_micros.1 = self.at_micros.1.max(at_micros);
    }
}

/// What was said and done in an attempt.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Content {
    steps: Vec<HeldStep>,
    /// How it ended.
    pub end: Option<AttemptEnd>,
    /// The record that it was imported from.
    pub imported: Option<TrajectoryImported>,
    /// Positions in the stream and ids of its steps' events.
    pub events: Vec<(u64, String)>,
    bytes: usize,
}

/// A step that is held.
#[derive(Clone, PartialEq, Debug)]
enum HeldStep {
    Decoded(Box<Step>),
    Bytes(StepBytes),
}

impl Content {
    /// Takes one more record of the attempt's; gives how many bytes it holds more.
    pub fn take(&mut self, record: LazyRecord) -> usize {
        let before = self.bytes;
        let held = match record.body {
            LazyBody::Step(step) if step.index as usize == self.steps.len() => {
                self.bytes += step.len() + std::mem::size_of::<HeldStep>();
                Some(HeldStep::Bytes(step))
            }
            LazyBody::Step(_) => None,
            LazyBody::Event(event) => match *event {
                Event::StepTaken(body) if body.step.index as usize == self.steps.len() => {
                    let step = body.step;
                    let further = step.further.iter().map(|acted| acted.observation.len());
                    self.bytes += step.completion.text.len()
                        + step.observation.len()
                        + further.sum::<usize>()
                        + 8 * step.completion.tokens.len()
                        + std::mem::size_of::<Step>();
                    Some(HeldStep::Decoded(Box::new(step)))
                }
                Event::PatchSubmitted(body) => {
                    self.bytes += body.end.patch.len();
                    self.end = Some(body.end);
                    None
                }
                Event::TrajectoryImported(body) => {
                    self.bytes += body.record.len();
                    self.imported = Some(body);
                    None
                }
                _ => None,
            },
        };
        if let Some(held) = held {
            self.bytes += record.event_id.len();
            self.events.push((record.version, record.event_id));
            self.steps.push(held);
        }
        self.bytes - before
    }

    /// Its steps, without sampled tokens and what endpoints said of their work.
    ///
    /// # Errors
    /// Damage that passed the checksums: a step that cannot be decoded.
    pub fn steps(&mut self) -> Result<Vec<Step>, CodecError> {
        let held = std::mem::take(&mut self.steps).into_iter();
        held.map(|held| {
            let mut step = match held {
                HeldStep::Decoded(step) => *step,
                HeldStep::Bytes(bytes) => bytes.decode()?,
            };
            step.completion.tokens = Vec::new();
            step.completion.logprobs = Vec::new();
            step.completion.reasoning = String::new();
            step.completion.served = None;
            Ok(step)
        })
        .collect()
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
    pub fn apply(&mut self, record: LazyRecord) {
        self.events += 1;
        let LazyBody::Event(event) = &record.body else {
            return self.of_attempt(record);
        };
        match &**event {
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

    fn of_attempt(&mut self, record: LazyRecord) {
        let Some(id) = record.attempt() else {
            return;
        };
        let Some((facts, content)) = self.index.get(id).and_then(|at| self.attempts.get_mut(*at))
        else {
            return;
        };
        let is_content = match &record.body {
            LazyBody::Step(step) => {
                facts.stepped(&record, step.index, step.said_tokens, step.cost_usd)
            }
            LazyBody::Event(event) => match &**event {
                Event::StepTaken(body) => {
                    let said = &body.step.completion;
                    facts.stepped(
                        &record,
                        body.step.index,
                        said.said_tokens(),
                        said.cost_usd(),
                    )
                }
                Event::Graded(Graded { rules, verdict, .. })
                | Event::Regraded(Regraded { rules, verdict, .. }) => {
                    facts.graded = Some((rules.clone(), verdict.outcome));
                    facts.counts(&record);
                    // A verdict that changes later brings it back, in a second pass.
                    if let (Some(held), false) = (content.as_ref(), (self.wanted)(facts)) {
                        self.bytes -= held.bytes;
                        *content = None;
                    }
                    false
                }
                event => facts.heard(&record, event),
            },
        };
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
