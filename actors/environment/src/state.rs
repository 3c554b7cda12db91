//! The state that a sandbox begins with, and what of a later one is a change of it.
//! The same for every back end. Pure.

use crate::tree::{Odd, Scan, Snapshot};
use crate::{diff, failure, patch};
use gametape_schemas::Failure;
use std::cell::RefCell;
use std::collections::BTreeSet;

/// The base state: the clean repository with the task's patches, without what is hidden.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BaseState {
    files: Snapshot,
    hidden: BTreeSet<String>,
    /// Whether a `.git` at the top is ours and no by-product of the agent's.
    has_git: bool,
    /// What else is there from the beginning: links and large files of an image.
    rest: BTreeSet<String>,
}

impl BaseState {
    /// Applies the patches, strictly and in order, then hides files or directories.
    ///
    /// # Errors
    /// `GT-SANDBOX-BASE` when a patch does not apply.
    pub fn new(
        clean: &Snapshot,
        patches: &[String],
        hidden: &[String],
        has_git: bool,
    ) -> Result<Self, Failure> {
        let mut files = clean.clone();
        for text in patches {
            patch::apply_to(&mut files, text).map_err(|reason| failure::base(&reason))?;
        }
        let hidden: BTreeSet<String> = hidden
            .iter()
            .map(|path| path.trim_matches('/').to_owned())
            .collect();
        let mut state = Self {
            files: Snapshot::new(),
            hidden,
            has_git,
            rest: BTreeSet::new(),
        };
        files.retain(|path, _| !state.is_hidden(path));
        state.files = files;
        Ok(state)
    }

    /// Names what is there beside its files, and was not made by an agent.
    #[must_use]
    pub fn with_rest<'a>(mut self, names: impl Iterator<Item = &'a str>) -> Self {
        self.rest = names.map(str::to_owned).collect();
        self
    }

    /// Its files.
    pub fn files(&self) -> &Snapshot {
        &self.files
    }

    /// Whether a path is hidden, or lies below one that is.
    pub fn is_hidden(&self, path: &str) -> bool {
        self.hidden.contains(path)
            || path.match_indices('/').any(|(at, _)| {
                path.get(..at)
                    .is_some_and(|parent| self.hidden.contains(parent))
            })
    }
}

/// What a look at the repository leaves out, and remembers the names of.
#[derive(Debug)]
pub struct LeftOut<'a> {
    state: &'a BaseState,
    names: RefCell<BTreeSet<String>>,
}

impl<'a> LeftOut<'a> {
    /// Nothing yet.
    pub fn of(state: &'a BaseState) -> Self {
        Self {
            state,
            names: RefCell::default(),
        }
    }

    /// Whether a file or directory is no part of any change. By-products of the agent's
    /// are remembered; what is hidden is not: it is not its work.
    pub fn skips(&self, path: &str) -> bool {
        if self.state.is_hidden(path) {
            return true;
        }
        let skipped = diff::is_by_product(path);
        let is_ours = self.state.has_git && (path == ".git" || path.starts_with(".git/"));
        if skipped && !is_ours {
            self.names.borrow_mut().insert(path.to_owned());
        }
        skipped
    }

    /// The change from `base` (the base state, as far as it may differ) to `now`, and
    /// what the agent made that is no part of it.
    pub fn change(self, mut base: Snapshot, now: &Scan) -> Change {
        let mut scratch = self.names.into_inner();
        let rest = &self.state.rest;
        for odd in &now.odd {
            match odd {
                // A file that cannot be told any more is left as it was, not deleted.
                Odd::Special(path) | Odd::Large(path) | Odd::Unreadable(path) => {
                    base.remove(path);
                    scratch.insert(path.clone());
                }
                Odd::Name(path) | Odd::Deep(path) | Odd::Many(path) => {
                    scratch.insert(path.clone());
                }
            }
        }
        let diff = diff::unified(&base, &now.files);
        if !now.odd.is_empty() || !diff.binary.is_empty() {
            tracing::debug!(odd = ?now.odd, binary = ?diff.binary, "not in the diff");
        }
        // One that was deleted is not there to be named.
        let binary = diff.binary.into_iter();
        scratch.extend(binary.filter(|path| now.files.contains_key(path)));
        scratch.retain(|path| !rest.contains(path));
        Change {
            text: diff.text,
            scratch: scratch.into_iter().collect(),
        }
    }
}

