//! One supervised child.
//!
//! [`Supervised<A>`] is the stable address of an actor that may die: it forwards every
//! message to the current child and answers `GT-ACTOR-DIED` for the request that the
//! child died with. It never answers *for* the child and never retries on its own:
//! whether the request is idempotent is the asker's knowledge.

use crate::restart::{RestartPolicy, Verdict};
use actix::prelude::*;
use gametape_schemas::{Failure, FailureKind};
use std::sync::Arc;
use tokio::sync::mpsc;

/// What happened to a child; the edge puts it on the tape.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ChildReport {
    /// It died.
    Died {
        /// Its name.
        actor: String,
        /// Whether a panic killed it.
        panicked: bool,
        /// Deaths of this child so far.
        deaths: u32,
    },
    /// A fresh one took its place.
    Restarted {
        /// Its name.
        actor: String,
        /// After waiting this long.
        backoff_ms: u64,
    },
    /// It died too often: the process should end.
    Escalated {
        /// Its name.
        actor: String,
        /// Deaths of this child so far.
        deaths: u32,
    },
}

/// What a supervised child is made of.
pub struct ChildSpec<A: Actor> {
    /// Name in reports.
    pub name: String,
    /// Makes a fresh child. Called on the arbiter of the supervisor.
    pub factory: Box<dyn Fn() -> A>,
    /// Limits of restarting.
    pub policy: RestartPolicy,
    /// Hears of deaths and restarts.
    pub report: Arc<dyn Fn(ChildReport) + Send + Sync>,
    /// Milliseconds of a monotonic clock.
    pub clock: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// A number in [0, 1) to spread restarts.
    pub jitter: Arc<dyn Fn() -> f64 + Send + Sync>,
    /// Mailbox size of the child.
    pub mailbox: usize,
}

/// The stable address of a child; see the module's description.
pub struct Supervised<A: Actor<Context = Context<A>>> {
    spec: ChildSpec<A>,
    child: Option<Addr<A>>,
    deaths: Vec<u64>,
    obituaries: Option<mpsc::UnboundedReceiver<bool>>,
    undertaker: mpsc::UnboundedSender<bool>,
    given_up: bool,
}

/// Lives inside the child's context. Whatever ends the child drops the context, and
/// with it this guard, also during the unwinding of a panic.
struct Guard {
    undertaker: mpsc::UnboundedSender<bool>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        // The receiver is gone only when the supervisor itself ended.
        let _ = self.undertaker.send(std::thread::panicking());
    }
}

impl<A: Actor<Context = Context<A>>> Supervised<A> {
    /// Starts a child and its stable address on the current arbiter.
    pub fn start_child(spec: ChildSpec<A>) -> Addr<Self> {
        let (undertaker, obituaries) = mpsc::unbounded_channel();
        Self {
            spec,
            child: None,
            deaths: Vec::new(),
            obituaries: Some(obituaries),
            undertaker,
            given_up: false,
        }
        .start()
    }

    fn spawn(&mut self) {
        let actor = (self.spec.factory)();
        let guard = Guard {
            undertaker: self.undertaker.clone(),
        };
        let mailbox = self.spec.mailbox;
        let child = A::create(move |ctx| {
            ctx.set_mailbox_capacity(mailbox);
            ctx.spawn(
                async move {
                    let _guard = guard;
                    std::future::pending::<()>().await;
                }
                .into_actor(&actor),
            );
            actor
        });
        self.child = Some(child);
    }

    fn on_death(&mut self, panicked: bool, ctx: &mut Context<Self>) {
        self.child = None;
        let now = (self.spec.clock)();
        self.deaths.push(now);
        let deaths = u32::try_from(self.deaths.len()).unwrap_or(u32::MAX);
        tracing::error!(actor = %self.spec.name, panicked, deaths, "actor died");
        (self.spec.report)(ChildReport::Died {
            actor: self.spec.name.clone(),
            panicked,
            deaths,
        });
        match self
            .spec
            .policy
            .decide(&self.deaths, now, (self.spec.jitter)())
        {
            Verdict::RestartAfter(backoff_ms) => {
                ctx.run_later(
                    std::time::Duration::from_millis(backoff_ms),
                    move |this, _| {
                        this.spawn();
                        (this.spec.report)(ChildReport::Restarted {
                            actor: this.spec.name.clone(),
                            backoff_ms,
                        });
                    },
                );
            }
            Verdict::Escalate => {
                self.given_up = true;
                (self.spec.report)(ChildReport::Escalated {
                    actor: self.spec.name.clone(),
                    deaths,
                });
            }
        }
    }

    fn died(name: &str, what: &str) -> Failure {
        Failure::new(
            FailureKind::ActorDied,
            "GT-ACTOR-DIED",
            format!("the {name} actor {what}"),
        )
        .with_help("the request is tried again; the reason is in the log just above")
    }
}

