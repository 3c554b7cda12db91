//! How one actor asks another: with a deadline, and with a failure that has a name when
//! no answer comes.

use crate::deadline::Deadline;
use crate::failure::{Failure, FailureKind};
use crate::message::{Append, Read};
use actix::prelude::*;
use std::time::Duration;

/// How often an idempotent message is sent when the room dies with it.
const TRIES: u32 = 5;

/// A message that may be sent again when it is unknown whether it was carried out.
pub trait Idempotent: Clone {}

// Events have ids: appended twice, they are on the tape once.
impl Idempotent for Append {}
impl Idempotent for Read {}

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

/// [`ask`], and again when the room died or hung with the message in its hands: what is
/// on its way to the tape must not be lost with the actor in front of it.
///
/// # Errors
/// As [`ask_within`].
pub async fn ask_again<M, T>(to: &Recipient<M>, message: M) -> Result<T, Failure>
where
    M: Message<Result = Result<T, Failure>> + Deadline + Idempotent + Send + 'static,
    T: Send + 'static,
{
    for _ in 1..TRIES {
        match ask(to, message.clone()).await {
            // A supervised room answers again as soon as a fresh actor is there.
            Err(failure) if is_unanswered(&failure) => {}
            answer => return answer,
        }
    }
    ask(to, message).await
}

/// Whether nobody answered, and not: somebody refused.
fn is_unanswered(failure: &Failure) -> bool {
    failure.kind == FailureKind::ActorDied || failure.code == "GT-ACTOR-TIMEOUT"
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
        Err(MailboxError::Timeout) => Err(unanswered::<M>(limit)),
        Err(MailboxError::Closed) => Err(Failure::new(
            FailureKind::ActorDied,
            "GT-ACTOR-DIED",
            format!("an actor died before it answered {}", name_of::<M>()),
        )
        .with_help("the reason is in the log of the run")),
    }
}

/// No answer came in time.
pub fn unanswered<M>(limit: Duration) -> Failure {
    let (name, seconds) = (name_of::<M>(), limit.as_secs());
    Failure::new(
        FailureKind::Timeout,
        "GT-ACTOR-TIMEOUT",
        format!("an actor did not answer {name} within {seconds} s"),
    )
    .with_help("type the same command again; the reason is in the log of the run")
}

/// The type name of a message.
fn name_of<M>() -> &'static str {
    std::any::type_name::<M>().rsplit("::").next().unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Appended, KeepModels};

    /// Hangs, or dies with the question in its hands.
    struct Room {
        dies: bool,
    }

    impl Actor for Room {
        type Context = Context<Self>;
    }

    impl Handler<KeepModels> for Room {
        // Ends with the actor; a `ResponseFuture` would go on without it.
        type Result = ResponseActFuture<Self, Result<(), Failure>>;

        fn handle(&mut self, _: KeepModels, ctx: &mut Self::Context) -> Self::Result {
            if self.dies {
                ctx.terminate();
            }
            Box::pin(std::future::pending().into_actor(self))
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
            assert!(failure.message.contains("KeepModels"), "{failure}");
            assert!(failure.kind.is_retryable());
        }
    }

    /// Fails with these kinds, one after another, and then answers.
    struct Tape(Vec<FailureKind>);

    impl Actor for Tape {
        type Context = Context<Self>;
    }

    impl Handler<Append> for Tape {
        type Result = Result<Appended, Failure>;

        fn handle(&mut self, _: Append, _: &mut Self::Context) -> Self::Result {
            match self.0.pop() {
                Some(kind) => Err(Failure::new(kind, "GT-X", "x")),
                None => Ok(Appended { first: 1, last: 1 }),
            }
        }
    }

    #[actix::test]
    async fn only_a_death_is_a_reason_to_send_again() {
        let append = || Append { events: vec![] };
        let dying = |times| {
            Tape(vec![FailureKind::ActorDied; times])
                .start()
                .recipient()
        };
        assert!(ask_again(&dying(4), append()).await.is_ok());
        assert!(ask_again(&dying(5), append()).await.is_err());
        let failing = Tape(vec![FailureKind::Tape]).start().recipient();
        assert!(ask_again(&failing, append()).await.is_err());
    }
}
