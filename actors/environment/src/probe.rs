//! Which layers of isolation this machine has: by trying, never by file names.

use crate::bubblewrap::Host;
use crate::ground::{self, Ground, Layers};
use crate::inside::Inside;
use crate::starter::{self, Choice, Starter};
use crate::warden::Warden;
use crate::{failure, helper_beside, packages};
use gametape_schemas::Failure;
use serde::Serialize;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

/// One layer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Layer {
    /// Its name.
    pub name: String,
    /// Whether it works here.
    pub active: bool,
    /// Whether sandboxes are refused without it.
    pub required: bool,
    /// What was found, or what to do.
    pub detail: String,
}

fn layer(name: &str, active: bool, required: bool, detail: impl Into<String>) -> Layer {
    Layer {
        name: name.to_owned(),
        active,
        required,
        detail: detail.into(),
    }
}

/// Oldest bubblewrap with all that is used.
const OLDEST: (u32, u32) = (0, 5);

/// Tries every layer. Takes some ten milliseconds; blocks.
pub fn probe() -> Vec<Layer> {
    survey(Choice::asked()).0
}

/// This machine, when sandboxes can be had on it.
///
/// # Errors
/// `GT-SANDBOX-UNAVAILABLE`, naming every required layer that is missing.
pub fn host() -> Result<Host, Failure> {
    found(Choice::asked())
}

/// The same with a starter of one's choice.
///
/// # Errors
/// As [`host`].
pub fn host_by(choice: Choice) -> Result<Host, Failure> {
    found(Ok(choice))
}

fn found(choice: Result<Choice, String>) -> Result<Host, Failure> {
    let (layers, host) = survey(choice);
    require(&layers)?;
    host.ok_or_else(|| failure::unavailable("nobody starts sandboxes here"))
}

fn survey(choice: Result<Choice, String>) -> (Vec<Layer>, Option<Host>) {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let (mut layers, host) = starters(choice, &path);
    layers.extend([uid(), landlock(), seccomp(), cgroup()]);
    (layers, host.map(with_packages))
}

/// Whose sandboxes work, the first that is wanted first. At least one must.
fn starters(choice: Result<Choice, String>, path: &OsStr) -> (Vec<Layer>, Option<Host>) {
    let name = "namespaces";
    let choice = match choice {
        Ok(choice) => choice,
        Err(why) => return (vec![layer(name, false, true, why)], None),
    };
    let mut refused = Vec::new();
    let mut layers = Vec::new();
    if choice != Choice::Bubblewrap {
        let host = Host::read(Starter::Namespaces);
        match by_helper(&host) {
            Ok(()) => {
                let detail = format!("{}, made by the helper", kinds(&host));
                layers.push(layer(name, true, true, detail));
                return (layers, Some(host));
            }
            Err(why) => refused.push(format!("by the helper: {why}")),
        }
    }
    if choice != Choice::Namespaces {
        let (bubblewrap, host) = bubblewrap(choice == Choice::Bubblewrap, path);
        let detail = bubblewrap.detail.clone();
        layers.push(bubblewrap);
        let tried = host.map(|host| by_bubblewrap(&host).map(|kinds| (host, kinds)));
        match tried {
            Some(Ok((host, kinds))) => {
                layers.push(layer(name, true, true, kinds));
                return (layers, Some(host));
            }
            Some(Err(why)) => refused.push(format!("by bubblewrap: {why}")),
            None if choice == Choice::Bubblewrap => {
                refused.push("cannot be tried without bubblewrap".to_owned());
            }
            None => refused.push(detail),
        }
    }
    let help = "on Ubuntu 24.04: sysctl kernel.apparmor_restrict_unprivileged_userns=0; \
                elsewhere: sysctl kernel.unprivileged_userns_clone=1; in a container: run \
                it with the permission to make namespaces";
    let detail = format!("refused: {} ({help})", refused.join("; "));
    layers.push(layer(name, false, true, detail));
    (layers, None)
}

fn bubblewrap(required: bool, path: &OsStr) -> (Layer, Option<Host>) {
    let name = "bubblewrap";
    let missing = |why: String| (layer(name, false, required, why), None);
    let Some(path) = on_path("bwrap", path) else {
        let help = "`bwrap` is not on the PATH: install the package bubblewrap \
                    (apt-get install bubblewrap)";
        return missing(help.to_owned());
    };
    let said = match Command::new(&path).arg("--version").output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        Err(error) => return missing(format!("{}: {error}", path.display())),
    };
    match version(&said) {
        Some(version) if version >= OLDEST => {
            let detail = format!("{said} ({})", path.display());
            let starter = Starter::Bubblewrap {
                program: path,
                version,
            };
            (
                layer(name, true, required, detail),
                Some(Host::read(starter)),
            )
        }
        _ => missing(format!("version 0.5 or newer is needed, this is: {said}")),
    }
}

