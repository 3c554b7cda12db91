//! A child's life: made by its factory, ended by whatever ends it, and made again.
//!
//! A child that hangs cannot be killed inside a process: it is told to stop and left
//! behind, and whatever it holds is freed when it lets go.

use crate::child::{ChildReport, ChildSpec};
use crate::line::Notice;
use crate::restart::Verdict;
use actix::fut::wrap_future;
use actix::prelude::*;
use gametape_schemas::event::DeathCause;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Where requests go.
pub(crate) enum Standing<A: Actor> {
    /// Nowhere yet: a fresh child is about to be made.
    Coming,
    /// To this child.
    Up(Child<A>),
    /// Nowhere any more.
    GivenUp,
}

/// A child of one life.
pub(crate) struct Child<A: Actor> {
    pub(crate) life: u64,
    pub(crate) address: Addr<A>,
    pub(crate) orders: mpsc::UnboundedSender<Order>,
    /// Set when it is taken for hung: what waits in its mailbox waits in vain.
    pub(crate) hung: watch::Sender<bool>,
}

impl<A: Actor> Standing<A> {
    pub(crate) fn is_life(&self, life: u64) -> bool {
        matches!(self, Self::Up(child) if child.life == life)
    }
}

impl<A: Actor> Clone for Child<A> {
    fn clone(&self) -> Self {
        Self {
            life: self.life,
            address: self.address.clone(),
            orders: self.orders.clone(),
            hung: self.hung.clone(),
        }
    }
}

/// What a child's context is told from outside of its mailbox.
pub(crate) enum Order {
    Stop,
    Panic,
    Hang,
}

/// Lives inside the child's context. Whatever ends the child drops the context, and
/// with it this guard, also during the unwinding of a panic.
struct Guard {
    notices: mpsc::UnboundedSender<Notice>,
    life: u64,
}

impl Drop for Guard {
    fn drop(&mut self) {
        // The receiver is gone only when the supervisor itself ended.
        let _ = self.notices.send(Notice::Died {
            life: self.life,
            panicked: std::thread::panicking(),
        });
    }
}

/// Keeps one child alive: a task of its own beside the door.
pub(crate) struct Keeper<A: Actor<Context = Context<A>>> {
    spec: ChildSpec<A>,
    standing: watch::Sender<Standing<A>>,
    /// Number of the current child, or of the one to come: notices of earlier ones are
    /// old news.
    life: u64,
    /// Clock readings.
    deaths: Vec<u64>,
    notices: mpsc::UnboundedSender<Notice>,
    /// Its place in the line.
    place: Option<usize>,
}

impl<A: Actor<Context = Context<A>>> Keeper<A> {
    /// Makes the first child and keeps it on the current arbiter, until [`Notice::Over`].
    pub(crate) fn start(
        spec: ChildSpec<A>,
    ) -> (watch::Receiver<Standing<A>>, mpsc::UnboundedSender<Notice>) {
        let (notices, inbox) = mpsc::unbounded_channel();
        let (standing, standings) = watch::channel(Standing::Coming);
        let place = spec.line.as_ref().map(|line| line.join(notices.clone()));
        let mut keeper = Self {
            spec,
            standing,
            life: 0,
            deaths: Vec::new(),
            notices: notices.clone(),
            place,
        };
        keeper.spawn();
        actix::spawn(keeper.keep(inbox));
        (standings, notices)
    }

