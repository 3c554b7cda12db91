//! Text edits and the diffs that they make.

use gametape_environment::tree::{Entry, Snapshot};
use similar::{ChangeTag, TextDiff};
use std::ops::Range;

/// Replaces a range of bytes; everything else keeps its formatting.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Edit {
    /// Start of the replaced bytes.
    pub start: usize,
    /// End of the replaced bytes.
    pub end: usize,
    /// What comes in their place.
    pub replacement: String,
}

impl Edit {
    /// An edit of a range.
    pub fn new(range: Range<usize>, replacement: impl Into<String>) -> Self {
        Self {
            start: range.start,
            end: range.end,
            replacement: replacement.into(),
        }
    }

    /// The text after the edit; `None` when the range does not lie on character
    /// boundaries of the text, or when nothing would change.
    pub fn apply(&self, text: &str) -> Option<String> {
        let old = text.get(self.start..self.end)?;
        if old == self.replacement {
            return None;
        }
        Some(format!(
            "{}{}{}",
            text.get(..self.start)?,
            self.replacement,
            text.get(self.end..)?
        ))
    }
}

/// A unified diff of one file with a `diff --git` header and three lines of context,
/// as `git apply` takes it. Empty when the texts are equal.
pub fn unified_diff(path: &str, old: &str, new: &str) -> String {
    let tree = |text: &str| Snapshot::from([(path.to_owned(), Entry::plain(text.as_bytes()))]);
    gametape_environment::diff::unified(&tree(old), &tree(new)).text
}

/// What a change did, line by line.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LineChange {
    /// Lines of the old text that are gone.
    pub removed: Vec<String>,
    /// Lines of the new text that were not there.
    pub added: Vec<String>,
}

impl LineChange {
    /// Lines removed or added, whichever is more.
    pub fn size(&self) -> usize {
        self.removed.len().max(self.added.len())
    }

    /// Whether one line became another.
    pub fn is_single_line(&self) -> bool {
        self.removed.len() == 1 && self.added.len() == 1
    }
}

/// The changed lines between two texts.
pub fn line_change(old: &str, new: &str) -> LineChange {
    let mut change = LineChange::default();
    for line in TextDiff::from_lines(old, new).iter_all_changes() {
        match line.tag() {
            ChangeTag::Delete => change.removed.push(line.value().to_owned()),
            ChangeTag::Insert => change.added.push(line.value().to_owned()),
            ChangeTag::Equal => {}
        }
    }
    change
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn applies_and_refuses() {
        let edit = Edit::new(4..5, "-");
        assert_eq!(edit.apply("a = b + c").as_deref(), Some("a = - + c"));
        assert_eq!(Edit::new(0..1, "a").apply("a"), None, "nothing changes");
        assert_eq!(Edit::new(1..2, "x").apply("é"), None, "inside a character");
        assert_eq!(Edit::new(5..9, "x").apply("abc"), None, "past the end");
    }

    #[test]
    fn diffs_are_minimal_and_reverse_each_other() {
        let old = "a\nb\nc\nd\ne\nf\ng\nh\n";
        let new = "a\nb\nc\nd\nE\nf\ng\nh\n";
        assert_eq!(
            unified_diff("x/y.py", old, new),
            "diff --git a/x/y.py b/x/y.py\n--- a/x/y.py\n+++ b/x/y.py\n\
             @@ -2,7 +2,7 @@\n b\n c\n d\n-e\n+E\n f\n g\n h\n"
        );
        assert_eq!(unified_diff("x", old, old), "");
        assert!(line_change(old, new).is_single_line());
        assert_eq!(line_change(old, "a\n").size(), 7);
    }

    #[test]
    fn a_missing_last_newline_is_said() {
        let diff = unified_diff("x", "a\nb", "a\nc");
        assert!(diff.contains("\\ No newline at end of file"), "{diff}");
    }
}
