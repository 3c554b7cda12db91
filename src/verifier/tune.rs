//! A language model tuned as a verifier: rows of [`long`] prompts, LoRA by the trainer's
//! room, temperature and bias on repositories that it did not learn from. A training that
//! was interrupted goes on at its last checkpoint when the same command is typed again.

use super::args::TrainArgs;
use super::gather::Found;
use super::train::{Done, Made, examples, put_on_tape, tally, told};
use super::{check_examples, too_little};
use crate::config::Paths;
use crate::run::progress::Phase;
use crate::run::stop::StopFlag;
use crate::system::{base_model, in_system};
use actix::prelude::*;
use gametape_model::{HostOptions, ModelActor, ModelHost};
use gametape_schemas::ask::ask;
use gametape_schemas::message::{
    Hyperparameters, ModelSource, SaveForm, ScoreAnswers, Train, Trained as Weights, TrainingNews,
};
use gametape_schemas::{
    ChatMessage, CheckpointId, Dataset, DatasetKind, DatasetRow, Digest, Failure,
};
use gametape_trainer::{TrainerActor, TrainerOptions};
use gametape_verifier::head::logistic::log_loss;
use gametape_verifier::head::train::{calibrate, folds};
use gametape_verifier::head::{Example, Trained};
use gametape_verifier::judge::{JUDGE, Judge, measure, tokenizer_of};
use gametape_verifier::{long, prompt};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Parts of the repositories, of which one calibrates.
const PARTS: usize = 5;
/// Tokens that the system's words and the marks of turns take at most.
const AROUND: usize = 160;
/// Conversations asked for at once.
const BATCH: usize = 8;
/// Directory of the training within the verifier's.
const TRAINING: &str = "training";

/// An attempt: what is learned and what is known of it.
struct One {
    example: Example,
    row: DatasetRow,
}

/// Tunes.
///
/// # Errors
/// `GT-VERIFIER-…`, `GT-MODEL-…`, `GT-TRAIN-…`, and the tape's.
pub fn run(args: &TrainArgs) -> Result<Done, Failure> {
    let tuning = &args.tuning;
    let run = args.which.runs.first().cloned().unwrap_or_default();
    let base = base_model(&tuning.base, tuning.seed, &Paths::new(run)?)?;
    let (config, tokenizer, tokens) = tokenizer_of(&base.path)?;
    let context = config.max_positions;
    let most = context.saturating_sub(AROUND).max(long::LEAST_BUDGET);
    let budget = (tuning.budget as usize).min(most);
    if budget < tuning.budget as usize {
        eprintln!("the model's context is {context} tokens: attempts are shortened to {budget}");
    }
    let found = {
        let measure = measure(&tokenizer);
        examples(args, |task, attempt| {
            let example = Example::of(&task, &attempt)?;
            let resolved = example.resolved;
            let messages = long::training_conversation(&task, &attempt, budget, &measure, resolved);
            let row = DatasetRow {
                attempt: attempt.attempt.clone(),
                task: task.id.clone(),
                repo: task.repo.clone(),
                resolved,
                off_policy: false,
                events: attempt.events.clone(),
                messages,
            };
            Some(One { example, row })
        })?
    };
    check_examples(&found, |one| &one.example)?;
    let calibrating = set_apart(&found)?;
    let dataset = Dataset {
        kind: DatasetKind::Verifier,
        rows: rows(&found, &calibrating, false),
        dropped: BTreeMap::new(),
    };
    let apart = rows(&found, &calibrating, true);
    let hyper = Hyperparameters {
        epochs: tuning.epochs,
        batch_size: 8,
        learning_rate: tuning.learning_rate,
        warmup_ratio: 0.1,
        max_tokens: context,
        lora_rank: tuning.rank as usize,
        lora_alpha: 2.0 * f64::from(tuning.rank),
        frozen_layers: config.layers.saturating_sub(tuning.layers as usize),
        checkpoint_every: 20,
        seed: tuning.seed,
        sort_by_length: true,
        save: SaveForm::Adapter,
        ..Hyperparameters::default()
    };
    let digest = dataset.digest().map_err(told)?;
    let work = Work {
        base: base.clone(),
        rows: dataset.rows,
        digest: digest.clone(),
        hyper: hyper.clone(),
        directory: args.out.join(TRAINING),
        threads: tuning.threads as usize,
    };
    let (weights, logits) = in_system(train_and_ask(work, &apart))?;
    let unseen: Vec<(f64, bool)> = logits
        .iter()
        .zip(&apart)
        .map(|(logit, row)| (*logit, row.resolved))
        .collect();
    let (temperature, bias) = calibrate(&unseen);
    let loss = unseen.iter().map(|(l, y)| log_loss(*l, *y)).sum::<f64>();
    let all: Vec<&Example> = found.kept.iter().map(|one| &one.example).collect();
    let trained = Trained {
        examples: Some(digest.clone()),
        unseen_loss: Some(loss / unseen.len().max(1) as f64),
        ..Trained::on(&all)
    };
    let judge = Judge {
        format: JUDGE.to_owned(),
        prompt: long::LONG_PROMPT.to_owned(),
        shortening: long::SHORTENING.to_owned(),
        budget,
        tokenizer: tokens,
        weights: weights.model.checkpoint.clone(),
        path: PathBuf::from(TRAINING).join("final"),
        base: base.checkpoint.clone(),
        hyper: hyper.clone(),
        temperature,
        bias,
        calibrated_on: calibrating.into_iter().collect(),
        trained,
    };
    judge.save(&args.out)?;
    let id = judge.id()?;
    let on_tape = match args.which.runs.as_slice() {
        [run] => {
            let made = Made {
                base: base.checkpoint,
                dataset: Some(digest),
                hyper_json: serde_json::to_string(&hyper).map_err(told)?,
                steps: weights.steps,
                tokens: (weights.tokens, 0),
                loss: Some(weights.final_loss),
                wall_seconds: weights.wall_seconds,
            };
            put_on_tape(run, &id, made, &args.out)?;
            true
        }
        _ => false,
    };
    Ok(done(&judge, id, args, &found, on_tape))
}

