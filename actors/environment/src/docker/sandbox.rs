//! A sandbox in a container of the Docker Engine.

use super::client::{self, Engine, Trouble};
use super::container::{self, Labels};
use super::image::Image;
use super::inside::{Inside, Seen, guard};
use super::limit;
use super::owner::Owner;
use super::plan::plan;
use super::quiet::Usage;
use super::settings::Bounds;
use super::spared::Spared;
use super::terminal::ContainerTerminal;
use super::tree::{Node, Tree, file};
use crate::failure;
use crate::root_commit::{self, Item, RootCommit, RootCommits};
use crate::sandbox::Sandbox;
use crate::shell::{self, Shell, ShellError, SystemClock, nonce};
use crate::state::{BaseState, LeftOut, told};
use crate::tree::Entry;
use gametape_schemas::message::{
    Exec, ExecOutcome, FileRead, FileWritten, History, PatchApplied, ShellInput, ShellObservation,
};
use gametape_schemas::{Failure, ResourceLimit, SandboxUsage};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Instant;

/// What opening needs.
pub struct DockerPlan<'a> {
    /// The engine.
    pub engine: Arc<Engine>,
    /// The image, and the repository that goes in.
    pub image: &'a Image,
    /// Distinguishes the sandboxes of this process.
    pub number: u64,
    /// The run, for lists of containers.
    pub run: String,
    /// The attempt, for lists of containers.
    pub label: String,
    /// What the container may use.
    pub bounds: Bounds,
    /// Applied first, strictly.
    pub patches: &'a [String],
    /// Removed after the patches; files or directories.
    pub hidden: &'a [String],
    /// What git finds in the repository. As it is: the image whole, with its own users
    /// and its files writable.
    pub history: History,
    /// Root commits that were made before.
    pub commits: &'a RootCommits,
    /// Gets the container's name before there is such a container, so that whoever comes
    /// after a crash can ask for it.
    pub intent: &'a dyn Fn(&str),
}

/// A sandbox of the Docker back end.
#[derive(Debug)]
pub struct DockerSandbox {
    inside: Inside,
    /// The state that the diff compares with.
    base: BaseState,
    /// What the last diff did not take, by name.
    scratch: Mutex<Vec<String>>,
    /// One operation at a time: while the tree is looked at, nothing runs inside.
    turn: Mutex<Seen>,
    /// Taken within the turn only.
    shell: Mutex<Option<Spoken>>,
    commands: AtomicU64,
    /// Limits that struck so far, each once.
    limits: Mutex<Vec<ResourceLimit>>,
}

/// A shell that was spoken to; it may be dead.
#[derive(Debug)]
struct Spoken {
    shell: Shell,
    spared: Spared,
}

