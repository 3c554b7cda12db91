//! What tapes say of attempts, folded one event at a time. Pure. The steps of an attempt
//! are kept until it ended and forgotten then: a tape of millions of steps fits.

use gametape_agent::metrics::{is_empty_patch, repeats_last_action, was_stuck};
use gametape_schemas::event::{AttemptScheduled, DatasetBuilt, TrainingFinished, TrainingStarted};
use gametape_schemas::recipe::{Filter, Given};
use gametape_schemas::{
    AttemptId, AttemptKey, CheckpointId, Digest, EndReason, Event, Finding, PolicyRef, Record,
    Split, Step, Task, TaskId, Verdict, VerdictOutcome,
};
use gametape_verifier::estimate::Candidate;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Characters of a patch or a statement that are kept for people.
pub const SHOWN: usize = 8_000;

/// What became of an attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The hidden tests spoke: it counts.
    Counted,
    /// A failure of ours: in no denominator.
    Infrastructure,
    /// Nothing is known yet: it runs, or waits for its tests.
    Open,
    /// Its replay diverged; another took its place.
    Abandoned,
}

/// One attempt.
#[derive(Clone, PartialEq, Debug)]
pub struct Attempt {
    /// Which.
    pub id: AttemptId,
    /// What it means.
    pub key: AttemptKey,
    /// Which phase asked for it.
    pub purpose: String,
    /// What became of it.
    pub outcome: Outcome,
    /// What selection rules know of it, but for the verifier's score.
    pub candidate: Candidate,
    /// Scores by verifier.
    pub scores: BTreeMap<CheckpointId, f64>,
    /// The rules of the grader that decided.
    pub rules: String,
    /// The detectors that looked at its conduct; empty where none did.
    pub detectors: String,
    /// Back end of its sandbox; empty where none was opened.
    pub backend: String,
    /// Why it ended.
    pub reason: Option<EndReason>,
    /// Stuck by the rules of OpenHands.
    pub stuck_rules: bool,
    /// The same action in the last three turns.
    pub stuck_paper: bool,
    /// Tokens that the policy said.
    pub said_tokens: u64,
    /// Tokens of the prompts that it read, every turn's whole.
    pub prompt_tokens: u64,
    /// What it cost, US dollars.
    pub cost_usd: f64,
    /// The beginning of its patch, for people.
    pub patch: String,
}

/// One task.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TaskFacts {
    /// Its repository.
    pub repo: String,
    /// Its side of the experiment.
    pub split: Split,
    /// How it was made: the format that it was imported from, or the forge's modifier.
    pub origin: String,
    /// Whether it was imported.
    pub imported: bool,
    /// The environment.
    pub environment: String,
    /// Digest of what is asked and of what decides: statement, patches, tests.
    pub content: Digest,
    /// The beginning of its statement, for people.
    pub statement: String,
    /// Whether it was found unfit later: its attempts do not count.
    pub quarantined: bool,
}

/// One training that ended, or began at least.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Training {
    /// Name within the run.
    pub name: String,
    /// Starting weights.
    pub base: String,
    /// Digest of the dataset.
    pub dataset: String,
    /// Rows of the dataset; absent where the tape does not say.
    pub rows: Option<u64>,
    /// Digest of the recipe that built it; empty where the tape does not say.
    pub recipe: String,
    /// How the dataset was sampled, where it is a part of a larger one: the unit of the
    /// recipe's `sample` (`attempt`, `task`, `repo`).
    #[serde(default)]
    pub sample: Option<String>,
    /// Hyperparameters, as JSON text.
    pub hyper: String,
    /// The weights that it made; empty until it ended.
    pub checkpoint: String,
}

/// One dataset.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DatasetFacts {
    /// Rows.
    pub rows: u64,
    /// Digest of its recipe.
    pub recipe: String,
    /// As [`Training::sample`].
    pub sample: Option<String>,
}

