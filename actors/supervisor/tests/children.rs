//! Children that panic, stop, hang and are flooded: a fresh one takes their place, every
//! request has an answer, and those that lean on each other are made anew together.

#![allow(clippy::unwrap_used)]

use actix::prelude::*;
use gametape_schemas::event::DeathCause;
use gametape_schemas::{Deadline, Failure};
use gametape_supervisor::{
    ChildReport, ChildSpec, Fault, FaultPlan, Line, RestartPolicy, Supervised,
};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Answers with how many requests *this* child has seen.
struct Counter {
    seen: u32,
    gate: watch::Receiver<bool>,
}

impl Actor for Counter {
    type Context = Context<Self>;
}

#[derive(Clone, Copy)]
enum Do {
    /// Answer.
    Count,
    /// Panic in the handler.
    Panic,
    /// Stop the actor.
    Stop,
    /// Answer when the gate opens.
    Wait,
}

#[derive(Message)]
#[rtype(result = "Result<u32, Failure>")]
struct Ask(Do);

impl Deadline for Ask {
    fn deadline(&self) -> Duration {
        Duration::from_secs(60)
    }
}

impl Handler<Ask> for Counter {
    type Result = ResponseActFuture<Self, Result<u32, Failure>>;

    fn handle(&mut self, message: Ask, ctx: &mut Context<Self>) -> Self::Result {
        self.seen += 1;
        let seen = self.seen;
        let mut gate = self.gate.clone();
        match message.0 {
            Do::Count => {}
            Do::Panic => panic!("asked to"),
            Do::Stop => ctx.terminate(),
            Do::Wait => {
                let opened = async move {
                    gate.wait_for(|open| *open).await.unwrap();
                };
                return Box::pin(opened.into_actor(self).map(move |(), _, _| Ok(seen)));
            }
        }
        Box::pin(async move { Ok(seen) }.into_actor(self))
    }
}

type Reports = mpsc::UnboundedReceiver<ChildReport>;

fn spec(name: &str, intensity: usize) -> (ChildSpec<Counter>, Reports, watch::Sender<bool>) {
    let (send, reports) = mpsc::unbounded_channel();
    let (open, gate) = watch::channel(false);
    let time = AtomicU64::new(0);
    let spec = ChildSpec {
        name: name.to_owned(),
        factory: Box::new(move || Counter {
            seen: 0,
            gate: gate.clone(),
        }),
        policy: RestartPolicy {
            intensity,
            period_ms: 1_000_000,
            first_backoff_ms: 0,
            max_backoff_ms: 0,
        },
        report: Arc::new(move |report| {
            let _ = send.send(report);
        }),
        clock: Arc::new(move || time.fetch_add(1, Ordering::SeqCst)),
        jitter: Arc::new(|| 0.0),
        mailbox: 4,
        in_flight: 16,
        line: None,
        faults: FaultPlan::default(),
    };
    (spec, reports, open)
}

async fn ask(child: &Addr<Supervised<Counter>>, what: Do) -> Result<u32, String> {
    let answer = child.send(Ask(what)).await.unwrap();
    answer.map_err(|failure| {
        assert!(failure.kind.is_retryable());
        failure.code
    })
}

async fn expect(reports: &mut Reports, cause: DeathCause, deaths: u32) {
    match reports.recv().await.unwrap() {
        ChildReport::Died {
            cause: was,
            deaths: times,
            ..
        } => assert_eq!((was, times), (cause, deaths)),
        other => panic!("{other:?}"),
    }
    let next = reports.recv().await.unwrap();
    assert!(matches!(next, ChildReport::Restarted { .. }), "{next:?}");
}

#[actix::test]
async fn whatever_ends_a_child_a_fresh_one_takes_its_place() {
    let (mut spec, mut reports, _open) = spec("counter", 9);
    spec.faults = FaultPlan::new([
        (7, Fault::Panic),
        (9, Fault::Hang(Duration::from_millis(1))),
    ]);
    let child = Supervised::start_child(spec);
    let died = Err("GT-ACTOR-DIED".to_owned());
    assert_eq!(ask(&child, Do::Count).await, Ok(1));
    assert_eq!(ask(&child, Do::Count).await, Ok(2));
    assert_eq!(ask(&child, Do::Panic).await, died);
    // Not "is being restarted": what comes in between waits for the fresh one, which
    // knows nothing of the dead one's state.
    assert_eq!(ask(&child, Do::Count).await, Ok(1));
    expect(&mut reports, DeathCause::Panic, 1).await;
    assert_eq!(ask(&child, Do::Stop).await, died);
    assert_eq!(ask(&child, Do::Count).await, Ok(1));
    expect(&mut reports, DeathCause::Stop, 2).await;
    assert_eq!(ask(&child, Do::Count).await, died, "a panic on purpose");
    assert_eq!(ask(&child, Do::Count).await, Ok(1));
    expect(&mut reports, DeathCause::Panic, 3).await;
    let hung = Err("GT-ACTOR-TIMEOUT".to_owned());
    assert_eq!(ask(&child, Do::Count).await, hung);
    assert_eq!(ask(&child, Do::Count).await, Ok(1));
    expect(&mut reports, DeathCause::Hang, 4).await;
}

