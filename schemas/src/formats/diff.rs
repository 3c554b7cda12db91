//! Unified diffs as text: which files they touch, their reverse, and what they change
//! once layout is taken away.
//!
//! A diff is read by the counts in its hunk headers, so that a removed line `-- a/x` is
//! not taken for a file header. Line ends are kept as they are, `\r\n` included.

use std::collections::BTreeSet;

/// A diff in pieces, each a slice of its text with the line end.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Piece<'a> {
    /// A line outside of hunks.
    Header(&'a str),
    /// A hunk: its header line and its body.
    Hunk(&'a str, Vec<&'a str>),
    /// One of the two data blocks of a git binary patch.
    Binary(Vec<&'a str>),
}

/// The numbers of a hunk header, each with its count, and what follows them.
struct Ranges<'a> {
    old: &'a str,
    new: &'a str,
    tail: &'a str,
}

impl<'a> Ranges<'a> {
    fn of(line: &'a str) -> Option<Self> {
        let (old, rest) = line.strip_prefix("@@ -")?.split_once(" +")?;
        let (new, tail) = rest.split_once(" @@")?;
        Some(Self { old, new, tail })
    }

    fn count(range: &str) -> Option<usize> {
        match range.split_once(',') {
            Some((_, count)) => count.parse().ok(),
            None => range.parse::<usize>().ok().map(|_| 1),
        }
    }
}

fn pieces(patch: &str) -> Result<Vec<Piece<'_>>, String> {
    let mut lines = patch.split_inclusive('\n').enumerate().peekable();
    let mut out = Vec::new();
    while let Some((index, line)) = lines.next() {
        if line.starts_with("@@ -") {
            let wrong = || format!("line {} of the patch is no hunk header", index + 1);
            let ranges = Ranges::of(line).ok_or_else(wrong)?;
            let mut old = Ranges::count(ranges.old).ok_or_else(wrong)?;
            let mut new = Ranges::count(ranges.new).ok_or_else(wrong)?;
            let mut body = Vec::new();
            while old > 0 || new > 0 {
                let Some((index, line)) = lines.next() else {
                    return Err("the patch ends inside of a hunk".to_owned());
                };
                let too_much = || format!("line {} of the patch is one too many", index + 1);
                match line.as_bytes().first() {
                    Some(b'-') => old = old.checked_sub(1).ok_or_else(too_much)?,
                    Some(b'+') => new = new.checked_sub(1).ok_or_else(too_much)?,
                    Some(b'\\') => {}
                    // Mailers and editors take the blank of an empty line away.
                    Some(b' ' | b'\n' | b'\r') => {
                        old = old.checked_sub(1).ok_or_else(too_much)?;
                        new = new.checked_sub(1).ok_or_else(too_much)?;
                    }
                    _ => return Err(format!("line {} does not belong in a hunk", index + 1)),
                }
                body.push(line);
            }
            while let Some((_, line)) = lines.next_if(|(_, line)| line.starts_with('\\')) {
                body.push(line);
            }
            out.push(Piece::Hunk(line, body));
        } else if line.starts_with("literal ") || line.starts_with("delta ") {
            let mut block = vec![line];
            for (_, line) in lines.by_ref() {
                block.push(line);
                if line.trim_end().is_empty() {
                    break;
                }
            }
            out.push(Piece::Binary(block));
        } else {
            out.push(Piece::Header(line));
        }
    }
    Ok(out)
}

/// The path of a `--- a/x` or `+++ b/x` line; `None` for `/dev/null`.
fn path_of(rest: &str) -> Option<&str> {
    let path = rest.split('\t').next().unwrap_or(rest).trim_end();
    let path = path.trim_matches('"');
    (path != "/dev/null").then(|| {
        path.strip_prefix("a/")
            .or_else(|| path.strip_prefix("b/"))
            .unwrap_or(path)
    })
}

