//! The source archive of a package: from the cache, else through pip, by hash.
//!
//! pip asks a source archive's build system for its metadata even when it only
//! downloads: that would install the build system and run the package's code. A stub
//! on `PYTHONPATH` answers instead of the build system, from the archive's `PKG-INFO`.

use super::{Job, python, venv};
use crate::failure;
use gametape_schemas::Failure;
use sha2::{Digest as _, Sha256};
use std::path::{Path, PathBuf};

/// Stands in for any build system; harmless where none is asked.
const STUB: &str = include_str!("build_stub.py");

/// The archive's place in the cache, where it is now.
pub(super) fn fetch(job: &Job<'_>) -> Result<PathBuf, Failure> {
    let package = &job.recipe.package;
    let directory = job.cache.join("packages").join(&package.sha256);
    let place = directory.join(format!("{}-{}.tar.gz", package.name, package.version));
    let io = |e: std::io::Error| failure::disk(&directory, &e);
    if place.is_file() && sha256(&place).map_err(io)? == package.sha256 {
        return Ok(place);
    }
    let found = download(job)?;
    let sum = sha256(&found).map_err(io)?;
    if sum != package.sha256 {
        return Err(job.failure(format!(
            "the archive's SHA-256 is {sum}, the recipe says {}",
            package.sha256
        )));
    }
    std::fs::create_dir_all(&directory).map_err(io)?;
    // Two environments of one package at once: each its own, the last rename wins.
    let partial = directory.join(format!("partial-{}", std::process::id()));
    std::fs::copy(&found, &partial).map_err(io)?;
    std::fs::File::open(&partial)
        .and_then(|f| f.sync_all())
        .map_err(io)?;
    std::fs::rename(&partial, &place).map_err(io)?;
    Ok(place)
}

fn download(job: &Job<'_>) -> Result<PathBuf, Failure> {
    let package = &job.recipe.package;
    let stub = job.half.join("stub");
    let target = job.half.join("download");
    let pins = stub.join("package.txt");
    let io = |e: std::io::Error| failure::disk(&job.half, &e);
    std::fs::create_dir_all(&stub).map_err(io)?;
    std::fs::write(stub.join("sitecustomize.py"), STUB).map_err(io)?;
    let pin = format!(
        "{}=={} --hash=sha256:{}\n",
        package.name, package.version, package.sha256
    );
    std::fs::write(&pins, pin).map_err(io)?;
    let common = [
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--no-binary",
        ":all:",
        "--require-hashes",
    ];
    let rest = [
        "-d",
        &target.to_string_lossy(),
        "-r",
        &pins.to_string_lossy(),
    ]
    .map(str::to_owned);
    let words = |more: &[&str]| -> Vec<String> {
        let more = common.iter().chain(more).map(|&word| word.to_owned());
        more.chain(rest.iter().cloned()).collect()
    };
    let stubbed = words(&["--no-build-isolation", "--use-pep517"]);
    let done = venv::step(job, &stubbed, Some(&stub)).or_else(|first| {
        // An archive without `PKG-INFO`, or a pip that works otherwise: its own way.
        let first = Failure::from(first);
        tracing::debug!(%first, "the stub did not do");
        venv::step(job, &words(&[]), None)
    });
    done?;
    let archive = std::fs::read_dir(&target)
        .map_err(io)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.to_string_lossy().ends_with(".tar.gz"));
    archive.ok_or_else(|| {
        job.failure(format!(
            "`{}` found no .tar.gz source archive on the index",
            python::name()
        ))
    })
}

fn sha256(path: &Path) -> std::io::Result<String> {
    let bytes = std::fs::read(path)?;
    Ok(Sha256::digest(&bytes)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect())
}
