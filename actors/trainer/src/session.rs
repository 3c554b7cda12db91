//! One training from start (or from where an earlier process was) to end. Blocking:
//! it runs on the trainer's own thread.

use crate::checkpoint::{self, Cursor};
use crate::identity::Identity;
use crate::order::{Plan, micro_batches};
use gametape_model::optimizer::Schedule;
use gametape_model::train::{
    Learner, LearnerOptions, Precision, TrainError, TrainingRow, load_for_training, set_threads,
};
use gametape_model::{ChatTokenizer, ModelError, save_directory};
use gametape_schemas::event::TrainingProgressed;
use gametape_schemas::message::{ModelSource, Train, Trained, TrainingNews};
use gametape_schemas::{DatasetRow, Digest, Failure, FailureKind};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;
use std::time::Instant;

/// How a machine trains; not what is learnt.
#[derive(Clone, Debug)]
pub struct TrainerOptions {
    /// Threads for libtorch; 0 = all that this process may use.
    pub threads: usize,
    /// Tokens of a micro-batch: bounds the memory of activations (about 20 KB a token
    /// and trained layer of the default model).
    pub micro_tokens: usize,
    /// Most bytes for remembered outputs of frozen layers.
    pub cache_bytes: usize,
    /// Number format of products; `None` takes what the processor computes natively.
    pub precision: Option<Precision>,
}

impl Default for TrainerOptions {
    fn default() -> Self {
        Self {
            threads: 0,
            micro_tokens: 2048,
            cache_bytes: 1 << 30,
            precision: None,
        }
    }
}

/// Asked often: whether to stop.
pub type Stop<'a> = &'a dyn Fn() -> bool;

/// `plan.json`: what a directory belongs to, and what decides the bits.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct PlanFile {
    version: u32,
    identity: Identity,
    precision: String,
    micro_tokens: usize,
    rows: usize,
    dropped_too_long: usize,
    dropped_without_loss: usize,
}

/// `final/training.json`: a finished training.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct Manifest {
    version: u32,
    checkpoint: String,
    identity: Identity,
    steps: u64,
    final_loss: f64,
    tokens: u64,
}