/// The two paths of `diff --git a/x b/y`. Names with blanks are told apart by the two
/// being equal, as they are unless a file is renamed.
fn git_paths(rest: &str) -> Option<(&str, &str)> {
    let rest = rest.trim_end();
    let inner = rest.strip_prefix("a/")?;
    let half = inner.len().checked_sub(3)? / 2;
    if let (Some(left), Some(right)) = (inner.get(..half), inner.get(half + 3..))
        && left == right
        && inner.get(half..half + 3) == Some(" b/")
    {
        return Some((left, right));
    }
    inner.split_once(" b/")
}

/// Paths of the files that a patch touches, each once, in the order of the patch: where
/// they are after it, or were before it if it removes them. Of a text that is no diff,
/// none.
pub fn files(patch: &str) -> Vec<String> {
    let Ok(pieces) = pieces(patch) else {
        return Vec::new();
    };
    let mut seen = BTreeSet::new();
    let mut out: Vec<String> = Vec::new();
    let mut old = None;
    for piece in &pieces {
        let Piece::Header(line) = piece else { continue };
        let found = if let Some(rest) = line.strip_prefix("diff --git ") {
            git_paths(rest).map(|(_, new)| new)
        } else if let Some(rest) = line.strip_prefix("--- ") {
            old = path_of(rest);
            None
        } else if let Some(rest) = line.strip_prefix("+++ ") {
            path_of(rest).or(old)
        } else {
            None
        };
        if let Some(path) = found
            && seen.insert(path)
        {
            out.push(path.to_owned());
        }
    }
    out
}

/// The patch that takes back what a patch does. Twice reversed is the patch again, if
/// it removes lines before it adds others, as tools write it.
///
/// # Errors
/// In words: the text is no diff, or a binary change whose content is not in it, or a
/// copy of a file.
pub fn reverse(patch: &str) -> Result<String, String> {
    let pieces = pieces(patch)?;
    let mut out = String::with_capacity(patch.len());
    let mut at = 0;
    while let Some(piece) = pieces.get(at) {
        match piece {
            Piece::Hunk(header, body) => reverse_hunk(header, body, &mut out)?,
            Piece::Binary(first) => {
                let Some(Piece::Binary(second)) = pieces.get(at + 1) else {
                    return Err("a binary change without its way back".to_owned());
                };
                second
                    .iter()
                    .chain(first)
                    .for_each(|line| out.push_str(line));
                at += 1;
            }
            Piece::Header(line) => at += reverse_header(line, pieces.get(at + 1), &mut out)?,
        }
        at += 1;
    }
    Ok(out)
}

/// Writes the reverse of a line outside of hunks; how many more pieces were used.
fn reverse_header(line: &str, next: Option<&Piece>, out: &mut String) -> Result<usize, String> {
    // Two lines that stand one after the other and change places.
    const PAIRS: [(&str, &str); 3] = [
        ("--- ", "+++ "),
        ("rename from ", "rename to "),
        ("old mode ", "new mode "),
    ];
    for (first, second) in PAIRS {
        let Some(old) = line.strip_prefix(first) else {
            continue;
        };
        let Some(new) = next.and_then(|piece| match piece {
            Piece::Header(line) => line.strip_prefix(second),
            _ => None,
        }) else {
            continue;
        };
        let (new, old) = if first == "--- " {
            (turned(new, "b/", "a/"), turned(old, "a/", "b/"))
        } else {
            (new.to_owned(), old.to_owned())
        };
        out.push_str(&format!("{first}{new}{second}{old}"));
        return Ok(1);
    }
    if let Some(rest) = line.strip_prefix("new file mode ") {
        out.push_str(&format!("deleted file mode {rest}"));
    } else if let Some(rest) = line.strip_prefix("deleted file mode ") {
        out.push_str(&format!("new file mode {rest}"));
    } else if let Some((old, rest)) = line
        .strip_prefix("index ")
        .and_then(|rest| rest.split_once(".."))
    {
        let end = rest.find([' ', '\r', '\n']).unwrap_or(rest.len());
        let (new, tail) = rest.split_at_checked(end).unwrap_or((rest, ""));
        out.push_str(&format!("index {new}..{old}{tail}"));
    } else if let Some((old, new)) = line.strip_prefix("diff --git ").and_then(git_paths) {
        let end = line.get(line.trim_end().len()..).unwrap_or("\n");
        out.push_str(&format!("diff --git a/{new} b/{old}{end}"));
    } else if line.starts_with("copy ") {
        return Err("a copy of a file cannot be taken back".to_owned());
    } else if line.starts_with("Binary files ") {
        return Err("a binary change whose content is not in the patch".to_owned());
    } else {
        out.push_str(line);
    }
    Ok(0)
}

