//! The tree of supervised rooms: how each is started, and how its deaths come on the tape.

use crate::system::now_micros;
use actix::prelude::*;
use gametape_schemas::ask::ask_again;
use gametape_schemas::event::{ActorDied, ActorRestarted, DeathCause, NewEvent};
use gametape_schemas::message::Append;
use gametape_schemas::{Event, Failure, FailureKind, RunId, StreamId};
use gametape_supervisor::{ChildReport, ChildSpec, Faults, Line, RestartPolicy, Supervised};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// Messages that wait for a room.
const MAILBOX: usize = 256;
/// Messages that a room works on at once: more than any phase of the loop asks for.
const IN_FLIGHT: usize = 1024;

/// Starts rooms under supervision. Deaths and restarts go on the tape, and too many
/// deaths end the process, so that whatever started it can look.
pub struct Tree {
    /// Set once the tape's own room is up.
    append: Arc<OnceLock<Recipient<Append>>>,
    faults: Faults,
    line: Line,
    started: Instant,
}

impl Tree {
    /// An empty tree whose rooms meet these faults.
    pub fn new(faults: Faults) -> Self {
        Self {
            append: Arc::default(),
            faults,
            line: Line::new(),
            started: Instant::now(),
        }
    }

    /// Where deaths are reported.
    pub fn report_to(&mut self, append: Recipient<Append>) {
        // A tree has one tape; a second one would be ignored.
        let _ = self.append.set(append);
    }

    /// A room on which no other leans.
    pub fn start<A>(&self, name: &str, factory: impl Fn() -> A + 'static) -> Addr<Supervised<A>>
    where
        A: Actor<Context = Context<A>>,
    {
        self.start_with(name, factory, None)
    }

    /// A room that leans on those started so before it, and is made anew with them.
    pub fn start_in_line<A>(
        &self,
        name: &str,
        factory: impl Fn() -> A + 'static,
    ) -> Addr<Supervised<A>>
    where
        A: Actor<Context = Context<A>>,
    {
        self.start_with(name, factory, Some(self.line.clone()))
    }

    fn start_with<A>(
        &self,
        name: &str,
        factory: impl Fn() -> A + 'static,
        line: Option<Line>,
    ) -> Addr<Supervised<A>>
    where
        A: Actor<Context = Context<A>>,
    {
        let (append, started) = (self.append.clone(), self.started);
        Supervised::start_child(ChildSpec {
            name: name.to_owned(),
            factory: Box::new(factory),
            policy: RestartPolicy::default(),
            report: Arc::new(move |report| put_on_tape(append.get(), report)),
            clock: Arc::new(move || started.elapsed().as_millis() as u64),
            jitter: Arc::new(rand::random::<f64>),
            mailbox: MAILBOX,
            in_flight: IN_FLIGHT,
            line,
            faults: self.faults.of(name),
        })
    }
}

fn put_on_tape(append: Option<&Recipient<Append>>, report: ChildReport) {
    let now = now_micros();
    let escalated = matches!(report, ChildReport::Escalated { .. });
    let (name, event) = match report {
        ChildReport::Died {
            actor,
            cause,
            deaths,
        } => (
            format!("died-{actor}-{now}"),
            Event::ActorDied(ActorDied {
                actor,
                cause,
                deaths,
            }),
        ),
        ChildReport::Restarted { actor, backoff_ms } => (
            format!("restarted-{actor}-{now}"),
            Event::ActorRestarted(ActorRestarted { actor, backoff_ms }),
        ),
        ChildReport::Escalated { actor, deaths } => (
            format!("gave-up-{actor}-{now}"),
            Event::ActorDied(ActorDied {
                actor,
                cause: DeathCause::GivenUp,
                deaths,
            }),
        ),
    };
    let stream = StreamId::run(&RunId::new("actors"));
    let event = NewEvent::named(stream, &name, event);
    let append = append.cloned();
    actix::spawn(async move {
        if let Some(append) = append {
            let events = vec![event];
            if let Err(failure) = ask_again(&append, Append { events }).await {
                tracing::error!(%failure, "an actor's death did not reach the tape");
            }
        }
        if escalated {
            let failure = Failure::new(
                FailureKind::Internal,
                "GT-ACTOR-GIVEN-UP",
                "an actor died too often; the log of the run says why",
            )
            .with_help("everything done is on the tape: the same command goes on from there");
            eprintln!("error: {failure}");
            std::process::exit(1);
        }
    });
}
