//! The command line: verbs, flags and exit codes.

use crate::commands::evaluate::{EvaluateArgs, ExplainArgs};
use crate::commands::grade::{GradeArgs, ValidateArgs};
use crate::commands::rollout::{AttemptArgs, RolloutArgs};
pub use crate::datasets::args::{DatasetAction, DatasetForm};
use crate::training::args::TrainArgs;
use crate::verifier::args::VerifierAction;
use clap::{Args, Parser, Subcommand, ValueEnum};
use gametape_schemas::{Failure, FailureKind};
use std::path::PathBuf;

/// Every verb, for the documentation's own test.
pub const VERBS: &[&str] = &[
    "loop",
    "report",
    "doctor",
    "forge",
    "tasks",
    "trajectories",
    "rollout",
    "attempt",
    "grade",
    "score",
    "evaluate",
    "explain",
    "tape",
    "dataset",
    "train",
    "model",
    "verifier",
];

/// Records every step a coding agent takes on graded tasks, and trains a better agent
/// and a verifier from the tape.
#[derive(Parser, Debug)]
#[command(name = "gametape", version, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
    /// Machine-readable output where there is one.
    #[arg(long, global = true)]
    pub json: bool,
    /// More detail in the log (`RUST_LOG` overrides).
    #[arg(short, long, global = true)]
    pub verbose: bool,
}

/// Where a run lies.
#[derive(Args, Clone, Debug)]
pub struct RunDir {
    /// Directory of the run: tape, checkpoints, reports, log.
    #[arg(long = "run", value_name = "DIR", default_value = "gametape-run")]
    pub run: PathBuf,
}

