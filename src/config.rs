//! Configuration: a built-in profile, then a TOML file, then environment variables
//! (`GAMETAPE_LOOP__SEED=3` sets `loop.seed`), then flags. Unknown keys and wrong
//! types are errors that name the key. The result goes on the tape.

use crate::forge::ForgeRecipe;

use config::{Environment, File, FileFormat};
use gametape_agent::{EndpointOptions, Patience};
use gametape_environment::Backend;
use gametape_schemas::message::Hyperparameters;
use gametape_schemas::recipe::{Kind, Recipe};
use gametape_schemas::{Failure, FailureKind, Sampling};
use gametape_supervisor::{AttemptsPlan, BreakerPolicy, Budget, Price, RoundsPlan, Start};
use gametape_trainer::recipe::PolicyRecipe;
use gametape_verifier::recipe::VerifierRecipe;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Profiles that are built in: each is one text or several, of which later ones override.
pub const PROFILES: &[(&str, &[&str])] = &[
    ("default", &[DEFAULT]),
    ("smoke", &[include_str!("profiles/smoke.toml")]),
    ("rounds", &[DEFAULT, include_str!("profiles/rounds.toml")]),
];

const DEFAULT: &str = include_str!("profiles/default.toml");

/// Everything that decides what a run does. Where things lie on a machine
/// ([`Paths`]) is not part of it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Seed of everything random.
    pub seed: u64,
    /// The base model.
    pub model: ModelConfig,
    /// How bugs are planted.
    pub forge: ForgeRecipe,
    /// In which packages, and how many tasks each gives.
    pub packages: Vec<PackageConfig>,
    /// The tools' and turns' limits.
    pub scaffold: ScaffoldConfig,
    /// Which wins train the policy.
    pub policy_dataset: PolicyRecipe,
    /// How the policy is trained.
    pub policy_training: Hyperparameters,
    /// The tuned policy on tasks without demonstrations.
    pub explore: AttemptsPlan,
    /// Which wins and losses train the verifier.
    pub verifier_dataset: VerifierRecipe,
    /// How the verifier is trained.
    pub verifier_training: Hyperparameters,
    /// The base policy on held-out tasks.
    pub evaluate_base: AttemptsPlan,
    /// The tuned policy on held-out tasks.
    pub evaluate_tuned: AttemptsPlan,
    /// Rounds in which the policy learns from its own wins, with a guard between them.
    // Absent on tapes of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rounds: Option<RoundsConfig>,
    /// Tasks or repositories, by name, that may be learned from although the evaluation asks
    /// the same or nearly the same: somebody looked at them.
    // Absent on tapes of earlier versions, and of most others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_overlap: Vec<String>,
    /// Models behind endpoints, by the name that `--policy endpoint:NAME` has for them; several
    /// that serve the same model share its requests.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub endpoints: BTreeMap<String, Vec<EndpointOptions>>,
    /// How long a request waits for an endpoint, and how often it is sent again.
    #[serde(default, skip_serializing_if = "is_usual")]
    pub patience: Patience,
    /// Limits of the machine.
    pub limits: Limits,
    /// What the run may spend.
    pub budget: Budget,
    /// What tokens cost, for `budget.cost`.
    pub price: Price,
    /// When the loop waits for a resource that fails, and how long.
    pub breakers: BreakerPolicy,
}

/// Tapes of earlier versions have none.
fn is_usual(patience: &Patience) -> bool {
    *patience == Patience::default()
}

/// Rounds of expert iteration: the teacher's, then those of the policy's own wins.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoundsConfig {
    /// Trainings of the policy; the first is the teacher's, by `policy_dataset`.
    pub count: u32,
    /// From which weights a round trains: `base` or `current`.
    pub start: Start,
    /// Share of the functions of Explore tasks that the guard keeps to itself: nothing is
    /// ever trained on them.
    pub guard_share: f64,
    /// Policy and candidate on the guard's tasks.
    pub guard: AttemptsPlan,
    /// A candidate may resolve this share of attempts less and be promoted all the same.
    #[serde(default)]
    pub tolerance: f64,
    /// Candidates that are not the policy in the end, on held-out tasks; without it they are
    /// not measured there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluate: Option<AttemptsPlan>,
    /// How rounds after the first are trained; without it as `policy_training`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training: Option<Hyperparameters>,
    /// What rounds after the first learn from (docs/datasets.md); its filter `mix` says how
    /// much of it may be the teacher's.
    pub recipe: Recipe,
}