/// One tape.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Tape {
    /// What people call it: the directory.
    pub name: String,
    /// The run; absent on a tape without `RunStarted`.
    pub run: Option<String>,
    /// Versions of gametape that wrote on it.
    pub code_versions: BTreeSet<String>,
    /// The newest configuration, as JSON text.
    pub config: Option<String>,
    /// Tasks, by id.
    pub tasks: BTreeMap<TaskId, TaskFacts>,
    /// Attempts, in the order in which they were first scheduled.
    pub attempts: Vec<Attempt>,
    /// Trainings in order of beginning.
    pub trainings: Vec<Training>,
    /// Datasets, by digest.
    pub datasets: BTreeMap<String, DatasetFacts>,
    /// Content digest of the whole tape; empty where it was not taken.
    pub digest: String,
    /// Events read.
    pub events: u64,
}

/// A tape in the making.
#[derive(Default)]
pub struct Gather {
    tape: Tape,
    index: BTreeMap<AttemptId, usize>,
    open: BTreeMap<AttemptId, Vec<Step>>,
    graded: BTreeMap<AttemptId, (String, Verdict)>,
    findings: BTreeMap<AttemptId, Vec<Finding>>,
    failed: BTreeSet<AttemptId>,
}

impl Gather {
    /// Nothing yet, of a tape of this name.
    pub fn named(name: impl Into<String>) -> Self {
        let mut all = Self::default();
        all.tape.name = name.into();
        all
    }

