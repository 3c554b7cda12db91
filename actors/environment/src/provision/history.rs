//! A prepared repository carries no history: an agent that finds the fix among later
//! commits has not found the bug.
//!
//! Looked for are the places where version control keeps it, and what it looks like
//! elsewhere: packs, bundles, borrowed objects.

use crate::tree::Snapshot;
use std::io;
use std::path::Path;

/// Names, of directories and files alike, that belong to version control. A file `.git`
/// points to a repository somewhere else.
const NAMES: &[&str] = &[".git", ".hg", ".svn", ".bzr", ".jj", ".pijul", "_darcs"];
/// Files that lend objects of another repository, and lists of its commits.
const PARTS: &[&str] = &[
    "objects/info/alternates",
    "objects/info/http-alternates",
    "packed-refs",
];
/// First bytes of packs, their indexes, and bundles.
const MAGIC: &[&[u8]] = &[
    b"PACK\0\0\0",
    b"\xfftOc",
    b"# v2 git bundle",
    b"# v3 git bundle",
    b"HG10",
    b"HG20",
];

/// The first trace of version control below `tree`, as a relative path.
///
/// # Errors
/// The file system's.
pub fn named(tree: &Path) -> io::Result<Option<String>> {
    for entry in walkdir::WalkDir::new(tree).min_depth(1).sort_by_file_name() {
        let entry = entry.map_err(io::Error::from)?;
        let relative = entry.path().strip_prefix(tree).unwrap_or(entry.path());
        let relative = relative.to_string_lossy();
        let name = entry.file_name().to_string_lossy();
        if NAMES.contains(&&*name) || is_part(&relative) || is_bare(entry.path()) {
            return Ok(Some(relative.into_owned()));
        }
    }
    Ok(None)
}

/// The first file that holds packed history, whatever its name.
pub fn packed(files: &Snapshot) -> Option<&str> {
    files
        .iter()
        .find(|(_, file)| MAGIC.iter().any(|magic| file.bytes.starts_with(magic)))
        .map(|(path, _)| path.as_str())
}

fn is_part(path: &str) -> bool {
    PARTS.iter().any(|part| {
        path.strip_suffix(part)
            .is_some_and(|before| before.is_empty() || before.ends_with('/'))
    })
}

/// A repository under another name.
fn is_bare(path: &Path) -> bool {
    path.join("HEAD").is_file() && path.join("objects").is_dir() && path.join("refs").is_dir()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{self, Entry};

    fn found(make: impl FnOnce(&Path)) -> Option<String> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("src/deep")).unwrap();
        std::fs::write(dir.path().join("src/deep/a.py"), "x = 1\n").unwrap();
        make(dir.path());
        named(dir.path()).unwrap()
    }

    #[test]
    fn a_clean_tree_has_no_history() {
        assert_eq!(found(|_| ()), None);
        // Words about version control are no version control.
        let clean = found(|tree| {
            std::fs::write(tree.join(".gitignore"), "*.pyc\n").unwrap();
            std::fs::write(tree.join("src/HEAD"), "").unwrap();
            std::fs::create_dir_all(tree.join("src/objects/info")).unwrap();
            std::fs::write(tree.join("src/unpacked-refs"), "").unwrap();
        });
        assert_eq!(clean, None);
    }

    #[test]
    fn every_place_of_history_is_found() {
        for name in NAMES {
            let directory = found(|tree| std::fs::create_dir(tree.join("src").join(name)).unwrap());
            assert_eq!(directory, Some(format!("src/{name}")));
            let file = found(|tree| std::fs::write(tree.join(name), "gitdir: /x\n").unwrap());
            assert_eq!(file.as_deref(), Some(*name));
        }
        for part in PARTS {
            let at = format!("src/store/{part}");
            let lent = found(|tree| {
                std::fs::create_dir_all(tree.join(&at).parent().unwrap()).unwrap();
                std::fs::write(tree.join(&at), "x\n").unwrap();
            });
            assert_eq!(lent, Some(at.clone()));
        }
        let bare = found(|tree| {
            for name in ["objects", "refs"] {
                std::fs::create_dir_all(tree.join("src/data").join(name)).unwrap();
            }
            std::fs::write(tree.join("src/data/HEAD"), "ref: refs/heads/main\n").unwrap();
        });
        assert_eq!(bare.as_deref(), Some("src/data"));
    }

    #[test]
    fn a_real_repository_is_found_wherever_it_hides() {
        let git = |directory: &Path, words: &[&str]| {
            let done = std::process::Command::new("git")
                .args(["-c", "user.name=t", "-c", "user.email=t@t"])
                .args(words)
                .current_dir(directory)
                .output();
            done.is_ok_and(|output| output.status.success())
        };
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path();
        if !git(tree, &["init", "-q"]) {
            eprintln!("SKIPPED: a_real_repository_is_found_wherever_it_hides: no git");
            return;
        }
        std::fs::write(tree.join("a.py"), "x = 1\n").unwrap();
        assert!(git(tree, &["add", "a.py"]) && git(tree, &["commit", "-qm", "the fix"]));
        assert!(git(tree, &["bundle", "create", "-q", "notes.txt", "--all"]));
        assert!(git(tree, &["repack", "-adq"]));
        assert_eq!(named(tree).unwrap().as_deref(), Some(".git"));
        std::fs::rename(tree.join(".git"), tree.join("data")).unwrap();
        assert_eq!(named(tree).unwrap().as_deref(), Some("data"));
        std::fs::remove_file(tree.join("data/HEAD")).unwrap();
        let _ = std::fs::remove_file(tree.join("data/packed-refs"));
        assert_eq!(named(tree).unwrap(), None);
        // Only bytes tell now.
        let mut files = tree::scan(tree, |_| false).unwrap().files;
        let mut packs = 0;
        while let Some(path) = packed(&files).map(str::to_owned) {
            assert!(
                path.starts_with("data/objects/pack/") || path == "notes.txt",
                "{path}"
            );
            files.remove(&path);
            packs += 1;
        }
        assert!(packs >= 3, "a pack, its index and a bundle: {packs}");
        files.insert("words.md".into(), Entry::plain(b"PACK your things\n"));
        assert_eq!(packed(&files), None);
    }
}
