//! The local back end: one private directory per sandbox, one bubblewrap per command.
//! No daemon, no network, no process that outlives its command.
//!
//! As root each sandbox has a uid of its own, so that neither files nor process limits
//! are shared between sandboxes; otherwise commands run in a user namespace.

use crate::bubblewrap::{self, Host, View};
use crate::files::Root;
use crate::process::{self, Bounds, Ended};
use crate::protocol::{Limits, Report, Request};
use crate::provision::Prepared;
use crate::sandbox::Sandbox;
use crate::tree::{self, Odd, Snapshot};
use crate::{diff, failure, patch, private};
use gametape_schemas::Failure;
use gametape_schemas::message::{Exec, ExecOutcome, FileRead, FileWritten, PatchApplied};
use std::collections::BTreeSet;
use std::io;
use std::net::Shutdown;
use std::os::unix::fs::{DirBuilderExt, lchown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What opening needs.
pub struct OpenPlan<'a> {
    /// This machine.
    pub host: Arc<Host>,
    /// The environment.
    pub prepared: Arc<Prepared>,
    /// A new directory, for this sandbox alone.
    pub private: PathBuf,
    /// The helper program on the host.
    pub helper: PathBuf,
    /// Distinguishes the sandboxes of this process.
    pub number: u64,
    /// For lists of processes.
    pub label: String,
    /// Limits of its commands.
    pub limits: Limits,
    /// Applied first, strictly.
    pub patches: &'a [String],
    /// Removed after the patches; files or directories.
    pub hidden: &'a [String],
}

/// A sandbox of the local back end.
#[derive(Debug)]
pub struct LocalSandbox {
    host: Arc<Host>,
    private: PathBuf,
    words: Vec<std::ffi::OsString>,
    environment: Vec<(String, String)>,
    owner: Option<u32>,
    limits: Limits,
    /// The state that the diff compares with.
    base: Snapshot,
    hidden: BTreeSet<String>,
    root: Root,
    /// One operation at a time: while files are read here, nothing runs inside.
    turn: Mutex<()>,
    life: Mutex<Life>,
}

/// Whether it is open, and what to cut when it is closed in the middle of a command.
#[derive(Debug)]
enum Life {
    Open(Option<UnixStream>),
    Closed,
}

/// First of the uids that sandboxes run under when we are root.
const FIRST_UID: u32 = 1_000_000_000;
/// The uid where the range above does not exist (containers that map few).
const NOBODY: u32 = 65_534;

/// A uid for a sandbox: different for those open at once, of one process and of others.
fn uid_of(process: u32, number: u64, mapped: u64) -> u32 {
    let id = FIRST_UID + ((process & 0x3f_ffff) << 8) + (number % 256) as u32;
    if u64::from(id) < mapped { id } else { NOBODY }
}

/// One more than the largest uid that exists here.
fn mapped_uids() -> u64 {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.lines()
        .filter_map(|line| {
            let mut numbers = line.split_whitespace().map(str::parse::<u64>);
            let (first, _, count) = (numbers.next()?, numbers.next()?, numbers.next()?);
            Some(first.ok()? + count.ok()?)
        })
        .max()
        .unwrap_or(0)
}

impl LocalSandbox {
    /// Opens: writes a small tree. Blocks.
    ///
    /// # Errors
    /// `GT-SANDBOX-OPEN`; `GT-SANDBOX-BASE` when a patch of the base state does not apply.
    pub fn open(plan: OpenPlan<'_>) -> Result<Self, Failure> {
        let mut base = plan.prepared.files.clone();
        for text in plan.patches {
            patch::apply_to(&mut base, text).map_err(|reason| failure::base(&reason))?;
        }
        let hidden: BTreeSet<String> = plan
            .hidden
            .iter()
            .map(|path| path.trim_matches('/').to_owned())
            .collect();
        base.retain(|path, _| !is_hidden(&hidden, path));
        let private = plan.private.clone();
        let made = Self::make(plan, base, hidden);
        made.map_err(|error| {
            // What is left goes with the room's directory at the latest.
            let _ = private::remove(&private);
            failure::open(&private, &error)
        })
    }

