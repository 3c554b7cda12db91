//! What the host and the helper inside a sandbox say to one another: small packets over
//! the socket that is the helper's standard input, with descriptors beside them. Pure.
//!
//! An [`Order`] goes in; of each job a few [`Said`] come out. What may be long (the
//! request, a command's input and output) travels in files and pipes of its own.

use serde::{Deserialize, Serialize};

/// A packet is no longer than this: what is long travels beside it.
pub const MAX_PACKET: usize = 16 << 10;

/// Limits of a sandbox and of each command in it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Limits {
    /// Processes and threads of the sandbox's uid.
    pub processes: u64,
    /// Largest file, MiB.
    pub file_mib: u64,
    /// Address space of a process, MiB. With control groups also the memory of the whole
    /// sandbox, what it writes included.
    pub memory_mib: u64,
    /// CPU seconds of a process.
    pub cpu_s: u64,
    /// Open files of a process.
    pub open_files: u64,
    /// What a sandbox may write in all, MiB (where layers can be mounted).
    pub disk_mib: u64,
    /// Files that it may make in all (likewise).
    pub inodes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            processes: 128,
            file_mib: 256,
            memory_mib: 4096,
            cpu_s: 600,
            open_files: 1024,
            disk_mib: 1024,
            inodes: 200_000,
        }
    }
}

/// What to run: the content of the first descriptor of [`Order::Run`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Request {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// The whole environment of the command.
    pub env: Vec<(String, String)>,
    /// Working directory.
    pub directory: String,
    /// The uid and gid to become; `None` when we are that user already.
    pub uid: Option<u32>,
    /// Limits.
    pub limits: Limits,
}

/// What the host asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Run something. With it come four descriptors: the request, and the command's
    /// standard input, output and error.
    Run {
        /// Its number, chosen by the host.
        job: u64,
        /// Whether the streams are a terminal, which becomes the command's own. Such a
        /// job outlives the commands beside it.
        terminal: bool,
    },
    /// Kill a job and all that it left.
    Kill {
        /// Which.
        job: u64,
    },
}

/// What the helper says, and of which job.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Said {
    /// The job; 0 is the helper itself.
    pub job: u64,
    /// What.
    pub report: Report,
}

/// What the helper says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// The sandbox is up and waits for orders.
    Ready,
    /// Every layer is in place and the command has started.
    Started,
    /// The command does not exist or cannot be executed: its own failure.
    NotStarted {
        /// `errno` of the last try.
        errno: i32,
    },
    /// A layer could not be put in place: ours.
    Failed {
        /// Which, and why.
        why: String,
    },
    /// The command ended, and nothing that it started is left.
    Ended {
        /// Exit code, unless a signal ended it.
        code: Option<i32>,
        /// The signal.
        signal: Option<i32>,
        /// CPU time of the command and of what it started, microseconds.
        cpu_us: u64,
        /// Largest resident set of any process of this sandbox so far, KiB.
        max_rss_kib: u64,
    },
}

impl Report {
    /// Whether nothing comes after it of the same job.
    pub fn is_last(&self) -> bool {
        matches!(
            self,
            Self::NotStarted { .. } | Self::Failed { .. } | Self::Ended { .. }
        )
    }
}