    async fn keep(mut self, mut inbox: mpsc::UnboundedReceiver<Notice>) {
        while let Some(notice) = inbox.recv().await {
            let cause = match notice {
                Notice::Over => break,
                Notice::Renew => DeathCause::Renewal,
                Notice::Died { life, .. } | Notice::Hung { life } if life != self.life => continue,
                Notice::Died { panicked: true, .. } => DeathCause::Panic,
                Notice::Died { .. } => DeathCause::Stop,
                Notice::Hung { .. } => DeathCause::Hang,
            };
            if self.is_given_up() {
                continue;
            }
            self.retire(cause);
            let backoff_ms = match cause {
                DeathCause::Renewal => 0,
                _ => match self.verdict() {
                    Verdict::RestartAfter(ms) => ms,
                    Verdict::Escalate => {
                        self.give_up();
                        continue;
                    }
                },
            };
            tokio::time::sleep(Duration::from_millis(backoff_ms)).await;
            // What came meanwhile is about children that are gone; and the next one is
            // as fresh as a renewal could make it.
            while let Ok(notice) = inbox.try_recv() {
                if notice == Notice::Over {
                    return;
                }
            }
            self.spawn();
            (self.spec.report)(ChildReport::Restarted {
                actor: self.spec.name.clone(),
                backoff_ms,
            });
            if let (Some(line), Some(place)) = (&self.spec.line, self.place)
                && cause != DeathCause::Renewal
            {
                line.renew_behind(place);
            }
        }
        if let Standing::Up(child) = self.standing.send_replace(Standing::GivenUp) {
            let _ = child.orders.send(Order::Stop);
        }
    }

    fn spawn(&mut self) {
        let life = self.life;
        let Ok(actor) = catch_unwind(AssertUnwindSafe(|| (self.spec.factory)())) else {
            let panicked = true;
            // The receiver lives as long as this keeper.
            let _ = self.notices.send(Notice::Died { life, panicked });
            return;
        };
        let guard = Guard {
            notices: self.notices.clone(),
            life,
        };
        let mailbox = self.spec.mailbox;
        let (orders, mut inbox) = mpsc::unbounded_channel();
        let address = A::create(move |ctx| {
            ctx.set_mailbox_capacity(mailbox);
            let ordered = async move { (inbox.recv().await, guard) };
            let ordered = ordered.into_actor(&actor);
            ctx.spawn(ordered.map(|(order, guard), _, ctx| match order {
                // The keeper is gone, or does not want it any more.
                None | Some(Order::Stop) => ctx.stop(),
                Some(Order::Panic) => resume_unwind(Box::new(guard.life)),
                Some(Order::Hang) => ctx.wait(wrap_future(async move {
                    let _guard = guard;
                    std::future::pending::<()>().await;
                })),
            }));
            actor
        });
        self.standing.send_replace(Standing::Up(Child {
            life,
            address,
            orders,
            hung: watch::Sender::new(false),
        }));
    }

    /// The child's life is over, whether it knows or not.
    fn retire(&mut self, cause: DeathCause) {
        self.life += 1;
        if let Standing::Up(child) = self.standing.send_replace(Standing::Coming) {
            if cause == DeathCause::Hang {
                child.hung.send_replace(true);
            }
            // One that is dead already has closed its ears.
            let _ = child.orders.send(Order::Stop);
        }
        if cause != DeathCause::Renewal {
            self.deaths.push((self.spec.clock)());
        }
        let (actor, deaths) = (self.spec.name.clone(), self.death_count());
        tracing::error!(%actor, ?cause, deaths, "actor died");
        (self.spec.report)(ChildReport::Died {
            actor,
            cause,
            deaths,
        });
    }

    fn verdict(&self) -> Verdict {
        let now = self.deaths.last().copied().unwrap_or(0);
        let jitter = (self.spec.jitter)();
        self.spec.policy.decide(&self.deaths, now, jitter)
    }

    fn give_up(&mut self) {
        self.standing.send_replace(Standing::GivenUp);
        (self.spec.report)(ChildReport::Escalated {
            actor: self.spec.name.clone(),
            deaths: self.death_count(),
        });
    }

    fn is_given_up(&self) -> bool {
        matches!(*self.standing.borrow(), Standing::GivenUp)
    }

    fn death_count(&self) -> u32 {
        u32::try_from(self.deaths.len()).unwrap_or(u32::MAX)
    }
}
