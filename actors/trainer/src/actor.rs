//! The room's door: an actor that answers `Train`, in front of one OS thread.

use crate::session::{self, TrainerOptions};
use actix::prelude::*;
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use gametape_schemas::message::{Train, Trained};
use gametape_schemas::{Failure, FailureKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use tokio::sync::{oneshot, watch};

/// A training and where its answer goes.
struct Job {
    request: Train,
    answer: oneshot::Sender<Result<Trained, Failure>>,
}

/// Stops the trainer from anywhere: the training in hand is answered with
/// `GT-TRAIN-STOPPED` at once and its thread winds down at the next layer.
#[derive(Clone, Debug)]
pub struct StopHandle(watch::Sender<bool>);

impl StopHandle {
    /// Stops. Later requests are answered the same way.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

/// Answers [`Train`], one after another, on the thread `gametape-trainer`.
///
/// A second request waits while the first runs; a third is refused (`GT-TRAIN-BUSY`).
/// Dropping the actor stops the training in hand.
#[derive(Debug)]
pub struct TrainerActor {
    jobs: Sender<Job>,
    stop: StopHandle,
    started: Result<(), Failure>,
}

impl TrainerActor {
    /// Starts the thread. When the operating system gives none, every request is
    /// answered with that.
    pub fn new(options: TrainerOptions) -> Self {
        let (jobs, inbox) = bounded::<Job>(1);
        let (stop, stopped) = watch::channel(false);
        let started = thread::Builder::new()
            .name("gametape-trainer".to_owned())
            .spawn(move || serve(&inbox, &options, &stopped))
            .map(drop)
            .map_err(|error| {
                Failure::new(
                    FailureKind::Internal,
                    "GT-TRAIN-PANIC",
                    format!("the trainer's thread could not be started: {error}"),
                )
            });
        Self {
            jobs,
            stop: StopHandle(stop),
            started,
        }
    }

    /// A handle that stops it.
    pub fn stop_handle(&self) -> StopHandle {
        self.stop.clone()
    }
}

impl Drop for TrainerActor {
    fn drop(&mut self) {
        self.stop.stop();
    }
}

impl Actor for TrainerActor {
    type Context = Context<Self>;
}

impl Handler<Train> for TrainerActor {
    type Result = ResponseFuture<Result<Trained, Failure>>;

    fn handle(&mut self, request: Train, _: &mut Self::Context) -> Self::Result {
        if let Err(failure) = &self.started {
            let failure = failure.clone();
            return Box::pin(async move { Err(failure) });
        }
        let (answer, answered) = oneshot::channel();
        let sent = self.jobs.try_send(Job { request, answer });
        let mut stopped = self.stop.0.subscribe();
        Box::pin(async move {
            match sent {
                Ok(()) => {}
                Err(TrySendError::Full(_)) => {
                    return Err(Failure::new(
                        FailureKind::Model,
                        "GT-TRAIN-BUSY",
                        "two trainings are in hand already",
                    )
                    .with_help("repeat the request when one of them is done"));
                }
                Err(TrySendError::Disconnected(_)) => return Err(gone()),
            }
            tokio::select! {
                biased;
                answer = answered => answer.unwrap_or_else(|_| Err(gone())),
                _ = stopped.wait_for(|stop| *stop) => Err(session::stopped()),
            }
        })
    }
}

fn gone() -> Failure {
    Failure::new(
        FailureKind::ActorDied,
        "GT-TRAIN-GONE",
        "the trainer's thread has ended",
    )
    .with_help("the supervisor starts it again; the training resumes at its last checkpoint")
}

/// The thread: jobs in order until the actor is gone.
fn serve(inbox: &Receiver<Job>, options: &TrainerOptions, stopped: &watch::Receiver<bool>) {
    while let Ok(Job { request, answer }) = inbox.recv() {
        let stop = || *stopped.borrow();
        let mut news = |item| request.progress.do_send(item);
        let result = if stop() {
            Err(session::stopped())
        } else {
            catch_unwind(AssertUnwindSafe(|| {
                session::run(&request, options, &mut news, &stop)
            }))
            .unwrap_or_else(|panic| Err(panicked(panic.as_ref())))
        };
        drop(request);
        gametape_model::memory::release();
        // Nobody may be waiting any more: that is their choice.
        let _ = answer.send(result);
    }
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> Failure {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    let line: String = text
        .lines()
        .next()
        .unwrap_or("")
        .chars()
        .take(400)
        .collect();
    Failure::new(
        FailureKind::Internal,
        "GT-TRAIN-PANIC",
        format!("the trainer's thread caught a panic: {line}"),
    )
    .with_help("this is a defect of gametape: please report it; the last checkpoint is kept")
}
