//! Sections of a diff onto the files that they name.

use super::parse::{FilePatch, Hunk, Line, parse};
use crate::tree::Entry;
use std::collections::BTreeMap;

/// What becomes of a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// Relative path.
    pub path: String,
    /// Its new state; `None` when it goes.
    pub new: Option<Entry>,
}

/// Works out what a diff does to the files that `read` gives (`Ok(None)`: no such file).
/// An empty diff does nothing.
///
/// # Errors
/// One sentence on what does not fit.
pub fn apply(
    text: &str,
    read: impl FnMut(&str) -> Result<Option<Entry>, String>,
) -> Result<Vec<Change>, String> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    walk(parse(text)?, read, result)
}

/// The same of sections; `result` says what becomes of a file.
pub(super) fn walk(
    files: Vec<FilePatch>,
    mut read: impl FnMut(&str) -> Result<Option<Entry>, String>,
    mut result: impl FnMut(&FilePatch, Option<&Entry>) -> Result<Option<Entry>, String>,
) -> Result<Vec<Change>, String> {
    // Later sections see what earlier ones did.
    let mut changed: BTreeMap<String, Option<Entry>> = BTreeMap::new();
    for file in files {
        let mut now = |path: &str| match changed.get(path) {
            Some(entry) => Ok(entry.clone()),
            None => read(path),
        };
        let old = match &file.old {
            Some(path) => Some(now(path)?.ok_or(format!("{path}: no such file"))?),
            None => None,
        };
        if let Some(path) = file.new.as_ref().filter(|_| file.old != file.new)
            && now(path)?.is_some()
        {
            return Err(format!("{path}: already exists"));
        }
        let new = result(&file, old.as_ref())?;
        if let Some(path) = file
            .old
            .as_ref()
            .filter(|_| file.old != file.new && !file.copy)
        {
            changed.insert(path.clone(), None);
        }
        if let Some(path) = &file.new {
            changed.insert(path.clone(), new);
        }
    }
    Ok(changed
        .into_iter()
        .map(|(path, new)| Change { path, new })
        .collect())
}

/// What becomes of a file when every hunk must fit.
pub(super) fn result(file: &FilePatch, old: Option<&Entry>) -> Result<Option<Entry>, String> {
    let name = file
        .new
        .as_ref()
        .or(file.old.as_ref())
        .map_or("", String::as_str);
    let before: &[u8] = old.map_or(&[], |entry| &entry.bytes);
    let mut lines: Vec<&[u8]> = before.split_inclusive(|byte| *byte == b'\n').collect();
    let (mut moved, mut done) = (0isize, 0usize);
    for hunk in &file.hunks {
        let at = place(hunk, &lines, moved, done).ok_or(format!(
            "{name}: the hunk at line {} does not apply",
            hunk.old_start
        ))?;
        let (removed, added) = (side(hunk, false), side(hunk, true));
        moved = at.cast_signed() - expected(hunk).cast_signed() + added.len().cast_signed()
            - removed.len().cast_signed();
        done = at + added.len();
        lines.splice(at..at + removed.len(), added);
    }
    if let Some((last, rest)) = lines.split_last() {
        if rest.iter().any(|line| !line.ends_with(b"\n")) {
            return Err(format!(
                "{name}: a line in the middle would lose its line break"
            ));
        }
        if file.new.is_none() && !last.is_empty() {
            return Err(format!(
                "{name}: is deleted, but something would be left of it"
            ));
        }
    }
    if file.new.is_none() {
        return Ok(None);
    }
    Ok(Some(Entry {
        bytes: lines.concat().into(),
        executable: file
            .executable
            .unwrap_or(old.is_some_and(|entry| entry.executable)),
    }))
}

/// The hunk's lines on one side.
pub(super) fn side(hunk: &Hunk, new: bool) -> Vec<&[u8]> {
    hunk.lines
        .iter()
        .filter_map(|line| match line {
            Line::Context(bytes) => Some(bytes.as_slice()),
            Line::Removed(bytes) => (!new).then_some(bytes.as_slice()),
            Line::Added(bytes) => new.then_some(bytes.as_slice()),
        })
        .collect()
}

fn expected(hunk: &Hunk) -> usize {
    hunk.old_start.saturating_sub(1)
}

/// Where the hunk's old side lies in `lines`, at or after `done`, nearest to where it
/// should be.
fn place(hunk: &Hunk, lines: &[&[u8]], moved: isize, done: usize) -> Option<usize> {
    let old = side(hunk, false);
    let last = lines.len().checked_sub(old.len())?;
    let fits = |at: usize| {
        at >= done
            && lines
                .get(at..at + old.len())
                .is_some_and(|found| found == old)
    };
    let at_end = !matches!(hunk.lines.last(), Some(Line::Context(_)));
    if hunk.old_start <= 1 {
        // Line 1 of the old file is wherever what came before it ended: at 0.
        return (fits(0) && (!at_end || last == 0)).then_some(0);
    }
    if at_end {
        return fits(last).then_some(last);
    }
    let want = expected(hunk).saturating_add_signed(moved).min(last);
    (0..=last.max(want)).find_map(|distance| {
        [want.checked_sub(distance), Some(want + distance)]
            .into_iter()
            .flatten()
            .find(|at| *at <= last && fits(*at))
    })
}

