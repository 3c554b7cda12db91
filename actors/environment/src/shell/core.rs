//! What a shell does next: decided from what was said, what was heard and what time it is.
//! Pure: the session carries the actions out, and says what came.

use super::mark::{Mark, Marks, Piece};
use super::notes::{self, Stopped};
use super::screen::Screen;
use super::terminal::Read;
use super::{Input, Limits, Observation, State, script, split};
use std::collections::VecDeque;
use std::time::Duration;

/// The longest line that is typed for a program: terminals cut at 4,096 bytes.
const LONGEST_INPUT: usize = 4_000;

/// What the session is to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Type this.
    Write(Vec<u8>),
    /// Put the terminal's modes back.
    Settle,
    /// Ctrl-C.
    Interrupt,
    /// SIGKILL to the job in the foreground; say so when there was none
    /// ([`Core::nothing_was_killed`]).
    KillForeground,
    /// Kill the shell.
    Kill,
    /// Listen, at most so long.
    Wait(Duration),
    /// The answer to what was said.
    Answer(Observation),
}

/// The command that runs.
#[derive(Debug, Default)]
struct Running {
    /// Its exit code; it has not been told yet.
    ended: Option<i32>,
    /// `C-c` was sent.
    interrupted: bool,
    /// Its time was up.
    timed_out: bool,
    /// The set-up was typed while it ran, so that its exit code is not known.
    set_up_again: bool,
    /// Goes into the note of its end.
    before: String,
}

#[derive(Debug)]
enum Phase {
    Idle,
    Running(Running),
    Dead { code: Option<i32>, note: String },
}

/// A wait for the end of a command.
#[derive(Debug)]
struct Wait {
    began: Duration,
    /// When something was printed last.
    heard: Duration,
    hard: Duration,
    /// Whether silence ends it.
    soft: bool,
    /// How many ways of stopping were tried, and until when the last one has time.
    tries: u32,
    until: Duration,
}

/// The decisions of a shell.
#[derive(Debug)]
pub struct Core {
    nonce: String,
    limits: Limits,
    marks: Marks,
    screen: Screen,
    directory: String,
    /// Of the last command that was typed.
    number: u64,
    phase: Phase,
    wait: Wait,
    actions: VecDeque<Action>,
}

impl Core {
    /// A shell that is being set up: [`Core::next`] types the set-up, and answers
    /// `Completed` when bash is at its prompt, `Dead` otherwise.
    pub fn new(nonce: &str, limits: Limits, now: Duration) -> Self {
        let wait = Wait {
            began: now,
            heard: now,
            hard: limits.start,
            soft: false,
            tries: 0,
            until: now,
        };
        Self {
            nonce: nonce.to_owned(),
            marks: Marks::new(nonce),
            screen: Screen::new(limits.output),
            limits,
            directory: String::new(),
            number: 0,
            phase: Phase::Running(Running::default()),
            wait,
            actions: [Action::Write(script::set_up(nonce, 0))].into(),
        }
    }

    /// Whether the shell is gone.
    pub fn is_dead(&self) -> bool {
        matches!(self.phase, Phase::Dead { .. })
    }

    /// Whether a command is running.
    pub fn is_running(&self) -> bool {
        matches!(&self.phase, Phase::Running(running) if running.ended.is_none())
    }

    /// The shell's directory, as the last prompt had it.
    pub fn directory(&self) -> &str {
        &self.directory
    }

    /// Something is said to the shell.
    pub fn begin(&mut self, now: Duration, input: &Input) {
        self.wait = Wait {
            began: now,
            heard: now,
            hard: input.timeout.unwrap_or(self.limits.hard),
            soft: input.timeout.is_none(),
            tries: 0,
            until: now,
        };
        let key = key(&input.command);
        let is_command = !input.is_input && key.is_none() && !input.command.trim().is_empty();
        let before = match &mut self.phase {
            // Whatever is said: `next` tells that it is dead.
            Phase::Dead { .. } => return,
            Phase::Idle if is_command => String::new(),
            Phase::Idle => return self.refuse(State::Refused, notes::idle()),
            Phase::Running(running) => match running.ended {
                Some(code) if is_command => notes::ended_before(code),
                Some(_) => {
                    if !input.command.is_empty() {
                        running.before = notes::already_ended();
                    }
                    return;
                }
                None if is_command => return self.refuse(State::Busy, notes::busy()),
                None => return self.typed(input, key),
            },
        };
        let commands = split::commands(&input.command);
        if commands.len() > 1 {
            return self.refuse(State::Refused, notes::several(&commands));
        }
        if input.command.contains('\0') {
            return self.refuse(State::Refused, notes::nul());
        }
        self.number += 1;
        self.phase = Phase::Running(Running {
            before,
            ..Running::default()
        });
        let typed = script::framed(self.number, &input.command);
        self.actions.extend([Action::Settle, Action::Write(typed)]);
    }

    /// Text or a key for the program that is running; nothing is a wait for more.
    fn typed(&mut self, input: &Input, key: Option<u8>) {
        match key {
            Some(CTRL_C) => {
                if let Phase::Running(running) = &mut self.phase {
                    running.interrupted = true;
                }
                self.actions.push_back(Action::Interrupt);
            }
            Some(key) => self.actions.push_back(Action::Write(vec![key])),
            None if !input.is_input || input.command.is_empty() => {}
            None => {
                let mut text = input.command.clone();
                if !text.ends_with('\n') {
                    text.push('\n');
                }
                if text.split('\n').any(|line| line.len() > LONGEST_INPUT) {
                    let note = notes::long_line(LONGEST_INPUT);
                    return self.refuse(State::Refused, note);
                }
                self.actions.push_back(Action::Write(text.into_bytes()));
            }
        }
    }

