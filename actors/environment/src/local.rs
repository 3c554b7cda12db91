//! The local back end: one private directory and one bubblewrap per sandbox, in which
//! commands run one after another. No daemon, no network, no process that outlives its
//! command (save what a shell on a terminal keeps).
//!
//! As root each sandbox has a uid of its own, so that neither files nor process limits
//! are shared between sandboxes; otherwise commands run in a user namespace.

use crate::bubblewrap::{self, Host, View};
use crate::cgroup::{GroupLimits, GroupUsage, Pool, Slot};
use crate::files::Root;
use crate::ground::{self, Ground, Layers, Seat};
use crate::inside::{Bounds, Ended, Inside, kill_job};
use crate::protocol::{Limits, Report, Request};
use crate::provision::Prepared;
use crate::sandbox::Sandbox;
use crate::shell::wire::Elsewhere;
use crate::shell::{self, PtyTerminal, Shell, ShellError, SystemClock, script};
use crate::tree::{self, Odd, Scan, Snapshot};
use crate::upper;
use crate::warden::Warden;
use crate::{diff, failure, patch, private};
use gametape_schemas::message::{
    Exec, ExecOutcome, FileRead, FileWritten, PatchApplied, ShellInput, ShellObservation,
};
use gametape_schemas::{Failure, ResourceLimit, SandboxUsage};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, lchown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

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
    /// Control groups, where there are any.
    pub groups: Option<Arc<Pool>>,
    /// Applied first, strictly.
    pub patches: &'a [String],
    /// Removed after the patches; files or directories.
    pub hidden: &'a [String],
}

/// A sandbox of the local back end.
#[derive(Debug)]
pub struct LocalSandbox {
    private: PathBuf,
    environment: Vec<(String, String)>,
    owner: Option<u32>,
    limits: Limits,
    /// The state that the diff compares with.
    base: Snapshot,
    hidden: BTreeSet<String>,
    opened: Instant,
    /// Ends what runs inside, from any thread.
    handle: UnixStream,
    closing: AtomicBool,
    /// One operation at a time: while files are read here, no command runs inside.
    /// `None` once it is closed.
    standing: Arc<Mutex<Option<Standing>>>,
    /// Started when it is first spoken to.
    shell: Mutex<Option<Shell>>,
    used: Mutex<SandboxUsage>,
}