#[actix::test]
async fn what_waits_for_a_hanging_child_is_answered() {
    let (mut spec, mut reports, _open) = spec("counter", 9);
    spec.faults = FaultPlan::new([(1, Fault::Hang(Duration::from_millis(20)))]);
    let child = Supervised::start_child(spec);
    let all = (0..40).map(|_| ask(&child, Do::Count));
    let answers = futures_util::future::join_all(all).await;
    expect(&mut reports, DeathCause::Hang, 1).await;
    assert_eq!(answers[0], Err("GT-ACTOR-TIMEOUT".to_owned()));
    // Sixteen were in its hands; the others had to wait and met the fresh one.
    let died = Err("GT-ACTOR-DIED".to_owned());
    assert_eq!(answers.iter().filter(|a| **a == died).count(), 15);
    assert_eq!(answers.iter().filter(|a| a.is_ok()).count(), 24);
}

#[actix::test]
async fn too_many_deaths_escalate_and_the_rest_is_told() {
    let (spec, mut reports, _open) = spec("counter", 1);
    let child = Supervised::start_child(spec);
    assert!(ask(&child, Do::Panic).await.is_err());
    expect(&mut reports, DeathCause::Panic, 1).await;
    assert!(ask(&child, Do::Panic).await.is_err());
    assert!(matches!(
        reports.recv().await.unwrap(),
        ChildReport::Died { deaths: 2, .. }
    ));
    assert!(matches!(
        reports.recv().await.unwrap(),
        ChildReport::Escalated { deaths: 2, .. }
    ));
    let failure = child.send(Ask(Do::Count)).await.unwrap().unwrap_err();
    assert!(failure.message.contains("given up"), "{failure}");
}

#[actix::test]
async fn a_factory_that_panics_is_a_death_like_any_other() {
    let (mut spec, mut reports, _open) = spec("counter", 9);
    let made = AtomicU32::new(0);
    let gate = watch::channel(true).1;
    spec.factory = Box::new(move || {
        assert!(made.fetch_add(1, Ordering::SeqCst) > 1, "not yet");
        Counter {
            seen: 0,
            gate: gate.clone(),
        }
    });
    let child = Supervised::start_child(spec);
    assert_eq!(ask(&child, Do::Count).await, Ok(1));
    for deaths in 1..=2 {
        expect(&mut reports, DeathCause::Panic, deaths).await;
    }
}

#[actix::test]
async fn a_full_mailbox_holds_senders_back_and_nothing_is_lost() {
    let (mut spec, _reports, open) = spec("counter", 9);
    spec.in_flight = 3;
    let child = Supervised::start_child(spec);
    let mut waiting = Vec::new();
    // Three in the child's hands, one that stands at the door, and a mailbox of four.
    let refused = loop {
        let mut sent = Box::pin(child.send(Ask(Do::Wait)));
        // Polled once, it is in the mailbox or waits for room there.
        let waits = poll_fn(|context| Poll::Ready(Pin::new(&mut sent).poll(context).is_pending()));
        assert!(waits.await);
        waiting.push(sent);
        tokio::task::yield_now().await;
        if let Err(SendError::Full(_)) = child.try_send(Ask(Do::Count)) {
            break waiting.len();
        }
        assert!(waiting.len() < 100, "the mailbox has no bound");
    };
    assert!(refused >= 3, "{refused}");
    open.send_replace(true);
    for answer in waiting {
        assert!(answer.await.unwrap().is_ok());
    }
    assert!(ask(&child, Do::Count).await.is_ok());
}

#[actix::test]
async fn those_behind_in_the_line_are_made_anew_and_those_before_are_not() {
    let line = Line::new();
    let mut children = Vec::new();
    let mut all_reports = Vec::new();
    for name in ["first", "second", "third"] {
        let (mut spec, reports, _open) = spec(name, 0);
        spec.line = Some(line.clone());
        if name == "second" {
            spec.policy.intensity = 9;
        }
        children.push(Supervised::start_child(spec));
        all_reports.push(reports);
        // In line in the order of their start.
        assert_eq!(ask(children.last().unwrap(), Do::Count).await, Ok(1));
    }
    for round in 1..4 {
        assert!(ask(&children[1], Do::Panic).await.is_err());
        expect(&mut all_reports[1], DeathCause::Panic, round).await;
        // A renewal is nobody's fault: it does not count against an intensity of none.
        expect(&mut all_reports[2], DeathCause::Renewal, 0).await;
        assert_eq!(ask(&children[0], Do::Count).await, Ok(1 + round), "kept");
        assert_eq!(ask(&children[1], Do::Count).await, Ok(1), "fresh");
        assert_eq!(ask(&children[2], Do::Count).await, Ok(1), "fresh");
    }
    assert!(all_reports[0].try_recv().is_err());
}
