//! Which layers of isolation this machine has: by trying, never by file names.

use gametape_schemas::{Failure, FailureKind};
use serde::Serialize;
use std::process::Command;
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

/// Tries every layer. Takes some ten milliseconds; blocks.
pub fn probe() -> Vec<Layer> {
    let version = Command::new("bwrap").arg("--version").output();
    let bubblewrap = match version {
        Ok(output) if output.status.success() => layer(
            "bubblewrap",
            true,
            true,
            String::from_utf8_lossy(&output.stdout).trim(),
        ),
        _ => layer(
            "bubblewrap",
            false,
            true,
            "`bwrap` is not on the PATH: install the package bubblewrap (apt-get install bubblewrap)",
        ),
    };
    let mut layers = vec![bubblewrap];
    layers.push(namespaces());
    // SAFETY: with no attributes and the version flag the call only asks for a number.
    let abi = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<libc::c_void>(),
            0usize,
            1u32,
        )
    };
    layers.push(if abi > 0 {
        layer("landlock", true, false, format!("ABI {abi}"))
    } else {
        layer("landlock", false, false, "the kernel has none: one layer less")
    });
    // SAFETY: asks whether an action is known; changes nothing.
    let seccomp = unsafe {
        let action = libc::SECCOMP_RET_ERRNO;
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_GET_ACTION_AVAIL,
            0u32,
            &raw const action,
        )
    } == 0;
    layers.push(layer(
        "seccomp",
        seccomp,
        true,
        if seccomp { "filters" } else { "the kernel has no seccomp filters" },
    ));
    layers.push(layer(
        "other uid",
        nix::unistd::geteuid().is_root(),
        false,
        if nix::unistd::geteuid().is_root() {
            "commands run under a uid of their own"
        } else {
            "not root: commands run in a user namespace"
        },
    ));
    layers
}

/// Whether bubblewrap can make the namespaces that sandboxes use.
fn namespaces() -> Layer {
    let mut command = Command::new("bwrap");
    command.args(["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"]);
    if !nix::unistd::geteuid().is_root() {
        command.args(["--unshare-user", "--uid", "1000"]);
    }
    command.args(["--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "true"]);
    match command.output() {
        Ok(output) if output.status.success() => {
            layer("namespaces", true, true, "pid, net, ipc, uts, mount")
        }
        Ok(output) => layer(
            "namespaces",
            false,
            true,
            format!(
                "refused: {} (on Ubuntu 24.04: sysctl kernel.apparmor_restrict_unprivileged_userns=0; \
                 elsewhere: sysctl kernel.unprivileged_userns_clone=1; in a container: run it with the \
                 permission to make namespaces)",
                String::from_utf8_lossy(&output.stderr).trim()
            ),
        ),
        Err(error) => layer("namespaces", false, true, format!("bwrap cannot be run: {error}")),
    }
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
    Err(Failure::new(
        FailureKind::Sandbox,
        "GT-SANDBOX-UNAVAILABLE",
        format!("sandboxes cannot be had on this machine: {}", missing.join("; ")),
    )
    .with_help("`gametape doctor` shows all layers; nothing is run without the required ones"))
}

/// Whether a Docker Engine answers, with a deadline of its own. For `doctor`; nothing
/// needs it.
pub async fn docker() -> Layer {
    let ask = async {
        let engine = bollard::Docker::connect_with_local_defaults()?;
        engine.version().await
    };
    match tokio::time::timeout(Duration::from_secs(3), ask).await {
        Ok(Ok(version)) => layer(
            "docker",
            true,
            false,
            format!("Engine {}", version.version.unwrap_or_default()),
        ),
        Ok(Err(error)) => layer("docker", false, false, format!("no Engine answers: {error}")),
        Err(_) => layer("docker", false, false, "the Engine does not answer within 3 s"),
    }
}
