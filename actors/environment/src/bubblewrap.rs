//! The words of bubblewrap's command line. Pure: what a sandbox can see is decided here,
//! also where the helper carries them out itself ([`crate::starter`]).
//!
//! Inside are: the system's `/usr`, the interpreter at its own path without the host's
//! packages, the environment's packages at `/venv`, the repository (writable) at
//! `/testbed`, a private `/tmp`, nothing else. No network but `lo`, no other process, no
//! file of the host's users, no package cache.

use crate::starter::Starter;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Where the repository is inside.
pub const TESTBED: &str = "/testbed";
/// Where the environment's packages are inside.
pub const VENV: &str = "/venv";
/// Home directory inside.
pub const HOME: &str = "/tmp/home";
/// Where the helper is inside.
const HELPER: &str = "/run/gametape-sandbox";

/// What of the host is the same for every sandbox.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Host {
    /// Who makes the namespaces and the mounts.
    pub starter: Starter,
    /// Whether this process is root: commands then run under a uid of the host's, else
    /// in a user namespace.
    pub root: bool,
    /// `/bin`, `/lib`… as this system has them: links into `/usr` or directories.
    pub links: Vec<(String, Option<PathBuf>)>,
    /// Directories below `/usr` with packages for the host's interpreters: hidden.
    pub packages: Vec<PathBuf>,
}

impl Host {
    /// Looks at this machine.
    pub fn read(starter: Starter) -> Self {
        let links = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"]
            .into_iter()
            .map(|name| format!("/{name}"))
            .filter(|path| Path::new(path).exists())
            .map(|path| {
                let target = std::fs::read_link(&path).ok();
                (path, target)
            })
            .collect();
        Self {
            starter,
            root: nix::unistd::geteuid().is_root(),
            links,
            packages: host_packages(),
        }
    }
}

/// `site-packages` and `dist-packages` of interpreters below `/usr`.
fn host_packages() -> Vec<PathBuf> {
    let mut out = Vec::new();
    for lib in ["/usr/lib", "/usr/local/lib"] {
        for entry in std::fs::read_dir(lib).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with("python") {
                for name in ["site-packages", "dist-packages"] {
                    let path = entry.path().join(name);
                    if path.is_dir() {
                        out.push(path);
                    }
                }
            }
        }
    }
    out.sort_unstable();
    out
}

/// What one sandbox sees beside the host's common parts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct View {
    /// `sys.base_prefix` of the environment's interpreter.
    pub base_prefix: PathBuf,
    /// Its own packages: hidden.
    pub base_site_packages: Vec<PathBuf>,
    /// The environment's packages.
    pub venv: PathBuf,
    /// The helper program on the host.
    pub helper: PathBuf,
    /// The sandbox's private directory, with `repo`, `tmp` and `etc` in it.
    pub private: PathBuf,
    /// For lists of processes.
    pub label: String,
}

/// Namespaces and privileges.
fn walls(host: &Host, words: &mut Words) {
    words.all(&[
        "--unshare-pid",
        "--unshare-net",
        "--unshare-ipc",
        "--unshare-uts",
    ]);
    words.all(&["--unshare-cgroup-try", "--hostname", "sandbox"]);
    // The helper is process 1: its end is the end of everything inside.
    words.all(&["--as-pid-1", "--die-with-parent", "--new-session"]);
    if host.root {
        // No user namespace: inside one, uid 0 of the host would stay uid 0 of the host
        // for files and limits. The helper needs just enough to become somebody else.
        words.all(&[
            "--cap-drop",
            "ALL",
            "--cap-add",
            "CAP_SETUID",
            "--cap-add",
            "CAP_SETGID",
            // To kill what a command leaves running.
            "--cap-add",
            "CAP_KILL",
        ]);
    } else {
        words.all(&["--unshare-user", "--uid", "1000", "--gid", "1000"]);
        if host.starter.is_as_new_as((0, 8)) {
            words.all(&["--disable-userns"]);
        }
    }
}

/// The system: its programs and libraries.
fn system(host: &Host, words: &mut Words) {
    words.all(&["--ro-bind", "/usr", "/usr"]);
    for (path, target) in &host.links {
        match target {
            Some(target) => words.paths("--symlink", target, Path::new(path)),
            None => words.paths("--ro-bind", Path::new(path), Path::new(path)),
        }
    }
}

/// The words of a sandbox with nothing of ours in it but the helper: for a trial.
pub fn trial(host: &Host, helper: &Path) -> Vec<OsString> {
    let mut words = Words(Vec::with_capacity(64));
    walls(host, &mut words);
    system(host, &mut words);
    words.paths("--ro-bind", helper, Path::new(HELPER));
    words.all(&["--proc", "/proc", "--dev", "/dev", "--chdir", "/"]);
    words.all(&["--", HELPER, "trial"]);
    words.0
}

