//! The tape beside SQLite (WAL, synchronous=FULL), redb and a plain checksummed file:
//! the same events, in the same run, on the same disk, taking turns.
//!
//! ```text
//! cargo bench --bench tape -- [--steps FILE] [--times N] [--rounds N] [--dir DIR] [--quick]
//! cargo bench --bench tape -- --large MB [--steps FILE] [--dir DIR]
//! ```
//!
//! FILE is JSON lines (gzip or not) of attempts with `messages` (role, content), as
//! mini-swe-agent writes them; without it, steps are made up with the sizes that 294
//! such attempts had. Every store gets the same encoded records, N times over. Replay
//! opens the store again and decodes every record, once with its files in the page cache and
//! once without (after a reboot, or when the tape is larger than memory). The peers compress
//! nothing and keep no index of streams.
//!
//! An append is durable when it returns. It is measured twice: 64 attempts at once, each
//! of which appends one step and waits for its own acknowledgement, as the loop does
//! (`append_vs_sqlite`); and one writer alone with batches of 64 steps, each waiting for
//! the one before (`append_alone_vs_sqlite`): there every store waits for the same disk,
//! and the tape compresses meanwhile.
//!
//! With `--large` a tape of so many MB of records is made, and opened again in a process
//! of its own: seconds, memory afterwards, and the seconds of a whole replay.

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
const WRITERS: usize = 64;
/// Events that they append together.
const TOGETHER: usize = 12_800;

struct Options {
    steps: Option<PathBuf>,
    times: usize,
    rounds: usize,
    dir: PathBuf,
    large_mb: u64,
    /// Only open this tape, and say what it took.
    open: Option<PathBuf>,
}

fn options() -> Result<Options, Box<dyn Error>> {
    let mut options = Options {
        steps: None,
        times: 8,
        rounds: 3,
        dir: std::env::temp_dir(),
        large_mb: 0,
        open: None,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} wants a value"));
        match argument.as_str() {
            "--steps" => options.steps = Some(value()?.into()),
            "--rounds" => options.rounds = value()?.parse()?,
            "--dir" => options.dir = value()?.into(),
            "--times" => options.times = value()?.parse()?,
            "--quick" => (options.times, options.rounds) = (1, 1),
            "--large" => options.large_mb = value()?.parse()?,
            "--open" => options.open = Some(value()?.into()),
            "--bench" => {}
            other => return Err(format!("unknown argument {other}").into()),
        }
    }
    Ok(options)
}

/// Events that all writers together append.
fn together(steps: &Steps) -> usize {
    steps.len().min(TOGETHER) / WRITERS * WRITERS
}

/// What one round of one store took.
struct Round {
    append: Duration,
    waits: Vec<Duration>,
    together: Duration,
    replay: Duration,
    cold: Duration,
    disk: u64,
}

/// Opens a store again and decodes every record.
fn replay<S: Store>(path: &std::path::Path, steps: &Steps) -> Result<Duration, Box<dyn Error>> {
    let begin = Instant::now();
    let store = S::open(path)?;
    let events = store.replay()?;
    let took = begin.elapsed();
    store.close()?;
    if events != steps.len() {
        return Err(format!("{}: replayed {events} of {} events", S::NAME, steps.len()).into());
    }
    Ok(took)
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
    let warm = replay::<S>(&path, steps)?;
    stores::forget(&path)?;
    let cold = replay::<S>(&path, steps)?;
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
                    for one in mine.take(together(steps) / WRITERS) {
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
        replay: warm,
        cold,
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
    cold: f64,
    disk: f64,
    p50: f64,
    p99: f64,
}

fn summary(name: &'static str, steps: &Steps, rounds: &[Round]) -> Summary {
    let over = |f: &dyn Fn(&Round) -> f64| median(rounds.iter().map(f).collect());
    let n = steps.len() as f64;
    let shared = together(steps) as f64;
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
        together: over(&|r| shared / r.together.as_secs_f64()),
        replay: over(&|r| n / r.replay.as_secs_f64()),
        cold: over(&|r| n / r.cold.as_secs_f64()),
        disk: over(&|r| r.disk as f64 / steps.raw_bytes() as f64),
        p50: at(0.5),
        p99: at(0.99),
    }
}

/// Makes a large tape and opens it in a fresh process.
fn large(options: &Options) -> Result<(), Box<dyn Error>> {
    let once = Steps::load(options.steps.as_deref(), 1)?;
    let times = (options.large_mb * 1_000_000).div_ceil(once.raw_bytes());
    let place = tempfile::tempdir_in(&options.dir)?;
    let path = place.path().join("tape");
    let store = Tape::open(&path)?;
    let mut written = 0;
    for time in 0..times {
        let steps = once.again(time as usize);
        for batch in steps.batches(1024) {
            store.append(batch)?;
        }
        written += steps.len();
    }
    store.close()?;
    let disk = stores::bytes_under(&path)?;
    let raw = once.raw_bytes() * times;
    println!(
        "{written} steps, {} MB of records, {} MB on disk ({:.2})",
        raw / 1_000_000,
        disk / 1_000_000,
        disk as f64 / raw as f64
    );
    let status = std::process::Command::new(std::env::current_exe()?)
        .arg("--open")
        .arg(&path)
        .status()?;
    status
        .success()
        .then_some(())
        .ok_or("opening failed".into())
}

/// Opens a tape and says what that took.
fn open(path: &std::path::Path) -> Result<(), Box<dyn Error>> {
    let begin = Instant::now();
    let store = Tape::open(path)?;
    let seconds = begin.elapsed().as_secs_f64();
    let status = std::fs::read_to_string("/proc/self/status")?;
    let mb = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name));
        let number = line.and_then(|line| line.split_whitespace().nth(1));
        number.and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) / 1024
    };
    println!(
        "opened in {seconds:.2} s; resident memory {} MiB, {} MiB at most",
        mb("VmRSS"),
        mb("VmHWM")
    );
    let begin = Instant::now();
    let events = store.replay()?;
    println!(
        "{events} events replayed in {:.2} s",
        begin.elapsed().as_secs_f64()
    );
    store.close()
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = options()?;
    if let Some(path) = &options.open {
        return open(path);
    }
    if options.large_mb > 0 {
        return large(&options);
    }
    let steps = Steps::load(options.steps.as_deref(), options.times)?;
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
        "| store | append ev/s | p50 ms | p99 ms | {WRITERS} at once ev/s | replay ev/s | cold replay ev/s | disk / raw |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for r in &rows {
        println!(
            "| {} | {:.0} | {:.2} | {:.2} | {:.0} | {:.0} | {:.0} | {:.2} |",
            r.name, r.append, r.p50, r.p99, r.together, r.replay, r.cold, r.disk
        );
    }
    let [tape, sqlite, ..] = rows;
    let ratios = serde_json::json!({
        "append_vs_sqlite": rounded(tape.together / sqlite.together),
        "append_alone_vs_sqlite": rounded(tape.append / sqlite.append),
        "replay_vs_sqlite": rounded(tape.replay / sqlite.replay),
        "replay_cold_vs_sqlite": rounded(tape.cold / sqlite.cold),
        "disk_vs_raw": rounded(tape.disk),
    });
    let detail = serde_json::json!({
        "steps": steps.len(),
        "raw_bytes": steps.raw_bytes(),
        "append_p50_ms": rounded(tape.p50),
        "append_p99_ms": rounded(tape.p99),
    });
    let line = serde_json::json!({ "bench": "tape", "ratios": ratios, "detail": detail });
    println!("{line}");
    Ok(())
}

/// Two places behind the point.
fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