    fn make(plan: OpenPlan<'_>, base: Snapshot, hidden: BTreeSet<String>) -> io::Result<Self> {
        let owner = plan
            .host
            .root
            .then(|| uid_of(std::process::id(), plan.number, mapped_uids()));
        let private = plan.private;
        std::fs::DirBuilder::new().mode(0o700).create(&private)?;
        let repository = private.join("repo");
        tree::write(&repository, &base, owner)?;
        let tmp = private.join("tmp");
        for path in [tmp.clone(), tmp.join("home")] {
            std::fs::DirBuilder::new().mode(0o755).create(&path)?;
            if let Some(id) = owner {
                lchown(&path, Some(id), Some(id))?;
            }
        }
        write_etc(&private.join("etc"), owner.unwrap_or(1000))?;
        let interpreter = &plan.prepared.manifest.interpreter;
        let view = View {
            base_prefix: interpreter.base_prefix.clone(),
            base_site_packages: interpreter.base_site_packages.clone(),
            venv: plan.prepared.venv(),
            helper: plan.helper,
            private: private.clone(),
            label: plan.label,
        };
        Ok(Self {
            words: bubblewrap::arguments(&plan.host, &view),
            environment: bubblewrap::environment(&plan.prepared.manifest.recipe.source_root),
            host: plan.host,
            root: Root::open(&repository, owner)?,
            private,
            owner,
            limits: plan.limits,
            base,
            hidden,
            turn: Mutex::new(()),
            life: Mutex::new(Life::Open(None)),
        })
    }

    /// The repository on the host.
    pub fn repository(&self) -> PathBuf {
        self.private.join("repo")
    }

    /// What the last look at the tree could not tell in a diff.
    ///
    /// # Errors
    /// The file system's.
    pub fn oddities(&self) -> io::Result<Vec<Odd>> {
        let _turn = guard(&self.turn);
        Ok(tree::scan(&self.repository(), |path| self.is_left_out(path))?.odd)
    }

    fn is_left_out(&self, path: &str) -> bool {
        diff::is_by_product(path) || is_hidden(&self.hidden, path)
    }

    /// Remembers what to cut when the sandbox is closed in the middle; cuts at once when
    /// that has happened already.
    fn remember(&self, running: UnixStream) {
        let mut life = guard(&self.life);
        match &mut *life {
            Life::Open(slot) => *slot = Some(running),
            Life::Closed => cut(&running),
        }
    }

    fn is_closed(&self) -> bool {
        matches!(*guard(&self.life), Life::Closed)
    }
}

/// The helper sees its host hang up and ends, and everything inside with it.
fn cut(running: &UnixStream) {
    // Already gone is as good.
    let _ = running.shutdown(Shutdown::Both);
}

fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing is left half-done under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_hidden(hidden: &BTreeSet<String>, path: &str) -> bool {
    hidden.contains(path)
        || path
            .match_indices('/')
            .any(|(at, _)| path.get(..at).is_some_and(|parent| hidden.contains(parent)))
}

/// The files below `/etc` that programs expect; nothing of the host's.
fn write_etc(path: &Path, uid: u32) -> io::Result<()> {
    std::fs::create_dir(path)?;
    let home = bubblewrap::HOME;
    for (name, text) in [
        (
            "passwd",
            format!("root:x:0:0::/:/bin/sh\nagent:x:{uid}:{uid}::{home}:/bin/sh\n"),
        ),
        ("group", format!("root:x:0:\nagent:x:{uid}:\n")),
        (
            "hosts",
            "127.0.0.1 localhost sandbox\n::1 localhost\n".to_owned(),
        ),
        (
            "nsswitch.conf",
            "passwd: files\ngroup: files\nhosts: files\n".to_owned(),
        ),
    ] {
        std::fs::write(path.join(name), text)?;
    }
    Ok(())
}

impl Sandbox for LocalSandbox {
    fn exec(&self, request: &Exec) -> Result<ExecOutcome, Failure> {
        let _turn = guard(&self.turn);
        if self.is_closed() {
            return Err(failure::gone(&request.sandbox));
        }
        let mut env = self.environment.clone();
        env.extend(request.env.iter().cloned());
        let inner = Request {
            argv: request.argv.clone(),
            env,
            directory: bubblewrap::TESTBED.to_owned(),
            has_stdin: request.stdin.is_some(),
            uid: self.owner,
            limits: self.limits.clone(),
        };
        let bounds = Bounds {
            timeout: Duration::from_millis(request.timeout_ms),
            output_cap: request.output_cap,
        };
        let ended = process::run(
            &self.host.bwrap,
            &self.words,
            &inner,
            request.stdin.as_deref(),
            bounds,
            |running| self.remember(running),
        );
        if let Life::Open(slot) = &mut *guard(&self.life) {
            *slot = None;
        }
        if self.is_closed() {
            return Err(failure::gone(&request.sandbox));
        }
        outcome(&request.argv, ended.map_err(failure::exec)?)
    }

