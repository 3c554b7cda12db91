//! The shell that lives on beside commands, as every back end promises it.

use crate::rooms::{Open, order, shell};
use gametape_environment::sandbox::Sandbox;
use gametape_schemas::SandboxId;
use gametape_schemas::message::{
    FileRead, FileWritten, PatchApplied, ShellInput, ShellObservation, ShellState,
};
use std::time::{Duration, Instant};

fn input(command: &str, is_input: bool, timeout_ms: Option<u64>) -> ShellInput {
    ShellInput {
        sandbox: SandboxId::new("s".to_owned()),
        command: command.into(),
        is_input,
        timeout_ms,
    }
}

fn say(at: &dyn Sandbox, command: &str) -> ShellObservation {
    at.shell(&input(command, false, Some(20_000))).unwrap()
}

/// All of it, on one back end.
pub fn contract(open: Open<'_>) {
    lives_on_beside_commands(open);
    waits_and_takes_keys(open);
    is_put_in_order(open);
    what_its_jobs_write_is_seen(open);
    ends_with_its_sandbox(open);
}

fn lives_on_beside_commands(open: Open<'_>) {
    let at = open(&[], &[]);
    let moved = say(&*at, "cd d && export COLOUR=green && id -u");
    let how = (moved.exit_code, moved.state);
    assert_eq!(how, (Some(0), ShellState::Completed), "{moved:?}");
    assert_ne!(moved.output.trim(), "0", "not root inside");
    assert_eq!(moved.working_directory, "/testbed/d");
    // A job of the shell's outlives a command beside it, which leaves nothing of its own.
    let job = say(&*at, "sleep 1000 & echo $!");
    for left in [
        "(setsid sleep 2000 &) ; true",
        "(setsid sleep 2000 &) ; exit 7",
    ] {
        let code = shell(&*at, left).exit_code;
        assert_eq!(code, Some(if left.ends_with('7') { 7 } else { 0 }));
    }
    let late = at.exec(&order(&["sleep", "2000"], 300, 10));
    assert!(late.unwrap().timed_out);
    let jobs = say(
        &*at,
        "echo $COLOUR; pwd; cat /proc/[0-9]*/cmdline | tr '\\0' ' '",
    );
    assert!(jobs.output.contains("green\n/testbed/d\n"), "{jobs:?}");
    assert!(jobs.output.contains("sleep 1000"), "{job:?} {jobs:?}");
    assert!(!jobs.output.contains("sleep 2000"), "{jobs:?}");
    let dead = say(&*at, "exit 3");
    let how = (dead.state, dead.exit_code);
    assert_eq!(how, (ShellState::Dead, Some(3)), "{dead:?}");
    let again = say(&*at, "pwd; jobs; echo \"[$COLOUR]\"");
    assert_eq!(again.output, "/testbed\n[]\n", "{again:?}");
    assert_eq!(at.close().unwrap().commands, 3);
}

fn waits_and_takes_keys(open: Open<'_>) {
    let waiting = |at: &dyn Sandbox, command: &str| {
        let waiting = at.shell(&input(command, false, None)).unwrap();
        assert_eq!(waiting.state, ShellState::NoChange, "{waiting:?}");
    };
    let (text, key) = (open(&[], &[]), open(&[], &[]));
    // Half a minute of silence each: side by side.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            waiting(&*text, "read x; echo \"got $x\"");
            let got = text.shell(&input("some words", true, None)).unwrap();
            assert_eq!(got.output, "got some words\n", "{got:?}");
        });
        scope.spawn(|| {
            waiting(&*key, "sleep 1000");
            let stopped = key.shell(&input("C-c", true, None)).unwrap();
            assert_eq!(stopped.state, ShellState::Interrupted, "{stopped:?}");
            assert_eq!(say(&*key, "echo fine").output, "fine\n");
        });
    });
    text.close().unwrap();
    key.close().unwrap();
}

fn is_put_in_order(open: Open<'_>) {
    let at = open(&[], &[]);
    let late = at.shell(&input("sleep 1000", false, Some(300))).unwrap();
    assert_eq!(late.state, ShellState::HardTimeout, "{late:?}");
    // What a command does to the terminal is put back before the next one.
    say(&*at, "stty raw echo");
    let plain = say(&*at, "printf 'a\\nb\\n'; test -t 0 && echo terminal");
    assert_eq!(plain.output, "a\nb\nterminal\n", "{plain:?}");
    let large = format!("cat <<'X' | wc -c\n{}X", "0123456789abcde\n".repeat(4_000));
    assert_eq!(say(&*at, &large).output.trim(), "64000");
    at.close().unwrap();
}

