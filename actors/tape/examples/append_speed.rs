//! How fast synced appends are on this disk: 1 KB events, 64 a request, each request
//! acknowledged before the next (`cargo run -p gametape-tape --example append_speed
//! [EVENTS [DIRECTORY [BYTES]]]`; over 32 KiB bodies lie outside the frames). A look, not a benchmark: it compares with nothing.

use gametape_schemas::event::RunPaused;
use gametape_schemas::{Event, NewEvent, StreamId};
use gametape_tape::{SledTape, TapeError, stats, verify};
use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// Text that compresses about as events do: words drawn from few.
fn text(n: u64, bytes: usize) -> String {
    let mut seed = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut out = String::with_capacity(bytes + 16);
    while out.len() < bytes {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let word = (seed >> 33) % 4_096;
        out.push_str(&format!(
            "{:x} ",
            word.wrapping_mul(2_654_435_761) % 1_048_576
        ));
    }
    out
}

fn event(n: u64, bytes: usize) -> NewEvent {
    let body = RunPaused {
        reason: text(n, bytes),
    };
    let stream = StreamId::new(format!("attempt/{}", n / 40));
    NewEvent::named(stream, &n.to_string(), Event::RunPaused(body))
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let events: u64 = arguments.next().map_or(Ok(20_000), |n| n.parse())?;
    let base = arguments
        .next()
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let bytes: usize = arguments.next().map_or(Ok(850), |n| n.parse())?;
    let directory = base.join(format!("gametape-append-speed-{}", std::process::id()));
    let report = measure(&directory, events, bytes);
    std::fs::remove_dir_all(&directory)?;
    Ok(report?)
}

fn measure(directory: &std::path::Path, events: u64, bytes: usize) -> Result<(), TapeError> {
    let tape = SledTape::open(directory, Arc::new(|| 1))?;
    let all: Vec<NewEvent> = (0..events).map(|n| event(n, bytes)).collect();
    let mut waits = Vec::new();
    let begin = Instant::now();
    for batch in all.chunks(64) {
        let sent = Instant::now();
        tape.append(batch.to_vec())?;
        waits.push(sent.elapsed());
    }
    let seconds = begin.elapsed().as_secs_f64();
    waits.sort();
    let at = |share: f64| {
        let place = (waits.len() as f64 * share) as usize;
        waits.get(place).map_or(0.0, |d| d.as_secs_f64() * 1e3)
    };
    println!(
        "one asker: {:.0} events/s, p50 {:.2} ms, p99 {:.2} ms a batch of 64",
        events as f64 / seconds,
        at(0.5),
        at(0.99)
    );
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for t in 0..8u64 {
            let tape = &tape;
            let mine = (0..events / 8).map(move |n| event(events + n * 8 + t, bytes));
            scope.spawn(move || {
                let mine: Vec<NewEvent> = mine.collect();
                for batch in mine.chunks(64) {
                    if let Err(error) = tape.append(batch.to_vec()) {
                        eprintln!("{error}");
                    }
                }
            });
        }
    });
    let seconds = begin.elapsed().as_secs_f64();
    println!(
        "blobs: {}",
        std::fs::read_dir(directory.join("blobs")).map_or(0, Iterator::count)
    );
    println!("eight askers: {:.0} events/s", events as f64 / seconds);
    tape.close();
    let begin = Instant::now();
    let tape = SledTape::open(directory, Arc::new(|| 1))?;
    println!("reopening: {:.0} ms", begin.elapsed().as_secs_f64() * 1e3);
    let begin = Instant::now();
    let mut read = 0;
    while read < tape.durable() {
        let part = tape.read(read, 4_096)?;
        read += part.len() as u64;
    }
    let seconds = begin.elapsed().as_secs_f64();
    println!("reading: {:.0} events/s", read as f64 / seconds);
    tape.close();
    match (stats(directory), verify(directory)) {
        (Ok(stats), Ok(_)) => print!("{stats}"),
        (Err(failure), _) | (_, Err(failure)) => eprintln!("{failure}"),
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if let Some(line) = status.lines().find(|line| line.starts_with("VmHWM")) {
        println!("{line}");
    }
    Ok(())
}
