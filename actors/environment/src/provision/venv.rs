//! The packages beside the subject, made fit for another path: inside a sandbox they
//! are at `/venv`.

use super::Job;
use super::refused::{Refused, is_the_machines_fault, is_the_pins_fault};
use crate::bubblewrap::VENV;
use crate::failure;
use gametape_schemas::Failure;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Lines of the log that a failure shows.
const TAIL: usize = 12;

/// Makes `venv/` with the recipe's requirements, and metadata of the subject, which is
/// itself not installed: it is imported from the repository.
///
/// Downloading and installing are two steps: what fails without the network is the
/// recipe's doing, and is not tried again.
pub(super) fn make(job: &Job<'_>, repository: &Path) -> Result<(), Refused> {
    let io = |e: io::Error| failure::disk(&job.half, &e);
    let venv = job.half.join("venv");
    let text = |words: &[&str]| words.iter().map(|&w| w.to_owned()).collect::<Vec<_>>();
    step(
        job,
        &text(&["-m", "venv", "--without-pip", &venv.to_string_lossy()]),
        None,
    )?;
    let pins = job.half.join("requirements.txt");
    std::fs::write(&pins, job.recipe.requirements.join("\n") + "\n").map_err(io)?;
    if !job.recipe.requirements.is_empty() {
        let python = venv.join("bin/python");
        let wheels = job.half.join("wheels");
        let pip = |more: &[&str]| {
            let mut words = text(&["-m", "pip", "--python", &python.to_string_lossy()]);
            words.extend(text(more));
            words.extend(text(&["--no-deps", "--only-binary", ":all:"]));
            words.extend(text(&["--require-hashes", "-r", &pins.to_string_lossy()]));
            words
        };
        let fetched = step(
            job,
            &pip(&["download", "-d", &wheels.to_string_lossy()]),
            None,
        );
        fetched.map_err(|stumble| stumble.lasting(is_the_pins_fault))?;
        let place = wheels.to_string_lossy();
        let installed = step(
            job,
            &pip(&["install", "--no-index", "--find-links", &place]),
            None,
        );
        installed.map_err(|stumble| stumble.lasting(|said| !is_the_machines_fault(said)))?;
    }
    relocate(&venv).map_err(io)?;
    Ok(describe(job, &venv, repository).map_err(io)?)
}

/// Takes the building place out of scripts and of `pyvenv.cfg`.
fn relocate(venv: &Path) -> io::Result<()> {
    let here = venv.to_string_lossy().into_owned();
    for entry in std::fs::read_dir(venv.join("bin"))? {
        let entry = entry?;
        if !entry.file_type()?.is_file() {
            continue;
        }
        // Programs that are not scripts have no place in them that matters.
        let Ok(text) = std::fs::read_to_string(entry.path()) else {
            continue;
        };
        if text.contains(&here) {
            std::fs::write(entry.path(), text.replace(&here, VENV))?;
        }
    }
    let path = venv.join("pyvenv.cfg");
    let text = std::fs::read_to_string(&path)?;
    let lines = text.lines().filter(|line| !line.contains(&here));
    std::fs::write(
        path,
        lines.map(|line| format!("{line}\n")).collect::<String>(),
    )
}

/// Minimal metadata of the subject, for packages that ask for their own version.
fn describe(job: &Job<'_>, venv: &Path, repository: &Path) -> io::Result<()> {
    let package = &job.recipe.package;
    let name = package.name.replace(['-', '.'], "_");
    let Some(site) = site_packages(venv)? else {
        return Ok(());
    };
    for entry in std::fs::read_dir(&site)? {
        let found = entry?.file_name().to_string_lossy().to_lowercase();
        // It came with the requirements: the subject is a dependency of the test runner.
        if found.starts_with(&format!("{}-", name.to_lowercase())) && found.ends_with(".dist-info")
        {
            return Ok(());
        }
    }
    let target = site.join(format!("{name}-{}.dist-info", package.version));
    std::fs::create_dir(&target)?;
    let metadata = format!(
        "Metadata-Version: 2.1\nName: {}\nVersion: {}\n",
        package.name, package.version
    );
    std::fs::write(target.join("METADATA"), metadata)?;
    std::fs::write(target.join("INSTALLER"), "gametape\n")?;
    std::fs::write(target.join("RECORD"), "")?;
    for root in [
        repository.to_owned(),
        repository.join(&job.recipe.source_root),
    ] {
        let points = root
            .join(format!("{name}.egg-info"))
            .join("entry_points.txt");
        if points.is_file() {
            std::fs::copy(points, target.join("entry_points.txt"))?;
        }
    }
    Ok(())
}

