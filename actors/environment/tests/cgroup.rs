//! Control groups with real processes in them. Skips loudly where this machine, or its
//! permissions, have none.

#![allow(clippy::unwrap_used)]

use gametape_environment::cgroup::{GroupLimits, Groups, Limit, Pool, Slot, owner};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Tells this program that it is the owner to be killed.
const DOOMED: &str = "GAMETAPE_TEST_DOOMED_OWNER";

fn groups(test: &str) -> Option<Groups> {
    let begin = Instant::now();
    let groups = Groups::detect();
    let detected = begin.elapsed();
    let layer = groups.layer();
    eprintln!("{test}: {} (found in {detected:?})", layer.detail);
    if layer.active {
        return Some(groups);
    }
    eprintln!("SKIPPED: {test}: {}", layer.detail);
    None
}

fn pool(test: &str) -> Option<Pool> {
    Some(groups(test)?.pool(&owner()))
}

fn limits(mib: u64, processes: u64) -> GroupLimits {
    GroupLimits {
        memory_bytes: Some(mib << 20),
        processes: Some(processes),
        cpu_milli: Some(2_000),
    }
}

/// A shell that is in the slot before it begins.
fn shell(slot: &Slot, script: &str) -> Child {
    let mut child = Command::new("sh")
        .args(["-c", &format!("read go\n{script}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    slot.add(child.id()).unwrap();
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    child
}

/// Its end; the pipes are read meanwhile, but not waited for: daemons may hold them.
fn end_of(mut child: Child) -> ExitStatus {
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let status = child.wait().unwrap();
    drop((out, err));
    status
}

/// Living processes with this word on their command line, ours aside.
fn alive(mark: &str) -> usize {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let marked = entries.filter(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(mark)
            && entry.file_name().to_string_lossy() != std::process::id().to_string()
    });
    marked.count()
}

#[test]
fn a_memory_hog_is_killed_and_told_as_memory() {
    let Some(pool) = pool("a_memory_hog_is_killed_and_told_as_memory") else {
        return;
    };
    let slot = pool.take(&limits(48, 32)).unwrap();
    // One endless line, which tail keeps in memory.
    let hog = end_of(shell(&slot, "tail /dev/zero"));
    assert!(!hog.success(), "{hog}");
    let used = slot.usage();
    assert_eq!(used.struck(), Some(Limit::Memory), "{used:?}");
    assert_eq!(used.oom_kills, Some(1), "{used:?}");
    let peak = used.peak_memory_bytes.unwrap();
    assert!((40 << 20..=48 << 20).contains(&peak), "{used:?}");
    assert!(used.cpu_us.is_none_or(|us| us > 1_000), "{used:?}");
}

#[test]
fn a_fork_bomb_is_bounded_and_told_as_processes() {
    let Some(pool) = pool("a_fork_bomb_is_bounded_and_told_as_processes") else {
        return;
    };
    let slot = pool.take(&limits(256, 32)).unwrap();
    let mark = format!("3600.{}", std::process::id());
    let bomb = format!("i=0; while [ $i -lt 500 ]; do sleep {mark} & i=$((i+1)); done");
    let bomb = end_of(shell(&slot, &bomb));
    assert!(!bomb.success(), "{bomb}");
    let used = slot.usage();
    assert_eq!(used.struck(), Some(Limit::Processes), "{used:?}");
    assert!(used.pids_denied.unwrap() > 0, "{used:?}");
    assert!(used.processes_peak.is_none_or(|n| n == 32), "{used:?}");
    assert!(alive(&mark) <= 32);
    drop(slot);
    assert_eq!(alive(&mark), 0);
}

#[test]
fn two_hundred_daemons_die_when_the_slot_comes_back() {
    let Some(pool) = pool("two_hundred_daemons_die_when_the_slot_comes_back") else {
        return;
    };
    let slot = pool.take(&limits(512, 1_000)).unwrap();
    let mark = format!("3601.{}", std::process::id());
    let script = format!(
        "i=0; while [ $i -lt 200 ]; do setsid sleep {mark} & i=$((i+1)); done; echo up; wait"
    );
    let mut parent = shell(&slot, &script);
    let mut line = String::new();
    let mut said = BufReader::new(parent.stdout.take().unwrap());
    said.read_line(&mut line).unwrap();
    assert_eq!(line, "up\n");
    assert!(slot.usage().processes_peak.is_none_or(|n| n >= 201));
    let begin = Instant::now();
    drop(slot);
    eprintln!("201 processes are gone after {:?}", begin.elapsed());
    assert_eq!(alive(&mark), 0);
    assert!(!parent.wait().unwrap().success());
    assert_eq!(pool.idle(), 1);
}

#[test]
fn a_slot_is_used_again_and_counts_from_nothing() {
    let Some(pool) = pool("a_slot_is_used_again_and_counts_from_nothing") else {
        return;
    };
    let slot = pool.take(&limits(48, 8)).unwrap();
    let first: Vec<PathBuf> = slot.paths().into_iter().map(Into::into).collect();
    let messy = "sleep 3602 & sleep 3602 & tail /dev/zero; \
                 i=0; while [ $i -lt 50 ]; do sleep 3602 & i=$((i+1)); done";
    end_of(shell(&slot, messy));
    let used = slot.usage();
    assert!(
        used.oom_kills.unwrap() >= 1 && used.pids_denied.unwrap() >= 1,
        "{used:?}"
    );
    drop(slot);
    assert_eq!(pool.idle(), 1);
    // Other limits, both wider: the old ones must not be in the way.
    let slot = pool.take(&limits(96, 16)).unwrap();
    assert_eq!(slot.paths(), first);
    let before = slot.usage();
    assert_eq!(
        (before.struck(), before.oom_kills, before.pids_denied),
        (None, Some(0), Some(0)),
        "{before:?}"
    );
    assert_eq!(before.cpu_us.unwrap_or(0), 0, "{before:?}");
    let script = "head -c 64M /dev/zero | tail -c 64M | head -c 1 | od -An -tx1";
    let calm = end_of(shell(&slot, script));
    assert!(
        calm.success(),
        "64 MiB did not fit below 96: {:?}",
        slot.usage()
    );
    let used = slot.usage();
    assert_eq!(used.struck(), None, "{used:?}");
    assert!(
        used.peak_memory_bytes.is_none_or(|n| n > 60 << 20),
        "{used:?}"
    );
    assert!(
        used.processes_peak.is_none_or(|n| (2..=8).contains(&n)),
        "{used:?}"
    );
    drop(slot);
    // Narrower again, below what was used last.
    let slot = pool.take(&limits(16, 4)).unwrap();
    end_of(shell(&slot, "true"));
    let used = slot.usage();
    assert_eq!(used.struck(), None, "{used:?}");
    // v1 can always set the peak back, v2 since Linux 6.12.
    let v1 = |path: &&Path| path.join("memory.max_usage_in_bytes").exists();
    let is_v1 = slot.paths().iter().any(v1);
    assert!(
        used.peak_memory_bytes.map_or(!is_v1, |n| n < 16 << 20),
        "{used:?}"
    );
    drop(slot);
    drop(pool);
    assert!(first.iter().all(|path| !path.exists()), "{first:?}");
}

#[test]
fn a_quota_of_processor_time_throttles() {
    let Some(groups) = groups("a_quota_of_processor_time_throttles") else {
        return;
    };
    if !groups.keeps_cpu() {
        eprintln!("SKIPPED: a_quota_of_processor_time_throttles: no controller of processors");
        return;
    }
    let limits = GroupLimits {
        cpu_milli: Some(100),
        ..limits(64, 8)
    };
    let slot = groups.pool(&owner()).take(&limits).unwrap();
    let mut busy = shell(&slot, "while :; do :; done");
    let throttled = || {
        let told = slot.paths().into_iter();
        told.filter_map(|path| std::fs::read_to_string(path.join("cpu.stat")).ok())
            .flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
            .filter_map(|line| line.strip_prefix("nr_throttled ").map(str::to_owned))
            .any(|count| count != "0")
    };
    let deadline = Instant::now() + Duration::from_secs(30);
    while !throttled() {
        assert!(Instant::now() < deadline, "it ran unthrottled for 30 s");
        std::thread::yield_now();
    }
    drop(slot);
    assert!(!busy.wait().unwrap().success());
}

#[test]
fn slots_taken_at_once_are_different_and_all_come_back() {
    let Some(pool) = pool("slots_taken_at_once_are_different_and_all_come_back") else {
        return;
    };
    let together = std::sync::Barrier::new(6);
    let taken = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..6)
            .map(|_| {
                scope.spawn(|| {
                    let mut seen = Vec::new();
                    for _ in 0..20 {
                        let slot = pool.take(&limits(64, 8)).unwrap();
                        assert!(end_of(shell(&slot, "exit 0")).success());
                        assert_eq!(slot.usage().struck(), None);
                        seen.push(slot.paths()[0].to_owned());
                    }
                    // At this moment each has one.
                    let slot = pool.take(&limits(64, 8)).unwrap();
                    together.wait();
                    seen.push(slot.paths()[0].to_owned());
                    together.wait();
                    seen
                })
            })
            .collect();
        let seen = workers.into_iter().map(|worker| worker.join().unwrap());
        seen.collect::<Vec<_>>()
    });
    let last: BTreeSet<_> = taken.iter().map(|seen| seen.last().unwrap()).collect();
    assert_eq!((last.len(), pool.idle()), (6, 6));
    let all: BTreeSet<_> = taken.iter().flatten().collect();
    assert_eq!(all.len(), 6, "no more were made than were needed at once");
}

