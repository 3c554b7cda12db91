//! From a recipe to a prepared directory, once per machine, with the network on.
//!
//! `<cache>/environments/<id12>-py<version>/` holds `repository/` (the source archive's
//! tree), `venv/` (the test runner and its dependencies) and `manifest.json`. It is
//! built beside its place and renamed into it: it is there whole or not at all.

use crate::{archive, tree};
use gametape_schemas::message::Provisioned;
use gametape_schemas::{Digest, EnvironmentRecipe, Failure, FailureKind};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the interpreter of an environment lies on the host.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Interpreter {
    /// `sys.base_prefix`.
    pub base_prefix: PathBuf,
    /// Site-packages of the base interpreter: hidden inside sandboxes.
    pub base_site_packages: Vec<PathBuf>,
    /// Version, such as `3.11.7`.
    pub version: String,
}

/// What `manifest.json` says.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Manifest {
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
}

impl Prepared {
    /// The clean repository.
    pub fn repository(&self) -> PathBuf {
        self.directory.join("repository")
    }

    /// The virtual environment.
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

/// The Python that environments are made with: `GAMETAPE_PYTHON`, else `python3`.
pub fn python() -> String {
    std::env::var("GAMETAPE_PYTHON").unwrap_or_else(|_| "python3".to_owned())
}

/// Asks the interpreter where it lives.
///
/// # Errors
/// `GT-ENV-PYTHON` when there is none or it is too old.
pub fn interpreter() -> Result<Interpreter, Failure> {
    let question = "import sys,sysconfig,json,glob,os\n\
        p=sys.base_prefix\n\
        v='%d.%d'%sys.version_info[:2]\n\
        c=[os.path.join(p,'lib','python'+v,'site-packages'),os.path.join(p,'lib','python3','dist-packages'),os.path.join(p,'local','lib','python'+v,'dist-packages')]\n\
        print(json.dumps({'base_prefix':os.path.realpath(p),'base_site_packages':[os.path.realpath(d) for d in c if os.path.isdir(d)],'version':'.'.join(map(str,sys.version_info[:3]))}))";
    let name = python();
    let failed = |why: String| {
        Failure::new(
            FailureKind::Provision,
            "GT-ENV-PYTHON",
            format!("the Python `{name}` cannot be used: {why}"),
        )
        .with_help("install Python 3.11 or newer with its venv module (Debian: python3-venv), or name one with GAMETAPE_PYTHON")
    };
    let output = Command::new(&name)
        .args(["-I", "-c", question])
        .output()
        .map_err(|e| failed(e.to_string()))?;
    let found: Interpreter = serde_json::from_slice(&output.stdout)
        .map_err(|_| failed(String::from_utf8_lossy(&output.stderr).into_owned()))?;
    let minor = found.version.split('.').nth(1).and_then(|m| m.parse().ok());
    if minor.is_none_or(|minor: u32| minor < 11) || !found.version.starts_with("3.") {
        return Err(failed(format!("version {} is older than 3.11", found.version)));
    }
    Ok(found)
}

/// Finds or makes the environment of a recipe. Blocks: the network, pip, the disk.
/// True when it was there already.
///
/// # Errors
/// `GT-ENV-*`, with the end of the log.
pub fn provision(cache: &Path, recipe: &EnvironmentRecipe) -> Result<(Prepared, bool), Failure> {
    let interpreter = interpreter()?;
    let id = recipe.id();
    let short: String = id.as_str().chars().take(12).collect();
    let environments = cache.join("environments");
    let place = environments.join(format!("{short}-py{}", interpreter.version));
    let io = |e: std::io::Error| disk(&environments, &e);
    if let Some(prepared) = existing(&place, recipe) {
        return Ok((prepared, true));
    }
    std::fs::create_dir_all(&environments).map_err(io)?;
    // Two processes at once: the second waits and then finds it made.
    let lock = File::create(environments.join(format!("{short}.lock"))).map_err(io)?;
    // SAFETY: flock on a descriptor that `lock` owns and keeps open.
    if unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_EX) } != 0 {
        return Err(io(std::io::Error::last_os_error()));
    }
    if let Some(prepared) = existing(&place, recipe) {
        return Ok((prepared, true));
    }
    let half = environments.join(format!("{short}.half"));
    remove(&half).map_err(io)?;
    std::fs::create_dir_all(&half).map_err(io)?;
    let archive_path = fetch(cache, recipe, &half)?;
    let repository = half.join("repository");
    archive::unpack(&archive_path, &repository).map_err(|e| {
        provision_failure(
            recipe,
            format!("its source archive cannot be unpacked: {e}"),
        )
    })?;
    check_tests(recipe, &repository)?;
    let venv = half.join("venv");
    pip_log(recipe, &half, &["-m", "venv", "--without-pip", &venv.to_string_lossy()])?;
    let requirements = half.join("requirements.txt");
    std::fs::write(&requirements, recipe.requirements.join("\n") + "\n").map_err(io)?;
    pip_log(
        recipe,
        &half,
        &[
            "-m",
            "pip",
            "--python",
            &venv.join("bin/python").to_string_lossy(),
            "install",
            "--disable-pip-version-check",
            "--no-deps",
            "--only-binary",
            ":all:",
            "--require-hashes",
            "-r",
            &requirements.to_string_lossy(),
        ],
    )?;
    let manifest = Manifest {
        recipe: recipe.clone(),
        tree: tree::digest(&repository).map_err(io)?,
        interpreter,
    };
    let text = serde_json::to_vec_pretty(&manifest)
        .map_err(|e| provision_failure(recipe, e.to_string()))?;
    let path = half.join("manifest.json");
    std::fs::write(&path, text).map_err(io)?;
    File::open(&path).and_then(|f| f.sync_all()).map_err(io)?;
    remove(&place).map_err(io)?;
    std::fs::rename(&half, &place).map_err(io)?;
    File::open(&environments)
        .and_then(|f| f.sync_all())
        .map_err(io)?;
    existing(&place, recipe)
        .map(|prepared| (prepared, false))
        .ok_or_else(|| provision_failure(recipe, "it does not read back"))
}

