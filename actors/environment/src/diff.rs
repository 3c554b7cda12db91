//! What changed in a tree, as a unified diff that `git apply` takes. Computed from
//! bytes: an agent may have planted git configuration, hooks or attributes in its tree,
//! so no git runs there. Pure.

use crate::tree::{Entry, Snapshot};
use similar::{Algorithm, ChangeTag, DiffOp};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// Lines around a change.
const CONTEXT: usize = 3;
/// A file's diff that takes longer than this becomes coarser, never wrong.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whether a path is a by-product of running Python, or git's own, and never part of a
/// change.
pub fn is_by_product(path: &str) -> bool {
    path.ends_with(".pyc")
        || path
            .split('/')
            .any(|part| matches!(part, "__pycache__" | ".pytest_cache" | ".git"))
}

/// A diff and what it could not tell.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Diff {
    /// Files in order of path; empty when nothing changed.
    pub text: String,
    /// Changed files that are not UTF-8 on one of their sides.
    pub binary: Vec<String>,
}

/// The change from `base` to `now`, without by-products.
pub fn unified(base: &Snapshot, now: &Snapshot) -> Diff {
    let mut out = Diff::default();
    let mut paths: Vec<&String> = base.keys().chain(now.keys()).collect();
    paths.sort_unstable();
    paths.dedup();
    for path in paths {
        let (old, new) = (base.get(path), now.get(path));
        if old == new || is_by_product(path) {
            continue;
        }
        match (text(old), text(new)) {
            (Some(old_text), Some(new_text)) => {
                // Writing to a String cannot fail.
                let _ = section(&mut out.text, path, (old, old_text), (new, new_text));
            }
            _ => out.binary.push(path.clone()),
        }
    }
    out
}

fn text(entry: Option<&Entry>) -> Option<&str> {
    match entry {
        Some(entry) => std::str::from_utf8(&entry.bytes)
            .ok()
            .filter(|text| !text.contains('\0')),
        None => Some(""),
    }
}

fn section(
    out: &mut String,
    path: &str,
    (old, old_text): (Option<&Entry>, &str),
    (new, new_text): (Option<&Entry>, &str),
) -> std::fmt::Result {
    let (a, b) = (quoted(&format!("a/{path}")), quoted(&format!("b/{path}")));
    let mode = |entry: &Entry| if entry.executable { "100755" } else { "100644" };
    writeln!(out, "diff --git {a} {b}")?;
    match (old, new) {
        (None, Some(new)) => writeln!(out, "new file mode {}", mode(new))?,
        (Some(old), None) => writeln!(out, "deleted file mode {}", mode(old))?,
        (Some(old), Some(new)) if old.executable != new.executable => {
            writeln!(out, "old mode {}\nnew mode {}", mode(old), mode(new))?;
        }
        _ => {}
    }
    if old_text == new_text {
        return Ok(());
    }
    // A tab after a name with blanks tells where it ends.
    let tab = if path.contains(' ') { "\t" } else { "" };
    let name = |entry: Option<&Entry>, name: String| match entry {
        Some(_) => format!("{name}{tab}"),
        None => "/dev/null".to_owned(),
    };
    writeln!(out, "--- {}\n+++ {}", name(old, a), name(new, b))?;
    // Only line feeds end lines: a lone carriage return is part of its line.
    let old: Vec<&str> = old_text.split_inclusive('\n').collect();
    let new: Vec<&str> = new_text.split_inclusive('\n').collect();
    let deadline = Some(Instant::now() + PATIENCE);
    let ops = similar::capture_diff_slices_deadline(Algorithm::Myers, &old, &new, deadline);
    for group in similar::group_diff_ops(placed(&ops), CONTEXT) {
        hunk(out, &group, &old, &new)?;
    }
    Ok(())
}

/// The same operations, each where its predecessors end. similar 2.7 leaves the other
/// side's index of a deletion or insertion stale when it moves one, and the headers of
/// hunks are made of those.
fn placed(ops: &[DiffOp]) -> Vec<DiffOp> {
    let (mut old_index, mut new_index) = (0, 0);
    ops.iter()
        .map(|op| {
            let (old_len, new_len) = (op.old_range().len(), op.new_range().len());
            let op = match op {
                DiffOp::Equal { len, .. } => DiffOp::Equal {
                    old_index,
                    new_index,
                    len: *len,
                },
                DiffOp::Delete { .. } => DiffOp::Delete {
                    old_index,
                    old_len,
                    new_index,
                },
                DiffOp::Insert { .. } => DiffOp::Insert {
                    old_index,
                    new_index,
                    new_len,
                },
                DiffOp::Replace { .. } => DiffOp::Replace {
                    old_index,
                    old_len,
                    new_index,
                    new_len,
                },
            };
            old_index += old_len;
            new_index += new_len;
            op
        })
        .collect()
}