/// What an open sandbox holds. Fields are dropped in this order.
#[derive(Debug)]
struct Standing {
    inside: Inside,
    root: Root,
    ground: Ground,
    /// Its mounts go with it.
    _warden: Warden,
    /// Emptied and given back when it is dropped: after the files, which count as memory.
    slot: Option<Slot>,
    /// What it had used when the last command ended.
    group: GroupUsage,
    _seat: Seat,
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
    /// Opens: its layers are mounted, or a tree is written, and bubblewrap comes up.
    /// Blocks.
    ///
    /// # Errors
    /// `GT-SANDBOX-OPEN`; `GT-SANDBOX-EXEC` when bubblewrap or the helper does not come
    /// up; `GT-SANDBOX-BASE` when a patch of the base state does not apply.
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
        Self::make(plan, base, hidden).inspect_err(|_| {
            // What is left goes with the room's directory at the latest.
            let _ = private::remove(&private);
        })
    }

    fn make(plan: OpenPlan<'_>, base: Snapshot, hidden: BTreeSet<String>) -> Result<Self, Failure> {
        let opened = Instant::now();
        let private = plan.private.clone();
        let io = |error: io::Error| failure::open(&private, &error);
        let seat = Seat::take();
        let owner = plan
            .host
            .root
            .then(|| uid_of(std::process::id(), seat.number(), mapped_uids()));
        let warden = Warden::start(plan.number).map_err(io)?;
        let asked = ground::Plan {
            private: private.clone(),
            tree: plan.prepared.tree(),
            owner,
            helper: plan.helper.clone(),
            bytes: plan.limits.disk_mib << 20,
            inodes: plan.limits.inodes,
        };
        let ground = warden.run(move || Ground::lay(&asked));
        let ground = ground.and_then(|laid| laid).map_err(io)?;
        let root = furnish(&ground, &plan.prepared.files, &base, owner).map_err(io)?;
        let interpreter = &plan.prepared.manifest.interpreter;
        let view = View {
            base_prefix: interpreter.base_prefix.clone(),
            base_site_packages: interpreter.base_site_packages.clone(),
            venv: plan.prepared.venv(),
            helper: plan.helper,
            private: private.clone(),
            label: plan.label,
        };
        let words: Vec<OsString> = bubblewrap::arguments(&plan.host, &view);
        let bwrap = plan.host.bwrap.clone();
        let inside = warden.run(move || Inside::start(&bwrap, &words));
        let mut inside = inside.and_then(|started| started).map_err(failure::exec)?;
        let limits = GroupLimits {
            memory_bytes: Some(plan.limits.memory_mib << 20),
            processes: Some(plan.limits.processes),
            cpu_milli: None,
        };
        let slot = match &plan.groups {
            Some(pool) => Some(pool.take(&limits).map_err(io)?),
            None => None,
        };
        if let Some(slot) = &slot {
            slot.add_family(inside.process()).map_err(io)?;
        }
        inside.wait_until_up().map_err(failure::exec)?;
        Ok(Self {
            environment: bubblewrap::environment(&plan.prepared.manifest.recipe.source_root),
            private,
            owner,
            limits: plan.limits,
            base,
            hidden,
            opened,
            handle: inside.handle().map_err(failure::exec)?,
            closing: AtomicBool::new(false),
            standing: Arc::new(Mutex::new(Some(Standing {
                inside,
                root,
                ground,
                slot,
                group: GroupUsage::default(),
                _warden: warden,
                _seat: seat,
            }))),
            shell: Mutex::default(),
            used: Mutex::default(),
        })
    }

    /// What the last look at the tree could not tell in a diff.
    ///
    /// # Errors
    /// `GT-SANDBOX-GONE` when it is closed; the file system's.
    pub fn oddities(&self) -> Result<Vec<Odd>, Failure> {
        self.with(|standing| Ok(self.look(standing).map_err(|e| failure::files(&e))?.1.odd))
    }

    /// Whether its repository is an overlay over the prepared tree (else a copy of it).
    pub fn has_overlay(&self) -> bool {
        let standing = guard(&self.standing);
        let ground = standing.as_ref().map(|standing| &standing.ground);
        ground.is_some_and(|ground| ground.layers() == Layers::Overlay)
    }

    /// Works on the open sandbox, alone.
    fn with<T>(
        &self,
        work: impl FnOnce(&mut Standing) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        match &mut *guard(&self.standing) {
            Some(standing) => work(standing),
            None => Err(failure::closed()),
        }
    }

    /// What may differ from the base state, and how it is now. With an overlay only what
    /// was written is looked at.
    fn look(&self, standing: &Standing) -> io::Result<(Snapshot, Scan)> {
        let skip = |path: &str| self.is_left_out(path);
        if standing.ground.layers() == Layers::Overlay {
            return upper::changes(&standing.ground.path("upper"), &self.base, skip);
        }
        let now = tree::scan(&standing.ground.path("repo"), skip)?;
        Ok((self.base.clone(), now))
    }

    fn is_left_out(&self, path: &str) -> bool {
        diff::is_by_product(path) || is_hidden(&self.hidden, path)
    }
}

