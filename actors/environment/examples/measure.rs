//! Times of a sandbox on this machine: `cargo run -p gametape-environment --example
//! measure -- RECIPE.json TEST_FILE`. Prints medians in milliseconds.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{exec, median};
use gametape_environment::ground::Layers;
use gametape_environment::local::{LocalSandbox, OpenPlan};
use gametape_environment::root_commit::RootCommits;
use gametape_environment::sandbox::Sandbox;
use gametape_environment::{Limits, helper_beside, probe, provision};
use gametape_schemas::message::History;
use std::sync::Arc;
use std::time::Instant;

fn main() {
    let mut args = std::env::args().skip(1);
    let recipe = std::fs::read(args.next().expect("a recipe")).unwrap();
    let recipe = serde_json::from_slice(&recipe).unwrap();
    let test = args.next().expect("a test file");
    let cache =
        std::path::PathBuf::from(std::env::var_os("GAMETAPE_CACHE").expect("GAMETAPE_CACHE"));
    let begin = Instant::now();
    let (prepared, cached) = provision::provision(&cache, &recipe).unwrap();
    println!(
        "provisioned in {:.2} s, cached: {cached}",
        begin.elapsed().as_secs_f64()
    );
    let prepared = Arc::new(prepared);
    let host = Arc::new(probe::host().unwrap());
    // Examples lie where tests do: one directory below the programs.
    let helper = helper_beside(&std::env::current_exe().unwrap()).unwrap();
    let scratch = tempfile::tempdir_in(&cache).unwrap();
    let commits = RootCommits::default();
    let open_as = |number: usize, history: History| {
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
            commits: &commits,
            layers: Layers::default(),
        })
        .unwrap()
    };
    let open = |number: usize| open_as(number, History::None);
    median("open", 30, |n| {
        open(n);
    });
    median("open + true + close", 30, |n| {
        let sandbox = open(100 + n);
        assert_eq!(sandbox.exec(&exec(&["true"])).unwrap().exit_code, Some(0));
        sandbox.close().unwrap();
    });
    // The first one makes the commit, the others find it made.
    median("open, a new root commit", 1, |_| {
        open_as(200, History::Root);
    });
    median("open, a root commit", 30, |n| {
        open_as(201 + n, History::Root);
    });
    let versed = open_as(300, History::Root);
    median("git status", 5, |_| {
        let done = versed
            .exec(&exec(&["git", "status", "--porcelain"]))
            .unwrap();
        assert_eq!(
            (done.exit_code, done.stdout.as_str()),
            (Some(0), ""),
            "{done:?}"
        );
    });
    let sandbox = open(1000);
    median("true", 50, |_| {
        sandbox.exec(&exec(&["true"])).unwrap();
    });
    median("diff", 20, |_| {
        sandbox.diff().unwrap();
    });
    median("python -c pass", 20, |_| {
        sandbox.exec(&exec(&["python", "-c", "pass"])).unwrap();
    });
    let pytest = [
        "python",
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        test.as_str(),
    ];
    let outcome = sandbox.exec(&exec(&pytest)).unwrap();
    println!("{}", outcome.stdout.lines().last().unwrap_or_default());
    median("pytest of one file", 7, |_| {
        sandbox.exec(&exec(&pytest)).unwrap();
    });
}
