//! The rooms as the driver sees them: one recipient per message, and nothing of their
//! types.

use actix::dev::ToEnvelope;
use actix::prelude::*;
use gametape_schemas::message::*;

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
