//! The table of attacks: each on every back end that this machine has, in a sandbox of
//! its own with little room and a neighbour beside it. It is printed (`--nocapture`), and
//! one attack that is not contained fails the test.

use crate::rooms::{LocalRoom, docker_with, engine, order, run};
use crate::table_list::ATTACKS;
use gametape_environment::Limits;
use gametape_environment::cgroup::{self, Groups};
use gametape_environment::docker::Bounds;
use gametape_environment::docker::settings::Space;
use gametape_environment::sandbox::Sandbox;
use gametape_environment::starter::Choice;
use gametape_schemas::ResourceLimit;
use gametape_schemas::message::ExecOutcome;
use std::os::linux::net::SocketAddrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One attack.
pub struct Attack {
    pub name: &'static str,
    /// How it is run.
    pub inside: Inside,
    /// Its limit of time.
    pub ms: u64,
    /// The limit that must be told, on the local back end (with control groups) and on
    /// Docker's.
    pub limits: [Option<ResourceLimit>; 2],
    /// What must hold afterwards, beside what [`one`] looks at after each of them.
    pub holds: fn(&Scene<'_>) -> Result<(), String>,
}

pub enum Inside {
    /// A script, which prints ALLOWED where it gets through, and `tried` at its end.
    Script(&'static str),
    /// The same, after the words that make system calls.
    Calls(&'static str),
    /// Program and arguments.
    Words(fn() -> Vec<String>),
}

/// What is there after an attack.
pub struct Scene<'a> {
    pub sandbox: &'a dyn Sandbox,
    pub outcome: &'a ExecOutcome,
    /// A file of the host that everybody could write if they reached it.
    pub canary: &'a Path,
}

/// Room of both back ends: little, so that filling it takes no time.
pub const FILE_MIB: u64 = 32;
pub const DISK_MIB: u64 = 64;
pub const INODES: u64 = 2000;
pub const MEMORY_MIB: u64 = 256;
const PROCESSES: u64 = 40;
/// How long what was left may take to die.
const DYING: Duration = Duration::from_secs(20);

fn limits() -> Limits {
    Limits {
        processes: PROCESSES,
        file_mib: FILE_MIB,
        memory_mib: MEMORY_MIB,
        disk_mib: DISK_MIB,
        inodes: INODES,
        ..Limits::default()
    }
}

fn bounds() -> Bounds {
    let space = Space {
        mib: DISK_MIB,
        inodes: INODES,
    };
    Bounds {
        memory_mib: MEMORY_MIB,
        processes: PROCESSES,
        file_mib: FILE_MIB,
        repository: space,
        tmp: space,
        ..Bounds::default()
    }
}

/// What of the host an attack reaches for, and by what its processes are known.
struct Bait {
    canary: PathBuf,
    word: String,
    port: u16,
    _listening: (std::net::TcpListener, std::os::unix::net::UnixListener),
    _directory: tempfile::TempDir,
}

const UNTOUCHED: &str = "root: only the host reads this\n";

impl Bait {
    fn lay() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let open = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(directory.path(), open(0o777)).unwrap();
        let canary = directory.path().join("canary");
        std::fs::write(&canary, UNTOUCHED).unwrap();
        std::fs::set_permissions(&canary, open(0o666)).unwrap();
        let word = format!("bait{}", directory.path().display()).replace(['/', '.'], "-");
        let name = std::os::unix::net::SocketAddr::from_abstract_name(&word).unwrap();
        let unix = std::os::unix::net::UnixListener::bind_addr(&name).unwrap();
        let tcp = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        Self {
            canary,
            word,
            port: tcp.local_addr().unwrap().port(),
            _listening: (tcp, unix),
            _directory: directory,
        }
    }

    fn environment(&self) -> Vec<(String, String)> {
        let parent = std::process::id().to_string();
        let canary = self.canary.display().to_string();
        [
            ("CANARY", canary),
            ("WORD", self.word.clone()),
            ("PORT", self.port.to_string()),
            ("HOST_PROCESS", parent),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }

    /// Waits until no process has the word in its command line.
    fn is_alone(&self) -> Result<(), String> {
        let deadline = Instant::now() + DYING;
        loop {
            let entries = std::fs::read_dir("/proc").unwrap().flatten();
            let lines = entries.filter_map(|e| std::fs::read(e.path().join("cmdline")).ok());
            let left = lines
                .filter(|line| String::from_utf8_lossy(line).contains(&self.word))
                .count();
            if left == 0 {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!("{left} processes outlive their command"));
            }
            std::thread::yield_now();
        }
    }
}

fn require(holds: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(why()) }
}

