//! The text of a unified diff, with or without git's extended headers.

use std::iter::Peekable;
use std::str::Split;

/// A line of a hunk, with its line break unless the file ends without one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Line {
    /// On both sides.
    Context(Vec<u8>),
    /// Only on the old side.
    Removed(Vec<u8>),
    /// Only on the new side.
    Added(Vec<u8>),
}

impl Line {
    fn bytes_mut(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Context(bytes) | Self::Removed(bytes) | Self::Added(bytes) => bytes,
        }
    }
}

/// A changed region.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hunk {
    /// First line on the old side, from 1; 0 for an empty side.
    pub old_start: usize,
    /// Its lines.
    pub lines: Vec<Line>,
}

/// What a diff says of one file.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FilePatch {
    /// Path on the old side; `None` for a file that is made.
    pub old: Option<String>,
    /// Path on the new side; `None` for a file that is deleted.
    pub new: Option<String>,
    /// Whether the new side is executable, when the diff says so.
    pub executable: Option<bool>,
    /// Whether the old side stays (a copy).
    pub copy: bool,
    /// Regions, in order.
    pub hunks: Vec<Hunk>,
}

type Lines<'a> = Peekable<Split<'a, char>>;

/// Reads a diff. Text around its sections is skipped, as `git apply` does.
///
/// # Errors
/// One sentence on the first thing that is not understood, or when there is no section.
pub fn parse(text: &str) -> Result<Vec<FilePatch>, String> {
    let mut lines = text.split('\n').peekable();
    let mut out = Vec::new();
    while let Some(line) = lines.peek().copied() {
        if let Some(names) = line.strip_prefix("diff --git ") {
            lines.next();
            out.push(git_section(names, &mut lines)?);
        } else if line.starts_with("--- ") {
            let mut file = FilePatch::default();
            if sides(&mut file, &mut lines)? {
                hunks(&mut file, &mut lines)?;
                out.push(file);
            } else {
                lines.next();
            }
        } else {
            if line.starts_with("@@ -") {
                return Err(format!("a hunk without a file: {line}"));
            }
            lines.next();
        }
    }
    if out.is_empty() {
        return Err("no file's changes were found in the patch".to_owned());
    }
    Ok(out)
}

fn git_section(names: &str, lines: &mut Lines<'_>) -> Result<FilePatch, String> {
    let both = git_name(names.trim_end_matches('\r'));
    let mut file = FilePatch {
        old: both.clone(),
        new: both,
        ..FilePatch::default()
    };
    while let Some(line) = lines.peek().copied() {
        let line = line.trim_end_matches('\r');
        if line.starts_with("diff --git ") || line.starts_with("@@ -") {
            break;
        }
        if line.starts_with("--- ") {
            let (made, deleted) = (file.old.is_none(), file.new.is_none());
            if !sides(&mut file, lines)? {
                return Err(format!("--- without +++: {line}"));
            }
            if (made && file.old.is_some()) || (deleted && file.new.is_some()) {
                return Err(format!("the headers of {names} contradict one another"));
            }
            break;
        }
        if let Some(mode) = line.strip_prefix("new file mode ") {
            file.executable = Some(executable(mode)?);
            file.old = None;
        } else if let Some(mode) = line.strip_prefix("deleted file mode ") {
            executable(mode)?;
            file.new = None;
        } else if let Some(mode) = line.strip_prefix("old mode ") {
            executable(mode)?;
        } else if let Some(mode) = line.strip_prefix("new mode ") {
            file.executable = Some(executable(mode)?);
        } else if let Some(name) = line.strip_prefix("rename from ") {
            file.old = Some(checked(&unquoted(name)?)?);
        } else if let Some(name) = line.strip_prefix("rename to ") {
            file.new = Some(checked(&unquoted(name)?)?);
        } else if let Some(name) = line.strip_prefix("copy from ") {
            file.old = Some(checked(&unquoted(name)?)?);
            file.copy = true;
        } else if let Some(name) = line.strip_prefix("copy to ") {
            file.new = Some(checked(&unquoted(name)?)?);
        } else if line == "GIT binary patch" || line.starts_with("Binary files ") {
            return Err(format!("binary changes cannot be applied: {names}"));
        } else if !line.starts_with("similarity index ")
            && !line.starts_with("dissimilarity index ")
            && !line.starts_with("index ")
        {
            break;
        }
        lines.next();
    }
    if file.old.is_none() && file.new.is_none() {
        return Err(format!("the file's name cannot be read: {names}"));
    }
    for name in [&file.old, &file.new].into_iter().flatten() {
        checked(name)?;
    }
    hunks(&mut file, lines)?;
    Ok(file)
}

/// Regular files only: links and submodules have other modes.
fn executable(mode: &str) -> Result<bool, String> {
    match mode.trim() {
        "100644" | "100664" | "100600" => Ok(false),
        "100755" | "100775" | "100700" => Ok(true),
        other => Err(format!("mode {other}: only regular files can be changed")),
    }
}

/// The name in `a/NAME b/NAME`, when both sides are the same.
fn git_name(names: &str) -> Option<String> {
    if names.starts_with('"') {
        let end = names.get(1..)?.find("\" ")? + 2;
        let (old, new) = (names.get(..end)?, names.get(end + 1..)?);
        let old = unquoted(old).ok()?;
        let new = unquoted(new).ok()?;
        return (first_gone(&old) == first_gone(&new)).then(|| first_gone(&old))?;
    }
    let middle = names.len().checked_sub(1)? / 2;
    let (old, new) = (names.get(..middle)?, names.get(middle + 1..)?);
    (names.get(middle..middle + 1)? == " " && first_gone(old) == first_gone(new))
        .then(|| first_gone(old))?
}

