//! Limits and counters of v1: a directory for each controller.

use super::group::Group;
use super::usage::{Counters, GroupLimits, number, value_of};
use super::{Duties, PERIOD_US, quota_us};
use std::io;

/// What a hierarchy of these controllers can do for us.
pub(super) fn duties(controllers: &[String]) -> Duties {
    let has = |name: &str| controllers.iter().any(|c| c == name);
    Duties {
        memory: has("memory"),
        processes: has("pids"),
        cpu: has("cpu"),
        cpu_time: has("cpuacct"),
        kill: has("freezer"),
    }
}

/// Writes the limits that this group keeps.
pub(super) fn set(group: &Group, duties: Duties, limits: &GroupLimits) -> io::Result<()> {
    if duties.memory {
        set_memory(group, limits.memory_bytes)?;
    }
    if duties.processes {
        let most = limits
            .processes
            .map_or_else(|| "max".to_owned(), |n| n.to_string());
        group.write("pids.max", &most)?;
    }
    if duties.cpu {
        let quota = limits
            .cpu_milli
            .map_or_else(|| "-1".to_owned(), |milli| quota_us(milli).to_string());
        group.write("cpu.cfs_period_us", &PERIOD_US.to_string())?;
        group.write("cpu.cfs_quota_us", &quota)?;
    }
    Ok(())
}

fn set_memory(group: &Group, bytes: Option<u64>) -> io::Result<()> {
    let most = bytes.map_or_else(|| "-1".to_owned(), |n| n.to_string());
    let memory = || group.write("memory.limit_in_bytes", &most);
    // Memory may never be limited above memory and swap: which goes first depends on
    // whether the limit rises or falls.
    if memory().is_ok() {
        return set_swap(group, &most);
    }
    set_swap(group, &most)?;
    memory()
}

/// Memory and swap together get the limit of memory: no swap.
fn set_swap(group: &Group, most: &str) -> io::Result<()> {
    match group.write("memory.memsw.limit_in_bytes", most) {
        // The kernel does not count swap: then it shall not be used.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            group.write("memory.swappiness", "0")
        }
        done => done,
    }
}

/// Whether all in it can be made to stand still.
pub(super) fn can_kill(group: &Group) -> bool {
    group.write("freezer.state", "THAWED").is_ok()
}

/// What it counts now.
pub(super) fn read(group: &Group, duties: Duties) -> Counters {
    let one = |file: &str| number(&group.read(file)?);
    let value = |file: &str, key: &str| value_of(&group.read(file)?, key);
    let mut found = Counters::default();
    if duties.memory {
        found.memory_now = one("memory.usage_in_bytes");
        found.memory_peak = one("memory.max_usage_in_bytes");
        found.oom_kills = value("memory.oom_control", "oom_kill");
    }
    if duties.processes {
        found.processes_now = one("pids.current");
        found.processes_peak = one("pids.peak");
        found.pids_denied = value("pids.events", "max");
    }
    if duties.cpu_time {
        found.cpu_us = one("cpuacct.usage").map(|nanoseconds| nanoseconds / 1000);
    }
    found
}

/// Gives up cached pages that nobody uses any more.
pub(super) fn reclaim(group: &Group) {
    // What cannot be given up now is so when the limit asks for it.
    let _ = group.write("memory.force_empty", "0");
}

/// The peak begins at what there is now.
pub(super) fn reset(group: &Group, duties: Duties) -> bool {
    duties.memory && group.write("memory.max_usage_in_bytes", "0").is_ok()
}
