//! Failures of this room, each with its code: a page in `docs/errors/`.

use gametape_schemas::{EnvironmentId, Failure, FailureKind, SandboxId};
use std::fmt::Display;
use std::io;
use std::path::Path;

/// A full disk is another matter than a broken sandbox: it pauses the loop.
fn kind_of(error: &io::Error, otherwise: FailureKind) -> FailureKind {
    match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => FailureKind::Disk,
        _ => otherwise,
    }
}

/// A sandbox's directory could not be made.
pub fn open(path: &Path, error: &io::Error) -> Failure {
    Failure::new(
        kind_of(error, FailureKind::Sandbox),
        "GT-SANDBOX-OPEN",
        format!("a sandbox cannot be opened in {}: {error}", path.display()),
    )
    .with_help("check the space and the permissions there; GAMETAPE_CACHE names another place")
}

/// bubblewrap or the helper did not come up: the command never ran.
pub fn exec(why: impl Display) -> Failure {
    Failure::new(
        FailureKind::Sandbox,
        "GT-SANDBOX-EXEC",
        format!("a sandbox did not come up: {why}"),
    )
    .with_help("`gametape doctor` tells which layer of the sandbox is missing")
}

/// The sandbox ended under the command, and not by its doing.
pub fn died() -> Failure {
    Failure::new(
        FailureKind::Sandbox,
        "GT-SANDBOX-DIED",
        "a sandbox ended while its command was running",
    )
    .with_help("the kernel may have killed it for memory (see dmesg); it is tried again")
}

/// Work on a sandbox's files failed.
pub fn files(error: &io::Error) -> Failure {
    Failure::new(
        kind_of(error, FailureKind::Sandbox),
        "GT-SANDBOX-IO",
        format!("a sandbox's files: {error}"),
    )
    .with_help("check the space and the permissions of the cache directory (GAMETAPE_CACHE)")
}

/// A patch of the base state does not apply.
pub fn base(reason: &str) -> Failure {
    Failure::new(
        FailureKind::Input,
        "GT-SANDBOX-BASE",
        format!("the task's own patch does not apply to its environment: {reason}"),
    )
    .with_help("the task and the environment do not belong together: forge again")
}

/// The sandbox is not open (any more).
pub fn gone(sandbox: &SandboxId) -> Failure {
    Failure::new(
        FailureKind::Sandbox,
        "GT-SANDBOX-GONE",
        format!("the sandbox {sandbox} is not open"),
    )
}

/// The same, where its name is not known.
pub fn closed() -> Failure {
    Failure::new(
        FailureKind::Sandbox,
        "GT-SANDBOX-GONE",
        "the sandbox is not open any more",
    )
}

/// Required layers are missing.
pub fn unavailable(missing: &str) -> Failure {
    Failure::new(
        FailureKind::Sandbox,
        "GT-SANDBOX-UNAVAILABLE",
        format!("sandboxes cannot be had on this machine: {missing}"),
    )
    .with_help("`gametape doctor` shows all layers; nothing is run without the required ones")
}

/// The helper program is not there.
pub fn helper() -> Failure {
    Failure::new(
        FailureKind::Sandbox,
        "GT-SANDBOX-HELPER",
        "the program `gametape-sandbox` is not beside `gametape`",
    )
    .with_help("build the whole workspace (`cargo build`), or install both programs together")
}

/// The Docker Engine does not answer, or ended in the middle.
pub fn engine_gone(why: impl Display) -> Failure {
    Failure::new(
        FailureKind::Sandbox,
        "GT-DOCKER-GONE",
        format!("the Docker Engine does not answer: {why}"),
    )
    .with_help("start it and check that you may use it (`docker version`); it is tried again")
}

/// The Docker Engine did not answer in time.
pub fn engine_late(what: &str, limit: std::time::Duration) -> Failure {
    Failure::new(
        FailureKind::Timeout,
        "GT-DOCKER-TIMEOUT",
        format!(
            "the Docker Engine did not finish `{what}` in {} s",
            limit.as_secs_f64()
        ),
    )
    .with_help("look at the load of its machine and into its log; fewer sandboxes at once help")
}

/// The Docker Engine refuses something that it should do.
pub fn engine_refused(why: impl Display) -> Failure {
    Failure::new(
        FailureKind::Sandbox,
        "GT-DOCKER-REFUSED",
        format!("the Docker Engine refuses: {why}"),
    )
    .with_help("its log says more (`journalctl -u docker`)")
}

/// An image is missing or cannot be made or used.
pub fn image(reference: &str, why: impl Display) -> Failure {
    Failure::new(
        FailureKind::Provision,
        "GT-SANDBOX-IMAGE",
        format!("the image {reference} cannot be used: {why}"),
    )
    .with_help(
        "bring your own image to this engine first (`docker pull` or `docker load`) and name \
         it by its digest; gametape's own images need space where the engine keeps its data",
    )
}

