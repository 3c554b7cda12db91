//! A small environment without a package index, and both back ends opened on it.

use gametape_environment::bubblewrap::Host;
use gametape_environment::cgroup::Pool;
use gametape_environment::docker::{
    Bounds, DockerPlan, DockerSandbox, Engine, EngineSettings, Image, image,
};
use gametape_environment::ground::Layers;
use gametape_environment::local::{LocalSandbox, OpenPlan};
use gametape_environment::private::Owned;
use gametape_environment::provision::{Manifest, Prepared, python};
use gametape_environment::root_commit::RootCommits;
use gametape_environment::sandbox::Sandbox;
use gametape_environment::starter::Choice;
use gametape_environment::tree::{self, Entry, Snapshot};
use gametape_environment::{Limits, helper_beside, probe};
use gametape_schemas::message::{Exec, ExecOutcome, History};
use gametape_schemas::{EnvironmentRecipe, Failure, PinnedPackage, SandboxId};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};

/// Opens sandboxes of one back end, with patches and hidden paths.
pub type Open<'a> = &'a dyn Fn(&[String], &[String]) -> Arc<dyn Sandbox>;

/// Not from 0: an actor in the same process counts, too, and names must differ.
static NUMBER: AtomicU64 = AtomicU64::new(1_000);

/// Root commits that were made for these tests.
static COMMITS: LazyLock<RootCommits> = LazyLock::new(RootCommits::default);

pub fn number() -> u64 {
    NUMBER.fetch_add(1, Ordering::Relaxed)
}

fn files() -> Snapshot {
    let run = Entry {
        executable: true,
        ..Entry::plain(b"#!/bin/sh\necho ran\n")
    };
    Snapshot::from([
        ("a.py".into(), Entry::plain(b"x = 1\ny = 2\n")),
        ("d/b.py".into(), Entry::plain(b"z = 3\n")),
        ("d/deep/c.txt".into(), Entry::plain(b"no end of line")),
        ("name with blank ü.txt".into(), Entry::plain(b"1\n")),
        ("run.sh".into(), run),
        ("tests/test_a.py".into(), Entry::plain(b"secret\n")),
        ("raw.bin".into(), Entry::plain(&[0xff, 0, 1])),
    ])
}

/// An environment made here: the host's interpreter, no packages.
pub fn prepared() -> Option<Arc<Prepared>> {
    // A static is never dropped: the next run of these tests removes the directory.
    static MADE: OnceLock<Option<(Owned, Arc<Prepared>)>> = OnceLock::new();
    let made = MADE.get_or_init(|| {
        let owned = Owned::new(&std::env::temp_dir().join("gametape-contract")).ok()?;
        let directory = owned.0.place(0);
        std::fs::create_dir(&directory).ok()?;
        let prepared = prepare(&directory)?;
        Some((owned.0, Arc::new(prepared)))
    });
    made.as_ref().map(|(_, prepared)| prepared.clone())
}

/// Makes the environment in a directory; `None` where there is no Python.
fn prepare(directory: &Path) -> Option<Prepared> {
    let interpreter = python::interpreter().ok()?;
    let venv = Command::new(&interpreter.base_executable)
        .args(["-m", "venv", "--without-pip"])
        .arg(directory.join("venv"))
        .status()
        .ok()?;
    if !venv.success() {
        return None;
    }
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(directory, open).ok()?;
    tree::write(&directory.join("repository"), &files(), None).ok()?;
    tree::write(&directory.join("tree"), &files(), None).ok()?;
    prepared_at(directory)
}

/// The environment that lies in a directory: another process of these tests made it.
pub fn prepared_at(directory: &Path) -> Option<Prepared> {
    let recipe = EnvironmentRecipe {
        package: PinnedPackage {
            name: "contract".into(),
            version: "1".into(),
            sha256: "0".repeat(64),
        },
        requirements: vec![],
        source_root: ".".into(),
        code: vec!["a.py".into()],
        tests: vec!["tests".into()],
        skip_tests: vec![],
        layout: 0,
        python: None,
        source: None,
        setup: Vec::new(),
    };
    let manifest = Manifest {
        layout: 0,
        recipe,
        tree: tree::digest_of(&files()),
        interpreter: python::interpreter().ok()?,
    };
    Some(Prepared::by_hand(directory.to_owned(), manifest, files()))
}