    fn refuse(&mut self, state: State, note: String) {
        let answer = self.observation(state, None, note);
        self.actions.push_back(Action::Answer(answer));
    }

    /// The terminal said something.
    pub fn heard(&mut self, now: Duration, read: Read) {
        match read {
            Read::Quiet => {}
            Read::Bytes(bytes) => {
                self.wait.heard = now;
                let Self { marks, screen, .. } = self;
                let mut seen = Vec::new();
                marks.feed(&bytes, |piece| match piece {
                    Piece::Text(text) => screen.feed(&text),
                    Piece::Mark(mark) => seen.push(mark),
                });
                seen.into_iter().for_each(|mark| self.marked(mark));
            }
            Read::Closed(code) => {
                let rest = self.marks.rest();
                self.screen.feed(&rest);
                self.die(code, notes::ended(code));
            }
        }
    }

    fn marked(&mut self, mark: Mark) {
        // One of an earlier command, or one that this command made up: not its end.
        if mark.number != self.number {
            return;
        }
        if let Phase::Running(running) = &mut self.phase
            && running.ended.is_none()
        {
            running.ended = Some(mark.code);
            self.directory = String::from_utf8_lossy(&mark.directory).into_owned();
        }
    }

    /// The connection to the shell broke.
    pub fn failed(&mut self, why: &str) {
        self.die(None, notes::lost(why));
    }

    fn die(&mut self, code: Option<i32>, note: String) {
        let note = match &self.phase {
            Phase::Dead { .. } => return,
            Phase::Running(running) if running.timed_out => notes::killed(self.wait.hard),
            _ => note,
        };
        self.actions.clear();
        self.phase = Phase::Dead { code, note };
    }

    /// There was no job in the foreground that could be killed: on to the next way.
    pub fn nothing_was_killed(&mut self, now: Duration) {
        self.wait.until = now;
    }

    /// What to do now.
    pub fn next(&mut self, now: Duration) -> Action {
        if let Some(action) = self.actions.pop_front() {
            return action;
        }
        match &mut self.phase {
            Phase::Dead { code, note } => {
                let (code, note) = (*code, note.clone());
                Action::Answer(self.observation(State::Dead, code, note))
            }
            Phase::Idle => Action::Answer(self.observation(State::Refused, None, notes::idle())),
            Phase::Running(running) => match running.ended {
                Some(code) => {
                    let running = std::mem::take(running);
                    self.phase = Phase::Idle;
                    Action::Answer(self.end(&running, code))
                }
                None => self.listen(now),
            },
        }
    }

    fn end(&mut self, running: &Running, code: i32) -> Observation {
        let (state, note) = if running.timed_out {
            let how = match self.wait.tries {
                _ if running.set_up_again => Stopped::SetUpAgain,
                0..=2 => Stopped::Interrupted,
                _ => Stopped::Killed,
            };
            (State::HardTimeout, notes::stopped(self.wait.hard, how))
        } else if running.interrupted {
            (State::Interrupted, running.before.clone())
        } else {
            (State::Completed, running.before.clone())
        };
        let code = (!running.set_up_again).then_some(code);
        let (output, truncated_bytes) = self.screen.take_last();
        Observation {
            output,
            truncated_bytes,
            ..self.observation(state, code, note)
        }
    }

    fn listen(&mut self, now: Duration) -> Action {
        let wait = &self.wait;
        if wait.tries > 0 {
            return self.stop(now);
        }
        let hard = (wait.began + wait.hard).saturating_sub(now);
        if hard.is_zero() {
            self.wait.until = now;
            if let Phase::Running(running) = &mut self.phase {
                running.timed_out = true;
            }
            return self.stop(now);
        }
        if !wait.soft {
            return Action::Wait(hard);
        }
        let soft = (wait.heard + self.limits.quiet).saturating_sub(now);
        if soft.is_zero() {
            let note = notes::quiet(self.limits.quiet);
            return Action::Answer(self.observation(State::NoChange, None, note));
        }
        Action::Wait(hard.min(soft))
    }

    /// The time is up: Ctrl-C twice, SIGKILL, the set-up once more, the end.
    fn stop(&mut self, now: Duration) -> Action {
        let left = self.wait.until.saturating_sub(now);
        if !left.is_zero() {
            return Action::Wait(left);
        }
        if self.number == 0 && self.wait.tries == 0 {
            // A shell that does not come up holds nothing worth a try.
            self.wait.tries = 4;
        }
        self.wait.tries += 1;
        self.wait.until = now + self.limits.grace;
        match self.wait.tries {
            1 | 2 => Action::Interrupt,
            3 => Action::KillForeground,
            4 => {
                if let Phase::Running(running) = &mut self.phase {
                    running.set_up_again = true;
                }
                let typed = script::set_up(&self.nonce, self.number);
                self.actions.push_back(Action::Write(typed));
                Action::Settle
            }
            5 => Action::Kill,
            _ => {
                self.die(None, notes::killed(self.wait.hard));
                self.next(now)
            }
        }
    }

    fn observation(&mut self, state: State, exit_code: Option<i32>, note: String) -> Observation {
        let (output, truncated_bytes) = self.screen.take();
        Observation {
            output,
            exit_code,
            working_directory: self.directory.clone(),
            state,
            note,
            truncated_bytes,
        }
    }
}

const CTRL_C: u8 = 3;

/// `C-c` and its like, as the byte that the key sends.
fn key(command: &str) -> Option<u8> {
    let letter = command.trim().strip_prefix("C-")?;
    match letter.as_bytes() {
        [letter @ (b'a'..=b'z' | b'A'..=b'Z' | b'\\')] => Some(letter & 0x1f),
        _ => None,
    }
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