fn what_its_jobs_write_is_seen(open: Open<'_>) {
    let at = open(&[], &[]);
    assert_eq!(at.diff().unwrap(), "");
    // The job writes when a file is there, and no command is run in between.
    let job = "{ until [ -e /testbed/go ]; do :; done; echo new > a.py; } &";
    assert_eq!(say(&*at, job).exit_code, Some(0));
    assert_eq!(at.diff().unwrap(), "");
    assert_eq!(at.write("go", "").unwrap(), FileWritten::Written);
    let begin = Instant::now();
    while !at.diff().unwrap().contains("+new\n") {
        assert!(begin.elapsed() < Duration::from_secs(30), "never seen");
    }
    assert_eq!(at.write("d/b.py", "z = 4\n").unwrap(), FileWritten::Written);
    let patch = "--- a/d/b.py\n+++ b/d/b.py\n@@ -1 +1 @@\n-z = 4\n+z = 5\n";
    assert_eq!(at.apply(patch).unwrap(), PatchApplied::Applied);
    let mended = say(&*at, "cat d/b.py").output;
    assert!(mended.starts_with("z = 5\n"), "{mended}");
    say(&*at, "echo again > a.py");
    assert_eq!(at.read("a.py").unwrap(), FileRead::Text("again\n".into()));
    at.close().unwrap();
}

fn ends_with_its_sandbox(open: Open<'_>) {
    let at = open(&[], &[]);
    let gone = "GT-SANDBOX-GONE";
    say(&*at, "true");
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| at.shell(&input("sleep 1000", false, Some(60_000))));
        at.close().unwrap();
        assert_eq!(asked.join().unwrap().unwrap_err().code, gone);
    });
    assert_eq!(at.shell(&input("pwd", false, None)).unwrap_err().code, gone);
}

/// What cannot be ended beside a shell takes the shell with it, and nothing goes on.
pub fn nothing_hides_behind_a_shell(open: Open<'_>) {
    let at = open(&[], &[]);
    say(&*at, "sleep 1000 &");
    let number = say(&*at, "echo $$").output;
    // The shell is killed by a command, which leaves a daemon.
    let left = format!(
        "kill -9 {}; setsid sh -c 'while :; do echo x >> /testbed/beat; done' & \
         until [ -e /testbed/beat ]; do :; done",
        number.trim()
    );
    assert_eq!(shell(&*at, &left).exit_code, Some(0));
    let size = || shell(&*at, "wc -c < beat").stdout;
    assert_eq!(size(), size(), "a daemon goes on after its command");
    let processes = "cat /proc/[0-9]*/cmdline | tr '\\0' ' '";
    let listed = shell(&*at, processes).stdout;
    assert!(!listed.contains("sleep 1000"), "{listed}");
    assert_eq!(say(&*at, "pwd").state, ShellState::Dead);
    assert_eq!(say(&*at, "pwd").output, "/testbed\n");
    // Forks without end, out of the shell's session and in it.
    let bomb = "f() { setsid sh -c 'sleep 3000' & f | f & }; f";
    at.exec(&order(&["sh", "-c", bomb], 2_000, 100)).unwrap();
    let listed = shell(&*at, processes).stdout;
    assert!(!listed.contains("sleep 3000"), "{listed}");
    say(&*at, "true");
    assert_eq!(say(&*at, "echo fine").output, "fine\n");
    let _ = at.shell(&input(bomb, false, Some(2_000))).unwrap();
    at.exec(&order(&["true"], 2_000, 100)).unwrap();
    let mut said = say(&*at, "exit");
    for _ in 0..3 {
        if said.state == ShellState::Dead {
            break;
        }
        said = say(&*at, "exit");
    }
    assert_eq!(said.state, ShellState::Dead, "{said:?}");
    assert_eq!(say(&*at, "echo fine").output, "fine\n");
    let listed = shell(&*at, processes).stdout;
    assert!(!listed.contains("sleep 3000"), "{listed}");
    at.close().unwrap();
}

/// A program that takes the keys for itself and reads nothing is stopped even so.
pub fn keys_that_are_not_read(open: Open<'_>) {
    let at = open(&[], &[]);
    let full = "stty raw; head -c 100000 /dev/zero | tr '\\0' x; sleep 1000";
    let late = at.shell(&input(full, false, Some(1_500))).unwrap();
    assert_eq!(late.state, ShellState::HardTimeout, "{late:?}");
    assert_eq!(say(&*at, "echo fine").output, "fine\n");
    at.close().unwrap();
}
