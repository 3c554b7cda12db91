//! A git repository with one root commit that holds a base state and nothing else: no
//! clean tree beneath, no other commit, no remote, no reflog. What `git diff` shows an
//! agent is its own work.
//!
//! The host's git makes it, from bytes that we hold, in an empty directory: it never sees
//! a tree that an agent touched, and no configuration but ours. What comes out is a dozen
//! files that go into every sandbox on that base state; the same state gives the same
//! commit.

use crate::failure;
use crate::state::BaseState;
use gametape_schemas::{Digest, Failure};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, lchown};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// When it was committed: the first second of 2000, so that it says nothing.
const WHEN: &str = "946684800 +0000";
/// What the repository says of itself. An agent may want to commit; nothing is to run
/// beside its commands.
const CONFIG: &str = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n\
    [user]\n\tname = agent\n\temail = agent@sandbox\n[gc]\n\tauto = 0\n[maintenance]\n\tauto = false\n";
/// Directories that git wants.
const DIRECTORIES: [&str; 7] = [
    ".git",
    ".git/info",
    ".git/objects",
    ".git/objects/info",
    ".git/objects/pack",
    ".git/refs/heads",
    ".git/refs/tags",
];

/// The files of a `.git`, by path from the repository's root.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RootCommit {
    files: BTreeMap<String, Arc<[u8]>>,
}

/// One thing that is committed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Item<'a> {
    /// A file, and whether it may be executed.
    File(&'a [u8], bool),
    /// A symbolic link, and where it leads.
    Link(&'a [u8]),
}

impl RootCommit {
    /// Makes it. Blocks, some ten milliseconds for a small repository.
    ///
    /// # Errors
    /// `GT-ENV-GIT` when there is no git on this machine, or it cannot take the state.
    pub fn make<'a>(items: impl Iterator<Item = (&'a str, Item<'a>)>) -> Result<Self, Failure> {
        let directory = tempfile::tempdir().map_err(failure::git)?;
        let git = directory.path();
        make(git, items).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => failure::no_git(),
            _ => failure::git(error),
        })?;
        let files = read(git).map_err(failure::git)?;
        Ok(Self { files })
    }

    /// Its files, by path from the repository's root.
    pub fn files(&self) -> impl Iterator<Item = (&str, &Arc<[u8]>)> {
        self.files
            .iter()
            .map(|(path, bytes)| (path.as_str(), bytes))
    }

    /// Its directories, each after the one it is in.
    pub fn directories(&self) -> impl Iterator<Item = &'static str> {
        DIRECTORIES.into_iter()
    }

    /// Bytes of all files.
    pub fn size(&self) -> u64 {
        self.files.values().map(|bytes| bytes.len() as u64).sum()
    }

    /// Writes it into a repository, given to `owner` when there is one. Nothing of an
    /// agent's may have run there.
    ///
    /// # Errors
    /// The file system's.
    pub fn write(&self, repository: &Path, owner: Option<u32>) -> io::Result<()> {
        let give = |path: &Path| match owner {
            Some(id) => lchown(path, Some(id), Some(id)),
            None => Ok(()),
        };
        for name in [DIRECTORIES.as_slice(), &[".git/refs"]].concat() {
            let path = repository.join(name);
            let mut builder = std::fs::DirBuilder::new();
            builder.mode(0o755).recursive(true).create(&path)?;
            give(&path)?;
        }
        for (name, bytes) in &self.files {
            let path = repository.join(name);
            let mut file = std::fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o644)
                .open(&path)?;
            file.write_all(bytes)?;
            give(&path)?;
        }
        Ok(())
    }
}

/// Makes a repository in an empty directory.
fn make<'a>(git: &Path, items: impl Iterator<Item = (&'a str, Item<'a>)>) -> io::Result<()> {
    for name in DIRECTORIES.iter().filter_map(|n| n.strip_prefix(".git/")) {
        std::fs::create_dir_all(git.join(name))?;
    }
    std::fs::write(git.join("HEAD"), "ref: refs/heads/main\n")?;
    std::fs::write(git.join("config"), CONFIG)?;
    // Quickly rather than small: it is written often and read seldom.
    run(
        git,
        &["fast-import", "--quiet", "--done", "--depth=0"],
        |to| stream(to, items),
    )?;
    run(git, &["read-tree", "refs/heads/main"], |_| Ok(()))
}

/// What `git fast-import` reads.
fn stream<'a>(
    to: &mut dyn Write,
    items: impl Iterator<Item = (&'a str, Item<'a>)>,
) -> io::Result<()> {
    let mut to = io::BufWriter::new(to);
    let who = format!("gametape <gametape@sandbox> {WHEN}");
    write!(to, "feature done\ncommit refs/heads/main\n")?;
    write!(to, "author {who}\ncommitter {who}\n")?;
    write!(to, "data 11\nBase state\n")?;
    for (path, item) in items {
        let (mode, bytes) = match item {
            Item::File(bytes, false) => ("100644", bytes),
            Item::File(bytes, true) => ("100755", bytes),
            Item::Link(target) => ("120000", target),
        };
        write!(to, "M {mode} inline \"")?;
        for byte in path.bytes() {
            match byte {
                b'"' | b'\\' => write!(to, "\\{}", char::from(byte))?,
                b' '..0x7f => to.write_all(&[byte])?,
                _ => write!(to, "\\{byte:03o}")?,
            }
        }
        writeln!(to, "\"\ndata {}", bytes.len())?;
        to.write_all(bytes)?;
        to.write_all(b"\n")?;
    }
    to.write_all(b"done\n")?;
    to.flush()
}