    /// Folds records in order.
    pub fn fold<'a>(name: &str, records: impl IntoIterator<Item = &'a Record>) -> Tape {
        let mut all = Self::named(name);
        for record in records {
            all.apply(&record.event);
        }
        all.finish()
    }

    /// Takes one more event. Events of attempts that were never scheduled are ignored.
    pub fn apply(&mut self, event: &Event) {
        self.tape.events += 1;
        match event {
            Event::RunStarted(body) => {
                self.tape.run = Some(body.run.to_string());
                self.tape.code_versions.insert(body.code_version.clone());
            }
            Event::RunResumed(body) => {
                self.tape.code_versions.insert(body.code_version.clone());
            }
            Event::ConfigResolved(body) => self.tape.config = Some(body.config_json.clone()),
            Event::TaskRegistered(body) => {
                let format = body
                    .imported
                    .as_ref()
                    .map(|imported| imported.format.clone());
                let task = task_facts(&body.task, format);
                self.tape.tasks.insert(body.task.id.clone(), task);
            }
            Event::TaskQuarantined(body) => {
                if let Some(task) = self.tape.tasks.get_mut(&body.task) {
                    task.quarantined = true;
                }
            }
            Event::DatasetBuilt(body) => {
                let facts = dataset_facts(body);
                self.tape.datasets.insert(body.digest.0.clone(), facts);
            }
            Event::TrainingStarted(body) => self.training_started(body),
            Event::TrainingFinished(body) => self.training_finished(body),
            other => self.attempt_event(other),
        }
    }

    fn training_started(&mut self, body: &TrainingStarted) {
        let mut training = Training {
            name: body.name.clone(),
            base: body.base.to_string(),
            dataset: body.dataset.to_string(),
            rows: None,
            recipe: String::new(),
            sample: None,
            hyper: body.hyper_json.clone(),
            checkpoint: String::new(),
        };
        if let Some(facts) = self.tape.datasets.get(&training.dataset) {
            training.read(facts);
        }
        // Begun again after a kill: the same training.
        let trainings = &mut self.tape.trainings;
        match trainings
            .iter_mut()
            .find(|t| t.name == body.name && t.checkpoint.is_empty())
        {
            Some(again) => *again = training,
            None => trainings.push(training),
        }
    }

    fn training_finished(&mut self, body: &TrainingFinished) {
        let made = self.tape.trainings.iter_mut().rev();
        if let Some(training) = made.into_iter().find(|t| t.name == body.name) {
            training.checkpoint = body.checkpoint.to_string();
        }
    }

    fn attempt_event(&mut self, event: &Event) {
        match event {
            Event::AttemptScheduled(body) => self.scheduled(body),
            Event::SandboxOpened(body) => {
                if let Some(attempt) = self.attempt(&body.attempt) {
                    attempt.backend = body.backend.clone();
                }
            }
            Event::StepTaken(body) if self.index.contains_key(&body.attempt) => {
                let steps = self.open.entry(body.attempt.clone()).or_default();
                // A step that is there already is no second one.
                if steps.len() == body.step.index as usize {
                    steps.push(body.step.clone());
                }
            }
            Event::PatchSubmitted(body) => {
                let id = &body.end.attempt;
                let steps = self.open.remove(id).unwrap_or_default();
                if let Some(attempt) = self.attempt(id) {
                    attempt.ended(&steps, &body.end.patch);
                    attempt.reason = Some(body.end.reason);
                }
            }
            Event::Graded(body) => {
                let verdict = (body.rules.clone(), body.verdict.clone());
                self.graded.insert(body.attempt.clone(), verdict);
            }
            Event::Regraded(body) => {
                let verdict = (body.rules.clone(), body.verdict.clone());
                self.graded.insert(body.attempt.clone(), verdict);
            }
            Event::ConductExamined(body) => {
                self.findings
                    .insert(body.attempt.clone(), body.findings.clone());
                if let Some(attempt) = self.attempt(&body.attempt) {
                    attempt.detectors = body.detectors.clone();
                }
            }
            Event::VerifierScored(body) => {
                if let Some(attempt) = self.attempt(&body.attempt) {
                    attempt.scores.insert(body.verifier.clone(), body.score);
                }
            }
            Event::AttemptAbandoned(body) => {
                if let Some(attempt) = self.attempt(&body.attempt) {
                    attempt.outcome = Outcome::Abandoned;
                }
            }
            Event::AttemptFailed(body) => {
                self.failed.insert(body.attempt.clone());
            }
            Event::TrajectoryImported(body) => {
                if let (Some(cost), Some(attempt)) = (body.cost_usd, self.attempt(&body.attempt)) {
                    attempt.cost_usd = cost;
                }
            }
            _ => {}
        }
    }

    fn scheduled(&mut self, body: &AttemptScheduled) {
        if self.index.contains_key(&body.attempt) {
            return;
        }
        self.index
            .insert(body.attempt.clone(), self.tape.attempts.len());
        self.tape.attempts.push(Attempt {
            id: body.attempt.clone(),
            key: body.key.clone(),
            purpose: body.purpose.clone(),
            outcome: Outcome::Open,
            candidate: Candidate::default(),
            scores: BTreeMap::new(),
            rules: String::new(),
            detectors: String::new(),
            backend: String::new(),
            reason: None,
            stuck_rules: false,
            stuck_paper: false,
            said_tokens: 0,
            prompt_tokens: 0,
            cost_usd: 0.0,
            patch: String::new(),
        });
    }

    fn attempt(&mut self, id: &AttemptId) -> Option<&mut Attempt> {
        let at = *self.index.get(id)?;
        self.tape.attempts.get_mut(at)
    }

    /// The tape as far as it was read.
    pub fn finish(mut self) -> Tape {
        for attempt in &mut self.tape.attempts {
            if attempt.outcome == Outcome::Abandoned {
                continue;
            }
            // The tests' word in the light of its conduct, whichever came first.
            let none = Vec::new();
            let findings = self.findings.get(&attempt.id).unwrap_or(&none);
            let verdict = self
                .graded
                .get(&attempt.id)
                .map(|(rules, verdict)| (rules, verdict.in_the_light_of(rules, findings)));
            let has_ended = attempt.reason.is_some();
            attempt.outcome = match &verdict {
                Some((_, verdict)) if verdict.outcome == VerdictOutcome::Infrastructure => {
                    Outcome::Infrastructure
                }
                Some(_) if has_ended => Outcome::Counted,
                _ if self.failed.contains(&attempt.id) => Outcome::Infrastructure,
                _ => Outcome::Open,
            };
            if let Some((rules, verdict)) = verdict {
                attempt.rules = rules.clone();
                attempt.candidate.resolved = verdict.is_resolved();
            }
        }
        self.tape
    }
}

