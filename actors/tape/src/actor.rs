//! The actor in front of the writer: messages in, futures out; nothing blocks.

use crate::error::TapeError;
use crate::handle::TapeHandle;
use crate::subscription::Subscription;
use crate::tape::Tape;
use actix::prelude::*;
use gametape_schemas::deadline::Deadline;
use gametape_schemas::message::{Append, Appended, Read, Records, Subscribe};
use gametape_schemas::{Failure, Record};
use tokio::sync::oneshot;

/// Requests that wait in the mailbox before senders wait.
const MAILBOX: usize = 256;
/// Events of one message to a subscriber at most.
const BATCH: usize = 256;

/// Serves [`Append`], [`Read`] and [`Subscribe`]. Appends are written in the order of their messages.
pub struct TapeActor {
    tape: TapeHandle,
}

impl TapeActor {
    /// In front of an open tape.
    pub fn new(tape: TapeHandle) -> Self {
        Self { tape }
    }
}

impl Actor for TapeActor {
    type Context = Context<Self>;
    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
    }
}

fn gone() -> Failure {
    TapeError::gone().into()
}

impl Handler<Append> for TapeActor {
    type Result = ResponseFuture<Result<Appended, Failure>>;

    fn handle(&mut self, message: Append, ctx: &mut Self::Context) -> Self::Result {
        // Submitted here and not in the future: the order of messages is the order
        // of events.
        let (queued, waiting) = oneshot::channel();
        match self.tape.try_submit(message.events) {
            Ok(answer) => {
                let _ = queued.send(answer);
            }
            Err(events) => {
                // The queue is full. The arbiter goes on; this actor takes no further
                // message until there is room, so that none overtakes and the
                // mailbox's bound holds senders back.
                let tape = self.tape.clone();
                let room = async move {
                    let submit = tokio::task::spawn_blocking(move || tape.submit(events));
                    if let Ok(answer) = submit.await {
                        // Nobody waits: the asker went away, the events stay.
                        let _ = queued.send(answer);
                    }
                };
                ctx.wait(room.into_actor(self));
            }
        }
        Box::pin(async move {
            let answer = waiting.await.map_err(|_| gone())?;
            Ok(answer.await.map_err(|_| gone())??)
        })
    }
}

impl Handler<Read> for TapeActor {
    type Result = ResponseFuture<Result<Vec<Record>, Failure>>;

    fn handle(&mut self, message: Read, _: &mut Self::Context) -> Self::Result {
        let tape = self.tape.clone();
        Box::pin(async move {
            let read = tokio::task::spawn_blocking(move || match &message.stream {
                Some(stream) => Tape::read_stream(&tape, stream, message.from, message.limit),
                None => Tape::read(&tape, message.from, message.limit),
            });
            Ok(read.await.map_err(|_| gone())??)
        })
    }
}

impl Handler<Subscribe> for TapeActor {
    type Result = Result<(), Failure>;

    fn handle(&mut self, message: Subscribe, _: &mut Self::Context) -> Self::Result {
        let subscription = self.tape.subscribe(message.from, message.stream);
        // Not a future of this actor's: it would keep it, and with it the tape, alive.
        actix::spawn(forward(subscription, message.to));
        Ok(())
    }
}

/// Hands batch after batch to a subscriber, one at a time: the next is read when the
/// last was answered, so that the subscriber sets the pace and not the writer.
async fn forward(mut subscription: Subscription, to: Recipient<Records>) {
    loop {
        let records = match subscription.next(BATCH).await {
            Ok(Some(records)) => Records::Next(records),
            Ok(None) => Records::Ended(None),
            Err(error) => Records::Ended(Some(error.into())),
        };
        let goes_on = matches!(records, Records::Next(_));
        let limit = records.deadline();
        let why = match to.send(records).timeout(limit).await {
            Ok(Ok(())) if goes_on => continue,
            Ok(Ok(())) => return,
            Ok(Err(failure)) => failure.to_string(),
            Err(error) => error.to_string(),
        };
        let position = subscription.position();
        tracing::warn!(position, why, "a subscriber of the tape is given up");
        return;
    }
}
