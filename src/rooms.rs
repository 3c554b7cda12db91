//! The rooms as the driver sees them: one recipient per message, and nothing of their
//! types.

use actix::dev::ToEnvelope;
use actix::prelude::*;
use gametape_schemas::message::*;
use gametape_schemas::{Deadline, Failure, FailureKind};
use std::time::Duration;

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

/// Sends a message and waits for its answer, as long as its [`Deadline`] says. A dead or
/// hanging actor is a failure of ours.
///
/// # Errors
/// As [`ask_within`].
pub async fn ask<M, T>(to: &Recipient<M>, message: M) -> Result<T, Failure>
where
    M: Message<Result = Result<T, Failure>> + Deadline + Send + 'static,
    T: Send + 'static,
{
    let limit = message.deadline();
    ask_within(to, message, limit).await
}

/// [`ask`] with a limit of one's own.
///
/// # Errors
/// The room's own failure, `GT-ACTOR-DIED` or `GT-ACTOR-TIMEOUT`.
pub async fn ask_within<M, T>(to: &Recipient<M>, message: M, limit: Duration) -> Result<T, Failure>
where
    M: Message<Result = Result<T, Failure>> + Send + 'static,
    T: Send + 'static,
{
    match to.send(message).timeout(limit).await {
        Ok(answer) => answer,
        Err(MailboxError::Timeout) => Err(Failure::new(
            FailureKind::Timeout,
            "GT-ACTOR-TIMEOUT",
            format!("an actor did not answer within {} s", limit.as_secs()),
        )
        .with_help("type the same command again; the reason is in the log of the run")),
        Err(MailboxError::Closed) => Err(Failure::new(
            FailureKind::ActorDied,
            "GT-ACTOR-DIED",
            "an actor died before it answered",
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Hangs, or dies with the question in its hands.
    struct Room {
        dies: bool,
    }

    impl Actor for Room {
        type Context = Context<Self>;
    }

    impl Handler<KeepModels> for Room {
        type Result = ResponseFuture<Result<(), Failure>>;

        fn handle(&mut self, _: KeepModels, ctx: &mut Self::Context) -> Self::Result {
            if self.dies {
                ctx.terminate();
            }
            Box::pin(std::future::pending())
        }
    }

    #[actix::test]
    async fn a_room_that_hangs_or_dies_is_a_failure_with_a_name() {
        for (dies, code) in [(false, "GT-ACTOR-TIMEOUT"), (true, "GT-ACTOR-DIED")] {
            let room = Room { dies }.start().recipient();
            let message = KeepModels { keep: vec![] };
            let limit = match dies {
                true => message.deadline(),
                false => Duration::from_millis(5),
            };
            let failure = ask_within(&room, message, limit).await.unwrap_err();
            assert_eq!(failure.code, code);
            assert!(failure.kind.is_retryable());
        }
    }
}
