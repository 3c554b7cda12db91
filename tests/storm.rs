//! A storm of kill -9 on the real binary in the middle of a real loop.
//!
//! Each cycle starts `gametape loop` and kills it a random number of commits (and a few
//! hundred microseconds) later; the tape's own watermark file tells of every commit.
//! After each kill the tape must begin with everything that was on it before, and must
//! hold everything that the watermark had promised. In the end nothing was done twice
//! and nothing is left running.
//!
//! `GAMETAPE_STORM_CYCLES=1000 cargo test --test storm` for a long one;
//! `GAMETAPE_STORM_SEED=n` repeats the moments of one (as far as a scheduler repeats).

mod common;

use common::{Gametape, counts, events};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

const LOOP: [&str; 3] = ["loop", "--profile", "smoke"];

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .map_or(default, |text| text.parse().expect("a number"))
}

/// A small generator: the storm needs no more.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % bound
    }
}

/// Commits of the process under way, as they happen.
struct Commits {
    inotify: Inotify,
}

impl Commits {
    fn of(tape: &Path) -> Self {
        std::fs::create_dir_all(tape).expect("the tape's directory");
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK).expect("inotify");
        inotify
            .add_watch(tape, AddWatchFlags::IN_MODIFY)
            .expect("watched");
        Self { inotify }
    }

    /// Waits for `wanted` notes in the watermark file; false when the process ended.
    fn wait(&self, wanted: u64, ended: &mut dyn FnMut() -> bool) -> bool {
        let mut seen = 0;
        while seen < wanted {
            let mut fds = [PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN)];
            let ready = poll(&mut fds, PollTimeout::from(200u8)).expect("polled");
            if ready == 0 {
                if ended() {
                    return false;
                }
                continue;
            }
            let events = self.inotify.read_events().unwrap_or_default();
            seen += events
                .iter()
                .filter(|e| e.name.as_ref().is_some_and(|n| n == "WATERMARK"))
                .count() as u64;
        }
        true
    }
}

/// The furthest sequence number that the watermark promises.
fn promised(tape: &Path) -> u64 {
    let bytes = std::fs::read(tape.join("WATERMARK")).unwrap_or_default();
    let slot = |at: usize| {
        let slot = bytes.get(at..at + 48)?;
        let crc = u32::from_be_bytes(slot[44..].try_into().ok()?);
        (crc32c::crc32c(&slot[..44]) == crc)
            .then(|| u64::from_be_bytes(slot[4..12].try_into().unwrap_or_default()))
    };
    slot(0).max(slot(512)).unwrap_or(0)
}

/// Processes that live in a sandbox of one of these processes.
fn orphans(of: &[u32]) -> Vec<String> {
    let marks: Vec<String> = of.iter().map(|pid| format!("/sandboxes/{pid}-")).collect();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("proc").flatten() {
        let mounts = std::fs::read_to_string(entry.path().join("mountinfo")).unwrap_or_default();
        if marks.iter().any(|mark| mounts.contains(mark)) {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            found.push(String::from_utf8_lossy(&line).replace('\0', " "));
        }
    }
    found
}

#[test]
fn a_storm_of_kills_loses_nothing_and_repeats_nothing() {
    let Some(run) = Gametape::new("storm") else {
        return;
    };
    let cycles = number("GAMETAPE_STORM_CYCLES", 40);
    let seed = number("GAMETAPE_STORM_SEED", 1);
    eprintln!("storm: {cycles} cycles, GAMETAPE_STORM_SEED={seed}");
    let mut dice = Dice(seed);
    let tape = run.dir().join("tape");
    let mut known: Vec<String> = Vec::new();
    let mut pids = Vec::new();
    let mut kills = 0;
    // A long storm outlives one loop: it goes on with another run.
    while kills < cycles {
        let commits = Commits::of(&tape);
        let mut process = run.spawn_quiet(&LOOP);
        pids.push(process.id());
        // A start in the middle of forging surveys its package again (seconds), so fewer
        // kills fall there; the phases after it have two of three commits.
        let forged = known
            .iter()
            .filter(|l| l.contains("\"ForgeFinished\""))
            .count();
        let wanted = 1 + dice.below(if forged < 3 { 16 } else { 4 });
        let alive = commits.wait(wanted, &mut || {
            process.try_wait().expect("waited").is_some()
        });
        if alive {
            let moment = Instant::now() + Duration::from_micros(dice.below(4_000));
            while Instant::now() < moment {
                std::hint::spin_loop();
            }
            process.kill().expect("killed");
        }
        let status = process.wait().expect("reaped");
        let promise = promised(&tape);
        let export = run.run(&["tape", "export"]);
        assert!(export.status.success(), "{}", export.text());
        let lines: Vec<String> = export.stdout.lines().map(str::to_owned).collect();
        assert!(
            lines.len() as u64 >= promise,
            "kill {kills}: {promise} events were acknowledged, {} are there",
            lines.len()
        );
        assert!(
            lines.starts_with(&known),
            "kill {kills}: the tape does not begin with what was on it"
        );
        known = lines;
        if alive {
            kills += 1;
            continue;
        }
        assert!(status.success(), "the loop failed: {status}");
        nothing_was_repeated(&run, &known);
        if kills < cycles {
            std::fs::remove_dir_all(run.dir()).expect("removed");
            known.clear();
        }
    }
    let last = run.run(&LOOP);
    assert!(last.status.success(), "{}", last.text());
    let export = run.run(&["tape", "export"]).stdout;
    let lines: Vec<String> = export.lines().map(str::to_owned).collect();
    assert!(lines.starts_with(&known));
    nothing_was_repeated(&run, &lines);
    let left = orphans(&pids);
    assert!(left.is_empty(), "left running: {left:?}");
    for pid in &pids {
        let left = run.sandbox_directories_of(*pid);
        assert!(left.is_empty(), "left on the disk: {left:?}");
    }
}

/// The finished tape verifies, and every piece of work was finished once.
fn nothing_was_repeated(run: &Gametape, lines: &[String]) {
    let verify = run.run(&["tape", "verify"]);
    assert!(verify.status.success(), "{}", verify.text());
    let datasets = run.run(&["dataset", "verify"]);
    assert!(datasets.status.success(), "{}", datasets.text());
    let tape = events(&lines.join("\n"));
    let mut ended = BTreeMap::<String, u32>::new();
    let mut failed = 0;
    for event in &tape {
        let body = &event["event"]["body"];
        match event["event"]["type"].as_str() {
            Some("PatchSubmitted") => {
                *ended.entry(body["end"]["attempt"].to_string()).or_default() += 1;
            }
            Some("AttemptFailed" | "AttemptAbandoned") => failed += 1,
            _ => {}
        }
    }
    assert!(ended.values().all(|n| *n == 1), "an attempt ended twice");
    assert_eq!(failed, 0, "a kill was taken for a failure or a divergence");
    let counts = counts(&tape);
    assert_eq!(counts["TrainingFinished"], 2);
    assert_eq!(counts["EvaluationFinished"], 1);
    assert_eq!(counts["RunFinished"], 1);
    assert_eq!(counts["AttemptScheduled"], ended.len() as u64);
}
