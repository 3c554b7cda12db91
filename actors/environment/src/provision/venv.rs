//! The packages beside the subject, made fit for another path: inside a sandbox they
//! are at `/venv`.

use super::Job;
use super::refused::{Refused, is_the_machines_fault, is_the_pins_fault};
use crate::bubblewrap::VENV;
use crate::failure;
use gametape_schemas::Failure;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Lines of the log that a failure shows.
const TAIL: usize = 12;

/// Makes `venv/` with the recipe's requirements.
///
/// Downloading and installing are two steps: what fails without the network is the
/// recipe's doing, and is not tried again.
/// Commands of the recipe's setup find pip in it.
pub(super) fn make(job: &Job<'_>) -> Result<(), Refused> {
    let io = |e: io::Error| failure::disk(&job.half, &e);
    let venv = job.half.join("venv");
    let text = |words: &[&str]| words.iter().map(|&w| w.to_owned()).collect::<Vec<_>>();
    let mut words = vec!["-m", "venv"];
    if job.recipe.setup.is_empty() {
        words.push("--without-pip");
    }
    let place = venv.to_string_lossy();
    words.push(&place);
    step(job, &text(&words), None)?;
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
    Ok(relocate(&venv).map_err(io)?)
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

/// Minimal metadata of the subject, for packages that ask for their own version. It is
/// itself not installed (unless its setup did): it is imported from the repository.
pub(super) fn describe(job: &Job<'_>, repository: &Path) -> io::Result<()> {
    let package = &job.recipe.package;
    // A repository has its owner before its name.
    let name = package.name.rsplit('/').next().unwrap_or_default();
    let name = name.replace(['-', '.'], "_");
    if name.is_empty() || package.version.contains('/') {
        return Ok(());
    }
    let Some(site) = site_packages(&job.half.join("venv"))? else {
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
        package.name.rsplit('/').next().unwrap_or_default(),
        package.version
    );
    std::fs::write(target.join("METADATA"), metadata)?;
    std::fs::write(target.join("INSTALLER"), "gametape\n")?;
    std::fs::write(target.join("RECORD"), "")?;
    for root in [".", &job.recipe.source_root] {
        let points = Path::new(root)
            .join(format!("{name}.egg-info"))
            .join("entry_points.txt");
        let is_there = is_plain(repository, &points)?;
        let points = repository.join(points);
        if is_there && points.is_file() {
            std::fs::copy(points, target.join("entry_points.txt"))?;
        }
    }
    Ok(())
}

fn site_packages(venv: &Path) -> io::Result<Option<PathBuf>> {
    if !is_plain(venv, Path::new("lib"))? {
        return Ok(None);
    }
    for entry in std::fs::read_dir(venv.join("lib"))? {
        let name = Path::new("lib").join(entry?.file_name());
        let name = name.join("site-packages");
        if is_plain(venv, &name)? && venv.join(&name).is_dir() {
            return Ok(Some(venv.join(name)));
        }
    }
    Ok(None)
}

/// Whether a relative path is there and leads through no link: commands of a recipe's
/// own may have put some.
fn is_plain(root: &Path, path: &Path) -> io::Result<bool> {
    let mut here = root.to_owned();
    for part in path.components() {
        match part {
            Component::CurDir => continue,
            Component::Normal(name) => here.push(name),
            _ => return Ok(false),
        }
        match here.symlink_metadata() {
            Ok(meta) if meta.is_symlink() => return Ok(false),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
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
    pub(super) fn lasting(self, would: impl FnOnce(&str) -> bool) -> Refused {
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
    command
        .args(args)
        .env("PIP_NO_INPUT", "1")
        .env("PIP_DISABLE_PIP_VERSION_CHECK", "1")
        .env("PIP_PROGRESS_BAR", "off");
    logged(job, &format!("python {}", args.join(" ")), command, None)
}

/// Runs a step to its end or its limit, its output into the log.
pub(super) fn logged(
    job: &Job<'_>,
    line: &str,
    mut command: Command,
    limit: Option<Duration>,
) -> Result<(), Stumble> {
    let io = |e: io::Error| failure::disk(&job.log, &e);
    let before = std::fs::metadata(&job.log).map_or(0, |meta| meta.len());
    let mut log = OpenOptions::new().append(true).open(&job.log).map_err(io)?;
    writeln!(log, "$ {line}").map_err(io)?;
    let program = command.get_program().to_owned();
    let not_run = |e: io::Error| {
        let program = Path::new(&program).display();
        job.failure(format!("{program} cannot be run: {e}"))
    };
    let mut child = command
        .current_dir(&job.half)
        .stdin(Stdio::null())
        .stdout(Stdio::from(log.try_clone().map_err(io)?))
        .stderr(Stdio::from(log))
        .spawn()
        .map_err(not_run)?;
    let status = match limit {
        None => child.wait().map_err(not_run)?,
        Some(limit) => match within(&mut child, limit).map_err(not_run)? {
            Some(status) => status,
            None => {
                let limit = limit.as_secs();
                let why = format!(
                    "`{line}` did not end in {limit} s (log: {})",
                    job.log.display()
                );
                return Err(job.failure(why).into());
            }
        },
    };
    if status.success() {
        return Ok(());
    }
    let log = std::fs::read(&job.log).map_err(io)?;
    let said = log.get(usize::try_from(before).unwrap_or(0)..);
    let said = String::from_utf8_lossy(said.unwrap_or_default()).into_owned();
    let failure = job.failure(format!(
        "`{line}` failed ({status}); the last lines of {}:\n{}",
        job.log.display(),
        tail(&said)
    ));
    Err(Stumble {
        failure,
        said: status.code().map(|_| said),
    })
}

/// How a process ended; `None`, and it was killed, when it took longer.
fn within(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    const LOOK: Duration = Duration::from_millis(20);
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if begin.elapsed() >= limit {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(LOOK);
    }
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
    fn what_takes_too_long_is_killed() {
        let sleep = |seconds: &str| Command::new("sleep").arg(seconds).spawn().unwrap();
        let none = within(&mut sleep("1000"), Duration::from_millis(30)).unwrap();
        assert_eq!(none, None);
        let ended = within(&mut sleep("0"), Duration::from_secs(60)).unwrap();
        assert!(ended.unwrap().success());
    }

    #[test]
    fn the_end_of_a_log_is_shown() {
        let log = (0..40).map(|n| format!("{n}\n")).collect::<String>();
        assert!(tail(&log).starts_with("28\n") && tail(&log).ends_with("39"));
        assert_eq!(tail("a"), "a");
    }
}
