//! Which layers of isolation this machine has: by trying, never by file names.

use crate::bubblewrap::Host;
use crate::{failure, packages};
use gametape_schemas::Failure;
use serde::Serialize;
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
    let (bubblewrap, host) = bubblewrap();
    let mut layers = vec![bubblewrap];
    layers.push(match &host {
        Some(host) => namespaces(host),
        None => layer(
            "namespaces",
            false,
            true,
            "cannot be tried without bubblewrap",
        ),
    });
    layers.push(uid());
    layers.push(landlock());
    layers.push(seccomp());
    layers.push(cgroup());
    layers
}

/// This machine, when sandboxes can be had on it.
///
/// # Errors
/// `GT-SANDBOX-UNAVAILABLE`, naming every required layer that is missing.
pub fn host() -> Result<Host, Failure> {
    require(&probe())?;
    bubblewrap()
        .1
        .ok_or_else(|| failure::unavailable("bubblewrap has just disappeared"))
}

fn bubblewrap() -> (Layer, Option<Host>) {
    let name = "bubblewrap";
    let Some(path) = on_path("bwrap") else {
        let help = "`bwrap` is not on the PATH: install the package bubblewrap \
                    (apt-get install bubblewrap)";
        return (layer(name, false, true, help), None);
    };
    let said = Command::new(&path).arg("--version").output();
    let said = match said {
        Ok(output) => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        Err(error) => {
            return (
                layer(name, false, true, format!("{}: {error}", path.display())),
                None,
            );
        }
    };
    match version(&said) {
        Some(found) if found >= OLDEST => (
            layer(name, true, true, format!("{said} ({})", path.display())),
            Some(with_packages(Host::read(path, found))),
        ),
        _ => (
            layer(
                name,
                false,
                true,
                format!("version 0.5 or newer is needed, this is: {said}"),
            ),
            None,
        ),
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

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join(name))
        .find(|path| path.is_absolute() && path.is_file())
}

/// Whether bubblewrap can make the namespaces that sandboxes use.
fn namespaces(host: &Host) -> Layer {
    let name = "namespaces";
    let mut command = Command::new(&host.bwrap);
    command.args([
        "--unshare-pid",
        "--unshare-net",
        "--unshare-ipc",
        "--unshare-uts",
    ]);
    let kinds = if host.root {
        "pid, net, ipc, uts, mount"
    } else {
        command.args(["--unshare-user", "--uid", "1000"]);
        "user, pid, net, ipc, uts, mount"
    };
    command.args([
        "--ro-bind",
        "/",
        "/",
        "--proc",
        "/proc",
        "--dev",
        "/dev",
        "true",
    ]);
    match command.output() {
        Ok(output) if output.status.success() => layer(name, true, true, kinds),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            let help = "on Ubuntu 24.04: sysctl kernel.apparmor_restrict_unprivileged_userns=0; \
                        elsewhere: sysctl kernel.unprivileged_userns_clone=1; in a container: run \
                        it with the permission to make namespaces";
            layer(name, false, true, format!("refused: {said} ({help})"))
        }
        Err(error) => layer(name, false, true, format!("bwrap cannot be run: {error}")),
    }
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
    fn versions_are_read() {
        assert_eq!(version("bubblewrap 0.8.0"), Some((0, 8)));
        assert_eq!(version("0.11"), Some((0, 11)));
        assert_eq!(version("what"), None);
    }
}
