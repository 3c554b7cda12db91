//! What `gametape train` is told.

use crate::cli::RunDir;
use clap::{Args, Subcommand};
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// `gametape train …`
#[derive(Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct TrainArgs {
    /// Look instead of training.
    #[command(subcommand)]
    pub action: Option<TrainAction>,
    /// The training.
    #[command(flatten)]
    pub training: TrainingArgs,
}

/// A training.
#[derive(Args, Clone, Debug)]
pub struct TrainingArgs {
    /// Name of a dataset on the tape (`gametape dataset build`; `policy` and `verifier` are
    /// the loop's).
    #[arg(long, value_name = "NAME", required = true)]
    pub dataset: Option<String>,
    /// Starting weights: `smollm2`, `tiny-random`, the name or the checkpoint of a training of
    /// this tape, or a path (a Hugging Face directory, a GGUF file, a PEFT adapter).
    #[arg(long, value_name = "BASE", required = true)]
    pub base: Option<String>,
    /// Hyperparameters to begin with: `gametape train presets` lists them. Without it each has
    /// its own default: one epoch of full fine-tuning.
    #[arg(long, value_name = "PRESET")]
    pub preset: Option<String>,
    /// A TOML file of hyperparameters, over the preset's.
    #[arg(long, value_name = "FILE")]
    pub hyper: Option<PathBuf>,
    /// A hyperparameter, over the preset's and the file's: `learning_rate=1e-4`. May be given
    /// several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub sets: Vec<String>,
    /// Name of the training [default: made of the dataset and of what is learnt].
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Where checkpoints and weights go [default: checkpoints/NAME in the run].
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// A task or a repository whose overlap with a held-out task is let pass: somebody looked
    /// at it. May be given several times.
    #[arg(long, value_name = "NAME")]
    pub allow_overlap: Vec<String>,
    /// Train although the base's tokenizer is not that of the models whose attempts these are,
    /// or not the one that lengths were measured with: their words are learnt all the same.
    #[arg(long)]
    pub other_tokenizer: bool,
    /// Threads of libtorch [default: one a processor]. Another number may give other last
    /// bits.
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    /// Say what would be done and what it needs, and stop.
    #[arg(long)]
    pub dry_run: bool,
    /// Where the run lies.
    #[command(flatten)]
    pub run: RunDir,
}

/// Looking at trainings.
#[derive(Subcommand, Clone, Debug)]
pub enum TrainAction {
    /// Where weights come from: training, base and dataset, whose attempts those rows are, and
    /// where their weights come from. Without a name: a line a training.
    Show {
        /// Name of a training, or the beginning of a checkpoint.
        #[arg(value_name = "TRAINING|CHECKPOINT")]
        weights: Option<String>,
        /// Where the run lies.
        #[command(flatten)]
        run: RunDir,
    },
    /// The named sets of hyperparameters, and where their source contradicts itself.
    Presets,
}