impl RoundsConfig {
    /// What makes no sense in it.
    fn wrong(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.count == 0 {
            wrong.push("rounds.count must be at least 1".to_owned());
        }
        if !(self.guard_share > 0.0 && self.guard_share < 1.0) {
            wrong.push("rounds.guard_share must be in (0, 1)".to_owned());
        }
        if !(0.0..1.0).contains(&self.tolerance) {
            wrong.push("rounds.tolerance must be in [0, 1)".to_owned());
        }
        if self.recipe.kind != Kind::Policy {
            wrong.push("rounds.recipe.kind must be `policy`".to_owned());
        }
        if self.recipe.lengths.is_some() || !self.recipe.exclude.is_empty() {
            wrong.push(
                "rounds.recipe cannot name files (`lengths`, `exclude`): held-out tasks are excluded by themselves"
                    .to_owned(),
            );
        }
        if let Err(failure) = self.recipe.check() {
            wrong.push(format!("rounds.recipe: {}", failure.message));
        }
        wrong
    }

    /// What of it decides which work comes next.
    pub fn plan(&self) -> RoundsPlan {
        RoundsPlan {
            count: self.count,
            start: self.start,
            guard_share: self.guard_share,
            guard: self.guard.clone(),
            evaluate: self.evaluate.clone(),
        }
    }
}

/// One subject package.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackageConfig {
    /// Name of a pinned package (`src/forge/packages.toml` of the source).
    pub name: String,
    /// Tasks that the teacher demonstrates.
    #[serde(default)]
    pub train: u32,
    /// Tasks of other functions that the tuned policy explores for the verifier.
    #[serde(default)]
    pub explore: u32,
    /// Tasks for the evaluation. A package that has any is never trained on.
    #[serde(default)]
    pub held_out: u32,
}

/// The base model.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// `smollm2` (the default that set-up downloads), `tiny-random` (made here, for
    /// trying the machinery) or a path to a Hugging Face directory or a GGUF file.
    pub source: String,
}

/// Limits of an attempt.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScaffoldConfig {
    /// At most this many turns.
    pub turns: u32,
    /// Attempts that run side by side, as one batch of the model; those of one task are
    /// never parted.
    pub attempts_in_batch: usize,
    /// Seconds that the hidden tests may take.
    pub test_timeout_s: u64,
}

/// As the profiles have it.
fn environments_mib() -> u64 {
    20_480
}

/// Limits of the machine.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Threads of libtorch; 0 = all cores.
    pub model_threads: usize,
    /// Sandboxes at work at once; 0 = all cores.
    pub sandboxes: usize,
    /// What sandboxes are: `local` (namespaces) or `docker` (containers of an Engine).
    // Absent on tapes of earlier versions, like what is made of it below.
    #[serde(default)]
    pub sandbox: Backend,
    /// What prepared environments may take in the cache, MiB: those used longest ago are
    /// removed when another one is made; 0 = no limit.
    #[serde(default = "environments_mib")]
    pub environments_mib: u64,
    /// The loop pauses when less than this is free where the run lies, MiB.
    pub min_free_disk_mib: u64,
    /// A failure of ours is tried again this often.
    pub retries: u32,
    /// The process ends when the thread of all actors gives no sign of life for this
    /// many seconds; 0 = it is not watched.
    pub stuck_s: u64,
}

/// Where things lie on this machine. Never part of an id, a dataset or a row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Paths {
    /// The run: tape, checkpoints, reports, log.
    pub run: PathBuf,
    /// The user's cache: libtorch, models, packages, environments.
    pub cache: PathBuf,
}

