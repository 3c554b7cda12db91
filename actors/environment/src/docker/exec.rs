//! One command in a container: started, fed, drained, told apart by how it ended.
//!
//! What the engine does not give, a few words of shell around the command do: which exit
//! code was a signal, and the end of everything that the command started. The shell runs
//! as the agent's user and an agent may kill it; so what is left is counted from outside
//! ([`super::quiet`]) after every command.

use super::client::{Engine, Trouble};
use super::container::NOTES;
use super::spared::Spared;
use crate::output::Capture;
use bollard::container::LogOutput;
use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use bollard::models::ExecInspectResponse;
use futures_util::StreamExt;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

/// Frames of the engine's streams.
const FRAME: usize = 8 << 10;
/// How often the engine is asked whether a command whose streams stay open has ended.
const POLL: Duration = Duration::from_millis(250);
/// How long an ended command's streams are drained while somebody holds them open.
const DRAIN: Duration = Duration::from_millis(300);

/// Where commands run, and as whom.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    /// The engine.
    pub engine: &'a Engine,
    /// The container.
    pub container: &'a str,
    /// The user, and a group where it matters.
    pub user: &'a str,
}

/// A command inside.
#[derive(Debug)]
pub struct Order<'a> {
    /// Program and arguments, run as they are.
    pub argv: Vec<String>,
    /// Its environment.
    pub env: Vec<String>,
    /// Where.
    pub directory: &'a str,
    /// Its input; nothing when absent.
    pub stdin: Option<&'a [u8]>,
    /// Its limit.
    pub timeout: Duration,
    /// Bytes kept of each stream.
    pub output_cap: usize,
}

/// How it ended.
#[derive(Debug)]
pub struct Ran {
    /// Exit code of its first process; `None` at the limit.
    pub code: Option<i64>,
    /// Standard output.
    pub stdout: Capture,
    /// Standard error.
    pub stderr: Capture,
    /// Wall time.
    pub wall: Duration,
}

/// The words around a command. Descriptors 3 and 4 are its streams, so that what the
/// shell itself says goes into the note: it says something (`Killed`) only of signals.
/// At the end everything of this user is killed but this shell, at one blow; one by one
/// where the session of another is spared.
fn around(argv: &[String], spared: Option<&Spared>) -> Vec<String> {
    let kill = spared.map_or_else(|| "kill -9 -1".to_owned(), Spared::kill_others);
    // An agent may have made the note unwritable: then nothing is known of signals.
    let script = format!(
        "n={NOTES}/note\n\
         ( : >$n ) 2>/dev/null || n=/dev/null\n\
         exec 3>&2 4>&1 2>$n\n\
         ( exec env -- \"$@\" >&4 2>&3 3>&- 4>&- )\n\
         code=$?\n\
         exec 2>/dev/null\n\
         if [ \"$code\" -gt 128 ] && ! [ -s $n ]; then echo {EXIT} >$n; fi\n\
         {kill}\n\
         exit \"$code\""
    );
    let mut out = vec![
        "/bin/sh".to_owned(),
        "-c".to_owned(),
        script,
        "sh".to_owned(),
    ];
    out.extend_from_slice(argv);
    out
}

/// The note of a command that ended by itself with a code like a signal's.
pub const EXIT: &str = "exit";

/// Kills everything of the agent's at one blow, and says what the shell around the last
/// command left in its note.
pub const KILL: &str = "kill -9 -1 2>/dev/null; cat /run/gametape/note 2>/dev/null; exit 0";

/// The kernel's limits on one word and on all words of a program with its environment.
const WORD: usize = (128 << 10) - 1;
const WORDS: usize = (2 << 20) - (16 << 10);

/// Whether no kernel takes so many or so long words. The words around a command would
/// not start either then, and the engine's answer to that is no exit code. Pure.
pub fn is_too_long(argv: &[String], env: &[String]) -> bool {
    let words = || argv.iter().chain(env);
    // Each with its end and with the pointer to it.
    let all: usize = words().map(|word| word.len() + 9).sum();
    all > WORDS || words().any(|word| word.len() > WORD)
}

/// Runs a command of the agent's with the words around it.
pub async fn command(
    at: At<'_>,
    order: Order<'_>,
    spared: Option<&Spared>,
) -> Result<Ran, Trouble> {
    let argv = around(&order.argv, spared);
    run(at, Order { argv, ..order }).await
}

