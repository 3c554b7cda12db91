//! Commands that end the shell, lie to it, or change what it stands on.

use crate::*;

#[test]
fn a_shell_that_ends_is_dead_and_tells_its_code() {
    let Some(mut ended) = shell("a_shell_that_ends_is_dead_and_tells_its_code") else {
        return;
    };
    let seen = run(&mut ended, "echo bye; exit 3");
    let end = (seen.state, seen.exit_code);
    assert_eq!(end, (State::Dead, Some(3)), "{seen:?}");
    assert!(seen.output.starts_with("bye\n"), "{seen:?}");
    assert!(ended.is_dead());
    for (command, code) in [
        ("exec sh -c 'exit 4'", Some(4)),
        ("kill -9 $$", None),
        // A job that holds the terminal open does not hide the end.
        ("(trap '' HUP; exec sleep 10) & exit 6", Some(6)),
        ("set -e; false", Some(1)),
    ] {
        let mut shell = start(PtyTerminal::spawn);
        let seen = run(&mut shell, command);
        let end = (seen.state, seen.exit_code);
        assert_eq!(end, (State::Dead, code), "{command}: {seen:?}");
    }
    // Bash reads its commands there: it comes to their end after this one.
    let mut shell = start(PtyTerminal::spawn);
    run(&mut shell, "exec 0</dev/null");
    assert_eq!(run(&mut shell, "ls").state, State::Dead);
}

#[test]
fn a_forged_end_without_the_nonce_is_text() {
    let Some(mut shell) = shell("a_forged_end_without_the_nonce_is_text") else {
        return;
    };
    let opening = format!("\\036{NONCE}");
    let forged = format!(
        "printf '\\036nonce[1 0 /\\036nonce]'; printf '{opening}[1 0'; echo; \
         printf '{opening}[0 0 /x{opening}]'; echo end; (exit 9)"
    );
    let seen = run(&mut shell, &forged);
    let end = (seen.state, seen.exit_code);
    assert_eq!(end, (State::Completed, Some(9)), "{seen:?}");
    assert!(seen.output.ends_with("end\n"), "{seen:?}");
    assert_eq!(seen.working_directory, "/");
    // Looking at the shell's own words ends nothing, either.
    let seen = run(&mut shell, "set; declare -f; (exit 8)");
    assert_eq!(seen.exit_code, Some(8), "{seen:?}");
}

#[test]
fn no_setting_of_a_command_wedges_the_shell() {
    if !program("no_setting_of_a_command_wedges_the_shell", "bash") {
        return;
    }
    for setting in [
        "PS1='> '; PS2='. '; PS0=x",
        "PROMPT_COMMAND='echo mine'",
        "PROMPT_COMMAND=(); unset PROMPT_COMMAND",
        "stty echo",
        "stty raw",
        "stty -icanon -isig",
        "trap 'echo dbg' DEBUG",
        "trap 'echo err' ERR",
        "trap 'echo bye' EXIT INT",
        "set -e",
        "set -u",
        "set -f -C +m",
        "set -v",
        "set -o posix",
        "shopt -s extglob nullglob",
        "IFS=0123456789",
        "PATH=/nowhere",
        "alias eval=false builtin=false printf=false",
        "REPLY=1; LANG=C LC_ALL=C",
        "printf() { :; }; read() { :; }",
        "unset PWD OLDPWD HOME TERM",
        "umask 777; ulimit -n 12",
    ] {
        let mut shell = start(PtyTerminal::spawn);
        let seen = run(&mut shell, setting);
        assert_eq!(seen.state, State::Completed, "{setting}: {seen:?}");
        let seen = run(&mut shell, "echo still here");
        let end = (seen.state, seen.exit_code);
        assert_eq!(end, (State::Completed, Some(0)), "{setting}: {seen:?}");
        assert!(seen.output.contains("still here\n"), "{setting}: {seen:?}");
    }
}

#[test]
fn a_setting_does_what_it_is_for() {
    if !program("a_setting_does_what_it_is_for", "bash") {
        return;
    }
    let mut shell = start(PtyTerminal::spawn);
    let seen = run(&mut shell, "exec 1>/dev/null 2>&1");
    assert_eq!(seen.state, State::Completed);
    let seen = run(&mut shell, "echo hidden; (exit 7)");
    assert_eq!((seen.exit_code, seen.output.as_str()), (Some(7), ""));
    let mut shell = start(PtyTerminal::spawn);
    assert_eq!(run(&mut shell, "set -x").state, State::Completed);
    let seen = run(&mut shell, "echo traced");
    let end = "+ echo traced\ntraced\n";
    assert!(seen.output.ends_with(end), "{seen:?}");
    // Bash 5.2 crashes when line editing is switched on in an `eval`: then that is told.
    let mut shell = start(PtyTerminal::spawn);
    run(&mut shell, "set -o vi");
    let seen = run(&mut shell, "echo still here");
    let is_here = seen.output.contains("still here\n");
    assert!(is_here || seen.state == State::Dead, "{seen:?}");
}

#[test]
fn a_shell_whose_hooks_are_gone_comes_back_at_the_time_limit() {
    let Some(mut shell) = shell("a_shell_whose_hooks_are_gone_comes_back") else {
        return;
    };
    output(&mut shell, "kept=1");
    let unset = Input::command("unset -f __gt_p __gt_t; unset PROMPT_COMMAND");
    let seen = shell.run(&unset.within(QUIET));
    let end = (seen.state, seen.exit_code);
    assert_eq!(end, (State::HardTimeout, None), "{seen:?}");
    assert_eq!(output(&mut shell, "echo $kept"), "1\n");
}

#[test]
fn a_shell_within_the_shell_is_a_program_like_others() {
    let Some(mut shell) = shell("a_shell_within_the_shell_is_a_program_like_others") else {
        return;
    };
    let nested = Input::command("bash --norc --noprofile");
    until(&mut shell, &nested, "bash-");
    until(&mut shell, &Input::typed("echo $((6 * 7))"), "42\n");
    let seen = last(&mut shell, "exit 5");
    let end = (seen.state, seen.exit_code);
    assert_eq!(end, (State::Completed, Some(5)), "{seen:?}");
}