impl Paths {
    /// With the cache found as documented: `GAMETAPE_CACHE`, XDG, home.
    ///
    /// # Errors
    /// When none of the three is set.
    pub fn new(run: PathBuf) -> Result<Self, Failure> {
        let from = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty());
        let cache = from("GAMETAPE_CACHE")
            .map(PathBuf::from)
            .or_else(|| from("XDG_CACHE_HOME").map(|d| PathBuf::from(d).join("gametape")))
            .or_else(|| from("HOME").map(|d| PathBuf::from(d).join(".cache/gametape")))
            .ok_or_else(|| {
                input(
                    "GT-CONFIG-CACHE",
                    "no place for the cache: HOME is not set",
                    "set GAMETAPE_CACHE to a directory that you can write",
                )
            })?;
        Ok(Self { run, cache })
    }

    /// The tape of the run.
    pub fn tape(&self) -> PathBuf {
        self.run.join("tape")
    }
}

/// Reads the configuration of a run.
///
/// # Errors
/// `GT-CONFIG-*`, naming the file and the key.
pub fn load(profile: &str, file: Option<&Path>) -> Result<Config, Failure> {
    let names = || {
        PROFILES
            .iter()
            .map(|(name, _)| *name)
            .collect::<Vec<_>>()
            .join(", ")
    };
    let (_, texts) = PROFILES
        .iter()
        .find(|(name, _)| *name == profile)
        .ok_or_else(|| {
            input(
                "GT-CONFIG-PROFILE",
                format!("there is no profile `{profile}`"),
                format!("the profiles are: {}", names()),
            )
        })?;
    let mut builder = config::Config::builder();
    for text in *texts {
        builder = builder.add_source(File::from_str(text, FileFormat::Toml));
    }
    if let Some(path) = file {
        if !path.is_file() {
            return Err(input(
                "GT-CONFIG-FILE",
                format!("the configuration file {} does not exist", path.display()),
                "name an existing TOML file with --config, or leave the flag out",
            ));
        }
        builder = builder.add_source(File::from(path).format(FileFormat::Toml));
    }
    // Only names with `__`: GAMETAPE_CACHE and its like are not configuration.
    let settings = std::env::vars()
        .filter(|(name, _)| name.starts_with("GAMETAPE_") && name.contains("__"))
        .collect();
    builder = builder.add_source(
        Environment::with_prefix("GAMETAPE")
            .prefix_separator("_")
            .separator("__")
            .try_parsing(true)
            .source(Some(settings)),
    );
    let bad = |error: config::ConfigError| {
        input(
            "GT-CONFIG-VALUE",
            format!(
                "the configuration ({}) cannot be used: {error}",
                file.map_or_else(|| format!("profile {profile}"), |p| p.display().to_string())
            ),
            "`gametape loop --print-config` prints every key with its value; docs/guide.md explains them",
        )
    };
    let config: Config = builder
        .build()
        .map_err(bad)?
        .try_deserialize()
        .map_err(bad)?;
    config.check()?;
    Ok(config)
}

/// What of a configuration decides what a run is. The rest (budgets, patience, how much
/// disk is left free, sandboxes at once) may change from one start to the next.
pub fn identity_of(mut config: serde_json::Value) -> serde_json::Value {
    if let Some(root) = config.as_object_mut() {
        root.remove("budget");
        root.remove("breakers");
        root.remove("price");
        root.remove("endpoints");
        root.remove("patience");
        if let Some(limits) = root.get_mut("limits").and_then(|l| l.as_object_mut()) {
            limits.remove("min_free_disk_mib");
            limits.remove("sandboxes");
            limits.remove("sandbox");
            limits.remove("environments_mib");
            limits.remove("stuck_s");
        }
    }
    config
}

impl Config {
    /// [`identity_of`] this configuration.
    ///
    /// # Errors
    /// When a value has no JSON form, such as a rate that is not a number.
    pub fn identity(&self) -> Result<serde_json::Value, serde_json::Error> {
        serde_json::to_value(self).map(identity_of)
    }

