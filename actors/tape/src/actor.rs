//! The actor in front of the writer: messages in, futures out; nothing blocks.

use crate::error::TapeError;
use crate::writer::SledTape;
use actix::prelude::*;
use gametape_schemas::message::{Append, Appended, Read};
use gametape_schemas::{Failure, Record};

/// Serves [`Append`] and [`Read`].
pub struct TapeActor {
    tape: SledTape,
}

impl TapeActor {
    /// In front of an open tape.
    pub fn new(tape: SledTape) -> Self {
        Self { tape }
    }
}

impl Actor for TapeActor {
    type Context = Context<Self>;
    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(256);
    }
}

fn gone() -> Failure {
    TapeError::Stopped {
        reason: "the writer's thread is gone".to_owned(),
    }
    .into()
}

impl Handler<Append> for TapeActor {
    type Result = ResponseFuture<Result<Appended, Failure>>;

    fn handle(&mut self, message: Append, _: &mut Self::Context) -> Self::Result {
        // Submitted here and not in the future: the order of messages is the order
        // of events.
        match self.tape.try_submit(message.events) {
            Ok(answer) => Box::pin(async move {
                match answer.await {
                    Ok(answer) => answer.map_err(Failure::from),
                    Err(_) => Err(gone()),
                }
            }),
            Err(events) => {
                // The queue is full: wait for room without holding the arbiter.
                let tape = self.tape.clone();
                Box::pin(async move {
                    let answer = tokio::task::spawn_blocking(move || tape.append(events)).await;
                    match answer {
                        Ok(answer) => answer.map_err(Failure::from),
                        Err(_) => Err(gone()),
                    }
                })
            }
        }
    }
}

impl Handler<Read> for TapeActor {
    type Result = ResponseFuture<Result<Vec<Record>, Failure>>;

    fn handle(&mut self, message: Read, _: &mut Self::Context) -> Self::Result {
        let tape = self.tape.clone();
        Box::pin(async move {
            let read = tokio::task::spawn_blocking(move || match &message.stream {
                Some(stream) => tape.read_stream(stream, message.from, message.limit),
                None => tape.read(message.from, message.limit),
            })
            .await;
            match read {
                Ok(records) => records.map_err(Failure::from),
                Err(_) => Err(gone()),
            }
        })
    }
}
