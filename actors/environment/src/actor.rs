//! The actor in front of environments and sandboxes. It never blocks its arbiter: what
//! touches the disk or the network runs on blocking threads.

use crate::local::{self, Limits, OpenPlan, Sandbox};
use crate::provision::{self, Prepared};
use crate::{files, probe};
use actix::prelude::*;
use gametape_schemas::message::*;
use gametape_schemas::{EnvironmentId, Failure, FailureKind, SandboxId};
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tokio::sync::Semaphore;

/// How the room is set up.
#[derive(Clone, Debug)]
pub struct EnvironmentOptions {
    /// The user's cache: packages and environments.
    pub cache: PathBuf,
    /// Where sandboxes' private directories go.
    pub scratch: PathBuf,
    /// The helper program (`gametape-sandbox`).
    pub helper: PathBuf,
    /// Commands at work at once.
    pub parallel: usize,
    /// Limits of every command.
    pub limits: Limits,
}

impl EnvironmentOptions {
    /// The usual places: sandboxes below the system's temporary directory, the helper
    /// beside the running program.
    ///
    /// # Errors
    /// `GT-SANDBOX-HELPER` when the helper is not there.
    pub fn usual(cache: PathBuf, parallel: usize) -> Result<Self, Failure> {
        let beside = std::env::current_exe()
            .ok()
            .and_then(|exe| exe.parent().map(Path::to_owned));
        // Test binaries lie one directory deeper than programs.
        let helper = beside.as_deref().and_then(|dir| {
            [dir.join("gametape-sandbox"), dir.join("../gametape-sandbox")]
                .into_iter()
                .find(|path| path.is_file())
        });
        let helper = helper.and_then(|path| path.canonicalize().ok()).ok_or_else(|| {
            Failure::new(
                FailureKind::Sandbox,
                "GT-SANDBOX-HELPER",
                "the program `gametape-sandbox` is not beside `gametape`",
            )
            .with_help("build the whole workspace (`cargo build`), or install both programs together")
        })?;
        let uid = nix::unistd::geteuid();
        Ok(Self {
            cache,
            scratch: std::env::temp_dir().join(format!("gametape-sandboxes-{uid}")),
            helper,
            parallel: parallel.max(1),
            limits: Limits::default(),
        })
    }
}

/// Sandboxes opened by this process: a restarted room must not reuse a name.
static OPENED: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

struct Inner {
    options: EnvironmentOptions,
    environments: Mutex<HashMap<EnvironmentId, Prepared>>,
    sandboxes: Mutex<HashMap<SandboxId, Arc<Sandbox>>>,
    work: Semaphore,
    ready: OnceLock<Result<(), Failure>>,
}

/// Serves everything in `gametape_schemas::message` under "environment".
pub struct EnvironmentActor {
    inner: Arc<Inner>,
}

impl EnvironmentActor {
    /// A room without sandboxes yet; removes what dead processes left behind.
    pub fn new(options: EnvironmentOptions) -> Self {
        sweep(&options.scratch);
        let parallel = options.parallel;
        Self {
            inner: Arc::new(Inner {
                options,
                environments: Mutex::default(),
                sandboxes: Mutex::default(),
                work: Semaphore::new(parallel),
                ready: OnceLock::new(),
            }),
        }
    }
}

impl Actor for EnvironmentActor {
    type Context = Context<Self>;
    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(256);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        for sandbox in guard(&self.sandboxes).values() {
            // The next start sweeps what cannot be removed now.
            let _ = sandbox.remove();
        }
    }
}

fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Only plain inserts and removes happen under these locks: nothing half-done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn gone(sandbox: &SandboxId) -> Failure {
    Failure::new(
        FailureKind::Sandbox,
        "GT-SANDBOX-GONE",
        format!("the sandbox {sandbox} is not open"),
    )
}

fn trouble(error: &io::Error) -> Failure {
    let kind = if error.raw_os_error() == Some(libc::ENOSPC) {
        FailureKind::Disk
    } else {
        FailureKind::Sandbox
    };
    Failure::new(kind, "GT-SANDBOX-IO", format!("a sandbox's files: {error}"))
        .with_help("check the space and the permissions of the temporary directory (TMPDIR)")
}

impl Inner {
    fn sandbox(&self, id: &SandboxId) -> Result<Arc<Sandbox>, Failure> {
        guard(&self.sandboxes).get(id).cloned().ok_or_else(|| gone(id))
    }

    fn open(&self, message: &OpenSandbox) -> Result<SandboxId, Failure> {
        self.ready
            .get_or_init(|| probe::require(&probe::probe()))
            .clone()?;
        let prepared = guard(&self.environments)
            .get(&message.environment)
            .cloned()
            .ok_or_else(|| {
                Failure::new(
                    FailureKind::Internal,
                    "GT-ENV-UNKNOWN",
                    format!("the environment {} was not provisioned", message.environment),
                )
            })?;
        let n = OPENED.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let private = self
            .options
            .scratch
            .join(format!("{}-{}-{n}", std::process::id(), own_start()));
        let opened = Sandbox::open(OpenPlan {
            prepared,
            private: private.clone(),
            helper: self.options.helper.clone(),
            number: n,
            limits: self.options.limits.clone(),
            patches: &message.patches,
            hidden: &message.hidden_paths,
        });
        match opened {
            Ok(sandbox) => {
                let id = SandboxId::new(format!("local-{n}"));
                guard(&self.sandboxes).insert(id.clone(), Arc::new(sandbox));
                Ok(id)
            }
            Err(failure) => {
                // What is left of it goes with the next start's sweep at the latest.
                let _ = local::remove(&private);
                Err(failure)
            }
        }
    }

