//! From a recipe to a prepared directory, once per machine, with the network on.
//!
//! `<cache>/environments/<id12>-py<version>-<where>/` holds `repository/` (the source
//! archive's tree, read-only), `tree/` (the same as sandboxes see it), `venv/` (the test
//! runner and its dependencies) and `manifest.json`. It is built beside its place and renamed into it: it is there whole
//! or not at all. Beside it are the log of every step, `….log`, the time of its last use,
//! `….used`, and of a recipe that cannot be installed the failure, `….failed`.
//!
//! - [`python`]: which interpreter, and where its parts are
//! - [`source`]: where the repository comes from
//! - [`fetch`]: the source archive, by hash, through pip, without running its build
//! - [`git`]: one commit of a repository, without what came before it
//! - [`venv`]: packages beside it, made fit for another path
//! - [`setup`]: a recipe's own commands, behind walls of their own
//! - [`history`]: what a repository may not carry
//! - `refused`: recipes that cannot be installed are not tried over and over
//! - [`mod@collect`]: a budget of disk, and who uses what

pub mod collect;
pub mod fetch;
pub mod git;
pub mod history;
pub mod python;
mod refused;
pub mod setup;
pub mod source;
pub mod venv;

pub use collect::{Collected, collect};
pub use source::{check_image, image_of};

use crate::private::lock;
use crate::tree::{self, Snapshot};
use crate::{diff, failure};
use collect::Lease;
use gametape_schemas::message::Provisioned;
use gametape_schemas::{Digest, EnvironmentRecipe, Failure, RepositorySource};
use nix::fcntl::FlockArg;
use python::Interpreter;
use refused::Refused;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Raised when what is in the directory changes: older ones are made again.
const LAYOUT: u32 = 3;

/// What `manifest.json` says.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// Shape of the directory.
    pub layout: u32,
    /// The recipe, whole.
    pub recipe: EnvironmentRecipe,
    /// Digest of `repository/`.
    pub tree: Digest,
    /// The interpreter.
    pub interpreter: Interpreter,
}

/// A prepared environment on this machine.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// Its directory.
    pub directory: PathBuf,
    /// What it is.
    pub manifest: Manifest,
    /// The clean repository, read once.
    pub files: Snapshot,
    /// Nobody collects it while this lives.
    _lease: Option<Arc<Lease>>,
}

impl Prepared {
    /// An environment in a directory that holds `tree/` and `venv/` already, made by other
    /// means (benchmarks, trees of a user's own). Nobody collects it.
    pub fn by_hand(directory: PathBuf, manifest: Manifest, files: Snapshot) -> Self {
        Self {
            directory,
            manifest,
            files,
            _lease: None,
        }
    }

    /// The clean repository.
    pub fn repository(&self) -> PathBuf {
        self.directory.join("repository")
    }

    /// The clean repository as sandboxes see it: only what is under test, writable.
    pub fn tree(&self) -> PathBuf {
        self.directory.join("tree")
    }

    /// The packages.
    pub fn venv(&self) -> PathBuf {
        self.directory.join("venv")
    }

    /// The answer to `Provision`.
    pub fn answer(&self, cached: bool) -> Provisioned {
        Provisioned {
            environment: self.manifest.recipe.id(),
            repository: self.repository(),
            tree: self.manifest.tree.clone(),
            python: self.manifest.interpreter.version.clone(),
            cached,
        }
    }
}

/// One provisioning in the works.
pub(crate) struct Job<'a> {
    recipe: &'a EnvironmentRecipe,
    interpreter: &'a Interpreter,
    cache: &'a Path,
    /// Where it is built.
    half: PathBuf,
    log: PathBuf,
}

impl Job<'_> {
    fn package(&self) -> String {
        format!(
            "{} {}",
            self.recipe.package.name, self.recipe.package.version
        )
    }

    fn failure(&self, why: impl std::fmt::Display) -> Failure {
        failure::provision(&self.package(), why)
    }
}

