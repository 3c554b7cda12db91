//! The repository inside a container, as it was seen last: answers for reading and
//! writing are made from it, so that no path of an agent's is ever resolved on the host
//! or by the engine. Pure.
//!
//! Its sentences for refusals are those of [`crate::files`], so that an agent cannot
//! tell one back end from another.

use super::archive::{Found, Kind};
use crate::files::Refusal;
use crate::tree::{Entry, MAX_DEPTH, MAX_FILE, Odd, Scan, Snapshot};
use std::collections::BTreeMap;

/// One thing in a repository.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Node {
    /// A regular file that can be shown.
    File(Entry, u32),
    /// A regular file that is too large to be shown, and its content where it is known.
    Large(Option<Entry>, u32),
    /// A directory.
    Directory,
    /// A symbolic link.
    Link(Vec<u8>),
    /// A pipe or a device.
    Other,
}

/// A repository: things by relative path.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tree {
    nodes: BTreeMap<String, Node>,
    /// Names that are no text, shown lossily.
    unnamed: Vec<String>,
}

/// What is at a path.
enum At<'a> {
    Node(String, &'a Node),
    /// Nothing, and which directories would have to be made.
    Missing(String),
    Refused(Refusal),
}

fn outside(path: &str) -> Refusal {
    format!("outside of the repository: {path}")
}

impl Tree {
    /// A repository of regular files.
    pub fn of(files: &Snapshot) -> Self {
        let mut tree = Self::default();
        for (path, entry) in files {
            let mode = if entry.executable { 0o755 } else { 0o644 };
            tree.put(path, Node::File(entry.clone(), mode));
        }
        tree
    }

    /// Everything, by relative path; parents come before what is in them.
    pub fn nodes(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.nodes.iter().map(|(path, node)| (path.as_str(), node))
    }

    /// Adds one thing, and the directories above it.
    pub fn put(&mut self, path: &str, node: Node) {
        for (at, _) in path.match_indices('/') {
            let parent = path.get(..at).unwrap_or_default();
            if !matches!(self.nodes.get(parent), Some(Node::Directory)) {
                self.nodes.insert(parent.to_owned(), Node::Directory);
            }
        }
        self.nodes.insert(path.to_owned(), node);
    }

    /// Removes a thing, and what is below it.
    pub fn remove(&mut self, path: &str) {
        let below = format!("{path}/");
        self.nodes
            .retain(|name, _| name != path && !name.starts_with(&below));
    }

    /// Adds what an archive of the repository's directory holds. Its first component,
    /// the directory's own name, is dropped.
    pub fn found(&mut self, found: Found) {
        let inside = |path: &[u8]| {
            let at = path.iter().position(|byte| *byte == b'/')?;
            path.get(at + 1..).map(<[u8]>::to_vec)
        };
        let Some(path) = inside(&found.path).filter(|path| !path.is_empty()) else {
            return;
        };
        let path = match String::from_utf8(path) {
            Ok(path) if !path.contains(['\n', '\r']) => path,
            Ok(path) => return self.unnamed.push(path),
            Err(error) => {
                let name = String::from_utf8_lossy(error.as_bytes()).into_owned();
                return self.unnamed.push(name);
            }
        };
        let node = match found.kind {
            Kind::File(bytes) => file(bytes, found.mode),
            Kind::Directory => Node::Directory,
            Kind::Link(target) => Node::Link(target),
            Kind::Other => Node::Other,
            // Of the name that came first; one that we could not take is not known.
            Kind::Same(first) => inside(&first)
                .and_then(|first| String::from_utf8(first).ok())
                .and_then(|first| self.nodes.get(&first).cloned())
                .unwrap_or(Node::Other),
        };
        self.put(&path, node);
    }

