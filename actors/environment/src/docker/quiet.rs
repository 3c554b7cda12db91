//! That nothing goes on after a command, and what a container used: both are read from
//! the engine's own counters, which nothing inside can forge.

use super::client::{Engine, Trouble};
use super::container::IDLE_PROCESSES;
use super::exec::{self, KILL};
use bollard::models::ContainerStatsResponse;
use std::time::Duration;

/// How often the kill is tried before the container itself is ended.
const KILLS: usize = 3;
/// Pauses before a container that should be quiet is looked at again: the dead are
/// counted until they are reaped.
const LOOKS: [u64; 6] = [0, 2, 5, 10, 20, 40];

/// What a container used so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Processor time, microseconds.
    pub cpu_us: u64,
    /// Most memory at once, bytes; its files in memory (`/testbed`, `/tmp`) count.
    pub peak_memory_bytes: u64,
    /// Bytes written to disks. What it writes into its own file systems stays in memory.
    pub written_bytes: u64,
    /// Most processes and threads at once that are known of.
    pub processes: u64,
    /// How long it has been open, milliseconds.
    pub wall_ms: u64,
    /// Whether the kernel killed something of it for memory.
    pub out_of_memory: bool,
}

impl Usage {
    /// Adds a look at the counters. Pure.
    pub fn see(&mut self, stats: &ContainerStatsResponse) {
        let cpu = stats.cpu_stats.as_ref().and_then(|s| s.cpu_usage.as_ref());
        let cpu = cpu.and_then(|usage| usage.total_usage).unwrap_or(0);
        self.cpu_us = self.cpu_us.max(cpu / 1000);
        if let Some(memory) = &stats.memory_stats {
            let most = memory.max_usage.or(memory.usage).unwrap_or(0);
            self.peak_memory_bytes = self.peak_memory_bytes.max(most);
        }
        let processes = stats.pids_stats.as_ref().and_then(|pids| pids.current);
        self.processes = self.processes.max(processes.unwrap_or(0));
        let entries = stats.blkio_stats.as_ref();
        let entries = entries.and_then(|io| io.io_service_bytes_recursive.as_deref());
        let written = entries
            .unwrap_or_default()
            .iter()
            .filter(|entry| {
                let op = entry.op.as_deref().unwrap_or_default();
                op.eq_ignore_ascii_case("write")
            })
            .filter_map(|entry| entry.value)
            .sum();
        self.written_bytes = self.written_bytes.max(written);
    }

    /// Adds what the control groups say inside, which the engine does not pass on.
    /// Text of the form that [`COUNTERS`] prints. Pure.
    pub fn read(&mut self, text: &str) {
        let mut file = "";
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("== ") {
                file = name.rsplit('/').next().unwrap_or_default();
                continue;
            }
            let (name, value) = line.split_once(' ').unwrap_or(("", line));
            let Ok(value) = value.trim().parse::<u64>() else {
                continue;
            };
            match (file, name) {
                ("memory.oom_control" | "memory.events", "oom_kill") => {
                    self.out_of_memory |= value > 0;
                }
                ("memory.peak", "") => self.peak_memory_bytes = self.peak_memory_bytes.max(value),
                ("pids.peak", "") => self.processes = self.processes.max(value),
                _ => {}
            }
        }
    }

    /// Takes a container before this one's restart into account. Pure.
    #[must_use]
    pub fn after(self, before: Self) -> Self {
        Self {
            cpu_us: self.cpu_us + before.cpu_us,
            peak_memory_bytes: self.peak_memory_bytes.max(before.peak_memory_bytes),
            written_bytes: self.written_bytes + before.written_bytes,
            processes: self.processes.max(before.processes),
            wall_ms: self.wall_ms,
            out_of_memory: self.out_of_memory || before.out_of_memory,
        }
    }
}

/// Prints counters of both versions of control groups.
pub const COUNTERS: &str = "cd /sys/fs/cgroup && for f in memory/memory.oom_control \
    memory.events memory.peak pids/pids.peak pids.peak; do \
    [ -r $f ] && echo \"== $f\" && cat $f; done; exit 0";

/// What a container is like after a command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Quiet {
    /// Nothing is left; and what the shell around the command noted, when it was asked.
    Yes(Option<String>),
    /// Something resists.
    No,
}

/// Ends what a command left. `kill` says that there is something for certain, or that
/// the note is wanted.
///
/// # Errors
/// The engine's.
pub async fn quiet(
    engine: &Engine,
    container: &str,
    kill: bool,
    usage: &mut Usage,
) -> Result<Quiet, Trouble> {
    let mut note = None;
    for round in 0..=KILLS {
        if round > 0 || kill {
            match exec::script(engine, container, KILL).await {
                Ok(ran) if ran.code == Some(0) => {
                    note.get_or_insert(ran.stdout.text());
                }
                // Killed itself, or no process could be had: tried again.
                Ok(_) | Err(Trouble::Refused(_)) => {}
                Err(trouble) => return Err(trouble),
            }
        }
        for pause in LOOKS {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            let stats = engine.stats(container).await?;
            usage.see(&stats);
            let count = stats.pids_stats.and_then(|pids| pids.current);
            match count {
                Some(1..=IDLE_PROCESSES) => return Ok(Quiet::Yes(note)),
                Some(0) => return Err(Trouble::Conflict("the container has ended".to_owned())),
                Some(_) => {}
                // No counter here: a kill that came to its end has left nobody.
                None if note.is_some() => return Ok(Quiet::Yes(note)),
                None => break,
            }
        }
    }
    Ok(Quiet::No)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_both_versions_are_read() {
        let mut usage = Usage::default();
        usage.read(
            "== memory/memory.oom_control\noom_kill_disable 0\nunder_oom 0\noom_kill 2\n\
             == pids/pids.peak\n33\n",
        );
        assert_eq!((usage.out_of_memory, usage.processes), (true, 33));
        let mut usage = Usage::default();
        usage.read("== memory.events\noom 1\noom_kill 0\n== memory.peak\n4096\nmax\n");
        assert_eq!(
            (usage.out_of_memory, usage.peak_memory_bytes),
            (false, 4096)
        );
        let before = Usage {
            cpu_us: 5,
            out_of_memory: true,
            ..Usage::default()
        };
        let both = usage.after(before);
        assert!(both.out_of_memory && both.cpu_us == 5 && both.peak_memory_bytes == 4096);
    }

    #[test]
    fn the_engines_counters_are_read() {
        let text = r#"{"cpu_stats":{"cpu_usage":{"total_usage":7000}},
            "memory_stats":{"usage":1,"max_usage":9},"pids_stats":{"current":4},
            "blkio_stats":{"io_service_bytes_recursive":[
            {"op":"Read","value":1},{"op":"Write","value":2},{"op":"write","value":3}]}}"#;
        let mut usage = Usage::default();
        usage.see(&serde_json::from_str(text).unwrap());
        let expected = Usage {
            cpu_us: 7,
            peak_memory_bytes: 9,
            written_bytes: 5,
            processes: 4,
            ..Usage::default()
        };
        assert_eq!(usage, expected);
    }
}