/// Without the first component (`a/`, `b/`).
fn first_gone(name: &str) -> Option<String> {
    name.split_once('/').map(|(_, rest)| rest.to_owned())
}

/// Reads `--- X` and `+++ Y`; false, and nothing taken, when the second is not there.
fn sides(file: &mut FilePatch, lines: &mut Lines<'_>) -> Result<bool, String> {
    let mut ahead = lines.clone();
    let (Some(old), Some(new)) = (ahead.next(), ahead.next()) else {
        return Ok(false);
    };
    let (Some(old), Some(new)) = (old.strip_prefix("--- "), new.strip_prefix("+++ ")) else {
        return Ok(false);
    };
    file.old = side(old)?;
    file.new = side(new)?;
    if file.old.is_none() && file.new.is_none() {
        return Err("a change from nothing to nothing".to_owned());
    }
    *lines = ahead;
    Ok(true)
}

fn side(name: &str) -> Result<Option<String>, String> {
    let name = name.trim_end_matches('\r');
    let name = if name.starts_with('"') {
        unquoted(name)?
    } else {
        name.split('\t').next().unwrap_or(name).to_owned()
    };
    if name == "/dev/null" {
        return Ok(None);
    }
    let name = first_gone(&name).ok_or(format!("a path without a/ or b/: {name}"))?;
    checked(&name).map(Some)
}

/// A path that stays where it belongs.
fn checked(name: &str) -> Result<String, String> {
    let fine = !name.is_empty()
        && !name.contains('\0')
        && name.split('/').all(|part| {
            !part.is_empty() && part != "." && part != ".." && !part.eq_ignore_ascii_case(".git")
        });
    if fine {
        Ok(name.to_owned())
    } else {
        Err(format!("the path {name} is not allowed in a patch"))
    }
}

/// Undoes git's quoting of unusual names.
fn unquoted(name: &str) -> Result<String, String> {
    let Some(inner) = name.strip_prefix('"') else {
        return Ok(name.to_owned());
    };
    let bad = || format!("a quoted name cannot be read: {name}");
    let inner = inner.strip_suffix('"').ok_or_else(bad)?;
    let mut out = Vec::new();
    let mut bytes = inner.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        out.push(match bytes.next().ok_or_else(bad)? {
            b'n' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            b'a' => 7,
            b'b' => 8,
            b'v' => 11,
            b'f' => 12,
            first @ b'0'..=b'3' => {
                let mut value = first - b'0';
                for _ in 0..2 {
                    let digit = bytes
                        .next()
                        .filter(|d| (b'0'..=b'7').contains(d))
                        .ok_or_else(bad)?;
                    value = (value << 3) | (digit - b'0');
                }
                value
            }
            plain @ (b'"' | b'\\') => plain,
            _ => return Err(bad()),
        });
    }
    String::from_utf8(out).map_err(|_| bad())
}

fn hunks(file: &mut FilePatch, lines: &mut Lines<'_>) -> Result<(), String> {
    while let Some(header) = lines
        .peek()
        .copied()
        .filter(|line| line.starts_with("@@ -"))
    {
        let (old_start, old_count, new_count) =
            ranges(header).ok_or(format!("a hunk's header cannot be read: {header}"))?;
        lines.next();
        file.hunks.push(Hunk {
            old_start,
            lines: body(old_count, new_count, lines)
                .ok_or(format!("a hunk is cut short: {header}"))?,
        });
    }
    Ok(())
}

/// `@@ -start,count +start,count @@…` → old start and both counts.
fn ranges(header: &str) -> Option<(usize, usize, usize)> {
    let rest = header.strip_prefix("@@ -")?;
    let (old, rest) = rest.split_once(" +")?;
    let (new, _) = rest.split_once(" @@")?;
    let range = |text: &str| -> Option<(usize, usize)> {
        match text.split_once(',') {
            Some((start, count)) => Some((start.parse().ok()?, count.parse().ok()?)),
            None => Some((text.parse().ok()?, 1)),
        }
    };
    let ((old_start, old_count), (_, new_count)) = (range(old)?, range(new)?);
    Some((old_start, old_count, new_count))
}

/// As many lines as the header promised.
fn body(mut old: usize, mut new: usize, lines: &mut Lines<'_>) -> Option<Vec<Line>> {
    let mut out = Vec::new();
    while old > 0 || new > 0 {
        let line = lines.next()?;
        // An empty line at the very end is the text's last line break, not a line.
        if line.is_empty() && lines.peek().is_none() {
            return None;
        }
        let content = |text: &str| format!("{text}\n").into_bytes();
        match line.split_at_checked(1) {
            Some((" ", rest)) => {
                out.push(Line::Context(content(rest)));
                (old, new) = (old.checked_sub(1)?, new.checked_sub(1)?);
            }
            Some(("-", rest)) => {
                out.push(Line::Removed(content(rest)));
                old = old.checked_sub(1)?;
            }
            Some(("+", rest)) => {
                out.push(Line::Added(content(rest)));
                new = new.checked_sub(1)?;
            }
            Some(("\\", _)) => no_line_break(&mut out)?,
            // Some tools drop the blank of an empty context line.
            None => {
                out.push(Line::Context(content("")));
                (old, new) = (old.checked_sub(1)?, new.checked_sub(1)?);
            }
            Some(_) => return None,
        }
    }
    if lines.peek().is_some_and(|line| line.starts_with("\\ ")) {
        lines.next();
        no_line_break(&mut out)?;
    }
    Some(out)
}

/// `\ No newline at end of file`: of the line before.
fn no_line_break(lines: &mut [Line]) -> Option<()> {
    let bytes = lines.last_mut()?.bytes_mut();
    (bytes.pop()? == b'\n').then_some(())
}