impl Training {
    /// Takes in what is known of its dataset.
    pub fn read(&mut self, facts: &DatasetFacts) {
        self.rows = Some(facts.rows);
        self.recipe = facts.recipe.clone();
        self.sample = facts.sample.clone();
    }
}

impl Attempt {
    /// Takes in its steps and what it left.
    fn ended(&mut self, steps: &[Step], patch: &str) {
        let trimmed = patch.trim();
        let all = steps.iter().flat_map(|step| &step.completion.logprobs);
        let (sum, count) = all.fold((0.0, 0_u64), |(sum, n), l| (sum + f64::from(*l), n + 1));
        self.candidate.patch = Digest::of_bytes(trimmed.as_bytes()).to_string();
        self.candidate.patch_chars = match is_empty_patch(patch) {
            true => 0,
            false => trimmed.chars().count(),
        };
        self.candidate.steps = steps.len();
        self.candidate.confidence = (count > 0 && f64::is_finite(sum)).then(|| sum / count as f64);
        self.stuck_paper = repeats_last_action(steps);
        self.stuck_rules = was_stuck(steps);
        self.said_tokens = steps.iter().map(|s| s.completion.said_tokens()).sum();
        self.candidate.tokens = (self.said_tokens > 0).then_some(self.said_tokens);
        self.prompt_tokens = steps
            .iter()
            .map(|s| u64::from(s.completion.prompt_tokens))
            .sum();
        // Imported ones have their cost from their record.
        let cost: f64 = steps.iter().map(|s| s.completion.cost_usd()).sum();
        self.cost_usd = self.cost_usd.max(cost);
        self.patch = cut(trimmed);
    }

    /// Whether it is a teacher's.
    pub fn is_teacher(&self) -> bool {
        self.key.policy.is_teacher()
    }
}

fn dataset_facts(body: &DatasetBuilt) -> DatasetFacts {
    // A recipe of the loop is none of these, and samples nothing.
    let given = serde_json::from_str::<Given>(&body.recipe_json).ok();
    let filters = given.as_ref().map(|given| given.recipe.filters.as_slice());
    let mut samples = filters.unwrap_or_default().iter().filter_map(|f| match f {
        Filter::Sample { unit, share, .. } if *share < 1.0 => Some(unit.as_str().to_owned()),
        _ => None,
    });
    DatasetFacts {
        rows: body.rows,
        recipe: Digest::of_bytes(body.recipe_json.as_bytes()).to_string(),
        sample: samples.next(),
    }
}

/// The beginning of a long text.
fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}\n[…]", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

fn task_facts(task: &Task, format: Option<String>) -> TaskFacts {
    let content = (
        (&task.base_commit, &task.bug_patch, &task.gold_patch),
        &task.problem_statement,
        (&task.fail_to_pass, &task.pass_to_pass),
        (&task.test_files, &task.hidden_paths),
        &task.execution,
    );
    TaskFacts {
        repo: task.repo.clone(),
        split: task.split,
        imported: format.is_some(),
        origin: format.unwrap_or_else(|| task.origin.clone()),
        environment: task.environment.to_string(),
        content: Digest::of_value(&content).unwrap_or_else(|_| Digest::of_bytes(b"?")),
        statement: cut(&task.problem_statement),
        quarantined: false,
    }
}

/// What a policy is called, with its kind: `model 3f2a…`, `endpoint gpt-x`, `oracle`.
pub fn policy_label(policy: &PolicyRef) -> String {
    match policy {
        PolicyRef::Oracle => "oracle".to_owned(),
        PolicyRef::Search => "search".to_owned(),
        PolicyRef::Human => "human".to_owned(),
        PolicyRef::Model { checkpoint } => format!("model {}", short(checkpoint.as_str())),
        PolicyRef::Endpoint { model } => format!("endpoint {model}"),
        PolicyRef::Outside { name } => format!("outside {name}"),
    }
}

/// A long id, shortened for people; names stay whole.
pub fn short(id: &str) -> &str {
    let is_hash = id.len() >= 24 && id.bytes().all(|b| b.is_ascii_hexdigit());
    match is_hash {
        true => id.get(..12).unwrap_or(id),
        false => id,
    }
}
