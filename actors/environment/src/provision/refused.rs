//! A recipe that cannot be installed is not tried over and over: what came of it is kept
//! beside the environment's place until the recipe changes or somebody removes it.
//! What the network or the machine did is not kept: it may be better next time.

use super::LAYOUT;
use super::python::Interpreter;
use gametape_schemas::{EnvironmentRecipe, Failure};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Why an environment was not made.
#[derive(Debug)]
pub(super) struct Refused {
    pub failure: Failure,
    /// Whether the same recipe would fail in the same way again.
    pub lasting: bool,
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self {
            failure,
            lasting: false,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Kept {
    layout: u32,
    recipe: EnvironmentRecipe,
    interpreter: Interpreter,
    failure: Failure,
}

/// What is kept of this recipe with this interpreter.
pub(super) fn find(
    path: &Path,
    recipe: &EnvironmentRecipe,
    interpreter: &Interpreter,
) -> Option<Failure> {
    let kept: Kept = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    let same = (kept.layout, &kept.recipe, &kept.interpreter) == (LAYOUT, recipe, interpreter);
    same.then_some(kept.failure)
}

/// Keeps a failure, and gives it with the way to try again.
pub(super) fn keep(
    path: &Path,
    recipe: &EnvironmentRecipe,
    interpreter: &Interpreter,
    failure: Failure,
) -> Failure {
    let failure = failure.with_help(format!(
        "correct the recipe; this failure is kept and the same recipe is not tried \
         again until {} is removed",
        path.display()
    ));
    let kept = Kept {
        layout: LAYOUT,
        recipe: recipe.clone(),
        interpreter: interpreter.clone(),
        failure,
    };
    // Half a file is one that cannot be read, and then it is tried again.
    let written = serde_json::to_vec_pretty(&kept)
        .map_err(std::io::Error::from)
        .and_then(|text| std::fs::write(path, text));
    if let Err(error) = written {
        tracing::warn!(path = %path.display(), %error, "a failure is not kept");
    }
    kept.failure
}

/// Whether it is the recipe's own fault that a download failed, by pip's words. Anything
/// else may be the network's: an index that does not answer offers no versions, either.
pub(super) fn is_the_pins_fault(said: &str) -> bool {
    [
        "DO NOT MATCH THE HASHES",
        "Invalid requirement",
        "Hashes are required in --require-hashes mode",
        "is not a supported wheel on this platform",
    ]
    .iter()
    .any(|words| said.contains(words))
}

/// Whether it was the network's fault, by the words of those that use it.
pub(super) fn is_the_networks_fault(said: &str) -> bool {
    [
        "Could not resolve host",
        "Temporary failure in name resolution",
        "Name or service not known",
        "Failed to establish a new connection",
        "Connection refused",
        "Connection reset",
        "Connection timed out",
        "Network is unreachable",
        "timed out",
        "unable to access",
        "Could not read from remote repository",
        "from versions: none",
    ]
    .iter()
    .any(|words| said.contains(words))
}

/// Whether the machine was at fault when an installation from files failed.
pub(super) fn is_the_machines_fault(said: &str) -> bool {
    [
        "No space left on device",
        "Disk quota exceeded",
        "Read-only file system",
        "Input/output error",
        "Too many open files",
        "Cannot allocate memory",
        "MemoryError",
        "can't start new thread",
    ]
    .iter()
    .any(|words| said.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_and_machines_are_told_from_pins() {
        let hash = "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE. If";
        assert!(is_the_pins_fault(hash));
        for network in [
            "WARNING: Retrying (Retry(total=4, connect=None)) after connection broken by \
             'NewConnectionError': Failed to establish a new connection",
            // An index out of reach offers nothing.
            "ERROR: Could not find a version that satisfies the requirement x==1 (from \
             versions: none)\nERROR: No matching distribution found for x==1",
            "ReadTimeoutError: Read timed out.",
            "",
        ] {
            assert!(!is_the_pins_fault(network), "{network}");
            assert!(
                is_the_networks_fault(network) || network.is_empty(),
                "{network}"
            );
        }
        assert!(is_the_machines_fault(
            "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"
        ));
        assert!(!is_the_machines_fault("ERROR: x has an invalid wheel"));
    }
}
