//! The words that an agent reads beside the output of its commands. Pure.

use std::time::Duration;

/// How a command was stopped at its time limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stopped {
    /// Ctrl-C did.
    Interrupted,
    /// SIGKILL did.
    Killed,
    /// The shell gave no sign until it was set up again.
    SetUpAgain,
}

fn seconds(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{} ms", time.as_millis())
    } else if time.subsec_millis() == 0 {
        format!("{} s", time.as_secs())
    } else {
        format!("{:.1} s", time.as_secs_f64())
    }
}

/// The command runs on in silence.
pub fn quiet(time: Duration) -> String {
    format!(
        "The command is still running; nothing new was printed for {}. Send an empty command \
         to wait for more, text with is_input to type it into the program, or C-c, C-d or C-z \
         with is_input. For a longer wait set a timeout.",
        seconds(time)
    )
}

/// Another command while one is running.
pub fn busy() -> String {
    "This command was not run: an earlier one is still running, and what it has printed since \
     is shown. Send an empty command to wait for it, text with is_input to type it into the \
     program, or C-c with is_input to stop it."
        .to_owned()
}

/// Several commands on lines of their own.
pub fn several(commands: &[&str]) -> String {
    let mut note = format!(
        "Nothing was run: these are {} commands. Send one at a time, or join them with && or ;.",
        commands.len()
    );
    for (number, command) in commands.iter().take(5).enumerate() {
        let line = command.lines().next().unwrap_or_default();
        let shown: String = line.chars().take(80).collect();
        let more = if shown.len() < command.len() {
            " ..."
        } else {
            ""
        };
        note.push_str(&format!("\n{}. {shown}{more}", number + 1));
    }
    if commands.len() > 5 {
        note.push_str("\n...");
    }
    note
}

/// Input, a key or a wait, and no command that it is for.
pub fn idle() -> String {
    "No command is running that could be waited for or take input; the shell is at its prompt."
        .to_owned()
}

/// The command ended before what was sent could reach it.
pub fn already_ended() -> String {
    "The command had ended already; nothing was typed.".to_owned()
}

/// The last words of the command before come first.
pub fn ended_before(code: i32) -> String {
    format!(
        "The command before this one had ended with exit code {code}; what it printed last \
         comes first."
    )
}

/// A NUL byte, which no command can hold.
pub fn nul() -> String {
    "Nothing was run: a command cannot hold a NUL byte.".to_owned()
}

/// A line that a terminal would cut.
pub fn long_line(limit: usize) -> String {
    format!(
        "Nothing was typed: a terminal takes lines of at most {limit} bytes. Write the text \
         into a file and let the program read that."
    )
}

/// A time limit struck, and the shell lives.
pub fn stopped(time: Duration, how: Stopped) -> String {
    let how = match how {
        Stopped::Interrupted => "stopped with Ctrl-C",
        Stopped::Killed => "killed, for Ctrl-C did not stop it",
        Stopped::SetUpAgain => "stopped, and the shell's prompt, which was gone, was put back",
    };
    format!(
        "The command did not end within {} and was {how}. Directory, variables and background \
         jobs are still there.",
        seconds(time)
    )
}

/// The shell ended by itself: `exit`, `exec`, a signal.
pub fn ended(code: Option<i32>) -> String {
    match code {
        Some(code) => format!("The shell ended with exit code {code}."),
        None => "The shell was killed.".to_owned(),
    }
}

/// A time limit struck, and the shell had to be killed.
pub fn killed(time: Duration) -> String {
    format!(
        "The command did not end within {} and could not be stopped; the shell was killed. \
         Its variables and jobs are lost, files are not.",
        seconds(time)
    )
}

/// The connection broke.
pub fn lost(why: &str) -> String {
    format!("The connection to the shell broke: {why}.")
}
