//! The session that a kill leaves alone: that of the sandbox's shell. Pure.
//!
//! What is killed is chosen inside, where a process may lie about nothing but its name;
//! whether it worked is counted outside, by the engine's own numbers.

use super::container::{IDLE_PROCESSES, NOTES};
use bollard::models::ContainerTopResponse;

/// The arguments of the `ps` with which the engine counts.
pub const COLUMNS: &str = "-eo pid,sess";

/// A shell that lives on beside commands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Spared {
    /// The exec that is the shell. While it runs its numbers are nobody else's.
    pub exec: String,
    /// The number of its session, as the engine's machine counts.
    pub outside: i64,
    /// The number of its session inside.
    pub inside: u32,
}

/// Puts the words of `$d/stat` after the name into `$1` (state), `$4` (session) and `$6`
/// (group in the foreground). A name may hold anything: blanks, brackets, line breaks.
const LOOK: &str = "l=; while read -r x || [ \"$x\" ]; do l=\"$l$x \"; done <$d/stat; \
     set -- ${l##*) }";

impl Spared {
    /// Kills all but this session and the shell that runs these words, until nothing is
    /// found any more.
    pub fn kill_others(&self) -> String {
        format!(
            "r=0; f=1; while [ $f = 1 ] && [ $r -lt 9 ]; do f=0; r=$((r + 1)); \
             for d in /proc/[0-9]*; do {LOOK}; case $1 in ''|Z|X) continue;; esac; \
             [ \"$4\" = {session} ] || [ ${{d#/proc/}} = $$ ] || \
             {{ kill -9 ${{d#/proc/}} && f=1; }}; done; done",
            session = self.inside
        )
    }

    /// The same, with what the shell around the last command left in its note.
    pub fn kill_and_tell(&self) -> String {
        let kill = self.kill_others();
        format!("exec 2>/dev/null; {kill}; cat {NOTES}/note; exit 0")
    }

    /// Kills this session.
    pub fn kill(&self) -> String {
        format!(
            "exec 2>/dev/null; for d in /proc/[0-9]*; do {LOOK}; \
             [ \"$4\" = {session} ] && kill -9 ${{d#/proc/}}; done; exit 0",
            session = self.inside
        )
    }

    /// Sends a signal to the group in the foreground of the terminal. Prints `sent` when
    /// there was one; the shell itself is met only when `shell` says so.
    pub fn signal(&self, signal: &str, shell: bool) -> String {
        let session = self.inside;
        let but = if shell {
            String::new()
        } else {
            format!("[ \"$6\" != {session} ] && ")
        };
        format!(
            "exec 2>/dev/null; d=/proc/{session}; {LOOK}; [ \"$6\" -gt 1 ] && {but}\
             kill -s {signal} -- -$6 && echo sent; exit 0"
        )
    }
}

/// Processes of a container, counted from outside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Count {
    /// All of them.
    pub all: u64,
    /// Those that are not in the shell's session.
    pub others: u64,
}

impl Count {
    /// Counts. `None` where a session is to be left out and the engine did not tell
    /// sessions.
    pub fn of(found: &ContainerTopResponse, spared: Option<&Spared>) -> Option<Self> {
        let rows = found.processes.as_deref().unwrap_or_default();
        let all = rows.len() as u64;
        let Some(spared) = spared else {
            return Some(Self { all, others: all });
        };
        let titles = found.titles.as_deref()?;
        let column = titles.iter().position(|title| title == "SESS")?;
        let its = spared.outside.to_string();
        let is_its = |row: &&Vec<String>| row.get(column).is_some_and(|sess| *sess == its);
        let others = all - rows.iter().filter(is_its).count() as u64;
        Some(Self { all, others })
    }

    /// Whether nothing but what keeps the container open is there, beside the shell.
    pub fn is_quiet(&self) -> bool {
        (1..=IDLE_PROCESSES).contains(&self.others)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    fn spared(inside: u32) -> Spared {
        Spared {
            exec: "e".into(),
            outside: 70,
            inside,
        }
    }

    #[test]
    fn a_session_is_left_out_of_the_count() {
        let row = |pid: &str, sess: &str| vec![pid.to_owned(), sess.to_owned()];
        let found = ContainerTopResponse {
            titles: Some(row("PID", "SESS")),
            processes: Some(vec![
                row("60", "60"),
                row("61", "60"),
                row("70", "70"),
                row("75", "70"),
            ]),
        };
        let all = Count::of(&found, None).unwrap();
        assert_eq!((all.all, all.others, all.is_quiet()), (4, 4, false));
        let rest = Count::of(&found, Some(&spared(7))).unwrap();
        assert_eq!((rest.all, rest.others, rest.is_quiet()), (4, 2, true));
        let untitled = ContainerTopResponse {
            titles: None,
            ..found
        };
        assert_eq!(Count::of(&untitled, Some(&spared(7))), None);
    }

    #[test]
    fn all_but_the_session_would_be_killed() {
        // A name that looks like the end of a name, in another session than ours.
        let directory = tempfile::tempdir().unwrap();
        let odd = directory.path().join("a) S 1\nb");
        std::os::unix::fs::symlink("/bin/sleep", &odd).unwrap();
        let mut other = Command::new("setsid")
            .arg(&odd)
            .arg("1000")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        // SAFETY: the call takes an integer and touches no memory.
        let ours = unsafe { libc::getsid(0) };
        let told = |words: String| {
            let words = words.replace("kill -9", "echo");
            let out = Command::new("/bin/sh").args(["-c", &words]).output();
            String::from_utf8(out.unwrap().stdout).unwrap()
        };
        let has = |told: &str, pid: u32| told.lines().any(|line| line == pid.to_string());
        let (me, it) = (std::process::id(), other.id());
        // It is in a session of its own once it has called for one.
        // SAFETY: as above.
        while unsafe { libc::getsid(it.cast_signed()) } == ours {
            std::thread::yield_now();
        }
        let ours = spared(ours.cast_unsigned());
        let others = told(ours.kill_others());
        let its = told(ours.kill());
        assert!(has(&others, it) && !has(&others, me), "{others}");
        assert!(!has(&its, it) && has(&its, me), "{its}");
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
