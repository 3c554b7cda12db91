//! What a group may use, what was used in it, and which limit ended something. Pure:
//! the texts of v1 and of v2 become numbers here.

use serde::{Deserialize, Serialize};

/// Limits of everything in one slot together. `None` is no limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct GroupLimits {
    /// Memory, swap included, bytes. Page cache of files counts, and is given up first.
    pub memory_bytes: Option<u64>,
    /// Processes and threads.
    pub processes: Option<u64>,
    /// Processor time in thousandths of a core: 1500 is one and a half.
    pub cpu_milli: Option<u64>,
}

/// What was used since the slot was taken. `None` where this machine does not count it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct GroupUsage {
    /// Processor time, microseconds.
    pub cpu_us: Option<u64>,
    /// Most memory at one moment, bytes, page cache included.
    pub peak_memory_bytes: Option<u64>,
    /// Most processes and threads at one moment.
    pub processes_peak: Option<u64>,
    /// Processes that the kernel killed for memory.
    pub oom_kills: Option<u64>,
    /// Forks that the limit refused.
    pub pids_denied: Option<u64>,
}

/// A limit of a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// Memory ran out and the kernel killed something.
    Memory,
    /// A fork was refused.
    Processes,
}

impl GroupUsage {
    /// Which limit was hit. Memory before processes: a kill ends something, while a
    /// refused fork may have been survived.
    pub fn struck(&self) -> Option<Limit> {
        let some = |count: Option<u64>| count.is_some_and(|n| n > 0);
        if some(self.oom_kills) {
            Some(Limit::Memory)
        } else if some(self.pids_denied) {
            Some(Limit::Processes)
        } else {
            None
        }
    }
}

/// What the files of a group say at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Counters {
    pub cpu_us: Option<u64>,
    pub memory_now: Option<u64>,
    pub memory_peak: Option<u64>,
    pub processes_now: Option<u64>,
    pub processes_peak: Option<u64>,
    pub oom_kills: Option<u64>,
    pub pids_denied: Option<u64>,
}

impl Counters {
    /// What several groups of one slot say: each counter is in one of them.
    pub fn and(self, other: Self) -> Self {
        Self {
            cpu_us: self.cpu_us.or(other.cpu_us),
            memory_now: self.memory_now.or(other.memory_now),
            memory_peak: self.memory_peak.or(other.memory_peak),
            processes_now: self.processes_now.or(other.processes_now),
            processes_peak: self.processes_peak.or(other.processes_peak),
            oom_kills: self.oom_kills.or(other.oom_kills),
            pids_denied: self.pids_denied.or(other.pids_denied),
        }
    }

    /// What was used between `base` and this moment.
    pub fn since(&self, base: &Self) -> GroupUsage {
        let more = |now: Option<u64>, then: Option<u64>| {
            now.map(|now| now.saturating_sub(then.unwrap_or(0)))
        };
        GroupUsage {
            cpu_us: more(self.cpu_us, base.cpu_us),
            peak_memory_bytes: peak(self.memory_peak, base.memory_peak, base.memory_now),
            processes_peak: peak(self.processes_peak, base.processes_peak, base.processes_now),
            oom_kills: more(self.oom_kills, base.oom_kills),
            pids_denied: more(self.pids_denied, base.pids_denied),
        }
    }
}

/// A peak above what lay there at the start. One that could not be reset (kernels before
/// 6.12) and that did not grow was another sandbox's: this one's is not known.
fn peak(now: Option<u64>, then: Option<u64>, lying: Option<u64>) -> Option<u64> {
    let (now, then, lying) = (now?, then.unwrap_or(0), lying.unwrap_or(0));
    if now > then {
        Some(now - lying.min(now))
    } else {
        (then <= lying).then_some(0)
    }
}

/// The value of `key` in a file of `key value` lines: `memory.events`, `pids.events`,
/// `cpu.stat`, `memory.oom_control`.
pub(crate) fn value_of(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(' ')?;
        (name == key).then(|| value.trim().parse().ok()).flatten()
    })
}

