//! `gametape doctor`: what this machine has, what it lacks, what to do about it.
//!
//! - [`Check`]: one line of the answer; what others find out (layers of the sandbox,
//!   libtorch's devices) is handed in as checks too
//! - [`collect`]: looks at tools, memory, disk and the cache of this machine
//! - [`render`], [`exit_code`]: pure functions of the checks; `--json` prints them as data
//!
//! Rust is not among them: a built `gametape` needs none.

use crate::config::Paths;
use comfy_table::{ContentArrangement, Table, presets};
use gametape_schemas::Digest;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How a check came out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// As it should be.
    Ok,
    /// It works, with less speed, comfort or protection.
    Warn,
    /// Not there, or of no use.
    Missing,
}

impl Status {
    /// The word in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Missing => "missing",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Check {
    /// What was looked at: `git`, `sandbox: seccomp`, …
    pub name: String,
    /// How it came out.
    pub status: Status,
    /// Whether the loop cannot run without it.
    pub required: bool,
    /// What was found: versions, sizes, places.
    pub found: String,
    /// What to do; empty where nothing is to be done.
    pub help: String,
}

impl Check {
    /// All is well.
    pub fn ok(name: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            status: Status::Ok,
            required: false,
            found: found.into(),
            help: String::new(),
        }
    }

    /// The loop runs, but not as well as it could.
    pub fn warn(
        name: impl Into<String>,
        found: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self {
            status: Status::Warn,
            help: help.into(),
            ..Self::ok(name, found)
        }
    }

    /// The loop cannot run without it.
    pub fn missing(
        name: impl Into<String>,
        found: impl Into<String>,
        help: impl Into<String>,
    ) -> Self {
        Self {
            status: Status::Missing,
            required: true,
            help: help.into(),
            ..Self::ok(name, found)
        }
    }

    /// The same, for something that the loop can do without.
    #[must_use]
    pub fn optional(self) -> Self {
        Self {
            required: false,
            ..self
        }
    }
}

/// The default model in the cache, below its own checksum.
pub const MODEL_SHA256: &str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";
/// Its file name.
pub const MODEL_FILE: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
/// BLAKE3 of the same bytes: what this program checks with.
const MODEL_BLAKE3: &str = "5f4fa13bfc6dd4a91fd00e22974a9c4e9ed628fd7d7f307398ddf30260d6b2c3";

/// Memory that the default profile needs, MiB.
const MEMORY_MIB: u64 = 6 * 1024;
/// Free space below which a run of the default profile may pause, MiB.
const DISK_MIB: u64 = 4 * 1024;

/// Where the default model lies in a cache.
pub fn model_path(cache: &Path) -> PathBuf {
    cache.join("models").join(MODEL_SHA256).join(MODEL_FILE)
}

/// Looks at this machine. `others` are checks that the rooms made: layers of the
/// sandbox, libtorch's devices and threads. Takes a second or two: tools are asked for
/// their versions, the model is read once for its checksum.
pub fn collect(paths: &Paths, others: Vec<Check>) -> Vec<Check> {
    let mut checks = vec![python(), git(), bubblewrap()];
    checks.extend(others);
    checks.push(libtorch(&loaded_libraries()));
    checks.push(processors());
    checks.push(memory());
    checks.push(disk("disk: cache", &paths.cache));
    checks.push(disk("disk: run", &paths.run));
    checks.push(model(&paths.cache));
    checks.push(docker());
    checks
}

/// 1 when something required is missing, else 0.
pub fn exit_code(checks: &[Check]) -> u8 {
    u8::from(unmet(checks).next().is_some())
}

fn unmet(checks: &[Check]) -> impl Iterator<Item = &Check> {
    checks
        .iter()
        .filter(|check| check.required && check.status == Status::Missing)
}

/// The table for people, and one closing sentence.
pub fn render(checks: &[Check]) -> String {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(["", "what", "found", "what to do"]);
    if table.width().is_none() {
        table.set_width(110); // not a terminal
    }
    for check in checks {
        table.add_row([
            check.status.as_str(),
            &check.name,
            &check.found,
            &check.help,
        ]);
    }
    let mut text = table.trim_fmt();
    let warnings = checks.iter().filter(|c| c.status == Status::Warn).count();
    let names: Vec<&str> = unmet(checks).map(|check| check.name.as_str()).collect();
    // Writing to a String cannot fail.
    let _ = match (names.is_empty(), warnings) {
        (true, 0) => write!(text, "\n\nThis machine is ready.\n"),
        (true, 1) => write!(text, "\n\nThis machine is ready, with one warning.\n"),
        (true, n) => write!(text, "\n\nThis machine is ready, with {n} warnings.\n"),
        (false, _) => write!(text, "\n\nMissing: {}.\n", names.join(", ")),
    };
    text
}

// ---------------------------------------------------------------- tools

