//! What a patch changes in a repository, before anything is changed. Pure.

use super::tree::{Node, Tree};
use crate::patch;
use std::collections::BTreeSet;

/// Paths to remove, files to write, and files that are written back when it goes wrong.
pub type Plan = (Vec<String>, Vec<(String, Node)>, Vec<(String, Node)>);

/// What a patch changes in a tree; nothing of it when one part is refused.
///
/// # Errors
/// What does not fit, in words that an agent may read.
pub fn plan(tree: &Tree, text: &str) -> Result<Plan, String> {
    let changes = patch::apply(text, |path| tree.read(path))?;
    let (mut removed, mut written, mut undo) = (Vec::new(), Vec::new(), Vec::new());
    let mut after = tree.clone();
    // Removals first: a file may make room for a directory of its name.
    for change in changes.iter().filter(|change| change.new.is_none()) {
        if let Some(path) = after.plan_remove(&change.path)? {
            after.remove(&path);
            removed.push(path);
        }
    }
    for change in &changes {
        if let Some(entry) = &change.new {
            let (path, node) =
                after.plan_write(&change.path, &entry.bytes, Some(entry.executable))?;
            after.put(&path, node.clone());
            written.push((path, node));
        }
    }
    let changed: BTreeSet<&String> = removed.iter().chain(written.iter().map(|w| &w.0)).collect();
    for (path, node) in tree.nodes() {
        if changed.contains(&path.to_owned()) {
            undo.push((path.to_owned(), node.clone()));
        }
    }
    Ok((removed, written, undo))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Entry, Snapshot};

    #[test]
    fn a_patch_is_planned_whole_or_not_at_all() {
        let tree = Tree::of(&Snapshot::from([("a".into(), Entry::plain(b"x\n"))]));
        let moved = "--- a/a\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\n--- /dev/null\n+++ b/a/b\n@@ -0,0 +1 @@\n+y\n";
        let (removed, written, undo) = plan(&tree, moved).unwrap();
        assert_eq!((removed.len(), written.len(), undo.len()), (1, 1, 1));
        assert_eq!(written[0].0, "a/b");
        let outside = "--- /dev/null\n+++ b/n\n@@ -0,0 +1 @@\n+y\n--- /dev/null\n+++ b/../x\n@@ -0,0 +1 @@\n+y\n";
        assert!(plan(&tree, outside).is_err());
    }
}