/// A path on the other side of a diff.
fn turned(path: &str, from: &str, to: &str) -> String {
    match path.strip_prefix(from) {
        Some(rest) => format!("{to}{rest}"),
        None => path.to_owned(),
    }
}

fn reverse_hunk(header: &str, body: &[&str], out: &mut String) -> Result<(), String> {
    let ranges = Ranges::of(header).ok_or("a hunk without a header")?;
    out.push_str(&format!(
        "@@ -{} +{} @@{}",
        ranges.new, ranges.old, ranges.tail
    ));
    // A run of changes: what was added is now removed and comes first. A note on a
    // missing line end belongs to the line before it.
    let (mut removed, mut added) = (String::new(), String::new());
    let mut last = b' ';
    for line in body {
        let kind = line.as_bytes().first().copied().unwrap_or(b' ');
        let rest = line.get(1..).unwrap_or("");
        match (kind, last) {
            (b'+', _) => removed.push_str(&format!("-{rest}")),
            (b'-', _) => added.push_str(&format!("+{rest}")),
            (b'\\', b'+') => removed.push_str(line),
            (b'\\', b'-') => added.push_str(line),
            _ => {
                out.push_str(&std::mem::take(&mut removed));
                out.push_str(&std::mem::take(&mut added));
                out.push_str(line);
            }
        }
        if kind != b'\\' {
            last = kind;
        }
    }
    out.push_str(&removed);
    out.push_str(&added);
    Ok(())
}