/// A file that holds one number.
pub(crate) fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    // As a kernel 6.18 and a 5.15 write them.
    const OOM_CONTROL: &str = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
    const OLD_OOM_CONTROL: &str = "oom_kill_disable 0\nunder_oom 0\n";
    const V1_PIDS_EVENTS: &str = "max 17\n";
    const V1_CPU_STAT: &str =
        "nr_periods 4\nnr_throttled 2\nthrottled_time 81234567\nnr_bursts 0\nburst_time 0\n";
    const V2_CPU_STAT: &str = "usage_usec 1523047\nuser_usec 1200000\nsystem_usec 323047\n\
        nice_usec 0\ncore_sched.force_idle_usec 0\nnr_periods 0\nnr_throttled 0\n";
    const MEMORY_EVENTS: &str =
        "low 0\nhigh 0\nmax 212\noom 1\noom_kill 1\noom_group_kill 0\nsock_throttled 0\n";

    #[test]
    fn files_of_both_versions_are_read() {
        assert_eq!(value_of(OOM_CONTROL, "oom_kill"), Some(3));
        assert_eq!(value_of(OLD_OOM_CONTROL, "oom_kill"), None);
        assert_eq!(value_of(V1_PIDS_EVENTS, "max"), Some(17));
        assert_eq!(value_of(V1_CPU_STAT, "usage_usec"), None);
        assert_eq!(value_of(V1_CPU_STAT, "nr_throttled"), Some(2));
        assert_eq!(value_of(V2_CPU_STAT, "usage_usec"), Some(1_523_047));
        // `oom` is no `oom_kill`, and a `max` of another file no refusal.
        assert_eq!(value_of(MEMORY_EVENTS, "oom_kill"), Some(1));
        assert_eq!(value_of(MEMORY_EVENTS, "max"), Some(212));
        assert_eq!(number("48317297\n"), Some(48_317_297));
        assert_eq!(number("max\n"), None);
        assert_eq!(value_of("", "max"), None);
    }

    #[test]
    fn counters_begin_anew_with_each_taking() {
        let base = Counters {
            cpu_us: Some(1_000),
            memory_now: Some(100),
            memory_peak: Some(100),
            processes_now: Some(0),
            processes_peak: Some(0),
            oom_kills: Some(2),
            pids_denied: None,
        };
        let now = Counters {
            cpu_us: Some(1_500),
            memory_now: Some(150),
            memory_peak: Some(900),
            processes_peak: Some(4),
            oom_kills: Some(2),
            ..base
        };
        let used = now.since(&base);
        assert_eq!(
            used,
            GroupUsage {
                cpu_us: Some(500),
                peak_memory_bytes: Some(800),
                processes_peak: Some(4),
                oom_kills: Some(0),
                pids_denied: None,
            }
        );
        assert_eq!(used.struck(), None);
        assert_eq!(base.since(&base).peak_memory_bytes, Some(0));
    }

    #[test]
    fn a_peak_that_was_anothers_is_not_told() {
        // Not reset: 900 was reached before, 100 lie there now.
        assert_eq!(peak(Some(900), Some(900), Some(100)), None);
        assert_eq!(peak(Some(950), Some(900), Some(100)), Some(850));
        assert_eq!(peak(None, Some(900), Some(100)), None);
    }

    #[test]
    fn a_kill_for_memory_comes_before_refused_forks() {
        let used = |oom_kills, pids_denied| GroupUsage {
            oom_kills,
            pids_denied,
            ..GroupUsage::default()
        };
        assert_eq!(used(Some(1), Some(9)).struck(), Some(Limit::Memory));
        assert_eq!(used(Some(0), Some(9)).struck(), Some(Limit::Processes));
        assert_eq!(used(None, Some(1)).struck(), Some(Limit::Processes));
        assert_eq!(used(None, None).struck(), None);
    }
}
