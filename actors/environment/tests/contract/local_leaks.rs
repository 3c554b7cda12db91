//! What a killed process leaves of its local sandboxes: no process, no mount; and after
//! the next start no directory and no control group.
//!
//! `GAMETAPE_LEAKS=1000` opens so many sandboxes, `GAMETAPE_LEAKS_SEED` repeats a run.

use crate::rooms::{number, order, prepared, prepared_at};
use gametape_environment::cgroup::{self, Groups};
use gametape_environment::local::{LocalSandbox, OpenPlan};
use gametape_environment::private::Owned;
use gametape_environment::sandbox::Sandbox;
use gametape_environment::starter::{Choice, VARIABLE};
use gametape_environment::{Limits, helper_beside, probe};
use gametape_schemas::SandboxId;
use gametape_schemas::message::ShellInput;
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The place of a test, in the process that holds sandboxes until it is killed.
const HOLD: &str = "GAMETAPE_TEST_HOLDS_SANDBOXES";
/// Where its prepared environment lies, and the seed of what it does.
const PREPARED: &str = "GAMETAPE_TEST_PREPARED";
const SEED: &str = "GAMETAPE_TEST_SEED";
/// Sandboxes that are opened in all when nothing else is asked for.
const USUAL: usize = 60;
/// Threads of the holder, and sandboxes that each keeps open.
const THREADS: u64 = 4;
const KEPT: usize = 6;
/// Begins what the commands inside run.
const TRAP: &str = "trap \"\" HUP TERM INT";
/// How long the kernel may take to end what was killed, on a machine under load.
const DYING: Duration = Duration::from_secs(20);

/// Numbers that a seed repeats (splitmix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// No test by itself: the process of the test below that is killed.
#[test]
fn local_holder() {
    let Some(at) = std::env::var_os(HOLD).map(PathBuf::from) else {
        return;
    };
    let seed: u64 = std::env::var(SEED).unwrap().parse().unwrap();
    let environment = PathBuf::from(std::env::var_os(PREPARED).unwrap());
    let prepared = Arc::new(prepared_at(&environment).unwrap());
    let host = Arc::new(probe::host().unwrap());
    let owned = Owned::new(&at.join("s")).unwrap().0;
    let pool = Arc::new(Groups::detect().pool(&cgroup::owner()));
    tell("READY");
    let open = || {
        let number = number();
        let sandbox = LocalSandbox::open(OpenPlan {
            host: host.clone(),
            prepared: prepared.clone(),
            private: owned.place(number),
            helper: at.join("helper"),
            number,
            label: label_of(&at),
            limits: Limits::default(),
            groups: Some(pool.clone()),
            patches: &[],
            hidden: &[],
            history: Default::default(),
            commits: &Default::default(),
            layers: Default::default(),
        });
        Arc::new(sandbox.unwrap())
    };
    let (open, at) = (&open, &at);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                let mut chance = Chance(seed ^ (thread << 32));
                let mut kept = VecDeque::new();
                loop {
                    let sandbox = open();
                    tell("OPEN");
                    kept.push_back(sandbox.clone());
                    match chance.below(4) {
                        0 => {}
                        1 => drop(scope.spawn(move || busy(&*sandbox, &daemons(at)))),
                        2 => drop(scope.spawn(move || spoken_to(&*sandbox, at))),
                        _ => kept.rotate_right(1),
                    }
                    if kept.len() > KEPT {
                        kept.pop_front().unwrap().close().unwrap();
                        tell("CLOSED");
                    }
                }
            });
        }
        // Until it is killed; or until the test that waits for it has ended.
        let _ = std::io::stdin().read_line(&mut String::new());
        std::process::exit(1);
    });
}

/// One line, whole, however many threads tell something. The harness has begun one.
fn tell(word: &str) {
    let line = format!("\n{word}\n");
    let _ = std::io::stdout().lock().write_all(line.as_bytes());
    let _ = std::io::stdout().flush();
}

fn label_of(at: &Path) -> String {
    format!("leak{}", at.display())
}

/// A command that leaves its session, its group and its parent, and minds no signal that
/// can be minded. The place of the test is in the environment of all that comes of it.
fn daemons(at: &Path) -> String {
    let at = at.display();
    let sleeper = format!("{TRAP}; while :; do sleep 600; done");
    format!(
        "export PLACE={at}; setsid sh -c '{sleeper}' & setsid setsid sh -c '{sleeper}' & {sleeper}"
    )
}

fn busy(sandbox: &dyn Sandbox, script: &str) {
    // It is closed under it, or all of this is killed.
    let _ = sandbox.exec(&order(&["sh", "-c", script], 600_000, 10));
}

fn spoken_to(sandbox: &dyn Sandbox, at: &Path) {
    let _ = sandbox.shell(&ShellInput {
        sandbox: SandboxId::new("s".to_owned()),
        command: daemons(at),
        is_input: false,
        timeout_ms: Some(600_000),
    });
}

/// Processes that name a place in their command line or in their environment.
fn processes_of(at: &Path) -> Vec<String> {
    let word = at.display().to_string();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| {
        let id: u32 = entry.file_name().to_str()?.parse().ok()?;
        let read = |name| std::fs::read(entry.path().join(name)).unwrap_or_default();
        let line = [read("cmdline"), read("environ")].concat();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        line.contains(&word).then(|| format!("{id}: {line}"))
    });
    lines.collect()
}

