//! The same shell over other connections.

use crate::*;
use gametape_environment::shell::PipeTerminal;

#[test]
fn pipes_carry_a_shell_too() {
    if !program("pipes_carry_a_shell_too", "bash") {
        return;
    }
    let mut shell = start(PipeTerminal::spawn);
    output(&mut shell, "cd /tmp; kept=1");
    assert_eq!(output(&mut shell, "pwd; echo $kept"), "/tmp\n1\n");
    let asked = Input::command("echo on; read -r name");
    until(&mut shell, &asked, "on\n");
    assert_eq!(last(&mut shell, "Ada").state, State::Completed);
    assert_eq!(output(&mut shell, "echo $name"), "Ada\n");
    until(&mut shell, &Input::command("echo on; sleep 1000"), "on\n");
    let seen = last(&mut shell, "C-c");
    let end = (seen.state, seen.exit_code);
    assert_eq!(end, (State::Interrupted, Some(130)), "{seen:?}");
    let long = format!("echo -n '{}' | wc -c", "x".repeat(1 << 20));
    let seen = output(&mut shell, &long);
    assert_eq!(seen.trim(), (1 << 20).to_string());
    assert_eq!(run(&mut shell, "exit 3").exit_code, Some(3));
}

#[test]
fn a_shell_inside_bubblewrap_has_its_terminal() {
    let test = "a_shell_inside_bubblewrap_has_its_terminal";
    if !program(test, "bash") || !program(test, "bwrap") {
        return;
    }
    let walls = "--unshare-user --unshare-pid --unshare-net --unshare-ipc --die-with-parent \
                 --ro-bind / / --proc /proc --dev /dev";
    let bubble = || {
        let mut command = Command::new("bwrap");
        command.args(walls.split_whitespace());
        command
    };
    let trial = bubble().arg("true").stderr(Stdio::null()).status();
    if !trial.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: {test}: namespaces are refused here");
        return;
    }
    let mut shell = start(|_| {
        let mut command = bubble();
        command.args(BASH);
        PtyTerminal::spawn(command)
    });
    assert_eq!(output(&mut shell, "cd /tmp; pwd"), "/tmp\n");
    until(&mut shell, &Input::command("echo on; sleep 1000"), "on\n");
    let seen = last(&mut shell, "C-c");
    let end = (seen.state, seen.exit_code);
    assert_eq!(end, (State::Interrupted, Some(130)), "{seen:?}");
    until(&mut shell, &Input::command(STUBBORN), "on\n");
    let seen = shell.run(&Input::command("").within(QUIET));
    let end = (seen.state, seen.exit_code);
    assert_eq!(end, (State::HardTimeout, Some(137)), "{seen:?}");
    let seen = run(&mut shell, "exit 3");
    let end = (seen.state, seen.exit_code);
    assert_eq!(end, (State::Dead, Some(3)), "{seen:?}");
}