/// One attack in a fresh sandbox: what the table says of it.
fn one(
    attack: &Attack,
    open: &dyn Fn() -> Arc<dyn Sandbox>,
    bait: &Bait,
    told: Option<ResourceLimit>,
) -> Result<String, String> {
    if matches!(attack.inside, Inside::Calls(_)) && !cfg!(target_arch = "x86_64") {
        return Ok("not tried on this processor".to_owned());
    }
    let sandbox = open();
    let words = match &attack.inside {
        Inside::Script(script) => python(script),
        Inside::Calls(script) => python(&[crate::tries::DENIED, script].concat()),
        Inside::Words(words) => words(),
    };
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut asked = order(&words, attack.ms, 4_000);
    asked.env = bait.environment();
    let begin = Instant::now();
    let outcome = sandbox
        .exec(&asked)
        .map_err(|failure| failure.to_string())?;
    let took = begin.elapsed();
    let said = || format!("{outcome:?}");
    let printed = [outcome.stdout.as_str(), outcome.stderr.as_str()].concat();
    require(!printed.contains("ALLOWED"), said)?;
    let is_script = !matches!(attack.inside, Inside::Words(_));
    require(
        !is_script || outcome.timed_out || printed.contains("tried"),
        said,
    )?;
    require(outcome.limit == told, || {
        format!("limit {told:?}: {outcome:?}")
    })?;
    // A generous bound: what matters is that it comes back at all.
    require(took < Duration::from_secs(120), || format!("took {took:?}"))?;
    bait.is_alone()?;
    let kept = std::fs::read_to_string(&bait.canary).unwrap_or_default();
    require(kept == UNTOUCHED, || format!("the host's file: {kept:?}"))?;
    (attack.holds)(&Scene {
        sandbox: &*sandbox,
        outcome: &outcome,
        canary: &bait.canary,
    })?;
    let after = run(&*sandbox, &["cat", "d/b.py"]);
    require(after.stdout == "z = 3\n", || format!("not well: {after:?}"))?;
    let used = sandbox.close().map_err(|failure| failure.to_string())?;
    let is_told = told.is_none_or(|limit| used.limits.contains(&limit));
    require(is_told, || format!("not in what it used: {used:?}"))?;
    Ok(match told {
        Some(limit) => format!("contained, tells {limit:?}"),
        None => "contained".to_owned(),
    })
}

fn python(script: &str) -> Vec<String> {
    ["python", "-c", script].map(str::to_owned).to_vec()
}

/// A column of the table: every attack on one back end.
fn column(open: &dyn Fn() -> Arc<dyn Sandbox>, which: usize) -> Vec<Result<String, String>> {
    // Beside all of them, with files that nobody else may find.
    let neighbour = open();
    let mark = "mkdir /tmp/neighbours; echo 1 > /tmp/neighbours/neighbour-file; \
        echo 1 > neighbour-file; echo 1 > /dev/shm/neighbour-file";
    assert_eq!(run(&*neighbour, &["sh", "-c", mark]).exit_code, Some(0));
    let attacks = ATTACKS.iter().map(|attack| {
        let bait = Bait::lay();
        one(attack, open, &bait, attack.limits[which])
    });
    let done = attacks.collect();
    let still = run(&*neighbour, &["cat", "neighbour-file"]);
    assert_eq!(still.stdout, "1\n", "the neighbour was harmed: {still:?}");
    neighbour.close().unwrap();
    done
}

/// A back end and what it did with each attack, or nothing where it is not there.
type Column = (&'static str, Option<Vec<Result<String, String>>>);

fn local(test: &str, choice: Choice) -> Option<Vec<Result<String, String>>> {
    let room = LocalRoom::by(test, choice)?;
    let groups = Groups::detect();
    if !(groups.keeps_memory() && groups.keeps_processes()) {
        // Which limit struck is told by control groups.
        eprintln!("SKIPPED: {test} (local): {}", groups.layer().detail);
        return None;
    }
    let pool = Arc::new(groups.pool(&cgroup::owner()));
    let open = || {
        let hidden = ["tests".to_owned()];
        Arc::new(room.open(limits(), Some(pool.clone()), &[], &hidden))
    };
    Some(column(&|| open(), 0))
}

fn docker(test: &str) -> Option<Vec<Result<String, String>>> {
    let (engine, image) = engine(test)?;
    let open = || {
        let hidden = ["tests".to_owned()];
        Arc::new(docker_with(&engine, &image, bounds(), &[], &hidden))
    };
    Some(column(&|| open(), 1))
}

#[test]
fn every_attack_of_the_table_is_contained() {
    let test = "every_attack_of_the_table_is_contained";
    let columns: [Column; 3] = [
        ("bubblewrap", local(test, Choice::Bubblewrap)),
        ("namespaces", local(test, Choice::Namespaces)),
        ("docker", docker(test)),
    ];
    let mut open = Vec::new();
    println!("\n| attack | local, bubblewrap | local, namespaces | docker |");
    println!("| --- | --- | --- | --- |");
    for (at, attack) in ATTACKS.iter().enumerate() {
        let mut row = format!("| {} |", attack.name);
        for (back_end, column) in &columns {
            let cell = match column.as_ref().map(|column| &column[at]) {
                Some(Ok(words)) => words,
                Some(Err(why)) => {
                    let why: String = why.chars().take(600).collect();
                    open.push(format!("{} ({back_end}): {why}", attack.name));
                    "NOT CONTAINED"
                }
                None => "not tried here",
            };
            row.push_str(&format!(" {cell} |"));
        }
        println!("{row}");
    }
    assert!(open.is_empty(), "{open:#?}");
}
