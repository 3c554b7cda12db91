//! Real shells: bash on a pseudo-terminal, over pipes, and inside bubblewrap.

mod commands;
mod limits;
mod transports;
mod trouble;

use gametape_environment::shell::script::BASH;
use gametape_environment::shell::{
    Input, Limits, Observation, PtyTerminal, Shell, State, SystemClock, Terminal,
};
use std::io;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Longer than anything here takes on a machine that is busy.
const LONG: Duration = Duration::from_secs(60);
/// Silence that a test waits for.
const QUIET: Duration = Duration::from_millis(400);
/// The nonce of all shells here.
const NONCE: &str = "5e55107e57";
/// Ignores Ctrl-C, and says that it is there.
const STUBBORN: &str = "sh -c 'trap \"\" INT; echo on; while :; do sleep 100; done'";

/// Whether a program is there; says so aloud when it is not.
fn program(test: &str, name: &str) -> bool {
    let found = Command::new(name)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !found {
        eprintln!("SKIPPED: {test}: no {name} on this machine");
    }
    found
}

fn start<T: Terminal + 'static>(spawn: impl FnOnce(Command) -> io::Result<T>) -> Shell {
    let mut command = Command::new(BASH[0]);
    command.args(&BASH[1..]).current_dir("/");
    let terminal = Box::new(spawn(command).expect("bash can be started"));
    let limits = Limits {
        quiet: QUIET,
        hard: LONG,
        start: LONG,
        ..Limits::default()
    };
    Shell::with_limits(terminal, NONCE, Box::new(SystemClock::default()), limits)
        .expect("bash comes up")
}

/// A shell on a pseudo-terminal, or a loud skip.
fn shell(test: &str) -> Option<Shell> {
    program(test, "bash").then(|| start(PtyTerminal::spawn))
}

/// A command to its end, however silent it is.
fn run(shell: &mut Shell, command: &str) -> Observation {
    shell.run(&Input::command(command).within(LONG))
}

/// The output of a command that must succeed.
#[track_caller]
fn output(shell: &mut Shell, command: &str) -> String {
    let seen = run(shell, command);
    let end = (seen.state, seen.exit_code);
    assert_eq!(end, (State::Completed, Some(0)), "{command}: {seen:?}");
    seen.output
}

/// Says something, and waits until the program has printed this and is silent.
#[track_caller]
fn until(shell: &mut Shell, input: &Input, text: &str) -> String {
    let mut seen = shell.run(input);
    let mut all = seen.output.clone();
    while !all.contains(text) {
        assert_eq!(seen.state, State::NoChange, "{input:?}: {all} {seen:?}");
        seen = shell.run(&Input::command(""));
        all.push_str(&seen.output);
    }
    assert_eq!(seen.state, State::NoChange, "{input:?}: {all} {seen:?}");
    all
}

/// Says something to a program that ends by it, however silent it is.
fn last(shell: &mut Shell, text: &str) -> Observation {
    shell.run(&Input::typed(text).within(LONG))
}