    /// The same as a walk of a directory gives: see [`crate::tree::scan`].
    pub fn scan(&self, skip: impl Fn(&str) -> bool) -> Scan {
        let mut out = Scan::default();
        out.odd.extend(self.unnamed.iter().cloned().map(Odd::Name));
        for (path, node) in &self.nodes {
            let depth = path.matches('/').count();
            let skipped = path
                .match_indices('/')
                .filter_map(|(at, _)| path.get(..at))
                .chain([path.as_str()])
                .any(&skip);
            if skipped || depth > MAX_DEPTH {
                continue;
            }
            match node {
                Node::Directory if depth == MAX_DEPTH => out.odd.push(Odd::Deep(path.clone())),
                Node::Directory => {}
                Node::File(entry, _) => {
                    out.files.insert(path.clone(), entry.clone());
                }
                Node::Large(..) => out.odd.push(Odd::Large(path.clone())),
                Node::Link(_) | Node::Other => out.odd.push(Odd::Special(path.clone())),
            }
        }
        out.odd.sort_unstable();
        out
    }

    /// Follows a path from the root; no link is followed.
    fn at(&self, path: &str) -> At<'_> {
        let none = || At::Refused(format!("no such file: {path}"));
        if path.contains('\0') {
            return At::Refused(format!("cannot be opened: {path}"));
        }
        if path.starts_with('/') {
            return At::Refused(outside(path));
        }
        let mut here: Vec<&str> = Vec::new();
        let mut missing = false;
        let mut parts = path.split('/').peekable();
        while let Some(part) = parts.next() {
            match part {
                "" | "." => continue,
                ".." if missing => return none(),
                ".." => {
                    if here.pop().is_none() {
                        return At::Refused(outside(path));
                    }
                    continue;
                }
                part => here.push(part),
            }
            match self.nodes.get(&here.join("/")) {
                Some(Node::Directory) => {}
                Some(Node::Link(_)) => return At::Refused(outside(path)),
                // A file on the way, or one that is written like a directory.
                Some(_) if parts.peek().is_some() => return none(),
                Some(_) => {}
                None => missing = true,
            }
        }
        if here.is_empty() {
            let why = if path.is_empty() {
                "no such file"
            } else {
                "a directory"
            };
            return At::Refused(format!("{why}: {path}"));
        }
        let name = here.join("/");
        match self.nodes.get(&name) {
            Some(node) => At::Node(name, node),
            None if path.ends_with('/') => none(),
            None => At::Missing(name),
        }
    }

    /// Reads a regular file; `Ok(None)` when there is none of that name.
    ///
    /// # Errors
    /// Why not, in words that an agent may read.
    pub fn read(&self, path: &str) -> Result<Option<Entry>, Refusal> {
        match self.at(path) {
            At::Missing(_) => Ok(None),
            At::Refused(why) if why.starts_with("no such file") => Ok(None),
            At::Refused(why) => Err(why),
            At::Node(_, Node::File(entry, _)) => Ok(Some(entry.clone())),
            At::Node(_, Node::Large(..)) => Err(format!("too large: {path}")),
            At::Node(_, Node::Link(_)) => Err(outside(path)),
            At::Node(_, Node::Directory | Node::Other) => Err(format!("not a file: {path}")),
        }
    }

    /// What writing a file changes: its path and what is to be there.
    ///
    /// # Errors
    /// Why not, in words that an agent may read.
    pub fn plan_write(
        &self,
        path: &str,
        bytes: &[u8],
        executable: Option<bool>,
    ) -> Result<(String, Node), Refusal> {
        if bytes.len() as u64 > MAX_FILE {
            return Err(format!("too large: {path}"));
        }
        let (name, mode) = match self.at(path) {
            At::Missing(name) => (name, 0o644),
            At::Refused(why) => return Err(why),
            At::Node(name, Node::File(_, mode) | Node::Large(_, mode)) => (name, *mode),
            At::Node(_, Node::Directory) => return Err(format!("a directory: {path}")),
            At::Node(_, Node::Link(_)) => return Err(outside(path)),
            At::Node(_, Node::Other) => return Err(format!("cannot be opened: {path}")),
        };
        let mode = match executable {
            Some(true) => 0o755,
            Some(false) => 0o644,
            None => mode,
        };
        Ok((name, file(Some(bytes.to_vec()), mode)))
    }

    /// What removing a file removes; nothing when it is not there.
    ///
    /// # Errors
    /// Why not, in words that an agent may read.
    pub fn plan_remove(&self, path: &str) -> Result<Option<String>, Refusal> {
        match self.at(path) {
            At::Missing(_) => Ok(None),
            At::Refused(why) if why.starts_with("no such file") => Ok(None),
            At::Refused(why) => Err(why),
            At::Node(_, Node::Directory) => Err(format!("a directory: {path}")),
            At::Node(name, _) => Ok(Some(name)),
        }
    }
}