/// An environment that was never provisioned by this process.
pub fn unknown(environment: &EnvironmentId) -> Failure {
    Failure::new(
        FailureKind::Internal,
        "GT-ENV-UNKNOWN",
        format!("the environment {environment} was not provisioned"),
    )
}

/// The host's Python cannot be used.
pub fn python(name: &str, why: impl Display) -> Failure {
    Failure::new(
        FailureKind::Provision,
        "GT-ENV-PYTHON",
        format!("the Python `{name}` cannot be used: {why}"),
    )
    .with_help(
        "install Python 3.11 or newer with its venv module and pip (Debian: python3-venv \
         python3-pip), or name one with GAMETAPE_PYTHON",
    )
}

/// No Python of a recipe's version; those that were found.
pub fn no_python(wanted: &str, found: &std::collections::BTreeSet<String>) -> Failure {
    let found: Vec<&str> = found.iter().map(String::as_str).collect();
    let found = match found.as_slice() {
        [] => "none was found".to_owned(),
        found => format!("found were {}", found.join("; ")),
    };
    Failure::new(
        FailureKind::Provision,
        "GT-ENV-PYTHON",
        format!("the recipe wants Python {wanted}, and {found}"),
    )
    .with_help(
        "install that version with its venv module and pip (pyenv, uv and conda will do), or \
         name it with GAMETAPE_PYTHON",
    )
}

/// The cache cannot be used.
pub fn disk(path: &Path, error: &io::Error) -> Failure {
    Failure::new(
        kind_of(error, FailureKind::Provision),
        "GT-ENV-DISK",
        format!("{} cannot be used: {error}", path.display()),
    )
    .with_help("check space and permissions of the cache directory, or set GAMETAPE_CACHE")
}

/// A step of provisioning failed.
pub fn provision(package: &str, why: impl Display) -> Failure {
    Failure::new(
        FailureKind::Provision,
        "GT-ENV-PROVISION",
        format!("the environment of {package} cannot be made: {why}"),
    )
    .with_help(
        "provisioning needs the package index once; check the network and the pins, then \
         type the same command again",
    )
}

/// The source archive has no tests or code where the recipe says.
pub fn no_tests(package: &str, why: impl Display) -> Failure {
    Failure::new(
        FailureKind::Input,
        "GT-ENV-NO-TESTS",
        format!("the package {package} cannot be a subject: {why}"),
    )
    .with_help(
        "choose a package whose source archive carries its tests, and name them in the \
         package's `tests`",
    )
}

/// The source archive carries version control's history.
pub fn history(package: &str, path: &str) -> Failure {
    Failure::new(
        FailureKind::Input,
        "GT-ENV-HISTORY",
        format!(
            "the package {package} cannot be a subject: its source archive holds history of \
             version control (`{path}`), where an agent could find later versions"
        ),
    )
    .with_help("choose another version of the package, or an archive without it")
}

/// No git on this machine.
pub fn no_git() -> Failure {
    Failure::new(
        FailureKind::Provision,
        "GT-ENV-GIT",
        "git is not on this machine (no `git` on the PATH)",
    )
    .with_help(
        "install it (Debian: apt-get install git): it makes the root commit of sandboxes and \
         fetches repositories",
    )
}

/// git did not do what it was asked for.
pub fn git(why: impl Display) -> Failure {
    Failure::new(
        FailureKind::Provision,
        "GT-ENV-GIT",
        format!("git on this machine did not do its work: {why}"),
    )
    .with_help("git 2.32 or newer is needed; check the space in the temporary directory")
}

/// A repository cannot be had as the recipe says.
pub fn source(url: &str, why: impl Display) -> Failure {
    Failure::new(
        FailureKind::Provision,
        "GT-ENV-SOURCE",
        format!("the repository {url} cannot be used: {why}"),
    )
    .with_help(
        "check the address and the commit in the recipe; https, ssh and paths of this machine \
         are fetched from, and submodules are not",
    )
}

/// An environment is a container image, and sandboxes are local.
pub fn needs_docker(reference: &str) -> Failure {
    Failure::new(
        FailureKind::Input,
        "GT-ENV-DOCKER",
        format!("the environment is the container image {reference}, and sandboxes are local"),
    )
    .with_help("set limits.sandbox = \"docker\", and have a Docker Engine with that image")
}

/// A history that is not there was asked for.
pub fn no_history(environment: impl Display) -> Failure {
    Failure::new(
        FailureKind::Input,
        "GT-SANDBOX-HISTORY",
        format!(
            "the history of {environment} cannot be shown as it is: only a container image \
             of a user's own has one"
        ),
    )
    .with_help(
        "tasks whose tests name commits need the image they were made for: import it, and set \
         limits.sandbox = \"docker\"",
    )
}

/// Work on a blocking thread panicked or was cut off.
pub fn unfinished(error: impl Display) -> Failure {
    Failure::new(
        FailureKind::Internal,
        "GT-SANDBOX-IO",
        format!("work on a sandbox did not end: {error}"),
    )
}
