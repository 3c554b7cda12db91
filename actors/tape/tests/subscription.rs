//! Subscriptions: exactly the tape, in order, from anywhere, beside any number of
//! writers; never more than is durable; and nobody's reason for a tape to stay open.
#![allow(clippy::unwrap_used)]

mod common;

use actix::prelude::*;
use common::{InMemory, OnDisk, Place, clock, open, paused, stream};
use gametape_schemas::message::{Append, Records, Subscribe};
use gametape_schemas::{Failure, FailureKind, NewEvent, Record, StreamId};
use gametape_tape::{
    Fault, FaultyStore, Io, MemoryStore, Subscription, TapeActor, TapeError, TapeHandle,
    TapeOptions,
};
use proptest::prelude::*;
use std::sync::Arc;
use tokio::sync::mpsc;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap()
}

fn in_memory() -> TapeHandle {
    InMemory::new().open()
}

/// Everything that it hands out, until it ends.
async fn all(mut subscription: Subscription, limit: usize) -> (Vec<Record>, Option<TapeError>) {
    let mut seen = Vec::new();
    loop {
        match subscription.next(limit).await {
            Ok(Some(records)) => {
                assert!((1..=limit.max(1)).contains(&records.len()));
                seen.extend(records);
            }
            Ok(None) => return (seen, None),
            Err(error) => return (seen, Some(error)),
        }
    }
}

/// Everything up to the event whose id ends so.
async fn until(mut subscription: Subscription, limit: usize, last: &str) -> Vec<Record> {
    let mut seen: Vec<Record> = Vec::new();
    while seen.last().is_none_or(|r| !r.event_id.ends_with(last)) {
        let records = subscription.next(limit).await.unwrap().unwrap();
        assert!((1..=limit.max(1)).contains(&records.len()));
        seen.extend(records);
        assert!(subscription.position() > seen[seen.len() - 1].seq);
    }
    seen
}

