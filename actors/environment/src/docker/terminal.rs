//! The terminal of a container's shell: the engine holds it, and tasks of ours carry its
//! bytes, so that neither side waits for the other.

use super::client::{self, Engine, Trouble};
use super::exec::{self, At};
use super::inside::{Inside, guard};
use super::spared::Spared;
use crate::shell::{Read, ShellError, Terminal, script};
use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use bollard::models::ExecInspectResponse;
use futures_util::StreamExt;
use gametape_schemas::Failure;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// Output that is held for a reader. More stays in the container until it is read.
const HELD: usize = 1 << 20;
/// What is handed on at once: what was not can be forgotten.
const PIECE: usize = 4 << 10;
/// How long the exit code may come after the end of the streams.
const CODE: Duration = Duration::from_secs(5);
/// Lines and keys as usual, but no echo, no flow control, no changed output.
const MODES: &str = "icrnl iutf8 -inlcr -igncr -istrip -ixon -ixoff -ixany -imaxbel -brkint \
     -inpck -parmrk -opost icanon isig -iexten -noflsh -echo -echoe -echok -echonl -echoctl -echoke";
/// The size that programs see: wide enough that tables are not folded.
const SIZE: &str = "rows 50 cols 160";
/// Keys that would part us from the terminal. The engine has to have some, and its usual
/// ones are keys that programs know.
const DETACH: &str = "ctrl-^,ctrl-_,ctrl-^,ctrl-_,ctrl-^,ctrl-_,ctrl-^,ctrl-_";

type Output = Pin<
    Box<
        dyn futures_util::Stream<
                Item = Result<bollard::container::LogOutput, bollard::errors::Error>,
            > + Send,
    >,
>;
type Typing = Pin<Box<dyn AsyncWrite + Send>>;

/// Bash on a terminal in a container.
#[derive(Debug)]
pub(super) struct ContainerTerminal {
    engine: Arc<Engine>,
    container: String,
    user: String,
    spared: Spared,
    /// Its path inside.
    path: String,
    streams: Arc<Streams>,
    tasks: [AbortHandle; 2],
    /// Ctrl-C was typed since the last command was.
    was_interrupted: bool,
}

/// What is on its way in both directions.
#[derive(Debug, Default)]
struct Streams {
    state: Mutex<OnTheWay>,
    came: Condvar,
    was_read: Notify,
    was_written: Notify,
}

#[derive(Debug, Default)]
struct OnTheWay {
    output: Vec<u8>,
    input: VecDeque<u8>,
    /// The exit code, once the shell has ended.
    ended: Option<Option<i32>>,
}

impl ContainerTerminal {
    /// Starts bash. Nothing of the agent's may run at this time: the first line that
    /// comes is taken for ours.
    ///
    /// # Errors
    /// The engine's; inside them, what the image lacks.
    pub async fn start(inside: &Inside) -> Result<Result<Self, ShellError>, Trouble> {
        let (engine, container) = (&inside.engine, &inside.container);
        let words = format!(
            "stty {SIZE} {MODES} || exit; echo \"$$ $(readlink /proc/self/fd/0)\"; exec {}",
            script::BASH.join(" ")
        );
        let env = inside.environment.iter();
        let options = CreateExecOptions {
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            tty: Some(true),
            detach_keys: Some(DETACH.to_owned()),
            env: Some(env.map(|(name, value)| format!("{name}={value}")).collect()),
            cmd: Some(vec!["/bin/sh".to_owned(), "-c".to_owned(), words]),
            user: Some(inside.user.clone()),
            working_dir: Some(inside.place.clone()),
            ..CreateExecOptions::default()
        };
        let created = engine.docker.create_exec(container, options);
        let id = engine.call("exec of a shell", created).await?.id;
        let options = StartExecOptions {
            detach: false,
            tty: true,
            output_capacity: None,
        };
        let started = engine.docker.start_exec(&id, Some(options));
        let StartExecResults::Attached { mut output, input } =
            engine.call("start of a shell", started).await?
        else {
            return Err(Trouble::Refused("an exec gave no streams".to_owned()));
        };
        let limit = engine.settings.call;
        let said = client::limited("first words of a shell", limit, first_line(&mut output));
        let said = said.await?;
        let found = number(engine, &id).await?;
        let Some((first, rest)) = split(&said).zip(found.pid.filter(|pid| *pid > 1)).map(
            |((session, path, rest), outside)| {
                let spared = Spared {
                    exec: id.clone(),
                    outside,
                    inside: session,
                };
                ((spared, path), rest)
            },
        ) else {
            return Ok(Err(refused(&found, &said)));
        };
        let streams = Arc::new(Streams::default());
        guard(&streams.state).output.extend_from_slice(rest);
        let hearing = hear(output, engine.clone(), id, streams.clone());
        let typing = type_in(input, streams.clone());
        Ok(Ok(Self {
            engine: engine.clone(),
            container: container.clone(),
            user: inside.user.clone(),
            spared: first.0,
            path: first.1,
            streams,
            tasks: [
                tokio::spawn(hearing).abort_handle(),
                tokio::spawn(typing).abort_handle(),
            ],
            was_interrupted: false,
        }))
    }

    /// The session that is its own.
    pub fn spared(&self) -> &Spared {
        &self.spared
    }

    /// Runs something of ours beside it; what it printed.
    fn beside(&self, words: &str) -> io::Result<String> {
        let at = At {
            engine: &self.engine,
            container: &self.container,
            user: &self.user,
        };
        let ran = client::wait(exec::script(at, words));
        let ran = ran.and_then(|ran| ran.map_err(Failure::from));
        Ok(ran.map_err(io::Error::other)?.stdout.text())
    }
}