impl DockerSandbox {
    /// Opens: makes and starts a container and puts the repository in. Blocks, some
    /// hundred milliseconds.
    ///
    /// # Errors
    /// `GT-SANDBOX-BASE` when a patch of the base state does not apply,
    /// `GT-SANDBOX-IMAGE` when the image is gone, `GT-SANDBOX-EXEC` when nothing can be
    /// run in it, `GT-ENV-GIT` when a root commit cannot be made, `GT-SANDBOX-HISTORY`
    /// when there is no image whose history could be shown as it is, `GT-DOCKER-*`.
    pub fn open(plan: DockerPlan<'_>) -> Result<Self, Failure> {
        let image = plan.image;
        let as_is = plan.history == History::AsIs;
        let user = match (as_is, &image.user) {
            (false, _) => container::agent(),
            (true, Some(user)) => user.clone(),
            (true, None) => return Err(failure::no_history(&image.id)),
        };
        let has_git = plan.history != History::None;
        let rest = image.rest.iter().map(|(path, _)| path.as_str());
        let base = BaseState::new(&image.files, plan.patches, plan.hidden, has_git)?;
        let base = base.with_rest(rest);
        let mut tree = Tree::of(base.files());
        for (path, node) in &plan.image.rest {
            if !base.is_hidden(path) {
                tree.put(path, node.clone());
            }
        }
        let owner = Owner::this();
        if plan.history == History::Root {
            let key = root_commit::key(&image.clean, plan.patches, plan.hidden);
            let make = || RootCommit::make(items(&tree));
            let commit = plan.commits.get(&key, make)?;
            put(&mut tree, &commit);
        }
        let large = |(path, node): (&str, &Node)| {
            let is_large = matches!(node, Node::Large(Some(_), _));
            is_large.then(|| (path.to_owned(), node.clone()))
        };
        let inside = Inside {
            container: owner.container(plan.number),
            place: image.place.clone(),
            user,
            as_is,
            owner: OnceLock::new(),
            large: tree.nodes().filter_map(large).collect(),
            // In an image as it is, the image's own.
            environment: match as_is {
                true => Vec::new(),
                false => image.environment.clone(),
            },
            bounds: plan.bounds,
            opened: Instant::now(),
            closed: AtomicBool::new(false),
            removed: AtomicBool::new(false),
            usage: Mutex::default(),
            has_shell: AtomicBool::new(false),
            elsewhere: Mutex::default(),
            engine: plan.engine,
        };
        let labels = Labels {
            owner,
            run: plan.run,
            attempt: plan.label,
        };
        (plan.intent)(&inside.container);
        let id = &image.id;
        let bounds = &inside.bounds;
        let bodies = match as_is {
            false => vec![container::body(id, &inside.place, bounds, &labels)],
            true => [Some(bounds.image_mib), None]
                .map(|disk| container::as_is(id, bounds, &labels, disk))
                .to_vec(),
        };
        client::wait(async {
            let _one_of_few = inside.engine.starts.acquire().await;
            let made = inside.make(bodies, &tree).await;
            if made.is_err() {
                // What is left goes with the next reaping at the latest.
                let _ = inside.engine.remove(&inside.container).await;
            }
            made.map_err(|trouble| match trouble {
                Trouble::Missing(why) => failure::image(id, why),
                Trouble::Conflict(why) => failure::exec(why),
                other => other.into(),
            })
        })??;
        let opened = Self {
            inside,
            base,
            scratch: Mutex::default(),
            // What was put in is what is there; an image was not looked at.
            turn: Mutex::new((!as_is).then_some(tree)),
            shell: Mutex::default(),
            commands: AtomicU64::new(0),
            limits: Mutex::default(),
        };
        if as_is && (!plan.patches.is_empty() || !plan.hidden.is_empty()) {
            opened.make_base(image)?;
        }
        Ok(opened)
    }

    /// Brings an image that is used as it is to the base state.
    fn make_base(&self, image: &Image) -> Result<(), Failure> {
        let mut held = self.looked()?;
        let seen: &mut Seen = &mut held;
        let base = self.base.files();
        let is_gone = |(path, node): &&(String, Node)| {
            // An empty directory tells nothing.
            !matches!(node, Node::Directory) && self.base.is_hidden(path)
        };
        let rest = image.rest.iter().filter(is_gone).map(|(path, _)| path);
        let gone = image.files.keys().filter(|path| !base.contains_key(*path));
        let removed: Vec<String> = gone.chain(rest).cloned().collect();
        let new = base
            .iter()
            .filter(|(path, entry)| image.files.get(*path) != Some(entry));
        let written: Vec<(String, Node)> = Tree::of(&new.map(owned).collect())
            .nodes()
            .filter(|(_, node)| !matches!(node, Node::Directory))
            .map(|(path, node)| (path.to_owned(), node.clone()))
            .collect();
        let done = client::wait(async { self.inside.change(seen, &removed, &written).await })?;
        let done = done.map_err(|trouble| self.inside.failure(trouble))?;
        done.map_err(|reason| failure::base(&reason))
    }

    /// The container's name.
    pub fn container(&self) -> &str {
        &self.inside.container
    }

    /// What it used so far; after closing, what it used in all.
    pub fn usage(&self) -> Usage {
        if !self.inside.is_closed() {
            let _turn = guard(&self.turn);
            // Without an engine the last figures stand.
            let _ = client::wait(self.inside.count());
        }
        self.inside.total()
    }

