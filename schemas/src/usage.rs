//! What a sandbox used, and which of its limits struck.

use serde::{Deserialize, Serialize};

/// A limit of a sandbox.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResourceLimit {
    /// A command ran too long.
    WallTime,
    /// A process used too much of the processor.
    CpuTime,
    /// The sandbox used too much memory.
    Memory,
    /// There were too many processes.
    Processes,
    /// The sandbox wrote too much, or too many files.
    Disk,
    /// A file grew too large.
    FileSize,
}

/// What a sandbox used from its opening to its closing. What nobody could measure is
/// absent.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct SandboxUsage {
    /// From opening to closing, milliseconds.
    pub wall_ms: u64,
    /// Commands that were run.
    pub commands: u64,
    /// Processor time, microseconds.
    pub cpu_us: u64,
    /// Most memory at once: of the sandbox where control groups tell, else of its
    /// largest process. Bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory_bytes: Option<u64>,
    /// What lay on its writable layers in the end, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written_bytes: Option<u64>,
    /// Most processes at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes_peak: Option<u64>,
    /// Limits that struck, each once, in the order in which they did.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<ResourceLimit>,
    /// Files that were made there and that no patch takes, by name: by-products, binary
    /// and too large files of the repository as the last diff saw them, then those of
    /// other places (`/tmp/…`). At most 100 names, each of at most 200 characters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scratch: Vec<String>,
}
