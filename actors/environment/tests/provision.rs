//! Provisioning through the real package index, into a cache of its own. Skips loudly
//! where the index cannot be reached.

#![allow(clippy::unwrap_used)]

mod common;

use gametape_environment::{diff, provision, tree};
use gametape_schemas::FailureKind;

#[test]
fn an_environment_is_made_once_and_failures_say_why() {
    let cache = tempfile::tempdir().unwrap();
    let recipe = common::recipe();
    let (made, cached) = match provision::provision(cache.path(), &recipe) {
        Ok(done) => done,
        Err(failure) => {
            eprintln!("SKIPPED: an_environment_is_made_once_and_failures_say_why: {failure}");
            return;
        }
    };
    assert!(!cached);
    let answer = made.answer(cached);
    assert_eq!(answer.environment, recipe.id());
    assert!(made.repository().join("toolz/itertoolz.py").is_file());
    let script = std::fs::read_to_string(made.venv().join("bin/pytest")).unwrap();
    assert!(script.starts_with("#!/venv/bin/python"), "{script}");
    let config = std::fs::read_to_string(made.venv().join("pyvenv.cfg")).unwrap();
    assert!(!config.contains(".half"), "{config}");
    // Two at once: the second one finds what the first one made.
    let (again, cached) = provision::provision(cache.path(), &recipe).unwrap();
    assert!(cached);
    assert_eq!(
        (&again.manifest, &again.files),
        (&made.manifest, &made.files)
    );

    // Somebody edits the clean tree: it is made again, from the archive in the cache.
    let file = made.repository().join("toolz/itertoolz.py");
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, "changed\n").unwrap();
    let (mended, cached) = provision::provision(cache.path(), &recipe).unwrap();
    assert!(!cached);
    assert_eq!(mended.manifest.tree, made.manifest.tree);
    let files = tree::scan(&mended.repository(), diff::is_by_product)
        .unwrap()
        .files;
    assert_eq!(tree::digest_of(&files), made.manifest.tree);

    // A hash that no file has: pip's own words are in the failure, nothing is left.
    let mut wrong = recipe.clone();
    wrong.requirements = vec![format!("iniconfig==2.3.1 --hash=sha256:{}", "0".repeat(64))];
    let failure = provision::provision(cache.path(), &wrong).unwrap_err();
    assert_eq!(
        (failure.kind, failure.code.as_str()),
        (FailureKind::Provision, "GT-ENV-PROVISION")
    );
    assert!(failure.message.contains("HASHES"), "{failure}");
    let manifests = std::fs::read_dir(cache.path().join("environments")).unwrap();
    let manifests = manifests
        .flatten()
        .filter(|e| e.path().join("manifest.json").is_file());
    assert_eq!(manifests.count(), 1);

    let mut untested = recipe;
    untested.tests = vec!["no/such/tests".into()];
    let failure = provision::provision(cache.path(), &untested).unwrap_err();
    assert_eq!(
        (failure.kind, failure.code.as_str()),
        (FailureKind::Input, "GT-ENV-NO-TESTS")
    );
}
