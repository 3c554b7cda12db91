//! The local back end: one private directory and one set of namespaces per sandbox, in
//! which commands run one after another. bubblewrap makes them, or the helper itself
//! ([`crate::starter`]). No daemon, no network, no process that outlives its command
//! (save what a shell on a terminal keeps).
//!
//! As root each sandbox has a uid of its own, so that neither files nor process limits
//! are shared between sandboxes; otherwise commands run in a user namespace.
//!
//! - `furnish`: what is in it at first, and whose
//! - `outcome`: what came of a command
//! - `bash`: its shell

mod bash;
mod furnish;
mod outcome;

use crate::bubblewrap::{self, Host, View};
use crate::cgroup::{GroupLimits, GroupUsage, Pool, Slot};
use crate::files::Root;
use crate::ground::{self, Ground, Layers, Seat};
use crate::inside::{Bounds, Inside};
use crate::protocol::{Limits, Request};
use crate::provision::Prepared;
use crate::root_commit::{self, RootCommit, RootCommits};
use crate::sandbox::Sandbox;
use crate::shell::{self, PtyTerminal, Shell, ShellError, SystemClock, nonce, script};
use crate::state::{BaseState, LeftOut, told};
use crate::tree::{self, Odd, Scan, Snapshot};
use crate::upper;
use crate::warden::Warden;
use crate::{failure, patch, private, starter};
use bash::Bash;
use furnish::{furnish, mapped_uids, uid_of};
use gametape_schemas::message::{
    Exec, ExecOutcome, FileRead, FileWritten, History, PatchApplied, ShellInput, ShellObservation,
};
use gametape_schemas::{Failure, SandboxUsage};
use outcome::{outcome, struck, take_note};
use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
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
    /// What git finds in the repository.
    pub history: History,
    /// Root commits that were made before.
    pub commits: &'a RootCommits,
    /// The most that is tried for its files: [`Layers::Overlay`] but in tests.
    pub layers: Layers,
}

/// A sandbox of the local back end.
#[derive(Debug)]
pub struct LocalSandbox {
    private: PathBuf,
    environment: Vec<(String, String)>,
    owner: Option<u32>,
    limits: Limits,
    /// The state that the diff compares with.
    base: BaseState,
    /// What the last diff did not take, by name.
    scratch: Mutex<Vec<String>>,
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

impl LocalSandbox {
    /// Opens: its layers are mounted, or a tree is written, and bubblewrap comes up.
    /// Blocks.
    ///
    /// # Errors
    /// `GT-SANDBOX-OPEN`; `GT-SANDBOX-EXEC` when bubblewrap or the helper does not come
    /// up; `GT-SANDBOX-BASE` when a patch of the base state does not apply; `GT-ENV-GIT`
    /// when a root commit cannot be made; `GT-SANDBOX-HISTORY` when a history is wanted
    /// as it is: there is none.
    pub fn open(plan: OpenPlan<'_>) -> Result<Self, Failure> {
        let manifest = &plan.prepared.manifest;
        let has_git = match plan.history {
            History::None => false,
            History::Root => true,
            History::AsIs => return Err(failure::no_history(manifest.recipe.id())),
        };
        let base = BaseState::new(&plan.prepared.files, plan.patches, plan.hidden, has_git)?;
        let private = plan.private.clone();
        Self::make(plan, base).inspect_err(|_| {
            // What is left goes with the room's directory at the latest.
            let _ = private::remove(&private);
        })
    }

    fn make(plan: OpenPlan<'_>, base: BaseState) -> Result<Self, Failure> {
        let opened = Instant::now();
        let commit = match plan.history {
            History::Root => {
                let clean = &plan.prepared.manifest.tree;
                let key = root_commit::key(clean, plan.patches, plan.hidden);
                let make = || RootCommit::make(root_commit::items(&base));
                Some(plan.commits.get(&key, make)?)
            }
            _ => None,
        };
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
            most: plan.layers,
        };
        let ground = warden.run(move || Ground::lay(&asked));
        let ground = ground.and_then(|laid| laid).map_err(io)?;
        let root = furnish(&ground, &plan.prepared.files, base.files(), owner).map_err(io)?;
        if let Some(commit) = commit {
            commit.write(&ground.path("repo"), owner).map_err(io)?;
        }
        let interpreter = &plan.prepared.manifest.interpreter;
        let view = View {
            base_prefix: interpreter.base_prefix.clone(),
            base_site_packages: interpreter.base_site_packages.clone(),
            venv: plan.prepared.venv(),
            helper: plan.helper,
            private: private.clone(),
            label: plan.label,
        };
        let (program, words) = starter::command(&plan.host, &view);
        let inside = warden.run(move || Inside::start(&program, &words));
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
            scratch: Mutex::default(),
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
        self.with(|standing| {
            let left_out = LeftOut::of(&self.base);
            let looked = self.look(standing, &left_out);
            Ok(looked.map_err(|e| failure::files(&e))?.1.odd)
        })
    }

    /// Whether its repository is an overlay over the prepared tree (else a copy of it).
    pub fn has_overlay(&self) -> bool {
        self.layers() == Some(Layers::Overlay)
    }

    /// What it stands on; `None` once it is closed.
    pub fn layers(&self) -> Option<Layers> {
        let standing = guard(&self.standing);
        standing.as_ref().map(|standing| standing.ground.layers())
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
    fn look(&self, standing: &Standing, left_out: &LeftOut<'_>) -> io::Result<(Snapshot, Scan)> {
        let skip = |path: &str| left_out.skips(path);
        if standing.ground.layers() == Layers::Overlay {
            let upper = standing.ground.path("upper");
            if let Some(changes) = upper::changes(&upper, self.base.files(), skip)? {
                return Ok(changes);
            }
        }
        let now = tree::scan(&standing.ground.path("repo"), skip)?;
        Ok((self.base.files().clone(), now))
    }
}

fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing is left half-done under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
            let left_out = LeftOut::of(&self.base);
            let looked = self.look(standing, &left_out);
            let (mut base, now) = looked.map_err(|e| failure::files(&e))?;
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
            let change = left_out.change(base, &now);
            *guard(&self.scratch) = change.scratch;
            Ok(change.text)
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
        // Nothing moves there any more.
        used.scratch = told(&guard(&self.scratch), &left_in_tmp(&standing.ground));
        drop(standing);
        // Whoever waits for the shell hears of its end.
        drop(turn);
        *guard(&self.shell) = None;
        private::remove(&self.private).map_err(|e| failure::files(&e))?;
        Ok(used.clone())
    }
}

/// What lies below `/tmp`, as a sandbox calls it; not all of it where it is much.
fn left_in_tmp(ground: &Ground) -> Vec<String> {
    const LOOKED_AT: usize = 10_000;
    const NAMED: usize = 100;
    let tmp = ground.path("tmp");
    walkdir::WalkDir::new(&tmp)
        .min_depth(1)
        .max_depth(tree::MAX_DEPTH)
        .sort_by_file_name()
        .into_iter()
        .flatten()
        .take(LOOKED_AT)
        .filter(|entry| !entry.file_type().is_dir())
        .filter_map(|entry| {
            let relative = entry.path().strip_prefix(&tmp).ok()?;
            Some(format!("/tmp/{}", relative.to_string_lossy()))
        })
        .take(NAMED)
        .collect()
}

fn put(root: &Root, change: &patch::Change) -> io::Result<Result<(), String>> {
    match &change.new {
        Some(entry) => root.write(&change.path, &entry.bytes, Some(entry.executable)),
        None => root.remove(&change.path),
    }
}
