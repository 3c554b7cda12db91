//! Just enough of unified diffs to show what changed and where.

/// One hunk, without its context lines.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Hunk {
    /// Path after the change (before it for deletions), without `a/` or `b/`.
    pub file: String,
    /// Removed and added lines with their sign, in order.
    pub changes: Vec<String>,
    /// Lines of the old file that were removed, or at which something was inserted.
    pub touched: Vec<usize>,
}

/// The hunks of a unified diff. Lines that belong to none are skipped: whoever made
/// the patch has checked it.
pub(crate) fn hunks(patch: &str) -> Vec<Hunk> {
    let mut found: Vec<Hunk> = Vec::new();
    let (mut old_path, mut file) = (String::new(), String::new());
    // Lines of each side that the open hunk still owes, and the next old line.
    let (mut old_left, mut new_left, mut line) = (0_usize, 0_usize, 0_usize);
    for text in patch.lines() {
        if old_left == 0 && new_left == 0 {
            if let Some(path) = text.strip_prefix("--- ") {
                old_path = clean(path);
            } else if let Some(path) = text.strip_prefix("+++ ") {
                file = clean(path);
                if file == "/dev/null" {
                    file = old_path.clone();
                }
            } else if let Some((start, old, new)) = header(text) {
                (line, old_left, new_left) = (start, old, new);
                found.push(Hunk {
                    file: file.clone(),
                    changes: Vec::new(),
                    touched: Vec::new(),
                });
            }
            continue;
        }
        let Some(hunk) = found.last_mut() else {
            continue;
        };
        match text.as_bytes().first() {
            Some(b'-') => {
                hunk.changes.push(text.to_owned());
                hunk.touched.push(line);
                line += 1;
                old_left = old_left.saturating_sub(1);
            }
            Some(b'+') => {
                hunk.changes.push(text.to_owned());
                hunk.touched.push(line);
                new_left = new_left.saturating_sub(1);
            }
            Some(b'\\') => {}
            _ => {
                line += 1;
                old_left = old_left.saturating_sub(1);
                new_left = new_left.saturating_sub(1);
            }
        }
    }
    found
}

/// A path of a `---` or `+++` line: prefix and time stamp gone.
fn clean(path: &str) -> String {
    let path = path.split('\t').next().unwrap_or(path).trim();
    path.strip_prefix("a/")
        .or_else(|| path.strip_prefix("b/"))
        .unwrap_or(path)
        .to_owned()
}

/// `@@ -start,old +start,new @@` as (old start, old lines, new lines).
fn header(text: &str) -> Option<(usize, usize, usize)> {
    let mut parts = text.strip_prefix("@@ -")?.split(' ');
    let range = |part: &str| -> Option<(usize, usize)> {
        match part.split_once(',') {
            Some((start, count)) => Some((start.parse().ok()?, count.parse().ok()?)),
            None => Some((part.parse().ok()?, 1)),
        }
    };
    let (start, old) = range(parts.next()?)?;
    let (_, new) = range(parts.next()?.strip_prefix('+')?)?;
    Some((start, old, new))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PATCH: &str = "diff --git a/m.py b/m.py\nindex 1..2 100644\n--- a/m.py\n+++ b/m.py\n\
        @@ -2,3 +2,3 @@ def f():\n a\n--- b\n+++ c\n d\n@@ -9 +9,2 @@\n x\n+y\n\
        --- a/gone.py\n+++ /dev/null\n@@ -1 +0,0 @@\n-z\n\\ No newline at end of file\n";

    #[test]
    fn changes_and_places_are_found_even_when_they_look_like_headers() {
        let all = hunks(PATCH);
        let lines = |at: usize| all[at].changes.join("|");
        assert_eq!(all.len(), 3);
        assert_eq!(
            (lines(0).as_str(), &all[0].touched[..]),
            ("--- b|+++ c", &[3, 4][..])
        );
        assert_eq!((lines(1).as_str(), &all[1].touched[..]), ("+y", &[10][..]));
        assert_eq!((all[2].file.as_str(), lines(2).as_str()), ("gone.py", "-z"));
        assert!(hunks("").is_empty());
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(text in "(?s)[-+@ a0-9,\n\\\\]{0,200}") {
            let _ = hunks(&text);
            let _ = hunks(&format!("@@ -1,3 +1,2 @@\n{text}"));
        }
    }
}