    fn read(&self, path: &str) -> Result<FileRead, Failure> {
        let _turn = guard(&self.turn);
        let entry = self.root.read(path).map_err(|e| failure::files(&e))?;
        Ok(match entry {
            Ok(Some(entry)) => match std::str::from_utf8(&entry.bytes) {
                Ok(text) => FileRead::Text(text.to_owned()),
                Err(_) => FileRead::Refused(format!("not text: {path}")),
            },
            Ok(None) => FileRead::Refused(format!("no such file: {path}")),
            Err(refusal) => FileRead::Refused(refusal),
        })
    }

    fn write(&self, path: &str, content: &str) -> Result<FileWritten, Failure> {
        let _turn = guard(&self.turn);
        let written = self.root.write(path, content.as_bytes(), None);
        Ok(match written.map_err(|e| failure::files(&e))? {
            Ok(()) => FileWritten::Written,
            Err(refusal) => FileWritten::Refused(refusal),
        })
    }

    fn diff(&self) -> Result<String, Failure> {
        let _turn = guard(&self.turn);
        let now = tree::scan(&self.repository(), |path| self.is_left_out(path))
            .map_err(|e| failure::files(&e))?;
        let mut base = self.base.clone();
        for odd in &now.odd {
            // A file that cannot be told any more is left as it was, not deleted.
            if let Odd::Special(path) | Odd::Large(path) | Odd::Unreadable(path) = odd {
                base.remove(path);
            }
        }
        if now.odd.iter().any(|odd| matches!(odd, Odd::Many(_))) {
            // Not all was looked at: what the base names is asked for by name.
            for path in self
                .base
                .keys()
                .filter(|path| !now.files.contains_key(*path))
            {
                if !matches!(
                    self.root.read(path).map_err(|e| failure::files(&e))?,
                    Ok(None)
                ) {
                    base.remove(path);
                }
            }
        }
        let diff = diff::unified(&base, &now.files);
        if !now.odd.is_empty() || !diff.binary.is_empty() {
            tracing::debug!(odd = ?now.odd, binary = ?diff.binary, "not in the diff");
        }
        Ok(diff.text)
    }

    fn apply(&self, text: &str) -> Result<PatchApplied, Failure> {
        let _turn = guard(&self.turn);
        let mut trouble = None;
        let changes = patch::apply(text, |path| {
            self.root.read(path).unwrap_or_else(|error| {
                trouble = Some(error);
                Err(format!("cannot be read: {path}"))
            })
        });
        if let Some(error) = trouble {
            return Err(failure::files(&error));
        }
        let changes = match changes {
            Ok(changes) => changes,
            Err(reason) => return Ok(PatchApplied::Rejected(reason)),
        };
        // Undone when one of them is refused: a directory or a link in the way.
        let mut before = Vec::new();
        for change in &changes {
            let old = self
                .root
                .read(&change.path)
                .map_err(|e| failure::files(&e))?;
            let done = put(&self.root, change).map_err(|e| failure::files(&e))?;
            if let Err(reason) = done {
                for (path, new) in before.into_iter().rev() {
                    let undo = patch::Change { path, new };
                    // What could be written a moment ago can be written back.
                    let _ = put(&self.root, &undo).map_err(|e| failure::files(&e))?;
                }
                return Ok(PatchApplied::Rejected(reason));
            }
            before.push((change.path.clone(), old.unwrap_or(None)));
        }
        Ok(PatchApplied::Applied)
    }

    fn close(&self) -> Result<(), Failure> {
        let life = std::mem::replace(&mut *guard(&self.life), Life::Closed);
        if let Life::Open(Some(running)) = life {
            cut(&running);
        }
        let _turn = guard(&self.turn);
        private::remove(&self.private).map_err(|e| failure::files(&e))
    }
}

