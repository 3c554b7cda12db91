//! The rooms that need no model, wired to each other: tape, environment, grader.

use crate::config::{Config, Paths};
use crate::rooms::recipient;
use crate::system::now_micros;
use crate::tree::Tree;
use crate::verdicts;
use actix::prelude::*;
use gametape_environment::{Backend, EnvironmentActor, EnvironmentOptions};
use gametape_grader::GraderActor;
use gametape_grader::actor::{GraderOptions, GraderRooms};
use gametape_schemas::message::Append;
use gametape_schemas::{EnvironmentRecipe, Failure};
use gametape_supervisor::{Faults, Supervised};
use gametape_tape::{SledTape, TapeActor};
use std::sync::Arc;

/// How they are set up.
#[derive(Clone, Debug)]
pub struct LowerOptions {
    /// What sandboxes are.
    pub backend: Backend,
    /// Sandboxes at work at once; 0 = one a processor.
    pub sandboxes: usize,
    /// What prepared environments may take in the cache, MiB; 0 = no limit.
    pub environments_mib: u64,
    /// Environments that may be opened without being asked for first.
    pub known: Vec<EnvironmentRecipe>,
    /// The grader's; how many test runs it makes at once follows from `sandboxes`.
    pub grader: GraderOptions,
}

impl LowerOptions {
    /// As a configuration says.
    ///
    /// # Errors
    /// When it names a package that is not pinned.
    pub fn of(config: &Config) -> Result<Self, Failure> {
        let known: Result<_, _> = config
            .packages
            .iter()
            .map(|package| crate::forge::package(&package.name))
            .collect();
        Ok(Self {
            backend: config.limits.sandbox,
            sandboxes: config.limits.sandboxes,
            environments_mib: config.limits.environments_mib,
            known: known?,
            grader: GraderOptions {
                timeout_ms: config.scaffold.test_timeout_s.saturating_mul(1000),
                ..GraderOptions::default()
            },
        })
    }

    /// Sandboxes at work at once.
    pub fn parallel(&self) -> usize {
        match self.sandboxes {
            0 => std::thread::available_parallelism().map_or(2, usize::from),
            n => n,
        }
    }
}

/// The rooms, and the tree that they stand in.
pub struct Lower {
    /// More rooms may join it.
    pub tree: Tree,
    /// The tape.
    pub tape: Addr<Supervised<TapeActor>>,
    /// Sandboxes.
    pub environment: Addr<Supervised<EnvironmentActor>>,
    /// Hidden tests.
    pub grader: Addr<Supervised<GraderActor>>,
}

impl Lower {
    /// Where events go.
    pub fn append(&self) -> Recipient<Append> {
        recipient(&self.tape)
    }
}

/// Starts them. Must be called within an actix system.
///
/// # Errors
/// What opening the tape or looking for the sandbox's helper can meet.
pub fn start(paths: &Paths, options: &LowerOptions, faults: Faults) -> Result<Lower, Failure> {
    // Before anything is written: without sandboxes nothing can be done.
    if options.backend == Backend::Local {
        gametape_environment::probe::require(&gametape_environment::probe())?;
    }
    let tape = SledTape::open(&paths.tape(), Arc::new(now_micros))?;
    let known = verdicts::known(&paths.tape(), &tape)?;
    let mut tree = Tree::new(faults);
    let tape = tree.start("tape", move || TapeActor::new(tape.clone()));
    tree.report_to(recipient(&tape));

    let parallel = options.parallel();
    let mut rooms = EnvironmentOptions::usual(paths.cache.clone(), parallel)?;
    rooms.backend = options.backend;
    let budget = options.environments_mib;
    rooms.environments = (budget > 0).then_some(budget << 20);
    rooms.known = options.known.clone();
    // Sandboxes die with their room: the grader and the agent, which hold some, are made
    // anew with it.
    let environment =
        tree.start_in_line("environment", move || EnvironmentActor::new(rooms.clone()));
    let asks = GraderRooms {
        open: recipient(&environment),
        exec: recipient(&environment),
        apply: recipient(&environment),
        close: recipient(&environment),
    };
    let options = GraderOptions {
        parallel,
        ..options.grader.clone()
    };
    let grader = tree.start_in_line("grader", move || {
        GraderActor::new(
            asks.clone(),
            options.clone(),
            Box::new(nonce),
            known.clone(),
        )
    });
    Ok(Lower {
        tree,
        tape,
        environment,
        grader,
    })
}

/// An unguessable text: markers of a test run must not be foreseen by graded code.
fn nonce() -> String {
    format!("{:032x}", rand::random::<u128>())
}
