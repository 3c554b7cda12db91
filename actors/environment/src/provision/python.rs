//! The host's Python: which one, and where its parts are.

use crate::failure;
use gametape_schemas::Failure;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the interpreter of an environment lies on the host.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Interpreter {
    /// The program that was asked (it may be a virtual environment's): has pip.
    pub executable: PathBuf,
    /// The program behind it: environments are made with it.
    pub base_executable: PathBuf,
    /// `sys.base_prefix`, resolved.
    pub base_prefix: PathBuf,
    /// Packages of the base interpreter: hidden inside sandboxes.
    pub base_site_packages: Vec<PathBuf>,
    /// Version, such as `3.11.7`.
    pub version: String,
}

const QUESTION: &str = r"
import glob, json, os, sys
prefix = os.path.realpath(sys.base_prefix)
found = []
for lib in ('lib', 'lib64', 'local/lib'):
    for kind in ('site-packages', 'dist-packages'):
        found += glob.glob(os.path.join(prefix, lib, 'python3*', kind))
print(json.dumps({
    'executable': sys.executable,
    'base_executable': os.path.realpath(getattr(sys, '_base_executable', sys.executable)),
    'base_prefix': prefix,
    'base_site_packages': sorted({os.path.realpath(d) for d in found}),
    'version': '.'.join(map(str, sys.version_info[:3])),
}))
";

/// The Python that environments are made with: `GAMETAPE_PYTHON`, else `python3`.
pub fn name() -> String {
    std::env::var("GAMETAPE_PYTHON").unwrap_or_else(|_| "python3".to_owned())
}

/// Asks the interpreter where it lives. Blocks, some ten milliseconds.
///
/// # Errors
/// `GT-ENV-PYTHON` when there is none or it is too old.
pub fn interpreter() -> Result<Interpreter, Failure> {
    let name = name();
    let found = ask(OsStr::new(&name)).map_err(|why| failure::python(&name, why))?;
    if is_recent(&found.version) {
        Ok(found)
    } else {
        let why = format!("version {} is older than 3.11", found.version);
        Err(failure::python(&name, why))
    }
}

fn ask(program: &OsStr) -> Result<Interpreter, String> {
    let output = Command::new(program).args(["-I", "-c", QUESTION]).output();
    let output = output.map_err(|error| error.to_string())?;
    let said = || String::from_utf8_lossy(&output.stderr).trim().to_owned();
    serde_json::from_slice(&output.stdout).map_err(|_| said())
}

/// The interpreter for a recipe: the one of that version, or the usual one where the
/// recipe names none. Looked for are `GAMETAPE_PYTHON`, programs of that name and
/// `python3` on the `PATH`, and where pyenv, uv, conda, asdf, mise and systems put theirs.
/// Blocks, some ten milliseconds for each that is asked.
///
/// # Errors
/// `GT-ENV-PYTHON` when there is none that fits and can make environments, with those
/// that were found.
pub fn fitting(wanted: Option<&str>) -> Result<Interpreter, Failure> {
    let Some(wanted) = wanted else {
        return interpreter();
    };
    if !is_version(wanted) {
        return Err(failure::python(
            wanted,
            "that is no version, such as 3.11 or 3.11.7",
        ));
    }
    let (mut seen, mut found) = (BTreeSet::new(), BTreeSet::new());
    for program in candidates(wanted) {
        // One program often has several names. A shim stands for many programs.
        let real = program.canonicalize().unwrap_or_else(|_| program.clone());
        if !seen.insert(real) {
            continue;
        }
        let Ok(interpreter) = ask(program.as_os_str()) else {
            continue;
        };
        let shown = format!(
            "{} ({})",
            interpreter.version,
            interpreter.executable.display()
        );
        if !fits(&interpreter.version, wanted) {
            found.insert(shown);
        } else if !has_tools(&interpreter) {
            found.insert(format!("{shown}, without venv or pip"));
        } else {
            return Ok(interpreter);
        }
    }
    Err(failure::no_python(wanted, &found))
}

/// Whether environments can be made with it.
fn has_tools(interpreter: &Interpreter) -> bool {
    let has = |program: &Path, module: &str| {
        let done = Command::new(program)
            .args(["-I", "-c", &format!("import {module}")])
            .output();
        done.is_ok_and(|output| output.status.success())
    };
    has(&interpreter.base_executable, "venv") && has(&interpreter.executable, "pip")
}