/// What a patch changes, whatever its context, line numbers, spacing and order of files:
/// for each file its path, and its removed and added lines without their outer blanks.
/// Empty for a text that is no diff or changes nothing but blanks.
pub fn normalised(patch: &str) -> String {
    let Ok(pieces) = pieces(patch) else {
        return String::new();
    };
    let mut files: Vec<String> = Vec::new();
    let mut path = "";
    let mut current = String::new();
    for piece in &pieces {
        match piece {
            Piece::Header(line) => {
                let found = line.strip_prefix("+++ ").or(line.strip_prefix("--- "));
                if line.starts_with("diff --git ") || line.starts_with("--- ") {
                    files.push(std::mem::take(&mut current));
                    path = "";
                }
                if let Some(found) = found.and_then(path_of) {
                    path = found;
                }
            }
            Piece::Hunk(_, body) => {
                for line in body {
                    let (sign, rest) = line.split_at_checked(1).unwrap_or(("", ""));
                    if matches!(sign, "+" | "-") && !rest.trim().is_empty() {
                        if current.is_empty() {
                            current = format!("{path}\n");
                        }
                        current.push_str(sign);
                        current.push_str(rest.trim());
                        current.push('\n');
                    }
                }
            }
            Piece::Binary(block) => block.iter().for_each(|line| current.push_str(line)),
        }
    }
    files.push(current);
    files.sort();
    files.concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CHANGE: &str = "diff --git a/x.py b/x.py\nindex 11..22 100644\n--- a/x.py\n+++ b/x.py\n\
        @@ -1,3 +1,3 @@ def f():\n one\n--- two\n+++ three\n four\n";
    const NEW: &str = "diff --git a/n b/n\nnew file mode 100755\nindex 0..5\n--- /dev/null\n+++ b/n\n\
        @@ -0,0 +1 @@\n+x\n\\ No newline at end of file\n";
    const RENAME: &str = "diff --git a/old name b/new name\nsimilarity index 100%\n\
        rename from old name\nrename to new name\n";
    const BINARY: &str = "diff --git a/b.bin b/b.bin\nindex 1..2 100644\nGIT binary patch\n\
        literal 3\nKcmZQzU|?ut00IC2\n\nliteral 0\nHcmV?d00001\n\n";

    #[test]
    fn reversing_takes_every_kind_of_change_back() {
        let back = reverse(CHANGE).unwrap();
        assert!(back.contains("index 22..11 100644\n--- a/x.py\n+++ b/x.py\n@@ -1,3 +1,3 @@ def f():\n one\n-++ three\n+-- two\n four\n"), "{back}");
        let back = reverse(NEW).unwrap();
        assert!(back.contains("deleted file mode 100755\nindex 5..0\n--- a/n\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n\\ No"), "{back}");
        let back = reverse(RENAME).unwrap();
        assert!(
            back.contains("diff --git a/new name b/old name\n"),
            "{back}"
        );
        assert!(back.contains("rename from new name\nrename to old name\n"));
        assert!(
            reverse(BINARY)
                .unwrap()
                .contains("literal 0\nHcmV?d00001\n\nliteral 3\n")
        );
        for patch in [CHANGE, NEW, RENAME, BINARY, ""] {
            assert_eq!(reverse(&reverse(patch).unwrap()).unwrap(), patch);
        }
        let crlf = CHANGE.replace('\n', "\r\n");
        assert_eq!(reverse(&reverse(&crlf).unwrap()).unwrap(), crlf);
        assert_eq!(files(&crlf), ["x.py"]);
    }

    #[test]
    fn what_cannot_be_reversed_is_said() {
        for (patch, word) in [
            ("@@ -1,2 +1,2 @@\n a\n", "ends inside"),
            ("@@ nonsense", ""),
            ("@@ -x +1 @@\n", "no hunk header"),
            ("@@ -1 +1 @@\n?\n", "does not belong"),
            ("Binary files a/x and b/x differ\n", "not in the patch"),
            ("copy from a\ncopy to b\n", "copy"),
        ] {
            match reverse(patch) {
                Ok(same) => assert_eq!((same.as_str(), word), (patch, "")),
                Err(message) => assert!(!word.is_empty() && message.contains(word), "{message}"),
            }
        }
    }

    #[test]
    fn files_are_told_whatever_happens_to_them() {
        let all = format!("{CHANGE}{NEW}{RENAME}{BINARY}{}", reverse(NEW).unwrap());
        assert_eq!(files(&all), ["x.py", "n", "new name", "b.bin"]);
        assert_eq!(
            files("--- a/x\t2020\n+++ b/x\t2021\n@@ -1 +1 @@\n-a\n+b\n"),
            ["x"]
        );
        assert_eq!(files("no diff"), Vec::<String>::new());
    }

    #[test]
    fn layout_does_not_matter_to_the_normal_form() {
        let moved = CHANGE
            .replace("@@ -1,3 +1,3 @@ def f():\n one", "@@ -9,3 +9,3 @@\n other")
            .replace("+++ three", "+++ three  ");
        assert_eq!(normalised(&moved), normalised(CHANGE));
        assert_eq!(
            normalised(&format!("{NEW}{CHANGE}")),
            normalised(&format!("{CHANGE}{NEW}"))
        );
        assert_ne!(
            normalised(CHANGE),
            normalised(&CHANGE.replace("x.py", "y.py"))
        );
        assert_eq!(normalised("no diff"), "");
    }

    proptest! {
        #[test]
        fn the_reverse_applies(old in "([ab -+@]{0,3}\n){0,8}[ab]?", new in "([ab -+@]{0,3}\n){0,8}[ab]?") {
            let patch = diffy::create_patch(&old, &new).to_string();
            let back = reverse(&patch).unwrap();
            let parsed = diffy::Patch::from_str(&back).unwrap();
            prop_assert_eq!(diffy::apply(&new, &parsed).unwrap(), old);
        }

        #[test]
        fn any_text_is_reversed_or_refused(text in "([-+ @\\\\a1,]{0,12}\n){0,12}") {
            let _ = (reverse(&text), files(&text), normalised(&text));
        }
    }
}
