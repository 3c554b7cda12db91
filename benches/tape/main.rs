//! The tape beside SQLite (WAL, synchronous=FULL), redb and a plain checksummed file:
//! the same events, in the same run, on the same disk, taking turns.
//!
//! `cargo bench --bench tape [-- --steps FILE] [--rounds N] [--dir DIR]`
//!
//! FILE is JSON lines (gzip or not) of attempts with `messages` (role, content), as
//! mini-swe-agent writes them; without it, steps are made up with the sizes that 294
//! such attempts had. Every store gets the same encoded records. One append is a batch
//! of 64 events (or one step of each of 16 attempts at once, each waiting for its own
//! acknowledgement) and is durable when it returns. Replay opens the store again and
//! decodes every record. The peers compress nothing and keep no index of streams.

mod steps;
mod stores;

use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use steps::Steps;
use stores::{Plain, Redb, Sqlite, Store, Tape};

/// Events of one append.
const BATCH: usize = 64;
/// Attempts that append at once.
const WRITERS: usize = 16;

struct Options {
    steps: Option<PathBuf>,
    rounds: usize,
    dir: PathBuf,
}

fn options() -> Result<Options, Box<dyn Error>> {
    let mut options = Options {
        steps: None,
        rounds: 3,
        dir: std::env::temp_dir(),
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} wants a value"));
        match argument.as_str() {
            "--steps" => options.steps = Some(value()?.into()),
            "--rounds" => options.rounds = value()?.parse()?,
            "--dir" => options.dir = value()?.into(),
            "--bench" => {}
            other => return Err(format!("unknown argument {other}").into()),
        }
    }
    Ok(options)
}

/// What one round of one store took.
struct Round {
    append: Duration,
    waits: Vec<Duration>,
    together: Duration,
    replay: Duration,
    disk: u64,
}

fn round<S: Store>(steps: &Steps, dir: &std::path::Path) -> Result<Round, Box<dyn Error>> {
    let place = tempfile::tempdir_in(dir)?;
    let path = place.path().join(S::NAME);
    let store = S::open(&path)?;
    let begin = Instant::now();
    let mut waits = Vec::new();
    for batch in steps.batches(BATCH) {
        let sent = Instant::now();
        store.append(batch)?;
        waits.push(sent.elapsed());
    }
    let append = begin.elapsed();
    store.close()?;
    let disk = stores::bytes_under(&path)?;
    let begin = Instant::now();
    let store = S::open(&path)?;
    let events = store.replay()?;
    let replay = begin.elapsed();
    store.close()?;
    if events != steps.len() {
        return Err(format!("{}: replayed {events} of {} events", S::NAME, steps.len()).into());
    }
    // One step at a time, from many attempts at once.
    let path = place.path().join(format!("{}-together", S::NAME));
    let store = S::open(&path)?;
    let begin = Instant::now();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let store = &store;
                scope.spawn(move || {
                    let mine = steps.batches(1).skip(writer).step_by(WRITERS);
                    for one in mine.take(steps.len() / WRITERS / 4) {
                        store.append(one).map_err(|e| e.to_string())?;
                    }
                    Ok::<(), String>(())
                })
            })
            .collect();
        for thread in threads {
            thread
                .join()
                .map_err(|_| "a writer panicked".to_owned())??;
        }
        Ok::<(), String>(())
    })?;
    let together = begin.elapsed();
    store.close()?;
    Ok(Round {
        append,
        waits,
        together,
        replay,
        disk,
    })
}

/// The middle one of some numbers.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

struct Summary {
    name: &'static str,
    append: f64,
    together: f64,
    replay: f64,
    disk: f64,
    p50: f64,
    p99: f64,
}

fn summary(name: &'static str, steps: &Steps, rounds: &[Round]) -> Summary {
    let over = |f: &dyn Fn(&Round) -> f64| median(rounds.iter().map(f).collect());
    let n = steps.len() as f64;
    let alone = (steps.len() / WRITERS / 4 * WRITERS) as f64;
    let mut waits: Vec<f64> = rounds
        .iter()
        .flat_map(|r| r.waits.iter().map(|w| w.as_secs_f64() * 1e3))
        .collect();
    waits.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let place = (waits.len() as f64 * share) as usize;
        waits.get(place).copied().unwrap_or(f64::NAN)
    };
    Summary {
        name,
        append: over(&|r| n / r.append.as_secs_f64()),
        together: over(&|r| alone / r.together.as_secs_f64()),
        replay: over(&|r| n / r.replay.as_secs_f64()),
        disk: over(&|r| r.disk as f64 / steps.raw_bytes() as f64),
        p50: at(0.5),
        p99: at(0.99),
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = options()?;
    let steps = Steps::load(options.steps.as_deref())?;
    println!(
        "{} steps, {} MB encoded, {}; {} rounds, batches of {BATCH}",
        steps.len(),
        steps.raw_bytes() / 1_000_000,
        steps.origin(),
        options.rounds
    );
    let (mut tape, mut sqlite, mut redb, mut plain) = (vec![], vec![], vec![], vec![]);
    for _ in 0..options.rounds {
        tape.push(round::<Tape>(&steps, &options.dir)?);
        sqlite.push(round::<Sqlite>(&steps, &options.dir)?);
        redb.push(round::<Redb>(&steps, &options.dir)?);
        plain.push(round::<Plain>(&steps, &options.dir)?);
    }
    let rows = [
        summary("tape", &steps, &tape),
        summary("sqlite", &steps, &sqlite),
        summary("redb", &steps, &redb),
        summary("plain", &steps, &plain),
    ];
    println!(
        "| store | append ev/s | p50 ms | p99 ms | {WRITERS} at once ev/s | replay ev/s | disk / raw |"
    );
    println!("|---|---|---|---|---|---|---|");
    for r in &rows {
        println!(
            "| {} | {:.0} | {:.2} | {:.2} | {:.0} | {:.0} | {:.2} |",
            r.name, r.append, r.p50, r.p99, r.together, r.replay, r.disk
        );
    }
    let [tape, sqlite, ..] = rows;
    println!("append_vs_sqlite {:.2}", tape.append / sqlite.append);
    println!(
        "append_at_once_vs_sqlite {:.2}",
        tape.together / sqlite.together
    );
    println!("replay_vs_sqlite {:.2}", tape.replay / sqlite.replay);
    println!("disk_vs_raw {:.2}", tape.disk);
    println!("append_p50_ms {:.2}", tape.p50);
    println!("append_p99_ms {:.2}", tape.p99);
    Ok(())
}