/// Mounts below a place, whoever has them: lines of any process's `mountinfo`.
fn mounts_of(at: &Path) -> Vec<String> {
    let word = at.display().to_string();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let tables = entries.filter_map(|e| std::fs::read_to_string(e.path().join("mountinfo")).ok());
    tables
        .flat_map(|table| {
            let lines = table.lines().filter(|line| line.contains(&word));
            lines.map(str::to_owned).collect::<Vec<_>>()
        })
        .collect()
}

/// Control groups of a process's slots, in every hierarchy.
fn groups_of(process: u32) -> Vec<PathBuf> {
    let prefix = format!("gametape-{process}-");
    let walk = walkdir::WalkDir::new("/sys/fs/cgroup").into_iter();
    let all = walk.filter_entry(|entry| entry.file_type().is_dir());
    all.flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .map(walkdir::DirEntry::into_path)
        .collect()
}

/// Waits until a look finds nothing more; what it still finds at the deadline.
fn gone(look: impl Fn() -> Vec<String>) -> Result<(), Vec<String>> {
    let deadline = Instant::now() + DYING;
    loop {
        let left = look();
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(left);
        }
        std::thread::yield_now();
    }
}

/// What was there when holders were killed, and what they left to be swept.
#[derive(Default, Debug)]
struct Tally {
    kills: usize,
    opened: usize,
    most_open: usize,
    processes: usize,
    daemons: usize,
    mounts_seen: usize,
    directories_swept: usize,
    groups_swept: usize,
    slowest_death: Duration,
}

/// What all holders of a test have in common.
struct How<'a> {
    at: &'a Path,
    environment: &'a Path,
    starter: &'a str,
}

/// One holder, killed after so many of its words.
fn one(how: &How<'_>, seed: u64, words: u64, tally: &mut Tally) {
    let at = how.at;
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["local_leaks::local_holder", "--exact", "--nocapture"])
        .env(HOLD, at)
        .env(VARIABLE, how.starter)
        .env(PREPARED, how.environment)
        .env(SEED, seed.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let process = child.id();
    let (mut opened, mut closed, mut ready) = (0, 0, false);
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for line in lines {
        match line.unwrap().as_str() {
            "READY" => ready = true,
            "OPEN" => opened += 1,
            "CLOSED" => closed += 1,
            _ => continue,
        }
        if opened + closed >= words {
            break;
        }
    }
    assert!(ready && opened > 0, "the holder ended by itself");
    let processes = processes_of(at);
    tally.processes += processes.len();
    tally.daemons += processes.iter().filter(|line| line.contains(TRAP)).count();
    tally.mounts_seen += mounts_of(at).len();
    child.kill().unwrap();
    let begin = Instant::now();
    child.wait().unwrap();
    gone(|| processes_of(at)).unwrap_or_else(|left| panic!("processes stay: {left:#?}"));
    tally.slowest_death = tally.slowest_death.max(begin.elapsed());
    gone(|| mounts_of(at)).unwrap_or_else(|left| panic!("mounts stay: {left:#?}"));
    tally.kills += 1;
    tally.opened += opened as usize;
    tally.most_open = tally.most_open.max((opened - closed) as usize);
    tally.groups_swept += groups_of(process).len();
    // The next start.
    let (owned, swept) = Owned::new(&at.join("s")).unwrap();
    Groups::detect().sweep();
    drop(owned);
    tally.directories_swept += swept;
    let left = groups_of(process);
    assert!(left.is_empty(), "control groups stay: {left:?}");
    let left = std::fs::read_dir(at.join("s")).unwrap().flatten();
    let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
    assert_eq!(left, [".lock"]);
}

#[test]
fn what_a_killed_process_held_of_local_sandboxes_is_gone() {
    killed(Choice::Bubblewrap, "bubblewrap");
}

#[test]
fn what_a_killed_process_held_without_bubblewrap_is_gone() {
    killed(Choice::Namespaces, "namespaces");
}

fn killed(choice: Choice, starter: &str) {
    let test = format!("leaks of local sandboxes by {starter}");
    let helper = helper_beside(&std::env::current_exe().unwrap());
    let (Some(helper), Some(prepared)) = (helper, prepared()) else {
        eprintln!("SKIPPED: {test}: no helper program, or no Python");
        return;
    };
    if let Err(failure) = probe::host_by(choice) {
        eprintln!("SKIPPED: {test}: {failure}");
        return;
    }
    let number_of = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let wanted = number_of("GAMETAPE_LEAKS").map_or(USUAL, |n| n as usize);
    let seed = number_of("GAMETAPE_LEAKS_SEED").unwrap_or_else(clock);
    eprintln!("{test}: GAMETAPE_LEAKS={wanted} GAMETAPE_LEAKS_SEED={seed}");
    let begin = Instant::now();
    let scratch = tempfile::tempdir().unwrap();
    // Under a name that no other test has: so its processes are told apart.
    std::fs::copy(helper, scratch.path().join("helper")).unwrap();
    let environment = prepared.repository().parent().unwrap().to_owned();
    let how = How {
        at: scratch.path(),
        environment: &environment,
        starter,
    };
    let mut chance = Chance(seed);
    let mut tally = Tally::default();
    while tally.opened < wanted {
        let (seed, words) = (chance.below(1 << 48), 1 + chance.below(40));
        one(&how, seed, words, &mut tally);
    }
    eprintln!("{test}: {tally:?} in {:?}", begin.elapsed());
    // Else nothing was looked at.
    assert!(
        tally.processes > tally.kills && tally.daemons > 0,
        "{tally:?}"
    );
    assert_eq!(tally.directories_swept, tally.kills);
}

fn clock() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(1, |now| now.as_nanos() as u64)
}
