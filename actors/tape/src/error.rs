//! What can go wrong with a tape. Each variant has a page in `docs/errors/`.

use gametape_schemas::{Failure, FailureKind};
use std::path::{Path, PathBuf};

/// A failure of the tape.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TapeError {
    /// Another process has it open.
    #[error("the tape {path} is in use by {holder}", path = path.display())]
    Locked {
        /// The tape.
        path: PathBuf,
        /// What the lock file says of the holder.
        holder: String,
    },
    /// The disk said no.
    #[error("{what} of the tape {path} failed: {reason}", path = path.display())]
    Io {
        /// The tape or a file of it.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// The system's reason.
        reason: String,
    },
    /// No space is left.
    #[error("the disk under the tape {path} is full", path = path.display())]
    Full {
        /// The tape.
        path: PathBuf,
    },
    /// There is a database, but not ours.
    #[error("{path} holds something that is not a tape: {reason}", path = path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// How it shows.
        reason: String,
    },
    /// Written by a newer version.
    #[error("the tape was written by a newer gametape: {reason}")]
    Newer {
        /// How it shows.
        reason: String,
    },
    /// Bytes are not what was written.
    #[error("the tape is damaged at sequence {seq}: {reason}")]
    Corrupt {
        /// First sequence number that cannot be read.
        seq: u64,
        /// How it shows.
        reason: String,
    },
    /// The stream is not where the writer believed it to be.
    #[error("stream {stream} has {actual} events, not {expected}")]
    Version {
        /// The stream.
        stream: String,
        /// What the writer expected.
        expected: u64,
        /// What is there.
        actual: u64,
    },
    /// The id is taken by another fact.
    #[error("event id `{event_id}` is on the tape at sequence {seq} with another content")]
    Conflict {
        /// The id.
        event_id: String,
        /// Where the first one is.
        seq: u64,
    },
    /// The writer stopped for good after a failed write or sync.
    #[error("the tape's writer has stopped: {reason}")]
    Stopped {
        /// What stopped it.
        reason: String,
    },
    /// What should be imported is not an export.
    #[error("line {line} of the import cannot be used: {reason}")]
    Import {
        /// Line number, from 1.
        line: usize,
        /// Why.
        reason: String,
    },
}

impl TapeError {
    /// An I/O error, with a full disk told apart.
    pub(crate) fn io(path: &Path, what: &'static str, error: &std::io::Error) -> Self {
        if error.raw_os_error() == Some(libc::ENOSPC) {
            return Self::Full {
                path: path.to_owned(),
            };
        }
        Self::Io {
            path: path.to_owned(),
            what,
            reason: error.to_string(),
        }
    }

    /// sled's errors, with a full disk and damage told apart.
    pub(crate) fn sled(path: &Path, what: &'static str, error: &sled::Error) -> Self {
        match error {
            sled::Error::Io(error) => Self::io(path, what, error),
            sled::Error::Corruption { at, .. } => Self::Corrupt {
                seq: 0,
                reason: format!("the database reports corruption at {at:?}"),
            },
            sled::Error::Unsupported(reason) => Self::Foreign {
                path: path.to_owned(),
                reason: reason.clone(),
            },
            other => Self::Io {
                path: path.to_owned(),
                what,
                reason: other.to_string(),
            },
        }
    }

    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Locked { .. } => "GT-TAPE-LOCKED",
            Self::Io { .. } => "GT-TAPE-IO",
            Self::Full { .. } => "GT-TAPE-FULL",
            Self::Foreign { .. } => "GT-TAPE-FOREIGN",
            Self::Newer { .. } => "GT-TAPE-NEWER",
            Self::Corrupt { .. } => "GT-TAPE-CORRUPT",
            Self::Version { .. } => "GT-TAPE-VERSION",
            Self::Conflict { .. } => "GT-TAPE-CONFLICT",
            Self::Stopped { .. } => "GT-TAPE-STOPPED",
            Self::Import { .. } => "GT-TAPE-IMPORT",
        }
    }
}

impl From<TapeError> for Failure {
    fn from(error: TapeError) -> Self {
        let help = match &error {
            TapeError::Locked { .. } => {
                "wait until that process ends or stop it (Ctrl-C loses nothing); one process at a time has a tape open, readers too"
            }
            TapeError::Io { .. } => "check the directory's permissions and the disk",
            TapeError::Full { .. } => {
                "free some space and type the same command again: everything acknowledged is safe"
            }
            TapeError::Foreign { .. } => "name another directory with --run",
            TapeError::Newer { .. } => "use the newer version of gametape",
            TapeError::Corrupt { .. } => {
                "keep a copy of the directory; `gametape tape verify` names what is readable; nothing is repaired silently"
            }
            TapeError::Version { .. } | TapeError::Conflict { .. } => {
                "two writers disagreed about the same fact: this is a defect; the tape is intact"
            }
            TapeError::Stopped { .. } => {
                "see to the disk, then type the same command again: everything acknowledged is safe"
            }
            TapeError::Import { .. } => "import a file that `gametape tape export` wrote, whole",
        };
        let kind = match &error {
            TapeError::Full { .. } => FailureKind::Disk,
            _ => FailureKind::Tape,
        };
        Self::new(kind, error.code(), error.to_string()).with_help(help)
    }
}
