//! What both measurements of sandboxes have in common.

use gametape_schemas::SandboxId;
use gametape_schemas::message::Exec;
use std::time::Instant;

/// A command with two minutes.
pub fn exec(argv: &[&str]) -> Exec {
    Exec {
        sandbox: SandboxId::new("measure"),
        argv: argv.iter().map(|&word| word.to_owned()).collect(),
        stdin: None,
        env: vec![],
        timeout_ms: 120_000,
        output_cap: 64 << 10,
    }
}

/// Does something several times, with the number of the time; prints how long it took.
pub fn median(name: &str, runs: usize, mut work: impl FnMut(usize)) {
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