    fn close(&self, id: &SandboxId) -> Result<(), Failure> {
        let Some(sandbox) = guard(&self.sandboxes).remove(id) else {
            return Ok(());
        };
        sandbox.remove().map_err(|e| trouble(&e))
    }
}

/// Runs blocking work away from the arbiter.
fn blocking<T: Send + 'static>(
    inner: &Arc<Inner>,
    work: impl FnOnce(&Inner) -> Result<T, Failure> + Send + 'static,
) -> ResponseFuture<Result<T, Failure>> {
    let inner = inner.clone();
    Box::pin(async move {
        tokio::task::spawn_blocking(move || work(&inner))
            .await
            .unwrap_or_else(|error| {
                Err(Failure::new(
                    FailureKind::Sandbox,
                    "GT-SANDBOX-IO",
                    format!("work on a sandbox did not end: {error}"),
                ))
            })
    })
}

impl Handler<Provision> for EnvironmentActor {
    type Result = ResponseFuture<Result<Provisioned, Failure>>;
    fn handle(&mut self, message: Provision, _: &mut Self::Context) -> Self::Result {
        blocking(&self.inner, move |inner| {
            let (prepared, cached) = provision::provision(&inner.options.cache, &message.recipe)?;
            let answer = prepared.answer(cached);
            guard(&inner.environments).insert(answer.environment.clone(), prepared);
            Ok(answer)
        })
    }
}

impl Handler<OpenSandbox> for EnvironmentActor {
    type Result = ResponseFuture<Result<SandboxId, Failure>>;
    fn handle(&mut self, message: OpenSandbox, _: &mut Self::Context) -> Self::Result {
        blocking(&self.inner, move |inner| inner.open(&message))
    }
}

impl Handler<Exec> for EnvironmentActor {
    type Result = ResponseFuture<Result<ExecOutcome, Failure>>;
    fn handle(&mut self, message: Exec, _: &mut Self::Context) -> Self::Result {
        let inner = self.inner.clone();
        Box::pin(async move {
            let sandbox = inner.sandbox(&message.sandbox)?;
            // The semaphore lives as long as the room: it is never closed.
            let _permit = inner.work.acquire().await;
            sandbox.exec(&message).await
        })
    }
}

impl Handler<ReadFile> for EnvironmentActor {
    type Result = ResponseFuture<Result<FileRead, Failure>>;
    fn handle(&mut self, message: ReadFile, _: &mut Self::Context) -> Self::Result {
        blocking(&self.inner, move |inner| {
            let sandbox = inner.sandbox(&message.sandbox)?;
            files::read(&sandbox.repository(), &message.path).map_err(|e| trouble(&e))
        })
    }
}

impl Handler<WriteFile> for EnvironmentActor {
    type Result = ResponseFuture<Result<FileWritten, Failure>>;
    fn handle(&mut self, message: WriteFile, _: &mut Self::Context) -> Self::Result {
        blocking(&self.inner, move |inner| {
            let sandbox = inner.sandbox(&message.sandbox)?;
            files::write(
                &sandbox.repository(),
                &message.path,
                &message.content,
                sandbox.owner(),
            )
            .map_err(|e| trouble(&e))
        })
    }
}

impl Handler<DiffSandbox> for EnvironmentActor {
    type Result = ResponseFuture<Result<String, Failure>>;
    fn handle(&mut self, message: DiffSandbox, _: &mut Self::Context) -> Self::Result {
        blocking(&self.inner, move |inner| {
            inner.sandbox(&message.sandbox)?.diff().map_err(|e| trouble(&e))
        })
    }
}

impl Handler<ApplyPatch> for EnvironmentActor {
    type Result = ResponseFuture<Result<PatchApplied, Failure>>;
    fn handle(&mut self, message: ApplyPatch, _: &mut Self::Context) -> Self::Result {
        blocking(&self.inner, move |inner| {
            inner
                .sandbox(&message.sandbox)?
                .apply(&message.patch)
                .map_err(|e| trouble(&e))
        })
    }
}

impl Handler<CloseSandbox> for EnvironmentActor {
    type Result = ResponseFuture<Result<(), Failure>>;
    fn handle(&mut self, message: CloseSandbox, _: &mut Self::Context) -> Self::Result {
        blocking(&self.inner, move |inner| inner.close(&message.sandbox))
    }
}

/// Start time of a process in clock ticks since boot: with the pid it names a process
/// for good.
fn start_of(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold spaces; field 22 is the 20th after it.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

fn own_start() -> u64 {
    start_of(std::process::id()).unwrap_or(0)
}

/// Removes private directories whose process is gone (kill -9, power cut).
fn sweep(scratch: &Path) {
    let Ok(entries) = std::fs::read_dir(scratch) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let mut parts = name.to_str().unwrap_or_default().split('-');
        let pid = parts.next().and_then(|p| p.parse::<u32>().ok());
        let start = parts.next().and_then(|s| s.parse::<u64>().ok());
        if let (Some(pid), Some(start)) = (pid, start)
            && start_of(pid) != Some(start)
            && let Err(error) = local::remove(&entry.path())
        {
            tracing::warn!(path = %entry.path().display(), %error, "a leftover sandbox stays");
        }
    }
}