/// Runs something of ours as the agent's user.
pub async fn script(at: At<'_>, script: &str) -> Result<Ran, Trouble> {
    let order = Order {
        argv: vec!["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()],
        env: Vec::new(),
        directory: "/",
        stdin: None,
        timeout: at.engine.settings.call,
        output_cap: 64 << 10,
    };
    run(at, order).await
}

/// Runs a program to its end or its limit. At the limit it is left running: whoever
/// calls kills it.
///
/// # Errors
/// The engine's.
pub async fn run(at: At<'_>, order: Order<'_>) -> Result<Ran, Trouble> {
    let engine = at.engine;
    let begin = Instant::now();
    let options = CreateExecOptions {
        attach_stdin: Some(order.stdin.is_some()),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        tty: Some(false),
        env: Some(order.env),
        cmd: Some(order.argv),
        user: Some(at.user.to_owned()),
        working_dir: Some(order.directory.to_owned()),
        ..CreateExecOptions::default()
    };
    let created = engine.docker.create_exec(at.container, options);
    let id = engine.call("exec", created).await?.id;
    let options = StartExecOptions {
        detach: false,
        tty: false,
        output_capacity: Some(FRAME),
    };
    let started = engine.docker.start_exec(&id, Some(options));
    let StartExecResults::Attached {
        mut output,
        mut input,
    } = engine.call("start of an exec", started).await?
    else {
        return Err(Trouble::Refused("an exec gave no streams".to_owned()));
    };
    let feeding = async {
        if let Some(bytes) = order.stdin {
            // A command need not read its input.
            let _ = input.write_all(bytes).await;
            let _ = input.shutdown().await;
        }
    };
    tokio::pin!(feeding);
    let (mut stdout, mut stderr) = (Capture::default(), Capture::default());
    let mut fed = false;
    let mut deadline = begin + order.timeout;
    let mut ended: Option<ExecInspectResponse> = None;
    let mut poll = tokio::time::interval_at(Instant::now() + POLL, POLL);
    poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(deadline) => break,
            () = &mut feeding, if !fed => fed = true,
            _ = poll.tick(), if ended.is_none() => {
                // Exit is not the end of the streams: a descendant may hold them.
                let found = engine.call("look at an exec", engine.docker.inspect_exec(&id)).await?;
                if found.running == Some(false) {
                    ended = Some(found);
                    deadline = deadline.min(Instant::now() + DRAIN);
                }
            }
            piece = output.next() => match piece {
                Some(Ok(LogOutput::StdErr { message })) => stderr.push(&message, order.output_cap),
                Some(Ok(piece)) => stdout.push(&piece.into_bytes(), order.output_cap),
                Some(Err(error)) => return Err(error.into()),
                None => {
                    ended = exit(engine, &id, deadline).await?;
                    break;
                }
            },
        }
    }
    if let Some(found) = &mut ended
        && found.exit_code.is_none()
    {
        *found = exit(engine, &id, Instant::now() + DRAIN)
            .await?
            .ok_or_else(|| Trouble::Refused("an exec has no exit code".to_owned()))?;
    }
    Ok(Ran {
        code: ended.and_then(|found| found.exit_code),
        stdout,
        stderr,
        wall: begin.elapsed(),
    })
}

/// Waits for the exit code, which comes a little after the end of the streams; `None`
/// at the deadline.
pub(super) async fn exit(
    engine: &Engine,
    id: &str,
    deadline: Instant,
) -> Result<Option<ExecInspectResponse>, Trouble> {
    let mut pause = Duration::from_millis(2);
    loop {
        let found = engine
            .call("look at an exec", engine.docker.inspect_exec(id))
            .await?;
        if found.running == Some(false) && found.exit_code.is_some() {
            return Ok(Some(found));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    /// The words around a command, with a note of our own and without the last blow.
    fn shell(argv: &[&str]) -> (Option<i32>, String, String) {
        shell_of("/bin/sh", argv)
    }

    fn shell_of(program: &str, argv: &[&str]) -> (Option<i32>, String, String) {
        let directory = tempfile::tempdir().unwrap();
        let note = directory.path().join("note");
        let argv: Vec<String> = argv.iter().map(|s| (*s).to_owned()).collect();
        let words: Vec<String> = around(&argv, None)
            .into_iter()
            .map(|word| word.replace(&format!("{NOTES}/note"), &note.to_string_lossy()))
            .map(|word| word.replace("kill -9 -1", ":"))
            .collect();
        let out = Command::new(program)
            .args(&words[1..])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let note = std::fs::read_to_string(note).unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (
            out.status.code(),
            note,
            text(out.stdout) + &text(out.stderr),
        )
    }

    #[test]
    fn words_that_no_kernel_takes_are_known() {
        let words = |length, count| vec!["x".repeat(length); count];
        assert!(!is_too_long(&words(100_000, 10), &words(100, 10)));
        assert!(is_too_long(&words(200_000, 1), &[]) && is_too_long(&[], &words(200_000, 1)));
        assert!(is_too_long(&words(1000, 3000), &[]));
        let kernel = Command::new("true").args(words(WORD + 1, 1)).status();
        assert_eq!(kernel.unwrap_err().raw_os_error(), Some(libc::E2BIG));
        assert!(Command::new("true").args(words(WORD, 1)).status().is_ok());
    }

    #[test]
    fn an_exit_code_is_told_from_a_signal() {
        let run = |script| shell(&["sh", "-c", script]);
        assert_eq!(
            run("echo a.b; echo c >&2; exit 3"),
            (Some(3), String::new(), "a.b\nc\n".into())
        );
        assert_eq!(run("exit 137"), (Some(137), "exit\n".into(), String::new()));
        assert_eq!(
            run("kill -9 $$"),
            (Some(137), "Killed\n".into(), String::new())
        );
        assert_eq!(run("kill -15 $$").1, "Terminated\n");
        // An image's `/bin/sh` may be another one.
        let bash = |script| shell_of("bash", &["sh", "-c", script]);
        assert_eq!(bash("exit 137").1, "exit\n");
        assert!(bash("kill -9 $$").1.contains("Killed"));
        let missing = shell(&["no-such-program"]);
        assert_eq!(missing.0, Some(127));
        assert!(missing.2.contains("no-such-program"), "{missing:?}");
        let word = "x".repeat(100_000);
        let many = shell(&[&["sh", "-c", "echo $#", "sh"][..], &[word.as_str(); 10]].concat());
        assert_eq!(many.2, "10\n");
        assert_eq!(
            shell(&["exit", "3"]).0,
            Some(127),
            "no program of that name"
        );
    }
}
