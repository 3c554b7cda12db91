//! What a training tells, onto the tape and the screen.

use super::driver::code_version;
use super::progress::Phase;
use actix::prelude::*;
use gametape_schemas::ask::ask_again;
use gametape_schemas::event::{
    CheckpointWritten, NewEvent, TrainingFinished, TrainingOrigin, TrainingStarted,
};
use gametape_schemas::message::{Append, Trained, TrainingNews};
use gametape_schemas::{CheckpointId, Digest, Event, Failure, FailureKind, StreamId};
use std::path::{Path, PathBuf};

/// A training that is told of.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Name within the run.
    pub name: String,
    /// Starting weights.
    pub base: CheckpointId,
    /// Digest of the rows.
    pub dataset: Digest,
    /// Hyperparameters, as JSON text.
    pub hyper_json: String,
    /// What the tape shall know beside them; the code's version and what the trainer finds are
    /// filled in here.
    pub origin: TrainingOrigin,
    /// Directory of the run: paths on the tape are seen from there.
    pub run: PathBuf,
    /// Events on the tape when this process takes the training up. A step that is made again
    /// is another fact, and this makes its name another one.
    pub taken_up_at: u64,
}

/// Puts the news of a training on the tape and on the screen.
pub struct NewsDesk {
    subject: Subject,
    append: Recipient<Append>,
    phase: Phase,
    done_before: u64,
    lost: Option<Failure>,
}

impl NewsDesk {
    /// A desk for one training.
    pub fn new(subject: Subject, append: Recipient<Append>) -> Self {
        Self {
            phase: Phase::begin(format!("training: {}", subject.name), 1),
            subject,
            append,
            done_before: 0,
            lost: None,
        }
    }

    fn put(&self, name: &str, event: Event, ctx: &mut Context<Self>) {
        let append = self.append.clone();
        let event = NewEvent::named(StreamId::training(&self.subject.name), name, event);
        // In order: the next piece of news is handled only after this one is durable.
        let put = async move {
            let events = vec![event];
            ask_again(&append, Append { events }).await.err()
        };
        let told = put.into_actor(self).map(|lost, desk, _| {
            if let Some(failure) = lost {
                tracing::error!(%failure, "news of a training did not reach the tape");
                desk.lost.get_or_insert(failure);
            }
        });
        ctx.wait(told);
    }
}

impl Actor for NewsDesk {
    type Context = Context<Self>;
    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(1024);
    }
}

impl Handler<TrainingNews> for NewsDesk {
    type Result = ();
    fn handle(&mut self, news: TrainingNews, ctx: &mut Self::Context) {
        match news {
            TrainingNews::Started {
                name,
                done,
                steps,
                tokens,
                loss_tokens,
                setting,
            } => {
                self.done_before = done;
                self.phase.set_total(steps);
                self.phase
                    .taken_up_at(done, format!("{tokens} tokens an epoch"));
                let body = TrainingStarted {
                    name,
                    base: self.subject.base.clone(),
                    dataset: self.subject.dataset.clone(),
                    hyper_json: self.subject.hyper_json.clone(),
                    steps,
                    tokens,
                    loss_tokens,
                    origin: Some(TrainingOrigin {
                        code_version: code_version(),
                        setting,
                        ..self.subject.origin.clone()
                    }),
                };
                // Taken up again by the same code in the same way, it is the same fact.
                let name = match Digest::of_value(&body) {
                    Ok(digest) => format!("started-{}", digest.short()),
                    Err(_) => format!("started-at-{}", self.subject.taken_up_at),
                };
                self.put(&name, Event::TrainingStarted(body), ctx);
            }
            TrainingNews::Progressed(body) => {
                self.phase.at(
                    body.step,
                    format!("loss {:.3}, {:.0} tokens/s", body.loss, body.tokens_per_s),
                );
                let name = format!(
                    "step-{}-from-{}-at-{}",
                    body.step, self.done_before, self.subject.taken_up_at
                );
                self.put(&name, Event::TrainingProgressed(body), ctx);
            }
            TrainingNews::Saved {
                name,
                step,
                path,
                digest,
                eval_loss,
                best,
            } => {
                let event = Event::CheckpointWritten(CheckpointWritten {
                    name,
                    step,
                    path: seen_from(&self.subject.run, &path),
                    digest,
                    eval_loss,
                    best,
                });
                let name = format!(
                    "checkpoint-{step}-from-{}-at-{}",
                    self.done_before, self.subject.taken_up_at
                );
                self.put(&name, event, ctx);
            }
        }
    }
}

/// Asks whether all news that came before this are on the tape.
#[derive(Message, Clone, Copy, Debug)]
#[rtype(result = "Result<(), Failure>")]
pub struct Settle;

impl Handler<Settle> for NewsDesk {
    type Result = Result<(), Failure>;
    fn handle(&mut self, _: Settle, _: &mut Self::Context) -> Self::Result {
        self.lost.take().map_or(Ok(()), Err)
    }
}

/// Waits until everything that a training told is on the tape.
///
/// # Errors
/// The first failure that kept something from it.
pub async fn settle(desk: &Addr<NewsDesk>) -> Result<(), Failure> {
    desk.send(Settle).await.unwrap_or_else(|_| {
        Err(Failure::new(
            FailureKind::ActorDied,
            "GT-ACTOR-DIED",
            "the desk that puts a training on the tape is gone",
        ))
    })
}

/// The event that ends a training.
pub fn finished(name: &str, trained: &Trained, run: &Path) -> NewEvent {
    NewEvent::named(
        StreamId::training(name),
        "finished",
        Event::TrainingFinished(TrainingFinished {
            name: name.to_owned(),
            checkpoint: trained.model.checkpoint.clone(),
            path: seen_from(run, &trained.model.path),
            steps: trained.steps,
            final_loss: trained.final_loss,
            tokens: trained.tokens,
            wall_seconds: trained.wall_seconds,
            weights: Some(trained.weights.clone()),
        }),
    )
}

/// A path as the tape has it: relative to the run's directory where it lies in it.
fn seen_from(run: &Path, path: &Path) -> String {
    path.strip_prefix(run).unwrap_or(path).display().to_string()
}
