//! Status of every test that a log names.

use std::collections::HashMap;

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
    /// Place in the order in which tests were first named.
    pub(super) order: u32,
}

/// What a log says, by test. Official parsers keep the last word; the rest is kept for
/// stricter rules.
#[derive(Clone, Debug, Default)]
pub struct Statuses {
    by_test: HashMap<String, Said>,
}

impl Statuses {
    /// Notes what the log says of a test.
    pub fn set(&mut self, test: &str, status: Status) {
        if let Some(said) = self.by_test.get_mut(test) {
            said.contradicted |= said.last != status;
            said.last = status;
            said.worst = said.worst.max(status);
            return;
        }
        let order = u32::try_from(self.by_test.len()).unwrap_or(u32::MAX);
        let said = Said {
            last: status,
            worst: status,
            contradicted: false,
            order,
        };
        self.by_test.insert(test.to_owned(), said);
    }

    /// Notes a status that gives way to one that the log says elsewhere.
    pub fn set_if_new(&mut self, test: &str, status: Status) {
        if !self.by_test.contains_key(test) {
            self.set(test, status);
        }
    }

    /// What the log says of exactly this test.
    pub fn get(&self, test: &str) -> Option<Said> {
        self.by_test.get(test).copied()
    }

    /// What the log says of tests whose name begins with `prefix`, in the order in which
    /// it first named them.
    pub fn beginning_with(&self, prefix: &str) -> Vec<(&str, Said)> {
        let mut found: Vec<(&str, Said)> = self
            .by_test
            .iter()
            .filter(|(test, _)| test.starts_with(prefix))
            .map(|(test, said)| (test.as_str(), *said))
            .collect();
        found.sort_by_key(|(_, said)| said.order);
        found
    }

    /// All tests, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Said)> {
        self.by_test
            .iter()
            .map(|(test, said)| (test.as_str(), *said))
    }

    /// How many tests the log names.
    pub fn len(&self) -> usize {
        self.by_test.len()
    }

    /// Whether it names none.
    pub fn is_empty(&self) -> bool {
        self.by_test.is_empty()
    }

    /// Whether it says of any test that something is wrong.
    pub fn any_bad(&self) -> bool {
        self.by_test.values().any(|said| said.last.is_bad())
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.by_test.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
