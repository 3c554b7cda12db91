//! Status of every test that a log names.

use hashbrown::{DefaultHashBuilder, HashTable};
use std::fmt;
use std::hash::BuildHasher;

/// Status of a test, as a log's parser understood it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub enum Status {
    /// Passed.
    Passed,
    /// Failed as it was marked to.
    Xfail,
    /// Skipped.
    Skipped,
    /// A word that is no status, such as `ERROR:`. Neither a pass nor a failure.
    Other,
    /// Failed.
    Failed,
    /// Could not run.
    Error,
}

impl Status {
    /// The status that a word names, exactly.
    pub fn of_word(word: &str) -> Self {
        match word {
            "PASSED" => Self::Passed,
            "FAILED" => Self::Failed,
            "SKIPPED" => Self::Skipped,
            "ERROR" => Self::Error,
            "XFAIL" => Self::Xfail,
            _ => Self::Other,
        }
    }

    /// The word; `None` where the log had none of the five.
    pub fn word(self) -> Option<&'static str> {
        match self {
            Self::Passed => Some("PASSED"),
            Self::Failed => Some("FAILED"),
            Self::Skipped => Some("SKIPPED"),
            Self::Error => Some("ERROR"),
            Self::Xfail => Some("XFAIL"),
            Self::Other => None,
        }
    }

    /// Whether the official rules call it a pass.
    pub fn passes(self) -> bool {
        matches!(self, Self::Passed | Self::Xfail)
    }

    /// Whether it says that something is wrong.
    pub fn is_bad(self) -> bool {
        matches!(self, Self::Failed | Self::Error)
    }
}

/// What a log says of one test.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Said {
    /// What it said last: what the official harness keeps.
    pub last: Status,
    /// The worst that it said.
    pub worst: Status,
    /// Whether it said different things.
    pub contradicted: bool,
}

/// So many bytes of tests' names are kept, each counted with a few more. No suite comes
/// near it; it bounds the memory of a log that does nothing but name tests.
pub const MAX_NAMES: usize = 128 << 20;

/// What a name costs beside its bytes.
const OVERHEAD: usize = 32;

/// What a log says, by test, in the order in which tests were first named. Official
/// parsers keep the last word; the rest is kept for stricter rules.
///
/// Names stand one behind the other in one text: a log names hundreds of tests, and a
/// string for each would cost more than reading the log.
#[derive(Clone, Default)]
pub struct Statuses {
    names: String,
    entries: Vec<Entry>,
    /// Places in `entries`, by the name's hash.
    places: HashTable<u32>,
    hasher: DefaultHashBuilder,
    overflowed: bool,
}

/// A test: where its name ends in the text (it begins where the one before it ends).
#[derive(Clone, Copy)]
struct Entry {
    end: u32,
    said: Said,
}

impl Statuses {
    /// Notes what the log says of a test. Beyond [`MAX_NAMES`] new names are left out.
    pub fn set(&mut self, test: &str, status: Status) {
        self.note(test, status, true);
    }

    /// Notes a status that gives way to one that the log says elsewhere.
    pub fn set_if_new(&mut self, test: &str, status: Status) {
        self.note(test, status, false);
    }

    fn note(&mut self, test: &str, status: Status, again: bool) {
        let hash = self.hasher.hash_one(test);
        if let Some(place) = self.place(hash, test) {
            if let Some(Entry { said, .. }) = self.entries.get_mut(place).filter(|_| again) {
                said.contradicted |= said.last != status;
                said.last = status;
                said.worst = said.worst.max(status);
            }
            return;
        }
        let weight = self.names.len() + test.len() + (self.entries.len() + 1) * OVERHEAD;
        let (Ok(place), Ok(end), true) = (
            u32::try_from(self.entries.len()),
            u32::try_from(self.names.len() + test.len()),
            weight <= MAX_NAMES,
        ) else {
            self.overflowed = true;
            return;
        };
        self.names.push_str(test);
        let said = Said {
            last: status,
            worst: status,
            contradicted: false,
        };
        self.entries.push(Entry { end, said });
        let (names, entries, hasher) = (&self.names, &self.entries, &self.hasher);
        self.places.insert_unique(hash, place, |place| {
            hasher.hash_one(name(names, entries, *place as usize))
        });
    }