fn existing(place: &Path, recipe: &EnvironmentRecipe) -> Option<Prepared> {
    let text = std::fs::read(place.join("manifest.json")).ok()?;
    let manifest: Manifest = serde_json::from_slice(&text).ok()?;
    (manifest.recipe == *recipe).then(|| Prepared {
        directory: place.to_owned(),
        manifest,
    })
}

fn remove(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// The source archive in the cache, downloaded when it is not there.
fn fetch(cache: &Path, recipe: &EnvironmentRecipe, half: &Path) -> Result<PathBuf, Failure> {
    let package = &recipe.package;
    let directory = cache.join("packages").join(&package.sha256);
    let place = directory.join(format!("{}-{}.tar.gz", package.name, package.version));
    let io = |e: std::io::Error| disk(&directory, &e);
    if place.is_file() && sha256(&place).map_err(io)? == package.sha256 {
        return Ok(place);
    }
    let pins = half.join("package.txt");
    std::fs::write(
        &pins,
        format!(
            "{}=={} --hash=sha256:{}\n",
            package.name, package.version, package.sha256
        ),
    )
    .map_err(io)?;
    let target = half.join("download");
    pip_log(
        recipe,
        half,
        &[
            "-m",
            "pip",
            "download",
            "--disable-pip-version-check",
            "--no-deps",
            "--no-binary",
            ":all:",
            "--require-hashes",
            "-d",
            &target.to_string_lossy(),
            "-r",
            &pins.to_string_lossy(),
        ],
    )?;
    let found = tree::files(&target)
        .map_err(io)?
        .into_iter()
        .find(|name| name.ends_with(".tar.gz"))
        .ok_or_else(|| provision_failure(recipe, "the index gave no .tar.gz source archive"))?;
    let found = target.join(found);
    let sum = sha256(&found).map_err(io)?;
    if sum != package.sha256 {
        return Err(provision_failure(
            recipe,
            format!("the archive's SHA-256 is {sum}, not {}", package.sha256),
        ));
    }
    std::fs::create_dir_all(&directory).map_err(io)?;
    let partial = directory.join("partial");
    std::fs::copy(&found, &partial).map_err(io)?;
    std::fs::rename(&partial, &place).map_err(io)?;
    Ok(place)
}

fn check_tests(recipe: &EnvironmentRecipe, repository: &Path) -> Result<(), Failure> {
    for (what, paths) in [("tests", &recipe.tests), ("code", &recipe.code)] {
        if paths.is_empty() {
            return Err(no_tests(recipe, format!("no {what} are named")));
        }
        for path in paths {
            if !repository.join(path).exists() {
                return Err(no_tests(
                    recipe,
                    format!("its source archive has no `{path}` ({what})"),
                ));
            }
        }
    }
    Ok(())
}

fn no_tests(recipe: &EnvironmentRecipe, why: String) -> Failure {
    let package = &recipe.package;
    Failure::new(
        FailureKind::Input,
        "GT-ENV-NO-TESTS",
        format!("the package {} {} cannot be a subject: {why}", package.name, package.version),
    )
    .with_help("choose a package whose source archive carries its tests, and name them in the package's `tests`")
}

/// Runs a step of Python or pip, its output into the log.
fn pip_log(recipe: &EnvironmentRecipe, half: &Path, args: &[&str]) -> Result<(), Failure> {
    let output = Command::new(python())
        .args(args)
        .env_remove("PYTHONPATH")
        .output()
        .map_err(|e| provision_failure(recipe, format!("{} cannot be run: {e}", python())))?;
    if output.status.success() {
        return Ok(());
    }
    let mut log = String::from_utf8_lossy(&output.stdout).into_owned();
    log.push_str(&String::from_utf8_lossy(&output.stderr));
    // The log is for a person; losing it is no second failure.
    let _ = std::fs::write(half.join("provision.log"), &log);
    let tail: Vec<&str> = log.lines().rev().take(12).collect();
    let tail: Vec<&str> = tail.into_iter().rev().collect();
    Err(provision_failure(
        recipe,
        format!("`python {}` failed; its last lines:\n{}", args.join(" "), tail.join("\n")),
    ))
}

fn provision_failure(recipe: &EnvironmentRecipe, why: impl std::fmt::Display) -> Failure {
    let package = &recipe.package;
    Failure::new(
        FailureKind::Provision,
        "GT-ENV-PROVISION",
        format!("the environment of {} {} cannot be made: {why}", package.name, package.version),
    )
    .with_help("provisioning needs the package index once; check the network and the pins, then type the same command again")
}

fn disk(path: &Path, error: &std::io::Error) -> Failure {
    let kind = if error.raw_os_error() == Some(libc::ENOSPC) {
        FailureKind::Disk
    } else {
        FailureKind::Provision
    };
    Failure::new(
        kind,
        "GT-ENV-DISK",
        format!("{} cannot be used: {error}", path.display()),
    )
    .with_help("check space and permissions of the cache directory, or set GAMETAPE_CACHE")
}

fn sha256(path: &Path) -> std::io::Result<String> {
    let bytes = std::fs::read(path)?;
    Ok(Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect())
}