/// Finds or makes the environment of a recipe, and marks it as used now. Blocks: the
/// network, pip, the disk. True when it was there already.
///
/// # Errors
/// `GT-ENV-*`, with the end of the log. A recipe that cannot be installed fails at once
/// the next time; the failure says how to try again.
pub fn provision(cache: &Path, recipe: &EnvironmentRecipe) -> Result<(Prepared, bool), Failure> {
    if let Some(RepositorySource::Image { reference, .. }) = &recipe.source {
        return Err(failure::needs_docker(reference));
    }
    let interpreter = python::fitting(recipe.python.as_deref())?;
    let environments = cache.join("environments");
    let io = |e: std::io::Error| failure::disk(&environments, &e);
    let name = name(recipe, &interpreter);
    let place = environments.join(&name);
    // Not there yet, or not to be written: then it cannot be collected, either.
    let made = std::fs::create_dir_all(&environments);
    let lease = Lease::take(&environments, &name).map(Arc::new);
    let existing = || existing(&place, recipe, &interpreter, lease.as_ref());
    if let Some(prepared) = existing() {
        return Ok((prepared, true));
    }
    made.map_err(io)?;
    // Two processes at once: the second waits and then finds it made.
    let _lock = lock(
        &environments.join(format!("{name}.lock")),
        FlockArg::LockExclusive,
    )
    .map_err(io)?;
    if let Some(prepared) = existing() {
        return Ok((prepared, true));
    }
    let refused = environments.join(format!("{name}.failed"));
    if let Some(failure) = refused::find(&refused, recipe, &interpreter) {
        return Err(failure);
    }
    // Whoever left one of these is dead: we hold the lock.
    let half = environments.join(format!("{name}.half"));
    remove(&half).map_err(io)?;
    std::fs::create_dir_all(&half).map_err(io)?;
    let log = environments.join(format!("{name}.log"));
    std::fs::write(&log, "").map_err(io)?;
    let job = Job {
        recipe,
        interpreter: &interpreter,
        cache,
        half,
        log,
    };
    let tree = match build(&job) {
        Ok(tree) => tree,
        Err(Refused { failure, lasting }) => {
            // What cannot be removed now is so at the next try.
            let _ = remove(&job.half);
            return Err(if lasting {
                refused::keep(&refused, recipe, &interpreter, failure)
            } else {
                failure
            });
        }
    };
    let manifest = Manifest {
        layout: LAYOUT,
        recipe: recipe.clone(),
        tree,
        interpreter: interpreter.clone(),
    };
    let text = serde_json::to_vec_pretty(&manifest).map_err(|e| job.failure(e))?;
    std::fs::write(job.half.join("manifest.json"), text).map_err(io)?;
    tree::sync(&job.half).map_err(io)?;
    remove(&place).map_err(io)?;
    std::fs::rename(&job.half, &place).map_err(io)?;
    File::open(&environments)
        .and_then(|f| f.sync_all())
        .map_err(io)?;
    existing()
        .map(|prepared| (prepared, false))
        .ok_or_else(|| job.failure("it does not read back"))
}

/// The id, shortened, and what of the machine it depends on.
fn name(recipe: &EnvironmentRecipe, interpreter: &Interpreter) -> String {
    let id: String = recipe.id().as_str().chars().take(12).collect();
    let place = Digest::of_bytes(interpreter.base_prefix.as_os_str().as_encoded_bytes());
    let place: String = place.0.chars().take(4).collect();
    format!("{id}-py{}-{place}", interpreter.version)
}

fn build(job: &Job<'_>) -> Result<Digest, Refused> {
    let io = |e: std::io::Error| failure::disk(&job.half, &e);
    let repository = job.half.join("repository");
    source::repository(job, &repository)?;
    check_parts(job, &repository)?;
    check_history(job, &repository)?;
    venv::make(job)?;
    if !job.recipe.setup.is_empty() {
        setup::run(job, &repository)?;
        // They may have fetched something.
        check_history(job, &repository)?;
    }
    venv::describe(job, &repository).map_err(io)?;
    let files = tree::scan(&repository, diff::is_by_product)
        .map_err(io)?
        .files;
    for (name, file) in &files {
        let mode = if file.executable { 0o555 } else { 0o444 };
        std::fs::set_permissions(repository.join(name), PermissionsExt::from_mode(mode))
            .map_err(io)?;
    }
    tree::write(&job.half.join("tree"), &files, None).map_err(io)?;
    for scratch in ["download", "stub", "wheels"] {
        remove(&job.half.join(scratch)).map_err(io)?;
    }
    Ok(tree::digest_of(&files))
}

/// What is there and whole, and was made of this recipe with this interpreter.
fn existing(
    place: &Path,
    recipe: &EnvironmentRecipe,
    interpreter: &Interpreter,
    lease: Option<&Arc<Lease>>,
) -> Option<Prepared> {
    let text = std::fs::read(place.join("manifest.json")).ok()?;
    let manifest: Manifest = serde_json::from_slice(&text).ok()?;
    if (manifest.layout, &manifest.recipe, &manifest.interpreter) != (LAYOUT, recipe, interpreter) {
        return None;
    }
    let repository = place.join("repository");
    let files = tree::scan(&repository, diff::is_by_product).ok()?.files;
    // The digest leaves `.git` out, so that is looked for by itself.
    let history = history::named(&repository).ok()?;
    let seen = tree::digest(&place.join("tree")).ok()?;
    let is_whole = tree::digest_of(&files) == manifest.tree && seen == manifest.tree;
    if !is_whole || history.is_some() {
        tracing::warn!(place = %place.display(), "was changed by somebody: it is made again");
        return None;
    }
    let directory = place.to_owned();
    Some(Prepared {
        directory,
        manifest,
        files,
        _lease: lease.cloned(),
    })
}

fn remove(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

fn check_parts(job: &Job<'_>, repository: &Path) -> Result<(), Failure> {
    let failed = |why: String| failure::no_tests(&job.package(), why);
    for (what, paths) in [("tests", &job.recipe.tests), ("code", &job.recipe.code)] {
        // Of a commit an importer may know neither.
        if paths.is_empty() && job.recipe.source.is_none() {
            return Err(failed(format!("no {what} are named")));
        }
        if let Some(path) = paths.iter().find(|path| !repository.join(path).exists()) {
            return Err(failed(format!(
                "its source archive has no `{path}` ({what})"
            )));
        }
    }
    Ok(())
}

/// The repository is its files and nothing that came before or after them.
fn check_history(job: &Job<'_>, repository: &Path) -> Result<(), Failure> {
    let io = |e: std::io::Error| failure::disk(repository, &e);
    let files = tree::scan(repository, |_| false).map_err(io)?.files;
    let packed = history::packed(&files).map(str::to_owned);
    match history::named(repository).map_err(io)?.or(packed) {
        Some(path) => Err(failure::history(&job.package(), &path)),
        None => Ok(()),
    }
}
