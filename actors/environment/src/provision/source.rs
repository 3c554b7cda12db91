//! Where the repository of an environment comes from: a package's source archive, a
//! commit, or an image of the user's.

use super::refused::Refused;
use super::{Job, fetch, git};
use crate::tree::Snapshot;
use crate::{archive, failure};
use gametape_schemas::{EnvironmentRecipe, Failure, RepositorySource};
use std::path::Path;

/// Makes the new directory `repository`.
pub(super) fn repository(job: &Job<'_>, repository: &Path) -> Result<(), Refused> {
    match &job.recipe.source {
        None => {
            let archive = fetch::fetch(job)?;
            archive::unpack(&archive, repository).map_err(|e| Refused {
                // The archive is the one that the recipe names: it stays what it is.
                lasting: e.kind() == std::io::ErrorKind::InvalidData,
                failure: job.failure(format!("its source archive cannot be unpacked: {e}")),
            })
        }
        Some(RepositorySource::Git { url, commit }) => git::fetch(job, url, commit, repository),
        Some(RepositorySource::Image { reference, .. }) => {
            Err(failure::needs_docker(reference).into())
        }
    }
}

/// Image and directory of a recipe that is one.
///
/// # Errors
/// `GT-ENV-PROVISION` for a recipe that is none, or that asks for more: what is in an
/// image is in it.
pub fn image_of(recipe: &EnvironmentRecipe) -> Result<(&str, &str), Failure> {
    let name = &recipe.package.name;
    let Some(RepositorySource::Image {
        reference,
        directory,
    }) = &recipe.source
    else {
        return Err(failure::provision(name, "its recipe names no image"));
    };
    let asked = [
        ("requirements", !recipe.requirements.is_empty()),
        ("a python", recipe.python.is_some()),
        ("setup", !recipe.setup.is_empty()),
    ];
    match asked.iter().find(|(_, is_asked)| *is_asked) {
        Some((what, _)) => Err(failure::provision(
            name,
            format!("the recipe names an image and {what}: put it into the image"),
        )),
        None => Ok((reference, directory)),
    }
}

/// Whether an image holds what its recipe names.
///
/// # Errors
/// `GT-ENV-NO-TESTS`.
pub fn check_image(recipe: &EnvironmentRecipe, files: &Snapshot) -> Result<(), Failure> {
    for path in recipe.tests.iter().chain(&recipe.code) {
        let path = path.trim_end_matches('/');
        let below = format!("{path}/");
        let is_there = |(name, _): (&String, _)| name == path || name.starts_with(&below);
        if !files.iter().any(is_there) {
            let why = format!("the repository in its image has no `{path}`");
            return Err(failure::no_tests(&recipe.package.name, why));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Entry;

    #[test]
    fn an_image_is_used_as_it_is() {
        let mut recipe = EnvironmentRecipe::of_image("o/r", "1", "image:1", "/testbed");
        assert_eq!(image_of(&recipe).unwrap(), ("image:1", "/testbed"));
        let files = Snapshot::from([("t/a.py".into(), Entry::plain(b""))]);
        assert!(check_image(&recipe, &files).is_ok());
        recipe.tests = vec!["t/".into()];
        assert!(check_image(&recipe, &files).is_ok());
        recipe.code = vec!["t/a".into()];
        let missing = check_image(&recipe, &files).unwrap_err();
        assert_eq!(missing.code, "GT-ENV-NO-TESTS");
        recipe.setup = vec!["true".into()];
        assert!(image_of(&recipe).unwrap_err().message.contains("setup"));
        recipe.source = None;
        assert!(image_of(&recipe).is_err());
    }
}
