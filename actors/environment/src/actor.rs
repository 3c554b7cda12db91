//! The actor in front of environments and sandboxes. It never blocks its arbiter: what
//! touches the disk, the network or a process runs on blocking threads.

use crate::bubblewrap::Host;
use crate::cgroup::{self, Groups, Pool};
use crate::docker::{
    self, Bounds, DockerPlan, DockerSandbox, Engine, EngineSettings, Image, image,
};
use crate::ground::Layers;
use crate::local::{LocalSandbox, OpenPlan};
use crate::private::Owned;
use crate::protocol::Limits;
use crate::provision::{self, Prepared};
use crate::root_commit::RootCommits;
use crate::sandbox::Sandbox;
use crate::tree::Entry;
use crate::{failure, patch, probe};
use actix::prelude::*;
use gametape_schemas::message::*;
use gametape_schemas::{
    EnvironmentId, EnvironmentRecipe, Failure, RepositorySource, SandboxId, SandboxUsage,
};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Semaphore;

/// How the room is set up.
#[derive(Clone, Debug)]
pub struct EnvironmentOptions {
    /// The user's cache: packages and environments.
    pub cache: PathBuf,
    /// Environments that may be opened without a `Provision` to this very actor: the
    /// ones of the run that is resumed.
    pub known: Vec<EnvironmentRecipe>,
    /// Where sandboxes' private directories go; this user's alone.
    pub scratch: PathBuf,
    /// The helper program (`gametape-sandbox`).
    pub helper: PathBuf,
    /// Commands at work at once.
    pub parallel: usize,
    /// Limits of every command.
    pub limits: Limits,
    /// What sandboxes are.
    pub backend: Backend,
    /// Bytes that prepared environments may take in the cache; those used longest ago go
    /// first. None: no limit.
    pub environments: Option<u64>,
}

/// A back end of sandboxes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backend {
    /// bubblewrap on this machine: no daemon, no images.
    #[default]
    Local,
    /// Containers of a Docker Engine.
    Docker,
}

impl EnvironmentOptions {
    /// The usual places: sandboxes below the cache, the helper beside the running
    /// program (or one directory up, where test programs lie).
    ///
    /// # Errors
    /// `GT-SANDBOX-HELPER` when the helper is not there.
    pub fn usual(cache: PathBuf, parallel: usize) -> Result<Self, Failure> {
        let helper = std::env::current_exe()
            .ok()
            .and_then(|exe| helper_beside(&exe))
            .ok_or_else(failure::helper)?;
        Ok(Self {
            scratch: cache.join("sandboxes"),
            cache,
            known: Vec::new(),
            helper,
            parallel: parallel.max(1),
            limits: Limits::default(),
            backend: Backend::default(),
            environments: None,
        })
    }
}

/// The helper program that belongs to the program `exe`.
pub fn helper_beside(exe: &Path) -> Option<PathBuf> {
    let directory = exe.parent()?;
    [
        directory.join("gametape-sandbox"),
        directory.join("../gametape-sandbox"),
    ]
    .into_iter()
    .find(|path| path.is_file())
    .and_then(|path| path.canonicalize().ok())
}

/// Sandboxes opened by this process: a restarted room must not reuse a name.
static OPENED: AtomicU64 = AtomicU64::new(0);

struct Inner {
    options: EnvironmentOptions,
    environments: Mutex<HashMap<EnvironmentId, Known>>,
    commits: RootCommits,
    sandboxes: Mutex<HashMap<SandboxId, Arc<dyn Sandbox>>>,
    work: Semaphore,
    /// Made at the first opening; a failure is asked for again at the next one.
    ready: Mutex<Option<Arc<Ready>>>,
}

/// An environment that sandboxes can be opened on.
#[derive(Clone)]
enum Known {
    Prepared(Arc<Prepared>),
    /// In the engine, looked at once.
    Image(Arc<Image>),
}

/// What opening needs of this machine.
enum Ready {
    Local {
        host: Arc<Host>,
        directory: Owned,
        groups: Option<Arc<Pool>>,
    },
    Docker {
        engine: Arc<Engine>,
        images: Mutex<HashMap<EnvironmentId, Arc<Image>>>,
    },
}