/// What an agent changed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Change {
    /// As a unified diff.
    pub text: String,
    /// Names of what a patch does not take: by-products, and what is binary, too large,
    /// no regular file, or out of reach.
    pub scratch: Vec<String>,
}

/// Names that are told of a sandbox at most.
const NAMES: usize = 100;
/// Characters of one name that are told.
const NAME: usize = 200;

/// The names of scratch files for the tape: of the repository first, then of other
/// places. An agent chose them: what is not printable is escaped, and there is an end.
pub fn told(repository: &[String], elsewhere: &[String]) -> Vec<String> {
    let one = |name: &String| {
        let escaped = name.chars().flat_map(|c| match c {
            '\\' => vec!['\\', '\\'],
            c if c.is_control() || c == char::REPLACEMENT_CHARACTER => c.escape_default().collect(),
            c => vec![c],
        });
        escaped.take(NAME).collect::<String>()
    };
    let all = repository.iter().chain(elsewhere);
    all.take(NAMES).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Entry;
    use proptest::prelude::*;

    fn clean() -> Snapshot {
        ["a.py", "raw.bin", "t/x/y.py", "tt/x.py", "a/b.py"]
            .map(|path| (path.to_owned(), Entry::plain(b"1\n")))
            .into()
    }

    #[test]
    fn directories_hide_what_is_below() {
        let hidden = ["/t/".to_owned(), "a/b.py".to_owned()];
        let state = BaseState::new(&clean(), &[], &hidden, false).unwrap();
        assert!(state.is_hidden("t/x/y.py") && state.is_hidden("a/b.py"));
        assert!(!state.is_hidden("tt/x.py") && !state.is_hidden("a/b.pyi"));
        assert_eq!(
            state.files().keys().collect::<Vec<_>>(),
            ["a.py", "raw.bin", "tt/x.py"]
        );
        let failure = BaseState::new(&clean(), &["--- a/n\n".into()], &[], false).unwrap_err();
        assert_eq!(failure.code, "GT-SANDBOX-BASE");
    }

    #[test]
    fn what_a_patch_does_not_take_is_named() {
        let hidden = ["t".to_owned()];
        let state = BaseState::new(&clean(), &[], &hidden, true).unwrap();
        let left_out = LeftOut::of(&state);
        for path in ["t/x", "__pycache__", "s/.git", ".git", "b.pyc"] {
            assert!(left_out.skips(path), "{path}");
        }
        assert!(!left_out.skips("a.py"));
        let mut now = Scan {
            files: state.files().clone(),
            odd: vec![Odd::Special("a.py".into()), Odd::Large("large".into())],
        };
        now.files.remove("a.py");
        now.files
            .insert("raw.bin".into(), Entry::plain(&[0xff, 0, 1]));
        let change = left_out.change(state.files().clone(), &now);
        assert_eq!(
            change.text, "",
            "a link in its place does not delete a file"
        );
        assert_eq!(
            change.scratch,
            ["__pycache__", "a.py", "b.pyc", "large", "raw.bin", "s/.git"]
        );
        // Without a history of ours a `.git` is the agent's.
        let state = BaseState::new(&clean(), &[], &[], false).unwrap();
        let left_out = LeftOut::of(&state);
        assert!(left_out.skips(".git"));
        let change = left_out.change(Snapshot::new(), &Scan::default());
        assert_eq!(change.scratch, [".git"]);
    }

    proptest! {
        #[test]
        fn names_are_bounded_and_printable(names in prop::collection::vec(any::<String>(), 0..130)) {
            let told = told(&names, &["/tmp/x".to_owned()]);
            prop_assert_eq!(told.len(), names.len().saturating_add(1).min(NAMES));
            for name in told {
                prop_assert!(name.chars().count() <= NAME);
                prop_assert!(!name.chars().any(char::is_control));
            }
        }
    }
}