/// Waits until the engine has given the shell its number, or says that it has ended: its
/// first words may be here before.
async fn number(engine: &Engine, id: &str) -> Result<ExecInspectResponse, Trouble> {
    let mut pause = Duration::from_millis(2);
    let deadline = Instant::now() + engine.settings.call;
    loop {
        let found = engine.call("look at a shell", engine.docker.inspect_exec(id));
        let found = found.await?;
        let has_ended = found.running == Some(false) && found.exit_code.is_some();
        if has_ended || found.pid.is_some_and(|pid| pid > 1) || Instant::now() >= deadline {
            return Ok(found);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(CODE / 50);
    }
}

/// What comes up to the end of the first line; all, when the stream ends before.
async fn first_line(output: &mut Output) -> Result<Vec<u8>, Trouble> {
    let mut said = Vec::new();
    while !said.contains(&b'\n') && said.len() < PIECE {
        let Some(piece) = output.next().await else {
            break;
        };
        said.extend_from_slice(&piece?.into_bytes());
    }
    Ok(said)
}

/// The first line: the number of the session and the terminal's path; and what follows.
fn split(said: &[u8]) -> Option<(u32, String, &[u8])> {
    let end = said.iter().position(|byte| *byte == b'\n')?;
    let line = std::str::from_utf8(said.get(..end)?).ok()?;
    let (session, path) = line.split_once(' ')?;
    let number = path.strip_prefix("/dev/pts/")?;
    number.parse::<u32>().ok()?;
    let session = session.parse().ok().filter(|session| *session > 1)?;
    Some((session, path.to_owned(), said.get(end + 1..)?))
}

fn refused(found: &ExecInspectResponse, said: &[u8]) -> ShellError {
    ShellError::Start {
        note: match found.exit_code {
            Some(code) => format!("It ended with code {code}."),
            None => "It has no number.".to_owned(),
        },
        said: String::from_utf8_lossy(said)
            .trim()
            .chars()
            .take(400)
            .collect(),
    }
}

async fn hear(mut output: Output, engine: Arc<Engine>, id: String, streams: Arc<Streams>) {
    // An engine that breaks the stream off is the end, too.
    while let Some(Ok(piece)) = output.next().await {
        let held = {
            let mut state = guard(&streams.state);
            state.output.extend_from_slice(&piece.into_bytes());
            state.output.len()
        };
        streams.came.notify_all();
        if held > HELD {
            streams.was_read.notified().await;
        }
    }
    let found = exec::exit(&engine, &id, Instant::now() + CODE).await;
    let code = found.ok().flatten().and_then(|found| found.exit_code);
    // Beyond 128 it may have been a signal: nobody knows.
    let code = code.and_then(|code| i32::try_from(code).ok());
    guard(&streams.state).ended = Some(code.filter(|code| *code <= 128));
    streams.came.notify_all();
}

async fn type_in(mut input: Typing, streams: Arc<Streams>) {
    loop {
        let piece: Vec<u8> = {
            let mut state = guard(&streams.state);
            let count = state.input.len().min(PIECE);
            state.input.drain(..count).collect()
        };
        if piece.is_empty() {
            streams.was_written.notified().await;
            continue;
        }
        if input.write_all(&piece).await.is_err() || input.flush().await.is_err() {
            // The shell is gone: what is heard tells how.
            return;
        }
    }
}

impl Terminal for ContainerTerminal {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        guard(&self.streams.state).input.extend(bytes);
        self.streams.was_written.notify_one();
        Ok(())
    }

    fn read(&mut self, wait: Duration) -> io::Result<Read> {
        let state = guard(&self.streams.state);
        let nothing = |state: &mut OnTheWay| state.output.is_empty() && state.ended.is_none();
        let waited = self.streams.came.wait_timeout_while(state, wait, nothing);
        let (mut state, _) = waited.unwrap_or_else(std::sync::PoisonError::into_inner);
        if !state.output.is_empty() {
            self.streams.was_read.notify_one();
            return Ok(Read::Bytes(std::mem::take(&mut state.output)));
        }
        Ok(state.ended.map_or(Read::Quiet, Read::Closed))
    }

    fn interrupt(&mut self) -> io::Result<()> {
        guard(&self.streams.state).input.clear();
        // The key makes the terminal forget, too, what was typed and not read.
        self.write(&[3])?;
        if self.was_interrupted {
            // A program took the keys for itself, or reads nothing.
            self.beside(&self.spared.signal("INT", true))?;
        }
        self.was_interrupted = true;
        Ok(())
    }

    fn kill(&mut self) {
        // What is left is killed after the next command, or before the next shell.
        let _ = self.beside(&self.spared.kill());
    }

    fn kill_foreground(&mut self) -> io::Result<bool> {
        let said = self.beside(&self.spared.signal("KILL", false))?;
        Ok(said.trim() == "sent")
    }

    fn settle(&mut self) -> io::Result<()> {
        self.was_interrupted = false;
        // On a terminal that is gone this fails: reading tells the end.
        let _ = self.beside(&format!("exec stty -F {} {MODES}", self.path));
        Ok(())
    }
}

impl Drop for ContainerTerminal {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_tells_where_the_shell_is() {
        let found = split(b"17 /dev/pts/0\nbash: ").unwrap();
        assert_eq!(
            found,
            (17, "/dev/pts/0".to_owned(), b"bash: ".as_slice()),
            "what follows is the shell's"
        );
        for wrong in [
            "",
            "17 /dev/pts/0",
            "1 /dev/pts/0\n",
            "17 /dev/pts/0;x\n",
            "17 /dev/null\n",
            "sh: stty: not found\n",
        ] {
            assert!(split(wrong.as_bytes()).is_none(), "{wrong}");
        }
    }
}
