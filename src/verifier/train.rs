//! Attempts with verdicts to a verifier in a directory, and its ancestry onto the tape.

use super::args::{TrainArgs, VerifierKind};
use super::gather::{self, Found, Wanted};
use super::{check_examples, too_little, tune};
use crate::datasets::{make, voices};
use gametape_schemas::event::{TrainingFinished, TrainingStarted};
use gametape_schemas::recipe::{Kind, Options, Row, build};
use gametape_schemas::{
    AttemptId, CheckpointId, Digest, Event, Failure, FailureKind, NewEvent, StreamId, Task,
    Trajectory,
};
use gametape_tape::{Prefix, SledTape};
use gametape_verifier::head::{Example, Head, HeadRecipe, train};
use gametape_verifier::validate::Candidate;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What came of a training.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Done {
    /// Name of the verifier.
    pub verifier: CheckpointId,
    /// What it is.
    pub kind: &'static str,
    /// Its directory.
    pub path: PathBuf,
    /// Attempts that it learned from.
    pub attempts: usize,
    /// Of these, resolved.
    pub resolved: usize,
    /// Attempts by repository.
    pub repos: BTreeMap<String, usize>,
    /// Attempts by policy in its scaffold.
    pub policies: BTreeMap<String, usize>,
    /// Whether tasks that are for evaluation were among them.
    pub evaluation_tasks: bool,
    /// Attempts whose task is known by its opening alone.
    pub stated: u64,
    /// Attempts left out, by reason.
    pub left_out: BTreeMap<&'static str, u64>,
    /// Mean log-loss, nats, on repositories that were not learned from, before calibration.
    pub unseen_loss: Option<f64>,
    /// Penalty that was chosen, of a head.
    pub penalty: Option<f64>,
    /// Repositories that a language model was calibrated on, and did not learn from.
    pub calibrated_on: Vec<String>,
    /// Temperature of the calibration.
    pub temperature: f64,
    /// Bias of the calibration.
    pub bias: f64,
    /// Features that move the logit most: name and weight of one deviation.
    pub strongest: Vec<(String, f64)>,
    /// Whether the training is on the run's tape.
    pub on_tape: bool,
}

/// Features that are shown.
const SHOWN: usize = 8;

/// Trains.
///
/// # Errors
/// `GT-VERIFIER-EXAMPLES`, `GT-VERIFIER-HEAD`, `GT-DATASET-RECIPE`, `GT-MODEL-…`,
/// `GT-TRAIN-…`, and the tape's.
pub fn run(args: &TrainArgs) -> Result<Done, Failure> {
    match args.kind {
        VerifierKind::Head => head(args),
        VerifierKind::Lora => tune::run(args),
    }
}

fn head(args: &TrainArgs) -> Result<Done, Failure> {
    let found = examples(args, |task, attempt| Candidate::of(&task, &attempt))?;
    check_examples(&found, |c| &c.example)?;
    let examples: Vec<&Example> = found.kept.iter().map(|c| &c.example).collect();
    let recipe = HeadRecipe::default();
    let head = train(&examples, &recipe).ok_or_else(|| {
        too_little(
            "a head could not be fitted",
            "add attempts of other repositories",
        )
    })?;
    head.save(&args.out)?;
    let id = head.id()?;
    let on_tape = match args.which.runs.as_slice() {
        [run] => {
            let made = Made {
                base: CheckpointId::new("none"),
                dataset: head.trained.examples.clone(),
                hyper_json: serde_json::to_string(&recipe).map_err(told)?,
                steps: 1,
                tokens: (0, 0),
                loss: head.trained.unseen_loss,
                wall_seconds: 0.0,
            };
            put_on_tape(run, &id, made, &args.out)?;
            true
        }
        _ => false,
    };
    Ok(of_head(&head, id, args, &found, on_tape))
}

/// The attempts that are asked for, as `keep` has them.
pub(super) fn examples<T>(
    args: &TrainArgs,
    keep: impl Fn(Task, Trajectory) -> Option<T>,
) -> Result<Found<T>, Failure> {
    let mut wanted = Wanted::of(&args.which);
    wanted.held_out = args.held_out;
    let mut found = Found::default();
    let mut seen = BTreeSet::new();
    for run in &args.which.runs {
        let tape = gather::open(run)?;
        if let Some(recipe) = &args.recipe {
            wanted.only = Some(selected(&tape, recipe)?);
        }
        gather::each(&tape, &wanted, &mut seen, &mut found, |task, attempt| {
            Ok(keep(task, attempt))
        })?;
    }
    Ok(found)
}

