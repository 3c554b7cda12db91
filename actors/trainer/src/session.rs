//! One training from start (or from where an earlier process was) to end. Blocking:
//! it runs on the trainer's own thread.

use crate::checkpoint::{self, Cursor};
use crate::data::{Prepared, limit, prepare};
pub use crate::failures::stopped;
use crate::failures::{SaveError, disk, step_failure};
use crate::identity::Identity;
use crate::order::{Plan, micro_batches, sorted_micro_batches};
use crate::plan_file::{Manifest, PlanFile, check, finished, known_plan, weights_digest};
use gametape_model::adapter::is_adapter;
use gametape_model::optimizer::Schedule;
use gametape_model::train::{
    HEAD_CHUNK, Learner, LearnerOptions, MemoryFault, Precision, TrainError, load_for_training,
    set_threads,
};
use gametape_model::{ChatTokenizer, ModelConfig, ModelError, memory, save_directory};
use gametape_schemas::event::{TrainingProgressed, TrainingSetting};
use gametape_schemas::message::{ModelSource, SaveForm, Train, Trained, TrainingNews};
use gametape_schemas::{Digest, Failure, FailureKind};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// How a machine trains; not what is learnt.
#[derive(Clone, Debug)]
pub struct TrainerOptions {
    /// Threads for libtorch; 0 = all that this process may use.
    pub threads: usize,
    /// Tokens of a micro-batch: bounds the memory of activations (2.6 MB a token of the
    /// default model when all its layers are trained: docs/models.md). Where it is too much, it is
    /// halved until it fits.
    pub micro_tokens: usize,
    /// Most bytes for remembered outputs of frozen layers.
    pub cache_bytes: usize,
    /// Number format of products; `None` takes what the device computes natively.
    pub precision: Option<Precision>,
    /// Micro-batches that are taken not to fit in memory: for tests of what happens then.
    pub memory_fault: Option<MemoryFault>,
}

impl Default for TrainerOptions {
    fn default() -> Self {
        Self {
            threads: 0,
            micro_tokens: 2048,
            cache_bytes: 1 << 30,
            precision: None,
            memory_fault: None,
        }
    }
}

/// Asked often: whether to stop.
pub type Stop<'a> = &'a dyn Fn() -> bool;

/// Who hears of progress.
pub type News<'a> = &'a mut dyn FnMut(TrainingNews);

/// Trains, telling of progress in order.
///
/// # Errors
/// `GT-TRAIN-OPTIONS`, `GT-TRAIN-MISMATCH`, `GT-TRAIN-EMPTY`, `GT-TRAIN-NAN`,
/// `GT-TRAIN-MEMORY`, `GT-TRAIN-DISK`, `GT-TRAIN-STOPPED`, or what loading the base says.
pub fn run(
    request: &Train,
    options: &TrainerOptions,
    news: News<'_>,
    stop: Stop<'_>,
) -> Result<Trained, Failure> {
    let begin = Instant::now();
    let directory = request.directory.as_path();
    let identity = Identity {
        base: request.base.checkpoint.clone(),
        dataset: request.dataset.clone(),
        hyper: request.hyper.clone(),
    };
    check(&request.hyper)?;
    std::fs::create_dir_all(directory).map_err(|e| disk(directory, &e))?;
    let known = known_plan(directory, &identity)?;
    let manifest = match finished(directory, &identity) {
        Some(done) => done,
        None => {
            let mut training = Training::open(request, options, identity, known)?;
            training.steps(news, stop)?;
            training.finish()?
        }
    };
    let path = directory.join("final");
    let weights = match manifest.weights {
        Some(weights) => weights,
        // An earlier version finished it.
        None => weights_digest(&path).map_err(|e| disk(&path, &e))?,
    };
    Ok(Trained {
        weights,
        model: ModelSource {
            checkpoint: manifest.identity.checkpoint_id(),
            path,
        },
        steps: manifest.steps,
        final_loss: manifest.final_loss,
        tokens: manifest.tokens,
        wall_seconds: begin.elapsed().as_secs_f64(),
    })
}