/// The whole command line after `bwrap`.
pub fn arguments(host: &Host, view: &View) -> Vec<OsString> {
    let mut words = Words(Vec::with_capacity(96));
    walls(host, &mut words);
    system(host, &mut words);
    // bubblewrap makes missing parents for their owner alone; ours is another uid.
    for path in ["/etc", "/run"] {
        words.all(&["--perms", "0755", "--dir", path]);
    }
    for path in ["/etc/ld.so.cache", "/etc/alternatives"] {
        words.all(&["--ro-bind-try", path, path]);
    }
    for name in ["passwd", "group", "hosts", "nsswitch.conf"] {
        let inside = Path::new("/etc").join(name);
        words.paths("--ro-bind", &view.private.join("etc").join(name), &inside);
    }
    if !view.base_prefix.starts_with("/usr") {
        let mut parents: Vec<&Path> = view.base_prefix.ancestors().skip(1).collect();
        parents.pop();
        for parent in parents.into_iter().rev() {
            words.all(&["--perms", "0755"]);
            words.one("--dir", parent);
        }
        words.paths("--ro-bind", &view.base_prefix, &view.base_prefix);
    }
    let mut hidden: Vec<&PathBuf> = view.base_site_packages.iter().collect();
    hidden.extend(&host.packages);
    hidden.sort_unstable();
    hidden.dedup();
    for path in hidden {
        words.one("--tmpfs", path);
        words.one("--remount-ro", path);
    }
    words.paths("--ro-bind", &view.venv, Path::new(VENV));
    words.paths("--ro-bind", &view.helper, Path::new(HELPER));
    words.all(&["--proc", "/proc", "--dev", "/dev"]);
    words.all(&["--perms", "1777"]);
    if host.starter.is_as_new_as((0, 7)) {
        words.all(&["--size", "67108864"]);
    }
    words.all(&["--tmpfs", "/dev/shm"]);
    words.paths("--bind", &view.private.join("tmp"), Path::new("/tmp"));
    words.paths("--bind", &view.private.join("repo"), Path::new(TESTBED));
    words.all(&["--chdir", "/", "--", HELPER]);
    words.0.push(OsString::from(&view.label));
    words.0
}

struct Words(Vec<OsString>);

impl Words {
    fn all(&mut self, words: &[&str]) {
        self.0.extend(words.iter().map(OsString::from));
    }
    fn one(&mut self, option: &str, path: &Path) {
        self.0.push(option.into());
        self.0.push(path.into());
    }
    fn paths(&mut self, option: &str, from: &Path, to: &Path) {
        self.one(option, from);
        self.0.push(to.into());
    }
}

/// The environment of every command; what the caller adds comes after and wins.
pub fn environment(source_root: &str) -> Vec<(String, String)> {
    let python_path = match source_root.trim_end_matches('/') {
        "" | "." => TESTBED.to_owned(),
        other => format!("{TESTBED}/{other}"),
    };
    [
        ("PATH", format!("{VENV}/bin:/usr/local/bin:/usr/bin:/bin")),
        ("HOME", HOME.to_owned()),
        ("USER", "agent".to_owned()),
        ("LOGNAME", "agent".to_owned()),
        ("SHELL", "/bin/sh".to_owned()),
        ("TERM", "dumb".to_owned()),
        ("LANG", "C.UTF-8".to_owned()),
        ("LC_ALL", "C.UTF-8".to_owned()),
        ("TZ", "UTC".to_owned()),
        ("VIRTUAL_ENV", VENV.to_owned()),
        ("PYTHONPATH", python_path),
        ("PYTHONDONTWRITEBYTECODE", "1".to_owned()),
        ("PYTHONHASHSEED", "0".to_owned()),
        ("PYTHONNOUSERSITE", "1".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(root: bool) -> String {
        let host = Host {
            starter: Starter::Bubblewrap {
                program: "/usr/bin/bwrap".into(),
                version: (0, 8),
            },
            root,
            links: vec![
                ("/bin".into(), Some("usr/bin".into())),
                ("/lib".into(), None),
            ],
            packages: vec!["/usr/lib/python3/dist-packages".into()],
        };
        let view = View {
            base_prefix: "/opt/py".into(),
            base_site_packages: vec!["/opt/py/lib/python3.11/site-packages".into()],
            venv: "/c/venv".into(),
            helper: "/b/helper".into(),
            private: "/s/1".into(),
            label: "attempt/x".into(),
        };
        let words = arguments(&host, &view);
        words
            .iter()
            .map(|w| w.to_string_lossy().into_owned())
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn what_is_visible_is_what_is_named() {
        let root = line(true);
        assert!(
            root.contains("--symlink usr/bin /bin --ro-bind /lib /lib"),
            "{root}"
        );
        assert!(root.contains("--ro-bind /opt/py /opt/py"), "{root}");
        assert!(
            root.contains("--tmpfs /opt/py/lib/python3.11/site-packages"),
            "{root}"
        );
        assert!(
            root.contains("--tmpfs /usr/lib/python3/dist-packages"),
            "{root}"
        );
        assert!(root.contains("--bind /s/1/repo /testbed"), "{root}");
        assert!(
            root.contains("--cap-drop ALL") && !root.contains("--unshare-user"),
            "{root}"
        );
        assert!(!root.contains("--ro-bind / /"), "{root}");
        let user = line(false);
        assert!(user.contains("--unshare-user --uid 1000") && user.contains("--disable-userns"));
        assert!(!user.contains("--cap-add"), "{user}");
    }

    #[test]
    fn the_source_root_goes_on_the_path() {
        let path = |root: &str| {
            let found = environment(root)
                .into_iter()
                .find(|(name, _)| name == "PYTHONPATH");
            found.unwrap().1
        };
        assert_eq!(path("."), "/testbed");
        assert_eq!(path("src/"), "/testbed/src");
    }
}
