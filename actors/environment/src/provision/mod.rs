//! From a recipe to a prepared directory, once per machine, with the network on.
//!
//! `<cache>/environments/<id12>-py<version>-<where>/` holds `repository/` (the source
//! archive's tree, read-only), `tree/` (the same as sandboxes see it), `venv/` (the test runner and its dependencies) and
//! `manifest.json`. It is built beside its place and renamed into it: it is there whole
//! or not at all. The log of every step is `….log` beside it.
//!
//! - [`python`]: which interpreter, and where its parts are
//! - [`fetch`]: the source archive, by hash, through pip, without running its build
//! - [`venv`]: packages beside it, made fit for another path

pub mod fetch;
pub mod python;
pub mod venv;

use crate::private::lock;
use crate::tree::{self, Snapshot};
use crate::{archive, diff, failure};
use gametape_schemas::message::Provisioned;
use gametape_schemas::{Digest, EnvironmentRecipe, Failure};
use nix::fcntl::FlockArg;
use python::Interpreter;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

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
}

impl Prepared {
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

/// Finds or makes the environment of a recipe. Blocks: the network, pip, the disk.
/// True when it was there already.
///
/// # Errors
/// `GT-ENV-*`, with the end of the log.
pub fn provision(cache: &Path, recipe: &EnvironmentRecipe) -> Result<(Prepared, bool), Failure> {
    let interpreter = python::interpreter()?;
    let environments = cache.join("environments");
    let io = |e: std::io::Error| failure::disk(&environments, &e);
    let name = name(recipe, &interpreter);
    let place = environments.join(&name);
    if let Some(prepared) = existing(&place, recipe, &interpreter) {
        return Ok((prepared, true));
    }
    std::fs::create_dir_all(&environments).map_err(io)?;
    // Two processes at once: the second waits and then finds it made.
    let _lock = lock(
        &environments.join(format!("{name}.lock")),
        FlockArg::LockExclusive,
    )
    .map_err(io)?;
    if let Some(prepared) = existing(&place, recipe, &interpreter) {
        return Ok((prepared, true));
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
    let tree = build(&job)?;
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
    existing(&place, recipe, &interpreter)
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

fn build(job: &Job<'_>) -> Result<Digest, Failure> {
    let io = |e: std::io::Error| failure::disk(&job.half, &e);
    let archive = fetch::fetch(job)?;
    let repository = job.half.join("repository");
    archive::unpack(&archive, &repository)
        .map_err(|e| job.failure(format!("its source archive cannot be unpacked: {e}")))?;
    check_parts(job, &repository)?;
    venv::make(job, &repository)?;
    let files = tree::scan(&repository, diff::is_by_product)
        .map_err(io)?
        .files;
    for (name, file) in &files {
        let mode = if file.executable { 0o555 } else { 0o444 };
        std::fs::set_permissions(repository.join(name), PermissionsExt::from_mode(mode))
            .map_err(io)?;
    }
    tree::write(&job.half.join("tree"), &files, None).map_err(io)?;
    for scratch in ["download", "stub"] {
        remove(&job.half.join(scratch)).map_err(io)?;
    }
    Ok(tree::digest_of(&files))
}

/// What is there and whole, and was made of this recipe with this interpreter.
fn existing(
    place: &Path,
    recipe: &EnvironmentRecipe,
    interpreter: &Interpreter,
) -> Option<Prepared> {
    let text = std::fs::read(place.join("manifest.json")).ok()?;
    let manifest: Manifest = serde_json::from_slice(&text).ok()?;
    if (manifest.layout, &manifest.recipe, &manifest.interpreter) != (LAYOUT, recipe, interpreter) {
        return None;
    }
    let files = tree::scan(&place.join("repository"), diff::is_by_product)
        .ok()?
        .files;
    let seen = tree::digest(&place.join("tree")).ok()?;
    if tree::digest_of(&files) != manifest.tree || seen != manifest.tree {
        tracing::warn!(place = %place.display(), "was changed by somebody: it is made again");
        return None;
    }
    let directory = place.to_owned();
    Some(Prepared {
        directory,
        manifest,
        files,
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
        if paths.is_empty() {
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