/// Trains, telling of progress in order.
///
/// # Errors
/// `GT-TRAIN-MISMATCH`, `GT-TRAIN-EMPTY`, `GT-TRAIN-NAN`, `GT-TRAIN-DISK`,
/// `GT-TRAIN-STOPPED`, or what loading the base says.
pub fn run(
    request: &Train,
    options: &TrainerOptions,
    news: &mut dyn FnMut(TrainingNews),
    stop: Stop<'_>,
) -> Result<Trained, Failure> {
    let begin = Instant::now();
    let directory = request.directory.as_path();
    let identity = Identity {
        base: request.base.checkpoint.clone(),
        dataset: request.dataset.clone(),
        hyper: request.hyper.clone(),
    };
    let hyper = &request.hyper;
    let model_source = ModelSource {
        checkpoint: identity.checkpoint_id(),
        path: directory.join("final"),
    };
    std::fs::create_dir_all(directory).map_err(|e| disk(directory, &e))?;
    let mut known = known_plan(directory, &identity)?;
    if let Some(done) = finished(directory, &identity)? {
        return Ok(Trained {
            model: model_source,
            steps: done.steps,
            final_loss: done.final_loss,
            tokens: done.tokens,
            wall_seconds: begin.elapsed().as_secs_f64(),
        });
    }
    // A training keeps the format that it began with, unless a person asks for another one
    // (a processor may refuse it): then it begins anew, for half of each is neither.
    let other = |plan: &PlanFile| Precision::asked().is_some_and(|p| p.name() != plan.precision);
    if known.as_ref().is_some_and(other) {
        tracing::warn!(training = %request.name, "another precision is asked for: it begins anew");
        std::fs::remove_dir_all(directory)
            .and_then(|()| std::fs::create_dir_all(directory))
            .map_err(|e| disk(directory, &e))?;
        known = None;
    }
    let threads = set_threads(options.threads);
    let (model, tokenizer) = load_for_training(&request.base.path).map_err(Failure::from)?;
    let config = model.config.clone();
    let prepared = prepare(&request.rows, &tokenizer, hyper.max_tokens)?;
    let precision = match &known {
        Some(plan) if plan.precision == Precision::Bf16.name() => Precision::Bf16,
        Some(_) => Precision::Full,
        None => options.precision.unwrap_or_else(Precision::detect),
    };
    let plan_file = known.unwrap_or(PlanFile {
        version: 1,
        identity: identity.clone(),
        precision: precision.name().to_owned(),
        micro_tokens: options.micro_tokens,
        rows: prepared.rows.len(),
        dropped_too_long: prepared.too_long,
        dropped_without_loss: prepared.without_loss,
    });
    let plan_path = directory.join("plan.json");
    checkpoint::write_json(&plan_path, &plan_file).map_err(|e| disk(&plan_path, &e))?;
    tracing::info!(
        training = %request.name, threads, precision = precision.name(),
        rows = plan_file.rows, too_long = plan_file.dropped_too_long,
        without_loss = plan_file.dropped_without_loss, "training begins"
    );

    let lengths: Vec<usize> = prepared.rows.iter().map(|r| r.tokens.len()).collect();
    let tokens_per_epoch: u64 = lengths.iter().map(|l| *l as u64).sum();
    let loss_tokens: u64 = prepared.rows.iter().map(|r| r.loss_tokens() as u64).sum();
    let plan = Plan::new(
        hyper.seed,
        u64::from(hyper.epochs),
        hyper.batch_size,
        lengths.len(),
    );
    let schedule = Schedule::new(hyper.learning_rate, hyper.warmup_ratio, plan.steps());
    let groups = plan.first_epoch_groups(&lengths, plan_file.micro_tokens);
    let mut learner = Learner::new(
        model,
        prepared.rows,
        groups,
        LearnerOptions {
            frozen_layers: hyper.frozen_layers,
            lora_rank: hyper.lora_rank,
            lora_alpha: hyper.lora_alpha,
            seed: hyper.seed,
            weight_decay: hyper.weight_decay,
            max_grad_norm: hyper.max_grad_norm,
            precision,
            cache_bytes: options.cache_bytes,
        },
    )
    .map_err(Failure::from)?;
    let mut cursor = resume(directory, &mut learner)?;
    news(TrainingNews::Started {
        name: request.name.clone(),
        done: cursor.step,
        steps: plan.steps(),
        tokens: tokens_per_epoch,
        loss_tokens,
    });

    while cursor.step < plan.steps() {
        let rows = plan.step_rows(cursor.step);
        let batches = micro_batches(&rows, &lengths, plan_file.micro_tokens);
        let step = cursor.step + 1;
        let rate = schedule.rate(step);
        let clock = Instant::now();
        let report = learner
            .step(&batches, rate, stop)
            .map_err(|error| step_failure(error, step, &rows, &prepared.sources))?;
        cursor = Cursor {
            version: 1,
            step,
            loss: report.loss,
            tokens: cursor.tokens + report.tokens,
        };
        news(TrainingNews::Progressed(TrainingProgressed {
            name: request.name.clone(),
            step,
            loss: report.loss,
            grad_norm: report.grad_norm,
            lr: rate,
            tokens_per_s: report.tokens as f64 / clock.elapsed().as_secs_f64().max(1e-9),
        }));
        let due = hyper.checkpoint_every > 0 && step % hyper.checkpoint_every == 0;
        if due && step < plan.steps() {
            let (path, digest) = save(directory, &cursor, &learner)?;
            news(TrainingNews::Saved {
                name: request.name.clone(),
                step,
                path,
                digest,
            });
        }
    }

    let weights = learner.into_weights().map_err(Failure::from)?;
    save_directory(&model_source.path, &config, &weights, &tokenizer).map_err(
        |error| match error {
            ModelError::Io { path, source } => disk(&path, &source),
            other => other.into(),
        },
    )?;
    let manifest = Manifest {
        version: 1,
        checkpoint: model_source.checkpoint.to_string(),
        identity,
        steps: cursor.step,
        final_loss: cursor.loss,
        tokens: cursor.tokens,
    };
    let path = model_source.path.join("training.json");
    checkpoint::write_json(&path, &manifest).map_err(|e| disk(&path, &e))?;
    // Only now: until the manifest is there, the last checkpoint is what we would
    // resume from.
    checkpoint::clear(directory).map_err(|e| disk(directory, &e))?;
    Ok(Trained {
        model: model_source,
        steps: cursor.step,
        final_loss: cursor.loss,
        tokens: cursor.tokens,
        wall_seconds: begin.elapsed().as_secs_f64(),
    })
}

/// The directory's plan, if it has one; refuses a directory of another training.
fn known_plan(directory: &Path, identity: &Identity) -> Result<Option<PlanFile>, Failure> {
    let path = directory.join("plan.json");
    let mismatch = |what: String| {
        Failure::new(
            FailureKind::Input,
            "GT-TRAIN-MISMATCH",
            format!(
                "{} belongs to another training: {what}",
                directory.display()
            ),
        )
        .with_help("give this training another directory, or remove that one")
    };
    match checkpoint::read_json::<PlanFile>(&path) {
        Ok(Some(plan)) if plan.version == 1 => {
            let differences = identity.differences(&plan.identity);
            if differences.is_empty() {
                Ok(Some(plan))
            } else {
                Err(mismatch(differences))
            }
        }
        Ok(Some(plan)) => Err(mismatch(format!("plan of version {}", plan.version))),
        Ok(None) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(mismatch(format!("plan.json cannot be read: {error}")))
        }
        Err(error) => Err(mismatch(format!("plan.json: {error}"))),
    }
}