    fn start_shell(&self) -> Result<Spoken, Failure> {
        let inside = &self.inside;
        let started = client::wait(async {
            // What a shell left that has died, or did not come up.
            if inside.has_shell.swap(true, Ordering::SeqCst) {
                inside.clear().await?;
            }
            ContainerTerminal::start(inside).await
        })?;
        let terminal = started.map_err(|trouble| match trouble {
            Trouble::Refused(why) => ShellError::Io(io::Error::other(why)).into(),
            other => inside.failure(other),
        })??;
        let spared = terminal.spared().clone();
        let nonce = nonce().map_err(ShellError::Io)?;
        let clock = Box::new(SystemClock::default());
        let shell = Shell::new(Box::new(terminal), &nonce, clock)?;
        Ok(Spoken { shell, spared })
    }

    /// The turn, with the repository as it is now.
    fn looked(&self) -> Result<MutexGuard<'_, Seen>, Failure> {
        let mut held = guard(&self.turn);
        if self.inside.is_closed() {
            return Err(self.inside.gone());
        }
        // A lock's guard must stay on its thread: the work gets what it guards.
        let seen: &mut Seen = &mut held;
        let looked = client::wait(async { self.inside.look(seen).await })?;
        looked.map_err(|trouble| self.inside.failure(trouble))?;
        Ok(held)
    }
}

impl Sandbox for DockerSandbox {
    fn exec(&self, request: &Exec) -> Result<ExecOutcome, Failure> {
        let mut held = guard(&self.turn);
        if self.inside.is_closed() {
            return Err(failure::gone(&request.sandbox));
        }
        let seen: &mut Seen = &mut held;
        let shell = guard(&self.shell).as_ref().map(|it| it.spared.clone());
        let ran = client::wait(async { self.inside.run(request, seen, shell.as_ref()).await })?;
        if self.inside.is_closed() {
            return Err(failure::gone(&request.sandbox));
        }
        let ran = ran.map_err(|trouble| match trouble {
            Trouble::Refused(why) => failure::exec(why),
            other => self.inside.failure(other),
        })?;
        self.commands.fetch_add(1, Ordering::Relaxed);
        let mut limits = guard(&self.limits);
        if let Some(limit) = ran.limit.filter(|limit| !limits.contains(limit)) {
            limits.push(limit);
        }
        drop(limits);
        Ok(ran)
    }

    fn read(&self, path: &str) -> Result<FileRead, Failure> {
        let seen = self.looked()?;
        let found = seen.as_ref().map_or(Ok(None), |tree| tree.read(path));
        Ok(match found {
            Ok(Some(entry)) => match std::str::from_utf8(&entry.bytes) {
                Ok(text) => FileRead::Text(text.to_owned()),
                Err(_) => FileRead::Refused(format!("not text: {path}")),
            },
            Ok(None) => FileRead::Refused(format!("no such file: {path}")),
            Err(refusal) => FileRead::Refused(refusal),
        })
    }

    fn write(&self, path: &str, content: &str) -> Result<FileWritten, Failure> {
        let mut held = self.looked()?;
        let seen: &mut Seen = &mut held;
        let plan = match &*seen {
            Some(tree) => tree.plan_write(path, content.as_bytes(), None),
            None => Err(format!("cannot be opened: {path}")),
        };
        let plan = match plan {
            Ok(plan) => plan,
            Err(refusal) => return Ok(FileWritten::Refused(refusal)),
        };
        let done = client::wait(async { self.inside.change(seen, &[], &[plan]).await })?;
        Ok(
            match done.map_err(|trouble| self.inside.failure(trouble))? {
                Ok(()) => FileWritten::Written,
                Err(refusal) => FileWritten::Refused(refusal),
            },
        )
    }

    fn diff(&self) -> Result<String, Failure> {
        let seen = self.looked()?;
        let left_out = LeftOut::of(&self.base);
        let now = seen
            .as_ref()
            .map(|tree| tree.scan(|path| left_out.skips(path)));
        let change = left_out.change(self.base.files().clone(), &now.unwrap_or_default());
        // What an image had before cannot be told from what was made, as it is.
        if !self.inside.as_is {
            *guard(&self.scratch) = change.scratch;
        }
        Ok(change.text)
    }

