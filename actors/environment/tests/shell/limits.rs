//! Time and size.

use crate::*;
use std::time::Instant;

#[test]
fn a_time_limit_stops_the_command_and_not_the_shell() {
    let Some(mut shell) = shell("a_time_limit_stops_the_command_and_not_the_shell") else {
        return;
    };
    output(&mut shell, "kept=1");
    // The command is there before its limit begins.
    until(&mut shell, &Input::command("echo on; sleep 1000"), "on\n");
    let wait = Input::command("").within(QUIET);
    let seen = shell.run(&wait);
    let end = (seen.state, seen.exit_code);
    assert_eq!(end, (State::HardTimeout, Some(130)), "{seen:?}");
    until(&mut shell, &Input::command(STUBBORN), "on\n");
    let seen = shell.run(&wait);
    let end = (seen.state, seen.exit_code);
    assert_eq!(end, (State::HardTimeout, Some(137)), "{seen:?}");
    assert!(seen.note.contains("killed"), "{}", seen.note);
    assert_eq!(output(&mut shell, "echo $kept"), "1\n");
    // The shell itself is told not to listen: it has to go.
    let deaf = Input::command("trap '' INT; while :; do :; done");
    let seen = shell.run(&deaf.within(QUIET));
    assert_eq!(seen.state, State::Dead, "{seen:?}");
    assert_eq!(run(&mut shell, "ls").state, State::Dead);
}

#[test]
fn a_command_of_a_megabyte_is_run() {
    let Some(mut shell) = shell("a_command_of_a_megabyte_is_run") else {
        return;
    };
    let text = "it's \"quoted\" and über long\n".repeat(36_000);
    assert!(text.len() > 1_000_000);
    let begin = Instant::now();
    let seen = output(&mut shell, &format!("wc -c <<'END'\n{text}END"));
    eprintln!("a command of {} bytes: {:?}", text.len(), begin.elapsed());
    assert_eq!(seen.trim(), text.len().to_string());
    // One line, far beyond what a terminal takes.
    let line = format!("echo -n '{}' | wc -c", "x".repeat(1 << 20));
    let seen = output(&mut shell, &line);
    assert_eq!(seen.trim(), (1 << 20).to_string());
}

#[test]
fn ten_megabytes_of_output_keep_both_ends() {
    let Some(mut shell) = shell("ten_megabytes_of_output_keep_both_ends") else {
        return;
    };
    let begin = Instant::now();
    let seen = run(&mut shell, "seq 1400000");
    let numbers = 1..=1_400_000u64;
    let written: u64 = numbers.map(|n| n.to_string().len() as u64 + 1).sum();
    eprintln!("{written} bytes of output: {:?}", begin.elapsed());
    assert_eq!(seen.state, State::Completed);
    assert!(seen.output.starts_with("1\n2\n3\n"));
    assert!(seen.output.ends_with("1399999\n1400000\n"));
    assert_eq!(seen.truncated_bytes, written - 30_000);
    assert_eq!(output(&mut shell, "echo next"), "next\n");
}

#[test]
fn output_that_is_not_text_is_shown_as_far_as_it_is() {
    let Some(mut shell) = shell("output_that_is_not_text_is_shown_as_far_as_it_is") else {
        return;
    };
    let seen = output(
        &mut shell,
        "printf 'a\\377b\\0c\\033[31mred\\n1%%\\r2%%\\n'",
    );
    assert_eq!(seen, "a\u{fffd}bcred\n2%\n");
    let seen = output(&mut shell, "head -c 1000000 /dev/urandom");
    assert!(seen.chars().count() < 31_000);
    assert_eq!(output(&mut shell, "echo next"), "next\n");
}

#[test]
fn a_limit_that_strikes_while_the_command_is_typed_leaves_the_shell() {
    let Some(mut shell) = shell("a_limit_that_strikes_while_the_command_is_typed") else {
        return;
    };
    output(&mut shell, "kept=1");
    let long = format!(
        "echo '{}' > /dev/null; kept=2",
        "touch /x; ".repeat(200_000)
    );
    let seen = shell.run(&Input::command(long).within(Duration::from_millis(5)));
    assert_eq!(seen.state, State::HardTimeout, "{seen:?}");
    assert_eq!(output(&mut shell, "echo $kept"), "1\n");
}

#[test]
fn the_outputs_of_a_hundred_commands_are_told_apart() {
    let Some(mut shell) = shell("the_outputs_of_a_hundred_commands_are_told_apart") else {
        return;
    };
    let begin = Instant::now();
    for number in 0..100 {
        let seen = run(&mut shell, &format!("echo {number}; (exit {number})"));
        assert_eq!(seen.output, format!("{number}\n"));
        assert_eq!(seen.exit_code, Some(number));
    }
    eprintln!("a command: {:?}", begin.elapsed() / 100);
}
