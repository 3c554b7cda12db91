//! What git finds in a sandbox: one root commit with the base state and no other object.

use crate::rooms::{self, Open, docker_as, engine, run, shell};
use gametape_environment::docker::Bounds;
use gametape_environment::ground::Layers;
use gametape_environment::sandbox::Sandbox;
use gametape_schemas::message::{FileRead, FileWritten, History, PatchApplied};
use std::process::Command;
use std::sync::Arc;

const BUG: &str = "--- a/a.py\n+++ b/a.py\n@@ -1,2 +1,2 @@\n-x = 1\n+x = 9\n y = 2\n";

pub fn has_git(test: &str) -> bool {
    let found = Command::new("git").arg("--version").output();
    let found = found.is_ok_and(|output| output.status.success());
    if !found {
        eprintln!("SKIPPED: {test}: no git on this machine");
    }
    found
}

pub fn git(at: &dyn Sandbox, words: &str) -> String {
    let done = shell(at, &format!("git {words}"));
    assert_eq!(done.exit_code, Some(0), "git {words}: {done:?}");
    done.stdout
}

/// Checks it; the commit.
fn only_a_root(open: Open<'_>) -> String {
    let at = open(&[BUG.to_owned()], &["tests".into()]);
    let said = |words: &str| git(&*at, words);
    assert_eq!(said("status --porcelain --ignored"), "");
    let head = said("rev-parse HEAD").trim().to_owned();
    // One commit without a parent, one name for it, nobody's date.
    let log = said("log --all --date=raw --format='%H|%P|%an|%ad|%cd'");
    let when = "946684800 +0000";
    assert_eq!(log, format!("{head}||gametape|{when}|{when}\n"));
    assert_eq!(
        said("for-each-ref --format='%(refname)'"),
        "refs/heads/main\n"
    );
    for words in ["tag", "remote", "stash list", "reflog --all", "notes list"] {
        assert_eq!(said(words), "", "{words}");
    }
    assert_eq!(shell(&*at, "find .git/logs 2>/dev/null").stdout, "");
    // Every object belongs to it, and none is anywhere else.
    let fsck = said("fsck --unreachable --root --full --no-progress 2>&1");
    assert_eq!(fsck, format!("root {head}\n"));
    let count = said("count-objects -v");
    for line in ["count: 0", "packs: 1", "garbage: 0", "size: 0"] {
        assert!(count.lines().any(|found| found == line), "{count}");
    }
    let all = said("cat-file --batch-all-objects --batch-check | wc -l");
    let reached = said("rev-list --objects --all | wc -l");
    assert_eq!(all, reached);
    assert!(
        count.contains(&format!("in-pack: {}\n", all.trim())),
        "{count}"
    );
    // The bug and not what it was made of; the hidden tests neither by name nor by content.
    let content = said("cat-file --batch-all-objects --batch --buffer | tr -d '\\000'");
    assert!(
        content.contains("x = 9\n") && !content.contains("x = 1\n"),
        "{content}"
    );
    assert!(
        !content.contains("secret") && !content.contains("test_a"),
        "{content}"
    );
    assert_eq!(said("ls-files | wc -l").trim(), "6");
    // What an agent does with it is its own, and no part of a patch.
    assert_eq!(
        at.write("a.py", "x = 3\ny = 2\n").unwrap(),
        FileWritten::Written
    );
    assert!(said("diff").contains("-x = 9\n+x = 3\n"));
    said("commit -qam mine");
    said("stash list");
    assert_eq!(said("log --format=%an"), "agent\ngametape\n");
    let diff = at.diff().unwrap();
    assert!(
        diff.contains("-x = 9\n+x = 3\n") && !diff.contains(".git"),
        "{diff}"
    );
    said("checkout -q HEAD~1 -- a.py");
    assert_eq!(at.diff().unwrap(), "");
    assert!(matches!(
        at.read("tests/test_a.py").unwrap(),
        FileRead::Refused(_)
    ));
    // It is a repository for those who patch, too.
    let add = "--- /dev/null\n+++ b/n.py\n@@ -0,0 +1 @@\n+n = 1\n";
    assert_eq!(at.apply(add).unwrap(), PatchApplied::Applied);
    assert_eq!(said("status --porcelain"), "M  a.py\n?? n.py\n");
    assert_eq!(at.close().unwrap().scratch, [""; 0]);
    head
}

#[test]
fn git_finds_one_root_commit_and_no_other_object() {
    let test = "git_finds_one_root_commit_and_no_other_object";
    if !has_git(test) {
        return;
    }
    let mut heads = Vec::new();
    for most in [Layers::Overlay, Layers::Limited] {
        rooms::local_as(test, History::Root, most, |open| {
            heads.push(only_a_root(open))
        });
    }
    if let Some((engine, image)) = engine(test) {
        heads.push(only_a_root(&|patches, hidden| {
            let bounds = Bounds::default();
            let asked = (patches, hidden);
            Arc::new(docker_as(&engine, &image, bounds, asked, History::Root))
        }));
    }
    assert!(heads.windows(2).all(|pair| pair[0] == pair[1]), "{heads:?}");
}

#[test]
fn a_history_of_a_container_survives_its_restart() {
    let test = "a_history_of_a_container_survives_its_restart";
    let (true, Some((engine, image))) = (has_git(test), engine(test)) else {
        return;
    };
    let at = docker_as(
        &engine,
        &image,
        Bounds::default(),
        (&[], &[]),
        History::Root,
    );
    // Faster than it is killed: the container itself has to end.
    let killer = "import os\nfor _ in range(60):\n    if os.fork() == 0:\n        \
        while True:\n            os.fork() or os.setsid()";
    run(&at, &["timeout", "5", "python", "-c", killer]);
    assert_eq!(git(&at, "status --porcelain"), "");
    assert!(git(&at, "fsck --root --no-progress 2>&1").starts_with("root "));
    at.close().unwrap();
}

#[test]
fn only_an_image_of_ones_own_has_a_history() {
    let test = "only_an_image_of_ones_own_has_a_history";
    if let Some(room) = rooms::LocalRoom::new(test) {
        let failure = room.refused(History::AsIs);
        assert_eq!(failure.code, "GT-SANDBOX-HISTORY");
        assert!(failure.help.contains("docker"), "{failure}");
    }
    if let Some((engine, image)) = engine(test) {
        let failure = rooms::docker_refused(&engine, &image, History::AsIs);
        assert_eq!(failure.code, "GT-SANDBOX-HISTORY");
    }
}