/// First line of what a program says about itself; `None` when it cannot be started.
fn version_of(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    if !output.status.success() {
        return None;
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Some(text.lines().next().unwrap_or_default().trim().to_owned())
}

fn python() -> Check {
    judge_python(version_of("python3", &["--version"]).as_deref())
}

fn judge_python(version: Option<&str>) -> Check {
    let help = "install Python 3.11 or newer with its venv module, first on the PATH as python3";
    let Some(version) = version else {
        return Check::missing("python", "no python3 on the PATH", help);
    };
    let numbers: Vec<u32> = version
        .trim_start_matches("Python ")
        .split('.')
        .map_while(|part| part.parse().ok())
        .collect();
    match numbers.as_slice() {
        [major, minor, ..] if (*major, *minor) >= (3, 11) => Check::ok("python", version),
        _ => Check::missing("python", version, help),
    }
}

fn git() -> Check {
    match version_of("git", &["--version"]) {
        Some(version) => Check::ok("git", version),
        None => Check::missing("git", "not on the PATH", "install git"),
    }
}

fn bubblewrap() -> Check {
    match version_of("bwrap", &["--version"]) {
        Some(version) => Check::ok("bubblewrap (optional)", version),
        None => Check::ok(
            "bubblewrap (optional)",
            "no bwrap on the PATH; gametape starts sandboxes itself",
        ),
    }
}

fn docker() -> Check {
    match version_of("docker", &["version", "--format", "{{.Server.Version}}"]) {
        Some(version) => Check::ok("docker (optional)", format!("server {version}")),
        None => Check::ok("docker (optional)", "no daemon answers; not needed"),
    }
}

// ---------------------------------------------------------------- libtorch

/// Files that are mapped into this process.
fn loaded_libraries() -> Vec<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    maps.lines()
        .filter_map(|line| line.find('/').and_then(|at| line.get(at..)))
        .map(PathBuf::from)
        .collect()
}

/// The libtorch that this very process runs on, whatever it was built against.
fn libtorch(loaded: &[PathBuf]) -> Check {
    let is = |path: &&PathBuf| path.ends_with("libtorch_cpu.so");
    let Some(home) = loaded.iter().find(is).and_then(|p| p.parent()?.parent()) else {
        return Check::missing(
            "libtorch",
            "not loaded into this process",
            "run scripts/setup.sh, then build again",
        );
    };
    let read = |name: &str| std::fs::read_to_string(home.join(name)).ok();
    let version = read("build-version")
        .or_else(|| version_in_header(&read("include/torch/headeronly/version.h")?))
        .map_or_else(|| "version unknown".to_owned(), |v| v.trim().to_owned());
    let cuda = if home.join("lib/libtorch_cuda.so").is_file() {
        "CUDA build"
    } else {
        "CPU build"
    };
    Check::ok("libtorch", format!("{version}, {cuda}, {}", home.display()))
}

fn version_in_header(text: &str) -> Option<String> {
    let number = |name: &str| {
        text.lines().find_map(|line| {
            line.strip_prefix("#define TORCH_VERSION_")?
                .strip_prefix(name)
                .map(|rest| rest.trim().to_owned())
        })
    };
    Some(format!(
        "{}.{}.{}",
        number("MAJOR ")?,
        number("MINOR ")?,
        number("PATCH ")?
    ))
}

/// Where the model computes: as many CUDA devices as libtorch sees, else this many
/// threads. For the caller of [`collect`], who can ask libtorch.
pub fn devices(cuda: i64, threads: usize) -> Check {
    match cuda {
        1.. => Check::ok("model runs on", format!("{cuda} CUDA device(s)")),
        _ if Path::new("/dev/nvidiactl").exists() => Check::warn(
            "model runs on",
            format!("the CPU, {threads} threads; this libtorch does not see the GPU"),
            "install PyTorch 2.11 with CUDA, run scripts/setup.sh, then build again",
        ),
        _ => Check::ok("model runs on", format!("the CPU, {threads} threads")),
    }
}

// ---------------------------------------------------------------- resources

fn processors() -> Check {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    match cores {
        0 | 1 => Check::warn(
            "processors",
            "1 core",
            "the default profile is made for two or more",
        ),
        n => Check::ok("processors", format!("{n} cores")),
    }
}

fn memory() -> Check {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    judge_memory(
        meminfo_mib(&text, "MemAvailable"),
        meminfo_mib(&text, "MemTotal"),
    )
}

fn judge_memory(available: Option<u64>, total: Option<u64>) -> Check {
    let (Some(available), Some(total)) = (available, total) else {
        return Check::warn("memory", "unknown", "");
    };
    let found = format!("{} free of {}", gib(available), gib(total));
    if available >= MEMORY_MIB {
        Check::ok("memory", found)
    } else {
        Check::warn(
            "memory",
            found,
            format!("the default profile may need up to {}", gib(MEMORY_MIB)),
        )
    }
}

/// A field of `/proc/meminfo`, in MiB.
fn meminfo_mib(text: &str, field: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib / 1024)
}