/// Subscribers from anywhere, beside writers that write meanwhile: each sees what
/// reading gives when all is done.
fn crowd<P: Place>(writers: u8, requests: u8, subscribers: &[(u64, Option<u8>, usize)]) {
    let place = P::new();
    let tape = place.open();
    let runtime = runtime();
    let tasks: Vec<_> = subscribers
        .iter()
        .map(|(from, of, limit)| {
            let subscription = tape.subscribe(*from, of.map(stream));
            let last = of.map_or("r2#end".to_owned(), |of| format!("r{of}#end"));
            let limit = *limit;
            runtime.spawn(async move { until(subscription, limit, &last).await })
        })
        .collect();
    let threads: Vec<_> = (0..writers)
        .map(|writer| {
            let tape = tape.clone();
            std::thread::spawn(move || {
                for n in 0..requests {
                    let events = (0..3).map(|k| paused(k, &format!("{writer}.{n}.{k}"), "x"));
                    tape.append(events.collect()).unwrap();
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let end = (0..3).map(|k| paused(k, "end", "x")).collect();
    tape.append(end).unwrap();
    for (task, (from, of, limit)) in tasks.into_iter().zip(subscribers) {
        let seen = runtime.block_on(task).unwrap();
        let expected = match of {
            Some(of) => tape.read_stream(&stream(*of), *from, usize::MAX).unwrap(),
            None => tape.read(*from, usize::MAX).unwrap(),
        };
        assert!(seen == expected, "from {from} of {of:?} by {limit}");
    }
}

#[test]
fn on_disk_everybody_sees_exactly_the_tape() {
    let subscribers = [
        (0, None, 1),
        (0, None, 1_000),
        (0, Some(1), 7),
        (217, None, 64),
        (599, Some(2), 3),
        (600, None, 9),
    ];
    crowd::<OnDisk>(4, 50, &subscribers);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn everybody_sees_exactly_the_tape(
        writers in 1u8..5,
        requests in 0u8..40,
        wishes in prop::collection::vec(
            (any::<prop::sample::Index>(), prop::option::of(0u8..3), 0usize..40), 1..7),
    ) {
        let total = u64::from(writers) * u64::from(requests) * 3;
        let subscribers: Vec<_> = wishes
            .into_iter()
            .map(|(from, of, limit)| (from.index(total as usize + 1) as u64, of, limit))
            .collect();
        crowd::<InMemory>(writers, requests, &subscribers);
    }
}

#[test]
fn a_call_that_is_dropped_loses_and_repeats_nothing() {
    let tape = in_memory();
    let events = |from: u32| (from..from + 20).map(|n| paused(1, &n.to_string(), "x"));
    tape.append(events(0).collect()).unwrap();
    runtime().block_on(async {
        let mut subscription = tape.subscribe(0, None);
        let mut seen = Vec::new();
        for round in 0..200u32 {
            // Polled a few times and dropped: before reading, while reading, while
            // waiting.
            let mut polls = round % 3;
            let next = tokio::select! {
                biased;
                next = subscription.next(3) => Some(next),
                () = std::future::poll_fn(|context| {
                    polls = polls.saturating_sub(1);
                    context.waker().wake_by_ref();
                    if polls == 0 { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
                }) => None,
            };
            if let Some(next) = next {
                seen.extend(next.unwrap().unwrap());
            }
            if round == 100 {
                let tape = tape.clone();
                let more = events(20).collect();
                tokio::task::spawn_blocking(move || tape.append(more))
                    .await
                    .unwrap()
                    .unwrap();
            }
        }
        while seen.len() < 40 {
            seen.extend(subscription.next(3).await.unwrap().unwrap());
        }
        assert!(seen == tape.read(0, 100).unwrap());
    });
}

#[test]
fn closing_ends_those_who_have_everything() {
    let place = OnDisk::new();
    let tape = place.open();
    tape.append(vec![paused(1, "a", "x"), paused(2, "b", "x")])
        .unwrap();
    let runtime = runtime();
    let whole = runtime.spawn(all(tape.subscribe(0, None), 10));
    let of_one = runtime.spawn(all(tape.subscribe(0, Some(stream(1))), 10));
    let later = runtime.spawn(all(tape.subscribe(7, None), 10));
    let mut first = tape.subscribe(0, None);
    assert_eq!(runtime.block_on(first.next(10)).unwrap().unwrap().len(), 2);
    tape.close();
    assert!(runtime.block_on(first.next(10)).unwrap().is_none());
    assert!(
        runtime.block_on(first.next(10)).unwrap().is_none(),
        "for good"
    );
    let (seen, error) = runtime.block_on(later).unwrap();
    assert!(seen.is_empty() && error.is_none());
    for task in [whole, of_one] {
        // They may have been at the beginning when it was closed: then they are told.
        let (seen, error) = runtime.block_on(task).unwrap();
        assert_eq!(seen.is_empty(), error.is_some(), "{error:?}");
    }
    // The subscriptions hold nothing: the directory is free.
    place.open().close();
}

#[test]
fn closing_tells_those_who_have_not() {
    let tape = in_memory();
    tape.append(vec![paused(1, "a", "x"), paused(2, "b", "x")])
        .unwrap();
    let runtime = runtime();
    let mut half = tape.subscribe(0, None);
    assert_eq!(runtime.block_on(half.next(1)).unwrap().unwrap().len(), 1);
    tape.close();
    for _ in 0..2 {
        let error = runtime.block_on(half.next(1)).unwrap_err();
        assert_eq!(error.code(), "GT-TAPE-STOPPED");
        assert!(error.to_string().contains("event 1"), "{error}");
    }
}

/// Appends until the store fails; a subscriber takes what comes, and must end with the
/// writer's reason when there was a failure.
fn deliver(store: &FaultyStore, requests: &[Vec<NewEvent>]) -> (Vec<Record>, u64) {
    let options = TapeOptions::new(clock());
    let Ok(tape) = TapeHandle::over(Arc::new(store.clone()), options) else {
        return (Vec::new(), 0);
    };
    let runtime = runtime();
    let begin = tape.subscribe(0, None);
    let task = runtime.spawn(all(begin, 3));
    let failed = requests
        .iter()
        .any(|request| tape.append(request.clone()).is_err());
    let durable = tape.durable();
    let (seen, error) = if failed {
        let ended = runtime.block_on(task).unwrap();
        tape.close();
        ended
    } else {
        tape.close();
        runtime.block_on(task).unwrap()
    };
    assert_eq!(
        error.is_some_and(|e| e.code() == "GT-TAPE-STOPPED"),
        failed || (seen.len() as u64) < durable
    );
    (seen, durable)
}

#[test]
fn nothing_is_delivered_that_a_loss_of_power_can_take_back() {
    let requests: Vec<Vec<NewEvent>> = (0..8u32)
        .map(|n| {
            (0..=n % 3)
                .map(|k| paused(1, &format!("{n}.{k}"), "x"))
                .collect()
        })
        .collect();
    let ios = {
        let store = FaultyStore::new([]);
        deliver(&store, &requests);
        store.done()
    };
    let kinds = [
        Fault::CrashBefore,
        Fault::CrashAfter,
        Fault::Error,
        Fault::Full,
        Fault::LostAnswer,
        Fault::Panic,
    ];
    let mut delivered = 0;
    for (at, io) in ios
        .iter()
        .enumerate()
        .filter(|(_, io)| matches!(io, Io::Put | Io::Sync))
    {
        for fault in kinds {
            let store = FaultyStore::new([(at as u64, fault)]);
            let opened = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                deliver(&store, &requests)
            }));
            // The fault that panics while the tape is opened is the opener's.
            let Ok((seen, durable)) = opened else {
                continue;
            };
            assert!(seen.len() as u64 <= durable, "{fault:?} at {at} {io:?}");
            delivered += seen.len();
            for image in store.survivors() {
                let left = open_image(&image).read(0, usize::MAX).unwrap();
                assert!(
                    left.get(..seen.len()) == Some(seen.as_slice()),
                    "{fault:?} at {at} {io:?}: delivered and gone"
                );
            }
        }
    }
    assert!(delivered > 300, "{delivered} say little");
}

fn open_image(image: &MemoryStore) -> TapeHandle {
    TapeHandle::over(Arc::new(image.clone()), TapeOptions::new(clock())).unwrap()
}

// ---------------------------------------------------------------- the actor

/// What a subscriber told the test.
enum Told {
    Next(Vec<Record>),
    Ended(Option<Failure>),
}

/// Answers a batch when the test lets it; the answer is what the test says.
struct Listener {
    told: mpsc::UnboundedSender<Told>,
    answers: Arc<tokio::sync::Mutex<mpsc::UnboundedReceiver<Result<(), Failure>>>>,
}

impl Actor for Listener {
    type Context = Context<Self>;
}

impl Handler<Records> for Listener {
    type Result = ResponseFuture<Result<(), Failure>>;
    fn handle(&mut self, message: Records, _: &mut Self::Context) -> Self::Result {
        let told = match message {
            Records::Next(records) => Told::Next(records),
            Records::Ended(why) => Told::Ended(why),
        };
        self.told.send(told).unwrap();
        let answers = self.answers.clone();
        Box::pin(async move { answers.lock().await.recv().await.unwrap_or(Ok(())) })
    }
}

type Ear = (
    Addr<Listener>,
    mpsc::UnboundedReceiver<Told>,
    mpsc::UnboundedSender<Result<(), Failure>>,
);

fn listen() -> Ear {
    let (told, heard) = mpsc::unbounded_channel();
    let (answer, answers) = mpsc::unbounded_channel();
    let answers = Arc::new(tokio::sync::Mutex::new(answers));
    (Listener { told, answers }.start(), heard, answer)
}

async fn subscribe(actor: &Addr<TapeActor>, from: u64, of: Option<StreamId>, to: &Addr<Listener>) {
    let message = Subscribe {
        from,
        stream: of,
        to: to.clone().recipient(),
    };
    actor.send(message).await.unwrap().unwrap();
}

async fn append(actor: &Addr<TapeActor>, events: impl Iterator<Item = NewEvent>) {
    let events = events.collect();
    actor.send(Append { events }).await.unwrap().unwrap();
}

fn batch(told: Option<Told>) -> Vec<Record> {
    match told {
        Some(Told::Next(records)) => records,
        Some(Told::Ended(why)) => panic!("ended: {why:?}"),
        None => panic!("the listener is gone"),
    }
}

#[test]
fn a_slow_subscriber_is_waited_for_and_misses_nothing() {
    let tape = in_memory();
    let inside = tape.clone();
    System::new().block_on(async move {
        let actor = TapeActor::new(inside).start();
        append(&actor, (0..1_000).map(|n| paused(1, &n.to_string(), "x"))).await;
        let (listener, mut heard, answer) = listen();
        subscribe(&actor, 10, None, &listener).await;
        let mut seen = batch(heard.recv().await);
        // While it does not answer the tape goes on, and nothing more is sent.
        append(&actor, (0..500).map(|n| paused(2, &n.to_string(), "y"))).await;
        assert!(heard.try_recv().is_err());
        while seen.len() < 1_490 {
            answer.send(Ok(())).unwrap();
            seen.extend(batch(heard.recv().await));
            assert!(heard.try_recv().is_err(), "one batch at a time");
        }
        let expected = tape.read(10, usize::MAX).unwrap();
        assert!(seen == expected);
    });
}

#[test]
fn subscribers_end_with_the_tape() {
    let place = OnDisk::new();
    let tape = place.open();
    System::new().block_on(async move {
        let actor = TapeActor::new(tape).start();
        append(&actor, (0..3).map(|n| paused(n, "a", "x"))).await;
        let (listener, mut heard, answer) = listen();
        subscribe(&actor, 0, Some(stream(1)), &listener).await;
        assert_eq!(batch(heard.recv().await).len(), 1);
        answer.send(Ok(())).unwrap();
        // The subscription does not keep the actor, and so does not keep the tape.
        drop(actor);
        match heard.recv().await {
            Some(Told::Ended(None)) => {}
            _ => panic!("it was at the end"),
        }
        // The files are closed: another may have them.
        place.open().close();
    });
}

#[test]
fn a_subscriber_that_fails_or_goes_is_left_alone() {
    let tape = in_memory();
    System::new().block_on(async move {
        let actor = TapeActor::new(tape).start();
        append(&actor, (0..600).map(|n| paused(1, &n.to_string(), "x"))).await;
        // It answers with a failure: there is more on the tape, and it hears no more.
        let (listener, mut heard, answer) = listen();
        subscribe(&actor, 0, None, &listener).await;
        assert_eq!(batch(heard.recv().await).len(), 256);
        let failure = Failure::new(FailureKind::Internal, "TEST", "enough");
        answer.send(Err(failure)).unwrap();
        // It goes: the forwarder ends, and with it the last address.
        let (other, mut hears, _answer) = listen();
        subscribe(&actor, 500, None, &other).await;
        assert_eq!(batch(hears.recv().await).len(), 100);
        drop(other);
        // A third one hears everything meanwhile.
        let (third, mut all_of_it, answers) = listen();
        subscribe(&actor, 0, None, &third).await;
        let mut seen = 0;
        while seen < 600 {
            seen += batch(all_of_it.recv().await).len();
            answers.send(Ok(())).unwrap();
        }
        append(&actor, std::iter::once(paused(1, "last", "x"))).await;
        assert_eq!(batch(all_of_it.recv().await).len(), 1);
        drop(listener);
        assert!(heard.recv().await.is_none(), "the failed one was let go of");
    });
}

#[test]
fn a_subscriber_hears_why_there_is_no_more() {
    System::new().block_on(async {
        // Opening, then the put and the sync of the first append.
        let opening = {
            let store = FaultyStore::new([]);
            open_faulty(&store).close();
            store.done().len() as u64
        };
        let store = FaultyStore::new([(opening + 1, Fault::Error)]);
        let actor = TapeActor::new(open_faulty(&store)).start();
        let (listener, mut heard, _answer) = listen();
        subscribe(&actor, 0, None, &listener).await;
        let events = vec![paused(1, "a", "x")];
        let failure = actor.send(Append { events }).await.unwrap().unwrap_err();
        assert_eq!(failure.code, "GT-TAPE-IO");
        assert_eq!(store.done()[opening as usize + 1], Io::Sync);
        match heard.recv().await {
            Some(Told::Ended(Some(failure))) => assert_eq!(failure.code, "GT-TAPE-STOPPED"),
            _ => panic!("the event was never durable"),
        }
    });
}

fn open_faulty(store: &FaultyStore) -> TapeHandle {
    TapeHandle::over(Arc::new(store.clone()), TapeOptions::new(clock())).unwrap()
}

#[test]
fn a_directory_can_be_opened_again_at_once_while_subscribers_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tape");
    let runtime = runtime();
    let mut begun = 0u32;
    for round in 0..20u32 {
        let tape = open(&path).unwrap();
        let events = (0..50).map(|n| paused(1, &format!("{round}.{n}"), "x"));
        tape.append(events.collect()).unwrap();
        let tasks: Vec<_> = (0..3)
            .map(|limit| runtime.spawn(all(tape.subscribe(0, None), limit * 7)))
            .collect();
        tape.close();
        for task in tasks {
            let (seen, _) = runtime.block_on(task).unwrap();
            begun += u32::from(!seen.is_empty());
            assert!(seen.iter().zip(0..).all(|(r, seq)| r.seq == seq));
        }
    }
    assert_eq!(
        open(&path).unwrap().durable(),
        1_000,
        "{begun} had begun to read"
    );
}
