//! A unified diff, file by file and line by line. Pure; what cannot be read is left out,
//! because whoever applies the patch refuses it.

/// Which side of a diff a line is on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// On both.
    Both,
    /// On the old one.
    Old,
    /// On the new one.
    New,
}

/// A line of a hunk, without its sign.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Line<'a> {
    /// Where it stands.
    pub side: Side,
    /// Its text.
    pub text: &'a str,
}

/// What a patch does to one file.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FilePatch<'a> {
    /// Name afterwards, or before where there is none afterwards.
    pub path: String,
    /// Name before, if it was another.
    pub was: Option<String>,
    /// Whether the patch makes the file.
    pub made: bool,
    /// Whether the patch takes it away.
    pub gone: bool,
    /// The hunks.
    pub hunks: Vec<Vec<Line<'a>>>,
}

impl<'a> FilePatch<'a> {
    /// Lines of one kind.
    pub fn lines(&self, side: Side) -> impl Iterator<Item = &'a str> + '_ {
        let lines = self.hunks.iter().flatten();
        lines
            .filter(move |line| line.side == side)
            .map(|line| line.text)
    }

    /// Whether what the file had before, as far as the patch shows it, contains this.
    pub fn had(&self, text: &str) -> bool {
        let mut lines = self.hunks.iter().flatten();
        lines.any(|line| line.side != Side::New && line.text.contains(text))
    }
}

/// Reads a patch.
pub fn read(patch: &str) -> Vec<FilePatch<'_>> {
    let mut files: Vec<FilePatch<'_>> = Vec::new();
    let mut lines = patch.lines().peekable();
    // Whether `---` belongs to the header that `diff --git` began.
    let mut header = false;
    while let Some(line) = lines.next() {
        if let Some(names) = line.strip_prefix("diff --git ") {
            let new = names.rsplit_once(" b/").map_or(names, |(_, new)| new);
            files.push(FilePatch {
                path: new.trim_end_matches('"').to_owned(),
                ..FilePatch::default()
            });
            header = true;
        } else if line.starts_with("--- ")
            && lines.peek().is_some_and(|next| next.starts_with("+++ "))
        {
            let old = name(line.get(4..).unwrap_or_default());
            let new = name(
                lines
                    .next()
                    .and_then(|line| line.get(4..))
                    .unwrap_or_default(),
            );
            if !header {
                files.push(FilePatch::default());
            }
            header = false;
            if let Some(file) = files.last_mut() {
                file.made |= old.is_none();
                file.gone |= new.is_none();
                if old.is_some() && new.is_some() && old != new {
                    file.was.clone_from(&old);
                }
                if let Some(path) = new.or(old) {
                    file.path = path;
                }
            }
        } else if line.starts_with("@@ -") {
            let Some(file) = files.last_mut() else {
                continue;
            };
            header = false;
            let (mut old, mut new) = counts(line).unwrap_or((0, 0));
            let mut hunk = Vec::new();
            while old > 0 || new > 0 {
                let Some(line) = lines.peek() else { break };
                let (side, text) = match line.as_bytes().first() {
                    Some(b'+') => (Side::New, line.get(1..)),
                    Some(b'-') => (Side::Old, line.get(1..)),
                    Some(b' ') => (Side::Both, line.get(1..)),
                    None => (Side::Both, Some("")),
                    Some(b'\\') => {
                        lines.next();
                        continue;
                    }
                    Some(_) => break,
                };
                old = old.saturating_sub(usize::from(side != Side::New));
                new = new.saturating_sub(usize::from(side != Side::Old));
                hunk.push(Line {
                    side,
                    text: text.unwrap_or_default(),
                });
                lines.next();
            }
            file.hunks.push(hunk);
        } else if let Some(file) = files.last_mut() {
            file.made |= line.starts_with("new file mode ") && header;
            file.gone |= line.starts_with("deleted file mode ") && header;
            if let Some(old) = line.strip_prefix("rename from ")
                && header
            {
                file.was = Some(old.to_owned());
            }
        }
    }
    files
}

/// The name on a `---` or `+++` line without its first component; `None` for no file.
fn name(text: &str) -> Option<String> {
    let text = text
        .split('\t')
        .next()
        .unwrap_or(text)
        .trim()
        .trim_matches('"');
    (text != "/dev/null").then(|| {
        ["a/", "b/"]
            .iter()
            .find_map(|side| text.strip_prefix(side))
            .unwrap_or(text)
            .to_owned()
    })
}

/// `@@ -1,2 +1 @@` → (2, 1).
fn counts(header: &str) -> Option<(usize, usize)> {
    let mut words = header.strip_prefix("@@ ")?.split(' ');
    let mut count = |sign: char| {
        let range = words.next()?.strip_prefix(sign)?;
        range
            .split_once(',')
            .map_or(Some(1), |(_, count)| count.parse().ok())
    };
    Some((count('-')?, count('+')?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn files_and_sides_are_told_apart() {
        let patch = "diff --git a/x.py b/x.py\nindex 1..2 100644\n--- a/x.py\n+++ b/x.py\n@@ -1,3 +1,3 @@ def f\n a\n--- b\n+++ c\n d\ndiff --git a/n.py b/n.py\nnew file mode 100644\n--- /dev/null\n+++ b/n.py\n@@ -0,0 +1 @@\n+z\n";
        let files = read(patch);
        assert_eq!(files.len(), 2);
        assert_eq!(files[0].path, "x.py");
        assert_eq!(files[0].lines(Side::Old).collect::<Vec<_>>(), ["-- b"]);
        assert_eq!(files[0].lines(Side::New).collect::<Vec<_>>(), ["++ c"]);
        assert!(files[0].had("-- b") && !files[0].had("++ c"));
        assert!(files[1].made && !files[0].made);
    }

    #[test]
    fn a_file_that_is_taken_away_keeps_its_name() {
        let files = read("--- a/t.py\n+++ /dev/null\n@@ -1 +0,0 @@\n-a\n");
        assert_eq!((files[0].path.as_str(), files[0].gone), ("t.py", true));
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "(diff --git a/x b/x|--- a/x|\\+\\+\\+ b/x|@@ -1,9 \\+1,99999999999 @@|[-+ @é\\\\a]|\n)*") {
            read(&text);
        }
    }
}
