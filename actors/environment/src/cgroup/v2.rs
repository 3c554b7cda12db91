//! Limits and counters of v2: one directory for all controllers that the group around
//! it has switched on.

use super::group::{self, Group};
use super::usage::{Counters, GroupLimits, number, value_of};
use super::{Duties, PERIOD_US, quota_us};
use std::fs::OpenOptions;
use std::io::{self, Read, Seek, Write};
use std::path::Path;

/// What groups below `parent` can do for us. `own` when it is this process's own group:
/// then missing controllers are switched on, where the kernel lets us.
pub(super) fn duties(parent: &Path, own: bool) -> Duties {
    let list = |file: &str| std::fs::read_to_string(parent.join(file)).unwrap_or_default();
    let has = |text: &str, name: &str| text.split_whitespace().any(|word| word == name);
    if own {
        let (offered, on) = (list("cgroup.controllers"), list("cgroup.subtree_control"));
        let missing: Vec<&str> = ["memory", "pids", "cpu"]
            .into_iter()
            .filter(|name| has(&offered, name) && !has(&on, name))
            .collect();
        switch_on(parent, &missing);
    }
    let on = list("cgroup.subtree_control");
    Duties {
        memory: has(&on, "memory"),
        processes: has(&on, "pids"),
        cpu: has(&on, "cpu"),
        cpu_time: true,
        kill: true,
    }
}

fn switch_on(parent: &Path, missing: &[&str]) {
    let one = |name: &&str| group::write(parent, "cgroup.subtree_control", &format!("+{name}"));
    let busy =
        |done: io::Result<()>| done.is_err_and(|error| error.raw_os_error() == Some(libc::EBUSY));
    if !missing.iter().any(|name| busy(one(name))) {
        return;
    }
    // A group with processes of its own cannot hand out controllers. Where we are alone
    // in it (a service, a scope, a container) we move one step down; others are left
    // where they are.
    let me = std::process::id();
    let alone = group::members(parent).is_ok_and(|all| all == [me.cast_signed()]);
    if !alone {
        return;
    }
    let aside = parent.join(format!("{}{me}", super::ASIDE));
    let moved = std::fs::create_dir(&aside)
        .and_then(|()| group::write(&aside, "cgroup.procs", &me.to_string()));
    match moved {
        // What fails now is told by the trial.
        Ok(()) => missing.iter().for_each(|name| drop(one(name))),
        Err(_) => drop(std::fs::remove_dir(&aside)),
    }
}

/// Writes the limits that this group keeps.
pub(super) fn set(group: &Group, duties: Duties, limits: &GroupLimits) -> io::Result<()> {
    let most = |limit: Option<u64>| limit.map_or_else(|| "max".to_owned(), |n| n.to_string());
    if duties.memory {
        group.write("memory.max", &most(limits.memory_bytes))?;
        let swap = limits.memory_bytes.map(|_| 0);
        match group.write("memory.swap.max", &most(swap)) {
            // A kernel without swap.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            done => done?,
        }
    }
    if duties.processes {
        group.write("pids.max", &most(limits.processes))?;
    }
    if duties.cpu {
        let quota = most(limits.cpu_milli.map(quota_us));
        group.write("cpu.max", &format!("{quota} {PERIOD_US}"))?;
    }
    Ok(())
}

/// Whether all in it can be killed at once, or at least made to stand still.
pub(super) fn can_kill(group: &Group) -> bool {
    group.write("cgroup.kill", "1").is_ok() || group.write("cgroup.freeze", "0").is_ok()
}

/// What it counts now.
pub(super) fn read(group: &Group, duties: Duties) -> Counters {
    let one = |file: &str| number(&group.read(file)?);
    let value = |file: &str, key: &str| value_of(&group.read(file)?, key);
    let mut found = Counters::default();
    if duties.memory {
        found.memory_now = one("memory.current");
        found.memory_peak = peak(group).or_else(|| one("memory.peak"));
        found.oom_kills = value("memory.events", "oom_kill");
    }
    if duties.processes {
        found.processes_now = one("pids.current");
        found.processes_peak = one("pids.peak");
        found.pids_denied = value("pids.events", "max");
    }
    if duties.cpu_time {
        found.cpu_us = value("cpu.stat", "usage_usec");
    }
    found
}

/// The peak since it was reset through the same descriptor.
fn peak(group: &Group) -> Option<u64> {
    let mut file = group.peak.as_ref()?;
    let mut text = String::new();
    file.rewind().ok()?;
    file.read_to_string(&mut text).ok()?;
    number(&text)
}

/// Gives up cached pages that nobody uses any more (Linux 5.19).
pub(super) fn reclaim(group: &Group, bytes: u64) {
    // What cannot be given up now is so when the limit asks for it.
    let _ = group.write("memory.reclaim", &bytes.to_string());
}

/// The peak begins at what there is now, where this kernel can do that (6.12). Older
/// ones tell it only where it grows.
pub(super) fn reset(group: &mut Group, duties: Duties) -> bool {
    if !duties.memory {
        return false;
    }
    if group.peak.is_none() {
        let path = group.path().join("memory.peak");
        group.peak = OpenOptions::new().read(true).write(true).open(path).ok();
    }
    let done = group.peak.as_mut().map(|file| file.write_all(b"reset"));
    let done = matches!(done, Some(Ok(())));
    if !done {
        group.peak = None;
    }
    done
}