/// Programs that may be of a version, those that were asked for by name first.
fn candidates(wanted: &str) -> Vec<PathBuf> {
    let mut out: Vec<PathBuf> = Vec::new();
    out.extend(std::env::var_os("GAMETAPE_PYTHON").map(PathBuf::from));
    let short: Vec<&str> = wanted.split('.').take(2).collect();
    let names = [format!("python{}", short.join(".")), "python3".to_owned()];
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut directories: Vec<PathBuf> = std::env::split_paths(&path).collect();
    directories.extend(["/usr/bin", "/usr/local/bin", "/opt/homebrew/bin"].map(PathBuf::from));
    for name in &names {
        let programs = directories.iter().map(|directory| directory.join(name));
        out.extend(programs.filter(|program| program.is_file()));
    }
    for collection in collections() {
        let mut versions: Vec<PathBuf> = std::fs::read_dir(&collection)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path().join("bin/python3"))
            .filter(|program| program.is_file())
            .collect();
        // The same one each time, and rather the newest.
        versions.sort_unstable_by(|a, b| b.cmp(a));
        out.extend(versions);
    }
    out
}

/// Directories that hold a directory for each version.
fn collections() -> Vec<PathBuf> {
    let mut out: Vec<PathBuf> = Vec::new();
    out.extend(std::env::var_os("PYENV_ROOT").map(|root| Path::new(&root).join("versions")));
    if let Some(home) = std::env::var_os("HOME") {
        let below = [
            ".pyenv/versions",
            ".local/share/uv/python",
            ".asdf/installs/python",
            ".local/share/mise/installs/python",
            "miniconda3/envs",
            "anaconda3/envs",
            "miniforge3/envs",
        ];
        out.extend(below.map(|name| Path::new(&home).join(name)));
    }
    out.extend(["/opt", "/opt/python", "/opt/conda/envs"].map(PathBuf::from));
    out
}

/// Numbers with dots between them, one to three. Pure.
fn is_version(wanted: &str) -> bool {
    let parts: Vec<&str> = wanted.split('.').collect();
    let is_number = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    (1..=3).contains(&parts.len()) && parts.iter().all(is_number)
}

/// Whether a version is the wanted one, as far as that goes. Pure.
fn fits(version: &str, wanted: &str) -> bool {
    let mut version = version.split('.');
    wanted.split('.').all(|part| version.next() == Some(part))
}

fn is_recent(version: &str) -> bool {
    let mut parts = version.split('.').map(str::parse::<u32>);
    let (major, minor) = (parts.next(), parts.next());
    matches!((major, minor), (Some(Ok(3)), Some(Ok(minor))) if minor >= 11)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_fits_as_far_as_it_goes() {
        assert!(fits("3.11.7", "3.11") && fits("3.11.7", "3.11.7") && fits("3.11.7", "3"));
        assert!(!fits("3.11.7", "3.1") && !fits("3.11.7", "3.11.70") && !fits("3.1.7", "3.11"));
        assert!(is_version("3.11") && is_version("3") && is_version("3.11.7"));
        for bad in [
            "",
            "3.",
            ".3",
            "3.11.7.1",
            ">=3.11",
            "3.x",
            "python3.11",
            "../3",
        ] {
            assert!(!is_version(bad), "{bad}");
        }
    }

    #[test]
    fn the_interpreter_that_fits_is_found() {
        let Ok(usual) = interpreter() else {
            eprintln!("SKIPPED: the_interpreter_that_fits_is_found: no Python");
            return;
        };
        assert_eq!(fitting(None).unwrap(), usual);
        let short: Vec<&str> = usual.version.split('.').take(2).collect();
        let found = fitting(Some(&short.join("."))).unwrap();
        assert!(fits(&found.version, &short.join(".")), "{found:?}");
        let none = fitting(Some("3.99")).unwrap_err();
        assert_eq!(none.code, "GT-ENV-PYTHON");
        assert!(none.message.contains(&usual.version), "{none}");
        assert_eq!(
            fitting(Some("$(touch x)")).unwrap_err().code,
            "GT-ENV-PYTHON"
        );
    }

    #[test]
    fn versions_are_numbers() {
        assert!(is_recent("3.11.7") && is_recent("3.100.0"));
        assert!(!is_recent("3.9.18") && !is_recent("2.7.18") && !is_recent(""));
    }
}
