//! A policy dataset built from a tape beside a Python script that builds the same from the
//! tape's export: the same filters, the same bytes.
//!
//! ```text
//! cargo bench -p gametape-benches --bench dataset -- [--steps N] [--rounds N] [--quick] [--alone]
//! ```
//!
//! Ours opens the tape, folds it, and writes the rows with their digest; theirs reads JSON
//! lines and writes the rows. Writing the export is not counted, neither are Python's start
//! and imports. Each round of each side is a process of its own, so that memory is its own;
//! the sides take turns. `--alone` leaves Python and the export out, for long tapes.
//!
//! Memory is measured on a second tape, too, of a tenth of the steps.

mod made_up;

use gametape_agent::voice::Voices;
use gametape_schemas::Said;
use gametape_schemas::recipe::{Given, Options, Recipe, Voice, each};
use gametape_tape::{Prefix, SledTape};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

/// Anything that goes wrong ends the benchmark.
pub type Outcome<T> = Result<T, Box<dyn Error>>;

const RECIPE: &str = r#"
version = 1
kind = "policy"
[[filter]]
by = "outcome"
is = ["resolved"]
[[filter]]
by = "turns"
max = 40
[[filter]]
by = "findings"
allow = "none"
[[filter]]
by = "dedup"
keep = "fewest_turns"
[[filter]]
by = "per_task"
most = 2
keep = "fewest_turns"
"#;

/// What a round tells of itself.
#[derive(Serialize, Deserialize)]
struct Round {
    seconds: f64,
    rows: u64,
    passes: u32,
    peak_bytes: u64,
}

/// Rounds of a side.
#[derive(Default)]
struct Side {
    seconds: Vec<f64>,
    rows: u64,
    passes: u32,
    peak_bytes: u64,
}

impl Side {
    fn add(&mut self, round: Round) {
        self.seconds.push(round.seconds);
        self.peak_bytes = self.peak_bytes.max(round.peak_bytes);
        (self.rows, self.passes) = (round.rows, round.passes);
    }

    fn median(&self) -> f64 {
        median(self.seconds.clone())
    }
}

/// How ours is run: with what it keeps by itself, or with little.
#[derive(Clone, Copy)]
enum Keep {
    Usual,
    Little,
}

impl Keep {
    fn options(self) -> Options {
        match self {
            Self::Usual => Options::default(),
            Self::Little => Options {
                keep_bytes: 0,
                rows_bytes: 16 << 20,
                native: false,
            },
        }
    }
}

fn voices() -> Outcome<Voices> {
    Ok(Voices::new(|_, _, _| Vec::new())?)
}

fn open(place: &Path) -> Outcome<SledTape> {
    Ok(SledTape::open(&place.join("tape"), Arc::new(|| 1))?)
}

/// One round: from the files of a tape to the file of rows.
fn ours(place: &Path, keep: Keep) -> Outcome<()> {
    let begin = Instant::now();
    let tape = open(place)?;
    let given = Given::new(Recipe::parse(RECIPE)?);
    let mut out = BufWriter::new(File::create(place.join("ours.jsonl"))?);
    let prefix = Prefix::new(&tape, None);
    let built = each::<Box<dyn Error>>(
        &given,
        &prefix,
        &voices()?,
        keep.options(),
        &mut |_, line| Ok(out.write_all(line)?),
    )?;
    out.flush()?;
    std::fs::write(place.join("ours.digest"), &built.sum.digest.0)?;
    let round = Round {
        seconds: begin.elapsed().as_secs_f64(),
        rows: built.sum.rows,
        passes: built.passes,
        peak_bytes: peak(),
    };
    println!("{}", serde_json::to_string(&round)?);
    Ok(())
}

/// The highest resident memory of this process, bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or_default() * 1024
}