fn put(root: &Root, change: &patch::Change) -> io::Result<Result<(), String>> {
    match &change.new {
        Some(entry) => root.write(&change.path, &entry.bytes, Some(entry.executable)),
        None => root.remove(&change.path),
    }
}

/// What the room answers, from what the process and the helper told. Pure.
fn outcome(argv: &[String], ended: Ended) -> Result<ExecOutcome, Failure> {
    let mut stderr = ended.stderr.text();
    let mut exit_code = None;
    let mut started = false;
    let mut finished = ended.timed_out;
    for report in &ended.reports {
        match report {
            Report::Started => started = true,
            Report::Failed { why } => return Err(failure::exec(why)),
            Report::NotStarted { errno } => {
                let name = argv.first().map_or("", String::as_str);
                let why = io::Error::from_raw_os_error(*errno);
                stderr.push_str(&format!("{name}: {why}\n"));
                // As shells have it: not found, or found and not executable.
                exit_code = Some(if *errno == libc::ENOENT { 127 } else { 126 });
                (started, finished) = (true, true);
            }
            Report::Ended { code, .. } => {
                exit_code = *code;
                finished = true;
            }
        }
    }
    if !started && !ended.timed_out {
        let said: String = stderr.chars().take(400).collect();
        return Err(failure::exec(said.trim()));
    }
    if !finished {
        return Err(failure::died());
    }
    Ok(ExecOutcome {
        exit_code: exit_code.filter(|_| !ended.timed_out),
        timed_out: ended.timed_out,
        truncated_bytes: ended.stdout.dropped() + ended.stderr.dropped(),
        stdout: ended.stdout.text(),
        stderr,
        wall_ms: ended.wall.as_millis() as u64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Capture;

    fn ended(reports: &[Report], timed_out: bool) -> Ended {
        let (mut stdout, mut stderr) = (Capture::default(), Capture::default());
        stdout.push(b"out", 100);
        stderr.push(b"bwrap: no", 100);
        Ended {
            reports: reports.to_vec(),
            timed_out,
            stdout,
            stderr,
            wall: Duration::ZERO,
        }
    }

    #[test]
    fn whose_failure_it_is() {
        let argv = ["x".to_owned()];
        let done = |code, signal| Report::Ended {
            code,
            signal,
            cpu_us: 0,
            max_rss_kib: 0,
        };
        let ok = outcome(&argv, ended(&[Report::Started, done(Some(3), None)], false)).unwrap();
        assert_eq!(
            (ok.exit_code, ok.timed_out, ok.stdout.as_str()),
            (Some(3), false, "out")
        );
        let killed = outcome(&argv, ended(&[Report::Started, done(None, Some(9))], false));
        assert_eq!(killed.unwrap().exit_code, None);
        let late = outcome(&argv, ended(&[Report::Started], true)).unwrap();
        assert!(late.timed_out && late.exit_code.is_none());
        let missing = outcome(&argv, ended(&[Report::NotStarted { errno: 2 }], false)).unwrap();
        assert_eq!(missing.exit_code, Some(127));
        let code = |reports: &[Report]| outcome(&argv, ended(reports, false)).unwrap_err().code;
        assert_eq!(code(&[]), "GT-SANDBOX-EXEC");
        assert_eq!(
            code(&[Report::Failed {
                why: "landlock".into()
            }]),
            "GT-SANDBOX-EXEC"
        );
        assert_eq!(code(&[Report::Started]), "GT-SANDBOX-DIED");
    }

    #[test]
    fn uids_differ_and_stay_in_range() {
        assert_ne!(uid_of(7, 1, u64::MAX), uid_of(7, 2, u64::MAX));
        assert_ne!(uid_of(7, 1, u64::MAX), uid_of(8, 1, u64::MAX));
        assert!(uid_of(u32::MAX, u64::MAX, u64::MAX) < i32::MAX as u32);
        assert_eq!(uid_of(7, 1, 65_536), NOBODY);
    }

    #[test]
    fn directories_hide_what_is_below() {
        let hidden = BTreeSet::from(["t".to_owned(), "a/b.py".to_owned()]);
        assert!(is_hidden(&hidden, "t/x/y.py") && is_hidden(&hidden, "a/b.py"));
        assert!(!is_hidden(&hidden, "tt/x.py") && !is_hidden(&hidden, "a/b.pyi"));
    }
}