/// A training in hand.
struct Training<'a> {
    request: &'a Train,
    plan_file: PlanFile,
    plan: Plan,
    schedule: Schedule,
    learner: Learner,
    config: ModelConfig,
    tokenizer: ChatTokenizer,
    lengths: Vec<usize>,
    sources: Vec<String>,
    /// Rows that are only measured.
    measured: Vec<usize>,
    loss_tokens: u64,
    cursor: Cursor,
    setting: TrainingSetting,
}

impl<'a> Training<'a> {
    /// Loads and prepares everything, and goes to where an earlier process was.
    fn open(
        request: &'a Train,
        options: &TrainerOptions,
        identity: Identity,
        mut known: Option<PlanFile>,
    ) -> Result<Self, Failure> {
        let (directory, hyper) = (request.directory.as_path(), &request.hyper);
        if hyper.lora_rank > 0 && hyper.save == SaveForm::Adapter && is_adapter(&request.base.path)
        {
            return Err(Failure::new(
                FailureKind::Input,
                "GT-TRAIN-OPTIONS",
                format!(
                    "save = \"adapter\" on top of {}, which is an adapter itself",
                    request.base.path.display()
                ),
            )
            .with_help("choose save = \"merged\": an adapter belongs to whole weights"));
        }
        // A training keeps the format that it began with, unless a person asks for another
        // one (a processor may refuse it): then it begins anew, for half of each is neither.
        let other =
            |plan: &PlanFile| Precision::asked().is_some_and(|p| p.name() != plan.precision);
        if known.as_ref().is_some_and(other) {
            tracing::warn!(training = %request.name, "another precision is asked for: it begins anew");
            std::fs::remove_dir_all(directory)
                .and_then(|()| std::fs::create_dir_all(directory))
                .map_err(|e| disk(directory, &e))?;
            known = None;
        }
        let threads = set_threads(options.threads);
        let (model, tokenizer) =
            load_for_training(&request.base.path, hyper.lora_rank > 0).map_err(Failure::from)?;
        let config = model.config.clone();
        let prepared = prepare(&request.rows, &tokenizer, hyper, config.max_positions)?;
        let precision = match &known {
            Some(plan) if plan.precision == Precision::Bf16.name() => Precision::Bf16,
            Some(_) => Precision::Full,
            None => options
                .precision
                .unwrap_or_else(|| Precision::detect_on(model.device)),
        };
        let plan_file = known.unwrap_or(PlanFile {
            version: 1,
            identity,
            precision: precision.name().to_owned(),
            micro_tokens: options.micro_tokens,
            rows: prepared.rows.len(),
            dropped_too_long: prepared.too_long,
            dropped_without_loss: prepared.without_loss,
            eval_rows: prepared.rows.len() - prepared.trained,
            head_chunk: HEAD_CHUNK,
            reductions: Vec::new(),
        });
        plan_file
            .write(directory)
            .map_err(|e| disk(&directory.join("plan.json"), &e))?;
        tracing::info!(
            training = %request.name, threads, precision = precision.name(),
            rows = plan_file.rows, too_long = plan_file.dropped_too_long,
            most_tokens = limit(hyper, config.max_positions),
            without_loss = plan_file.dropped_without_loss,
            measured = plan_file.eval_rows, "training begins"
        );
        let setting = TrainingSetting {
            tokenizer: tokenizer.digest(),
            rows: prepared.trained as u64,
            measured: plan_file.eval_rows as u64,
            too_long: prepared.too_long as u64,
            without_loss: prepared.without_loss as u64,
            precision: plan_file.precision.clone(),
            micro_tokens: plan_file.micro_tokens as u64,
            threads: u64::try_from(threads).unwrap_or(0),
        };
        let Prepared {
            rows,
            trained,
            sources,
            ..
        } = prepared;
        let lengths: Vec<usize> = rows.iter().map(|r| r.tokens.len()).collect();
        let loss_tokens = rows.iter().take(trained).map(|r| r.loss_tokens() as u64);
        let loss_tokens = loss_tokens.sum();
        let measured: Vec<usize> = (trained..rows.len()).collect();
        let plan = Plan::new(
            hyper.seed,
            u64::from(hyper.epochs),
            hyper.batch_size,
            trained,
        );
        let schedule = Schedule::new(hyper.learning_rate, hyper.warmup_ratio, plan.steps())
            .shaped(hyper.schedule)
            .warmed_up_for(hyper.warmup_steps);
        let groups = groups(&plan_file, &plan, &measured, &lengths);
        let mut learner = Learner::new(
            model,
            rows,
            groups,
            LearnerOptions {
                frozen_layers: hyper.frozen_layers,
                lora_rank: hyper.lora_rank,
                lora_alpha: hyper.lora_alpha,
                lora_targets: hyper.lora_targets.clone(),
                lora_dropout: hyper.lora_dropout,
                seed: hyper.seed,
                weight_decay: hyper.weight_decay,
                max_grad_norm: hyper.max_grad_norm,
                precision,
                cache_bytes: options.cache_bytes,
                checkpoint_layers: hyper.checkpoint_layers,
                head_chunk: plan_file.head_chunk,
            },
        )
        .map_err(Failure::from)?;
        learner.inject_memory_fault(options.memory_fault);
        let cursor = resume(directory, &mut learner)?;
        Ok(Self {
            request,
            plan_file,
            plan,
            schedule,
            learner,
            config,
            tokenizer,
            lengths,
            sources,
            measured,
            loss_tokens,
            cursor,
            setting,
        })
    }