/// Hides the packages of every interpreter below `/usr`, also of those that programs
/// bring along. Looked for once: what is installed later is later's.
fn with_packages(mut host: Host) -> Host {
    static FOUND: OnceLock<Vec<PathBuf>> = OnceLock::new();
    let found = FOUND.get_or_init(|| packages::below(Path::new("/usr")));
    host.packages.extend(found.iter().cloned());
    host.packages.sort_unstable();
    host.packages.dedup();
    host
}

/// `bubblewrap 0.8.0` → (0, 8).
fn version(said: &str) -> Option<(u32, u32)> {
    let mut parts = said.rsplit(' ').next()?.split('.').map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

/// A program on a `PATH`.
pub(crate) fn on_path(name: &str, path: &OsStr) -> Option<PathBuf> {
    std::env::split_paths(path)
        .map(|directory| directory.join(name))
        .find(|path| path.is_absolute() && path.is_file())
}

fn kinds(host: &Host) -> &'static str {
    if host.root {
        "pid, net, ipc, uts, mount"
    } else {
        "user, pid, net, ipc, uts, mount"
    }
}

/// Whether bubblewrap can make the namespaces that sandboxes use: which, or why not.
fn by_bubblewrap(host: &Host) -> Result<&'static str, String> {
    let Starter::Bubblewrap { program, .. } = &host.starter else {
        return Err("another starter".to_owned());
    };
    let mut command = Command::new(program);
    command.args(["--unshare-pid", "--unshare-net", "--unshare-ipc"]);
    command.arg("--unshare-uts");
    if !host.root {
        command.args(["--unshare-user", "--uid", "1000"]);
    }
    command.args(["--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev"]);
    match command.arg("true").output() {
        Ok(output) if output.status.success() => Ok(kinds(host)),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Err(format!("bwrap cannot be run: {error}")),
    }
}

/// Whether the helper can make a sandbox by itself: one is made, and the helper in it
/// answers.
fn by_helper(host: &Host) -> Result<(), String> {
    let exe = std::env::current_exe().map_err(|error| error.to_string())?;
    let helper = helper_beside(&exe).ok_or("the helper `gametape-sandbox` is not there")?;
    let (program, words) = starter::trial(host, &helper);
    let up = Inside::start(&program, &words).and_then(|mut inside| inside.wait_until_up());
    up.map_err(|error| error.to_string())
}

fn uid() -> Layer {
    if nix::unistd::geteuid().is_root() {
        layer(
            "uid",
            true,
            true,
            "each sandbox runs under a uid of its own",
        )
    } else {
        layer(
            "uid",
            true,
            true,
            "not root: sandboxes run in user namespaces",
        )
    }
}

fn landlock() -> Layer {
    // SAFETY: with no attributes and the version flag the call only asks for a number.
    let abi = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<libc::c_void>(),
            0usize,
            1u32,
        )
    };
    if abi > 0 {
        layer("landlock", true, false, format!("ABI {abi}"))
    } else {
        layer(
            "landlock",
            false,
            false,
            "the kernel has none: one layer less",
        )
    }
}

fn seccomp() -> Layer {
    // SAFETY: asks whether an action is known; changes nothing.
    let known = unsafe {
        let action = libc::SECCOMP_RET_ERRNO;
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_GET_ACTION_AVAIL,
            0u32,
            &raw const action,
        )
    } == 0;
    let detail = if known {
        "filters"
    } else {
        "the kernel has no seccomp filters"
    };
    layer("seccomp", known, true, detail)
}

/// Whether sandboxes see prepared environments of this cache through an overlay, or get
/// copies: by making one there. For `doctor`; nothing needs it. Blocks, some milliseconds.
pub fn overlay(cache: &Path) -> Layer {
    let name = "overlay";
    let copied = |why: String| {
        let detail = format!("sandboxes get copies of the repository: {why}");
        layer(name, false, false, detail)
    };
    match lay(cache) {
        Ok(ground) => match (ground.layers(), ground.missing()) {
            (Layers::Overlay, _) => {
                let detail = "nothing is copied, whatever the size of a repository";
                layer(name, true, false, detail)
            }
            (Layers::Limited, why) => copied(why.unwrap_or_default().to_owned()),
            (Layers::Plain, Some(why)) => copied(format!("{why}, and their size has no limit")),
            (Layers::Plain, None) => {
                copied("only root can mount them; their size has no limit".to_owned())
            }
        },
        Err(error) => copied(error.to_string()),
    }
}

