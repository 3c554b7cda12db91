//! What lives on from command to command, and what reaches a program that runs.

use crate::*;

#[test]
fn directory_variables_and_functions_stay() {
    let Some(mut shell) = shell("directory_variables_and_functions_stay") else {
        return;
    };
    assert_eq!(shell.working_directory(), "/");
    assert_eq!(run(&mut shell, "cd /tmp").working_directory, "/tmp");
    assert_eq!(output(&mut shell, "pwd"), "/tmp\n");
    output(&mut shell, "export A='x  y'; b=2");
    let seen = output(&mut shell, "env | grep ^A=; echo $b");
    assert_eq!(seen, "A=x  y\n2\n");
    output(&mut shell, "greet() {\n  echo \"hello $1\"\n}");
    assert_eq!(output(&mut shell, "greet you"), "hello you\n");
    output(&mut shell, "declare -A m; m[k]=v");
    assert_eq!(output(&mut shell, "echo ${m[k]}"), "v\n");
    let environment = output(&mut shell, "env");
    assert!(!environment.contains("__gt"), "{environment}");
}

#[test]
fn exit_codes_are_told_and_reach_the_next_command() {
    let Some(mut shell) = shell("exit_codes_are_told_and_reach_the_next_command") else {
        return;
    };
    assert_eq!(run(&mut shell, "(exit 42)").exit_code, Some(42));
    assert_eq!(output(&mut shell, "echo $?"), "42\n");
    assert_eq!(output(&mut shell, "echo $?"), "0\n");
    assert_eq!(run(&mut shell, "no-such-program").exit_code, Some(127));
    let wrong = run(&mut shell, "if true; fi; done");
    assert_ne!(wrong.exit_code, Some(0));
    assert!(wrong.output.contains("syntax error"), "{wrong:?}");
    let killed = run(&mut shell, "sh -c 'kill -9 $$'");
    assert_eq!(killed.exit_code, Some(137));
}

#[test]
fn commands_of_several_lines_are_run_and_several_commands_are_not() {
    let Some(mut shell) = shell("commands_of_several_lines") else {
        return;
    };
    let text = "cat <<'EOF'\nit's $HOME `x` \\ !! \"q\"\n\ttab\nEOF";
    let seen = output(&mut shell, text);
    assert_eq!(seen, "it's $HOME `x` \\ !! \"q\"\n\ttab\n");
    let seen = output(&mut shell, "for i in 1 2\ndo\n  echo $i\ndone");
    assert_eq!(seen, "1\n2\n");
    let seen = output(&mut shell, "echo größe &&\n  echo $'\\x01'2");
    assert_eq!(seen, "größe\n2\n");
    let refused = run(&mut shell, "made=1\nls");
    assert_eq!(refused.state, State::Refused);
    assert_eq!(output(&mut shell, "echo ${made-none}"), "none\n");
}

#[test]
fn jobs_in_the_background_live_on() {
    let Some(mut shell) = shell("jobs_in_the_background_live_on") else {
        return;
    };
    let seen = run(&mut shell, "sleep 1000 &");
    assert_eq!(seen.state, State::Completed);
    assert!(output(&mut shell, "jobs").contains("Running"));
    let ended = run(&mut shell, "kill %1; wait %1");
    assert_eq!(ended.exit_code, Some(143));
}

#[test]
fn programs_are_typed_into() {
    let test = "programs_are_typed_into";
    let Some(mut shell) = shell(test) else {
        return;
    };
    let asked = Input::command("read -r -p 'Name? ' name");
    assert_eq!(until(&mut shell, &asked, "Name? "), "Name? ");
    assert_eq!(last(&mut shell, "Ada L.").state, State::Completed);
    assert_eq!(output(&mut shell, "echo $name"), "Ada L.\n");
    // A program that reads what nobody sends is told by its silence.
    let seen = shell.run(&Input::command("cat"));
    assert_eq!(seen.state, State::NoChange);
    until(&mut shell, &Input::typed("back"), "back\n");
    assert_eq!(run(&mut shell, "ls").state, State::Busy);
    let seen = last(&mut shell, "C-d");
    assert_eq!((seen.state, seen.exit_code), (State::Completed, Some(0)));
    if !program(test, "python3") {
        return;
    }
    until(&mut shell, &Input::command("python3 -i -q"), ">>> ");
    until(&mut shell, &Input::typed("print(6 * 7)"), "42\n");
    let seen = last(&mut shell, "exit(5)");
    let end = (seen.state, seen.exit_code);
    assert_eq!(end, (State::Completed, Some(5)), "{seen:?}");
}

#[test]
fn what_a_program_did_not_read_is_no_command() {
    let Some(mut shell) = shell("what_a_program_did_not_read_is_no_command") else {
        return;
    };
    until(&mut shell, &Input::command("echo on; read -r line"), "on\n");
    let seen = last(&mut shell, "for the program\necho stray; cd /usr\nexit 3");
    assert_eq!(seen.state, State::Completed);
    assert_eq!(output(&mut shell, "echo $line"), "for the program\n");
    until(&mut shell, &Input::command("echo on; sleep 1000"), "on\n");
    shell.run(&Input::typed("echo stray; cd /usr"));
    let seen = last(&mut shell, "C-c");
    assert_eq!(seen.state, State::Interrupted);
    assert!(!seen.output.contains("stray"), "{seen:?}");
    assert_eq!(output(&mut shell, "pwd"), "/\n");
}

#[test]
fn ctrl_c_stops_and_ctrl_z_suspends() {
    let Some(mut shell) = shell("ctrl_c_stops_and_ctrl_z_suspends") else {
        return;
    };
    output(&mut shell, "kept=1");
    until(&mut shell, &Input::command("echo on; sleep 1000"), "on\n");
    let seen = last(&mut shell, "C-c");
    let end = (seen.state, seen.exit_code);
    assert_eq!(end, (State::Interrupted, Some(130)));
    // Bash's own loop, with nothing else in the foreground.
    let endless = Input::command("echo on; while :; do :; done");
    until(&mut shell, &endless, "on\n");
    assert_eq!(last(&mut shell, "C-c").state, State::Interrupted);
    until(&mut shell, &Input::command("echo on; sleep 1000"), "on\n");
    let seen = last(&mut shell, "C-z");
    let end = (seen.state, seen.exit_code);
    assert_eq!(end, (State::Completed, Some(148)), "{seen:?}");
    assert!(output(&mut shell, "jobs").contains("Stopped"));
    // Bash may tell of the job's end in the same breath.
    let seen = output(&mut shell, "kill -9 %1; echo $kept");
    assert!(seen.contains("1\n"), "{seen}");
}
