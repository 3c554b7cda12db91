//! The local back end: one private directory per sandbox, one bubblewrap per command.
//!
//! Inside are: the repository (writable, at `/testbed`), the environment's Python and
//! packages, the system's `/usr`, a private `/tmp`; no network, no other process, no
//! file of the host's users. The command runs under a uid of its own (as root) or in a
//! user namespace (otherwise). Killing bubblewrap kills everything inside.

use crate::diff::{self, Files};
use crate::provision::Prepared;
use crate::{patch, tree};
use gametape_schemas::message::{Exec, ExecOutcome, PatchApplied};
use gametape_schemas::{Failure, FailureKind};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

/// Limits of every command.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Processes and threads.
    pub processes: u64,
    /// Largest file, MiB.
    pub file_mib: u64,
    /// Address space of a process, MiB.
    pub memory_mib: u64,
    /// CPU seconds of a process.
    pub cpu_s: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            processes: 128,
            file_mib: 256,
            memory_mib: 4096,
            cpu_s: 600,
        }
    }
}

/// An open sandbox.
#[derive(Debug)]
pub struct Sandbox {
    prepared: Prepared,
    private: PathBuf,
    helper: PathBuf,
    /// The host uid that commands run under; `None` when we are not root.
    owner: Option<u32>,
    limits: Limits,
    /// Files whose base state is not the environment's: patched (content) or hidden (none).
    overrides: std::collections::BTreeMap<String, Option<Vec<u8>>>,
}

/// What opening needs.
pub struct OpenPlan<'a> {
    /// The environment.
    pub prepared: Prepared,
    /// A new directory, for this sandbox alone.
    pub private: PathBuf,
    /// The helper program on the host.
    pub helper: PathBuf,
    /// Distinguishes the sandboxes of this process.
    pub number: u64,
    /// Limits of its commands.
    pub limits: Limits,
    /// Applied first, strictly.
    pub patches: &'a [String],
    /// Removed after the patches.
    pub hidden: &'a [String],
}

/// First of the uids that sandboxes run under when we are root: each open sandbox has
/// its own, so that process limits are not shared and files of one are closed to others.
const FIRST_UID: u32 = 1_700_000_000;

fn uid_of(process: u32, number: u64) -> u32 {
    FIRST_UID + (process % 20_000) * 1_000 + (number % 1_000) as u32
}

impl Sandbox {
    /// Opens. Blocks: copies a small tree.
    ///
    /// # Errors
    /// `GT-SANDBOX-OPEN`, `GT-SANDBOX-BASE` when a patch of the base state does not apply.
    pub fn open(plan: OpenPlan<'_>) -> Result<Self, Failure> {
        let owner = nix::unistd::geteuid()
            .is_root()
            .then(|| uid_of(std::process::id(), plan.number));
        let private = plan.private;
        let failed = |e: io::Error| open_failure(&private, &e);
        let repository = private.join("repo");
        std::fs::create_dir_all(&private).map_err(failed)?;
        let mut overrides = std::collections::BTreeMap::new();
        // Copied as ours, patched, and only then given away.
        tree::copy(&plan.prepared.repository(), &repository, None).map_err(failed)?;
        for text in plan.patches {
            match patch::apply(&repository, text).map_err(failed)? {
                PatchApplied::Applied => {}
                PatchApplied::Rejected(reason) => {
                    return Err(Failure::new(
                        FailureKind::Internal,
                        "GT-SANDBOX-BASE",
                        format!("the task's own patch does not apply to its environment: {reason}"),
                    )
                    .with_help("the task and the environment do not belong together: forge again"));
                }
            }
            for path in patch::paths(text) {
                let content = std::fs::read(repository.join(&path)).ok();
                overrides.insert(path, content);
            }
        }
        for path in plan.hidden {
            match std::fs::remove_file(repository.join(path)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
                _ => {}
            }
            overrides.insert(path.clone(), None);
        }
        let tmp = private.join("tmp");
        std::fs::create_dir_all(tmp.join("home")).map_err(failed)?;
        std::fs::write(
            private.join("passwd"),
            "root:x:0:0::/:/bin/sh\nagent:x:1000:1000::/tmp/home:/bin/sh\n",
        )
        .map_err(failed)?;
        let sandbox = Self {
            prepared: plan.prepared,
            private: private.clone(),
            helper: plan.helper,
            owner,
            limits: plan.limits,
            overrides,
        };
        if let Some(id) = owner {
            for root in [&repository, &tmp] {
                for entry in walkdir::WalkDir::new(root) {
                    let entry = entry.map_err(|e| failed(e.into()))?;
                    std::os::unix::fs::lchown(entry.path(), Some(id), Some(id)).map_err(failed)?;
                }
            }
        }
        Ok(sandbox)
    }