    /// Makes the steps that are left.
    fn steps(&mut self, news: News<'_>, stop: Stop<'_>) -> Result<(), Failure> {
        let hyper = &self.request.hyper;
        let name = &self.request.name;
        let trained = self.lengths.len() - self.measured.len();
        news(TrainingNews::Started {
            name: name.clone(),
            done: self.cursor.step,
            steps: self.plan.steps(),
            tokens: self.lengths.iter().take(trained).map(|l| *l as u64).sum(),
            loss_tokens: self.loss_tokens,
            setting: self.setting.clone(),
        });
        while self.cursor.step < self.plan.steps() && !self.gave_up() {
            let step = self.cursor.step + 1;
            let before = self.plan_file.reductions.len();
            let rows = self.plan.step_rows(self.cursor.step);
            let rate = self.schedule.rate(step);
            let clock = Instant::now();
            let report = self.fitting(step, &rows, |learner, batches| {
                learner.step(batches, rate, stop)
            })?;
            let seconds = clock.elapsed().as_secs_f64().max(1e-9);
            self.cursor.step = step;
            self.cursor.loss = report.loss;
            self.cursor.tokens += report.tokens;
            let eval_loss = match self.measures(step) {
                true => {
                    let measured = self.measured.clone();
                    // Counted to the next step: this one is made, and stays as it was.
                    Some(self.fitting(step + 1, &measured, |learner, batches| {
                        learner.evaluate(batches, stop)
                    })?)
                }
                false => None,
            };
            let best = eval_loss.is_some_and(|loss| self.cursor.measured(loss));
            let reduced = self.plan_file.reductions.len() > before;
            let (micro_tokens, checkpoint_layers) = self.plan_file.limits(step + 1);
            news(TrainingNews::Progressed(TrainingProgressed {
                name: name.clone(),
                step,
                loss: report.loss,
                grad_norm: report.grad_norm,
                lr: rate,
                tokens_per_s: report.tokens as f64 / seconds,
                eval_loss,
                memory_bytes: memory::peak(),
                micro_tokens: reduced.then_some(micro_tokens as u64),
                checkpoint_layers: reduced.then_some(checkpoint_layers),
            }));
            let due = hyper.checkpoint_every > 0 && step.is_multiple_of(hyper.checkpoint_every);
            if (due || best && hyper.keep_best) && step < self.plan.steps() {
                let (path, digest) = self.save()?;
                news(TrainingNews::Saved {
                    name: name.clone(),
                    step,
                    path,
                    digest,
                    eval_loss,
                    best,
                });
            }
        }
        Ok(())
    }

