//! What changed in a tree, as a unified diff that `git apply` takes. Computed from
//! bytes: an agent may have planted git configuration, hooks or attributes in its tree,
//! so no git runs there.

use similar::TextDiff;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// A file larger than this is not part of any diff; it is named instead.
pub const MAX_FILE: u64 = 4 << 20;

/// A tree's text files by relative path.
pub type Files = BTreeMap<String, Vec<u8>>;

/// Whether a path is a by-product of running Python and never part of a change.
pub fn is_by_product(path: &str) -> bool {
    path.ends_with(".pyc")
        || path
            .split('/')
            .any(|part| matches!(part, "__pycache__" | ".pytest_cache" | ".git"))
}

/// Unified diff from `base` to `now`, files in order of path; empty when equal. Files
/// that are not UTF-8 on either side cannot be told in a text diff and are left out.
pub fn unified(base: &Files, now: &Files) -> String {
    let mut paths: Vec<&String> = base.keys().chain(now.keys()).collect();
    paths.sort_unstable();
    paths.dedup();
    let mut out = String::new();
    for path in paths {
        if is_by_product(path) {
            continue;
        }
        let (old, new) = (base.get(path), now.get(path));
        if old == new {
            continue;
        }
        let text = |bytes: Option<&Vec<u8>>| match bytes {
            Some(bytes) => std::str::from_utf8(bytes).ok().map(str::to_owned),
            None => Some(String::new()),
        };
        let (Some(old_text), Some(new_text)) = (text(old), text(new)) else {
            continue;
        };
        // Writing to a String cannot fail.
        let _ = writeln!(out, "diff --git a/{path} b/{path}");
        if old.is_none() {
            let _ = writeln!(out, "new file mode 100644");
        }
        if new.is_none() {
            let _ = writeln!(out, "deleted file mode 100644");
        }
        let a = old.map_or("/dev/null".to_owned(), |_| format!("a/{path}"));
        let b = new.map_or("/dev/null".to_owned(), |_| format!("b/{path}"));
        let diff = TextDiff::from_lines(&old_text, &new_text);
        out.push_str(&diff.unified_diff().context_radius(3).header(&a, &b).to_string());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use gametape_schemas::message::PatchApplied;
    use proptest::prelude::*;

    fn write(files: &Files) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        dir
    }

    fn read(dir: &std::path::Path) -> Files {
        crate::tree::files(dir)
            .unwrap()
            .into_iter()
            .map(|name| {
                let bytes = std::fs::read(dir.join(&name)).unwrap();
                (name, bytes)
            })
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn applying_the_diff_gives_the_changed_tree(
            base in prop::collection::btree_map("[ab]{1,2}/[cd]\\.py", "([ab x]{0,3}\n){0,8}[ab]{0,2}", 0..4),
            now in prop::collection::btree_map("[ab]{1,2}/[cd]\\.py", "([ab x]{0,3}\n){0,8}[ab]{0,2}", 0..4),
        ) {
            // git's diff cannot tell an empty file that appears without a mode line's
            // hunk; sources here are never empty.
            let bytes = |m: std::collections::BTreeMap<String, String>| -> Files {
                m.into_iter().filter(|(_, t)| !t.is_empty()).map(|(k, v)| (k, v.into_bytes())).collect()
            };
            let (base, now) = (bytes(base), bytes(now));
            let dir = write(&base);
            let diff = unified(&base, &now);
            let applied = crate::patch::apply(dir.path(), &diff).unwrap();
            prop_assert_eq!(applied, PatchApplied::Applied, "{}", diff);
            prop_assert_eq!(read(dir.path()), now);
        }
    }

    #[test]
    fn by_products_and_unreadable_files_are_left_out() {
        let base = Files::from([("a.py".into(), b"x\n".to_vec())]);
        let mut now = base.clone();
        now.insert("__pycache__/a.pyc".into(), vec![0, 1]);
        now.insert("b.bin".into(), vec![0xff, 0xfe]);
        assert_eq!(unified(&base, &now), "");
    }

    #[test]
    fn escapes_and_links_are_refused() {
        let dir = write(&Files::from([("a.py".into(), b"x\n".to_vec())]));
        for patch in [
            "--- a/../evil\n+++ b/../evil\n@@ -0,0 +1 @@\n+x\n",
            "diff --git a/l b/l\nnew file mode 120000\n--- /dev/null\n+++ b/l\n@@ -0,0 +1 @@\n+/etc/passwd\n\\ No newline at end of file\n",
            "not a patch",
        ] {
            let answer = crate::patch::apply(dir.path(), patch).unwrap();
            assert!(matches!(answer, PatchApplied::Rejected(_)), "{patch}");
        }
        assert_eq!(crate::patch::paths("--- a/x.py\n+++ b/x.py\n"), ["x.py"]);
    }
}
