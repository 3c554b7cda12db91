//! That nothing goes on after a command (the engine counts processes from outside, where
//! nothing inside can forge it), and what a container used.

use super::client::Trouble;
use super::exec::{self, At, KILL};
use super::spared::Spared;
use std::time::Duration;

/// How often the kill is tried before the container itself is ended.
const KILLS: usize = 3;
/// Tries before those, in which a shell is spared.
const SPARING: usize = 3;
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
    /// Processes that the kernel killed for memory.
    pub oom_kills: u64,
    /// Forks that its limit refused.
    pub forks_refused: u64,
    /// Whether one of its file systems had no room left when it was last looked at, in
    /// bytes or in files.
    pub is_full: bool,
}

impl Usage {
    /// Adds what the control groups say inside, of either version. Text of the form that
    /// [`counters`] prints; what is not there is not counted. Pure.
    pub fn read(&mut self, text: &str) {
        let mut file = "";
        let mut written = 0;
        self.is_full = false;
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("== ") {
                file = name.rsplit('/').next().unwrap_or_default();
                continue;
            }
            let (rest, last) = line.rsplit_once(' ').unwrap_or(("", line));
            let name = rest.rsplit(' ').next().unwrap_or_default();
            if file == "io.stat" {
                let words = line
                    .split(' ')
                    .filter_map(|word| word.strip_prefix("wbytes="));
                written += words.filter_map(|n| n.parse::<u64>().ok()).sum::<u64>();
                continue;
            }
            if file == ROOM {
                self.is_full |= line.split(' ').any(|free| free == "0");
                continue;
            }
            let Ok(value) = last.trim().parse::<u64>() else {
                continue;
            };
            match (file, name) {
                ("cpuacct.usage", "") => self.cpu_us = self.cpu_us.max(value / 1000),
                ("cpu.stat", "usage_usec") => self.cpu_us = self.cpu_us.max(value),
                ("memory.oom_control" | "memory.events", "oom_kill") => {
                    self.oom_kills = self.oom_kills.max(value);
                }
                ("memory.max_usage_in_bytes" | "memory.peak", "") => {
                    self.peak_memory_bytes = self.peak_memory_bytes.max(value);
                }
                ("pids.events", "max") => {
                    self.forks_refused = self.forks_refused.max(value);
                }
                ("pids.peak", "") => self.processes = self.processes.max(value),
                ("blkio.throttle.io_service_bytes", "Write") => written += value,
                _ => {}
            }
        }
        self.written_bytes = self.written_bytes.max(written);
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
            oom_kills: self.oom_kills + before.oom_kills,
            forks_refused: self.forks_refused + before.forks_refused,
            is_full: self.is_full,
        }
    }
}

/// Heads what is left of its file systems: free blocks and free files of each.
const ROOM: &str = "room";

/// Prints counters of both versions of control groups, and the room that is left in the
/// repository and in `/tmp`. Quicker than the engine's own statistics, of which some
/// engines give one a second, to all that ask together; and nothing of the agent's is at
/// work when they are asked for. Pure.
pub fn counters(place: &str) -> String {
    let place = place.replace('\'', r"'\''");
    format!(
        "cd /sys/fs/cgroup && for f in cpuacct/cpuacct.usage \
         memory/memory.oom_control memory/memory.max_usage_in_bytes pids/pids.peak \
         pids/pids.events blkio/blkio.throttle.io_service_bytes \
         cpu.stat memory.events memory.peak pids.peak pids.events io.stat; do \
         [ -r $f ] && echo \"== $f\" && cat $f; done\n\
         echo '== {ROOM}'; stat -f -c '%f %d' '{place}' /tmp; exit 0"
    )
}

/// Heads the names of files.
const NAMES: &str = "== names\n";

/// Prints the counters, then the names of files outside of the repository. Pure.
pub fn counters_and_names(place: &str) -> String {
    let counters = counters(place);
    let counters = counters.strip_suffix("exit 0").unwrap_or(&counters);
    format!(
        "( {counters} )\necho '== names'\n\
         find /tmp /dev/shm -xdev -mindepth 1 ! -type d -print0 2>/dev/null | head -c 20000\n\
         exit 0"
    )
}

/// The two parts of what that prints: the kernel's words come before any name. Pure.
pub fn names_apart(text: &str) -> (&str, Vec<String>) {
    let (counters, names) = text.split_once(NAMES).unwrap_or((text, ""));
    // Each ends with a zero: the last one may be cut.
    let whole = names.rsplit_once('\0').map_or("", |(whole, _)| whole);
    let names = whole.split('\0').filter(|name| !name.is_empty());
    let mut names: Vec<String> = names.map(str::to_owned).collect();
    names.sort_unstable();
    (counters, names)
}

