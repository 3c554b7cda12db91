//! What clean runs of a package's tests gave, kept in the user's cache: it follows from
//! the environment, and a forge that is taken up again need not run them again.
//!
//! A kept survey that cannot be read, or was made of anything else, is as good as none.

use super::driver::PROGRAM;
use super::reach::Reference;
use gametape_schemas::message::Provisioned;
use gametape_schemas::{Digest, EnvironmentRecipe};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Raised when what is kept changes its meaning.
const FORMAT: u32 = 1;

/// What clean runs of one test file gave.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct Observed {
    /// What passes in it.
    pub(crate) reference: Reference,
    /// Path, first line and number of calls of each function reached.
    pub(crate) calls: Vec<(String, usize, u64)>,
}

/// By test file; those that are of no use are not in it.
pub(crate) type Observations = BTreeMap<String, Observed>;

/// A kept survey as it lies in its file.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// Of everything below; damage is seen by it.
    digest: Digest,
    observed: Observations,
}

/// Where the survey of an environment is kept: named after all that it depends on.
pub(crate) fn place(
    directory: &Path,
    provisioned: &Provisioned,
    recipe: &EnvironmentRecipe,
    limit_ms: u64,
) -> Option<PathBuf> {
    let parts = (
        FORMAT,
        &provisioned.environment,
        &provisioned.tree,
        &provisioned.python,
        recipe,
        (PROGRAM, gametape_grader::RULES, limit_ms),
    );
    let name = Digest::of_value(&parts).ok()?;
    Some(directory.join(format!("{}.json", name.0)))
}

/// The survey kept there, if it is whole.
pub(crate) fn load(place: &Path) -> Option<Observations> {
    let kept: Kept = serde_json::from_slice(&std::fs::read(place).ok()?).ok()?;
    let whole = Digest::of_value(&kept.observed).ok()? == kept.digest;
    whole.then_some(kept.observed)
}

/// Keeps a survey; it appears whole or not at all.
///
/// # Errors
/// The disk's. Without it the next forge runs the tests again.
pub(crate) fn save(place: &Path, observed: &Observations) -> std::io::Result<()> {
    let directory = place.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory)?;
    let kept = Kept {
        digest: Digest::of_value(observed)?,
        observed: observed.clone(),
    };
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(&serde_json::to_vec(&kept)?)?;
    file.as_file().sync_all()?;
    file.persist(place)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use gametape_schemas::EnvironmentId;
    use gametape_schemas::PinnedPackage;

    fn observed() -> Observations {
        let one = Observed {
            reference: Reference {
                passing: vec!["test_a.py::test_x".to_owned()],
                wall_ms: 12,
            },
            calls: vec![("box/core.py".to_owned(), 3, 40)],
        };
        BTreeMap::from([("test_a.py".to_owned(), one)])
    }

    #[test]
    fn what_is_kept_comes_back_and_damage_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("surveys/a.json");
        assert_eq!(load(&place), None);
        save(&place, &observed()).unwrap();
        assert_eq!(load(&place), Some(observed()));
        let text = std::fs::read_to_string(&place).unwrap();
        for damaged in [
            text.replace("\"wall_ms\":12", "\"wall_ms\":13"),
            text.replace("test_x", "test_y"),
            text[..text.len() / 2].to_owned(),
            String::new(),
        ] {
            assert_ne!(damaged, text);
            std::fs::write(&place, damaged).unwrap();
            assert_eq!(load(&place), None);
        }
    }

    #[test]
    fn another_tree_or_another_recipe_is_another_survey() {
        let recipe = EnvironmentRecipe {
            package: PinnedPackage {
                name: "box".to_owned(),
                version: "1".to_owned(),
                sha256: String::new(),
            },
            requirements: Vec::new(),
            source_root: ".".to_owned(),
            code: vec!["box".to_owned()],
            tests: vec!["tests".to_owned()],
            skip_tests: Vec::new(),
            layout: 1,
            python: None,
            source: None,
            setup: Vec::new(),
        };
        let there = Provisioned {
            environment: EnvironmentId::new("e"),
            repository: PathBuf::from("anywhere"),
            tree: Digest::of_bytes(b"tree"),
            python: "3.11".to_owned(),
            cached: false,
        };
        let name = |there: &Provisioned, recipe: &EnvironmentRecipe, limit| {
            place(Path::new("d"), there, recipe, limit).unwrap()
        };
        let first = name(&there, &recipe, 1);
        let elsewhere = Provisioned {
            repository: PathBuf::from("elsewhere"),
            cached: true,
            ..there.clone()
        };
        assert_eq!(name(&elsewhere, &recipe, 1), first, "not where it lies");
        let other_tree = Provisioned {
            tree: Digest::of_bytes(b"another"),
            ..there.clone()
        };
        let skipping = EnvironmentRecipe {
            skip_tests: vec!["tests/test_net.py".to_owned()],
            ..recipe.clone()
        };
        assert_ne!(name(&other_tree, &recipe, 1), first);
        assert_ne!(name(&there, &skipping, 1), first);
        assert_ne!(name(&there, &recipe, 2), first);
    }
}