    /// What types cannot say.
    fn check(&self) -> Result<(), Failure> {
        let mut wrong = Vec::new();
        let rounds = self.rounds.as_ref();
        let plans = [
            ("explore", Some(&self.explore)),
            ("evaluate_base", Some(&self.evaluate_base)),
            ("evaluate_tuned", Some(&self.evaluate_tuned)),
            ("rounds.guard", rounds.map(|r| &r.guard)),
            ("rounds.evaluate", rounds.and_then(|r| r.evaluate.as_ref())),
        ];
        for (name, plan) in plans.into_iter().filter_map(|(n, p)| Some((n, p?))) {
            let Sampling {
                temperature,
                top_p,
                max_tokens,
                ..
            } = plan.sampling;
            if plan.attempts == 0 {
                wrong.push(format!("{name}.attempts must be at least 1"));
            }
            if !(0.0..=10.0).contains(&temperature) {
                wrong.push(format!("{name}.sampling.temperature must be in 0..=10"));
            }
            if !(top_p > 0.0 && top_p <= 1.0) {
                wrong.push(format!("{name}.sampling.top_p must be in (0, 1]"));
            }
            if max_tokens == 0 {
                wrong.push(format!("{name}.sampling.max_tokens must be at least 1"));
            }
        }
        let trainings = [
            ("policy_training", Some(&self.policy_training)),
            ("verifier_training", Some(&self.verifier_training)),
            ("rounds.training", rounds.and_then(|r| r.training.as_ref())),
        ];
        for (name, hyper) in trainings.into_iter().filter_map(|(n, h)| Some((n, h?))) {
            if hyper.epochs == 0 || hyper.batch_size == 0 || hyper.max_tokens == 0 {
                wrong.push(format!(
                    "{name}: epochs, batch_size and max_tokens must be at least 1"
                ));
            }
            if !(hyper.learning_rate > 0.0 && hyper.learning_rate < 1.0) {
                wrong.push(format!("{name}.learning_rate must be in (0, 1)"));
            }
        }
        for package in &self.packages {
            let PackageConfig {
                name,
                train,
                explore,
                held_out,
            } = package;
            if *held_out > 0 && train + explore > 0 {
                wrong.push(format!(
                    "packages: {name} is held out and trained on; it can be one of the two"
                ));
            }
            if held_out + train + explore == 0 {
                wrong.push(format!("packages: {name} gives no tasks"));
            }
        }
        let total = |count: fn(&PackageConfig) -> u32| self.packages.iter().map(count).sum::<u32>();
        for (name, sum) in [
            ("train", total(|p| p.train)),
            ("explore", total(|p| p.explore)),
            ("held_out", total(|p| p.held_out)),
        ] {
            if sum == 0 {
                wrong.push(format!("packages: no package has `{name}` tasks"));
            }
        }
        if self.scaffold.turns == 0 {
            wrong.push("scaffold.turns must be at least 1".to_owned());
        }
        if let Some(rounds) = rounds {
            wrong.extend(rounds.wrong());
            // What the guard measures on must not teach the verifier either.
            if self.verifier_dataset.purposes.iter().any(|p| p == "guard") {
                wrong.push("verifier_dataset.purposes cannot name `guard`".to_owned());
            }
        }
        if wrong.is_empty() {
            return Ok(());
        }
        Err(input(
            "GT-CONFIG-VALUE",
            wrong.join("; "),
            "correct the values in the file, the GAMETAPE_… variables or the flags",
        ))
    }
}

fn input(code: &str, message: impl Into<String>, help: impl Into<String>) -> Failure {
    Failure::new(FailureKind::Input, code, message).with_help(help)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn every_profile_loads() {
        for (name, _) in PROFILES {
            load(name, None).unwrap();
        }
    }

    #[test]
    fn unknown_keys_wrong_types_and_missing_files_are_named() {
        let write = |text: &str| {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(text.as_bytes()).unwrap();
            file
        };
        let file = write("sede = 3\n");
        let failure = load("smoke", Some(file.path())).unwrap_err();
        assert_eq!(failure.code, "GT-CONFIG-VALUE");
        assert!(failure.message.contains("sede"), "{failure}");

        let file = write("seed = \"many\"\n");
        let failure = load("smoke", Some(file.path())).unwrap_err();
        assert!(failure.message.contains("seed"), "{failure}");

        let file = write("[explore]\nattempts = 0\n");
        let failure = load("smoke", Some(file.path())).unwrap_err();
        assert!(failure.message.contains("explore.attempts"), "{failure}");

        let failure = load("smoke", Some(Path::new("/nowhere/x.toml"))).unwrap_err();
        assert_eq!(failure.code, "GT-CONFIG-FILE");
        let failure = load("huge", None).unwrap_err();
        assert!(failure.help.contains("default"), "{failure}");
    }
}
