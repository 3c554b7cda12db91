//! An engine that dies or hangs in the middle: told by code, in bounded time, and never
//! as a loss of the agent's.

use crate::rooms::{docker_with, engine, order, socket};
use gametape_environment::docker::{Bounds, Engine, EngineSettings};
use gametape_environment::sandbox::Sandbox;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Stands between a client and the engine, and can cut or freeze what goes through.
#[derive(Default)]
struct Between {
    open: Mutex<Vec<UnixStream>>,
    frozen: AtomicBool,
    cut: AtomicBool,
}

impl Between {
    fn start(at: &Path, engine: String) -> Arc<Self> {
        let this = Arc::new(Self::default());
        let listener = UnixListener::bind(at).unwrap();
        let serving = this.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (client, server) = (client.unwrap(), UnixStream::connect(&engine).unwrap());
                let mut open = serving.open.lock().unwrap();
                if serving.cut.load(Ordering::SeqCst) {
                    continue;
                }
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let serving = serving.clone();
                    std::thread::spawn(move || serving.copy(from, to));
                }
                open.extend([client, server]);
            }
        });
        this
    }

    fn copy(&self, mut from: UnixStream, mut to: UnixStream) {
        let mut buffer = [0; 8 << 10];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if !self.frozen.load(Ordering::SeqCst) && to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    }

    fn cut(&self) {
        let open = self.open.lock().unwrap();
        self.cut.store(true, Ordering::SeqCst);
        for stream in open.iter() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// A command that hangs, with the engine taken away in its middle; the failure's code.
fn taken_away(test: &str, limit_ms: u64, take: impl FnOnce(&Between)) -> Option<String> {
    let (direct, image) = engine(test)?;
    let socket = socket(test)?;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("between.sock");
    let between = Between::start(&path, socket);
    let settings = EngineSettings {
        address: Some(format!("unix://{}", path.display())),
        call: Duration::from_secs(2),
        slow: Duration::from_secs(8),
        ..EngineSettings::default()
    };
    let through = Engine::connect(settings).unwrap();
    let at = docker_with(&through, &image, Bounds::default(), &[], &[]);
    let mark = order(
        &["sh", "-c", "echo started > mark; sleep 300"],
        limit_ms,
        100,
    );
    let begin = Instant::now();
    let failure = std::thread::scope(|scope| {
        let running = scope.spawn(|| at.exec(&mark));
        // The command has started once its file is there: asked past the one between.
        let started = || {
            let out = Command::new("docker")
                .args(["exec", at.container(), "cat", "/testbed/mark"])
                .output()
                .unwrap();
            out.stdout == b"started\n"
        };
        while !started() {
            assert!(
                begin.elapsed() < Duration::from_secs(60),
                "it never started"
            );
        }
        take(&between);
        running.join().unwrap().unwrap_err()
    });
    assert!(begin.elapsed() < Duration::from_secs(100), "{failure}");
    assert!(failure.kind.is_retryable(), "{failure}");
    assert!(at.close().is_err(), "nobody could remove it");
    drop(direct);
    let name = at.container().to_owned();
    drop(at);
    let removed = Command::new("docker").args(["rm", "-fv", &name]).output();
    assert!(removed.unwrap().status.success());
    Some(failure.code)
}

#[test]
fn an_engine_that_dies_in_a_command_is_gone() {
    let test = "an_engine_that_dies_in_a_command_is_gone";
    if let Some(code) = taken_away(test, 300_000, Between::cut) {
        assert_eq!(code, "GT-DOCKER-GONE");
    }
}

#[test]
fn an_engine_that_hangs_in_a_command_is_late() {
    let test = "an_engine_that_hangs_in_a_command_is_late";
    let freeze = |between: &Between| between.frozen.store(true, Ordering::SeqCst);
    if let Some(code) = taken_away(test, 300_000, freeze) {
        assert_eq!(code, "GT-DOCKER-TIMEOUT");
    }
}