    fn apply(&self, text: &str) -> Result<PatchApplied, Failure> {
        let mut held = self.looked()?;
        let seen: &mut Seen = &mut held;
        let plan = match &*seen {
            Some(tree) => plan(tree, text),
            None => Err("the repository was not looked at".to_owned()),
        };
        let (removed, written, undo) = match plan {
            Ok(plan) => plan,
            Err(reason) => return Ok(PatchApplied::Rejected(reason)),
        };
        let done = client::wait(async {
            let done = self.inside.change(seen, &removed, &written).await?;
            if done.is_err() {
                // Whole or not at all: what was there comes back.
                self.inside.look(seen).await?;
                let new: Vec<String> = written
                    .iter()
                    .filter(|(path, _)| undo.iter().all(|(old, _)| old != path))
                    .map(|(path, _)| path.clone())
                    .collect();
                if let Err(why) = self.inside.change(seen, &new, &undo).await? {
                    return Err(Trouble::Conflict(why));
                }
            }
            Ok(done)
        })?;
        Ok(
            match done.map_err(|trouble| self.inside.failure(trouble))? {
                Ok(()) => PatchApplied::Applied,
                Err(reason) => PatchApplied::Rejected(reason),
            },
        )
    }

    fn shell(&self, input: &ShellInput) -> Result<ShellObservation, Failure> {
        let _turn = guard(&self.turn);
        if self.inside.is_closed() {
            return Err(failure::gone(&input.sandbox));
        }
        let mut shell = guard(&self.shell);
        let running = match &mut *shell {
            Some(running) if !running.shell.is_dead() => running,
            other => {
                let started = self.start_shell();
                if self.inside.is_closed() {
                    return Err(failure::gone(&input.sandbox));
                }
                other.insert(started?)
            }
        };
        let observation = running.shell.run(&shell::Input::from(input));
        if self.inside.is_closed() {
            return Err(failure::gone(&input.sandbox));
        }
        Ok(observation)
    }

    fn close(&self) -> Result<SandboxUsage, Failure> {
        let inside = &self.inside;
        let is_first = !inside.closed.swap(true, Ordering::SeqCst);
        if !inside.removed.load(Ordering::SeqCst) {
            // When the engine is gone now, the next closing or the drop tries again.
            client::wait(async {
                if is_first {
                    inside.count_and_name().await;
                }
                inside.engine.remove(&inside.container).await
            })??;
            inside.removed.store(true, Ordering::SeqCst);
        }
        // A command that was under way sees it, and ends.
        let _turn = guard(&self.turn);
        *guard(&self.shell) = None;
        let used = self.inside.total();
        let mut limits = guard(&self.limits);
        for limit in limit::counted(&used) {
            if !limits.contains(&limit) {
                limits.push(limit);
            }
        }
        Ok(SandboxUsage {
            wall_ms: used.wall_ms,
            commands: self.commands.load(Ordering::Relaxed),
            cpu_us: used.cpu_us,
            peak_memory_bytes: Some(used.peak_memory_bytes),
            written_bytes: Some(used.written_bytes),
            processes_peak: Some(used.processes),
            limits: limits.clone(),
            scratch: match inside.as_is {
                true => Vec::new(),
                false => told(&guard(&self.scratch), &guard(&inside.elsewhere)),
            },
        })
    }
}

fn owned((path, entry): (&String, &Entry)) -> (String, Entry) {
    (path.clone(), entry.clone())
}

/// What a root commit holds of a repository. Pure.
fn items(tree: &Tree) -> impl Iterator<Item = (&str, Item<'_>)> {
    tree.nodes().filter_map(|(path, node)| match node {
        Node::File(entry, _) | Node::Large(Some(entry), _) => {
            Some((path, Item::File(&entry.bytes, entry.executable)))
        }
        Node::Link(target) => Some((path, Item::Link(target))),
        Node::Large(None, _) | Node::Directory | Node::Other => None,
    })
}

/// Adds a root commit to a repository. Pure.
fn put(tree: &mut Tree, commit: &RootCommit) {
    for path in commit.directories() {
        tree.put(path, Node::Directory);
    }
    for (path, bytes) in commit.files() {
        tree.put(path, file(Some(bytes.to_vec()), 0o644));
    }
}

impl Drop for DockerSandbox {
    fn drop(&mut self) {
        if let Err(failure) = self.close() {
            tracing::warn!(container = self.inside.container, %failure, "a container stays");
        }
    }
}