/// Which configuration.
#[derive(Args, Clone, Debug)]
pub struct ConfigArgs {
    /// Built-in profile to start from: `default`, `smoke` or `rounds`.
    #[arg(long, default_value = "default")]
    pub profile: String,
    /// TOML file whose keys override the profile's.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub enum Verb {
    /// Run the self-improvement loop, or go on with it after any interruption.
    Loop {
        /// Where the run lies.
        #[command(flatten)]
        run: RunDir,
        /// Which configuration.
        #[command(flatten)]
        config: ConfigArgs,
        /// Print the resolved configuration and stop.
        #[arg(long)]
        print_config: bool,
        /// Say what would be done and what it needs, and stop.
        #[arg(long)]
        dry_run: bool,
    },
    /// Print the results of a run again, from its tape alone.
    Report {
        /// Where the run lies.
        #[command(flatten)]
        run: RunDir,
        /// Write report.txt, report.svg and report.json into this directory.
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
    /// Check this machine: what is there, what is missing, what to do.
    Doctor {
        /// Where the run would lie (for the disk check).
        #[command(flatten)]
        run: RunDir,
    },
    /// Make tasks from packages and stop (the first phase of the loop).
    Forge {
        /// Where the run lies.
        #[command(flatten)]
        run: RunDir,
        /// Which configuration.
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Task sets: bring them in, look at them, write them out, hold them against others.
    Tasks {
        /// What about them.
        #[command(subcommand)]
        action: TasksAction,
    },
    /// Make attempts: one policy, many tasks, k of each; every step on the tape.
    ///
    /// The same command goes on after any interruption: attempts that ended are not made
    /// again, the others go on at the step after their last one. Exit code 1 when some are
    /// without a verdict for a failure of ours.
    Rollout(RolloutArgs),
    /// Make one attempt: by hand, to see what a task is like, or by any policy.
    Attempt(AttemptArgs),
    /// Trajectories of other systems: bring them in, write attempts out.
    Trajectories {
        /// What about them.
        #[command(subcommand)]
        action: TrajectoriesAction,
    },
    /// Grade stored test logs, without running anything; or, with --run, read the stored runs
    /// of a tape again by other rules.
    ///
    /// Exit code 1 when some rows could not be used; the others are graded all the same.
    Score {
        /// Tasks: rows of the SWE-bench family, as JSON, JSON lines (also gzipped) or
        /// Parquet. May be given several times.
        #[arg(long, value_name = "FILE", required_unless_present = "run")]
        tasks: Vec<PathBuf>,
        /// Predictions as SWE-bench has them; or `gold`, for the tasks' own patches.
        #[arg(long, value_name = "FILE|gold", required_unless_present = "run")]
        predictions: Option<PathBuf>,
        /// A directory of logs, or JSON lines of `instance_id` and `log`.
        #[arg(long, value_name = "DIR|FILE", required_unless_present = "run")]
        logs: Option<PathBuf>,
        /// Where the report goes: SWE-bench's run report, and each instance.
        #[arg(long, value_name = "FILE", required_unless_present = "run")]
        out: Option<PathBuf>,
        /// Read every stored run on the tape of this run again. A verdict is added to the
        /// tape for each that other rules had decided; none is changed.
        #[arg(long, value_name = "DIR", conflicts_with_all = ["tasks", "predictions", "logs", "out", "threads"])]
        run: Option<PathBuf>,
        /// With --run: say what would change, and write nothing.
        #[arg(long, requires = "run")]
        dry_run: bool,
        /// Whose rules decide: `swebench` (parity with the official harness) or `strict`.
        /// Where the two differ is told either way.
        #[arg(long, default_value = "swebench")]
        rules: gametape_grader::score::Rules,
        /// Threads [default: one a processor].
        #[arg(long)]
        threads: Option<std::num::NonZeroUsize>,
    },
    /// Grade predictions by running the hidden tests, each in a fresh sandbox.
    ///
    /// Everything is kept on the tape of a run: the same command goes on after any
    /// interruption, and what was graded is not run again. Exit code 1 when some rows could
    /// not be used or some predictions have no verdict.
    Grade(GradeArgs),
    /// What attempts on tapes are worth: Pass@k, Best@k of every way to pick one, conduct,
    /// ablation, with intervals. Nothing is run.
    Evaluate(EvaluateArgs),
    /// Why a number moved between two measurements: what changed, what was held fixed, the
    /// difference, and what it shows.
    ///
    /// Exit code 1 when more than one thing changed: then nothing gets the credit.
    Explain(ExplainArgs),
    /// Read a tape, check it, tidy it up.
    Tape {
        /// What about it.
        #[command(subcommand)]
        action: TapeAction,
    },
    /// Rebuild datasets from a tape.
    Dataset {
        /// What about them.
        #[command(subcommand)]
        action: DatasetAction,
    },
    /// Train a model on a dataset of a tape, and tell where weights come from.
    ///
    /// The same command goes on after any interruption, and comes to the same weights; once
    /// the training has ended, it does nothing.
    Train(TrainArgs),
    /// Look at a model before loading it, or write it anew.
    Model {
        /// What about it.
        #[command(subcommand)]
        action: ModelAction,
    },
    /// Verifiers of finished attempts: train one, score with it, measure what it is worth.
    Verifier {
        /// What about them.
        #[command(subcommand)]
        action: VerifierAction,
    },
}

/// Which tasks are wanted; several values of one kind are alternatives.
#[derive(Args, Clone, Debug)]
pub struct TaskFilter {
    /// Tasks of this repository, such as `django/django`.
    #[arg(long, value_name = "REPO")]
    pub repo: Vec<String>,
    /// Tasks of this side of the experiment.
    #[arg(long, value_enum)]
    pub split: Option<TaskSplit>,
    /// The task of this name.
    #[arg(long, value_name = "ID")]
    pub id: Vec<String>,
}

/// The sides of an experiment.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum TaskSplit {
    /// Trained on.
    Train,
    /// Attempted by the tuned policy, to train the verifier.
    Explore,
    /// Measured with, and nothing else.
    HeldOut,
}

impl From<TaskSplit> for gametape_schemas::Split {
    fn from(split: TaskSplit) -> Self {
        match split {
            TaskSplit::Train => Self::Train,
            TaskSplit::Explore => Self::Explore,
            TaskSplit::HeldOut => Self::HeldOut,
        }
    }
}

/// What tasks are written as.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum TaskFormat {
    /// A row a line, as it went in.
    Jsonl,
    /// One list of rows, as they went in.
    Json,
    /// A table of rows, as they went in.
    Parquet,
    /// Rows that SWE-bench's own tools read; lines, list or table by the file's name.
    SweBench,
    /// A Harbor folder for each.
    Harbor,
    /// A folder each of a SWE-bench task repository, for tasks that came from one.
    TaskRepo,
}

