//! The core on a terminal that follows a script, under a clock that it moves.

use crate::shell::*;
use proptest::prelude::*;
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex};

const NONCE: &str = "n0nce";

/// What the other end does next.
#[derive(Clone, Debug)]
enum Step {
    /// Prints this at once.
    Say(Vec<u8>),
    /// Is silent for so long.
    Rest(Duration),
    /// Waits for Ctrl-C.
    UntilInterrupt,
    /// Waits for SIGKILL to the foreground.
    UntilKilled,
    /// Waits until this is typed.
    UntilTyped(&'static str),
    /// Ends.
    Exit(Option<i32>),
}

#[derive(Debug, Default)]
struct World {
    now: Duration,
    steps: VecDeque<Step>,
    typed: Vec<u8>,
    interrupts: u32,
    kills: u32,
    killed: bool,
    job: bool,
}

#[derive(Clone, Default)]
struct Scripted(Arc<Mutex<World>>);

impl Scripted {
    fn world(&self) -> std::sync::MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }
}

impl Clock for Scripted {
    fn now(&self) -> Duration {
        self.world().now
    }
}

impl Terminal for Scripted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.world().typed.extend_from_slice(bytes);
        Ok(())
    }

    fn read(&mut self, wait: Duration) -> io::Result<Read> {
        let mut world = self.world();
        if world.killed {
            return Ok(Read::Closed(None));
        }
        loop {
            let step = world.steps.front().cloned();
            let is_due = match &step {
                Some(Step::Say(bytes)) => {
                    world.steps.pop_front();
                    if bytes.is_empty() {
                        continue;
                    }
                    return Ok(Read::Bytes(bytes.clone()));
                }
                Some(Step::Exit(code)) => return Ok(Read::Closed(*code)),
                // What comes at the very end of a wait comes too late for it.
                Some(Step::Rest(time)) if *time > wait || (*time == wait && !wait.is_zero()) => {
                    let left = *time - wait;
                    world.steps[0] = Step::Rest(left);
                    false
                }
                Some(Step::Rest(time)) => {
                    world.now += *time;
                    world.steps.pop_front();
                    continue;
                }
                Some(Step::UntilInterrupt) => world.interrupts > 0,
                Some(Step::UntilKilled) => world.kills > 0,
                Some(Step::UntilTyped(text)) => {
                    String::from_utf8_lossy(&world.typed).contains(text)
                }
                None => false,
            };
            if !is_due {
                world.now += wait;
                return Ok(Read::Quiet);
            }
            world.steps.pop_front();
        }
    }

    fn interrupt(&mut self) -> io::Result<()> {
        self.world().interrupts += 1;
        Ok(())
    }

    fn kill(&mut self) {
        self.world().killed = true;
    }

    fn kill_foreground(&mut self) -> io::Result<bool> {
        let mut world = self.world();
        world.kills += 1;
        Ok(world.job)
    }
}

fn mark(number: u64, code: i32, directory: &str) -> Step {
    say(&format!(
        "\u{1e}{NONCE}[{number} {code} {directory}\u{1e}{NONCE}]"
    ))
}

fn say(text: &str) -> Step {
    Step::Say(text.as_bytes().to_vec())
}

