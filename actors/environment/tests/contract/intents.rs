//! A process that is killed around the making of a container leaves nothing that the next
//! start does not remove: the container's label comes with it, so there is no moment at
//! which it is there and nobody's.

use crate::rooms::{docker_with, engine, number, socket};
use gametape_environment::docker::{
    Bounds, DockerPlan, DockerSandbox, Engine, EngineSettings, reap,
};
use gametape_environment::root_commit::RootCommits;
use gametape_environment::sandbox::Sandbox;
use gametape_schemas::message::History;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

/// The socket of the one between, for the process that is killed.
const SOCKET: &str = "GAMETAPE_TEST_ENGINE_BETWEEN";

/// When it is killed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Moment {
    /// It has told the name, and has not asked for the container.
    BeforeCreate,
    /// The engine was asked; the answer never came back.
    AtCreate,
    /// The container is there, and was not started.
    BeforeStart,
    /// It was started; the answer never came back.
    AtStart,
}

impl Moment {
    /// The request at which it comes, and whether that reaches the engine.
    fn request(self) -> (&'static [u8], bool) {
        match self {
            Self::BeforeCreate => (b"/containers/create", false),
            Self::AtCreate => (b"/containers/create", true),
            Self::BeforeStart => (b"/start HTTP", false),
            Self::AtStart => (b"/start HTTP", true),
        }
    }
}

/// Carries a client's bytes to the engine until the moment has come; then nothing more in
/// either direction, and says so.
fn between(at: &Path, engine: String, moment: Moment) -> Receiver<()> {
    let (come, has_come) = channel();
    let listener = UnixListener::bind(at).unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (client, server) = (client.unwrap(), UnixStream::connect(&engine).unwrap());
            let come = come.clone();
            std::thread::spawn(move || one(client, server, moment, &come));
        }
    });
    has_come
}

fn one(mut client: UnixStream, mut server: UnixStream, moment: Moment, come: &Sender<()>) {
    let (mark, reaches) = moment.request();
    let (mut back_to, mut back_from) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let mute = Arc::new(AtomicBool::new(false));
    let is_mute = mute.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 8 << 10];
        while let Ok(count @ 1..) = back_from.read(&mut buffer) {
            if !is_mute.load(Ordering::SeqCst) && back_to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
    });
    let mut buffer = [0; 64 << 10];
    while let Ok(count @ 1..) = client.read(&mut buffer) {
        let piece = &buffer[..count];
        let is_now = piece.windows(mark.len()).any(|window| window == mark);
        if is_now {
            mute.store(true, Ordering::SeqCst);
        }
        if (!is_now || reaches) && server.write_all(piece).is_err() {
            break;
        }
        if is_now {
            come.send(()).unwrap();
        }
        if is_now && !reaches {
            break;
        }
    }
    // The engine must not see that its client ends before it has done what it was asked.
    std::mem::forget((client, server));
}

/// No test by itself: the process of the test below that is killed.
#[test]
fn doomed() {
    let Some(socket) = std::env::var_os(SOCKET) else {
        return;
    };
    // The image is there already: asked past the one between.
    let (_, image) = engine("doomed").unwrap();
    let settings = EngineSettings {
        address: Some(format!("unix://{}", Path::new(&socket).display())),
        ..EngineSettings::default()
    };
    let through = Engine::connect(settings).unwrap();
    let opened = DockerSandbox::open(DockerPlan {
        engine: through,
        image: &image,
        number: number(),
        run: "test".into(),
        label: "doomed".into(),
        bounds: Bounds::default(),
        patches: &[],
        hidden: &[],
        history: History::None,
        commits: &RootCommits::default(),
        intent: &|name| {
            println!("\nINTENT {name}");
            std::io::stdout().flush().unwrap();
        },
    });
    // It is killed before an answer comes; without one it only ends.
    drop(opened);
    let _ = std::io::stdin().read_line(&mut String::new());
    std::process::exit(1);
}

fn named(name: &str) -> Vec<String> {
    let out = Command::new("docker")
        .args(["ps", "-a", "--format", "{{.Names}} {{.State}}"])
        .output()
        .unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    let lines = text.lines().filter(|line| line.starts_with(name));
    lines.map(str::to_owned).collect()
}

#[test]
fn a_kill_around_the_making_of_a_container_leaks_nothing() {
    let test = "a_kill_around_the_making_of_a_container_leaks_nothing";
    let Some((engine, image)) = engine(test) else {
        return;
    };
    let has_docker = Command::new("docker").arg("version").output().is_ok();
    if !has_docker {
        eprintln!("SKIPPED: {test}: no `docker` program to look with");
        return;
    }
    let Some(real) = socket(test) else {
        return;
    };
    let living = docker_with(&engine, &image, Bounds::default(), &[], &[]);
    for moment in [
        Moment::BeforeCreate,
        Moment::AtCreate,
        Moment::BeforeStart,
        Moment::AtStart,
    ] {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path().join("between.sock");
        let has_come = between(&at, real.clone(), moment);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["intents::doomed", "--exact", "--nocapture"])
            .env(SOCKET, &at)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let intent = lines.find_map(|line| Some(line.unwrap().strip_prefix("INTENT ")?.to_owned()));
        let name = intent.unwrap_or_else(|| panic!("{moment:?}: no intent was told"));
        has_come.recv().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        if moment == Moment::AtCreate {
            // The engine goes on without its client; what it makes is seen by its name.
            while named(&name).is_empty() {
                std::thread::yield_now();
            }
        }
        let found = named(&name);
        let expected = match moment {
            Moment::BeforeCreate => 0,
            _ => 1,
        };
        assert_eq!(found.len(), expected, "{moment:?}: {found:?}");
        reap(&engine).unwrap();
        assert_eq!(named(&name), [""; 0], "{moment:?}");
    }
    assert_eq!(named(living.container()).len(), 1, "the living keep theirs");
    living.close().unwrap();
}