/// `gametape tasks …`
///
/// A SOURCE is a file of rows (SWE-bench, SWE-Gym, SWE-smith, R2E-Gym, SWE-rebench or
/// gametape; JSON lines, a JSON list or map, also gzipped, or Parquet), a task folder or
/// a folder of them (Harbor, SWE-bench task repositories), or the directory of a run.
/// Exit code 1 when some rows could not be used; the others are used all the same.
#[derive(Subcommand, Debug)]
pub enum TasksAction {
    /// Register tasks on the tape of a run. Importing twice adds nothing.
    Import {
        /// Where they come from.
        #[arg(value_name = "SOURCE", required = true)]
        sources: Vec<PathBuf>,
        /// Put all of them on this side [default: held out for SWE-bench's rows, train
        /// for all others].
        #[arg(long, value_enum, value_name = "SPLIT")]
        into: Option<TaskSplit>,
        /// Which of them.
        #[command(flatten)]
        filter: TaskFilter,
        /// Where the run lies.
        #[command(flatten)]
        run: RunDir,
    },
    /// A line a task.
    List {
        /// Where they come from; without it, the run.
        #[arg(value_name = "SOURCE")]
        source: Option<PathBuf>,
        /// Which of them.
        #[command(flatten)]
        filter: TaskFilter,
        /// Where the run lies.
        #[command(flatten)]
        run: RunDir,
    },
    /// One task: what is asked, where, and how it is graded.
    Show {
        /// Its id, or the beginning of it.
        id: String,
        /// Where it comes from; without it, the run.
        #[arg(value_name = "SOURCE")]
        source: Option<PathBuf>,
        /// Where the run lies.
        #[command(flatten)]
        run: RunDir,
    },
    /// Write tasks out. What was imported comes out as it went in.
    Export {
        /// Where they come from; without it, the run.
        #[arg(value_name = "SOURCE")]
        source: Option<PathBuf>,
        /// File or, for folders, directory to write; `-` for lines on standard output.
        #[arg(long)]
        out: PathBuf,
        /// As what. Without it: `parquet` or `json` when the file's name ends so, else
        /// `jsonl`.
        #[arg(long, value_enum)]
        format: Option<TaskFormat>,
        /// Which of them.
        #[command(flatten)]
        filter: TaskFilter,
        /// Where the run lies.
        #[command(flatten)]
        run: RunDir,
    },
    /// Grade the gold and the empty patch of each task several times: whether it can be
    /// trusted. Exit code 1 when some cannot.
    Validate(ValidateArgs),
    /// Pairs of tasks of two sets that are the same, or nearly, with the evidence. Exit
    /// code 1 when there are some.
    Overlap {
        /// The one set.
        #[arg(value_name = "SOURCE")]
        a: PathBuf,
        /// The other.
        #[arg(value_name = "SOURCE")]
        b: PathBuf,
        /// Words that statements must have in common, one after the other.
        #[arg(long, default_value_t = 13, value_parser = clap::value_parser!(u16).range(2..))]
        ngram: u16,
        /// Words that more than this share of a set's tasks have in common are a
        /// template's, and do not count.
        #[arg(long, value_name = "SHARE", default_value_t = 0.01)]
        common: f64,
        /// Share of the shorter statement's runs of words that both must have; 0 for a
        /// single run.
        #[arg(long, value_name = "SHARE", default_value_t = 0.3)]
        least: f64,
    },
}

/// Formats of trajectories that are read.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum TrajectoryKind {
    /// `output.jsonl` of OpenHands.
    #[value(name = "openhands")]
    OpenHands,
    /// `.traj` of SWE-agent.
    SweAgent,
    /// `.traj.json` of mini-swe-agent.
    MiniSweAgent,
    /// Trajectories of Moatless tools.
    Moatless,
    /// Harbor's trajectory format.
    Atif,
    /// Rows of chat messages.
    Messages,
}

/// What attempts are written as.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum TrajectoryForm {
    /// Harbor's trajectory format, version 1.7.
    Atif,
    /// Chat messages, with calls of tools in the text (`<function=…>`).
    Messages,
    /// Chat messages, with calls of tools in OpenAI's form.
    MessagesTools,
    /// OpenHands' `output.jsonl`.
    #[value(name = "openhands")]
    OpenHands,
    /// SWE-bench's predictions.
    SweBenchPredictions,
    /// What was imported, word for word.
    Own,
}

/// `gametape trajectories …`
///
/// Exit code 1 when some records could not be used; the others are used all the same.
#[derive(Subcommand, Debug)]
pub enum TrajectoriesAction {
    /// Put trajectories of others on the tape of a run, as attempts of somebody outside.
    /// Importing twice adds nothing; after an interruption the same command goes on.
    Import {
        /// Files of OpenHands, SWE-agent, mini-swe-agent, Moatless, ATIF or chat messages
        /// (JSON lines, lists or documents, also gzipped), or directories of them.
        #[arg(value_name = "FILE|DIR", required = true)]
        paths: Vec<PathBuf>,
        /// What the records are; without it, what each of them looks like.
        #[arg(long, value_enum)]
        format: Option<TrajectoryKind>,
        /// Who acted, whatever the records say (some do not name their model).
        #[arg(long, value_name = "NAME")]
        policy: Option<String>,
        /// Tasks to register first, as `gametape tasks import` reads them.
        #[arg(long, value_name = "SOURCE")]
        tasks: Vec<PathBuf>,
        /// Where the run lies.
        #[command(flatten)]
        run: RunDir,
    },
    /// Write attempts, made here or imported.
    Export {
        /// As what.
        #[arg(long, value_enum)]
        format: TrajectoryForm,
        /// File to write (a line an attempt; `.gz` is compressed), a directory for a file
        /// an attempt, `-` for standard output.
        #[arg(long)]
        out: PathBuf,
        /// Only the attempt whose id begins so.
        #[arg(long, value_name = "ID")]
        attempt: Option<String>,
        /// Only attempts whose hidden tests passed.
        #[arg(long)]
        resolved: bool,
        /// Where the run lies.
        #[command(flatten)]
        run: RunDir,
    },
    /// A line per attempt, as `gametape tape show` without a name.
    List {
        /// Where the run lies.
        #[command(flatten)]
        run: RunDir,
    },
}

