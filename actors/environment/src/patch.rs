//! Unified diffs onto a tree, by git's own `apply`: strict, whole or not at all, never
//! outside the tree.

use gametape_schemas::message::PatchApplied;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};

/// Applies a diff to the tree at `root`. The tree must not have been touched by an
/// agent's processes: git reads it here, on the host, with all configuration off.
///
/// # Errors
/// When git cannot be run. A diff that does not apply is an answer, not an error.
pub fn apply(root: &Path, patch: &str) -> io::Result<PatchApplied> {
    if patch.trim().is_empty() {
        return Ok(PatchApplied::Applied);
    }
    if let Some(line) = patch
        .lines()
        .find(|l| l.starts_with("new file mode 12") || l.starts_with("new mode 12"))
    {
        return Ok(PatchApplied::Rejected(format!(
            "patches may not make symbolic links ({line})"
        )));
    }
    let mut child = Command::new("git")
        .args(["-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null"])
        .args(["apply", "--whitespace=nowarn", "-"])
        .current_dir(root)
        .env("GIT_CEILING_DIRECTORIES", root.parent().unwrap_or(root))
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env_remove("GIT_DIR")
        .env_remove("GIT_WORK_TREE")
        .env_remove("GIT_INDEX_FILE")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        let text = if patch.ends_with('\n') {
            patch.to_owned()
        } else {
            format!("{patch}\n")
        };
        // git may stop reading a patch that it refuses.
        match stdin.write_all(text.as_bytes()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
            _ => {}
        }
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(PatchApplied::Applied);
    }
    let reason: String = String::from_utf8_lossy(&output.stderr)
        .chars()
        .take(600)
        .collect();
    Ok(PatchApplied::Rejected(reason.trim().to_owned()))
}

/// Paths that a diff names, both sides, without `a/` and `b/`.
pub fn paths(patch: &str) -> Vec<String> {
    let mut out = Vec::new();
    for line in patch.lines() {
        let name = line
            .strip_prefix("--- a/")
            .or_else(|| line.strip_prefix("+++ b/"))
            .or_else(|| line.strip_prefix("rename from "))
            .or_else(|| line.strip_prefix("rename to "));
        if let Some(name) = name {
            let name = name.split('\t').next().unwrap_or(name).to_owned();
            if !out.contains(&name) {
                out.push(name);
            }
        }
    }
    out
}
