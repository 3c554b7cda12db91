//! What is done inside a running container: files put in, commands run and ended, the
//! repository looked at. Everything here waits for the engine.

use super::client::{Engine, Trouble};
use super::container::AGENT;
use super::exec::{self, At, Order, Ran};
use super::image;
use super::limit;
use super::pack::pack;
use super::quiet::{self, Quiet, Usage};
use super::settings::Bounds;
use super::spared::Spared;
use super::sparse;
use super::tree::{Node, Tree};
use crate::failure;
use crate::tree::MAX_FILE;
use bollard::models::ContainerCreateBody;
use bollard::query_parameters::*;
use futures_util::StreamExt;
use gametape_schemas::message::{Exec, ExecOutcome};
use gametape_schemas::{Failure, SandboxId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A container that is open.
#[derive(Debug)]
pub(super) struct Inside {
    pub engine: Arc<Engine>,
    pub container: String,
    pub place: String,
    /// Who runs commands.
    pub user: String,
    /// An image is used as it is: the repository lies in it, nothing is put in.
    pub as_is: bool,
    /// Whose the files are that are put in, as the container says itself; the agent's
    /// where it has not.
    pub owner: OnceLock<(u64, u64)>,
    /// Files that were put in and are too large to be read back.
    pub large: BTreeMap<String, Node>,
    pub environment: Vec<(String, String)>,
    pub bounds: Bounds,
    pub opened: Instant,
    /// Nothing may be asked of it any more.
    pub closed: AtomicBool,
    /// The engine has removed it.
    pub removed: AtomicBool,
    pub usage: Mutex<Ledger>,
    /// A shell was started: its jobs may be at work at any time, so that a tree that was
    /// seen is not what is there.
    pub has_shell: AtomicBool,
    /// Files outside of the repository, named when it was closed.
    pub elsewhere: Mutex<Vec<String>>,
}

/// The tree as it was seen last; nothing once a command may have changed it.
pub(super) type Seen = Option<Tree>;

/// What was used before the container's last restart, and since.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub before: Usage,
    pub now: Usage,
}

