//! What can go wrong with a tape. Each code has a page in `docs/errors/`.

use crate::frame::FrameError;
use gametape_schemas::{Failure, FailureKind, codec};
use std::path::{Path, PathBuf};

/// A failure of the tape.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TapeError {
    /// Another process has it open.
    #[error("the tape {path} is in use by {holder}", path = path.display())]
    Locked {
        /// The tape.
        path: PathBuf,
        /// What the lock file says of the holder: process id, command, start.
        holder: String,
    },
    /// There is none where one should be read.
    #[error("there is no tape in {path}", path = path.display())]
    Missing {
        /// The directory.
        path: PathBuf,
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
    /// No space is left (or no quota).
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
    /// The event has no form on the tape.
    #[error("event `{event_id}` cannot be put on the tape: {reason}")]
    Event {
        /// Its id.
        event_id: String,
        /// Why.
        reason: String,
    },
    /// The writer stopped for good after a failed write or sync.
    #[error("the tape's writer has stopped: {reason}")]
    Stopped {
        /// What stopped it.
        reason: String,
    },
    /// A projection has no state that can be kept.
    #[error("the state of the projection `{name}` cannot be kept: {reason}")]
    Projection {
        /// Its name.
        name: String,
        /// Why.
        reason: String,
    },
    /// What should be imported is not an export.
    #[error("{place} of the import cannot be used: {reason}")]
    Import {
        /// A line or a row, numbered from 1; or a column, or another part of the file.
        place: String,
        /// Why.
        reason: String,
    },
}

impl TapeError {
    /// An I/O error, with a full disk told apart.
    pub(crate) fn io(path: &Path, what: &'static str, error: &std::io::Error) -> Self {
        if matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))
            || error.kind() == std::io::ErrorKind::StorageFull
        {
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

    /// What is wrong with the frame that should hold `seq`.
    pub(crate) fn frame(seq: u64, error: &FrameError) -> Self {
        match error {
            // It names its event.
            FrameError::Payload(error) => (**error).clone(),
            FrameError::Newer(_) | FrameError::Event(codec::CodecError::Unknown { .. }) => {
                Self::Newer {
                    reason: format!("sequence {seq}: {error}"),
                }
            }
            other => Self::corrupt(seq, other.to_string()),
        }
    }

    pub(crate) fn corrupt(seq: u64, reason: impl Into<String>) -> Self {
        Self::Corrupt {
            seq,
            reason: reason.into(),
        }
    }

    /// What is wrong with the file to import, and where.
    pub(crate) fn import(place: impl Into<String>, reason: impl ToString) -> Self {
        Self::Import {
            place: place.into(),
            reason: reason.to_string(),
        }
    }

    pub(crate) fn gone() -> Self {
        Self::Stopped {
            reason: "its thread is gone".to_owned(),
        }
    }

    /// Stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Locked { .. } => "GT-TAPE-LOCKED",
            Self::Missing { .. } => "GT-TAPE-NONE",
            Self::Io { .. } => "GT-TAPE-IO",
            Self::Full { .. } => "GT-TAPE-FULL",
            Self::Foreign { .. } => "GT-TAPE-FOREIGN",
            Self::Newer { .. } => "GT-TAPE-NEWER",
            Self::Corrupt { .. } => "GT-TAPE-CORRUPT",
            Self::Version { .. } => "GT-TAPE-VERSION",
            Self::Conflict { .. } => "GT-TAPE-CONFLICT",
            Self::Event { .. } => "GT-TAPE-EVENT",
            Self::Stopped { .. } => "GT-TAPE-STOPPED",
            Self::Projection { .. } => "GT-TAPE-PROJECTION",
            Self::Import { .. } => "GT-TAPE-IMPORT",
        }
    }

    /// What the person can do about it.
    pub fn help(&self) -> &'static str {
        match self {
            Self::Locked { .. } => {
                "wait until that process ends, or stop it (Ctrl-C loses nothing); \
                 the database has no read-only opening, so reading a tape waits, too"
            }
            Self::Missing { .. } => {
                "name the directory of a run with --run DIR; `gametape loop` makes one"
            }
            Self::Io { .. } => "check the directory's permissions and the disk",
            Self::Full { .. } => {
                "free some space and type the same command again: everything acknowledged is safe"
            }
            Self::Foreign { .. } => "name another directory with --run",
            Self::Newer { .. } => "use the newer version of gametape",
            Self::Corrupt { .. } => {
                "keep a copy of the directory; `gametape tape verify` names the first damage; \
                 nothing is repaired silently"
            }
            Self::Version { .. } | Self::Conflict { .. } => {
                "two writers disagreed about the same fact: this is a defect; the tape is intact"
            }
            Self::Event { .. } => "nothing of its request was written; make the event smaller",
            Self::Stopped { .. } => {
                "see to the disk, then type the same command again: everything acknowledged is safe"
            }
            Self::Projection { .. } => {
                "this is a defect; the tape is intact, and the state is folded from it at each start"
            }
            Self::Import { .. } => "import a file that `gametape tape export` wrote, whole",
        }
    }
}

impl From<TapeError> for Failure {
    fn from(error: TapeError) -> Self {
        let kind = match &error {
            TapeError::Full { .. } => FailureKind::Disk,
            TapeError::Missing { .. } | TapeError::Foreign { .. } | TapeError::Import { .. } => {
                FailureKind::Input
            }
            _ => FailureKind::Tape,
        };
        Self::new(kind, error.code(), error.to_string()).with_help(error.help())
    }
}
