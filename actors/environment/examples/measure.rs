//! Times of a sandbox on this machine: `cargo run -p gametape-environment --example
//! measure -- RECIPE.json TEST_FILE`. Prints medians in milliseconds.
#![allow(clippy::unwrap_used, missing_docs)]

use gametape_environment::local::{LocalSandbox, OpenPlan};
use gametape_environment::sandbox::Sandbox;
use gametape_environment::{Limits, helper_beside, probe, provision};
use gametape_schemas::SandboxId;
use gametape_schemas::message::Exec;
use std::sync::Arc;
use std::time::Instant;

fn exec(argv: &[&str]) -> Exec {
    Exec {
        sandbox: SandboxId::new("measure"),
        argv: argv.iter().map(|&word| word.to_owned()).collect(),
        stdin: None,
        env: vec![],
        timeout_ms: 120_000,
        output_cap: 64 << 10,
    }
}

fn median(name: &str, runs: usize, mut work: impl FnMut(usize)) {
    let mut times: Vec<f64> = (0..runs)
        .map(|run| {
            let begin = Instant::now();
            work(run);
            begin.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    println!(
        "{name:<24} p50 {:8.2} ms   p95 {:8.2} ms   min {:8.2} ms",
        times[runs / 2],
        times[runs * 95 / 100],
        times[0]
    );
}

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
    let open = |number: usize| {
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
        })
        .unwrap()
    };
    median("open", 30, |n| {
        open(n);
    });
    median("open + true + close", 30, |n| {
        let sandbox = open(100 + n);
        assert_eq!(sandbox.exec(&exec(&["true"])).unwrap().exit_code, Some(0));
        sandbox.close().unwrap();
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
