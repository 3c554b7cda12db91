//! One supervised child.
//!
//! [`Supervised<A>`] is the stable address of an actor that may die: it forwards every
//! message to the current child. The request that a child dies with is answered with
//! `GT-ACTOR-DIED`, one that it does not answer within its deadline with
//! `GT-ACTOR-TIMEOUT`; in both cases a **fresh** child takes its place. Requests that
//! come in between wait for it. It never answers *for* the child and never retries on
//! its own: whether a request is idempotent is the asker's knowledge.
//!
//! This is the door; the child's life is in the hands of its keeper (`keeper.rs`), which
//! goes on when the door is blocked by requests that wait.

use crate::fault::{Fault, FaultPlan};
use crate::keeper::{Child, Keeper, Order, Standing};
use crate::line::{Line, Notice};
use crate::restart::RestartPolicy;
use actix::fut::wrap_future;
use actix::prelude::*;
use gametape_schemas::ask::unanswered;
use gametape_schemas::event::DeathCause;
use gametape_schemas::{Deadline, Failure, FailureKind};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, timeout_at};

/// What happened to a child; the edge puts it on the tape.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ChildReport {
    /// It ended.
    Died {
        /// Its name.
        actor: String,
        /// Why.
        cause: DeathCause,
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
    /// Mailbox size of the child, and of its stable address.
    pub mailbox: usize,
    /// Requests under way at once; beyond it no message is taken out of the mailbox, so
    /// that senders wait.
    pub in_flight: usize,
    /// The line in which it stands, if others lean on it or it on others.
    pub line: Option<Line>,
    /// Faults on purpose.
    pub faults: FaultPlan,
}

/// The stable address of a child; see the module's description.
pub struct Supervised<A: Actor<Context = Context<A>>> {
    name: String,
    mailbox: usize,
    faults: FaultPlan,
    standing: watch::Receiver<Standing<A>>,
    notices: mpsc::UnboundedSender<Notice>,
    slots: Arc<Semaphore>,
}

impl<A: Actor<Context = Context<A>>> Supervised<A> {
    /// Starts a child and its stable address on the current arbiter.
    pub fn start_child(spec: ChildSpec<A>) -> Addr<Self> {
        let (name, mailbox, faults) = (spec.name.clone(), spec.mailbox, spec.faults.clone());
        let slots = Arc::new(Semaphore::new(spec.in_flight.max(1)));
        let (standing, notices) = Keeper::start(spec);
        Self {
            name,
            mailbox,
            faults,
            standing,
            notices,
            slots,
        }
        .start()
    }
}

impl<A: Actor<Context = Context<A>>> Drop for Supervised<A> {
    fn drop(&mut self) {
        // A keeper that is gone has nothing to end.
        let _ = self.notices.send(Notice::Over);
    }
}

impl<A: Actor<Context = Context<A>>> Actor for Supervised<A> {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(self.mailbox);
    }
}

impl<A, M, T> Handler<M> for Supervised<A>
where
    A: Actor<Context = Context<A>> + Handler<M>,
    M: Message<Result = Result<T, Failure>> + Deadline + Send + 'static,
    T: Send + 'static,
{
    type Result = ResponseFuture<Result<T, Failure>>;

    fn handle(&mut self, message: M, ctx: &mut Self::Context) -> Self::Result {
        let limit = message.deadline();
        let request = Request {
            name: self.name.clone(),
            standing: self.standing.clone(),
            notices: self.notices.clone(),
            fault: self.faults.next(),
            limit,
            end: Instant::now() + limit,
        };
        let slots = self.slots.clone();
        if let Ok(slot) = slots.clone().try_acquire_owned() {
            return Box::pin(async move {
                let _slot = slot;
                request.carry(message).await
            });
        }
        // No further message is taken before this one has a slot: the mailbox fills, and
        // senders wait.
        let (admitted, admission) = oneshot::channel::<()>();
        ctx.wait(wrap_future(async move {
            // Sent or dropped: this one does not wait any more.
            let _ = admission.await;
        }));
        Box::pin(async move {
            let slot = timeout_at(request.end, slots.acquire_owned()).await;
            drop(admitted);
            // The semaphore is never closed.
            let Ok(_slot) = slot else {
                return Err(unanswered::<M>(limit));
            };
            request.carry(message).await
        })
    }
}

/// A message on its way to the child.
struct Request<A: Actor> {
    name: String,
    standing: watch::Receiver<Standing<A>>,
    notices: mpsc::UnboundedSender<Notice>,
    fault: Option<Fault>,
    /// The message's deadline, and the moment at which it is over.
    limit: Duration,
    end: Instant,
}

impl<A: Actor<Context = Context<A>>> Request<A> {
    async fn carry<M, T>(mut self, message: M) -> Result<T, Failure>
    where
        A: Handler<M>,
        M: Message<Result = Result<T, Failure>> + Deadline + Send + 'static,
        T: Send + 'static,
    {
        let child = match timeout_at(self.end, self.child()).await {
            Ok(child) => child?,
            Err(_) => return Err(unanswered::<M>(self.limit)),
        };
        let life = child.life;
        match self.fault {
            None => {}
            Some(Fault::Panic) => {
                let _ = child.orders.send(Order::Panic);
                let over = |standing: &Standing<A>| !standing.is_life(life);
                // The keeper's own end is an end as well.
                let _ = self.standing.wait_for(over).await;
                return Err(self.died("died with this request in its hands"));
            }
            Some(Fault::Hang(lasts)) => {
                let _ = child.orders.send(Order::Hang);
                tokio::time::sleep(lasts).await;
                let _ = self.notices.send(Notice::Hung { life });
                return Err(unanswered::<M>(lasts));
            }
            Some(Fault::Block(lasts)) => std::thread::sleep(lasts),
        }
        let mut hung = child.hung.subscribe();
        tokio::select! {
            biased;
            answer = timeout_at(self.end, child.address.send(message)) => match answer {
                Ok(Ok(answer)) => answer,
                Ok(Err(_)) => Err(self.died("died with this request in its hands")),
                Err(_) => {
                    // Only the keeper's own end closes the channel.
                    let _ = self.notices.send(Notice::Hung { life });
                    Err(unanswered::<M>(self.limit))
                }
            },
            _ = hung.wait_for(|hung| *hung) => {
                Err(self.died("hangs, and was given up with this request in its hands"))
            }
        }
    }

    /// The child that is up, or the one to come.
    async fn child(&mut self) -> Result<Child<A>, Failure> {
        let settled = |standing: &Standing<A>| !matches!(standing, Standing::Coming);
        if let Ok(standing) = self.standing.wait_for(settled).await
            && let Standing::Up(child) = &*standing
        {
            return Ok(child.clone());
        }
        Err(self.died("died too often and was given up"))
    }

    fn died(&self, how: &str) -> Failure {
        Failure::new(
            FailureKind::ActorDied,
            "GT-ACTOR-DIED",
            format!("the {} actor {how}", self.name),
        )
        .with_help("the reason is in the log of the run")
    }
}