impl<A: Actor<Context = Context<A>>> Actor for Supervised<A> {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        // More room than the child has: waiting happens in the child's mailbox.
        ctx.set_mailbox_capacity(self.spec.mailbox.saturating_mul(4).max(64));
        if let Some(mut obituaries) = self.obituaries.take() {
            let deaths = async_stream(move |cx| obituaries.poll_recv(cx));
            ctx.spawn(
                deaths
                    .into_actor(self)
                    .map(|panicked, this, ctx| this.on_death(panicked, ctx))
                    .finish(),
            );
        }
        self.spawn();
    }
}

/// A stream from a poll function.
fn async_stream<T>(
    poll: impl FnMut(&mut std::task::Context<'_>) -> std::task::Poll<Option<T>> + Unpin,
) -> impl futures_core::Stream<Item = T> + Unpin {
    struct Polled<F>(F);
    impl<T, F> futures_core::Stream for Polled<F>
    where
        F: FnMut(&mut std::task::Context<'_>) -> std::task::Poll<Option<T>> + Unpin,
    {
        type Item = T;
        fn poll_next(
            mut self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<T>> {
            (self.0)(cx)
        }
    }
    Polled(poll)
}

impl<A, M, T> Handler<M> for Supervised<A>
where
    A: Actor<Context = Context<A>> + Handler<M>,
    M: Message<Result = Result<T, Failure>> + Send + 'static,
    T: Send + 'static,
{
    type Result = ResponseFuture<Result<T, Failure>>;

    fn handle(&mut self, message: M, _ctx: &mut Self::Context) -> Self::Result {
        let name = self.spec.name.clone();
        let given_up = self.given_up;
        match self.child.clone() {
            Some(child) => Box::pin(async move {
                match child.send(message).await {
                    Ok(answer) => answer,
                    Err(MailboxError::Closed) => {
                        Err(Self::died(&name, "died with this request in its hands"))
                    }
                    Err(MailboxError::Timeout) => Err(Self::died(&name, "did not answer in time")),
                }
            }),
            None => Box::pin(async move {
                Err(Self::died(
                    &name,
                    if given_up {
                        "died too often and was given up"
                    } else {
                        "is being restarted"
                    },
                ))
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// Answers with how many requests *this* child has seen; panics on 13.
    struct Counter {
        seen: u32,
    }
    #[derive(Message)]
    #[rtype(result = "Result<u32, Failure>")]
    struct Count(u32);
    impl Actor for Counter {
        type Context = Context<Self>;
    }
    impl Handler<Count> for Counter {
        type Result = Result<u32, Failure>;
        fn handle(&mut self, message: Count, _: &mut Context<Self>) -> Self::Result {
            assert_ne!(message.0, 13, "asked to die");
            self.seen += 1;
            Ok(self.seen)
        }
    }

    fn spec(intensity: usize, reports: mpsc::UnboundedSender<ChildReport>) -> ChildSpec<Counter> {
        let time = Mutex::new(0u64);
        ChildSpec {
            name: "counter".to_owned(),
            factory: Box::new(|| Counter { seen: 0 }),
            policy: RestartPolicy {
                intensity,
                period_ms: 1_000_000,
                first_backoff_ms: 0,
                max_backoff_ms: 0,
            },
            report: Arc::new(move |report| {
                let _ = reports.send(report);
            }),
            clock: Arc::new(move || {
                let mut time = time.lock().unwrap();
                *time += 1;
                *time
            }),
            jitter: Arc::new(|| 0.0),
            mailbox: 16,
        }
    }

    #[actix::test]
    async fn a_panicking_handler_restarts_a_fresh_child() {
        let (send, mut reports) = mpsc::unbounded_channel();
        let child = Supervised::start_child(spec(5, send));
        assert_eq!(child.send(Count(1)).await.unwrap(), Ok(1));
        assert_eq!(child.send(Count(1)).await.unwrap(), Ok(2));
        let failure = child.send(Count(13)).await.unwrap().unwrap_err();
        assert_eq!(failure.code, "GT-ACTOR-DIED");
        assert!(failure.kind.is_retryable());
        assert_eq!(
            reports.recv().await,
            Some(ChildReport::Died {
                actor: "counter".into(),
                panicked: true,
                deaths: 1
            })
        );
        assert!(matches!(
            reports.recv().await,
            Some(ChildReport::Restarted { .. })
        ));
        // State of the dead child is gone: this one is fresh.
        assert_eq!(child.send(Count(1)).await.unwrap(), Ok(1));
    }

    #[actix::test]
    async fn too_many_deaths_escalate_and_the_rest_is_told() {
        let (send, mut reports) = mpsc::unbounded_channel();
        let child = Supervised::start_child(spec(1, send));
        for _ in 0..2 {
            assert!(child.send(Count(13)).await.unwrap().is_err());
            // Died, then Restarted or Escalated.
            reports.recv().await.unwrap();
            if let ChildReport::Escalated { deaths, .. } = reports.recv().await.unwrap() {
                assert_eq!(deaths, 2);
                let failure = child.send(Count(1)).await.unwrap().unwrap_err();
                assert!(failure.message.contains("given up"));
                return;
            }
        }
        panic!("never escalated");
    }
}