/// Where local sandboxes are opened. Its scratch directory goes last.
pub struct LocalRoom {
    host: Arc<Host>,
    prepared: Arc<Prepared>,
    helper: PathBuf,
    owned: Owned,
    _scratch: tempfile::TempDir,
}

impl LocalRoom {
    /// A room, or a loud skip.
    pub fn new(test: &str) -> Option<Self> {
        Self::on(test, probe::host())
    }

    /// The same with sandboxes that are started as one chooses.
    pub fn by(test: &str, choice: Choice) -> Option<Self> {
        Self::on(&format!("{test} ({choice:?})"), probe::host_by(choice))
    }

    fn on(test: &str, host: Result<Host, Failure>) -> Option<Self> {
        let skip = |why: &dyn std::fmt::Display| eprintln!("SKIPPED: {test} (local): {why}");
        let host = host.inspect_err(|failure| skip(failure)).ok()?;
        let helper = helper_beside(&std::env::current_exe().unwrap());
        let (Some(helper), Some(prepared)) = (helper, prepared()) else {
            skip(&"no helper program, or no Python");
            return None;
        };
        let scratch = tempfile::tempdir().unwrap();
        Some(Self {
            host: Arc::new(host),
            prepared,
            helper,
            owned: Owned::new(&scratch.path().join("s")).unwrap().0,
            _scratch: scratch,
        })
    }

    pub fn open(
        &self,
        limits: Limits,
        groups: Option<Arc<Pool>>,
        patches: &[String],
        hidden: &[String],
    ) -> LocalSandbox {
        self.open_as(
            limits,
            groups,
            (patches, hidden),
            History::None,
            Layers::Overlay,
        )
    }

    pub fn open_as(
        &self,
        limits: Limits,
        groups: Option<Arc<Pool>>,
        asked: (&[String], &[String]),
        history: History,
        layers: Layers,
    ) -> LocalSandbox {
        self.try_open(limits, groups, asked, history, layers)
            .unwrap()
    }

    /// Why a history cannot be had.
    pub fn refused(&self, history: History) -> Failure {
        let asked: (&[String], &[String]) = (&[], &[]);
        let opened = self.try_open(Limits::default(), None, asked, history, Layers::Overlay);
        opened.map(|_| ()).unwrap_err()
    }

    fn try_open(
        &self,
        limits: Limits,
        groups: Option<Arc<Pool>>,
        (patches, hidden): (&[String], &[String]),
        history: History,
        layers: Layers,
    ) -> Result<LocalSandbox, Failure> {
        let number = number();
        LocalSandbox::open(OpenPlan {
            host: self.host.clone(),
            prepared: self.prepared.clone(),
            private: self.owned.place(number),
            helper: self.helper.clone(),
            number,
            label: "contract".to_owned(),
            limits,
            groups,
            patches,
            hidden,
            history,
            commits: &COMMITS,
            layers,
        })
    }
}