/// The manifest of a finished training in this directory.
fn finished(directory: &Path, identity: &Identity) -> Result<Option<Manifest>, Failure> {
    let path = directory.join("final").join("training.json");
    match checkpoint::read_json::<Manifest>(&path) {
        Ok(Some(manifest)) if manifest.identity == *identity => Ok(Some(manifest)),
        // An unreadable manifest is an unfinished training: it is made again.
        _ => Ok(None),
    }
}

/// Rows as tokens, and what was left out.
struct Prepared {
    rows: Vec<TrainingRow>,
    /// The attempt of each row, for messages.
    sources: Vec<String>,
    too_long: usize,
    without_loss: usize,
}

fn prepare(
    rows: &[DatasetRow],
    tokenizer: &ChatTokenizer,
    max_tokens: usize,
) -> Result<Prepared, Failure> {
    let mut out = Prepared {
        rows: Vec::with_capacity(rows.len()),
        sources: Vec::with_capacity(rows.len()),
        too_long: 0,
        without_loss: 0,
    };
    for row in rows {
        let rendered = tokenizer
            .render(&row.messages, false)
            .map_err(Failure::from)?;
        let training = TrainingRow {
            tokens: rendered.tokens.iter().map(|t| i64::from(*t)).collect(),
            loss: rendered.loss,
        };
        if training.tokens.len() > max_tokens {
            out.too_long += 1;
        } else if training.loss_tokens() == 0 {
            out.without_loss += 1;
        } else {
            out.rows.push(training);
            out.sources.push(row.attempt.to_string());
        }
    }
    if out.rows.is_empty() {
        return Err(Failure::new(
            FailureKind::Input,
            "GT-TRAIN-EMPTY",
            format!(
                "nothing to train on: of {} rows, {} are longer than max_tokens = {max_tokens} \
                 and {} have no token with loss",
                rows.len(),
                out.too_long,
                out.without_loss
            ),
        )
        .with_help("raise max_tokens, or collect more resolved attempts"));
    }
    Ok(out)
}

/// Takes the newest checkpoint that can be loaded; step 0 when there is none.
fn resume(directory: &Path, learner: &mut Learner) -> Result<Cursor, Failure> {
    for found in checkpoint::list(directory) {
        match learner.load_state(&found.tensors(), found.cursor.step) {
            Ok(()) => return Ok(found.cursor),
            Err(TrainError::Model(error)) => return Err(error.into()),
            Err(error) => {
                tracing::warn!(path = %found.path.display(), %error, "checkpoint passed over");
            }
        }
    }
    Ok(Cursor {
        version: 1,
        step: 0,
        loss: 0.0,
        tokens: 0,
    })
}

/// An error inside a checkpoint write: of the files or of the tensors.
struct SaveError(TrainError);

impl From<io::Error> for SaveError {
    fn from(error: io::Error) -> Self {
        Self(TrainError::Io(error))
    }
}

fn save(
    directory: &Path,
    cursor: &Cursor,
    learner: &Learner,
) -> Result<(std::path::PathBuf, Digest), Failure> {
    let mut digest = String::new();
    let path = checkpoint::write(directory, cursor, |path| {
        let hash = learner.save_state(path).map_err(SaveError)?;
        digest = hash.to_hex().to_string();
        Ok(())
    })
    .map_err(|SaveError(error)| match error {
        TrainError::Io(error) => disk(directory, &error),
        TrainError::Model(error) => error.into(),
        other => Failure::new(FailureKind::Disk, "GT-TRAIN-DISK", other.to_string()),
    })?;
    Ok((path, Digest(digest)))
}

fn step_failure(error: TrainError, step: u64, rows: &[usize], sources: &[String]) -> Failure {
    match error {
        TrainError::NotFinite { .. } => {
            let attempts: Vec<&str> = rows
                .iter()
                .filter_map(|r| sources.get(*r))
                .map(String::as_str)
                .collect();
            Failure::new(
                FailureKind::Input,
                "GT-TRAIN-NAN",
                format!(
                    "{error} in step {step}, whose rows are of the attempts {}",
                    attempts.join(", ")
                ),
            )
            .with_help("lower the learning rate; the last checkpoint before this step is kept")
        }
        TrainError::Stopped => stopped(),
        TrainError::Io(error) => disk(Path::new("training"), &error),
        TrainError::State(text) => Failure::new(FailureKind::Internal, "GT-TRAIN-PANIC", text),
        TrainError::Model(error) => error.into(),
    }
}

/// The answer to a training that was told to stop.
pub fn stopped() -> Failure {
    Failure::new(
        FailureKind::Cancelled,
        "GT-TRAIN-STOPPED",
        "the training was told to stop",
    )
    .with_help("the same request resumes at the last checkpoint")
}

fn disk(path: &Path, error: &io::Error) -> Failure {
    let full = error.kind() == io::ErrorKind::StorageFull;
    Failure::new(
        FailureKind::Disk,
        "GT-TRAIN-DISK",
        format!("{}: {error}", path.display()),
    )
    .with_help(if full {
        "free some space and repeat: the last checkpoint is whole, training resumes there"
    } else {
        "check the directory and its permissions and repeat: training resumes at the last checkpoint"
    })
}
