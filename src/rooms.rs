//! The rooms as the driver sees them: one recipient per message, and nothing of their
//! types.

use actix::dev::ToEnvelope;
use actix::prelude::*;
use gametape_schemas::message::*;
use gametape_schemas::{Failure, FailureKind};

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

/// Sends a message and waits for its answer. A dead actor is a failure of ours.
///
/// # Errors
/// The room's own failure, or `GT-ACTOR-DIED`.
pub async fn ask<M, T>(to: &Recipient<M>, message: M) -> Result<T, Failure>
where
    M: Message<Result = Result<T, Failure>> + Send,
    T: Send,
{
    match to.send(message).await {
        Ok(answer) => answer,
        Err(error) => Err(Failure::new(
            FailureKind::ActorDied,
            "GT-ACTOR-DIED",
            format!("an actor did not answer: {error}"),
        )
        .with_help("type the same command again; the reason is in the log of the run")),
    }
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
