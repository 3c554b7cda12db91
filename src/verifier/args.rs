//! What `gametape verifier` is told.

use clap::{Args, Subcommand, ValueEnum};
use gametape_verifier::estimate::RESAMPLES;
use std::path::PathBuf;

/// `gametape verifier …`
#[derive(Subcommand, Debug)]
pub enum VerifierAction {
    /// Train a verifier on attempts with verdicts.
    ///
    /// The same attempts and settings give the same file. Attempts at tasks for evaluation
    /// are left out unless --held-out asks for them; those of teachers are never taken.
    Train(TrainArgs),
    /// Put a verifier's score of every finished attempt on the tape.
    ///
    /// What has a score of it is not scored again; the same command goes on after any
    /// interruption. `gametape evaluate` then shows what picking by it is worth.
    Score(ScoreArgs),
    /// Teach a head what is usual for policies that it does not know; no verdict is read.
    ///
    /// Forty turns are many for one agent and few for another. What is usual for a policy
    /// is read off its attempts on a run, twenty at least; the result is another verifier.
    Adapt(AdaptArgs),
    /// What a verifier is worth, beside random, shortest, fewest turns, majority, the
    /// model's confidence and a verifier of the patch alone.
    ///
    /// Without --verifier heads are trained and judged by cross-validation: whole
    /// repositories are set apart. With it, on attempts of which its training saw nothing.
    Evaluate(EvaluateArgs),
}

/// Which attempts.
#[derive(Args, Clone, Debug)]
pub struct Which {
    /// Directory of a run. May be given several times.
    #[arg(long = "run", value_name = "DIR", default_value = "gametape-run")]
    pub runs: Vec<PathBuf>,
    /// Only attempts of this phase (`imported`, `rollout`, `explore`, …).
    #[arg(long, value_name = "PHASE")]
    pub purpose: Vec<String>,
    /// Only attempts of policies whose name has this part.
    #[arg(long, value_name = "NAME")]
    pub policy: Vec<String>,
    /// No attempts at tasks of this repository. May be given several times.
    #[arg(long, value_name = "REPO")]
    pub exclude_repo: Vec<String>,
}

/// What a verifier is.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum VerifierKind {
    /// Logistic regression over features of the trajectory: trained in seconds.
    Head,
    /// A language model that reads issue, turns and patch and answers YES or NO, tuned by
    /// LoRA: hours on a processor, by tokens.
    Lora,
}

/// `gametape verifier train …`
#[derive(Args, Clone, Debug)]
pub struct TrainArgs {
    /// Which attempts.
    #[command(flatten)]
    pub which: Which,
    /// Only the attempts that a dataset recipe of the kind `verifier` selects (TOML).
    #[arg(long, value_name = "FILE")]
    pub recipe: Option<PathBuf>,
    /// Attempts at tasks that are for evaluation, too.
    #[arg(long)]
    pub held_out: bool,
    /// What it becomes.
    #[arg(long, value_enum, default_value = "head")]
    pub kind: VerifierKind,
    /// Directory of the verifier.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// How a language model is tuned.
    #[command(flatten)]
    pub tuning: TuningArgs,
}

/// How a language model is tuned (`--kind lora`).
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Language model (--kind lora)")]
pub struct TuningArgs {
    /// Weights to begin with: `smollm2`, a Hugging Face directory or a GGUF file.
    #[arg(long, value_name = "MODEL", default_value = "smollm2")]
    pub base: String,
    /// Tokens that an attempt may take; longer ones are shortened (docs/verifier.md).
    #[arg(long, value_name = "TOKENS", default_value_t = 768,
          value_parser = clap::value_parser!(u32).range(96..=1_000_000))]
    pub budget: u32,
    /// Passes over the attempts.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub epochs: u32,
    /// Peak learning rate.
    #[arg(long, value_name = "RATE", default_value_t = 3e-4)]
    pub learning_rate: f64,
    /// Rank of the adapters.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub rank: u32,
    /// Layers that are trained, from the top; the others are computed once.
    #[arg(long, value_name = "N", default_value_t = 8,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub layers: u32,
    /// Threads; 0 = all.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub threads: u32,
    /// Seed of order and initialisation.
    #[arg(long, default_value_t = 42)]
    pub seed: u64,
}

/// `gametape verifier score …`
#[derive(Args, Clone, Debug)]
pub struct ScoreArgs {
    /// Which attempts.
    #[command(flatten)]
    pub which: Which,
    /// Directory of the verifier.
    #[arg(long, value_name = "DIR")]
    pub verifier: PathBuf,
}

/// `gametape verifier adapt …`
#[derive(Args, Clone, Debug)]
pub struct AdaptArgs {
    /// Which attempts.
    #[command(flatten)]
    pub which: Which,
    /// Directory of the head.
    #[arg(long, value_name = "DIR")]
    pub verifier: PathBuf,
    /// Directory of the new one.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// How new attempts have to be to a verifier that is judged by them.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unseen {
    /// Nothing of their repository was in its training.
    Repository,
    /// No attempt at their task was.
    Task,
    /// They themselves were not.
    Attempt,
}

/// `gametape verifier evaluate …`
#[derive(Args, Clone, Debug)]
pub struct EvaluateArgs {
    /// Which attempts.
    #[command(flatten)]
    pub which: Which,
    /// A trained verifier; without it, heads are cross-validated.
    #[arg(long, value_name = "DIR")]
    pub verifier: Option<PathBuf>,
    /// How new attempts have to be to it.
    #[arg(long, value_enum, default_value = "repository", requires = "verifier")]
    pub unseen: Unseen,
    /// Parts of whole repositories that are scored by heads trained on the others.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(2..=1000),
          conflicts_with = "verifier")]
    pub parts: u32,
    /// Judge every policy also as if neither it nor its scaffold had ever been seen.
    #[arg(long, conflicts_with = "verifier")]
    pub newcomers: bool,
    /// Seed of the bootstrap.
    #[arg(long, default_value_t = 42)]
    pub seed: u64,
    /// Resamples of each interval.
    #[arg(long, value_name = "N", default_value_t = RESAMPLES)]
    pub resamples: usize,
    /// Write verifier.json, verifier.txt and reliability.svg into this directory.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}