/// Takes a lock.
pub(super) fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing is left half-done under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inside {
    /// Where commands run.
    pub(super) fn at(&self) -> At<'_> {
        At {
            engine: &self.engine,
            container: &self.container,
            user: &self.user,
        }
    }

    /// Makes the container, of which `body` is asked for until the engine takes it, and
    /// starts it.
    pub(super) async fn make(
        &self,
        bodies: impl IntoIterator<Item = ContainerCreateBody>,
        tree: &Tree,
    ) -> Result<(), Trouble> {
        let (engine, name) = (&self.engine, &self.container);
        let mut made = Err(Trouble::Refused("nothing to make".to_owned()));
        for body in bodies {
            let options = CreateContainerOptionsBuilder::default().name(name).build();
            let call = engine.docker.create_container(Some(options), body);
            made = engine.slow("create", call).await.map(|_| ());
            match &made {
                Err(Trouble::Refused(why)) if is_about_disks(why) => {
                    tracing::debug!(why, "the engine cannot limit the disk");
                }
                _ => break,
            }
        }
        made?;
        self.start(tree).await
    }

    /// Starts it, fills the repository, and shows that commands run.
    pub(super) async fn start(&self, tree: &Tree) -> Result<(), Trouble> {
        let (engine, name) = (&self.engine, &self.container);
        let options = None::<StartContainerOptions>;
        let call = engine.docker.start_container(name, options);
        engine.slow("start", call).await?;
        let place = self.place.replace('\'', r"'\''");
        let prepare = if self.as_is {
            format!("[ -d '{place}' ]")
        } else {
            self.put(tree.nodes()).await?;
            let home = crate::bubblewrap::HOME;
            format!("mkdir -p {home} && [ -w '{place}' ]")
        };
        let script = format!("{prepare} && echo ready $(id -u) $(id -g)");
        let ran = exec::script(self.at(), &script).await?;
        let said = ran.stdout.text();
        let Some(ids) = said.trim().strip_prefix("ready") else {
            let said = format!("{said} {}", ran.stderr.text());
            return Err(Trouble::Conflict(said.trim().chars().take(400).collect()));
        };
        let mut ids = ids.split_whitespace().map(str::parse::<u64>);
        if let (true, Some(Ok(uid)), Some(Ok(gid))) = (self.as_is, ids.next(), ids.next()) {
            self.owner.get_or_init(|| (uid, gid));
        }
        Ok(())
    }

    pub(super) async fn put<'a>(
        &self,
        nodes: impl Iterator<Item = (&'a str, &'a Node)>,
    ) -> Result<(), Trouble> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let agent = (u64::from(AGENT), u64::from(AGENT));
        let owner = self.owner.get().copied().unwrap_or(agent);
        let archive = pack(nodes, owner, now.map_or(0, |since| since.as_secs()));
        let archive = archive.map_err(|e| Trouble::Refused(e.to_string()))?;
        self.engine
            .upload(&self.container, &self.place, archive)
            .await
    }

    /// What is left of a tree that has to be written: more than this is sparse files.
    pub(super) fn most(&self) -> u64 {
        if self.as_is {
            return (self.bounds.image_mib << 20) / 8;
        }
        let space = self.bounds.repository;
        (space.mib << 20) * 2 + space.inodes * 4096
    }

    /// What of the repository is looked at: a history that is the image's own is not.
    fn wanted(&self) -> fn(&[u8]) -> bool {
        if self.as_is {
            image::is_no_history
        } else {
            |_| true
        }
    }

    /// The tree as it is at one moment, also while a shell's jobs are at work.
    pub(super) async fn tree_at_rest(&self) -> Result<Tree, Trouble> {
        let (engine, name) = (&self.engine, &self.container);
        let reading = engine.download(name, &self.place, MAX_FILE, self.most(), self.wanted());
        match self.at_rest(reading).await? {
            Some(tree) => Ok(tree),
            None => sparse::look(self.at(), &self.place, self.most()).await,
        }
    }

    /// Nothing inside moves while `work` is done.
    async fn at_rest<T>(
        &self,
        work: impl Future<Output = Result<T, Trouble>>,
    ) -> Result<T, Trouble> {
        let (engine, name) = (&self.engine, &self.container);
        engine
            .call("pause", engine.docker.pause_container(name))
            .await?;
        let done = work.await;
        engine
            .call("unpause", engine.docker.unpause_container(name))
            .await?;
        done
    }

    /// Looks at the repository, unless nothing can have changed since the last time.
    pub(super) async fn look(&self, seen: &mut Seen) -> Result<(), Trouble> {
        if self.has_shell.load(Ordering::SeqCst) {
            *seen = Some(self.tree_at_rest().await?);
        } else if seen.is_none() {
            *seen = Some(self.tree().await?);
        }
        Ok(())
    }

    pub(super) async fn tree(&self) -> Result<Tree, Trouble> {
        let (engine, name) = (&self.engine, &self.container);
        let found = engine
            .download(name, &self.place, MAX_FILE, self.most(), self.wanted())
            .await?;
        match found {
            Some(tree) => Ok(tree),
            None => sparse::look(self.at(), &self.place, self.most()).await,
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    pub(super) fn gone(&self) -> Failure {
        failure::gone(&SandboxId::new(self.container.clone()))
    }

    /// What trouble means to whoever asked.
    pub(super) fn failure(&self, trouble: Trouble) -> Failure {
        if self.is_closed() {
            return self.gone();
        }
        match trouble {
            Trouble::Missing(_) | Trouble::Conflict(_) => failure::died(),
            other => other.into(),
        }
    }

    /// Writes and removes what a plan says, and keeps what was seen in step. A refusal
    /// is the agent's doing: its file system is full, or a name is too long.
    pub(super) async fn change(
        &self,
        seen: &mut Seen,
        removed: &[String],
        written: &[(String, Node)],
    ) -> Result<Result<(), String>, Trouble> {
        let Some(mut tree) = seen.take() else {
            return Ok(Err("the repository was not looked at".to_owned()));
        };
        if let Err(refusal) = self.delete(removed).await? {
            return Ok(Err(refusal));
        }
        for path in removed {
            tree.remove(path);
        }
        let before: BTreeSet<String> = tree.nodes().map(|(path, _)| path.to_owned()).collect();
        for (path, node) in written {
            tree.put(path, node.clone());
        }
        let new = tree.nodes().filter(|(path, _)| {
            !before.contains(*path) || written.iter().any(|(name, _)| name == path)
        });
        let has_shell = self.has_shell.load(Ordering::SeqCst);
        let putting = async {
            if has_shell && let Err(refusal) = self.still_fit(written).await? {
                return Ok(Err(refusal));
            }
            self.put(new).await.map(Ok)
        };
        let done = if has_shell {
            self.at_rest(putting).await
        } else {
            putting.await
        };
        match done {
            Ok(Ok(())) => {
                *seen = Some(tree);
                Ok(Ok(()))
            }
            Ok(Err(refusal)) => Ok(Err(refusal)),
            Err(Trouble::Refused(why)) if is_agents(&why) => {
                let names: Vec<&str> = written.iter().map(|(path, _)| path.as_str()).collect();
                let reason = why
                    .rsplit(": ")
                    .next()
                    .unwrap_or_default()
                    .trim()
                    .to_owned();
                Ok(Err(format!("{reason}: {}", names.join(", "))))
            }
            Err(trouble) => Err(trouble),
        }
    }

    /// Whether files can be written as planned: the engine follows links, and a job of
    /// the shell's may have put one there since the plan was made.
    async fn still_fit(&self, written: &[(String, Node)]) -> Result<Result<(), String>, Trouble> {
        let found = self
            .engine
            .download(
                &self.container,
                &self.place,
                MAX_FILE,
                self.most(),
                self.wanted(),
            )
            .await?;
        let Some(tree) = found else {
            return Ok(Err("the repository holds too large files".to_owned()));
        };
        for (path, _) in written {
            match tree.plan_write(path, &[], None) {
                Ok((found, _)) if found == *path => {}
                Ok(_) => return Ok(Err(format!("has changed meanwhile: {path}"))),
                Err(refusal) => return Ok(Err(refusal)),
            }
        }
        Ok(Ok(()))
    }

    /// Removes files as the agent's user: the engine's archives cannot.
    pub(super) async fn delete(&self, paths: &[String]) -> Result<Result<(), String>, Trouble> {
        if paths.is_empty() {
            return Ok(Ok(()));
        }
        let mut argv: Vec<String> = ["rm", "-f", "--"].map(str::to_owned).to_vec();
        argv.extend(paths.iter().map(|path| format!("./{path}")));
        let order = Order {
            argv,
            env: Vec::new(),
            directory: &self.place,
            stdin: None,
            timeout: self.engine.settings.call,
            output_cap: 1000,
        };
        let ran = exec::run(self.at(), order).await?;
        Ok(match ran.code {
            Some(0) => Ok(()),
            _ => Err(format!("cannot be removed: {}", paths.join(", "))),
        })
    }

    pub(super) async fn run(
        &self,
        request: &Exec,
        seen: &mut Seen,
        spared: Option<&Spared>,
    ) -> Result<ExecOutcome, Trouble> {
        *seen = None;
        let mut env: Vec<String> = Vec::new();
        for (name, value) in self.environment.iter().chain(&request.env) {
            env.push(format!("{name}={value}"));
        }
        if exec::is_too_long(&request.argv, &env) {
            return Ok(too_long(&request.argv));
        }
        let order = Order {
            argv: request.argv.clone(),
            env,
            directory: &self.place,
            stdin: request.stdin.as_deref(),
            timeout: Duration::from_millis(request.timeout_ms),
            output_cap: request.output_cap,
        };
        let before = self.total();
        let ran = exec::command(self.at(), order, spared).await?;
        let unclear = ran.code.is_none_or(|code| code > 128);
        let mut usage = guard(&self.usage).now;
        let left = quiet::quiet(self.at(), unclear, spared, &mut usage).await;
        guard(&self.usage).now = usage;
        let note = match left? {
            Quiet::Yes(note) => {
                // Whoever hits a limit fails, as a rule; the rest is told at closing.
                if ran.code != Some(0) {
                    self.count().await;
                }
                note.unwrap_or_default()
            }
            Quiet::No => {
                *seen = Some(self.begin_again().await?);
                String::new()
            }
        };
        let note = note.trim();
        let limit = limit::struck(ran.code, note, &before, &self.total());
        Ok(ExecOutcome {
            limit,
            ..outcome(ran, note)
        })
    }

    /// Ends whatever is there, with the container where it has to be.
    pub(super) async fn clear(&self) -> Result<(), Trouble> {
        let mut usage = guard(&self.usage).now;
        let left = quiet::quiet(self.at(), true, None, &mut usage).await;
        guard(&self.usage).now = usage;
        if left? == Quiet::No {
            self.begin_again().await?;
        }
        Ok(())
    }

    /// What was used since it was opened, as far as it was counted.
    pub(super) fn total(&self) -> Usage {
        let ledger = guard(&self.usage);
        ledger.now.after(ledger.before)
    }

    /// Ends everything inside with the container itself, and starts it again with the
    /// same repository: for what kills faster than it is killed, or leaves no room for
    /// another process.
    pub(super) async fn begin_again(&self) -> Result<Tree, Trouble> {
        let (engine, name) = (&self.engine, &self.container);
        tracing::warn!(
            name,
            "a command cannot be ended: its container is restarted"
        );
        self.count().await;
        // As it is, an image keeps its files by itself.
        let mut tree = match self.as_is {
            true => Tree::default(),
            false => self.tree_at_rest().await?,
        };
        for (path, node) in &self.large {
            let is_large = |(name, found): (&str, &Node)| {
                name == path && matches!(found, Node::Large(None, _))
            };
            if tree.nodes().any(is_large) {
                tree.put(path, node.clone());
            }
        }
        let kill = KillContainerOptionsBuilder::default()
            .signal("KILL")
            .build();
        let killing = engine.docker.kill_container(name, Some(kill));
        engine.call("kill", killing).await?;
        let ended = engine
            .docker
            .wait_container(name, None::<WaitContainerOptions>);
        let ended = async { Ok(ended.collect::<Vec<_>>().await) };
        engine.slow("wait", ended).await?;
        {
            let mut usage = guard(&self.usage);
            // Its counters begin again with it.
            usage.before = usage.now.after(usage.before);
            usage.now = Usage::default();
        }
        self.start(&tree).await?;
        match self.as_is {
            true => self.tree().await,
            false => Ok(tree),
        }
    }

    /// Looks at the counters. What cannot be had is not counted: it is no reason to fail.
    pub(super) async fn count(&self) {
        let script = quiet::counters(&self.place);
        match exec::script(self.at(), &script).await {
            Ok(said) => guard(&self.usage).now.read(&said.stdout.text()),
            Err(trouble) => tracing::debug!(?trouble, "a container's counters cannot be read"),
        }
        guard(&self.usage).now.wall_ms = self.opened.elapsed().as_millis() as u64;
    }

    /// The same before it is closed, with the names of files outside of the repository.
    pub(super) async fn count_and_name(&self) {
        let script = quiet::counters_and_names(&self.place);
        match exec::script(self.at(), &script).await {
            Ok(said) => {
                let text = said.stdout.text();
                let (counters, names) = quiet::names_apart(&text);
                guard(&self.usage).now.read(counters);
                *guard(&self.elsewhere) = names;
            }
            Err(trouble) => tracing::debug!(?trouble, "a container's counters cannot be read"),
        }
        guard(&self.usage).now.wall_ms = self.opened.elapsed().as_millis() as u64;
    }
}

/// Whether the engine says that it cannot limit what a container writes.
fn is_about_disks(why: &str) -> bool {
    why.contains("storage-opt") || why.contains("storage opt")
}

/// Whether a refusal of the engine's is the agent's own doing.
fn is_agents(why: &str) -> bool {
    [
        "no space left",
        "file name too long",
        "not a directory",
        "is a directory",
    ]
    .iter()
    .any(|words| why.contains(words))
}

/// What the room answers. `note` says what an exit code beyond 128 was: the shell around
/// the command knows. Without one the shell itself was killed. Pure.
fn outcome(ran: Ran, note: &str) -> ExecOutcome {
    let exit_code = ran.code.and_then(|code| i32::try_from(code).ok());
    ExecOutcome {
        exit_code: exit_code.filter(|code| *code <= 128 || note == exec::EXIT),
        timed_out: ran.code.is_none(),
        truncated_bytes: ran.stdout.dropped() + ran.stderr.dropped(),
        stdout: ran.stdout.text(),
        stderr: ran.stderr.text(),
        wall_ms: ran.wall.as_millis() as u64,
        limit: None,
    }
}

/// The answer to words that no kernel takes, as shells have it. Pure.
fn too_long(argv: &[String]) -> ExecOutcome {
    let name = argv
        .first()
        .map_or("", |word| word.get(..80).unwrap_or(word));
    let why = std::io::Error::from_raw_os_error(libc::E2BIG);
    ExecOutcome {
        exit_code: Some(126),
        timed_out: false,
        stdout: String::new(),
        stderr: format!("{name}: {why}\n"),
        truncated_bytes: 0,
        wall_ms: 0,
        limit: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Capture;

    fn ran(code: Option<i64>) -> Ran {
        Ran {
            code,
            stdout: Capture::default(),
            stderr: Capture::default(),
            wall: Duration::from_millis(3),
        }
    }

    #[test]
    fn signals_are_told_from_codes() {
        let code = |code, note| outcome(ran(code), note).exit_code;
        assert_eq!(code(Some(3), ""), Some(3));
        assert_eq!(code(Some(137), "exit"), Some(137));
        assert_eq!(code(Some(137), "Killed"), None);
        assert_eq!(code(Some(137), ""), None, "the shell itself was killed");
        assert!(outcome(ran(None), "").timed_out);
    }
}
