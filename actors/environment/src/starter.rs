//! Who makes a sandbox's namespaces and mounts: the helper itself
//! ([`crate::inner::stage`]), or bubblewrap. Both are given the same words, so that what
//! can be seen inside is decided in one place.
//!
//! The helper is taken where it works, else bubblewrap (docs/decisions/0007). The environment variable
//! `GAMETAPE_SANDBOX` chooses: `bubblewrap` or `namespaces`; what was chosen and does not
//! work is not replaced by the other.

use crate::bubblewrap::{self, Host, View};
use crate::inner::stage::STAGE;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Who starts sandboxes here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Starter {
    /// The program bubblewrap.
    Bubblewrap {
        /// `bwrap`, absolute.
        program: PathBuf,
        /// 0.8.0 is `(0, 8)`.
        version: (u32, u32),
    },
    /// The helper.
    Namespaces,
}

impl Starter {
    /// Whether it knows what bubblewrap of this version does. (The helper knows all that
    /// is ever asked for.)
    pub fn is_as_new_as(&self, wanted: (u32, u32)) -> bool {
        match self {
            Self::Bubblewrap { version, .. } => *version >= wanted,
            Self::Namespaces => true,
        }
    }
}

/// Who is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Choice {
    /// The helper, else bubblewrap.
    #[default]
    Any,
    /// bubblewrap and nobody else.
    Bubblewrap,
    /// The helper and nobody else.
    Namespaces,
}

/// The environment variable that chooses.
pub const VARIABLE: &str = "GAMETAPE_SANDBOX";

impl Choice {
    /// What the environment variable says.
    ///
    /// # Errors
    /// With its value when that is not known.
    pub fn asked() -> Result<Self, String> {
        Self::named(std::env::var_os(VARIABLE))
    }

    fn named(value: Option<OsString>) -> Result<Self, String> {
        match value.unwrap_or_default().to_str() {
            Some("") => Ok(Self::Any),
            Some("bubblewrap") => Ok(Self::Bubblewrap),
            Some("namespaces") => Ok(Self::Namespaces),
            other => Err(format!(
                "{VARIABLE} is {}: bubblewrap or namespaces are known",
                other.unwrap_or("not text")
            )),
        }
    }
}

/// The program that starts a sandbox, and its words.
pub fn command(host: &Host, view: &View) -> (PathBuf, Vec<OsString>) {
    started(host, &view.helper, bubblewrap::arguments(host, view))
}

/// The same for a sandbox with nothing of ours in it but the helper.
pub fn trial(host: &Host, helper: &Path) -> (PathBuf, Vec<OsString>) {
    started(host, helper, bubblewrap::trial(host, helper))
}

fn started(host: &Host, helper: &Path, words: Vec<OsString>) -> (PathBuf, Vec<OsString>) {
    match &host.starter {
        Starter::Bubblewrap { program, .. } => (program.clone(), words),
        Starter::Namespaces => {
            let staged = [STAGE.into()].into_iter().chain(words).collect();
            (helper.to_owned(), staged)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inner::stage::plan::{self, Step};

    fn host(starter: Starter, root: bool) -> Host {
        Host {
            starter,
            root,
            links: vec![
                ("/bin".into(), Some("usr/bin".into())),
                ("/lib".into(), None),
            ],
            packages: vec!["/usr/lib/python3/dist-packages".into()],
        }
    }

    fn view() -> View {
        View {
            base_prefix: "/opt/a/py".into(),
            base_site_packages: vec!["/opt/a/py/lib/python3.11/site-packages".into()],
            venv: "/c/venv".into(),
            helper: "/b/helper".into(),
            private: "/s/1".into(),
            label: "attempt/x".into(),
        }
    }

    #[test]
    fn the_helper_understands_every_word_that_bubblewrap_is_given() {
        for root in [true, false] {
            let host = host(Starter::Namespaces, root);
            let (program, words) = command(&host, &view());
            assert_eq!(program, PathBuf::from("/b/helper"));
            let (first, rest) = words.split_first().unwrap();
            assert_eq!(first, STAGE);
            let read = plan::read(rest).unwrap();
            assert_eq!(read.ids.is_some(), !root);
            assert_eq!(read.capabilities, if root { vec![7, 6, 5] } else { vec![] });
            let testbed = Step::Bind {
                from: "/s/1/repo".into(),
                at: "/testbed".into(),
                read_only: false,
                optional: false,
            };
            assert_eq!(read.steps.last(), Some(&testbed));
            let trial = plan::read(&bubblewrap::trial(&host, &program)).unwrap();
            assert_eq!(trial.ids.is_some(), !root);
        }
    }

    #[test]
    fn both_starters_are_given_the_same_words() {
        let newest = Starter::Bubblewrap {
            program: "/usr/bin/bwrap".into(),
            version: (0, 8),
        };
        let (program, words) = command(&host(newest, true), &view());
        assert_eq!(program, PathBuf::from("/usr/bin/bwrap"));
        let (_, own) = command(&host(Starter::Namespaces, true), &view());
        assert_eq!(own.get(1..), Some(words.as_slice()));
    }

    #[test]
    fn an_unknown_choice_is_told() {
        let named = |value: &str| Choice::named(Some(value.into()));
        assert_eq!(Choice::named(None), Ok(Choice::Any));
        assert_eq!(named("namespaces"), Ok(Choice::Namespaces));
        assert_eq!(named("bubblewrap"), Ok(Choice::Bubblewrap));
        assert!(named("docker").unwrap_err().contains("docker"));
    }
}
