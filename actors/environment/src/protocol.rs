//! What the host and the helper inside a sandbox say to one another, over the socket
//! that is the helper's standard input: frames of a little-endian `u32` length and so
//! many bytes. One request and its input go in, a few reports come out. Pure.

use serde::{Deserialize, Serialize};
use std::io::{self, Read};

/// A frame larger than this is refused by the reader (64 MiB).
pub const MAX_FRAME: u32 = 64 << 20;

/// Limits of one command, set by the helper just before it starts.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Limits {
    /// Processes and threads of the sandbox's uid.
    pub processes: u64,
    /// Largest file, MiB.
    pub file_mib: u64,
    /// Address space of a process, MiB.
    pub memory_mib: u64,
    /// CPU seconds of a process.
    pub cpu_s: u64,
    /// Open files of a process.
    pub open_files: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            processes: 128,
            file_mib: 256,
            memory_mib: 4096,
            cpu_s: 600,
            open_files: 1024,
        }
    }
}

/// Run this. A second frame follows with the command's input when `has_stdin`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Request {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// The whole environment of the command.
    pub env: Vec<(String, String)>,
    /// Working directory.
    pub directory: String,
    /// Whether a frame with standard input follows; else `/dev/null`.
    pub has_stdin: bool,
    /// The uid and gid to become; `None` when we are that user already.
    pub uid: Option<u32>,
    /// Limits.
    pub limits: Limits,
}

/// What the helper says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
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
    /// The command ended. All that it left running dies with the helper.
    Ended {
        /// Exit code, unless a signal ended it.
        code: Option<i32>,
        /// The signal.
        signal: Option<i32>,
        /// CPU time of the command and what it waited for, microseconds.
        cpu_us: u64,
        /// Largest resident set of any of them, KiB.
        max_rss_kib: u64,
    },
}

/// Bytes of a frame around `payload`.
///
/// # Errors
/// When it is too large.
pub fn frame(payload: &[u8]) -> io::Result<Vec<u8>> {
    let length = u32::try_from(payload.len())
        .ok()
        .filter(|n| *n <= MAX_FRAME)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the frame is too large"))?;
    let mut out = Vec::with_capacity(payload.len() + 4);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(payload);
    Ok(out)
}

/// Bytes of a frame around the JSON of `value`.
///
/// # Errors
/// When it is too large.
pub fn frame_of<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    frame(&serde_json::to_vec(value).map_err(io::Error::from)?)
}

/// Reads one frame; blocks.
///
/// # Errors
/// The reader's; `InvalidData` for a length that cannot be.
pub fn read_frame(from: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length);
    if length > MAX_FRAME {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a frame's length cannot be",
        ));
    }
    let mut payload = vec![0; length as usize];
    from.read_exact(&mut payload)?;
    Ok(payload)
}

/// Whole reports at the start of `bytes`; what cannot be read is left out. Used on what
/// arrived until the helper's end, so an unfinished frame is simply not there.
pub fn reports(mut bytes: &[u8]) -> Vec<Report> {
    let mut out = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length) as usize;
        let Some((payload, rest)) = rest.split_at_checked(length) else {
            break;
        };
        out.extend(serde_json::from_slice::<Report>(payload).ok());
        bytes = rest;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn frames_come_back_and_torn_ones_are_not_there() {
        let ended = Report::Ended {
            code: Some(3),
            signal: None,
            cpu_us: 5,
            max_rss_kib: 7,
        };
        let mut bytes = frame_of(&Report::Started).unwrap();
        bytes.extend(frame_of(&ended).unwrap());
        assert_eq!(reports(&bytes), [Report::Started, ended]);
        assert_eq!(reports(&bytes[..bytes.len() - 1]), [Report::Started]);
        assert_eq!(
            read_frame(&mut &frame(b"abc").unwrap()[..]).unwrap(),
            b"abc"
        );
        assert!(read_frame(&mut &u32::MAX.to_le_bytes()[..]).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = reports(&bytes);
            let _ = read_frame(&mut &bytes[..]);
        }
    }
}
