//! The actors of a process, wired to each other.
//!
//! Every room stands behind a [`Supervised`] address: when a handler panics, a fresh
//! actor takes its place and the death is put on the tape. The tape itself is not
//! restarted: a process without its tape ends.

use crate::config::{Config, Paths};
use crate::doctor::{self, Check};
use crate::lower::{self, Lower, LowerOptions};
use crate::rooms::{Rooms, recipient};
use crate::run::stop::StopFlag;
use crate::run::{Driver, Ended, watchdog};
use crate::tree::Tree;
use actix::prelude::*;
use gametape_agent::{AgentActor, AgentOptions, AgentRooms};
use gametape_model::{HostOptions, ModelActor, ModelHost};
use gametape_schemas::message::{Append, ModelSource};
use gametape_schemas::{CheckpointId, Digest, Failure, FailureKind, Record};
use gametape_supervisor::{Faults, Supervised};
use gametape_trainer::{TrainerActor, TrainerOptions};
use gametape_verifier::VerifierActor;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Tokens of a training's micro-batch at its beginning.
pub(crate) const MICRO_TOKENS: usize = 1024;

/// Microseconds since 1970: the one place where the loop reads the wall clock.
pub fn now_micros() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_micros() as u64)
}

/// Runs the loop of a run to its end; gives everything on its tape.
///
/// # Errors
/// The failure that ended it. What was done before is on the tape.
pub fn run_loop(config: Config, paths: Paths) -> Result<(Ended, Vec<Record>), Failure> {
    in_system(async move {
        let mut driver = wire(config, paths)?;
        let ended = driver.drive().await?;
        Ok((ended, driver.records().to_vec()))
    })
}

/// Makes the tasks of a run and stops.
///
/// # Errors
/// As [`run_loop`].
pub fn run_forge(config: Config, paths: Paths) -> Result<Vec<Record>, Failure> {
    in_system(async move {
        let mut driver = wire(config, paths)?;
        driver.forge_all().await?;
        Ok(driver.records().to_vec())
    })
}

pub(crate) fn in_system<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let system = System::new();
    system.block_on(work)
}

/// Starts every room of a process.
fn wire(config: Config, paths: Paths) -> Result<Driver, Failure> {
    let stop = StopFlag::default();
    stop.watch_signals();
    let base = base_model(&config.model.source, config.seed, &paths)?;
    let inputs = inputs(&config, &base)?;
    let Lower {
        tree,
        tape: tape_actor,
        environment,
        grader,
    } = lower::start(&paths, &LowerOptions::of(&config)?, faults()?)?;
    let append: Recipient<Append> = recipient(&tape_actor);
    let threads = model_threads(config.limits.model_threads);
    // The thread outlives a panicking front: the host's handle is what actors share.
    let (host, _thread) = ModelHost::spawn(HostOptions {
        threads: i32::try_from(threads).ok(),
        // Phases follow one another, and each asks one model.
        max_models: 1,
        ..HostOptions::default()
    })?;
    let model = tree.start("model", move || ModelActor::new(host.clone()));
    let trainer = start_trainer(&tree, threads, &stop);
    let agent_rooms = AgentRooms {
        append: append.clone(),
        open: recipient(&environment),
        read: recipient(&environment),
        write: recipient(&environment),
        diff: recipient(&environment),
        close: recipient(&environment),
        generate: recipient(&model),
    };
    let agent_options = AgentOptions {
        turns: config.scaffold.turns,
    };
    let agent = tree.start_in_line("agent", move || {
        AgentActor::new(agent_rooms.clone(), agent_options.clone())
    });
    let score = recipient(&model);
    let verifier = tree.start("verifier", move || {
        VerifierActor::new(Recipient::clone(&score))
    });
    watchdog::watch(Duration::from_secs(config.limits.stuck_s))?;
    let rooms = Rooms {
        append,
        read: recipient(&tape_actor),
        provision: recipient(&environment),
        open: recipient(&environment),
        exec: recipient(&environment),
        close: recipient(&environment),
        grade: recipient(&grader),
        run_tests: recipient(&grader),
        run_attempts: recipient(&agent),
        keep_models: recipient(&model),
        train: recipient(&trainer),
        score: recipient(&verifier),
    };
    Driver::new(config, paths, rooms, base, inputs, stop)
}

/// Threads of libtorch: so many, or with 0 one a processor.
pub(crate) fn model_threads(asked: usize) -> usize {
    match asked {
        0 => std::thread::available_parallelism().map_or(2, usize::from),
        n => n,
    }
}

/// The trainer, which hears of a request to stop at once.
pub(crate) fn start_trainer(
    tree: &Tree,
    threads: usize,
    stop: &StopFlag,
) -> Addr<Supervised<TrainerActor>> {
    let options = TrainerOptions {
        threads,
        micro_tokens: MICRO_TOKENS,
        cache_bytes: 512 << 20,
        ..TrainerOptions::default()
    };
    let stopping = stop.clone();
    tree.start("trainer", move || {
        let trainer = TrainerActor::new(options.clone());
        let handle = trainer.stop_handle();
        stopping.on_request(move || handle.stop());
        trainer
    })
}