#[test]
fn a_slot_that_somebody_removed_is_replaced() {
    let Some(pool) = pool("a_slot_that_somebody_removed_is_replaced") else {
        return;
    };
    let slot = pool.take(&limits(64, 8)).unwrap();
    let paths: Vec<PathBuf> = slot.paths().into_iter().map(Into::into).collect();
    drop(slot);
    for path in &paths {
        std::fs::remove_dir(path).unwrap();
    }
    let slot = pool.take(&limits(32, 8)).unwrap();
    assert_ne!(slot.paths(), paths);
    assert!(end_of(shell(&slot, "exit 0")).success());
}

#[test]
fn a_family_is_added_whole() {
    let Some(pool) = pool("a_family_is_added_whole") else {
        return;
    };
    let slot = pool.take(&limits(64, 32)).unwrap();
    let mark = format!("3603.{}", std::process::id());
    let mut parent = Command::new("sh")
        .args(["-c", &format!("(sleep {mark} & echo up; wait) & wait")])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(parent.stdout.take().unwrap());
    said.read_line(&mut String::new()).unwrap();
    slot.add_family(parent.id()).unwrap();
    drop(slot);
    // All of them held the pipe.
    said.read_to_end(&mut Vec::new()).unwrap();
    assert_eq!(alive(&mark), 0);
    parent.wait().unwrap();
}