    /// The repository on the host.
    pub fn repository(&self) -> PathBuf {
        self.private.join("repo")
    }

    /// The uid that its files belong to.
    pub fn owner(&self) -> Option<u32> {
        self.owner
    }

    /// The agent's change against the base state.
    ///
    /// # Errors
    /// The file system's.
    pub fn diff(&self) -> io::Result<String> {
        let clean = self.prepared.repository();
        let mut base = Files::new();
        for name in tree::files(&clean)? {
            if !diff::is_by_product(&name) && !self.overrides.contains_key(&name) {
                let bytes = std::fs::read(clean.join(&name))?;
                base.insert(name, bytes);
            }
        }
        for (name, content) in &self.overrides {
            if let Some(bytes) = content {
                base.insert(name.clone(), bytes.clone());
            }
        }
        let repository = self.repository();
        let mut now = Files::new();
        for name in tree::files(&repository)? {
            if diff::is_by_product(&name) {
                continue;
            }
            let path = repository.join(&name);
            if std::fs::metadata(&path)?.len() <= diff::MAX_FILE {
                now.insert(name, std::fs::read(path)?);
            }
        }
        // A hidden file that reappeared is the agent's own.
        Ok(diff::unified(&base, &now))
    }

    /// Applies a diff. Only for trees that no agent's process has touched.
    ///
    /// # Errors
    /// When git cannot be run.
    pub fn apply(&self, text: &str) -> io::Result<PatchApplied> {
        let answer = patch::apply(&self.repository(), text)?;
        if let (PatchApplied::Applied, Some(id)) = (&answer, self.owner) {
            for path in patch::paths(text) {
                let path = self.repository().join(path);
                match std::os::unix::fs::lchown(&path, Some(id), Some(id)) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                    _ => {}
                }
            }
        }
        Ok(answer)
    }

    /// Runs a command to its end or to its limit.
    ///
    /// # Errors
    /// `GT-SANDBOX-EXEC` when the sandbox itself did not come up: the command never ran.
    pub async fn exec(&self, request: &Exec) -> Result<ExecOutcome, Failure> {
        let started = Instant::now();
        let failed = |e: io::Error| exec_failure(&e.to_string());
        let (ready_read, ready_write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)
            .map_err(|e| failed(e.into()))?;
        let mut command = self.command(request, &ready_write);
        let mut child = command.spawn().map_err(failed)?;
        drop(command);
        drop(ready_write);
        let stdin = child.stdin.take();
        let input = request.stdin.clone();
        let feed = async move {
            if let (Some(mut stdin), Some(input)) = (stdin, input) {
                // A command that does not read its input is free to.
                let _ = stdin.write_all(&input).await;
            }
        };
        let out = drain(child.stdout.take(), request.output_cap);
        let err = drain(child.stderr.take(), request.output_cap);
        let whole = async { tokio::join!(feed, out, err, child.wait()) };
        let limit = Duration::from_millis(request.timeout_ms);
        let ended = tokio::time::timeout(limit, whole).await;
        let (stdout, stderr, status) = match ended {
            Ok(((), stdout, stderr, status)) => (stdout, stderr, Some(status.map_err(failed)?)),
            Err(_) => {
                // SIGKILL to bubblewrap ends its pid namespace and all that is in it.
                let _ = child.start_kill();
                child.wait().await.map_err(failed)?;
                (Capture::default(), Capture::default(), None)
            }
        };
        let ready = tokio::task::spawn_blocking(move || came_up(&ready_read))
            .await
            .unwrap_or(false);
        let wall_ms = started.elapsed().as_millis() as u64;
        if !ready && status.is_some() {
            let said: String = stderr.text().chars().take(400).collect();
            return Err(exec_failure(said.trim()));
        }
        let exit_code = status.and_then(|s| s.code());
        Ok(ExecOutcome {
            // bubblewrap reports death by signal n as 128 + n.
            exit_code: exit_code.filter(|code| *code < 128),
            timed_out: status.is_none(),
            truncated_bytes: stdout.dropped + stderr.dropped,
            stdout: stdout.text(),
            stderr: stderr.text(),
            wall_ms,
        })
    }

    fn command(&self, request: &Exec, ready: &OwnedFd) -> Command {
        let mut command = Command::new("bwrap");
        command.env_clear().kill_on_drop(true);
        // bubblewrap itself is found on our own PATH.
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        let args = |command: &mut Command, words: &[&str]| {
            command.args(words);
        };
        args(&mut command, &["--unshare-pid", "--unshare-net", "--unshare-ipc"]);
        args(&mut command, &["--unshare-uts", "--unshare-cgroup-try"]);
        args(&mut command, &["--hostname", "sandbox", "--die-with-parent", "--new-session"]);
        if self.owner.is_none() {
            args(&mut command, &["--unshare-user", "--uid", "1000", "--gid", "1000"]);
        }
        args(&mut command, &["--ro-bind", "/usr", "/usr"]);
        for name in ["bin", "sbin", "lib", "lib32", "lib64"] {
            let path = format!("/{name}");
            match std::fs::read_link(&path) {
                Ok(target) => {
                    command.arg("--symlink").arg(target).arg(&path);
                }
                Err(_) => args(&mut command, &["--ro-bind-try", &path, &path]),
            }
        }
        args(&mut command, &["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]);
        args(&mut command, &["--ro-bind-try", "/etc/alternatives", "/etc/alternatives"]);
        command.arg("--ro-bind").arg(self.private.join("passwd")).arg("/etc/passwd");
        let interpreter = &self.prepared.manifest.interpreter;
        if !interpreter.base_prefix.starts_with("/usr") {
            let prefix = &interpreter.base_prefix;
            // bubblewrap makes missing parents for their owner alone; ours is another uid.
            let mut parents: Vec<&Path> = prefix.ancestors().skip(1).collect();
            parents.pop();
            for parent in parents.into_iter().rev() {
                args(&mut command, &["--perms", "0755"]);
                command.arg("--dir").arg(parent);
            }
            command.arg("--ro-bind").arg(prefix).arg(prefix);
        }
        for path in &interpreter.base_site_packages {
            command.arg("--tmpfs").arg(path);
        }
        command.arg("--ro-bind").arg(self.prepared.venv()).arg("/venv");
        command.arg("--ro-bind").arg(&self.helper).arg("/sandbox-helper");
        args(&mut command, &["--proc", "/proc", "--dev", "/dev"]);
        command.arg("--bind").arg(self.private.join("tmp")).arg("/tmp");
        command.arg("--bind").arg(self.repository()).arg("/testbed");
        args(&mut command, &["--chdir", "/testbed", "--clearenv"]);
        let source_root = &self.prepared.manifest.recipe.source_root;
        let python_path = match source_root.as_str() {
            "." | "" => "/testbed".to_owned(),
            other => format!("/testbed/{other}"),
        };
        for (name, value) in [
            ("PATH", "/venv/bin:/usr/local/bin:/usr/bin:/bin"),
            ("HOME", "/tmp/home"),
            ("LANG", "C.UTF-8"),
            ("TZ", "UTC"),
            ("PYTHONPATH", &python_path),
            ("PYTHONDONTWRITEBYTECODE", "1"),
            ("PYTHONHASHSEED", "0"),
        ] {
            args(&mut command, &["--setenv", name, value]);
        }
        for (name, value) in &request.env {
            args(&mut command, &["--setenv", name, value]);
        }
        let raw = ready.as_raw_fd();
        args(&mut command, &["--", "/sandbox-helper", &raw.to_string()]);
        let uid = self.owner.map_or("-".to_owned(), |id| id.to_string());
        let Limits {
            processes,
            file_mib,
            memory_mib,
            cpu_s,
        } = self.limits;
        args(&mut command, &[&uid, &processes.to_string(), &file_mib.to_string()]);
        args(&mut command, &[&memory_mib.to_string(), &cpu_s.to_string(), "--"]);
        command.args(&request.argv);
        command
            .stdin(match request.stdin {
                Some(_) => Stdio::piped(),
                None => Stdio::null(),
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // SAFETY: fcntl is async-signal-safe; the descriptor is open in the child until exec.
        unsafe {
            command.pre_exec(move || {
                if libc::fcntl(raw, libc::F_SETFD, 0) == -1 {
                    return Err(io::Error::last_os_error());
                }
                Ok(())
            });
        }
        command
    }

    /// Removes the private directory.
    ///
    /// # Errors
    /// The file system's.
    pub fn remove(&self) -> io::Result<()> {
        remove(&self.private)
    }
}

/// Removes a private directory, which may hold directories without write permission.
///
/// # Errors
/// The file system's.
pub fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(_) => {
            for entry in walkdir::WalkDir::new(path).into_iter().flatten() {
                if entry.file_type().is_dir() {
                    let open = std::os::unix::fs::PermissionsExt::from_mode(0o700);
                    // The second removal says what is really wrong.
                    let _ = std::fs::set_permissions(entry.path(), open);
                }
            }
            std::fs::remove_dir_all(path)
        }
    }
}

/// Whether the helper said that it is about to become the command.
fn came_up(ready: &OwnedFd) -> bool {
    let mut byte = [0u8; 1];
    loop {
        match nix::unistd::read(ready, &mut byte) {
            Err(nix::errno::Errno::EINTR) => {}
            Ok(1) => return true,
            _ => return false,
        }
    }
}

/// First and last bytes of a stream.
#[derive(Default)]
struct Capture {
    head: Vec<u8>,
    tail: std::collections::VecDeque<u8>,
    dropped: u64,
}

impl Capture {
    fn push(&mut self, bytes: &[u8], cap: usize) {
        let half = cap / 2;
        let room = (cap - half).saturating_sub(self.head.len()).min(bytes.len());
        let (first, rest) = bytes.split_at(room);
        self.head.extend_from_slice(first);
        self.tail.extend(rest);
        let excess = self.tail.len().saturating_sub(half);
        self.tail.drain(..excess);
        self.dropped += excess as u64;
    }

    fn text(&self) -> String {
        let (a, b) = self.tail.as_slices();
        let mut bytes = self.head.clone();
        if self.dropped > 0 {
            let note = format!("\n[... {} bytes left out ...]\n", self.dropped);
            bytes.extend_from_slice(note.as_bytes());
        }
        bytes.extend_from_slice(a);
        bytes.extend_from_slice(b);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// Reads a stream to its end, keeping what the cap allows: always drained, so that a
/// chatty command neither blocks nor fills the memory.
async fn drain(stream: Option<impl AsyncRead + Unpin>, cap: usize) -> Capture {
    let mut capture = Capture::default();
    let Some(mut stream) = stream else {
        return capture;
    };
    let mut buffer = vec![0; 16 << 10];
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return capture,
            Ok(n) => capture.push(buffer.get(..n).unwrap_or_default(), cap),
        }
    }
}

fn open_failure(path: &Path, error: &io::Error) -> Failure {
    let kind = if error.raw_os_error() == Some(libc::ENOSPC) {
        FailureKind::Disk
    } else {
        FailureKind::Sandbox
    };
    Failure::new(
        kind,
        "GT-SANDBOX-OPEN",
        format!("a sandbox cannot be opened in {}: {error}", path.display()),
    )
    .with_help("check the space and the permissions there; TMPDIR names another place")
}

fn exec_failure(why: &str) -> Failure {
    Failure::new(
        FailureKind::Sandbox,
        "GT-SANDBOX-EXEC",
        format!("a sandbox did not come up: {why}"),
    )
    .with_help("`gametape doctor` tells which layer of the sandbox is missing")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captures_keep_both_ends() {
        let mut capture = Capture::default();
        for n in 0..1000u32 {
            capture.push(format!("{n},").as_bytes(), 20);
        }
        let text = capture.text();
        assert!(text.starts_with("0,1,2,3,4,"), "{text}");
        assert!(text.ends_with("998,999,"), "{text}");
        assert!(text.contains("bytes left out"));
        let mut small = Capture::default();
        small.push(b"all of it", 20);
        assert_eq!((small.text().as_str(), small.dropped), ("all of it", 0));
    }
}