#[cfg(test)]
mod tests {
    use super::super::apply_to;
    use crate::tree::{Entry, Snapshot};

    fn one(before: &str, patch: &str) -> Result<String, String> {
        let mut files = Snapshot::from([("x".to_owned(), Entry::plain(before.as_bytes()))]);
        apply_to(&mut files, patch)?;
        Ok(String::from_utf8(files["x"].bytes.to_vec()).unwrap())
    }

    #[test]
    fn hunks_may_have_moved_but_must_fit() {
        let patch = "--- a/x\n+++ b/x\n@@ -2,3 +2,3 @@\n b\n-c\n+C\n d\n";
        assert_eq!(one("a\nb\nc\nd\n", patch).unwrap(), "a\nb\nC\nd\n");
        assert_eq!(
            one("1\n2\n3\na\nb\nc\nd\ne\n", patch).unwrap(),
            "1\n2\n3\na\nb\nC\nd\ne\n"
        );
        assert!(
            one("a\nb\nx\nd\n", patch)
                .unwrap_err()
                .contains("does not apply")
        );
        // No trailing context: only at the end.
        let end = "--- a/x\n+++ b/x\n@@ -2,2 +2,2 @@\n b\n-c\n+C\n";
        assert_eq!(one("0\na\nb\nc\n", end).unwrap(), "0\na\nb\nC\n");
        assert!(one("a\nb\nc\nd\n", end).is_err());
    }

    #[test]
    fn a_missing_last_line_break_is_kept_made_and_removed() {
        let to = "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n\\ No newline at end of file\n+a\n";
        assert_eq!(one("a", to).unwrap(), "a\n");
        assert!(one("a\n", to).is_err());
        let from = "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+a\n\\ No newline at end of file\n";
        assert_eq!(one("a\n", from).unwrap(), "a");
    }

    #[test]
    fn whole_or_not_at_all() {
        let mut files = Snapshot::from([("x".to_owned(), Entry::plain(b"a\n"))]);
        let before = files.clone();
        let patch =
            "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n--- a/y\n+++ b/y\n@@ -1 +1 @@\n-a\n+b\n";
        assert!(
            apply_to(&mut files, patch)
                .unwrap_err()
                .contains("y: no such file")
        );
        assert_eq!(files, before);
    }

    #[test]
    fn names_modes_and_moves() {
        let mut files = Snapshot::from([("x".to_owned(), Entry::plain(b"a\n"))]);
        let patch = "diff --git a/x b/d/y z\nsimilarity index 100%\nrename from x\nrename to d/y z\n\
            diff --git a/e b/e\nnew file mode 100755\nindex 0000000..e69de29\n\
            diff --git \"a/\\303\\274\" \"b/\\303\\274\"\nnew file mode 100644\n--- /dev/null\n+++ \"b/\\303\\274\"\n@@ -0,0 +1 @@\n+u\n";
        apply_to(&mut files, patch).unwrap();
        assert_eq!(files.keys().collect::<Vec<_>>(), ["d/y z", "e", "ü"]);
        assert!(files["e"].executable && files["e"].bytes.is_empty());
        apply_to(
            &mut files,
            "diff --git a/e b/e\nold mode 100755\nnew mode 100644\n",
        )
        .unwrap();
        assert!(!files["e"].executable);
        apply_to(&mut files, "diff --git a/e b/e\ndeleted file mode 100644\n").unwrap();
        assert!(!files.contains_key("e"));
    }

    #[test]
    fn what_is_no_patch_for_a_tree_is_refused() {
        for (patch, why) in [
            ("hello", "no file's changes"),
            ("--- a/../x\n+++ b/../x\n@@ -0,0 +1 @@\n+x\n", "not allowed"),
            (
                "--- /dev/null\n+++ b//etc/x\n@@ -0,0 +1 @@\n+x\n",
                "not allowed",
            ),
            (
                "--- /dev/null\n+++ b/.Git/hooks/x\n@@ -0,0 +1 @@\n+x\n",
                "not allowed",
            ),
            (
                "diff --git a/l b/l\nnew file mode 120000\n--- /dev/null\n+++ b/l\n@@ -0,0 +1 @@\n+x\n",
                "regular",
            ),
            (
                "diff --git a/x b/x\nindex 1..2\nGIT binary patch\n",
                "binary",
            ),
            ("--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n-a\n", "cut short"),
            (
                "--- /dev/null\n+++ b/x\n@@ -0,0 +1 @@\n+x\n",
                "already exists",
            ),
            (
                "--- a/x\n+++ /dev/null\n@@ -1 +0,0 @@\n-a\n",
                "would be left",
            ),
        ] {
            let error = one("a\nb\n", patch).unwrap_err();
            // A deletion of half a file fails at its end or at its place.
            assert!(
                error.contains(why) || error.contains("does not apply"),
                "{patch}: {error}"
            );
        }
        assert_eq!(one("a\n", " \n").unwrap(), "a\n");
    }
}