/// Not a test of its own: the owner that the next test kills.
#[test]
fn doomed_owner() {
    if std::env::var_os(DOOMED).is_none() {
        return;
    }
    let pool = Groups::detect().pool(&owner());
    let slot = pool.take(&limits(64, 32)).unwrap();
    // It holds our standard error, and outlives us.
    let mut child = Command::new("sleep").arg("3604").spawn().unwrap();
    slot.add(child.id()).unwrap();
    let paths: Vec<String> = slot
        .paths()
        .iter()
        .map(|p| p.display().to_string())
        .collect();
    eprintln!("{DOOMED} {}", paths.join(" "));
    child.wait().unwrap();
}

#[test]
fn what_a_killed_owner_left_is_swept_and_the_living_stay() {
    let Some(groups) = groups("what_a_killed_owner_left_is_swept_and_the_living_stay") else {
        return;
    };
    let living = groups.pool(&owner()).take(&limits(64, 8)).unwrap();
    let guest = shell(&living, "read more");
    let mut doomed = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "doomed_owner", "--nocapture"])
        .env(DOOMED, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(doomed.stderr.take().unwrap());
    let mut line = String::new();
    while !line.starts_with(DOOMED) {
        line.clear();
        assert_ne!(said.read_line(&mut line).unwrap(), 0, "it died too early");
    }
    let left: Vec<PathBuf> = line.split_whitespace().skip(1).map(Into::into).collect();
    assert!(!left.is_empty());
    doomed.kill().unwrap();
    doomed.wait().unwrap();
    assert!(left.iter().all(|path| path.is_dir()), "{left:?}");
    // Another test's pool may be faster: then it removes them under our eyes.
    let deadline = Instant::now() + Duration::from_secs(20);
    while left.iter().any(|path| path.exists()) && Instant::now() < deadline {
        eprintln!("swept: {}", groups.sweep());
    }
    assert!(left.iter().all(|path| !path.exists()), "{left:?}");
    // The child that outlived its owner held the pipe: this ends when it ended.
    said.read_to_end(&mut Vec::new()).unwrap();
    assert!(living.paths().iter().all(|path| path.is_dir()));
    assert_eq!(
        end_of(guest).code(),
        Some(1),
        "the guest was not left alone"
    );
}

#[test]
fn taking_from_a_warm_pool_is_measured_beside_making() {
    let Some(groups) = groups("taking_from_a_warm_pool_is_measured_beside_making") else {
        return;
    };
    let limits = limits(64, 32);
    let (mut warm, mut made) = (Vec::new(), Vec::new());
    // Take, one process, give back; timed without the process.
    let round = |pool: Pool, removed: bool| {
        let begin = Instant::now();
        let slot = pool.take(&limits).unwrap();
        let taken = begin.elapsed();
        assert!(end_of(shell(&slot, "exit 0")).success());
        let begin = Instant::now();
        drop(slot);
        if removed {
            drop(pool);
        }
        taken + begin.elapsed()
    };
    let pool = groups.pool(&owner());
    round(pool.clone(), false);
    for _ in 0..100 {
        warm.push(round(pool.clone(), false));
        made.push(round(groups.pool(&owner()), true));
    }
    assert_eq!(pool.idle(), 1, "one slot served all");
    for (what, times) in [("warm", &mut warm), ("made and removed", &mut made)] {
        times.sort_unstable();
        eprintln!("{what}: p50 {:?}, p95 {:?}", times[50], times[95]);
    }
}