/// Attempts that a recipe selects of a tape.
fn selected(tape: &SledTape, recipe: &Path) -> Result<BTreeSet<AttemptId>, Failure> {
    let prefix = Prefix::new(tape, None);
    let (given, problems) = make::given(recipe, &prefix)?;
    problems.print();
    if given.recipe.kind != Kind::Verifier {
        return Err(Failure::new(
            FailureKind::Input,
            "GT-DATASET-RECIPE",
            format!("{} is no recipe of a verifier's dataset", recipe.display()),
        )
        .with_help("a recipe with `kind = \"verifier\"` keeps wins and losses"));
    }
    let built = build(&given, &prefix, &voices()?, Options::default())?;
    let attempts = built.rows.into_iter().filter_map(|row| match row.row {
        Row::Chat(row) => Some(row.attempt),
        _ => None,
    });
    Ok(attempts.collect())
}

/// What the tape is told of a training.
pub(super) struct Made {
    /// Weights that it began with.
    pub base: CheckpointId,
    /// Digest of what it learned from.
    pub dataset: Option<Digest>,
    /// Its knobs.
    pub hyper_json: String,
    /// Its steps.
    pub steps: u64,
    /// Tokens of all epochs, and those with loss in one.
    pub tokens: (u64, u64),
    /// Loss of its last step, or on what was not learned from.
    pub loss: Option<f64>,
    /// How long it took here.
    pub wall_seconds: f64,
}

/// Beginning and end of the training, once.
pub(super) fn put_on_tape(
    run: &Path,
    id: &CheckpointId,
    made: Made,
    out: &Path,
) -> Result<(), Failure> {
    let tape = gather::open(run)?;
    let short: String = id.as_str().chars().take(12).collect();
    let name = format!("verifier-{short}");
    let stream = StreamId::training(&name);
    if !tape.read_stream(&stream, 0, 1)?.is_empty() {
        return Ok(());
    }
    let path = out.strip_prefix(run).unwrap_or(out).display().to_string();
    let (tokens, loss_tokens) = made.tokens;
    let started = TrainingStarted {
        name: name.clone(),
        base: made.base,
        dataset: made.dataset.unwrap_or_else(|| Digest::of_bytes(b"")),
        hyper_json: made.hyper_json,
        steps: made.steps,
        tokens,
        loss_tokens,
        origin: None,
    };
    let finished = TrainingFinished {
        name,
        checkpoint: id.clone(),
        path,
        steps: made.steps,
        final_loss: made.loss.unwrap_or(f64::NAN),
        tokens,
        wall_seconds: made.wall_seconds,
        weights: None,
    };
    tape.append(vec![
        NewEvent::named(stream.clone(), "started", Event::TrainingStarted(started)),
        NewEvent::named(stream, "finished", Event::TrainingFinished(finished)),
    ])?;
    Ok(())
}

fn of_head(
    head: &Head,
    id: CheckpointId,
    args: &TrainArgs,
    found: &Found<Candidate>,
    on_tape: bool,
) -> Done {
    let (repos, policies) = tally(found.kept.iter().map(|c| &c.example));
    let mut strongest: Vec<(String, f64)> = head
        .names
        .iter()
        .cloned()
        .zip(head.weights.iter().copied())
        .collect();
    strongest.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
    strongest.truncate(SHOWN);
    Done {
        verifier: id,
        kind: "head",
        path: args.out.clone(),
        attempts: head.trained.attempts,
        resolved: head.trained.resolved,
        repos,
        policies,
        evaluation_tasks: head.trained.evaluation_tasks,
        stated: found.stated,
        left_out: found.dropped.clone(),
        unseen_loss: head.trained.unseen_loss,
        penalty: Some(head.penalty),
        temperature: head.temperature,
        bias: head.bias,
        strongest,
        calibrated_on: Vec::new(),
        on_tape,
    }
}

/// Attempts by repository, and by policy in its scaffold.
pub(super) type Tally = (BTreeMap<String, usize>, BTreeMap<String, usize>);

/// Counts examples.
pub(super) fn tally<'a>(examples: impl Iterator<Item = &'a Example>) -> Tally {
    let (mut repos, mut policies) = (BTreeMap::new(), BTreeMap::new());
    for example in examples {
        *repos.entry(example.repo.clone()).or_default() += 1;
        let [policy, _] = &example.groups;
        *policies.entry(policy.clone()).or_default() += 1;
    }
    (repos, policies)
}

pub(super) fn told(error: impl std::fmt::Display) -> Failure {
    Failure::new(
        FailureKind::Internal,
        "GT-RUN-INTERNAL",
        format!("the training cannot be told: {error}"),
    )
}
