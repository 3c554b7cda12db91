//! Things of a repository as an uncompressed archive for the engine. Pure.
//!
//! Never compressed: the engine would unpack it with programs of the container's.

use super::tree::Node;
use std::io;

/// An archive of things by path, all of one owner (uid and gid). Of large files only those whose content
/// is known are in it.
///
/// # Errors
/// A path that no archive can hold.
pub fn pack<'a>(
    nodes: impl Iterator<Item = (&'a str, &'a Node)>,
    owner: (u64, u64),
    mtime: u64,
) -> io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, node) in nodes {
        let mut header = tar::Header::new_gnu();
        header.set_uid(owner.0);
        header.set_gid(owner.1);
        header.set_mtime(mtime);
        header.set_size(0);
        match node {
            Node::File(entry, mode) | Node::Large(Some(entry), mode) => {
                header.set_mode(*mode);
                header.set_size(entry.bytes.len() as u64);
                archive.append_data(&mut header, path, &entry.bytes[..])?;
            }
            Node::Directory => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_mode(0o755);
                archive.append_data(&mut header, path, io::empty())?;
            }
            Node::Link(target) => {
                use std::os::unix::ffi::OsStrExt;
                let target = std::ffi::OsStr::from_bytes(target);
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_mode(0o777);
                archive.append_link(&mut header, path, target)?;
            }
            Node::Large(None, _) | Node::Other => {}
        }
    }
    archive.into_inner()
}

#[cfg(test)]
mod tests {
    use super::super::archive::Reader;
    use super::super::tree::Tree;
    use super::*;
    use crate::tree::{Entry, Snapshot};

    #[test]
    fn what_is_packed_reads_back() {
        let long = format!("{}/ü.py", "d".repeat(120));
        let mut tree = Tree::of(&Snapshot::from([
            ("a b".into(), Entry::plain(b"1")),
            (long, Entry::plain(&[0xff, 0])),
        ]));
        tree.put("l", Node::Link(b"a b".to_vec()));
        tree.put(
            "run",
            Node::File(
                Entry {
                    executable: true,
                    ..Entry::plain(b"#!")
                },
                0o755,
            ),
        );
        let named: Vec<_> = tree
            .nodes()
            .map(|(path, node)| (format!("t/{path}"), node))
            .collect();
        let nodes = named.iter().map(|(path, node)| (path.as_str(), *node));
        let bytes = pack(nodes, (5, 6), 7).unwrap();
        let (mut reader, mut back) = (Reader::new(100), Tree::default());
        reader.push(&bytes, &mut |found| back.found(found)).unwrap();
        reader.finish().unwrap();
        assert_eq!(back, tree);
    }
}
