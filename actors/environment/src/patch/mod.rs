//! Unified diffs, applied strictly: whole or not at all, to files in memory. No git runs
//! on a tree that an agent may have prepared. Pure.
//!
//! - [`parse`]: text → sections, one a file
//! - [`apply`]: sections and the files that they name → changes
//! - [`fitted`]: what the official SWE-bench harness tries when that fails
//!
//! As `git apply` does it: a hunk may have moved (its lines are searched for, nearest
//! first), its context must match exactly, a hunk without trailing context must reach
//! the end of the file, one that begins at line 1 must match there.

mod apply;
mod fitted;
mod parse;

pub use apply::{Change, apply};
pub use fitted::{Fitted, fitted};
pub use parse::{FilePatch, Hunk, Line, parse};

use crate::tree::Snapshot;

/// Applies a diff to files in memory.
///
/// # Errors
/// One sentence on what does not fit; nothing was changed then.
pub fn apply_to(files: &mut Snapshot, text: &str) -> Result<(), String> {
    let changes = apply(text, |path| Ok(files.get(path).cloned()))?;
    for change in changes {
        match change.new {
            Some(entry) => files.insert(change.path, entry),
            None => files.remove(&change.path),
        };
    }
    Ok(())
}

/// Paths that a diff names, both sides, without `a/` and `b/`; empty when it cannot be read.
pub fn paths(text: &str) -> Vec<String> {
    let mut out: Vec<String> = parse(text)
        .unwrap_or_default()
        .into_iter()
        .flat_map(|file| [file.old, file.new])
        .flatten()
        .collect();
    out.sort_unstable();
    out.dedup();
    out
}