    fn place(&self, hash: u64, test: &str) -> Option<usize> {
        let same = |place: &u32| name(&self.names, &self.entries, *place as usize) == test;
        self.places.find(hash, same).map(|place| *place as usize)
    }

    /// What the log says of exactly this test.
    pub fn get(&self, test: &str) -> Option<Said> {
        let place = self.place(self.hasher.hash_one(test), test)?;
        self.entries.get(place).map(|entry| entry.said)
    }

    /// What the log says of tests whose name begins with `prefix`, in the order in which
    /// it first named them.
    pub fn beginning_with(&self, prefix: &str) -> Vec<(&str, Said)> {
        self.iter()
            .filter(|(test, _)| test.starts_with(prefix))
            .collect()
    }

    /// All tests, in the order in which the log first named them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Said)> {
        let mut start = 0;
        self.entries.iter().map(move |entry| {
            let end = entry.end as usize;
            let name = self.names.get(start..end).unwrap_or_default();
            start = end;
            (name, entry.said)
        })
    }

    /// How many tests the log names.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it names none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether the log named more than is kept.
    pub fn overflowed(&self) -> bool {
        self.overflowed
    }

    /// Whether it says of any test that something is wrong.
    pub fn any_bad(&self) -> bool {
        self.entries.iter().any(|entry| entry.said.last.is_bad())
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.names.clear();
        self.entries.clear();
        self.places.clear();
        self.overflowed = false;
    }
}

/// The name of the test at a place.
fn name<'a>(names: &'a str, entries: &[Entry], place: usize) -> &'a str {
    let start = match place.checked_sub(1) {
        None => 0,
        Some(before) => entries.get(before).map_or(0, |entry| entry.end as usize),
    };
    let end = entries.get(place).map_or(start, |entry| entry.end as usize);
    names.get(start..end).unwrap_or_default()
}

impl fmt::Debug for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn the_last_word_counts_and_the_worst_is_remembered() {
        let mut all = Statuses::default();
        all.set("b", Status::Failed);
        all.set("a", Status::Passed);
        all.set("b", Status::Passed);
        let said = all.get("b").unwrap();
        assert_eq!(
            (said.last, said.worst, said.contradicted),
            (Status::Passed, Status::Failed, true)
        );
        assert!(!all.get("a").unwrap().contradicted);
        assert!(!all.any_bad());
        all.set_if_new("b", Status::Error);
        all.set_if_new("c", Status::Error);
        assert!(all.any_bad());
        let names: Vec<&str> = all
            .beginning_with("")
            .iter()
            .map(|(name, _)| *name)
            .collect();
        assert_eq!(names, ["b", "a", "c"]);
    }

    #[test]
    fn a_log_that_only_names_tests_does_not_fill_the_memory() {
        let mut all = Statuses::default();
        let long = "x".repeat(1 << 20);
        for n in 0..200 {
            all.set(&format!("{n}{long}"), Status::Passed);
        }
        assert!(all.overflowed() && all.names.len() <= MAX_NAMES);
        assert!(all.get(&format!("0{long}")).is_some());
        assert_eq!(all.get(&format!("199{long}")), None);
        // What is known is still kept up to date.
        all.set(&format!("0{long}"), Status::Failed);
        assert!(all.any_bad());
        all.clear();
        assert!(all.is_empty() && !all.overflowed());
    }

    proptest! {
        #[test]
        fn names_are_kept_as_a_map_would(
            said in prop::collection::vec(("[a-c\u{e9}]{0,3}", any::<bool>(), any::<bool>()), 0..60),
        ) {
            let (mut all, mut map) = (Statuses::default(), BTreeMap::new());
            for (test, passed, again) in &said {
                let status = if *passed { Status::Passed } else { Status::Failed };
                if *again {
                    all.set(test, status);
                    map.insert(test.clone(), status);
                } else {
                    all.set_if_new(test, status);
                    map.entry(test.clone()).or_insert(status);
                }
            }
            let found: BTreeMap<String, Status> =
                all.iter().map(|(test, said)| (test.to_owned(), said.last)).collect();
            prop_assert_eq!(all.len(), found.len());
            prop_assert_eq!(found, map);
        }
    }
}