fn told(command: &mut Command) -> Outcome<Round> {
    let output = command.output()?;
    if !output.status.success() {
        return Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// One round of ours in a process of its own.
fn started(place: &Path, keep: Keep) -> Outcome<Round> {
    let keep = match keep {
        Keep::Usual => "usual",
        Keep::Little => "little",
    };
    told(
        Command::new(std::env::current_exe()?)
            .arg("--ours")
            .arg(place)
            .arg(keep),
    )
}

/// One round of theirs, with one of two readers of JSON.
fn theirs(place: &Path, json: &str) -> Outcome<Round> {
    told(
        Command::new("python3")
            .arg(place.join("peer.py"))
            .arg(place)
            .arg(json),
    )
}

/// The middle one of some numbers.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Sides in the order of the table.
const SIDES: [&str; 4] = [
    "gametape",
    "gametape, little memory",
    "Python, json",
    "Python, orjson",
];

fn main() -> Outcome<()> {
    let (mut steps, mut rounds, mut alone) = (100_000, 5, false);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} wants a value"));
        match argument.as_str() {
            "--steps" => steps = value()?.parse()?,
            "--rounds" => rounds = value()?.parse::<usize>()?.max(1),
            "--quick" => (steps, rounds) = (20_000, 1),
            "--alone" => alone = true,
            "--bench" => {}
            // This very program, as one of the sides.
            "--ours" => {
                let place = value()?;
                let keep = match value()?.as_str() {
                    "little" => Keep::Little,
                    _ => Keep::Usual,
                };
                return ours(Path::new(&place), keep);
            }
            other => return Err(format!("unknown argument {other}").into()),
        }
    }
    let (place, small) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let (place, small) = (place.path(), small.path());
    let (events, tasks) = filled(place, steps)?;
    filled(small, steps / 10)?;
    let mut json_bytes = None;
    if !alone {
        let mut export = BufWriter::new(File::create(place.join("tape.jsonl"))?);
        gametape_tape::export(&place.join("tape"), &mut export)?;
        export.flush()?;
        json_bytes = Some(std::fs::metadata(place.join("tape.jsonl"))?.len());
        openings(place, tasks)?;
        std::fs::write(place.join("peer.py"), include_str!("peer.py"))?;
    }
    let megabytes = json_bytes.map_or(String::new(), |n| {
        format!(", {:.0} MB as JSON lines", n as f64 / 1e6)
    });
    println!("{steps} steps, {events} events{megabytes}");

    let mut sides: [Side; 4] = Default::default();
    let mut skipped = [alone; 4];
    let mut first: Option<Vec<u8>> = None;
    for _ in 0..rounds {
        for (at, (side, skipped)) in sides.iter_mut().zip(&mut skipped).enumerate() {
            let (round, file) = match at {
                0 => (started(place, Keep::Usual), "ours.jsonl"),
                1 => (started(place, Keep::Little), "ours.jsonl"),
                _ if *skipped => continue,
                2 => (theirs(place, "json"), "theirs.jsonl"),
                _ => (theirs(place, "orjson"), "theirs.jsonl"),
            };
            match round {
                Ok(round) => side.add(round),
                Err(reason) if at >= 2 => {
                    println!("SKIPPED: {}: {reason}", SIDES[at]);
                    *skipped = true;
                    continue;
                }
                Err(reason) => return Err(reason),
            }
            let bytes = std::fs::read(place.join(file))?;
            if *first.get_or_insert_with(|| bytes.clone()) != bytes {
                return Err(format!("{} does not give the same bytes", SIDES[at]).into());
            }
        }
    }
    let row_bytes = first.map_or(0, |bytes| bytes.len());
    let tenth = [started(small, Keep::Usual)?, started(small, Keep::Little)?];

    println!(
        "| | s | steps/s | rows | readings | peak MB | at a tenth |\n|---|---|---|---|---|---|---|"
    );
    let mega = |bytes: u64| format!("{:.0}", bytes as f64 / 1e6);
    for (at, side) in sides
        .iter()
        .enumerate()
        .filter(|(_, side)| !side.seconds.is_empty())
    {
        println!(
            "| {} | {:.3} | {:.0} | {} | {} | {} | {} |",
            SIDES[at],
            side.median(),
            steps as f64 / side.median(),
            side.rows,
            side.passes,
            mega(side.peak_bytes),
            tenth
                .get(at)
                .map_or(String::new(), |one| mega(one.peak_bytes)),
        );
    }
    let [usual, little, json, orjson] = &sides;
    let against = |theirs: &Side, ours: &Side| {
        let ratio = theirs.median() / ours.median();
        ratio.is_finite().then(|| (ratio * 100.0).round() / 100.0)
    };
    let line = serde_json::json!({
        "bench": "dataset",
        "ratios": {
            "build_vs_python": against(json, usual),
            "build_vs_python_orjson": against(orjson, usual),
            "build_little_memory_vs_python": against(json, little),
        },
        "detail": {
            "steps": steps,
            "events": events,
            "rounds": rounds,
            "json_bytes": json_bytes,
            "rows": usual.rows,
            "row_bytes": row_bytes,
            "seconds": { "usual": usual.median(), "little_memory": little.median(),
                         "python_json": finite(json.median()), "python_orjson": finite(orjson.median()) },
            "readings_of_the_tape": { "usual": usual.passes, "little_memory": little.passes },
            "peak_bytes": { "usual": usual.peak_bytes, "little_memory": little.peak_bytes,
                            "python_json": json.peak_bytes },
            "peak_bytes_at_a_tenth": { "usual": tenth[0].peak_bytes, "little_memory": tenth[1].peak_bytes },
        },
    });
    println!("{line}");
    Ok(())
}

fn finite(n: f64) -> Option<f64> {
    n.is_finite().then_some(n)
}

/// A tape of so many steps in a directory; gives how many events and tasks it has.
fn filled(place: &Path, steps: usize) -> Outcome<(u64, usize)> {
    let tape = open(place)?;
    let tasks = made_up::fill(&tape, steps)?;
    Ok((tape.durable(), tasks))
}

/// How each task's conversation begins: Python has no templates to render.
fn openings(place: &Path, tasks: usize) -> Outcome<()> {
    let voices = voices()?;
    let mut out = BTreeMap::new();
    for n in 0..tasks {
        let task = made_up::task(n);
        let attempt: gametape_schemas::Trajectory = made_up::nothing(&task);
        let said = voices
            .conversation(&task, &attempt, &[], &[])
            .ok_or("no such scaffold")?;
        let texts: Vec<String> = said
            .into_iter()
            .map(|said| match said {
                Said::System { text }
                | Said::User { text }
                | Said::Assistant { text, .. }
                | Said::Tool { text, .. } => text,
            })
            .collect();
        out.insert(task.id.0, texts);
    }
    std::fs::write(place.join("openings.json"), serde_json::to_vec(&out)?)?;
    Ok(())
}
