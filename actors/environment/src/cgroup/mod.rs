//! Control groups: limits on all of a sandbox together, and what it used.
//!
//! rlimits are per process; a group bounds memory, processes and processor time of
//! everything that came of a command, says which limit was hit, and names all of it when
//! it must die. Both interfaces of the kernel are used, also side by side: each duty is
//! done by one hierarchy, v2 before v1.
//!
//! - `places`: mounted hierarchies, and where we are in them
//! - `trial`: what can be had, by trying
//! - [`pool`]: slots that are used again and again
//! - `group`, `kill`, `sweep`: one directory; emptying it; what dead owners left
//! - `v1`, `v2`: the files of the two interfaces
//! - [`usage`]: limits, usage, and which limit was hit; pure
//!
//! **Not here:** who is put into a group, and when.

mod group;
mod kill;
mod places;
pub mod pool;
mod sweep;
mod trial;
pub mod usage;
mod v1;
mod v2;

pub use pool::{Pool, Slot};
pub use usage::{GroupLimits, GroupUsage, Limit};

use crate::private::start_of;
use crate::probe::Layer;
use group::Group;
use places::{Hierarchy, Version};
use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use usage::Counters;

/// Begins the name of every slot.
const PREFIX: &str = "gametape-";
/// Begins the name of a group that this process moved into to make room for slots.
const ASIDE: &str = "gametape-host-";
/// Period of processor quotas, microseconds: the kernel's own default.
const PERIOD_US: u64 = 100_000;
/// Smallest quota that the kernel takes, microseconds.
const LEAST_QUOTA_US: u64 = 1_000;

/// Thousandths of a core as microseconds of a period.
fn quota_us(milli: u64) -> u64 {
    (milli.saturating_mul(PERIOD_US) / 1000).max(LEAST_QUOTA_US)
}

/// What a group does for a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Duties {
    memory: bool,
    processes: bool,
    cpu: bool,
    cpu_time: bool,
    kill: bool,
}

impl Duties {
    const ALL: Self = Self {
        memory: true,
        processes: true,
        cpu: true,
        cpu_time: true,
        kill: true,
    };

    fn each(self) -> [(bool, &'static str); 5] {
        [
            (self.memory, "memory"),
            (self.processes, "processes"),
            (self.cpu, "cpu"),
            (self.cpu_time, "processor time"),
            (self.kill, "kill"),
        ]
    }

    fn count(self) -> usize {
        self.each().iter().filter(|(has, _)| *has).count()
    }

    fn and(self, other: Self) -> Self {
        self.combine(other, |a, b| a && b)
    }

    fn without(self, other: Self) -> Self {
        self.combine(other, |a, b| a && !b)
    }

    fn combine(self, other: Self, of: impl Fn(bool, bool) -> bool) -> Self {
        Self {
            memory: of(self.memory, other.memory),
            processes: of(self.processes, other.processes),
            cpu: of(self.cpu, other.cpu),
            cpu_time: of(self.cpu_time, other.cpu_time),
            kill: of(self.kill, other.kill),
        }
    }

    fn words(self) -> String {
        let words = self.each().into_iter().filter(|(has, _)| *has);
        words.map(|(_, name)| name).collect::<Vec<_>>().join(", ")
    }
}

/// A place where groups can be made, and what they do there.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    version: Version,
    top: PathBuf,
    parent: PathBuf,
    duties: Duties,
}

impl Part {
    fn set(&self, group: &Group, limits: &GroupLimits) -> io::Result<()> {
        match self.version {
            Version::V1 => v1::set(group, self.duties, limits),
            Version::V2 => v2::set(group, self.duties, limits),
        }
    }

    fn read(&self, group: &Group) -> Counters {
        match self.version {
            Version::V1 => v1::read(group, self.duties),
            Version::V2 => v2::read(group, self.duties),
        }
    }

    fn reclaim(&self, group: &Group, bytes: u64) {
        match self.version {
            Version::V1 => v1::reclaim(group),
            Version::V2 => v2::reclaim(group, bytes),
        }
    }