fn disk(name: &str, directory: &Path) -> Check {
    // The directory may not exist yet: its nearest ancestor that does decides.
    let place = std::path::absolute(directory)
        .ok()
        .and_then(|path| path.ancestors().find(|p| p.exists()).map(Path::to_path_buf))
        .unwrap_or_else(|| PathBuf::from("/"));
    let free = nix::sys::statvfs::statvfs(&place)
        .ok()
        .map(|fs| fs.blocks_available() * fs.fragment_size() / (1 << 20));
    judge_disk(name, directory, free)
}

fn judge_disk(name: &str, directory: &Path, free_mib: Option<u64>) -> Check {
    let place = directory.display();
    match free_mib {
        None => Check::warn(name, format!("{place}: free space unknown"), ""),
        Some(free) if free < DISK_MIB => Check::warn(
            name,
            format!("{} free in {place}", gib(free)),
            format!("free some space: a run should have {}", gib(DISK_MIB)),
        ),
        Some(free) => Check::ok(name, format!("{} free in {place}", gib(free))),
    }
}

fn gib(mib: u64) -> String {
    format!("{:.1} GiB", mib as f64 / 1024.0)
}

fn model(cache: &Path) -> Check {
    let path = model_path(cache);
    let name = "default model";
    let help = "run scripts/setup.sh; profiles that name another model do without it";
    match std::fs::read(&path) {
        Err(_) => Check::missing(name, format!("not at {}", path.display()), help).optional(),
        Ok(bytes) if Digest::of_bytes(&bytes) != Digest(MODEL_BLAKE3.to_owned()) => Check::missing(
            name,
            format!("{} is damaged ({} bytes)", path.display(), bytes.len()),
            "remove the file, then run scripts/setup.sh",
        ),
        Ok(_) => Check::ok(name, "SmolLM2-135M-Instruct in the cache, checksum agrees"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_required_and_missing_fails() {
        let fine = vec![
            Check::ok("git", "2.47"),
            Check::warn("memory", "1 GiB", "close something"),
            Check::missing("model", "no", "get it").optional(),
        ];
        assert_eq!(exit_code(&fine), 0);
        assert!(render(&fine).contains("ready, with one warning"));
        let mut bad = fine;
        bad.push(Check::missing("bubblewrap", "no", "install it"));
        assert_eq!(exit_code(&bad), 1);
        let text = render(&bad);
        assert!(text.contains("install it"), "{text}");
        assert!(text.ends_with("Missing: bubblewrap.\n"), "{text}");
    }

    #[test]
    fn json_is_stable() {
        let check = Check::warn("a", "b", "c");
        assert_eq!(
            serde_json::to_string(&check).unwrap(),
            r#"{"name":"a","status":"warn","required":false,"found":"b","help":"c"}"#
        );
    }

    #[test]
    fn python_versions_are_compared_as_numbers() {
        assert_eq!(judge_python(Some("Python 3.11.7")).status, Status::Ok);
        assert_eq!(judge_python(Some("Python 3.14.0rc1")).status, Status::Ok);
        assert_eq!(judge_python(Some("Python 3.9.2")).status, Status::Missing);
        assert_eq!(judge_python(Some("")).status, Status::Missing);
        assert_eq!(judge_python(None).status, Status::Missing);
    }

    #[test]
    fn libtorch_is_the_one_that_is_loaded() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(home.path().join("include/torch/headeronly")).unwrap();
        std::fs::write(
            home.path().join("include/torch/headeronly/version.h"),
            "#define TORCH_VERSION_MAJOR 2\n#define TORCH_VERSION_MINOR 11\n#define TORCH_VERSION_PATCH 0\n",
        )
        .unwrap();
        let library = home.path().join("lib/libtorch_cpu.so");
        let check = libtorch(&[PathBuf::from("/lib/libc.so.6"), library]);
        assert!(
            check.found.starts_with("2.11.0, CPU build"),
            "{}",
            check.found
        );
        assert_eq!(libtorch(&[]).status, Status::Missing);
    }

    #[test]
    fn memory_and_disk_warn_when_low() {
        let text = "MemTotal:       16000000 kB\nMemAvailable:    8000000 kB\n";
        assert_eq!(meminfo_mib(text, "MemAvailable"), Some(7812));
        assert_eq!(judge_memory(Some(7812), Some(15625)).status, Status::Ok);
        assert_eq!(judge_memory(Some(700), Some(15625)).status, Status::Warn);
        let here = Path::new("here");
        assert_eq!(judge_disk("disk", here, Some(100)).status, Status::Warn);
        assert_eq!(judge_disk("disk", here, Some(100_000)).status, Status::Ok);
        assert_eq!(judge_disk("disk", here, None).status, Status::Warn);
    }

    #[test]
    fn a_damaged_model_is_named() {
        let cache = tempfile::tempdir().unwrap();
        assert_eq!(model(cache.path()).status, Status::Missing);
        assert!(!model(cache.path()).required);
        let path = model_path(cache.path());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "half").unwrap();
        let check = model(cache.path());
        assert!(
            check.required && check.found.contains("damaged"),
            "{check:?}"
        );
    }
}
