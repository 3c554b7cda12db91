//! Starting the real binary in a directory of its own.

#![allow(dead_code)] // Not every test binary uses every helper.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

/// A run's directory and how to start the binary on it.
pub struct Gametape {
    home: tempfile::TempDir,
}

/// What a finished process left.
pub struct Output {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    pub fn text(&self) -> String {
        format!(
            "{}\n--- stdout\n{}\n--- stderr\n{}",
            self.status, self.stdout, self.stderr
        )
    }
}

impl Gametape {
    /// `None` (said aloud) where sandboxes cannot be had.
    pub fn new(test: &str) -> Option<Self> {
        // The program looks for its helper beside itself, and so does this test.
        if let Err(failure) = gametape_environment::probe::host() {
            eprintln!("SKIPPED: {test}: {failure}");
            return None;
        }
        Some(Self {
            home: tempfile::tempdir().expect("a temporary directory"),
        })
    }

    pub fn dir(&self) -> PathBuf {
        self.home.path().join("run")
    }

    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.home.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.display().to_string()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gametape"));
        command
            .args(args)
            .arg("--run")
            .arg(self.dir())
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, args: &[&str]) -> Output {
        self.run_with(args, &[])
    }

    pub fn run_with(&self, args: &[&str], env: &[(&str, &str)]) -> Output {
        let output = self
            .command(args)
            .envs(env.iter().copied())
            .output()
            .expect("the binary starts");
        Output {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    pub fn spawn(&self, args: &[&str]) -> Running {
        let mut child = self
            .command(args)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let stderr = child.stderr.take().expect("piped");
        Running {
            child,
            lines: BufReader::new(stderr),
            seen: String::new(),
        }
    }

    /// Starts without listening to it.
    pub fn spawn_quiet(&self, args: &[&str]) -> Child {
        self.command(args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary starts")
    }

    /// Directories of sandboxes that a process left in the cache.
    pub fn sandbox_directories_of(&self, pid: u32) -> Vec<PathBuf> {
        let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
        let cache = std::env::var_os("GAMETAPE_CACHE")
            .map(PathBuf::from)
            .or_else(|| {
                let base = std::env::var_os("XDG_CACHE_HOME")
                    .map(PathBuf::from)
                    .or_else(home);
                base.map(|base| base.join("gametape"))
            });
        let scratch = cache.expect("a cache").join("sandboxes");
        let entries = std::fs::read_dir(scratch).into_iter().flatten().flatten();
        let name = format!("{pid}-");
        entries
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(&name))
            .map(|entry| entry.path())
            .collect()
    }

    /// Starts, kills with SIGKILL at the first line that begins with `sign`; false when
    /// the process ended before it showed.
    pub fn kill_at(&self, args: &[&str], sign: &str) -> bool {
        let mut running = self.spawn(args);
        let hit = running.try_wait_for(sign);
        running.child.kill().expect("killed");
        running.child.wait().expect("reaped");
        hit
    }

    /// No sandbox process of this run is left, and no sandbox directory of a dead one
    /// survives the next start.
    pub fn assert_no_leftovers(&self) {
        let dir = self.dir().display().to_string();
        for entry in std::fs::read_dir("/proc").expect("proc").flatten() {
            let cmdline = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let cmdline = String::from_utf8_lossy(&cmdline).replace('\0', " ");
            assert!(!cmdline.contains(&dir), "left running: {cmdline}");
        }
    }
}

/// A process under way.
pub struct Running {
    child: Child,
    lines: BufReader<std::process::ChildStderr>,
    seen: String,
}

impl Running {
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Reads standard error until a line begins with `sign`.
    pub fn try_wait_for(&mut self, sign: &str) -> bool {
        let mut line = String::new();
        loop {
            line.clear();
            match self.lines.read_line(&mut line) {
                Ok(0) | Err(_) => return false,
                Ok(_) => {
                    self.seen.push_str(&line);
                    if line.starts_with(sign) {
                        return true;
                    }
                }
            }
        }
    }

    pub fn wait_for(&mut self, sign: &str) {
        assert!(
            self.try_wait_for(sign),
            "`{sign}` never came:\n{}",
            self.seen
        );
    }

    pub fn interrupt(&self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("signalled");
    }

    pub fn wait(mut self) -> (ExitStatus, String) {
        while self.try_wait_for("\u{0}never") {}
        (self.child.wait().expect("reaped"), self.seen)
    }
}

/// The events of an export.
pub fn events(jsonl: &str) -> Vec<serde_json::Value> {
    jsonl
        .lines()
        .map(|line| serde_json::from_str(line).expect("a JSON line"))
        .collect()
}

/// How many events of each type.
pub fn counts(events: &[serde_json::Value]) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for event in events {
        let kind = event["event"]["type"].as_str().expect("a type").to_owned();
        *counts.entry(kind).or_default() += 1;
    }
    counts
}
