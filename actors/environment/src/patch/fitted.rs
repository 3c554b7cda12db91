//! Diffs that do not fit exactly, taken as the official SWE-bench harness takes them.
//!
//! It tries `git apply`, `git apply --3way`, `git apply --reject` and
//! `patch --batch --forward --fuzz=5 -p1`, each on a clean tree, and in the end whether
//! the diff is there already. The second needs the objects that the diff's index lines
//! name, and a repository with a single commit has none; the third succeeds where the
//! first does. What is left is `patch`, of which hunks are placed here by the same rules:
//! nearest first, and of the lines of context at a hunk's ends up to five may differ.

use super::apply::{result, side, walk};
use super::parse::{FilePatch, Hunk, Line, parse};
use crate::diff;
use crate::tree::{Entry, Snapshot};

/// Lines of context that may differ at each end of a hunk.
const FUZZ: usize = 5;

/// How a diff was made to fit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fitted {
    /// A diff of the same effect that fits exactly; empty when there is nothing to do.
    pub exact: String,
    /// The step that took it, in words.
    pub step: String,
}

/// Finds the step that takes a diff which does not fit exactly.
///
/// # Errors
/// One sentence when none does.
pub fn fitted(
    text: &str,
    mut read: impl FnMut(&str) -> Result<Option<Entry>, String>,
) -> Result<Fitted, String> {
    let text = without_carriage_returns(text);
    let files = parse(&text)?;
    // Not what it would do to a tree in which it is done: nothing.
    if walk(files.iter().map(reversed).collect(), &mut read, result).is_ok() {
        return Ok(Fitted {
            exact: String::new(),
            step: "it is there already".to_owned(),
        });
    }
    let mut base = Snapshot::new();
    let mut worst = 0;
    let seen = |path: &str| {
        let entry = read(path)?;
        if let Some(entry) = &entry {
            base.insert(path.to_owned(), entry.clone());
        }
        Ok(entry)
    };
    let changes = walk(files, seen, |file, old| {
        let (new, fuzz) = loosely(file, old)?;
        worst = worst.max(fuzz);
        Ok(new)
    })?;
    let mut now = base.clone();
    for change in changes {
        match change.new {
            Some(entry) => now.insert(change.path, entry),
            None => now.remove(&change.path),
        };
    }
    let made = diff::unified(&base, &now);
    if let Some(path) = made.binary.first() {
        return Err(format!("{path}: is no text"));
    }
    Ok(Fitted {
        exact: made.text,
        step: format!("`patch --fuzz=5`, with fuzz {worst}"),
    })
}

/// As `patch` does where a diff's own headers end with carriage returns.
fn without_carriage_returns(text: &str) -> String {
    let mut headers = text
        .split_inclusive('\n')
        .filter(|line| line.starts_with("--- "));
    if headers.clone().next().is_some() && headers.all(|line| line.ends_with("\r\n")) {
        return text.replace("\r\n", "\n");
    }
    text.to_owned()
}

/// A section that takes back what this one does.
fn reversed(file: &FilePatch) -> FilePatch {
    let mut moved = 0isize;
    let hunks = file.hunks.iter().map(|hunk| {
        let (old, new) = (side(hunk, false).len(), side(hunk, true).len());
        let first = hunk.old_start.saturating_add(usize::from(old == 0));
        let old_start = first.saturating_add_signed(moved);
        moved += new.cast_signed() - old.cast_signed();
        let turned = |line: &Line| match line {
            Line::Context(bytes) => Line::Context(bytes.clone()),
            Line::Removed(bytes) => Line::Added(bytes.clone()),
            Line::Added(bytes) => Line::Removed(bytes.clone()),
        };
        Hunk {
            old_start: old_start.saturating_sub(usize::from(new == 0)),
            lines: hunk.lines.iter().map(turned).collect(),
        }
    });
    FilePatch {
        hunks: hunks.collect(),
        old: file.new.clone(),
        new: file.old.clone(),
        executable: None,
        copy: false,
    }
}

