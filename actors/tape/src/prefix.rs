//! A prefix of a tape, read from its beginning in order: what recipes are folded over.

use crate::error::TapeError;
use crate::handle::TapeHandle;
use gametape_schemas::recipe::Source;
use gametape_schemas::{Failure, Record};
use std::sync::mpsc::sync_channel;

/// Events that are read together.
const PAGE: u64 = 4096;

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

    /// Hands every record from `begin` on, in order. While a page is looked at, the next one
    /// is read and decoded on other threads: at most three pages are in memory.
    ///
    /// # Errors
    /// The tape's.
    pub fn scan_from(&self, begin: u64, each: &mut dyn FnMut(Record)) -> Result<(), Failure> {
        let (tape, end) = (self.tape.clone(), self.end);
        let (give, pages) = sync_channel::<Result<Vec<Record>, TapeError>>(1);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut from = begin;
                while from < end {
                    let limit = usize::try_from(PAGE.min(end - from)).unwrap_or(1);
                    let page = tape.read(from, limit);
                    from = match &page {
                        Ok(records) => records.last().map_or(end, |last| last.seq + 1),
                        Err(_) => end,
                    };
                    // Nobody listens any more: whoever did has failed, and says why.
                    if give.send(page).is_err() {
                        return;
                    }
                }
            });
            for page in pages {
                page?.into_iter().for_each(&mut *each);
            }
            Ok(())
        })
    }
}

impl Source for Prefix {
    fn scan(&self, each: &mut dyn FnMut(Record)) -> Result<(), Failure> {
        self.scan_from(0, each)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handle::TapeOptions;
    use crate::memory::MemoryStore;
    use gametape_schemas::event::RunPaused;
    use gametape_schemas::{Event, NewEvent, RunId, StreamId};
    use std::sync::Arc;

    #[test]
    fn a_prefix_is_every_event_below_its_end_in_order() {
        let tape = TapeHandle::over(
            Arc::new(MemoryStore::new()),
            TapeOptions::new(Arc::new(|| 1)),
        )
        .unwrap();
        let total = 2 * PAGE + 100;
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
            Some(PAGE),
            Some(PAGE + 1),
            Some(total + 5),
        ] {
            let prefix = Prefix::new(&tape, end);
            let mut seen = Vec::new();
            prefix.scan(&mut |record| seen.push(record.seq)).unwrap();
            assert_eq!(
                seen,
                (0..end.unwrap_or(total).min(total)).collect::<Vec<_>>()
            );
            let mut rest = Vec::new();
            let from = PAGE - 3;
            prefix
                .scan_from(from, &mut |record| rest.push(record.seq))
                .unwrap();
            assert!(rest.iter().eq(seen.iter().skip(from as usize)));
        }
    }
}
