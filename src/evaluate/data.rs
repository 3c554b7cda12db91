//! What an evaluation says: the shape of `evaluation.json`. Shares lie in 0…1.

use super::gather::Training;
use gametape_schemas::event::Estimate;
use gametape_schemas::{Failure, FailureKind, PolicyRef, Sampling};
use gametape_verifier::estimate::{LogFit, Spread};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Version of this shape.
pub const SCHEMA: u32 = 1;

/// An evaluation of one tape or several.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Evaluation {
    /// [`SCHEMA`].
    pub schema_version: u32,
    /// Seed of the bootstrap.
    pub seed: u64,
    /// Resamples of each interval.
    pub resamples: usize,
    /// Attempts that a rule picks from, in order.
    pub ks: Vec<usize>,
    /// The tapes.
    pub runs: Vec<RunLine>,
    /// Trainings on them.
    pub trainings: Vec<Training>,
    /// Attempts that are alike, side by side.
    pub arms: Vec<Arm>,
    /// Between arms, paired by task.
    pub differences: Vec<Difference>,
    /// {base, tuned} × {single, verifier}; absent where no tape has both policies.
    pub ablation: Option<Ablation>,
    /// Over the number of training trajectories; absent with fewer than two numbers.
    pub training_curve: Option<TrainingCurve>,
    /// Between two sets of tasks.
    pub gaps: Vec<Gap>,
    /// What a reader must know.
    pub notes: Vec<String>,
}

/// One tape.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RunLine {
    /// Its directory's name.
    pub name: String,
    /// The run.
    pub run: Option<String>,
    /// Versions of gametape that wrote on it.
    pub code_versions: BTreeSet<String>,
    /// Events read.
    pub events: u64,
    /// Content digest of the tape, as `gametape tape verify` prints it; empty where it is
    /// not known.
    #[serde(default)]
    pub digest: String,
    /// The configuration by dotted name; empty where the tape has none.
    pub settings: BTreeMap<String, String>,
}

/// Which side of a training a policy is on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// What a training started from.
    Base,
    /// What a training made.
    Tuned,
}

/// Attempts of one policy in one scaffold with one sampling: draws that may be exchanged.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Arm {
    /// What it is called here; no two are called the same.
    pub label: String,
    /// Phases that asked for its attempts.
    pub purposes: BTreeSet<String>,
    /// Which side of a training it is on.
    pub role: Option<Role>,
    /// What decides its results.
    pub setup: Setup,
    /// Plain counts.
    pub counts: Counts,
    /// How attempts went, over those that count: see docs/evaluation.md.
    pub conduct: BTreeMap<String, Estimate>,
    /// By rule: `pass` and the names of [`gametape_verifier::estimate::Selector`].
    pub curves: BTreeMap<String, Vec<Point>>,
    /// By rule: what it gains over a random pick, paired by task.
    pub gains: BTreeMap<String, Vec<Point>>,
    /// What the verifier's scores are worth.
    pub verifier: BTreeMap<String, Estimate>,
    /// Each run and seed on its own.
    pub repetitions: Vec<Repetition>,
    /// Mean ± sd over repetitions, by quantity; empty with fewer than two.
    pub spread: BTreeMap<String, Spread>,
    /// Each task.
    pub tasks: Vec<TaskLine>,
}

/// What decides an arm's results: what `gametape explain` compares.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Setup {
    /// Who acts.
    pub policy: PolicyRef,
    /// Trainings that its weights came from, newest first.
    pub ancestry: Vec<Training>,
    /// Scaffold.
    pub scaffold: String,
    /// Sampling.
    pub sampling: Sampling,
    /// Seeds.
    pub seeds: BTreeSet<u64>,
    /// Rules of the grader.
    pub rules: BTreeSet<String>,
    /// Detectors of cheating.
    pub detectors: BTreeSet<String>,
    /// Back ends of sandboxes.
    pub backends: BTreeSet<String>,
    /// The verifier whose scores count; absent without any.
    pub verifier: Option<String>,
    /// Trainings that the verifier came from, newest first.
    pub verifier_ancestry: Vec<Training>,
    /// Versions of gametape that wrote the tapes.
    pub code_versions: BTreeSet<String>,
    /// Names of the tapes.
    pub runs: BTreeSet<String>,
}

