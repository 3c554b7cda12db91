//! The rooms as the driver sees them: one recipient per message, and nothing of their
//! types.

use actix::dev::ToEnvelope;
use actix::prelude::*;
use gametape_schemas::ask::ask_again;
use gametape_schemas::message::*;
use gametape_schemas::{Failure, Record};

/// Where each message goes. Cheap to clone.
#[derive(Clone)]
pub struct Rooms {
    /// Tape.
    pub append: Recipient<Append>,
    /// Tape.
    pub read: Recipient<Read>,
    /// Environment.
    pub provision: Recipient<Provision>,
    /// Environment.
    pub open: Recipient<OpenSandbox>,
    /// Environment.
    pub exec: Recipient<Exec>,
    /// Environment.
    pub close: Recipient<CloseSandbox>,
    /// Grader.
    pub grade: Recipient<GradePatch>,
    /// Grader.
    pub run_tests: Recipient<RunTests>,
    /// Agent.
    pub run_attempts: Recipient<RunAttempts>,
    /// Model.
    pub keep_models: Recipient<KeepModels>,
    /// Trainer.
    pub train: Recipient<Train>,
    /// Verifier.
    pub score: Recipient<ScoreTrajectories>,
}

/// A recipient of one message of a supervised room.
pub fn recipient<A, M>(address: &Addr<A>) -> Recipient<M>
where
    A: Actor + Handler<M>,
    A::Context: ToEnvelope<A, M>,
    M: Message + Send + 'static,
    M::Result: Send,
{
    address.clone().recipient()
}

/// Hands every record on the tape to `take`, in order.
///
/// # Errors
/// The tape's.
pub async fn each_record(
    read: &Recipient<Read>,
    mut take: impl FnMut(Record),
) -> Result<(), Failure> {
    let mut from = 0;
    loop {
        let request = Read {
            from,
            limit: 4096,
            stream: None,
        };
        let records = ask_again(read, request).await?;
        if records.is_empty() {
            return Ok(());
        }
        for record in records {
            from = record.seq + 1;
            take(record);
        }
    }
}
