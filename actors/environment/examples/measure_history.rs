//! What a root commit costs: `cargo run -p gametape-environment --example measure_history
//! -- [FILES]`, 7000 by default, of some kilobytes each. Prints medians in milliseconds.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{exec, median};
use gametape_environment::ground::Layers;
use gametape_environment::local::{LocalSandbox, OpenPlan};
use gametape_environment::provision::{Manifest, Prepared, python};
use gametape_environment::root_commit::RootCommits;
use gametape_environment::sandbox::Sandbox;
use gametape_environment::tree::{self, Entry, Snapshot};
use gametape_environment::{Limits, helper_beside, probe};
use gametape_schemas::EnvironmentRecipe;
use gametape_schemas::message::History;
use std::path::Path;
use std::sync::Arc;

/// Files that differ, of the size and the repetitiveness of source.
fn files(count: usize) -> Snapshot {
    let one = |n: usize| {
        let line = |k: usize| format!("def f{k}_{n}(a, b={}):\n    return a * {k} + b\n\n", n * k);
        let text: String = (0..20 + n * 7 % 300).map(line).collect();
        (
            format!("d{}/f{n}.py", n / 40),
            Entry::plain(text.as_bytes()),
        )
    };
    (0..count).map(one).collect()
}

fn prepared(directory: &Path, files: Snapshot) -> Prepared {
    std::fs::create_dir(directory.join("venv")).unwrap();
    tree::write(&directory.join("tree"), &files, None).unwrap();
    let manifest = Manifest {
        layout: 0,
        recipe: EnvironmentRecipe::of_image("measure", "0", "none", "/none"),
        tree: tree::digest_of(&files),
        interpreter: python::interpreter().unwrap(),
    };
    Prepared::by_hand(directory.to_owned(), manifest, files)
}

fn main() {
    let count = std::env::args().nth(1);
    let count = count.map_or(7000, |count| count.parse().unwrap());
    let scratch = tempfile::tempdir().unwrap();
    let files = files(count);
    let bytes: usize = files.values().map(|file| file.bytes.len()).sum();
    println!("{count} files, {:.1} MB", bytes as f64 / 1e6);
    let host = Arc::new(probe::host().unwrap());
    let helper = helper_beside(&std::env::current_exe().unwrap()).unwrap();
    let prepared = Arc::new(prepared(scratch.path(), files));
    let open = |number: usize, history, commits: &RootCommits| {
        LocalSandbox::open(OpenPlan {
            host: host.clone(),
            prepared: prepared.clone(),
            private: scratch.path().join(number.to_string()),
            helper: helper.clone(),
            number: number as u64,
            label: "measure".into(),
            limits: Limits::default(),
            groups: None,
            patches: &[],
            hidden: &[],
            history,
            commits,
            layers: Layers::default(),
        })
        .unwrap()
    };
    let commits = RootCommits::default();
    median("open, no history", 20, |n| {
        open(n, History::None, &commits).close().unwrap();
    });
    median("open, a new root commit", 5, |n| {
        let commits = RootCommits::default();
        open(100 + n, History::Root, &commits).close().unwrap();
    });
    open(199, History::Root, &commits);
    median("open, a root commit", 20, |n| {
        open(200 + n, History::Root, &commits).close().unwrap();
    });
    let at = open(300, History::Root, &commits);
    let status = |_| {
        let done = at.exec(&exec(&["git", "status", "--porcelain"])).unwrap();
        let said = (done.exit_code, done.stdout.as_str());
        assert_eq!(said, (Some(0), ""), "{done:?}");
    };
    median("git status, the first", 1, status);
    median("git status", 10, status);
    let used = at.close().unwrap();
    println!("written: {} bytes", used.written_bytes.unwrap_or_default());
}
