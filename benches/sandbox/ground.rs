//! Environments made by hand, and sandboxes over them.

use crate::Outcome;
use gametape_environment::cgroup::{self, Groups, Pool};
use gametape_environment::ground::Layers;
use gametape_environment::local::{LocalSandbox, OpenPlan};
use gametape_environment::provision::{Manifest, Prepared, python};
use gametape_environment::root_commit::RootCommits;
use gametape_environment::sandbox::Sandbox;
use gametape_environment::starter::{Choice, Starter};
use gametape_environment::tree::{self, Entry, Snapshot};
use gametape_environment::{Limits, bubblewrap, helper_beside, probe};
use gametape_schemas::message::{Exec, History};
use gametape_schemas::{EnvironmentRecipe, PinnedPackage, SandboxId};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A prepared environment.
pub struct Environment(Arc<Prepared>);

impl Environment {
    /// One whose repository holds so many files of 2 KB in directories of a hundred.
    pub fn make(directory: &Path, files: usize) -> Outcome<Self> {
        std::fs::create_dir_all(directory.join("venv"))?;
        let content = Entry::plain("x = 1\n".repeat(340).as_bytes());
        let files: Snapshot = (0..files)
            .map(|n| (format!("d{}/f{n}.py", n / 100), content.clone()))
            .collect();
        tree::write(&directory.join("tree"), &files, None)?;
        let manifest = Manifest {
            layout: 0,
            recipe: EnvironmentRecipe {
                package: PinnedPackage {
                    name: "benchmark".into(),
                    version: "0".into(),
                    sha256: String::new(),
                },
                requirements: vec![],
                source_root: ".".into(),
                code: vec![],
                tests: vec![],
                skip_tests: vec![],
                layout: 0,
                python: None,
                source: None,
                setup: Vec::new(),
            },
            tree: tree::digest_of(&files),
            interpreter: python::interpreter()?,
        };
        let directory = directory.to_owned();
        Ok(Self(Arc::new(Prepared::by_hand(
            directory, manifest, files,
        ))))
    }
}

/// Opens sandboxes, as the room does.
pub struct Sandboxes {
    host: Arc<bubblewrap::Host>,
    helper: PathBuf,
    scratch: PathBuf,
    groups: Option<Arc<Pool>>,
    opened: AtomicU64,
}

impl Sandboxes {
    /// Tries this machine.
    pub fn new(place: &Path) -> Outcome<Self> {
        let scratch = place.join("sandboxes");
        std::fs::create_dir(&scratch)?;
        let helper = helper_beside(&std::env::current_exe()?)
            .ok_or("build the helper first: cargo build --release -p gametape-environment")?;
        let groups = Groups::detect();
        let has_any = groups.keeps_memory() || groups.keeps_processes();
        println!("control groups: {}", groups.layer().detail);
        Ok(Self {
            host: Arc::new(probe::host()?),
            helper,
            scratch,
            groups: has_any.then(|| Arc::new(groups.pool(&cgroup::owner()))),
            opened: AtomicU64::new(0),
        })
    }

    /// The same by the other starter.
    pub fn by_the_other(&self) -> Outcome<Self> {
        let choice = match self.host.starter {
            Starter::Bubblewrap { .. } => Choice::Namespaces,
            Starter::Namespaces => Choice::Bubblewrap,
        };
        let scratch = self.scratch.join("other");
        std::fs::create_dir(&scratch)?;
        Ok(Self {
            host: Arc::new(probe::host_by(choice)?),
            helper: self.helper.clone(),
            scratch,
            groups: self.groups.clone(),
            opened: AtomicU64::new(0),
        })
    }

    /// Who starts them.
    pub fn starter(&self) -> &'static str {
        match self.host.starter {
            Starter::Bubblewrap { .. } => "bubblewrap",
            Starter::Namespaces => "namespaces",
        }
    }

    /// Opens one.
    pub fn open(&self, environment: &Environment) -> Outcome<Open> {
        let number = self.opened.fetch_add(1, Ordering::Relaxed);
        Ok(Open(LocalSandbox::open(OpenPlan {
            host: self.host.clone(),
            prepared: environment.0.clone(),
            private: self.scratch.join(number.to_string()),
            helper: self.helper.clone(),
            number,
            label: "benchmark".into(),
            limits: Limits::default(),
            groups: self.groups.clone(),
            patches: &[],
            hidden: &[],
            history: History::None,
            commits: &RootCommits::default(),
            layers: Layers::default(),
        })?))
    }

    /// Opened, `true`, closed.
    pub fn once(&self, environment: &Environment) -> Outcome<()> {
        let sandbox = self.open(environment)?;
        sandbox.run_true()?;
        sandbox.close()
    }

    /// Whether sandboxes stand on an overlay here.
    pub fn has_overlay(&self, environment: &Environment) -> Outcome<bool> {
        let sandbox = self.open(environment)?;
        let has = sandbox.0.has_overlay();
        sandbox.close()?;
        Ok(has)
    }
}

/// An open sandbox.
pub struct Open(LocalSandbox);

impl Open {
    /// Runs `true` in it.
    pub fn run_true(&self) -> Outcome<()> {
        let ended = self.0.exec(&Exec {
            sandbox: SandboxId::new("benchmark"),
            argv: vec!["true".into()],
            stdin: None,
            env: vec![],
            timeout_ms: 60_000,
            output_cap: 1024,
        })?;
        let is_fine = ended.exit_code == Some(0);
        is_fine.then_some(()).ok_or(format!("{ended:?}").into())
    }

    /// Closes it.
    pub fn close(self) -> Outcome<()> {
        self.0.close()?;
        Ok(())
    }
}

/// Proportional set size of all descendants of a process, KiB.
pub fn memory_kib(of: u32) -> Outcome<u64> {
    let mut sum = 0;
    let mut waiting = vec![of];
    while let Some(process) = waiting.pop() {
        for task in std::fs::read_dir(format!("/proc/{process}/task"))?.flatten() {
            let children = std::fs::read_to_string(task.path().join("children"))?;
            for child in children.split_whitespace() {
                let child: u32 = child.parse()?;
                let text = std::fs::read_to_string(format!("/proc/{child}/smaps_rollup"));
                let text = text.unwrap_or_default();
                let line = text.lines().find(|line| line.starts_with("Pss:"));
                let number = line.and_then(|line| line.split_whitespace().nth(1));
                sum += number.map_or(Ok(0), str::parse)?;
                waiting.push(child);
            }
        }
    }
    Ok(sum)
}
