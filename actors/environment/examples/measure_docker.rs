//! Times of a sandbox on this machine's Docker Engine: `cargo run -p gametape-environment
//! --example measure_docker -- IMAGE DIRECTORY`, with an image that the engine has and a
//! directory of it. Prints medians in milliseconds.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{exec, median};
use gametape_environment::docker::{
    Bounds, DockerPlan, DockerSandbox, Engine, EngineSettings, image, reap,
};
use gametape_environment::root_commit::RootCommits;
use gametape_environment::sandbox::Sandbox;
use gametape_schemas::SandboxId;
use gametape_schemas::message::{History, ShellInput};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

fn main() {
    let mut args = std::env::args().skip(1);
    let (reference, place) = (args.next().expect("an image"), args.next().expect("a path"));
    let engine = Engine::connect(EngineSettings::default()).unwrap();
    println!("{:?}", reap(&engine).unwrap());
    let begin = Instant::now();
    let image = image::own(&engine, &reference, &place).unwrap();
    let files = image.files.len();
    println!(
        "image read in {:.2} s: {files} files",
        begin.elapsed().as_secs_f64()
    );
    let number = AtomicU64::new(0);
    let commits = RootCommits::default();
    let open_as = |history: History| {
        DockerSandbox::open(DockerPlan {
            engine: engine.clone(),
            image: &image,
            number: number.fetch_add(1, Ordering::Relaxed),
            run: "measure".into(),
            label: "measure".into(),
            bounds: Bounds::default(),
            patches: &[],
            hidden: &[],
            history,
            commits: &commits,
            intent: &|_| {},
        })
        .unwrap()
    };
    let open = || open_as(History::None);
    median("open, a root commit", 5, |_| {
        open_as(History::Root).close().unwrap();
    });
    median("open an image as it is", 5, |_| {
        open_as(History::AsIs).close().unwrap();
    });
    let mut held = Vec::new();
    median("open", 20, |_| held.push(open()));
    let at = &held[0];
    median("exec true", 40, |_| {
        at.exec(&exec(&["true"])).unwrap();
    });
    // Its counters are asked for, too.
    median("exec false", 40, |_| {
        at.exec(&exec(&["false"])).unwrap();
    });
    median("write", 40, |run| {
        at.write("measure.txt", &run.to_string()).unwrap();
    });
    median("read, tree known", 40, |_| {
        at.read("measure.txt").unwrap();
    });
    median("exec, then diff", 40, |_| {
        at.exec(&exec(&["true"])).unwrap();
        at.diff().unwrap();
    });
    median("end at a limit of 100 ms", 10, |_| {
        let mut endless = exec(&["sh", "-c", "while :; do :; done"]);
        endless.timeout_ms = 100;
        assert!(at.exec(&endless).unwrap().timed_out);
    });
    let said = |command: &str| {
        let input = ShellInput {
            sandbox: SandboxId::new("measure"),
            command: command.to_owned(),
            is_input: false,
            timeout_ms: Some(60_000),
        };
        assert_eq!(at.shell(&input).unwrap().exit_code, Some(0));
    };
    median("shell, first true", 1, |_| said("true"));
    median("shell, true", 40, |_| said("true"));
    median("exec true beside it", 40, |_| {
        at.exec(&exec(&["true"])).unwrap();
    });
    median("diff beside it", 40, |_| {
        at.diff().unwrap();
    });
    println!("{:?}", at.usage());
    median("close", 20, |run| {
        held[run].close().unwrap();
    });
    for threads in [1, 4, 8] {
        let begin = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    for _ in 0..4 {
                        let at = open();
                        at.exec(&exec(&["true"])).unwrap();
                        at.close().unwrap();
                    }
                });
            }
        });
        let rate = f64::from(threads * 4) / begin.elapsed().as_secs_f64();
        println!("{threads} threads: {rate:.2} sandboxes (open, exec, close) a second");
    }
}
