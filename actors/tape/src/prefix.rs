//! A prefix of a tape, read from its beginning in order: what recipes are folded over.

use crate::handle::TapeHandle;
use gametape_schemas::lazy::LazyRecord;
use gametape_schemas::recipe::Source;
use gametape_schemas::{Failure, Record};

/// The events of a tape below a sequence number.
#[derive(Clone)]
pub struct Prefix {
    tape: TapeHandle,
    end: u64,
}

impl Prefix {
    /// The events below `end`, or all that are durable now.
    pub fn new(tape: &TapeHandle, end: Option<u64>) -> Self {
        let durable = tape.durable();
        Self {
            tape: tape.clone(),
            end: end.map_or(durable, |end| end.min(durable)),
        }
    }

    /// The sequence number that ends it.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Hands every record from `begin` on, in order.
    ///
    /// # Errors
    /// The tape's.
    pub fn scan_from(&self, begin: u64, each: &mut dyn FnMut(Record)) -> Result<(), Failure> {
        Ok(self.tape.each(begin, self.end, each)?)
    }
}

impl Source for Prefix {
    fn scan(&self, each: &mut dyn FnMut(LazyRecord)) -> Result<(), Failure> {
        Ok(self.tape.each_lazy(0, self.end, each)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handle::TapeOptions;
    use crate::memory::MemoryStore;
    use gametape_schemas::event::{RunPaused, StepTaken};
    use gametape_schemas::lazy::LazyBody;
    use gametape_schemas::{AttemptId, Event, NewEvent, RunId, Step, StreamId};
    use std::sync::Arc;

    /// More events than a frame holds, and more than are decoded together.
    const MANY: u64 = 4096;

    #[test]
    fn a_prefix_is_every_event_below_its_end_in_order() {
        let tape = TapeHandle::over(
            Arc::new(MemoryStore::new()),
            TapeOptions::new(Arc::new(|| 1)),
        )
        .unwrap();
        let total = 2 * MANY + 100;
        let events: Vec<NewEvent> = (0..total)
            .map(|n| {
                let paused = Event::RunPaused(RunPaused {
                    reason: n.to_string(),
                });
                NewEvent::named(StreamId::run(&RunId::new("r")), &n.to_string(), paused)
            })
            .collect();
        tape.append(events).unwrap();
        for end in [
            None,
            Some(0),
            Some(1),
            Some(MANY),
            Some(MANY + 1),
            Some(total + 5),
        ] {
            let prefix = Prefix::new(&tape, end);
            let mut seen = Vec::new();
            prefix.scan(&mut |record| seen.push(record.seq)).unwrap();
            let mut whole = Vec::new();
            prefix
                .scan_from(0, &mut |record| whole.push(record.seq))
                .unwrap();
            assert_eq!(whole, seen);
            assert_eq!(
                seen,
                (0..end.unwrap_or(total).min(total)).collect::<Vec<_>>()
            );
            let mut rest = Vec::new();
            let from = MANY - 3;
            prefix
                .scan_from(from, &mut |record| rest.push(record.seq))
                .unwrap();
            assert!(rest.iter().eq(seen.iter().skip(from as usize)));
        }
    }

    #[test]
    fn steps_come_as_bytes_and_say_what_the_whole_records_say() {
        let store = Arc::new(MemoryStore::new());
        let tape = TapeHandle::over(store, TapeOptions::new(Arc::new(|| 1))).unwrap();
        let attempt = AttemptId::new("a");
        // Every tenth body lies outside of its frame.
        let text = |n: u32| "said ".repeat(if n.is_multiple_of(10) { 9_000 } else { 9 });
        let steps = (0..300).map(|n| {
            let mut step = Step {
                index: n,
                observation: text(n),
                ..Step::default()
            };
            step.completion.tokens = vec![n; n as usize % 7];
            let taken = Event::StepTaken(StepTaken {
                attempt: attempt.clone(),
                step,
            });
            NewEvent::named(StreamId::attempt(&attempt), &n.to_string(), taken)
        });
        tape.append(steps.collect()).unwrap();
        let prefix = Prefix::new(&tape, None);
        let (mut whole, mut lazy) = (Vec::new(), Vec::new());
        prefix
            .scan_from(0, &mut |record| whole.push(record))
            .unwrap();
        prefix.scan(&mut |record| lazy.push(record)).unwrap();
        assert_eq!((whole.len(), lazy.len()), (300, 300));
        for (whole, lazy) in whole.into_iter().zip(lazy) {
            let Event::StepTaken(StepTaken { attempt, mut step }) = whole.event else {
                panic!("only steps were appended");
            };
            let LazyBody::Step(bytes) = lazy.body else {
                panic!("a step is left as bytes");
            };
            assert_eq!((lazy.seq, lazy.event_id), (whole.seq, whole.event_id));
            assert_eq!((&bytes.attempt, bytes.index), (&attempt, step.index));
            assert_eq!(bytes.said_tokens, step.completion.said_tokens());
            step.completion.tokens = Vec::new();
            assert_eq!(bytes.decode().unwrap(), step);
        }
    }
}