    /// Whether measurements went without a new best for as long as the training waits.
    fn gave_up(&self) -> bool {
        let patience = self.request.hyper.patience;
        patience > 0 && self.cursor.misses >= patience
    }

    /// Whether the held-out rows are measured after this step.
    fn measures(&self, step: u64) -> bool {
        let every = match self.request.hyper.eval_every {
            0 => self.plan.steps_per_epoch().max(1),
            n => n,
        };
        !self.measured.is_empty() && (step.is_multiple_of(every) || step == self.plan.steps())
    }

    /// Does something with rows in micro-batches that fit in memory: as they were planned
    /// for this step, and smaller ones when libtorch gets no memory for them.
    fn fitting<T>(
        &mut self,
        step: u64,
        rows: &[usize],
        mut work: impl FnMut(&mut Learner, &[Vec<usize>]) -> Result<T, TrainError>,
    ) -> Result<T, Failure> {
        loop {
            let (budget, checkpointed) = self.plan_file.limits(step);
            self.learner.set_checkpoint_layers(checkpointed);
            let batches = cut(&self.plan_file, step, rows, &self.lengths);
            match work(&mut self.learner, &batches) {
                Ok(done) => return Ok(done),
                Err(TrainError::OutOfMemory(text)) => {
                    memory::release();
                    let length = |row: &usize| self.lengths.get(*row).copied().unwrap_or(0);
                    let pieces: Vec<Vec<usize>> = batches
                        .iter()
                        .map(|batch| batch.iter().map(length).collect())
                        .collect();
                    let Some(reduction) = self.plan_file.reduced(step, &pieces) else {
                        return Err(self.no_memory(step, rows, &text));
                    };
                    tracing::warn!(
                        training = %self.request.name, step, error = %text, micro_tokens = budget,
                        smaller = reduction.micro_tokens,
                        checkpoint_layers = reduction.checkpoint_layers,
                        "memory does not suffice: the step is made again in smaller pieces"
                    );
                    self.plan_file.reductions.push(reduction);
                    let directory = &self.request.directory;
                    self.plan_file
                        .write(directory)
                        .map_err(|e| disk(&directory.join("plan.json"), &e))?;
                    let groups = groups(&self.plan_file, &self.plan, &self.measured, &self.lengths);
                    self.learner.regroup(groups).map_err(Failure::from)?;
                }
                Err(error) => return Err(step_failure(error, step, rows, &self.sources)),
            }
        }
    }

    fn no_memory(&self, step: u64, rows: &[usize], text: &str) -> Failure {
        let longest = rows
            .iter()
            .max_by_key(|r| self.lengths.get(**r).copied().unwrap_or(0));
        let (attempt, tokens) = longest
            .and_then(|r| self.sources.get(*r).zip(self.lengths.get(*r)))
            .map_or(("none", 0), |(source, tokens)| (source.as_str(), *tokens));
        Failure::new(
            FailureKind::Model,
            "GT-TRAIN-MEMORY",
            format!(
                "memory does not suffice for one row in step {step}, with layers computed \
                 again; the longest row is that of the attempt {attempt}, {tokens} tokens: {text}"
            ),
        )
        .with_help(
            "set max_tokens below that, use LoRA or frozen_layers, or a machine with more \
             memory; the last checkpoint is kept",
        )
    }