/// What a container is like after a command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Quiet {
    /// Nothing is left; and what the shell around the command noted, when it was asked.
    Yes(Option<String>),
    /// Something resists.
    No,
}

/// Ends what a command left. `kill` says that there is something for certain, or that
/// the note is wanted. The session of a shell is left alone while the shell lives, and
/// as long as all else can be ended without it.
///
/// # Errors
/// The engine's.
pub async fn quiet(
    at: At<'_>,
    kill: bool,
    spared: Option<&Spared>,
    usage: &mut Usage,
) -> Result<Quiet, Trouble> {
    let (engine, container) = (at.engine, at.container);
    let mut note = None;
    let mut spared = spared;
    let sparing = if spared.is_some() { SPARING } else { 0 };
    for round in 0..=KILLS + sparing {
        if round > sparing && spared.take().is_some() {
            tracing::warn!(container, "a command cannot be ended beside the shell");
        }
        if round > 0 || kill {
            let words = spared.map_or_else(|| KILL.to_owned(), Spared::kill_and_tell);
            match exec::script(at, &words).await {
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
            let count = engine.processes(container, spared).await?;
            usage.processes = usage.processes.max(count.map_or(0, |count| count.all));
            match count {
                Some(count) if count.is_quiet() => match spared {
                    // The numbers of a shell that is gone may be anybody's.
                    Some(shell) if !engine.runs(&shell.exec).await? => spared = None,
                    _ => return Ok(Quiet::Yes(note)),
                },
                Some(count) if count.all == 0 => {
                    return Err(Trouble::Conflict("it has ended".to_owned()));
                }
                Some(_) => {}
                // Nobody counts here: a kill that came to its end has left nobody.
                None if note.is_some() && spared.is_none() => return Ok(Quiet::Yes(note)),
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
        let mut first = Usage::default();
        first.read(
            "== cpuacct/cpuacct.usage\n7000\n\
             == memory/memory.oom_control\noom_kill_disable 0\nunder_oom 0\noom_kill 2\n\
             == memory/memory.max_usage_in_bytes\n4096\n== pids/pids.peak\n33\n\
             == pids/pids.events\nmax 4\n\
             == blkio/blkio.throttle.io_service_bytes\n8:0 Read 5\n8:0 Write 2\n9:0 Write 3\n\
             Total 10\n== room\n10 10\n10 0\n",
        );
        let mut second = Usage::default();
        second.read(
            "== cpu.stat\nusage_usec 7\nuser_usec 5\n== memory.events\noom 1\noom_kill 2\n\
             == memory.peak\n4096\n== pids.peak\n33\n\
             == pids.events\nmax 4\n== io.stat\n8:0 rbytes=9 wbytes=2 rios=1\n9:0 wbytes=3\n\
             == room\n0 10\n10 10\n",
        );
        let expected = Usage {
            cpu_us: 7,
            peak_memory_bytes: 4096,
            written_bytes: 5,
            processes: 33,
            wall_ms: 0,
            oom_kills: 2,
            forks_refused: 4,
            is_full: true,
        };
        assert_eq!((first, second), (expected, expected));
        let mut none = Usage::default();
        none.read("== memory.events\noom_kill 0\n== memory.peak\nmax\n== room\n100 20\n");
        assert_eq!(none, Usage::default());
    }

    #[test]
    fn a_name_passes_for_no_counter() {
        let text = "== memory.events\noom_kill 1\n== room\n5 5\n== names\n/tmp/b\0/tmp/a\n== \
             memory.events\noom_kill 9\0/tmp/cu";
        let (counters, names) = names_apart(text);
        let mut usage = Usage::default();
        usage.read(counters);
        assert_eq!((usage.oom_kills, usage.is_full), (1, false));
        assert_eq!(names, ["/tmp/a\n== memory.events\noom_kill 9", "/tmp/b"]);
        assert_eq!(names_apart("== room\n5 5\n"), ("== room\n5 5\n", vec![]));
        assert!(counters_and_names("/x").matches("exit 0").count() == 1);
    }

    #[test]
    fn a_restart_loses_nothing() {
        let usage = |cpu_us, peak_memory_bytes, oom_kills| Usage {
            cpu_us,
            peak_memory_bytes,
            oom_kills,
            ..Usage::default()
        };
        assert_eq!(usage(2, 9, 0).after(usage(5, 1, 1)), usage(7, 9, 1));
    }
}
