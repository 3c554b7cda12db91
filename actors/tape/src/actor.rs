//! The actor in front of the writer: messages in, futures out; nothing blocks.

use crate::error::TapeError;
use crate::handle::TapeHandle;
use crate::tape::Tape;
use actix::prelude::*;
use gametape_schemas::message::{Append, Appended, Read};
use gametape_schemas::{Failure, Record};
use tokio::sync::oneshot;

/// Requests that wait in the mailbox before senders wait.
const MAILBOX: usize = 256;

/// Serves [`Append`] and [`Read`]. Appends are written in the order of their messages.
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