/// The ground of a sandbox on an empty tree in the cache (or above it, where it was not
/// made yet). Its mounts and its files are gone with the answer's thread.
fn lay(cache: &Path) -> io::Result<Ground> {
    let exe = std::env::current_exe()?;
    let helper = helper_beside(&exe)
        .ok_or_else(|| io::Error::other("the helper `gametape-sandbox` is not there"))?;
    let place = cache.ancestors().find(|path| path.is_dir());
    let scratch = tempfile::tempdir_in(place.unwrap_or(Path::new("/")))?;
    let tree = scratch.path().join("tree");
    std::fs::create_dir(&tree)?;
    let plan = ground::Plan {
        private: scratch.path().join("private"),
        tree,
        owner: nix::unistd::geteuid().is_root().then_some(65_534),
        helper,
        bytes: 1 << 20,
        inodes: 100,
        most: Layers::Overlay,
    };
    let warden = Warden::start(0)?;
    warden.run(move || Ground::lay(&plan))?
}

/// Control groups, by making one.
fn cgroup() -> Layer {
    crate::cgroup::Groups::detect().layer()
}

/// Refuses when a required layer is missing: a sandbox that is less than it says is
/// worse than none.
///
/// # Errors
/// `GT-SANDBOX-UNAVAILABLE`, naming every missing layer.
pub fn require(layers: &[Layer]) -> Result<(), Failure> {
    let missing: Vec<String> = layers
        .iter()
        .filter(|l| l.required && !l.active)
        .map(|l| format!("{}: {}", l.name, l.detail))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(failure::unavailable(&missing.join("; ")))
}

/// Whether a Docker Engine answers, with a deadline of its own. For `doctor`; nothing
/// needs it.
pub async fn docker() -> Layer {
    let ask = async {
        let engine = bollard::Docker::connect_with_local_defaults()?;
        engine.ping().await?;
        engine.version().await
    };
    match tokio::time::timeout(Duration::from_secs(3), ask).await {
        Ok(Ok(version)) => layer(
            "docker",
            true,
            false,
            format!("Engine {}", version.version.unwrap_or_default()),
        ),
        Ok(Err(error)) => layer(
            "docker",
            false,
            false,
            format!("no Engine answers: {error}"),
        ),
        Err(_) => layer(
            "docker",
            false,
            false,
            "the Engine does not answer within 3 s",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_required_layer_closes_the_door() {
        let have = layer("a", true, true, "");
        let optional = layer("b", false, false, "");
        assert!(require(&[have.clone(), optional.clone()]).is_ok());
        let failure = require(&[have, optional, layer("c", false, true, "why")]).unwrap_err();
        assert_eq!(failure.code, "GT-SANDBOX-UNAVAILABLE");
        assert!(failure.message.contains("c: why") && !failure.message.contains("b:"));
    }

    #[test]
    fn the_helper_is_tried_first_and_both_reasons_are_told() {
        let nowhere = OsStr::new("");
        let (layers, host) = starters(Ok(Choice::Any), nowhere);
        let named = |name: &str| layers.iter().find(|l| l.name == name);
        let namespaces = named("namespaces").unwrap();
        assert!(namespaces.required);
        match host {
            Some(host) => {
                assert_eq!(host.starter, Starter::Namespaces);
                assert!(namespaces.active && require(&layers).is_ok());
            }
            // Without the helper, or the right to namespaces, both reasons are told.
            None => {
                assert!(!namespaces.active && require(&layers).is_err());
                assert!(namespaces.detail.contains("PATH"), "{namespaces:?}");
                assert!(
                    namespaces.detail.contains("by the helper"),
                    "{namespaces:?}"
                );
                let bubblewrap = named("bubblewrap").unwrap();
                assert!(!bubblewrap.active && !bubblewrap.required);
            }
        }
    }

    #[test]
    fn a_choice_that_cannot_be_had_is_not_replaced() {
        let nowhere = OsStr::new("");
        let (layers, host) = starters(Ok(Choice::Bubblewrap), nowhere);
        assert!(host.is_none() && require(&layers).is_err(), "{layers:?}");
        let (layers, host) = starters(Err("what is that".into()), nowhere);
        assert!(host.is_none());
        let failure = require(&layers).unwrap_err();
        assert!(failure.message.contains("what is that"), "{failure}");
    }

    #[test]
    fn an_overlay_is_tried_where_the_cache_will_be() {
        let directory = tempfile::tempdir().unwrap();
        let row = overlay(&directory.path().join("not/made/yet"));
        assert_eq!((row.name.as_str(), row.required), ("overlay", false));
        assert!(!row.detail.is_empty());
        if !nix::unistd::geteuid().is_root() {
            assert!(!row.active && row.detail.contains("root"), "{row:?}");
        }
        let left = std::fs::read_dir(directory.path()).unwrap().count();
        assert_eq!(left, 0, "a trial leaves nothing");
        // A file system that cannot: the reason is told.
        let row = overlay(Path::new("/proc"));
        assert!(!row.active && row.detail.contains("copies"), "{row:?}");
    }

    #[test]
    fn versions_are_read() {
        assert_eq!(version("bubblewrap 0.8.0"), Some((0, 8)));
        assert_eq!(version("0.11"), Some((0, 11)));
        assert_eq!(version("what"), None);
    }
}