    /// Sets the peak of memory back to what lies there; true when that can be done.
    fn reset(&self, group: &mut Group) -> bool {
        match self.version {
            Version::V1 => v1::reset(group, self.duties),
            Version::V2 => v2::reset(group, self.duties),
        }
    }

    /// Whether its directory holds nothing but a count of processes.
    fn is_made_anew(&self) -> bool {
        self.version == Version::V1 && self.duties.processes && self.duties.count() == 1
    }
}

/// The control groups of this machine, as far as this process may use them.
#[derive(Clone, Debug)]
pub struct Groups {
    parts: Arc<[Part]>,
    /// What could not be had, and why.
    refused: Vec<String>,
}

impl Groups {
    /// Tries what this machine has, in milliseconds: a group is made, limited, entered
    /// and removed in each hierarchy. Blocks.
    pub fn detect() -> Self {
        Self::among(&places::mounted())
    }

    fn among(mounted: &[Hierarchy]) -> Self {
        if mounted.is_empty() {
            return Self::none("no control groups are mounted");
        }
        let mut left = Duties::ALL;
        let (mut parts, mut refused) = (Vec::new(), Vec::new());
        for hierarchy in mounted {
            let wanted = match hierarchy.version {
                Version::V1 => v1::duties(&hierarchy.controllers).and(left),
                Version::V2 => left,
            };
            if wanted == Duties::default() {
                continue;
            }
            match trial::find(hierarchy, wanted) {
                Ok(part) => {
                    left = left.without(part.duties);
                    parts.push(part);
                }
                Err(why) => refused.push(why),
            }
        }
        if left != Duties::default() && !parts.is_empty() {
            refused.push(format!("missing: {}", left.words()));
        }
        Self {
            parts: parts.into(),
            refused,
        }
    }

    /// No groups, and why: every slot limits and counts nothing.
    pub fn none(why: &str) -> Self {
        Self {
            parts: Arc::new([]),
            refused: vec![why.to_owned()],
        }
    }

    /// Whether limits on memory are kept.
    pub fn keeps_memory(&self) -> bool {
        self.parts.iter().any(|part| part.duties.memory)
    }

    /// Whether limits on processes are kept.
    pub fn keeps_processes(&self) -> bool {
        self.parts.iter().any(|part| part.duties.processes)
    }

    /// Whether limits on processor time are kept.
    pub fn keeps_cpu(&self) -> bool {
        self.parts.iter().any(|part| part.duties.cpu)
    }

    /// The row of the doctor's table: active when memory and processes are limited.
    pub fn layer(&self) -> Layer {
        let active = self.keeps_memory() && self.keeps_processes();
        let mut words: Vec<String> = self
            .parts
            .iter()
            .map(|part| {
                let version = match part.version {
                    Version::V1 => "v1",
                    Version::V2 => "v2",
                };
                format!("{version}: {}", part.duties.words())
            })
            .collect();
        words.extend(self.refused.iter().cloned());
        if !active {
            words.push(
                "limits are then per process and uid; as root, or with `systemd-run --user \
                 --scope -p Delegate=yes`, groups can be had"
                    .to_owned(),
            );
        }
        Layer {
            name: "cgroup".to_owned(),
            active,
            required: false,
            detail: words.join("; "),
        }
    }

    /// Slots for one owner, after what dead owners left is emptied and removed. Only
    /// slots of owners as [`owner`] names them are recognised as left behind.
    pub fn pool(&self, owner: &str) -> Pool {
        let removed = self.sweep();
        if removed > 0 {
            tracing::info!(removed, "control groups of dead processes");
        }
        Pool::new(Arc::clone(&self.parts), owner)
    }

    /// Kills what is in slots of dead owners and removes them; gives the number of
    /// directories. Slots of the living are left alone, of other processes, too.
    pub fn sweep(&self) -> usize {
        let tops: BTreeSet<PathBuf> = self.parts.iter().map(|part| part.top.clone()).collect();
        sweep::sweep(&tops.into_iter().collect::<Vec<_>>())
    }
}