fn hunk(out: &mut String, ops: &[DiffOp], old: &[&str], new: &[&str]) -> std::fmt::Result {
    let (Some(first), Some(last)) = (ops.first(), ops.last()) else {
        return Ok(());
    };
    let range = |from: usize, to: usize| match to - from {
        // An empty side is named by the line before it, a single line by itself.
        0 => format!("{from},0"),
        1 => format!("{}", from + 1),
        count => format!("{},{count}", from + 1),
    };
    writeln!(
        out,
        "@@ -{} +{} @@",
        range(first.old_range().start, last.old_range().end),
        range(first.new_range().start, last.new_range().end)
    )?;
    for op in ops {
        for change in op.iter_changes(old, new) {
            let sign = match change.tag() {
                ChangeTag::Equal => ' ',
                ChangeTag::Delete => '-',
                ChangeTag::Insert => '+',
            };
            let line: &str = change.value();
            write!(out, "{sign}{line}")?;
            if !line.ends_with('\n') {
                writeln!(out, "\n\\ No newline at end of file")?;
            }
        }
    }
    Ok(())
}

/// A name as git writes it: quoted when it holds anything unusual.
fn quoted(name: &str) -> String {
    if name
        .bytes()
        .all(|b| (b' '..0x7f).contains(&b) && b != b'"' && b != b'\\')
    {
        return name.to_owned();
    }
    let mut out = String::from("\"");
    for byte in name.bytes() {
        let _ = match byte {
            b'"' | b'\\' => write!(out, "\\{}", char::from(byte)),
            b' '..0x7f => write!(out, "{}", char::from(byte)),
            _ => write!(out, "\\{byte:03o}"),
        };
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patch::apply_to;
    use proptest::prelude::*;

    /// Trees with names, contents and modes that break diffs.
    fn trees() -> impl Strategy<Value = Snapshot> {
        let name = prop_oneof![
            "[ab]{1,2}/[cd]\\.py",
            "[ab]{1,2} [cd]",
            "ü[ab]",
            "q\"[ab]\\\\"
        ];
        let text = "([ab x\r-]{0,3}\n){0,14}[ab+]{0,2}";
        prop::collection::btree_map(name, (text, any::<bool>()), 0..4).prop_map(|map| {
            map.into_iter()
                .map(|(name, (text, executable))| {
                    (
                        name,
                        Entry {
                            executable,
                            ..Entry::plain(text.as_bytes())
                        },
                    )
                })
                .collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1024))]
        #[test]
        fn applying_the_diff_gives_the_changed_tree(base in trees(), now in trees()) {
            let diff = unified(&base, &now);
            let mut applied = base.clone();
            let answer = apply_to(&mut applied, &diff.text);
            prop_assert_eq!(answer, Ok(()), "{}", diff.text);
            prop_assert_eq!(applied, now, "{}", diff.text);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn git_applies_it_too(base in trees(), now in trees()) {
            let diff = unified(&base, &now).text;
            if diff.is_empty() {
                return Ok(());
            }
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path().join("t");
            crate::tree::write(&root, &base, None).unwrap();
            let patch = dir.path().join("p");
            std::fs::write(&patch, &diff).unwrap();
            let git = std::process::Command::new("git")
                .args(["apply", "--whitespace=nowarn"]).arg(&patch)
                .current_dir(&root)
                .env("GIT_CEILING_DIRECTORIES", dir.path())
                .env("GIT_CONFIG_NOSYSTEM", "1")
                .env("GIT_CONFIG_GLOBAL", "/dev/null")
                .output();
            let Ok(git) = git else {
                eprintln!("SKIPPED: git_applies_it_too: no git");
                return Ok(());
            };
            prop_assert!(git.status.success(), "{}\n{}", String::from_utf8_lossy(&git.stderr), diff);
            let found = crate::tree::scan(&root, |_| false).unwrap();
            prop_assert_eq!(found.files, now, "{}", diff);
        }
    }

    #[test]
    fn by_products_and_binary_files_are_left_out() {
        let base = Snapshot::from([("a.py".into(), Entry::plain(b"x\n"))]);
        let mut now = base.clone();
        now.insert("__pycache__/a.pyc".into(), Entry::plain(b"1"));
        now.insert(".git/config".into(), Entry::plain(b"1"));
        now.insert("b.bin".into(), Entry::plain(&[0xff, 0xfe]));
        let diff = unified(&base, &now);
        assert_eq!((diff.text.as_str(), diff.binary.len()), ("", 1));
    }

    #[test]
    fn it_looks_like_gits() {
        let base = Snapshot::from([("a.py".into(), Entry::plain(b"x\ny\n"))]);
        let now = Snapshot::from([("a.py".into(), Entry::plain(b"x\nz\n"))]);
        assert_eq!(
            unified(&base, &now).text,
            "diff --git a/a.py b/a.py\n--- a/a.py\n+++ b/a.py\n@@ -1,2 +1,2 @@\n x\n-y\n+z\n"
        );
    }
}