/// The host's git on a directory of ours: nothing of a user's configuration, no hooks,
/// no templates, nobody asked for anything.
pub(crate) fn command(directory: &Path) -> Command {
    let mut command = Command::new("git");
    let path = std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/bin:/bin"));
    command
        .env_clear()
        .env("PATH", path)
        .env("LC_ALL", "C")
        .env("HOME", "/nonexistent")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_ATTR_NOSYSTEM", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_DIR", directory)
        .current_dir(directory)
        .args(["-c", "core.hooksPath=/dev/null", "-c", "core.bare=true"]);
    command
}

fn run(
    git: &Path,
    words: &[&str],
    feed: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let mut child = command(git)
        // One pack, however small, and the same on every machine.
        .args(["-c", "fastimport.unpackLimit=0", "-c", "pack.threads=1"])
        .args([
            "-c",
            "core.compression=1",
            "-c",
            "core.logAllRefUpdates=false",
        ])
        .args([
            "-c",
            "core.protectHFS=false",
            "-c",
            "core.protectNTFS=false",
        ])
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let fed = child.stdin.take().map_or(Ok(()), |mut to| feed(&mut to));
    let output = child.wait_with_output()?;
    if output.status.success() {
        return fed;
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said: String = said.trim().chars().take(400).collect();
    Err(io::Error::other(format!(
        "`git {}`: {said}",
        words.join(" ")
    )))
}

/// The files that make the repository.
fn read(git: &Path) -> io::Result<BTreeMap<String, Arc<[u8]>>> {
    let mut files = BTreeMap::new();
    for entry in walkdir::WalkDir::new(git) {
        let entry = entry.map_err(io::Error::from)?;
        let Some(name) = entry
            .path()
            .strip_prefix(git)
            .ok()
            .and_then(Path::to_str)
            .filter(|_| entry.file_type().is_file())
        else {
            continue;
        };
        let bytes = std::fs::read(entry.path())?;
        files.insert(format!(".git/{name}"), bytes.into());
    }
    Ok(files)
}

/// Bytes of repositories that are kept for the next sandboxes.
const KEPT: u64 = 256 << 20;

/// Those that were made, the ones used last: the attempts of one task begin with the same.
#[derive(Debug, Default)]
pub struct RootCommits {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// By what decides the base state, with the time of the last use.
    by_key: BTreeMap<String, (u64, Place)>,
    uses: u64,
}

/// Whoever comes while it is being made waits for it.
type Place = Arc<Mutex<Option<Arc<RootCommit>>>>;

fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Only plain inserts and removes happen under these locks: nothing half-done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RootCommits {
    /// That of a key, made when it is not there.
    ///
    /// # Errors
    /// What `make` says.
    pub fn get(
        &self,
        key: &str,
        make: impl FnOnce() -> Result<RootCommit, Failure>,
    ) -> Result<Arc<RootCommit>, Failure> {
        let place = {
            let mut kept = guard(&self.kept);
            kept.uses += 1;
            let now = kept.uses;
            let entry = kept.by_key.entry(key.to_owned()).or_default();
            entry.0 = now;
            entry.1.clone()
        };
        let mut made = guard(&place);
        if let Some(made) = &*made {
            return Ok(made.clone());
        }
        let new = Arc::new(make()?);
        *made = Some(new.clone());
        drop(made);
        guard(&self.kept).shrink(KEPT);
        Ok(new)
    }
}

impl Kept {
    /// Forgets those used longest ago, until the rest fits. The last one stays.
    fn shrink(&mut self, most: u64) {
        let size = |place: &Place| match place.try_lock() {
            Ok(made) => made.as_ref().map_or(0, |made| made.size()),
            // It is being made.
            Err(_) => 0,
        };
        let sizes = self
            .by_key
            .iter()
            .map(|(key, (used, place))| (*used, key.clone(), size(place)));
        let mut sizes: Vec<_> = sizes.collect();
        sizes.sort_unstable();
        let mut all: u64 = sizes.iter().map(|(.., size)| size).sum();
        for (_, key, size) in sizes.iter().take(sizes.len().saturating_sub(1)) {
            if all <= most {
                break;
            }
            self.by_key.remove(key);
            all -= size;
        }
    }
}

/// What names a base state before it is computed: the clean tree, the patches, what is
/// hidden.
pub fn key(clean: &Digest, patches: &[String], hidden: &[String]) -> String {
    // Text always has a JSON form.
    Digest::of_value(&(clean, patches, hidden)).map_or_else(|_| String::new(), |digest| digest.0)
}

/// The regular files of a base state.
pub fn items(state: &BaseState) -> impl Iterator<Item = (&str, Item<'_>)> {
    let files = state.files().iter();
    files.map(|(path, entry)| (path.as_str(), Item::File(&entry.bytes, entry.executable)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(test: &str, items: &[(&str, Item<'_>)]) -> Option<RootCommit> {
        match RootCommit::make(items.iter().copied()) {
            Ok(made) => Some(made),
            Err(failure) if failure.message.contains("not on this machine") => {
                eprintln!("SKIPPED: {test}: {failure}");
                None
            }
            Err(failure) => panic!("{failure}"),
        }
    }

    fn said(repository: &Path, words: &[&str]) -> String {
        let out = Command::new("git")
            .args(words)
            .current_dir(repository)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .output()
            .unwrap();
        assert!(out.status.success(), "{words:?}: {out:?}");
        String::from_utf8(out.stdout).unwrap()
    }

    #[test]
    fn one_commit_holds_the_state_and_nothing_else_is_there() {
        let test = "one_commit_holds_the_state_and_nothing_else_is_there";
        let state = [
            (".gitignore", Item::File(b"*.log\n", false)),
            ("a \"q\"\\ \u{fc}.py", Item::File(b"x = 1\n", false)),
            ("d/empty", Item::File(b"", false)),
            ("d/kept.log", Item::File(&[0xff, 0, b'\n'], false)),
            ("link", Item::Link(b"d/empty")),
            ("run.sh", Item::File(b"#!/bin/sh\n", true)),
        ];
        let Some(made) = made(test, &state) else {
            return;
        };
        assert_eq!(RootCommit::make(state.into_iter()).unwrap(), made);
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        made.write(at, None).unwrap();
        for (path, item) in state {
            let path = at.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            match item {
                Item::File(bytes, executable) => {
                    std::fs::write(&path, bytes).unwrap();
                    let mode = if executable { 0o755 } else { 0o644 };
                    let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
                    std::fs::set_permissions(&path, mode).unwrap();
                }
                Item::Link(_) => std::os::unix::fs::symlink("d/empty", &path).unwrap(),
            }
        }
        assert_eq!(said(at, &["status", "--porcelain", "--ignored"]), "");
        let log = said(
            at,
            &["log", "--all", "--format=%P|%an|%cd|%s", "--date=raw"],
        );
        assert_eq!(log, format!("|gametape|{WHEN}|Base state\n"));
        assert_eq!(
            said(at, &["fsck", "--unreachable", "--root", "--full"])
                .lines()
                .count(),
            1
        );
        assert_eq!(said(at, &["reflog", "--all"]), "");
        assert_eq!(
            said(at, &["remote"]) + &said(at, &["tag"]) + &said(at, &["stash", "list"]),
            ""
        );
        let objects = said(at, &["cat-file", "--batch-all-objects", "--batch-check"]);
        // The commit, two trees, six contents.
        assert_eq!(objects.lines().count(), 9, "{objects}");
        assert!(said(at, &["rev-parse", "HEAD"]).len() > 39);
        // An agent may go on from there.
        std::fs::write(at.join("d/empty"), "now\n").unwrap();
        assert_eq!(said(at, &["diff", "--name-only"]), "d/empty\n");
        said(at, &["commit", "-qam", "mine"]);
        said(at, &["checkout", "-q", "HEAD~1", "--", "."]);
    }

    #[test]
    fn what_is_kept_has_a_limit_and_is_made_once() {
        let commits = RootCommits::default();
        let of = |bytes: usize| RootCommit {
            files: [(".git/x".to_owned(), vec![0; bytes].into())].into(),
        };
        let first = commits.get("a", || Ok(of(10))).unwrap();
        let again = commits.get("a", || panic!("made twice")).unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        let failure = commits.get("b", || Err(failure::no_git())).unwrap_err();
        assert_eq!(failure.code, "GT-ENV-GIT");
        commits.get("b", || Ok(of(20))).unwrap();
        commits.get("a", || panic!("made twice")).unwrap();
        let mut kept = guard(&commits.kept);
        kept.shrink(15);
        assert_eq!(kept.by_key.keys().collect::<Vec<_>>(), ["a"]);
        kept.shrink(1);
        assert_eq!(kept.by_key.len(), 1, "the last one stays");
    }

    #[test]
    fn a_key_is_of_everything_that_decides() {
        let digest = |text: &str| Digest::of_bytes(text.as_bytes());
        let (p, h) = (["p".to_owned()], ["h".to_owned()]);
        let keys = [
            key(&digest("t"), &p, &h),
            key(&digest("u"), &p, &h),
            key(&digest("t"), &[], &h),
            key(&digest("t"), &h, &p),
        ];
        let different: std::collections::BTreeSet<_> = keys.iter().collect();
        assert_eq!(different.len(), keys.len());
    }
}