/// Plain counts of an arm.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Attempts scheduled; those whose replay diverged are `abandoned` alone.
    pub attempts: u64,
    /// With a verdict of the hidden tests: all shares are of these.
    pub counted: u64,
    /// Of those, resolved.
    pub resolved: u64,
    /// Failures of ours: in no share.
    pub infrastructure: u64,
    /// Without an end or a verdict yet: in no share.
    pub open: u64,
    /// Replays that diverged.
    pub abandoned: u64,
    /// The same attempt on a second tape: left out.
    pub duplicates: u64,
    /// At tasks that were found unfit: left out.
    pub quarantined: u64,
    /// Counted, and without a score of the verifier.
    pub unscored: u64,
    /// Tasks.
    pub tasks: u64,
    /// Tasks without any attempt that counts: in no estimate.
    pub tasks_without: u64,
    /// Most counted attempts of a task.
    pub most: u64,
    /// Fewest counted attempts of a task that has any.
    pub least: u64,
    /// Tokens said, all attempts.
    pub said_tokens: u64,
    /// Tokens of prompts, every turn's whole, all attempts.
    pub prompt_tokens: u64,
    /// US dollars, all attempts.
    pub cost_usd: f64,
}

/// An estimate at k.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Point {
    /// Attempts that are picked from.
    pub k: usize,
    /// Tasks with at least k counted attempts, on which the rule is defined.
    pub tasks: usize,
    /// The estimate.
    pub estimate: Estimate,
}

/// One run and seed of an arm.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Repetition {
    /// The tape.
    pub run: String,
    /// Seed of the attempts.
    pub seed: u64,
    /// Tasks with an attempt that counts.
    pub tasks: usize,
    /// Means over tasks: `pass@1`, `verifier@8`, ….
    pub values: BTreeMap<String, f64>,
}

/// One task of an arm.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TaskLine {
    /// Its id.
    pub task: String,
    /// Its repository; empty where the tape does not say.
    pub repo: String,
    /// How it was made; empty where the tape does not say.
    pub origin: String,
    /// Its environment; empty where the tape does not say.
    pub environment: String,
    /// Digest of what is asked and of what decides; empty where the tape does not say.
    pub content: String,
    /// Attempts that count.
    pub attempts: usize,
    /// Of those, resolved.
    pub resolved: usize,
    /// Failures of ours.
    pub infrastructure: usize,
    /// The attempt that the verifier picks of all.
    pub picked: Option<String>,
    /// Expectations by rule and k: `pass@4`, `verifier@8`, ….
    pub values: BTreeMap<String, f64>,
}

/// A difference between arms over the tasks that both have.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Difference {
    /// The arm that is subtracted from.
    pub arm: String,
    /// The arm that is subtracted.
    pub minus: String,
    /// `pass@1`, `verifier@8`, ….
    pub quantity: String,
    /// Common tasks.
    pub tasks: usize,
    /// The difference.
    pub estimate: Estimate,
}

/// {base, tuned} × {single, verifier}, on tasks that have all of it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Ablation {
    /// Attempts that the verifier picks from.
    pub k: usize,
    /// Each run and seed.
    pub repetitions: Vec<Repetition>,
    /// `base.single`, `base.verifier`, `tuned.single`, `tuned.verifier`; and the effects
    /// `training`, `verifier`, `both`.
    pub cells: BTreeMap<String, Cell>,
}

/// A number of the ablation.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Cell {
    /// Over repetitions.
    pub spread: Spread,
    /// Over tasks; with one repetition only.
    pub estimate: Option<Estimate>,
}

/// Results over the number of trajectories that a policy was trained on.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TrainingCurve {
    /// Attempts that the verifier picks from in `best`; 0 without a verifier.
    pub k: usize,
    /// In order of rows.
    pub points: Vec<TrainingPoint>,
    /// The line through Pass@1 of those with rows, over ln(rows).
    pub fit: Option<LogFit>,
    /// The same for each way of sampling on its own, where there are any: its points and the
    /// whole dataset's.
    #[serde(default)]
    pub fits: BTreeMap<String, LogFit>,
}

/// A trained policy.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct TrainingPoint {
    /// Its arm.
    pub arm: String,
    /// Rows of the dataset that its last training read; 0 for a base.
    pub rows: u64,
    /// How that dataset was sampled out of a larger one (`attempt`, `task`, `repo`); absent
    /// for a whole one, and for a base.
    #[serde(default)]
    pub sample: Option<String>,
    /// Pass@1.
    pub pass: Estimate,
    /// Best@k of the verifier.
    pub best: Option<Estimate>,
}

/// One quantity of one arm on two sets of tasks.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Gap {
    /// The arm.
    pub arm: String,
    /// `pass@1`, `verifier@8`, ….
    pub quantity: String,
    /// Names of the sets.
    pub sets: [String; 2],
    /// Tasks of each that have the quantity.
    pub tasks: [usize; 2],
    /// Each set's estimate.
    pub estimates: [Estimate; 2],
    /// First minus second; the sets are resampled apart.
    pub difference: Estimate,
}

/// A failure of what the person asked for.
pub(super) fn wrong(code: &str, message: impl Into<String>, help: &str) -> Failure {
    Failure::new(FailureKind::Input, code, message).with_help(help)
}
