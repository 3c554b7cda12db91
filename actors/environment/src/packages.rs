//! Packages of the host's interpreters, wherever they lie: they are hidden inside
//! sandboxes, for another version of a subject may be among them.
//!
//! Some programs bring a Python of their own, deep in their directories, so well-known
//! places do not suffice.

use std::path::{Path, PathBuf};

/// How deep interpreters are looked for.
const DEPTH: usize = 12;
/// Large directories in which no interpreter lies.
const BARREN: &[&str] = &[
    "doc", "man", "locale", "icons", "zoneinfo", "fonts", "include",
];

/// Directories of installed packages below `root`, sorted: `site-packages`,
/// `dist-packages`, and the caches and environments of conda. Not below one another.
/// What cannot be read is left out, and cannot be read inside a sandbox, either. Reads
/// every directory: some hundred milliseconds for `/usr`.
pub fn below(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut walk = walkdir::WalkDir::new(root).max_depth(DEPTH).into_iter();
    while let Some(entry) = walk.next() {
        let Ok(entry) = entry else {
            continue;
        };
        if !entry.file_type().is_dir() {
            continue;
        }
        let name = entry.file_name().to_string_lossy();
        if holds_packages(entry.path(), &name) {
            found.push(entry.into_path());
            walk.skip_current_dir();
        } else if BARREN.contains(&&*name) {
            walk.skip_current_dir();
        }
    }
    found.sort_unstable();
    found
}

fn holds_packages(path: &Path, name: &str) -> bool {
    match name {
        "site-packages" | "dist-packages" => true,
        "pkgs" | "envs" => path.parent().is_some_and(|p| p.join("conda-meta").is_dir()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpreters_are_found_where_programs_hide_them() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let hidden = [
            "conda/envs",
            "conda/lib/python3.12/site-packages",
            "conda/pkgs",
            "lib/cloud/bundled/lib/python3.12/site-packages",
            "lib/python3/dist-packages",
        ];
        for path in hidden {
            std::fs::create_dir_all(root.join(path).join("toolz")).unwrap();
        }
        for path in [
            "conda/conda-meta",
            // Packages below packages go with them; other names are what they are.
            "lib/python3/dist-packages/x/site-packages",
            "src/pkgs",
            "share/doc/site-packages",
        ] {
            std::fs::create_dir_all(root.join(path)).unwrap();
        }
        std::fs::write(root.join("lib/site-packages"), "a file").unwrap();
        std::os::unix::fs::symlink(root.join("conda/pkgs"), root.join("dist-packages")).unwrap();
        assert_eq!(below(root), hidden.map(|path| root.join(path)));
        assert!(below(&root.join("no such place")).is_empty());
    }
}