    fn save(&self) -> Result<(PathBuf, Digest), Failure> {
        let hyper = &self.request.hyper;
        let directory = &self.request.directory;
        let keep = hyper.keep_checkpoints.unwrap_or(checkpoint::KEEP);
        let mut digest = String::new();
        let path = checkpoint::write(directory, &self.cursor, (keep, hyper.keep_best), |path| {
            let hash = self.learner.save_state(path).map_err(SaveError)?;
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

    /// Takes the best weights where they are asked for, and writes the result.
    fn finish(mut self) -> Result<Manifest, Failure> {
        let hyper = &self.request.hyper;
        let directory = self.request.directory.as_path();
        let best = self.cursor.best.filter(|_| hyper.keep_best);
        let earlier = best.filter(|best| best.step != self.cursor.step);
        if let Some(best) = earlier {
            let found = checkpoint::list(directory);
            let found = found.iter().find(|f| f.cursor.step == best.step);
            let loaded = found.map(|f| self.learner.load_state(&f.tensors(), best.step));
            match loaded {
                Some(Ok(())) => {}
                Some(Err(TrainError::Model(error))) => return Err(error.into()),
                other => {
                    let reason = match other {
                        Some(Err(error)) => error.to_string(),
                        _ => "it is not there".to_owned(),
                    };
                    return Err(Failure::new(
                        FailureKind::Disk,
                        "GT-TRAIN-DISK",
                        format!(
                            "the best checkpoint, of step {}, cannot be read: {reason}",
                            best.step
                        ),
                    )
                    .with_help(
                        "remove the training's checkpoints and repeat: it begins anew, and \
                         comes to the same weights",
                    ));
                }
            }
        }
        let form = match (hyper.lora_rank, hyper.save) {
            (0, _) => SaveForm::Merged,
            // An adapter belongs to whole weights: on top of another one it says too little.
            (_, SaveForm::Both) if is_adapter(&self.request.base.path) => SaveForm::Merged,
            (_, form) => form,
        };
        let place = directory.join("final");
        let failed = |error: ModelError| match error {
            ModelError::Io { path, source } => disk(&path, &source),
            other => other.into(),
        };
        let beside = directory.join("adapter");
        if form != SaveForm::Merged {
            let base = &request_base(&self.request.base.path);
            let adapter = if form == SaveForm::Adapter {
                &place
            } else {
                &beside
            };
            self.learner.save_adapter(adapter, base).map_err(failed)?;
        }
        if form != SaveForm::Adapter {
            let weights = self.learner.into_weights().map_err(Failure::from)?;
            save_directory(&place, &self.config, &weights, &self.tokenizer).map_err(failed)?;
        }
        if form == SaveForm::Both {
            let into = place.join("adapter");
            std::fs::rename(&beside, &into).map_err(|e| disk(&into, &e))?;
        }
        let manifest = Manifest {
            version: 1,
            checkpoint: self.plan_file.identity.checkpoint_id().to_string(),
            identity: self.plan_file.identity,
            steps: self.cursor.step,
            final_loss: self.cursor.loss,
            tokens: self.cursor.tokens,
            best: self.cursor.best,
            weights_of_step: earlier.map(|best| best.step),
            weights: Some(weights_digest(&place).map_err(|e| disk(&place, &e))?),
        };
        let path = place.join("training.json");
        checkpoint::write_json(&path, &manifest).map_err(|e| disk(&path, &e))?;
        // Only now: until the manifest is there, the last checkpoint is what we would
        // resume from.
        checkpoint::clear(directory).map_err(|e| disk(directory, &e))?;
        Ok(manifest)
    }
}

/// A step's rows in micro-batches, as the plan has them.
fn cut(plan_file: &PlanFile, step: u64, rows: &[usize], lengths: &[usize]) -> Vec<Vec<usize>> {
    let (budget, _) = plan_file.limits(step);
    match plan_file.identity.hyper.sort_by_length {
        true => sorted_micro_batches(rows, lengths, budget),
        false => micro_batches(rows, lengths, budget),
    }
}

/// The groups in which frozen layers are computed: the first epoch's micro-batches, then
/// the measured rows.
fn groups(
    plan_file: &PlanFile,
    plan: &Plan,
    measured: &[usize],
    lengths: &[usize],
) -> Vec<Vec<usize>> {
    let mut groups = plan.first_epoch_groups(|step, rows| cut(plan_file, step + 1, rows, lengths));
    groups.extend(micro_batches(measured, lengths, plan_file.micro_tokens));
    groups
}

/// How an adapter names its base: where it is, whatever the working directory.
fn request_base(path: &Path) -> String {
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    path.display().to_string()
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
    Ok(Cursor::start())
}
