//! The local sandbox beside bare bubblewrap with the same namespaces and beside
//! `docker run`: opened, `true` run in it, closed; in the same run, taking turns. Both
//! starters of sandboxes are measured, the default one first.
//!
//! ```text
//! cargo bench --bench sandbox -- [--runs N] [--many N] [--dir DIR] [--quick]
//! ```
//!
//! Also: a command in a sandbox that is open; opening over a tree of 7,000 files and over
//! an empty one; many sandboxes open at once, and the memory of each (proportional set
//! size of all its processes). Docker is measured where an Engine answers: with an image
//! that holds `true` and its libraries, made here and removed again.

mod docker;
mod ground;

use ground::{Environment, Sandboxes};
use std::error::Error;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

/// Anything that goes wrong ends the benchmark.
pub type Outcome<T> = Result<T, Box<dyn Error>>;

/// Files of the large tree.
const MANY_FILES: usize = 7_000;

struct Options {
    runs: usize,
    many: usize,
    dir: PathBuf,
}

fn options() -> Outcome<Options> {
    let mut options = Options {
        runs: 100,
        many: 200,
        dir: std::env::temp_dir(),
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} wants a value"));
        match argument.as_str() {
            "--runs" => options.runs = value()?.parse::<usize>()?.max(1),
            "--many" => options.many = value()?.parse()?,
            "--dir" => options.dir = value()?.into(),
            "--quick" => (options.runs, options.many) = (20, 50),
            "--bench" => {}
            other => return Err(format!("unknown argument {other}").into()),
        }
    }
    Ok(options)
}

/// Milliseconds of each of some runs.
struct Times(Vec<f64>);

impl Times {
    fn add(&mut self, work: impl FnOnce() -> Outcome<()>) -> Outcome<()> {
        let begin = Instant::now();
        work()?;
        self.0.push(begin.elapsed().as_secs_f64() * 1e3);
        Ok(())
    }

    fn at(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let place = (sorted.len() as f64 * share) as usize;
        sorted.get(place).copied().unwrap_or(f64::NAN)
    }
}

/// bubblewrap with the namespaces that a sandbox has, and nothing else.
fn bare() -> Outcome<()> {
    let status = Command::new("bwrap")
        .args(["--unshare-pid", "--unshare-net", "--unshare-ipc"])
        .args(["--unshare-uts", "--unshare-cgroup-try", "--as-pid-1"])
        .args(["--die-with-parent", "--new-session", "--ro-bind", "/", "/"])
        .args([
            "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "true",
        ])
        .status()?;
    status.success().then_some(()).ok_or("bwrap failed".into())
}

fn row(name: &str, times: &Times) {
    println!("| {name} | {:.1} | {:.1} |", times.at(0.5), times.at(0.95));
}

fn main() -> Outcome<()> {
    let options = options()?;
    let place = tempfile::tempdir_in(&options.dir)?;
    let small = Environment::make(&place.path().join("small"), 0)?;
    let large = Environment::make(&place.path().join("large"), MANY_FILES)?;
    let sandboxes = Sandboxes::new(place.path())?;
    let others = sandboxes.by_the_other();
    if let Err(reason) = &others {
        println!("SKIPPED: the other starter: {reason}");
    }
    let docker = docker::Image::make();
    if let Err(reason) = &docker {
        println!("SKIPPED: docker run: {reason}");
    }

    let [
        mut ours,
        mut theirs,
        mut bwrap,
        mut engine,
        mut over_small,
        mut over_large,
    ] = [(); 6].map(|()| Times(Vec::new()));
    let mut other_over_small = Times(Vec::new());
    // The first ones make what the later ones find: a namespace, a control group.
    sandboxes.once(&small)?;
    sandboxes.once(&large)?;
    if let Ok(others) = &others {
        others.once(&small)?;
    }
    for _ in 0..options.runs {
        ours.add(|| sandboxes.once(&small))?;
        bwrap.add(bare)?;
        let open = |sandboxes: &Sandboxes, environment: &Environment, times: &mut Times| {
            let begin = Instant::now();
            let sandbox = sandboxes.open(environment)?;
            times.0.push(begin.elapsed().as_secs_f64() * 1e3);
            sandbox.close()
        };
        open(&sandboxes, &small, &mut over_small)?;
        open(&sandboxes, &large, &mut over_large)?;
        if let Ok(others) = &others {
            theirs.add(|| others.once(&small))?;
            open(others, &small, &mut other_over_small)?;
        }
    }
    if let Ok(image) = &docker {
        for _ in 0..options.runs.min(10) {
            engine.add(|| image.run())?;
        }
    }
    let mut exec = Times(Vec::new());
    let sandbox = sandboxes.open(&small)?;
    for _ in 0..options.runs {
        exec.add(|| sandbox.run_true())?;
    }
    sandbox.close()?;

    println!("| ms | p50 | p95 |");
    println!("|---|---|---|");
    let (first, second) = (sandboxes.starter(), others.as_ref().map(Sandboxes::starter));
    row(&format!("open, `true`, close over {first}"), &ours);
    if let Ok(second) = second {
        row(&format!("open, `true`, close over {second}"), &theirs);
        row(
            &format!("open over {second}, an empty tree"),
            &other_over_small,
        );
    }
    row("bare bwrap, `true`", &bwrap);
    if !engine.0.is_empty() {
        row("docker run, `true`", &engine);
    }
    row("`true` in an open sandbox", &exec);
    row("open over an empty tree", &over_small);
    row("open over 7,000 files", &over_large);

    let begin = Instant::now();
    let open = (0..options.many)
        .map(|_| sandboxes.open(&small))
        .collect::<Outcome<Vec<_>>>()?;
    let seconds = begin.elapsed().as_secs_f64();
    for sandbox in &open {
        sandbox.run_true()?;
    }
    let memory = ground::memory_kib(std::process::id())? / options.many.max(1) as u64;
    for sandbox in open {
        sandbox.close()?;
    }
    println!(
        "{} sandboxes open at once: opened in {seconds:.2} s, {memory} KiB each",
        options.many
    );

    let ratios = serde_json::json!({
        "open_vs_bwrap": rounded(ours.at(0.5) / bwrap.at(0.5)),
        "docker_run_vs_open": (!engine.0.is_empty()).then(|| rounded(engine.at(0.5) / ours.at(0.5))),
        "exec_ms_p50": rounded(exec.at(0.5)),
    });
    let detail = serde_json::json!({
        "starter": first,
        "other_starter": second.ok(),
        "other_open_vs_bwrap": second.is_ok().then(|| rounded(theirs.at(0.5) / bwrap.at(0.5))),
        "other_open_ms_p50": second.is_ok().then(|| rounded(theirs.at(0.5))),
        "open_ms_p50": rounded(ours.at(0.5)),
        "open_ms_p95": rounded(ours.at(0.95)),
        "bwrap_ms_p50": rounded(bwrap.at(0.5)),
        "large_tree_extra_ms": rounded(over_large.at(0.5) - over_small.at(0.5)),
        "open_at_once": options.many,
        "kib_each": memory,
        "overlay": sandboxes.has_overlay(&large)?,
    });
    println!(
        "{}",
        serde_json::json!({ "bench": "sandbox", "ratios": ratios, "detail": detail })
    );
    Ok(())
}

/// Two places behind the point.
fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