fn site_packages(venv: &Path) -> io::Result<Option<PathBuf>> {
    for entry in std::fs::read_dir(venv.join("lib"))? {
        let path = entry?.path().join("site-packages");
        if path.is_dir() {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// A step that failed.
#[derive(Debug)]
pub(super) struct Stumble {
    failure: Failure,
    /// What it said, when it ended by itself: a signal says nothing about a recipe.
    said: Option<String>,
}

impl Stumble {
    /// Whether it would come again is decided by what was said.
    fn lasting(self, would: impl FnOnce(&str) -> bool) -> Refused {
        Refused {
            lasting: self.said.as_deref().is_some_and(would),
            failure: self.failure,
        }
    }
}

impl From<Failure> for Stumble {
    fn from(failure: Failure) -> Self {
        Self {
            failure,
            said: None,
        }
    }
}

impl From<Stumble> for Failure {
    fn from(stumble: Stumble) -> Self {
        stumble.failure
    }
}

impl From<Stumble> for Refused {
    fn from(stumble: Stumble) -> Self {
        stumble.failure.into()
    }
}

/// Runs a step of Python or pip, its output into the log; `path` becomes `PYTHONPATH`.
pub(super) fn step(job: &Job<'_>, args: &[String], path: Option<&Path>) -> Result<(), Stumble> {
    let io = |e: io::Error| failure::disk(&job.log, &e);
    let before = std::fs::metadata(&job.log).map_or(0, |meta| meta.len());
    let mut log = OpenOptions::new().append(true).open(&job.log).map_err(io)?;
    writeln!(log, "$ python {}", args.join(" ")).map_err(io)?;
    // pip must be able to see the environment that called us; venv must not.
    let program = match args.get(1).map(String::as_str) {
        Some("venv") => &job.interpreter.base_executable,
        _ => &job.interpreter.executable,
    };
    let mut command = Command::new(program);
    for name in [
        "PYTHONPATH",
        "PYTHONHOME",
        "PIP_TARGET",
        "PIP_PREFIX",
        "PIP_USER",
        "PIP_REQUIRE_VIRTUALENV",
    ] {
        command.env_remove(name);
    }
    if let Some(path) = path {
        command.env("PYTHONPATH", path);
    }
    let status = command
        .args(args)
        .env("PIP_NO_INPUT", "1")
        .env("PIP_DISABLE_PIP_VERSION_CHECK", "1")
        .env("PIP_PROGRESS_BAR", "off")
        .current_dir(&job.half)
        .stdin(Stdio::null())
        .stdout(Stdio::from(log.try_clone().map_err(io)?))
        .stderr(Stdio::from(log))
        .status()
        .map_err(|e| job.failure(format!("{} cannot be run: {e}", program.display())))?;
    if status.success() {
        return Ok(());
    }
    let log = std::fs::read(&job.log).map_err(io)?;
    let said = log.get(usize::try_from(before).unwrap_or(0)..);
    let said = String::from_utf8_lossy(said.unwrap_or_default()).into_owned();
    let failure = job.failure(format!(
        "`python {}` failed ({status}); the last lines of {}:\n{}",
        args.join(" "),
        job.log.display(),
        tail(&said)
    ));
    Err(Stumble {
        failure,
        said: status.code().map(|_| said),
    })
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    let from = lines.len().saturating_sub(TAIL);
    lines.get(from..).unwrap_or_default().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_building_go() {
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().join("bin");
        std::fs::create_dir(&bin).unwrap();
        let here = dir.path().display();
        std::fs::write(bin.join("pytest"), format!("#!{here}/bin/python\nx\n")).unwrap();
        std::fs::write(bin.join("program"), [0xff, 0xfe]).unwrap();
        let cfg = format!("home = /usr/bin\ncommand = /usr/bin/python -m venv {here}\n");
        std::fs::write(dir.path().join("pyvenv.cfg"), cfg).unwrap();
        relocate(dir.path()).unwrap();
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!(read("bin/pytest"), "#!/venv/bin/python\nx\n");
        assert_eq!(read("pyvenv.cfg"), "home = /usr/bin\n");
    }

    #[test]
    fn the_end_of_a_log_is_shown() {
        let log = (0..40).map(|n| format!("{n}\n")).collect::<String>();
        assert!(tail(&log).starts_with("28\n") && tail(&log).ends_with("39"));
        assert_eq!(tail("a"), "a");
    }
}
