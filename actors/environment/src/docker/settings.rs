//! How the engine is asked and what a container may use.

use std::time::Duration;

/// How to talk to the engine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EngineSettings {
    /// Address, such as `unix:///var/run/docker.sock`; the usual one (`DOCKER_HOST`) when
    /// absent.
    pub address: Option<String>,
    /// How long one call may take.
    pub call: Duration,
    /// How long making a container, moving a tree or restarting may take.
    pub slow: Duration,
    /// How long making an image may take.
    pub image: Duration,
    /// Containers that are made at once: an engine that starts many takes long for each.
    pub starts: usize,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self {
            address: None,
            call: Duration::from_secs(30),
            slow: Duration::from_secs(120),
            image: Duration::from_secs(900),
            starts: 4,
        }
    }
}

/// What one container may use.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Memory, and memory with swap, MiB.
    pub memory_mib: u64,
    /// Processor time: thousandths of a core.
    pub cpu_milli: u64,
    /// Processes and threads.
    pub processes: u64,
    /// Largest file, MiB.
    pub file_mib: u64,
    /// Open files of a process.
    pub open_files: u64,
    /// Size of the repository, MiB, and its files and directories.
    pub repository: Space,
    /// `/tmp`.
    pub tmp: Space,
    /// `/dev/shm`.
    pub shm: Space,
    /// What may be written in an image that is used as it is, MiB, where the engine can
    /// limit it (overlay on xfs with project quotas, btrfs, zfs).
    pub image_mib: u64,
    /// A container ends by itself after so many seconds, whoever forgot it.
    pub lifetime_s: u64,
}

/// Room in a file system in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Space {
    /// Bytes, MiB.
    pub mib: u64,
    /// Files and directories.
    pub inodes: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            memory_mib: 4096,
            cpu_milli: 2000,
            processes: 128,
            file_mib: 256,
            open_files: 1024,
            repository: Space {
                mib: 512,
                inodes: 100_000,
            },
            tmp: Space {
                mib: 256,
                inodes: 50_000,
            },
            shm: Space {
                mib: 64,
                inodes: 1_000,
            },
            image_mib: 20 << 10,
            lifetime_s: 24 * 3600,
        }
    }
}