/// Writes what every sandbox has, and the repository's base state.
fn furnish(
    ground: &Ground,
    clean: &Snapshot,
    base: &Snapshot,
    owner: Option<u32>,
) -> io::Result<Root> {
    let repository = ground.path("repo");
    for name in ["tmp", "tmp/home"] {
        let path = ground.path(name);
        std::fs::DirBuilder::new().mode(0o755).create(&path)?;
        if let Some(id) = owner {
            lchown(&path, Some(id), Some(id))?;
        }
    }
    write_etc(&ground.path("etc"), owner.unwrap_or(1000))?;
    if ground.layers() != Layers::Overlay {
        tree::write(&repository, base, owner)?;
        return Root::open(&repository, owner);
    }
    let root = Root::open(&repository, owner)?;
    let refused = |refusal: String| io::Error::other(refusal);
    for path in clean.keys().filter(|path| !base.contains_key(*path)) {
        root.remove(path)?.map_err(refused)?;
    }
    for (path, entry) in base {
        let is_there = clean.get(path).is_some_and(|old| {
            Arc::ptr_eq(&old.bytes, &entry.bytes) && old.executable == entry.executable
        });
        if !is_there {
            let written = root.write(path, &entry.bytes, Some(entry.executable))?;
            written.map_err(refused)?;
        }
    }
    Ok(root)
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

impl LocalSandbox {
    fn request(&self, argv: &[String], env: &[(String, String)]) -> Request {
        let mut all = self.environment.clone();
        all.extend(env.iter().cloned());
        Request {
            argv: argv.to_vec(),
            env: all,
            directory: bubblewrap::TESTBED.to_owned(),
            uid: self.owner,
            limits: self.limits.clone(),
        }
    }
}

impl LocalSandbox {
    fn start_shell(&self) -> Result<Shell, Failure> {
        let request = self.request(&script::BASH.map(str::to_owned), &[]);
        let terminal = PtyTerminal::start(|terminal| {
            let mut turn = guard(&self.standing);
            let closed = || io::Error::other("the sandbox is closed");
            let standing = turn.as_mut().ok_or_else(closed)?;
            let job = standing.inside.start_on_terminal(&request, terminal)?;
            Ok(Box::new(Bash {
                standing: self.standing.clone(),
                handle: standing.inside.handle()?,
                job,
            }))
        });
        let terminal = terminal.map_err(ShellError::Io)?;
        let nonce = nonce().map_err(ShellError::Io)?;
        let clock = Box::new(SystemClock::default());
        Ok(Shell::new(Box::new(terminal), &nonce, clock)?)
    }
}

/// The bash of a sandbox.
#[derive(Debug)]
struct Bash {
    standing: Arc<Mutex<Option<Standing>>>,
    handle: UnixStream,
    job: u64,
}

impl Elsewhere for Bash {
    fn ended(&mut self) -> Option<Option<i32>> {
        match self.standing.try_lock() {
            Ok(mut turn) => match &mut *turn {
                Some(standing) => standing.inside.ended_on_terminal(self.job),
                None => Some(None),
            },
            // A command runs beside it: the next look tells.
            Err(_) => None,
        }
    }

    fn kill(&mut self) {
        kill_job(self.handle.as_fd(), self.job);
    }
}

/// Random letters and digits.
fn nonce() -> io::Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

impl Sandbox for LocalSandbox {
    fn shell(&self, input: &ShellInput) -> Result<ShellObservation, Failure> {
        let mut shell = guard(&self.shell);
        if self.closing.load(Ordering::Acquire) {
            return Err(failure::gone(&input.sandbox));
        }
        let running = match &mut *shell {
            Some(running) if !running.is_dead() => running,
            other => other.insert(self.start_shell()?),
        };
        let observation = running.run(&shell::Input::from(input));
        if self.closing.load(Ordering::Acquire) {
            return Err(failure::gone(&input.sandbox));
        }
        Ok(observation)
    }

    fn exec(&self, request: &Exec) -> Result<ExecOutcome, Failure> {
        let inner = self.request(&request.argv, &request.env);
        let bounds = Bounds {
            timeout: Duration::from_millis(request.timeout_ms),
            output_cap: request.output_cap,
        };
        let mut turn = guard(&self.standing);
        let Some(standing) = &mut *turn else {
            return Err(failure::gone(&request.sandbox));
        };
        let ended = standing
            .inside
            .run(&inner, request.stdin.as_deref(), bounds)
            .map_err(failure::exec)?;
        let group = standing.slot.as_ref().map(Slot::usage).unwrap_or_default();
        let limit = struck(&ended, &group, &standing.group, standing.ground.is_full());
        standing.group = group;
        let mut used = guard(&self.used);
        take_note(&mut used, &ended, limit);
        drop(used);
        if self.closing.load(Ordering::Acquire) {
            return Err(failure::gone(&request.sandbox));
        }
        Ok(ExecOutcome {
            limit,
            ..outcome(&request.argv, ended)?
        })
    }

    fn read(&self, path: &str) -> Result<FileRead, Failure> {
        self.with(|standing| {
            let entry = standing.root.read(path).map_err(|e| failure::files(&e))?;
            Ok(match entry {
                Ok(Some(entry)) => match std::str::from_utf8(&entry.bytes) {
                    Ok(text) => FileRead::Text(text.to_owned()),
                    Err(_) => FileRead::Refused(format!("not text: {path}")),
                },
                Ok(None) => FileRead::Refused(format!("no such file: {path}")),
                Err(refusal) => FileRead::Refused(refusal),
            })
        })
    }

    fn write(&self, path: &str, content: &str) -> Result<FileWritten, Failure> {
        self.with(|standing| {
            let written = standing.root.write(path, content.as_bytes(), None);
            Ok(match written.map_err(|e| failure::files(&e))? {
                Ok(()) => FileWritten::Written,
                Err(refusal) => FileWritten::Refused(refusal),
            })
        })
    }

    fn diff(&self) -> Result<String, Failure> {
        self.with(|standing| {
            let (mut base, now) = self.look(standing).map_err(|e| failure::files(&e))?;
            for odd in &now.odd {
                // A file that cannot be told any more is left as it was, not deleted.
                if let Odd::Special(path) | Odd::Large(path) | Odd::Unreadable(path) = odd {
                    base.remove(path);
                }
            }
            if now.odd.iter().any(|odd| matches!(odd, Odd::Many(_))) {
                // Not all was looked at: what the base names is asked for by name.
                let missing: Vec<String> = base
                    .keys()
                    .filter(|path| !now.files.contains_key(*path))
                    .cloned()
                    .collect();
                for path in missing {
                    let found = standing.root.read(&path).map_err(|e| failure::files(&e))?;
                    if !matches!(found, Ok(None)) {
                        base.remove(&path);
                    }
                }
            }
            let diff = diff::unified(&base, &now.files);
            if !now.odd.is_empty() || !diff.binary.is_empty() {
                tracing::debug!(odd = ?now.odd, binary = ?diff.binary, "not in the diff");
            }
            Ok(diff.text)
        })
    }

    fn apply(&self, text: &str) -> Result<PatchApplied, Failure> {
        self.with(|standing| {
            let root = &standing.root;
            let mut trouble = None;
            let changes = patch::apply(text, |path| {
                root.read(path).unwrap_or_else(|error| {
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
                let old = root.read(&change.path).map_err(|e| failure::files(&e))?;
                let done = put(root, change).map_err(|e| failure::files(&e))?;
                if let Err(reason) = done {
                    for (path, new) in before.into_iter().rev() {
                        let undo = patch::Change { path, new };
                        // What could be written a moment ago can be written back.
                        let _ = put(root, &undo).map_err(|e| failure::files(&e))?;
                    }
                    return Ok(PatchApplied::Rejected(reason));
                }
                before.push((change.path.clone(), old.unwrap_or(None)));
            }
            Ok(PatchApplied::Applied)
        })
    }

    fn close(&self) -> Result<SandboxUsage, Failure> {
        self.closing.store(true, Ordering::Release);
        // Whatever runs sees its host hang up and ends; then the turn is free.
        // Already gone is as good.
        let _ = self.handle.shutdown(Shutdown::Both);
        let mut turn = guard(&self.standing);
        let Some(mut standing) = turn.take() else {
            return Ok(guard(&self.used).clone());
        };
        let mut used = guard(&self.used);
        used.wall_ms = self.opened.elapsed().as_millis() as u64;
        used.written_bytes = standing.ground.written_bytes();
        if let Some(group) = standing.slot.as_ref().map(Slot::usage) {
            used.cpu_us = group.cpu_us.unwrap_or(used.cpu_us);
            used.peak_memory_bytes = group.peak_memory_bytes.or(used.peak_memory_bytes);
            used.processes_peak = group.processes_peak;
        }
        standing.inside.end().map_err(|e| failure::files(&e))?;
        drop(standing);
        // Whoever waits for the shell hears of its end.
        drop(turn);
        *guard(&self.shell) = None;
        private::remove(&self.private).map_err(|e| failure::files(&e))?;
        Ok(used.clone())
    }
}

/// Which limit struck during a command, the gravest first. Pure.
fn struck(
    ended: &Ended,
    now: &GroupUsage,
    before: &GroupUsage,
    is_full: bool,
) -> Option<ResourceLimit> {
    // Before the first command nothing was counted: as good as zero.
    let grew = |of: fn(&GroupUsage) -> Option<u64>| of(now).unwrap_or(0) > of(before).unwrap_or(0);
    let signal = ended.reports.iter().find_map(|report| match report {
        Report::Ended { signal, .. } => *signal,
        _ => None,
    });
    if grew(|group| group.oom_kills) {
        return Some(ResourceLimit::Memory);
    }
    if grew(|group| group.pids_denied) {
        return Some(ResourceLimit::Processes);
    }
    match signal {
        Some(libc::SIGXCPU) => return Some(ResourceLimit::CpuTime),
        Some(libc::SIGXFSZ) => return Some(ResourceLimit::FileSize),
        _ => {}
    }
    if is_full {
        return Some(ResourceLimit::Disk);
    }
    ended.timed_out.then_some(ResourceLimit::WallTime)
}

fn take_note(used: &mut SandboxUsage, ended: &Ended, limit: Option<ResourceLimit>) {
    used.commands += 1;
    if let Some(limit) = limit.filter(|limit| !used.limits.contains(limit)) {
        used.limits.push(limit);
    }
    for report in &ended.reports {
        if let Report::Ended {
            cpu_us,
            max_rss_kib,
            ..
        } = report
        {
            used.cpu_us += cpu_us;
            used.peak_memory_bytes = used.peak_memory_bytes.max(Some(max_rss_kib << 10));
        }
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
            Report::Ready => {}
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
        limit: None,
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
    fn a_limit_struck_when_its_counter_grew() {
        let counted = |oom_kills, pids_denied| GroupUsage {
            oom_kills: Some(oom_kills),
            pids_denied: Some(pids_denied),
            ..GroupUsage::default()
        };
        let struck = |now, before| struck(&ended(&[], false), &now, &before, false);
        let first = GroupUsage::default();
        assert_eq!(struck(counted(0, 0), first), None);
        assert_eq!(struck(first, first), None);
        let memory = Some(ResourceLimit::Memory);
        assert_eq!(struck(counted(1, 1), first), memory);
        assert_eq!(struck(counted(1, 1), counted(1, 1)), None);
        let processes = Some(ResourceLimit::Processes);
        assert_eq!(struck(counted(1, 2), counted(1, 1)), processes);
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