/// A regular file as a thing in a repository.
pub fn file(bytes: Option<Vec<u8>>, mode: u32) -> Node {
    let entry = bytes.map(|bytes| Entry {
        bytes: bytes.into(),
        executable: mode & 0o100 != 0,
    });
    match entry {
        Some(entry) if entry.bytes.len() as u64 <= MAX_FILE => Node::File(entry, mode),
        entry => Node::Large(entry, mode),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> Tree {
        let mut tree = Tree::of(&Snapshot::from([
            ("a.py".into(), Entry::plain(b"a")),
            ("d/e.py".into(), Entry::plain(b"e")),
        ]));
        tree.put("link", Node::Link(b"/etc".to_vec()));
        tree.put("pipe", Node::Other);
        tree.put("large", Node::Large(None, 0o600));
        tree
    }

    #[test]
    fn nothing_leads_outside() {
        let tree = tree();
        for path in [
            "..",
            "../x",
            "/etc/passwd",
            "link",
            "link/passwd",
            "d/../../x",
            "",
            ".",
            "a\0b",
            "d",
            "d/..",
            "pipe",
        ] {
            assert!(!matches!(tree.read(path), Ok(Some(_))), "{path}");
            assert!(tree.plan_write(path, b"x", None).is_err(), "{path}");
            assert!(!matches!(tree.plan_remove(path), Ok(Some(p)) if p != "link" && p != "pipe"));
        }
        assert_eq!(tree.read("d/../a.py").unwrap(), Some(Entry::plain(b"a")));
        assert_eq!(tree.read("a.py/x"), Ok(None));
        assert!(tree.plan_write("a.py/x", b"", None).is_err());
        assert!(tree.plan_write("large", b"", None).is_ok());
    }

    #[test]
    fn modes_stay_unless_a_patch_says_otherwise() {
        let tree = tree();
        let mode = |path, executable| match tree.plan_write(path, b"", executable) {
            Ok((_, Node::File(entry, mode))) => (entry.executable, mode),
            other => panic!("{other:?}"),
        };
        assert_eq!(mode("large", None), (false, 0o600));
        assert_eq!(mode("a.py", Some(true)), (true, 0o755));
        assert_eq!(mode("new/x", None), (false, 0o644));
    }

    #[test]
    fn a_second_name_of_a_file_is_a_file() {
        let mut tree = Tree::default();
        let found = |path: &[u8], kind| Found {
            path: path.to_vec(),
            kind,
            mode: 0o644,
        };
        tree.found(found(b"testbed", Kind::Directory));
        tree.found(found(b"testbed/a", Kind::File(Some(b"1".to_vec()))));
        tree.found(found(b"testbed/b", Kind::Same(b"testbed/a".to_vec())));
        tree.found(found(b"testbed/\xff", Kind::File(Some(vec![]))));
        assert_eq!(tree.read("b").unwrap(), Some(Entry::plain(b"1")));
        let scan = tree.scan(|_| false);
        assert_eq!((scan.files.len(), scan.odd.len()), (2, 1));
    }

    #[test]
    fn depth_ends_where_a_walk_ends() {
        let directory = tempfile::tempdir().unwrap();
        let mut path = String::from("d");
        let mut tree = Tree::default();
        for _ in 0..70 {
            tree.put(&format!("{path}/f"), file(Some(vec![]), 0o644));
            path.push_str("/d");
        }
        std::fs::create_dir_all(directory.path().join(&path)).unwrap();
        tree.put(&path, Node::Directory);
        for (path, node) in tree.nodes() {
            if matches!(node, Node::File(..)) {
                std::fs::write(directory.path().join(path), "").unwrap();
            }
        }
        let walked = crate::tree::scan(directory.path(), |_| false).unwrap();
        assert_eq!(tree.scan(|_| false), walked);
    }
}