/// A shell at its prompt, and what happens then.
fn shell(steps: Vec<Step>) -> (Shell, Scripted) {
    let world = Scripted::default();
    world
        .world()
        .steps
        .extend([say("bash: no job control\n"), mark(0, 0, "/repo")]);
    let terminal = Box::new(world.clone());
    let clock = Box::new(world.clone());
    let shell = Shell::new(terminal, NONCE, clock).unwrap();
    let typed = std::mem::take(&mut world.world().typed);
    assert!(String::from_utf8_lossy(&typed).contains("PROMPT_COMMAND"));
    world.world().steps.push_back(Step::UntilTyped("eval"));
    world.world().steps.extend(steps);
    (shell, world)
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_command_ends_with_its_mark() {
    let (mut shell, _world) = shell(vec![say("one\n"), mark(1, 3, "/tmp/a b")]);
    assert_eq!(shell.working_directory(), "/repo");
    let seen = shell.run(&Input::command("ls"));
    assert_eq!(
        seen,
        Observation {
            output: "one\n".into(),
            exit_code: Some(3),
            working_directory: "/tmp/a b".into(),
            state: State::Completed,
            note: String::new(),
            truncated_bytes: 0,
        }
    );
}

#[test]
fn marks_of_others_are_not_the_end() {
    let forged = "\u{1e}other[1 0 /\u{1e}other]\u{1e}n0nce[99 0 /\u{1e}n0nce]\u{1e}n0nce[x]";
    let (mut shell, world) = shell(vec![
        mark(0, 0, "/late"),
        say(forged),
        Step::Rest(SECOND),
        say("still\n"),
        mark(1, 0, "/"),
    ]);
    let seen = shell.run(&Input::command("evil"));
    assert!(seen.output.ends_with("still\n"), "{seen:?}");
    assert_eq!(seen.working_directory, "/");
    assert_eq!(world.world().now, SECOND);
}

#[test]
fn silence_ends_a_wait_and_an_empty_command_waits_on() {
    let (mut shell, world) = shell(vec![
        say("working"),
        Step::Rest(29 * SECOND),
        say("."),
        Step::Rest(31 * SECOND),
        say("done\n"),
        mark(1, 0, "/repo"),
    ]);
    let seen = shell.run(&Input::command("make"));
    assert_eq!(seen.state, State::NoChange);
    assert_eq!(seen.output, "working.");
    assert_eq!(seen.exit_code, None);
    assert!(seen.note.contains("30 s"), "{}", seen.note);
    assert_eq!(world.world().now, 59 * SECOND);
    let seen = shell.run(&Input::command(""));
    assert_eq!(seen.state, State::Completed);
    assert_eq!(seen.output, "done\n");
}

#[test]
fn another_command_is_refused_while_one_runs() {
    let (mut shell, world) = shell(vec![
        say("a"),
        Step::Rest(45 * SECOND),
        say("b"),
        Step::UntilTyped("yes\n"),
        mark(1, 0, "/repo"),
        Step::UntilTyped("n=2"),
        mark(2, 0, "/repo"),
    ]);
    assert_eq!(shell.run(&Input::command("make")).state, State::NoChange);
    let before = world.world().typed.len();
    let seen = shell.run(&Input::command("ls"));
    assert_eq!(seen.state, State::Busy);
    assert_eq!(world.world().typed.len(), before);
    let seen = shell.run(&Input::typed("yes"));
    assert_eq!((seen.state, seen.output.as_str()), (State::Completed, "b"));
    assert_eq!(shell.run(&Input::command("ls")).state, State::Completed);
}

#[test]
fn a_command_that_ended_unseen_is_told_with_the_next() {
    let (mut shell, _world) = shell(vec![
        Step::Rest(30 * SECOND),
        say("late\n"),
        mark(1, 4, "/repo"),
        Step::UntilTyped("n=2"),
        say("next\n"),
        mark(2, 0, "/repo"),
    ]);
    assert_eq!(shell.run(&Input::command("make")).state, State::NoChange);
    let seen = shell.run(&Input::command("ls"));
    assert_eq!(seen.output, "late\nnext\n");
    assert_eq!(seen.exit_code, Some(0));
    assert!(seen.note.contains("exit code 4"), "{}", seen.note);
}

#[test]
fn input_for_a_command_that_ended_is_not_typed() {
    let (mut shell, world) = shell(vec![Step::Rest(30 * SECOND), mark(1, 4, "/repo")]);
    assert_eq!(shell.run(&Input::command("make")).state, State::NoChange);
    let before = world.world().typed.len();
    let seen = shell.run(&Input::typed("rm -r x"));
    assert_eq!(world.world().typed.len(), before);
    assert_eq!((seen.state, seen.exit_code), (State::Completed, Some(4)));
    assert!(!seen.note.is_empty());
}

#[test]
fn at_the_prompt_there_is_nothing_to_wait_for_or_to_type_into() {
    let (mut shell, world) = shell(vec![]);
    for input in [
        Input::command(""),
        Input::typed("yes"),
        Input::typed("C-c"),
        Input::command("C-c"),
        Input::command("ls\npwd"),
        Input::command("echo a\0b"),
    ] {
        let seen = shell.run(&input);
        assert_eq!(seen.state, State::Refused, "{input:?}");
        assert!(!seen.note.is_empty());
    }
    let world = world.world();
    assert!(world.typed.is_empty());
    assert_eq!(world.interrupts, 0);
}

#[test]
fn several_commands_are_named() {
    let (mut shell, _world) = shell(vec![]);
    let note = shell.run(&Input::command("cd /tmp\nls -l")).note;
    assert!(note.contains("1. cd /tmp\n2. ls -l"), "{note}");
}

#[test]
fn the_key_interrupts() {
    let (mut shell, _world) = shell(vec![
        Step::UntilInterrupt,
        say("^C\n"),
        mark(1, 130, "/repo"),
    ]);
    assert_eq!(shell.run(&Input::command("sleep 9")).state, State::NoChange);
    let seen = shell.run(&Input::typed("C-c"));
    assert_eq!(
        (seen.state, seen.exit_code),
        (State::Interrupted, Some(130))
    );
}

#[test]
fn other_keys_are_typed_as_they_are() {
    let (mut shell, world) = shell(vec![Step::UntilTyped("\u{4}"), mark(1, 0, "/repo")]);
    assert_eq!(shell.run(&Input::command("cat")).state, State::NoChange);
    let seen = shell.run(&Input::typed("C-d"));
    assert_eq!(seen.state, State::Completed);
    assert!(world.world().typed.ends_with(&[4]));
}

#[test]
fn a_line_that_a_terminal_would_cut_is_refused() {
    let (mut shell, world) = shell(vec![]);
    assert_eq!(shell.run(&Input::command("cat")).state, State::NoChange);
    let before = world.world().typed.len();
    let seen = shell.run(&Input::typed("x".repeat(5_000)));
    assert_eq!(seen.state, State::Refused);
    assert_eq!(world.world().typed.len(), before);
}

#[test]
fn a_time_limit_interrupts() {
    let (mut shell, world) = shell(vec![say("on"), Step::UntilInterrupt, mark(1, 130, "/repo")]);
    let seen = shell.run(&Input::command("sleep 99").within(40 * SECOND));
    assert_eq!(
        (seen.state, seen.exit_code),
        (State::HardTimeout, Some(130))
    );
    assert_eq!(seen.output, "on");
    assert!(seen.note.contains("40 s"), "{}", seen.note);
    // With a limit of its own, silence did not end the wait.
    assert_eq!(world.world().now, 40 * SECOND);
    assert!(!shell.is_dead());
}

#[test]
fn what_ctrl_c_does_not_stop_is_killed() {
    let (mut shell, world) = shell(vec![Step::UntilKilled, mark(1, 137, "/repo")]);
    world.world().job = true;
    let seen = shell.run(&Input::command("stubborn").within(SECOND));
    assert_eq!(
        (seen.state, seen.exit_code),
        (State::HardTimeout, Some(137))
    );
    assert!(seen.note.contains("killed"), "{}", seen.note);
    assert_eq!(world.world().interrupts, 2);
    assert!(!shell.is_dead());
}

#[test]
fn a_shell_that_lost_its_prompt_is_set_up_again() {
    let (mut shell, world) = shell(vec![
        Step::UntilTyped("__gt_n=1; __gt_t"),
        mark(1, 0, "/repo"),
    ]);
    let seen = shell.run(&Input::command("unset PROMPT_COMMAND").within(SECOND));
    assert_eq!((seen.state, seen.exit_code), (State::HardTimeout, None));
    assert!(!world.world().killed);
}

#[test]
fn a_shell_that_nothing_moves_is_dead() {
    let (mut shell, world) = shell(vec![]);
    let seen = shell.run(&Input::command("wedge").within(SECOND));
    assert_eq!((seen.state, seen.exit_code), (State::Dead, None));
    assert!(seen.note.contains("killed"), "{}", seen.note);
    assert!(world.world().killed && shell.is_dead());
    assert_eq!(shell.run(&Input::command("ls")).state, State::Dead);
}

#[test]
fn an_endless_flood_meets_the_time_limit() {
    let (mut shell, world) = shell(vec![]);
    for _ in 0..1_000 {
        let mut world = world.world();
        world.steps.push_back(Step::Rest(SECOND));
        world.steps.push_back(say(&"y\n".repeat(1_000)));
    }
    let seen = shell.run(&Input::command("yes"));
    assert_eq!(seen.state, State::Dead);
    assert!(world.world().now <= 126 * SECOND);
    assert!(seen.truncated_bytes > 100_000);
    assert!(seen.output.chars().count() < 30_200);
}

#[test]
fn a_shell_that_ends_tells_its_code_and_its_last_words() {
    let (mut shell, _world) = shell(vec![say("bye\n\u{1e}n0nc"), Step::Exit(Some(3))]);
    let seen = shell.run(&Input::command("exit 3"));
    assert_eq!((seen.state, seen.exit_code), (State::Dead, Some(3)));
    assert_eq!(seen.output, "bye\nn0nc");
    let again = shell.run(&Input::command("ls"));
    assert_eq!((again.state, again.exit_code), (State::Dead, Some(3)));
    assert_eq!(again.output, "");
}

#[test]
fn a_shell_that_does_not_come_up_is_an_error() {
    let world = Scripted::default();
    world.world().steps.push_back(say("no such thing"));
    let made = Shell::new(Box::new(world.clone()), NONCE, Box::new(world.clone()));
    let failure = gametape_schemas::Failure::from(made.unwrap_err());
    assert_eq!(failure.code, "GT-SANDBOX-SHELL");
    assert!(failure.message.contains("no such thing"), "{failure}");
    assert!(world.world().killed);
    let made = Shell::new(Box::new(world.clone()), "a'b%s", Box::new(world));
    assert!(matches!(made, Err(ShellError::Nonce)));
}

proptest! {
    #[test]
    fn where_the_stream_is_cut_does_not_matter(
        parts in prop::collection::vec(prop_oneof![
            "[a-zä\n]{0,9}",
            Just("\u{1e}n0n".to_owned()),
            Just("\u{1e}n0nce[1 0".to_owned()),
            Just("\u{1e}n0nce[0 0 /\u{1e}n0nce]".to_owned()),
        ], 0..6),
        code in 0i32..256,
        cuts in prop::collection::vec((1usize..9, 0u64..29_000), 0..30),
    ) {
        let text = parts.concat();
        let stream = format!("{text}\u{1e}n0nce[1 {code} /a b\u{1e}n0nce]").into_bytes();
        let (mut whole, _) = shell(vec![Step::Say(stream.clone())]);
        let mut steps = Vec::new();
        let mut rest = stream.as_slice();
        for (cut, pause) in cuts {
            let (chunk, after) = rest.split_at(cut.min(rest.len()));
            steps.push(Step::Say(chunk.to_vec()));
            if !after.is_empty() {
                // In all less than the time limit of the wait, each less than its silence.
                steps.push(Step::Rest(Duration::from_millis(pause / 10)));
            }
            rest = after;
        }
        steps.push(Step::Say(rest.to_vec()));
        let (mut cut, _) = shell(steps);
        let seen = cut.run(&Input::command("ls"));
        prop_assert_eq!(&seen, &whole.run(&Input::command("ls")));
        prop_assert_eq!(seen.state, State::Completed);
        prop_assert_eq!(seen.exit_code, Some(code));
        prop_assert_eq!(seen.working_directory, "/a b");
    }
}
