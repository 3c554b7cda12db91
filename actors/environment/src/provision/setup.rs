//! A recipe's own commands, run once with the network on: they see the repository and the
//! packages where sandboxes see them, and of the host its programs and nothing else.
//!
//! They come from outside with a task, so they never run as whoever runs us: bubblewrap
//! gives them a user namespace, files of their own, and an end.

use super::Job;
use super::refused::{Refused, is_the_machines_fault, is_the_networks_fault};
use super::venv::{Stumble, logged};
use crate::bubblewrap::{self, HOME, Host, TESTBED, VENV};
use crate::failure;
use crate::probe::on_path;
use crate::starter::Starter;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How long one command may take.
const LIMIT: Duration = Duration::from_secs(3600);
/// What of `/etc` names hosts and trust, and is shown.
const ETC: [&str; 10] = [
    "alternatives",
    "ca-certificates",
    "hosts",
    "ld.so.cache",
    "nsswitch.conf",
    "pip.conf",
    "pki",
    "resolv.conf",
    "services",
    "ssl",
];
/// Variables that lead to the network or to trust; those of files are shown, too.
const PASSED: [&str; 12] = [
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "PIP_CERT",
    "PIP_CONFIG_FILE",
    "PIP_EXTRA_INDEX_URL",
    "PIP_INDEX_URL",
    "PIP_TRUSTED_HOST",
    "SSL_CERT_FILE",
];

/// Runs them in their order, in the repository.
pub(super) fn run(job: &Job<'_>, repository: &Path) -> Result<(), Refused> {
    if job.recipe.setup.is_empty() {
        return Ok(());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let Some(program) = on_path("bwrap", &path) else {
        let why = "its setup commands need bubblewrap, which is not on the PATH (Debian: \
                   apt-get install bubblewrap)";
        return Err(job.failure(why).into());
    };
    let io = |e: std::io::Error| failure::disk(&job.half, &e);
    let etc = job.half.join("setup");
    std::fs::create_dir(&etc).map_err(io)?;
    for (name, text) in [
        ("passwd", format!("setup:x:1000:1000::{HOME}:/bin/sh\n")),
        ("group", "setup:x:1000:\n".to_owned()),
    ] {
        std::fs::write(etc.join(name), text).map_err(io)?;
    }
    let host = Host::read(Starter::Bubblewrap {
        program: program.clone(),
        version: (0, 5),
    });
    let walls = walls(job, &host, &etc, repository);
    for line in &job.recipe.setup {
        let mut command = Command::new(&program);
        command.args(&walls).args(["--", "/bin/sh", "-c", line]);
        command.env_clear().env("PATH", &path);
        logged(job, line, command, Some(LIMIT)).map_err(lasting)?;
    }
    std::fs::remove_dir_all(&etc).map_err(io)?;
    Ok(())
}

/// What a command said by itself comes again, unless the network or the machine said it.
fn lasting(stumble: Stumble) -> Refused {
    stumble.lasting(|said| !is_the_machines_fault(said) && !is_the_networks_fault(said))
}

/// What they see. Pure but for the environment's variables.
fn walls(job: &Job<'_>, host: &Host, etc: &Path, repository: &Path) -> Vec<OsString> {
    let mut words: Vec<OsString> = Vec::new();
    let mut all = |more: &[&str]| words.extend(more.iter().map(OsString::from));
    all(&["--unshare-user", "--uid", "1000", "--gid", "1000"]);
    all(&["--unshare-pid", "--unshare-ipc", "--unshare-uts"]);
    all(&["--unshare-cgroup-try", "--hostname", "setup"]);
    all(&["--die-with-parent", "--new-session", "--cap-drop", "ALL"]);
    all(&["--ro-bind", "/usr", "/usr", "--dir", "/etc"]);
    let mut bind = |how: &str, from: &Path, to: &Path| {
        words.extend([how.into(), from.into(), to.into()]);
    };
    for (path, target) in &host.links {
        match target {
            Some(target) => bind("--symlink", target, Path::new(path)),
            None => bind("--ro-bind", Path::new(path), Path::new(path)),
        }
    }
    for name in ETC {
        let path = Path::new("/etc").join(name);
        bind("--ro-bind-try", &path, &path);
    }
    for name in ["passwd", "group"] {
        bind("--ro-bind", &etc.join(name), &Path::new("/etc").join(name));
    }
    let prefix = &job.interpreter.base_prefix;
    if !prefix.starts_with("/usr") {
        bind("--ro-bind", prefix, prefix);
    }
    bind("--bind", &job.half.join("venv"), Path::new(VENV));
    bind("--bind", repository, Path::new(TESTBED));
    words.extend(["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"].map(OsString::from));
    words.extend(["--dir", HOME, "--chdir", TESTBED, "--clearenv"].map(OsString::from));
    let mut set = |name: &str, value: &std::ffi::OsStr| {
        words.extend(["--setenv".into(), name.into(), value.into()]);
    };
    for (name, value) in bubblewrap::environment(".") {
        // Builds import what they build; what they find first must be installed.
        if name != "PYTHONPATH" {
            set(&name, value.as_ref());
        }
    }
    let mut shown: Vec<PathBuf> = Vec::new();
    for name in PASSED {
        if let Some(value) = std::env::var_os(name) {
            set(name, &value);
            shown.extend(Some(PathBuf::from(value)).filter(|path| path.is_absolute()));
        }
    }
    for path in shown {
        words.extend(["--ro-bind-try".into(), (&path).into(), path.into()]);
    }
    // The user's own settings of pip: which index there is.
    if let Some(home) = std::env::var_os("HOME") {
        for name in [".config/pip/pip.conf", ".pip/pip.conf"] {
            let path = Path::new(&home).join(name);
            let inside = Path::new(HOME).join(name);
            words.extend(["--ro-bind-try".into(), path.into(), inside.into()]);
        }
    }
    words
}