impl Ready {
    fn local(scratch: &Path) -> Result<Self, Failure> {
        let host = Arc::new(probe::host()?);
        let (directory, removed) = Owned::new(scratch).map_err(|e| failure::open(scratch, &e))?;
        let groups = Groups::detect();
        let swept = groups.sweep();
        if removed + swept > 0 {
            tracing::info!(
                removed,
                swept,
                "removed what dead processes left of their sandboxes"
            );
        }
        let has_any = groups.keeps_memory() || groups.keeps_processes();
        Ok(Self::Local {
            host,
            directory,
            groups: has_any.then(|| Arc::new(groups.pool(&cgroup::owner()))),
        })
    }

    fn docker() -> Result<Self, Failure> {
        let engine = Engine::connect(EngineSettings::default())?;
        let reaped = docker::reap(&engine)?;
        if reaped != docker::Reaped::default() {
            tracing::info!(?reaped, "removed what dead processes left in the engine");
        }
        Ok(Self::Docker {
            engine,
            images: Mutex::default(),
        })
    }
}

/// Serves everything in `gametape_schemas::message` under "environment".
pub struct EnvironmentActor {
    inner: Arc<Inner>,
}

impl EnvironmentActor {
    /// A room without sandboxes yet. Touches nothing: layers are tried, and what dead
    /// processes left behind is removed, before the first sandbox is opened.
    pub fn new(options: EnvironmentOptions) -> Self {
        let work = Semaphore::new(options.parallel.max(1));
        Self {
            inner: Arc::new(Inner {
                options,
                environments: Mutex::default(),
                commits: RootCommits::default(),
                sandboxes: Mutex::default(),
                work,
                ready: Mutex::default(),
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

impl Drop for EnvironmentActor {
    fn drop(&mut self) {
        let sandboxes: Vec<_> = guard(&self.inner.sandboxes).drain().collect();
        for (id, sandbox) in sandboxes {
            if let Err(failure) = sandbox.close() {
                // The next start sweeps what cannot be removed now.
                tracing::warn!(%id, %failure, "a sandbox's directory stays");
            }
        }
    }
}

fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Only plain inserts and removes happen under these locks: nothing half-done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    fn sandbox(&self, id: &SandboxId) -> Result<Arc<dyn Sandbox>, Failure> {
        let found = guard(&self.sandboxes).get(id).cloned();
        found.ok_or_else(|| failure::gone(id))
    }

    fn ready(&self) -> Result<Arc<Ready>, Failure> {
        let mut ready = guard(&self.ready);
        if let Some(ready) = &*ready {
            return Ok(ready.clone());
        }
        let made = Arc::new(match self.options.backend {
            Backend::Local => Ready::local(&self.options.scratch)?,
            Backend::Docker => Ready::docker()?,
        });
        *ready = Some(made.clone());
        Ok(made)
    }

    fn provision(&self, message: &Provision) -> Result<Provisioned, Failure> {
        if let Some(RepositorySource::Image { .. }) = &message.recipe.source {
            let environment = message.recipe.id();
            let known = guard(&self.environments).get(&environment).cloned();
            let cached = known.is_some();
            let image = match known {
                Some(Known::Image(image)) => image,
                _ => self.image(&message.recipe)?,
            };
            return Ok(Provisioned {
                environment,
                // On no disk of ours.
                repository: PathBuf::new(),
                tree: image.clean.clone(),
                python: image.python.clone().unwrap_or_default(),
                cached,
            });
        }
        let (prepared, cached) = provision::provision(&self.options.cache, &message.recipe)?;
        let answer = prepared.answer(cached);
        let known = Known::Prepared(Arc::new(prepared));
        guard(&self.environments).insert(answer.environment.clone(), known);
        if !cached {
            self.collect();
        }
        Ok(answer)
    }

    /// Makes room for what was just prepared. That it cannot is no reason to fail.
    fn collect(&self) {
        let Some(budget) = self.options.environments else {
            return;
        };
        let known = self.options.known.iter().map(EnvironmentRecipe::id);
        let mut in_use: HashSet<EnvironmentId> = known.collect();
        in_use.extend(guard(&self.environments).keys().cloned());
        match provision::collect(&self.options.cache, budget, &in_use) {
            Ok(collected) if !collected.removed.is_empty() => {
                tracing::info!(
                    ?collected,
                    "environments that were not used for long are removed"
                );
            }
            Ok(_) => {}
            Err(failure) => tracing::warn!(%failure, "environments are not collected"),
        }
    }

    /// The environment, taken up again from the disk when another process (or an actor
    /// that died) provisioned it.
    fn known(&self, id: &EnvironmentId) -> Result<Known, Failure> {
        if let Some(known) = guard(&self.environments).get(id).cloned() {
            return Ok(known);
        }
        let known = self.options.known.iter().find(|recipe| recipe.id() == *id);
        let recipe = known.ok_or_else(|| failure::unknown(id))?;
        if let Some(RepositorySource::Image { .. }) = &recipe.source {
            return self.image(recipe).map(Known::Image);
        }
        let (prepared, _) = provision::provision(&self.options.cache, recipe)?;
        let known = Known::Prepared(Arc::new(prepared));
        guard(&self.environments).insert(id.clone(), known.clone());
        Ok(known)
    }

    /// The image of a recipe. What its reference means is asked once: a tag may move in
    /// the life of a room.
    fn image(&self, recipe: &EnvironmentRecipe) -> Result<Arc<Image>, Failure> {
        let (reference, directory) = provision::image_of(recipe)?;
        if self.options.backend == Backend::Local {
            return Err(failure::needs_docker(reference));
        }
        let ready = self.ready()?;
        let Ready::Docker { engine, .. } = &*ready else {
            return Err(failure::needs_docker(reference));
        };
        let image = Arc::new(image::own(engine, reference, directory)?);
        provision::check_image(recipe, &image.files)?;
        let mut environments = guard(&self.environments);
        // Whoever was first decides.
        let known = environments
            .entry(recipe.id())
            .or_insert_with(|| Known::Image(image.clone()));
        Ok(match known {
            Known::Image(first) => first.clone(),
            Known::Prepared(_) => image,
        })
    }

    fn open(&self, message: &OpenSandbox) -> Result<SandboxId, Failure> {
        let ready = self.ready()?;
        let known = self.known(&message.environment)?;
        let number = OPENED.fetch_add(1, Ordering::Relaxed);
        let (name, sandbox): (_, Arc<dyn Sandbox>) = match &*ready {
            Ready::Local {
                host,
                directory,
                groups,
            } => {
                let Known::Prepared(prepared) = known else {
                    return Err(failure::needs_docker("of the recipe"));
                };
                let sandbox = LocalSandbox::open(OpenPlan {
                    host: host.clone(),
                    prepared,
                    private: directory.place(number),
                    helper: self.options.helper.clone(),
                    number,
                    label: message.label.clone(),
                    limits: self.options.limits.clone(),
                    groups: groups.clone(),
                    patches: &message.patches,
                    hidden: &message.hidden_paths,
                    history: message.history,
                    commits: &self.commits,
                    layers: Layers::default(),
                })?;
                ("local", Arc::new(sandbox))
            }
            Ready::Docker { engine, images } => {
                let image = match known {
                    Known::Image(image) => image,
                    Known::Prepared(prepared) => {
                        // One at a time: the others find it made.
                        let mut images = guard(images);
                        match images.get(&message.environment) {
                            Some(image) => image.clone(),
                            None => {
                                let image = Arc::new(image::prepared(engine, &prepared)?);
                                images.insert(message.environment.clone(), image.clone());
                                image
                            }
                        }
                    }
                };
                let sandbox = DockerSandbox::open(DockerPlan {
                    engine: engine.clone(),
                    image: &image,
                    number,
                    run: String::new(),
                    label: message.label.clone(),
                    bounds: Bounds::default(),
                    patches: &message.patches,
                    hidden: &message.hidden_paths,
                    history: message.history,
                    commits: &self.commits,
                    intent: &|container| tracing::info!(container, "a container is made"),
                })?;
                ("docker", Arc::new(sandbox))
            }
        };
        let id = SandboxId::new(format!("{name}-{number}"));
        guard(&self.sandboxes).insert(id.clone(), sandbox);
        Ok(id)
    }

    fn close(&self, id: &SandboxId) -> Result<SandboxUsage, Failure> {
        let sandbox = guard(&self.sandboxes).remove(id);
        sandbox.map_or_else(|| Ok(SandboxUsage::default()), |sandbox| sandbox.close())
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
            .unwrap_or_else(|error| Err(failure::unfinished(error)))
    })
}

impl Handler<Provision> for EnvironmentActor {
    type Result = ResponseFuture<Result<Provisioned, Failure>>;
    fn handle(&mut self, message: Provision, _: &mut Self::Context) -> Self::Result {
        blocking(&self.inner, move |inner| inner.provision(&message))
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
            tokio::task::spawn_blocking(move || sandbox.exec(&message))
                .await
                .unwrap_or_else(|error| Err(failure::unfinished(error)))
        })
    }
}

impl Handler<ShellInput> for EnvironmentActor {
    type Result = ResponseFuture<Result<ShellObservation, Failure>>;
    fn handle(&mut self, message: ShellInput, _: &mut Self::Context) -> Self::Result {
        blocking(&self.inner, move |inner| {
            inner.sandbox(&message.sandbox)?.shell(&message)
        })
    }
}

impl Handler<ReadFile> for EnvironmentActor {
    type Result = ResponseFuture<Result<FileRead, Failure>>;
    fn handle(&mut self, message: ReadFile, _: &mut Self::Context) -> Self::Result {
        blocking(&self.inner, move |inner| {
            inner.sandbox(&message.sandbox)?.read(&message.path)
        })
    }
}

impl Handler<WriteFile> for EnvironmentActor {
    type Result = ResponseFuture<Result<FileWritten, Failure>>;
    fn handle(&mut self, message: WriteFile, _: &mut Self::Context) -> Self::Result {
        blocking(&self.inner, move |inner| {
            inner
                .sandbox(&message.sandbox)?
                .write(&message.path, &message.content)
        })
    }
}

impl Handler<DiffSandbox> for EnvironmentActor {
    type Result = ResponseFuture<Result<String, Failure>>;
    fn handle(&mut self, message: DiffSandbox, _: &mut Self::Context) -> Self::Result {
        blocking(&self.inner, move |inner| {
            inner.sandbox(&message.sandbox)?.diff()
        })
    }
}

impl Handler<ApplyPatch> for EnvironmentActor {
    type Result = ResponseFuture<Result<PatchApplied, Failure>>;
    fn handle(&mut self, message: ApplyPatch, _: &mut Self::Context) -> Self::Result {
        blocking(&self.inner, move |inner| {
            let sandbox = inner.sandbox(&message.sandbox)?;
            match sandbox.apply(&message.patch)? {
                PatchApplied::Rejected(why) => fit(&*sandbox, &message, why),
                done => Ok(done),
            }
        })
    }
}

/// What comes after a diff that did not fit exactly: taken by a step that demands less
/// where that is asked for, only named else.
fn fit(sandbox: &dyn Sandbox, message: &ApplyPatch, why: String) -> Result<PatchApplied, Failure> {
    let mut trouble = None;
    let found = patch::fitted(&message.patch, |path| match sandbox.read(path) {
        Ok(FileRead::Text(text)) => Ok(Some(Entry::plain(text.as_bytes()))),
        // Whatever is there and no text is refused again when it is written.
        Ok(FileRead::Refused(_)) => Ok(None),
        Err(failure) => {
            trouble = Some(failure);
            Ok(None)
        }
    });
    if let Some(failure) = trouble {
        return Err(failure);
    }
    let Ok(found) = found else {
        return Ok(PatchApplied::Rejected(why));
    };
    if message.fit == Fit::Exact {
        let step = found.step;
        return Ok(PatchApplied::Rejected(format!(
            "{why} (the official harness would take it: {step})"
        )));
    }
    match sandbox.apply(&found.exact)? {
        PatchApplied::Applied => Ok(PatchApplied::Fitted(found.step)),
        _ => Ok(PatchApplied::Rejected(why)),
    }
}

impl Handler<CloseSandbox> for EnvironmentActor {
    type Result = ResponseFuture<Result<SandboxUsage, Failure>>;
    fn handle(&mut self, message: CloseSandbox, _: &mut Self::Context) -> Self::Result {
        blocking(&self.inner, move |inner| inner.close(&message.sandbox))
    }
}