/// A name for an owner of slots that no other has, on this machine and for all time:
/// process, its start, and a number.
pub fn owner() -> String {
    static OWNERS: AtomicU64 = AtomicU64::new(0);
    let (pid, owner) = (std::process::id(), OWNERS.fetch_add(1, Ordering::Relaxed));
    format!("{pid}-{}-{owner}", start_of(pid).unwrap_or(0))
}

/// The name of a slot's directories.
fn name_of(owner: &str, number: u64) -> String {
    format!("{PREFIX}{owner}-{number}")
}

/// Whether a directory is a slot of an [`owner`]: four numbers. Other groups may be
/// called gametape, too: a service, say.
fn is_slot(name: &str) -> bool {
    let number = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit());
    name.strip_prefix(PREFIX)
        .is_some_and(|rest| rest.split('-').count() == 4 && rest.split('-').all(number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Read, Write};
    use std::process::{Command, Stdio};

    #[test]
    fn only_names_of_ours_are_slots() {
        assert!(is_slot(&name_of(&owner(), 7)));
        for other in [
            "gametape-1-2-3",
            "gametape.service",
            "gametape-host-12",
            "gametape-1-2-3-x",
            "gametape-1-2-3-4.scope",
            "x-gametape-1-2-3-4",
        ] {
            assert!(!is_slot(other), "{other}");
        }
        assert_ne!(owner(), owner());
    }

    #[test]
    fn quotas_are_parts_of_a_period() {
        assert_eq!(quota_us(1_500), 150_000);
        assert_eq!(quota_us(0), LEAST_QUOTA_US);
    }

    /// Twenty daemons in a slot of these hierarchies die when it comes back.
    fn daemons_die(test: &str, mounted: &[Hierarchy]) {
        let groups = Groups::among(mounted);
        eprintln!("{test}: {}", groups.layer().detail);
        if !groups.keeps_processes() {
            eprintln!("SKIPPED: {test}: no v1 controller of processes");
            return;
        }
        let pool = groups.pool(&owner());
        for _ in 0..2 {
            let slot = pool.take(&GroupLimits::default()).unwrap();
            let script = "read go; i=0; while [ $i -lt 20 ]; do setsid sleep 3605 & \
                          i=$((i+1)); done; echo up; wait";
            let mut shell = Command::new("sh")
                .args(["-c", script])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            slot.add(shell.id()).unwrap();
            shell.stdin.take().unwrap().write_all(b"go\n").unwrap();
            let mut said = BufReader::new(shell.stdout.take().unwrap());
            said.read_line(&mut String::new()).unwrap();
            assert!(slot.usage().processes_peak.is_none_or(|n| n > 20));
            drop(slot);
            // All of them held the pipe.
            said.read_to_end(&mut Vec::new()).unwrap();
            shell.wait().unwrap();
            assert_eq!(pool.idle(), 1);
        }
    }

    #[test]
    fn without_v2_a_slot_is_frozen_and_killed() {
        let mut mounted = places::mounted();
        mounted.retain(|h| h.version == Version::V1);
        daemons_die("without_v2_a_slot_is_frozen_and_killed", &mounted);
    }

    #[test]
    fn without_a_freezer_no_fork_outruns_the_signals() {
        let mut mounted = places::mounted();
        let freezer = |h: &Hierarchy| h.controllers.iter().any(|c| c == "freezer");
        mounted.retain(|h| h.version == Version::V1 && !freezer(h));
        daemons_die("without_a_freezer_no_fork_outruns_the_signals", &mounted);
    }

    #[test]
    fn without_groups_slots_limit_and_count_nothing() {
        let none = Groups::none("nothing is mounted");
        let layer = none.layer();
        assert!(!layer.active && layer.detail.contains("nothing is mounted"));
        let pool = none.pool(&owner());
        let slot = pool.take(&GroupLimits::default()).unwrap();
        slot.add(std::process::id()).unwrap();
        assert_eq!(slot.usage(), GroupUsage::default());
        drop(slot);
        assert_eq!(none.sweep(), 0);
    }
}
