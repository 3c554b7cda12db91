//! The host's Python: which one, and where its parts are.

use crate::failure;
use gametape_schemas::Failure;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
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
    let output = Command::new(&name)
        .args(["-I", "-c", QUESTION])
        .output()
        .map_err(|e| failure::python(&name, e))?;
    let found: Interpreter = serde_json::from_slice(&output.stdout)
        .map_err(|_| failure::python(&name, String::from_utf8_lossy(&output.stderr).trim()))?;
    if is_recent(&found.version) {
        Ok(found)
    } else {
        let why = format!("version {} is older than 3.11", found.version);
        Err(failure::python(&name, why))
    }
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
    fn versions_are_numbers() {
        assert!(is_recent("3.11.7") && is_recent("3.100.0"));
        assert!(!is_recent("3.9.18") && !is_recent("2.7.18") && !is_recent(""));
    }
}