/// The repositories that calibrate: of [`PARTS`] parts the one nearest to its share that
/// has both classes and leaves both.
fn set_apart(found: &Found<One>) -> Result<BTreeSet<String>, Failure> {
    let all: Vec<&Example> = found.kept.iter().map(|one| &one.example).collect();
    let fold_of = folds(&all, PARTS);
    let members = |part: usize, inside: bool| {
        let pairs = all.iter().zip(&fold_of);
        pairs.filter(move |(_, fold)| (**fold == part) == inside)
    };
    let has_both = |part: usize, inside: bool| {
        let wins = members(part, inside).filter(|(e, _)| e.resolved).count();
        wins > 0 && wins < members(part, inside).count()
    };
    let fair = all.len() / PARTS;
    let part = (0..PARTS)
        .filter(|part| has_both(*part, true) && has_both(*part, false))
        .min_by_key(|part| members(*part, true).count().abs_diff(fair))
        .ok_or_else(|| {
            too_little(
                "no part of the repositories has wins and losses and leaves wins and losses",
                "add runs with other repositories",
            )
        })?;
    Ok(members(part, true).map(|(e, _)| e.repo.clone()).collect())
}

/// Rows of the repositories that are set apart, or of the others.
fn rows(found: &Found<One>, apart: &BTreeSet<String>, inside: bool) -> Vec<DatasetRow> {
    let of = found.kept.iter();
    of.filter(|one| apart.contains(&one.example.repo) == inside)
        .map(|one| one.row.clone())
        .collect()
}

/// A training in hand.
struct Work {
    base: ModelSource,
    rows: Vec<DatasetRow>,
    digest: Digest,
    hyper: Hyperparameters,
    directory: PathBuf,
    threads: usize,
}

/// Trains, then asks the new weights about the rows that were set apart: logits of YES.
async fn train_and_ask(work: Work, apart: &[DatasetRow]) -> Result<(Weights, Vec<f64>), Failure> {
    let stop = StopFlag::default();
    stop.watch_signals();
    let trainer = TrainerActor::new(TrainerOptions {
        threads: work.threads,
        cache_bytes: 2 << 30,
        ..TrainerOptions::default()
    });
    let handle = trainer.stop_handle();
    stop.on_request(move || handle.stop());
    let watch = Watch(Phase::begin("training: verifier", 1)).start();
    let request = Train {
        name: "verifier".to_owned(),
        base: work.base,
        rows: work.rows,
        dataset: work.digest,
        hyper: work.hyper,
        directory: work.directory,
        progress: watch.recipient(),
    };
    let weights = ask(&trainer.start().recipient(), request).await?;
    let (host, _thread) = ModelHost::spawn(HostOptions {
        threads: i32::try_from(work.threads).ok().filter(|n| *n > 0),
        max_models: 1,
        ..HostOptions::default()
    })?;
    let model = ModelActor::new(host).start().recipient();
    let mut phase = Phase::begin("calibration", apart.len() as u64);
    let mut logits = Vec::with_capacity(apart.len());
    for batch in apart.chunks(BATCH) {
        stop.check()?;
        let question = |row: &DatasetRow| -> Vec<ChatMessage> {
            row.messages.iter().filter(|m| !m.train).cloned().collect()
        };
        let answers = ask(
            &model,
            ScoreAnswers {
                model: weights.model.clone(),
                conversations: batch.iter().map(question).collect(),
                answers: prompt::answers(),
            },
        )
        .await?;
        for answer in answers {
            let [yes, no] = answer.as_slice() else {
                return Err(told("the model gave no two answers"));
            };
            logits.push(yes - no);
            phase.inc("");
        }
    }
    Ok((weights, logits))
}

/// Shows the news of a training.
struct Watch(Phase);

impl Actor for Watch {
    type Context = Context<Self>;
}

impl Handler<TrainingNews> for Watch {
    type Result = ();
    fn handle(&mut self, news: TrainingNews, _: &mut Context<Self>) {
        match news {
            TrainingNews::Started {
                done,
                steps,
                tokens,
                ..
            } => {
                self.0.set_total(steps);
                self.0
                    .taken_up_at(done, format!("{tokens} tokens an epoch"));
            }
            TrainingNews::Progressed(body) => self.0.at(
                body.step,
                format!("loss {:.3}, {:.0} tokens/s", body.loss, body.tokens_per_s),
            ),
            TrainingNews::Saved { .. } => {}
        }
    }
}

fn done(
    judge: &Judge,
    id: CheckpointId,
    args: &TrainArgs,
    found: &Found<One>,
    on_tape: bool,
) -> Done {
    let (repos, policies) = tally(found.kept.iter().map(|one| &one.example));
    Done {
        verifier: id,
        kind: "language model",
        path: args.out.clone(),
        attempts: judge.trained.attempts,
        resolved: judge.trained.resolved,
        repos,
        policies,
        evaluation_tasks: judge.trained.evaluation_tasks,
        stated: found.stated,
        left_out: found.dropped.clone(),
        unseen_loss: judge.trained.unseen_loss,
        penalty: None,
        calibrated_on: judge.calibrated_on.clone(),
        temperature: judge.temperature,
        bias: judge.bias,
        strongest: Vec::new(),
        on_tape,
    }
}
