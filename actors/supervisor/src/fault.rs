//! Faults on purpose: an actor panics or hangs at its n-th message. For drills and tests:
//! a supervisor that was never seen to work does not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What happens to an actor that is handed a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// It panics with the message in its hands.
    Panic,
    /// It stops in the middle of it and takes no other; after this long it is taken for
    /// hung (instead of after the message's own deadline).
    Hang(Duration),
    /// It blocks the thread of all actors for this long.
    Block(Duration),
}

/// Which messages of which actor meet a fault.
///
/// Written as `actor:panic@n`, `actor:hang/milliseconds@n` or
/// `actor:block/milliseconds@n`, separated by commas; n counts the actor's messages in
/// this process, from 1.
#[derive(Clone, Default, Debug)]
pub struct Faults {
    plans: BTreeMap<String, FaultPlan>,
}

/// The faults of one actor. Clones count together.
#[derive(Clone, Default, Debug)]
pub struct FaultPlan {
    at: BTreeMap<u64, Fault>,
    seen: Arc<AtomicU64>,
}

impl Faults {
    /// Reads the text form; empty means none.
    ///
    /// # Errors
    /// The part that cannot be read.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut faults = Self::default();
        for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let (actor, number, fault) = parse_one(part).ok_or_else(|| part.to_owned())?;
            let plan = faults.plans.entry(actor.to_owned()).or_default();
            plan.at.insert(number, fault);
        }
        Ok(faults)
    }

    /// The faults of this actor.
    pub fn of(&self, actor: &str) -> FaultPlan {
        self.plans.get(actor).cloned().unwrap_or_default()
    }

    /// The actors that meet faults.
    pub fn actors(&self) -> impl Iterator<Item = &str> {
        self.plans.keys().map(String::as_str)
    }
}

fn parse_one(part: &str) -> Option<(&str, u64, Fault)> {
    let (actor, rest) = part.split_once(':')?;
    let (what, number) = rest.split_once('@')?;
    let number = number.parse().ok().filter(|n| *n > 0)?;
    let (what, lasts) = match what.split_once('/') {
        Some((what, ms)) => (what, Some(Duration::from_millis(ms.parse().ok()?))),
        None => (what, None),
    };
    let fault = match (what, lasts) {
        ("panic", None) => Fault::Panic,
        ("hang", Some(lasts)) => Fault::Hang(lasts),
        ("block", Some(lasts)) => Fault::Block(lasts),
        _ => return None,
    };
    (!actor.is_empty()).then_some((actor, number, fault))
}

impl FaultPlan {
    /// No faults but these, by message number from 1.
    pub fn new(at: impl IntoIterator<Item = (u64, Fault)>) -> Self {
        Self {
            at: at.into_iter().collect(),
            seen: Arc::default(),
        }
    }

    /// Counts a message; the fault that it meets.
    pub fn next(&self) -> Option<Fault> {
        if self.at.is_empty() {
            return None;
        }
        let number = self.seen.fetch_add(1, Ordering::Relaxed) + 1;
        self.at.get(&number).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_form_says_who_what_and_when() {
        let text = "grader:panic@2, model:hang/50@1,grader:block/5@3,";
        let faults = Faults::parse(text).unwrap();
        assert_eq!(faults.actors().collect::<Vec<_>>(), ["grader", "model"]);
        let grader = faults.of("grader");
        let met: Vec<_> = (0..4).map(|_| grader.next()).collect();
        let block = Fault::Block(Duration::from_millis(5));
        assert_eq!(met, [None, Some(Fault::Panic), Some(block), None]);
        let hang = Fault::Hang(Duration::from_millis(50));
        assert_eq!(faults.of("model").next(), Some(hang));
        assert_eq!(faults.of("agent").next(), None);
        assert_eq!(Faults::parse("").unwrap().actors().count(), 0);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for bad in [
            "grader",
            "grader:panic",
            "grader:panic@0",
            "grader:panic/5@1",
            "grader:hang@1",
            ":panic@1",
            "grader:melt@1",
        ] {
            let text = format!("model:panic@1,{bad}");
            assert_eq!(Faults::parse(&text).unwrap_err(), bad);
        }
    }
}