/// `gametape tape …`
#[derive(Subcommand, Debug)]
pub enum TapeAction {
    /// Check every frame, event and payload; name the first bad sequence number.
    Verify {
        /// Where the run lies.
        #[command(flatten)]
        run: RunDir,
    },
    /// Events, bytes, compression, payloads, types and streams.
    Stats {
        /// Where the run lies.
        #[command(flatten)]
        run: RunDir,
    },
    /// One attempt, step by step (`ATTEMPT` may be shortened); or list attempts.
    Show {
        /// Its id, or the beginning of it. Without it: a line per attempt.
        attempt: Option<String>,
        /// All of every step; without it, long texts are folded.
        #[arg(long, requires = "attempt")]
        full: bool,
        /// All of this step, from 0, and nothing else.
        #[arg(long, value_name = "N", requires = "attempt")]
        step: Option<u32>,
        /// Where the run lies.
        #[command(flatten)]
        run: RunDir,
    },
    /// The last events.
    Tail {
        /// How many.
        #[arg(short = 'n', long, default_value_t = 20)]
        count: usize,
        /// Where the run lies.
        #[command(flatten)]
        run: RunDir,
    },
    /// All events as JSON lines, or as a Parquet table with a row for each.
    Export {
        /// File to write, `-` for standard output (JSON lines only).
        #[arg(long, default_value = "-")]
        out: PathBuf,
        /// Form of the file. Without it: `parquet` when its name ends in `.parquet`,
        /// `jsonl` otherwise.
        #[arg(long, value_enum)]
        format: Option<ExportFormat>,
        /// Where the run lies.
        #[command(flatten)]
        run: RunDir,
    },
    /// A new tape from an export, JSON lines or Parquet; its digest equals the original's.
    Import {
        /// File to read.
        file: PathBuf,
        /// Where the new run lies (its tape must not exist).
        #[command(flatten)]
        run: RunDir,
    },
    /// Check the tape, then remove the payload files that no event names (a killed
    /// writer leaves such behind). Events are never removed.
    Compact {
        /// Where the run lies.
        #[command(flatten)]
        run: RunDir,
        /// Say what would be removed, and remove nothing.
        #[arg(long)]
        dry_run: bool,
    },
}

/// The forms of an exported tape.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExportFormat {
    /// An event a line, for scripts.
    Jsonl,
    /// An event a row, for DuckDB, pandas, polars and their like.
    Parquet,
}

/// `gametape model …`
#[derive(Subcommand, Debug)]
pub enum ModelAction {
    /// Shape, parameters and the memory that sampling and training need.
    Inspect {
        /// A Hugging Face directory, a GGUF file or the directory of a PEFT adapter.
        path: PathBuf,
        /// Tokens of the conversations that memory is estimated for.
        #[arg(long)]
        context: Option<usize>,
    },
    /// Merge an adapter into its base model: a Hugging Face directory in f32.
    Merge {
        /// The directory of a PEFT adapter.
        adapter: PathBuf,
        /// The new directory.
        #[arg(long)]
        out: PathBuf,
    },
    /// Write a GGUF file as a Hugging Face directory in f32.
    Convert {
        /// The GGUF file.
        model: PathBuf,
        /// The new directory.
        #[arg(long)]
        out: PathBuf,
    },
}

/// Exit codes are stable: scripts may rely on them.
pub fn exit_code(failure: &Failure) -> u8 {
    match (failure.kind, failure.code.as_str()) {
        (FailureKind::Cancelled, _) => 130,
        (FailureKind::Budget, _) => 7,
        (_, "GT-TAPE-LOCKED") => 4,
        (FailureKind::Disk, _) | (_, "GT-TAPE-FULL") => 5,
        (FailureKind::Input, _) => 2,
        (_, "GT-SANDBOX-UNAVAILABLE") | (FailureKind::Provision, _) => 3,
        (FailureKind::Tape, _) => 6,
        _ => 1,
    }
}