/// Faults on purpose, as `GAMETAPE_FAULTS` says (docs/guide.md, "Leave it alone").
pub(crate) fn faults() -> Result<Faults, Failure> {
    let text = std::env::var("GAMETAPE_FAULTS").unwrap_or_default();
    let bad = |what: String| {
        Failure::new(
            FailureKind::Input,
            "GT-CONFIG-VALUE",
            format!("GAMETAPE_FAULTS cannot be used: {what}"),
        )
        .with_help("write actor:panic@n or actor:hang/milliseconds@n, separated by commas; the actors are tape, environment, grader, model, trainer, agent, verifier")
    };
    let faults = Faults::parse(&text).map_err(|part| bad(format!("`{part}`")))?;
    if let Some(unknown) = faults.actors().find(|actor| !ROOMS.contains(actor)) {
        return Err(bad(format!("there is no actor `{unknown}`")));
    }
    Ok(faults)
}

/// Looks at the environment variables that are read far below, where there is nobody to
/// tell that they make no sense.
///
/// # Errors
/// `GT-CONFIG-VALUE`.
pub fn check_environment() -> Result<(), Failure> {
    match std::env::var_os("GAMETAPE_PRECISION") {
        Some(text) if text != "f32" && text != "bf16" => Err(Failure::new(
            FailureKind::Input,
            "GT-CONFIG-VALUE",
            format!("GAMETAPE_PRECISION cannot be used: `{}`", text.display()),
        )
        .with_help("write f32 or bf16, or unset it: the faster one on this processor is taken")),
        _ => Ok(()),
    }
}

/// Bytes of the tape's pages to keep in memory, when `GAMETAPE_TAPE_CACHE_MIB` says so.
///
/// # Errors
/// `GT-CONFIG-VALUE` for what is no number of MiB from 1 to 65,536.
pub fn tape_cache() -> Result<Option<u64>, Failure> {
    const NAME: &str = "GAMETAPE_TAPE_CACHE_MIB";
    let Some(text) = std::env::var_os(NAME) else {
        return Ok(None);
    };
    let number = text
        .to_str()
        .and_then(|text| text.trim().parse::<u64>().ok());
    match number.filter(|mib| (1..=65_536).contains(mib)) {
        Some(mib) => Ok(Some(mib << 20)),
        None => Err(Failure::new(
            FailureKind::Input,
            "GT-CONFIG-VALUE",
            format!("{NAME} cannot be used: `{}`", text.display()),
        )
        .with_help("write a whole number of MiB from 1 to 65536; 64 is the default")),
    }
}

/// Names of the supervised rooms.
const ROOMS: &[&str] = &[
    "tape",
    "environment",
    "grader",
    "model",
    "trainer",
    "agent",
    "verifier",
];

/// The base model that is made here, for tests and the smoke profile.
const TINY: &str = "tiny-random";

/// The base model of a configuration, made where it is the tiny random one.
pub(crate) fn base_model(name: &str, seed: u64, paths: &Paths) -> Result<ModelSource, Failure> {
    if name == TINY && !tiny_is_made(paths) {
        gametape_model::tiny::write(&tiny_place(paths), seed)?;
    }
    Ok(look_at_base(name, seed, paths)?.source)
}

/// A base model that is looked at.
pub(crate) struct BaseLook {
    /// What it is, and where it lies or, not being made yet, will lie.
    pub source: ModelSource,
    /// Where its files can be read as long as this lives.
    pub files: PathBuf,
    _passing: Option<tempfile::TempDir>,
}

/// What [`base_model`] would give. Nothing is written into the run: a tiny random model
/// that it has not yet is made elsewhere, where it goes with what is returned.
pub(crate) fn look_at_base(name: &str, seed: u64, paths: &Paths) -> Result<BaseLook, Failure> {
    let path = match name {
        "smollm2" => doctor::model_path(&paths.cache),
        TINY if !tiny_is_made(paths) => {
            let passing = tempfile::tempdir().map_err(|error| {
                crate::trajectories::export::unwritable(&std::env::temp_dir(), &error)
            })?;
            let files = passing.path().join(TINY);
            gametape_model::tiny::write(&files, seed)?;
            let source = ModelSource {
                path: tiny_place(paths),
                ..model_source(&files)?
            };
            return Ok(BaseLook {
                source,
                files,
                _passing: Some(passing),
            });
        }
        TINY => tiny_place(paths),
        other => PathBuf::from(other),
    };
    let source = model_source(&path)?;
    Ok(BaseLook {
        source,
        files: path,
        _passing: None,
    })
}