/// What becomes of a file, and how much of the context had to be left out.
fn loosely(file: &FilePatch, old: Option<&Entry>) -> Result<(Option<Entry>, usize), String> {
    let name = file.new.as_ref().or(file.old.as_ref());
    let name = name.map_or("", String::as_str);
    let before: &[u8] = old.map_or(&[], |entry| &entry.bytes);
    let input: Vec<&[u8]> = before.split_inclusive(|byte| *byte == b'\n').collect();
    let mut out: Vec<u8> = Vec::with_capacity(before.len());
    let (mut frozen, mut offset, mut worst) = (0usize, 0isize, 0usize);
    for hunk in &file.hunks {
        let pattern = side(hunk, false);
        let found = (0..=FUZZ.min(context(hunk).0.max(context(hunk).1)))
            .find_map(|fuzz| Some((fuzz, place(hunk, &pattern, &input, frozen, offset, fuzz)?)));
        let Some((fuzz, at)) = found else {
            return Err(format!(
                "{name}: the hunk at line {} does not apply",
                hunk.old_start
            ));
        };
        worst = worst.max(fuzz);
        offset = at.cast_signed() - first_of(hunk, &pattern).cast_signed();
        let copied = input.get(frozen..at).unwrap_or_default();
        out.extend(copied.concat());
        let mut here = at;
        for line in &hunk.lines {
            match line {
                // The file's own, which may differ at the ends.
                Line::Context(_) => {
                    out.extend_from_slice(input.get(here).copied().unwrap_or_default());
                    here += 1;
                }
                Line::Removed(_) => here += 1,
                Line::Added(bytes) => out.extend_from_slice(bytes),
            }
        }
        frozen = here;
    }
    out.extend(input.get(frozen..).unwrap_or_default().concat());
    if file.new.is_none() {
        if !out.is_empty() {
            return Err(format!(
                "{name}: is deleted, but something would be left of it"
            ));
        }
        return Ok((None, worst));
    }
    let executable = file.executable;
    let executable = executable.unwrap_or(old.is_some_and(|entry| entry.executable));
    let bytes = out.into();
    Ok((Some(Entry { bytes, executable }), worst))
}

/// Lines of context at both ends of a hunk.
fn context(hunk: &Hunk) -> (usize, usize) {
    let is_context = |line: &&Line| matches!(line, Line::Context(_));
    let prefix = hunk.lines.iter().take_while(is_context).count();
    let suffix = hunk.lines.iter().rev().take_while(is_context).count();
    (prefix, suffix)
}

/// Where a hunk begins by its own header, from 0.
fn first_of(hunk: &Hunk, pattern: &[&[u8]]) -> usize {
    // A hunk without an old side names the line before it.
    hunk.old_start - usize::from(!pattern.is_empty() && hunk.old_start > 0)
}

/// Where a hunk's old side lies, from 0, as `patch` looks for it.
fn place(
    hunk: &Hunk,
    pattern: &[&[u8]],
    input: &[&[u8]],
    frozen: usize,
    offset: isize,
    fuzz: usize,
) -> Option<usize> {
    let guess = first_of(hunk, pattern).saturating_add_signed(offset);
    if pattern.is_empty() {
        return (guess >= frozen && guess <= input.len()).then_some(guess);
    }
    let (prefix, suffix) = context(hunk);
    let most = prefix.max(suffix);
    // Less context at one end means that the file ends there: it is not to be left out.
    let (at_start, at_end) = (fuzz + prefix < most, fuzz + suffix < most);
    let (skip, leave) = (
        (fuzz + prefix).saturating_sub(most),
        (fuzz + suffix).saturating_sub(most),
    );
    let fits = |at: usize| {
        at >= frozen
            && (skip..pattern.len().saturating_sub(leave)).all(|n| {
                input
                    .get(at + n)
                    .zip(pattern.get(n))
                    .is_some_and(|(a, b)| a == b)
            })
    };
    let last = input
        .len()
        .checked_sub(pattern.len() - leave.min(pattern.len()));
    if at_start && hunk.old_start <= 1 {
        let whole = !at_end || pattern.len() == input.len();
        return (whole && fits(0)).then_some(0);
    }
    if at_end {
        let only = input.len().checked_sub(pattern.len())?;
        return fits(only).then_some(only);
    }
    let last = last?;
    (0..=last.max(guess)).find_map(|distance| {
        [Some(guess + distance), guess.checked_sub(distance)]
            .into_iter()
            .flatten()
            .find(|at| *at <= last && fits(*at))
    })
}

#[cfg(test)]
#[path = "fitted_tests.rs"]
mod tests;