/// Runs `work` on the local back end, or skips loudly.
pub fn local(test: &str, work: impl FnOnce(Open<'_>)) {
    local_as(test, History::None, Layers::Overlay, work);
}

/// The same with a history, or with less than an overlay.
pub fn local_as(test: &str, history: History, most: Layers, work: impl FnOnce(Open<'_>)) {
    if let Some(room) = LocalRoom::new(test) {
        work(&|patches, hidden| {
            let limits = Limits::default();
            let sandbox = room.open_as(limits, None, (patches, hidden), history, most);
            // Nobody forced more than was wanted.
            assert!(most == Layers::Overlay || sandbox.layers() != Some(Layers::Overlay));
            Arc::new(sandbox)
        });
    }
}

/// Where the engine's own socket is, for those who stand before it; a loud skip where it
/// has none.
pub fn socket(test: &str) -> Option<String> {
    let host = std::env::var("DOCKER_HOST").unwrap_or_default();
    let path = match host.strip_prefix("unix://") {
        Some(path) => path.to_owned(),
        None => "/var/run/docker.sock".to_owned(),
    };
    if std::os::unix::net::UnixStream::connect(&path).is_err() {
        eprintln!("SKIPPED: {test}: the engine is not at {path}");
        return None;
    }
    Some(path)
}

/// The engine and the image of the environment, or a loud skip.
pub fn engine(test: &str) -> Option<(Arc<Engine>, Image)> {
    let engine = match Engine::connect(EngineSettings::default()) {
        Ok(engine) => engine,
        Err(failure) => {
            eprintln!("SKIPPED: {test} (docker): {failure}");
            return None;
        }
    };
    let Some(prepared) = prepared() else {
        eprintln!("SKIPPED: {test} (docker): no Python");
        return None;
    };
    // One at a time: the others find it made.
    static IMAGE: OnceLock<Image> = OnceLock::new();
    let image = IMAGE.get_or_init(|| image::prepared(&engine, &prepared).unwrap());
    Some((engine, image.clone()))
}

pub fn docker_with(
    engine: &Arc<Engine>,
    image: &Image,
    bounds: Bounds,
    patches: &[String],
    hidden: &[String],
) -> DockerSandbox {
    docker_as(engine, image, bounds, (patches, hidden), History::None)
}

pub fn docker_as(
    engine: &Arc<Engine>,
    image: &Image,
    bounds: Bounds,
    (patches, hidden): (&[String], &[String]),
    history: History,
) -> DockerSandbox {
    let told = std::cell::RefCell::new(String::new());
    let asked = (patches, hidden);
    let sandbox = try_docker(engine, image, bounds, asked, history, &|name| {
        *told.borrow_mut() = name.to_owned();
    });
    let sandbox = sandbox.unwrap();
    assert_eq!(sandbox.container(), told.borrow().as_str());
    sandbox
}

/// Why a history cannot be had.
pub fn docker_refused(engine: &Arc<Engine>, image: &Image, history: History) -> Failure {
    let asked: (&[String], &[String]) = (&[], &[]);
    let opened = try_docker(engine, image, Bounds::default(), asked, history, &|_| {});
    opened.map(|_| ()).unwrap_err()
}

fn try_docker(
    engine: &Arc<Engine>,
    image: &Image,
    bounds: Bounds,
    (patches, hidden): (&[String], &[String]),
    history: History,
    intent: &dyn Fn(&str),
) -> Result<DockerSandbox, Failure> {
    DockerSandbox::open(DockerPlan {
        engine: engine.clone(),
        image,
        number: number(),
        run: "test".into(),
        label: "contract".into(),
        bounds,
        patches,
        hidden,
        history,
        commits: &COMMITS,
        intent,
    })
}

/// Runs `work` on the Docker back end, or skips loudly.
pub fn docker(test: &str, work: impl FnOnce(Open<'_>)) {
    if let Some((engine, image)) = engine(test) {
        work(&|patches, hidden| {
            let bounds = Bounds::default();
            Arc::new(docker_with(&engine, &image, bounds, patches, hidden))
        });
    }
}

pub fn order(argv: &[&str], ms: u64, cap: usize) -> Exec {
    Exec {
        sandbox: SandboxId::new("s".to_owned()),
        argv: argv.iter().map(|s| (*s).to_owned()).collect(),
        stdin: None,
        env: vec![],
        timeout_ms: ms,
        output_cap: cap,
    }
}

pub fn run(sandbox: &dyn Sandbox, argv: &[&str]) -> ExecOutcome {
    sandbox.exec(&order(argv, 60_000, 4_000)).unwrap()
}

pub fn shell(sandbox: &dyn Sandbox, script: &str) -> ExecOutcome {
    run(sandbox, &["sh", "-c", script])
}

pub fn python(sandbox: &dyn Sandbox, script: &str) -> ExecOutcome {
    run(sandbox, &["python", "-c", script])
}