/// Makes a base model that [`look_at_base`] found, where it is one that is made here and is
/// not there yet.
pub(crate) fn put_in_place(source: &ModelSource, seed: u64, paths: &Paths) -> Result<(), Failure> {
    if source.path != tiny_place(paths) || base_model(TINY, seed, paths)? == *source {
        return Ok(());
    }
    Err(Failure::new(
        FailureKind::Input,
        "GT-MODEL-MISSING",
        format!(
            "the base model {} is another one than a moment ago",
            source.path.display()
        ),
    )
    .with_help("another process made it meanwhile: type the command again"))
}

/// Where the tiny random model of a run lies.
fn tiny_place(paths: &Paths) -> PathBuf {
    paths.run.join("models").join(TINY)
}

fn tiny_is_made(paths: &Paths) -> bool {
    tiny_place(paths).join("config.json").is_file()
}

/// Weights at a path, named after what they are.
pub(crate) fn model_source(path: &Path) -> Result<ModelSource, Failure> {
    if !path.exists() {
        return Err(Failure::new(
            FailureKind::Input,
            "GT-MODEL-MISSING",
            format!("the base model {} is not there", path.display()),
        )
        .with_help("scripts/setup.sh downloads the default model; model.source may name a Hugging Face directory or a GGUF file"));
    }
    let digest = digest_of(path).map_err(|error| {
        Failure::new(
            FailureKind::Input,
            "GT-MODEL-MISSING",
            format!("the base model {} cannot be read: {error}", path.display()),
        )
        .with_help("check the file's permissions")
    })?;
    Ok(ModelSource {
        checkpoint: CheckpointId::new(digest.0.chars().take(24).collect::<String>()),
        path: path.to_owned(),
    })
}

/// Digest of a model file, or of the files of a model directory.
fn digest_of(path: &Path) -> std::io::Result<Digest> {
    if path.is_file() {
        let mut hasher = blake3::Hasher::new();
        std::io::copy(&mut std::fs::File::open(path)?, &mut hasher)?;
        return Ok(Digest(hasher.finalize().to_hex().to_string()));
    }
    gametape_environment::tree::digest(path)
}

fn inputs(config: &Config, base: &ModelSource) -> Result<BTreeMap<String, Digest>, Failure> {
    let mut inputs = BTreeMap::from([(
        "model".to_owned(),
        Digest(base.checkpoint.as_str().to_owned()),
    )]);
    for package in &config.packages {
        let recipe = crate::forge::package(&package.name)?;
        inputs.insert(
            format!("package {}", package.name),
            Digest(recipe.id().as_str().to_owned()),
        );
    }
    Ok(inputs)
}

/// What a run would do and need; nothing is started.
///
/// # Errors
/// When the configuration names a package that is not pinned.
pub fn describe(config: &Config, paths: &Paths) -> Result<String, Failure> {
    let mut out = String::new();
    let (mut train, mut explore, mut held_out) = (0, 0, 0);
    for package in &config.packages {
        let recipe = crate::forge::package(&package.name)?;
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "package {:<14} {:<8} train {:>4}  explore {:>4}  held out {:>4}",
            package.name, recipe.package.version, package.train, package.explore, package.held_out
        );
        train += package.train;
        explore += package.explore;
        held_out += package.held_out;
    }
    let _ = writeln!(out, "teacher attempts   {train}");
    let attempts = explore * config.explore.attempts;
    match &config.rounds {
        None => {
            let _ = writeln!(out, "explore attempts   {attempts}");
        }
        Some(rounds) => {
            let guard = f64::from(explore) * rounds.guard_share;
            let practice = f64::from(attempts) * (1.0 - rounds.guard_share);
            let _ = writeln!(
                out,
                "rounds             {}; each about {:.0} explore attempts and {:.0} of the guard for each policy",
                rounds.count,
                practice,
                guard * f64::from(rounds.guard.attempts)
            );
        }
    }
    let base = held_out * config.evaluate_base.attempts;
    let tuned = held_out * config.evaluate_tuned.attempts;
    let _ = writeln!(out, "held-out attempts  {base} base, {tuned} tuned");
    let _ = writeln!(out, "run directory      {}", paths.run.display());
    let _ = writeln!(out, "cache              {}", paths.cache.display());
    Ok(out)
}

/// Everything `gametape doctor` looks at.
pub fn checks(paths: &Paths) -> Vec<Check> {
    let overlay = gametape_environment::probe::overlay(&paths.cache);
    let mut others: Vec<Check> = gametape_environment::probe()
        .into_iter()
        .chain([overlay])
        .map(|layer| {
            let name = format!("sandbox: {}", layer.name);
            match (layer.active, layer.required) {
                (true, _) => Check::ok(name, layer.detail),
                (false, true) => Check::missing(name, "not available", layer.detail),
                (false, false) => Check::warn(name, "not active", layer.detail),
            }
        })
        .collect();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    others.push(doctor::devices(gametape_model::cuda_devices(), cores));
    doctor::collect(paths, others)
}
