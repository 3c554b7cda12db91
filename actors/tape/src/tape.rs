//! What a tape is to everybody else.

use crate::error::TapeError;
use gametape_schemas::message::Appended;
use gametape_schemas::{NewEvent, Record, StreamId};
use std::sync::Arc;

/// Clock readings in microseconds since 1970 (UTC). Handed in: nothing in this room
/// reads a clock for events.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// An event log that is only ever appended to. Every call may block on the disk: not
/// for an arbiter (see [`crate::TapeActor`]).
pub trait Tape: Send + Sync {
    /// Appends events, all or none, and waits until they are durable.
    ///
    /// # Errors
    /// The writer's refusal (nothing was written), or the disk's failure (the writer
    /// has stopped; whether the events survive is unknown until the next opening,
    /// and appending them again is safe: ids make it idempotent).
    fn append(&self, events: Vec<NewEvent>) -> Result<Appended, TapeError>;

    /// Durable events from sequence number `from` on, at most `limit`.
    ///
    /// # Errors
    /// Damage, by sequence number.
    fn read(&self, from: u64, limit: usize) -> Result<Vec<Record>, TapeError>;

    /// Durable events of one stream from sequence number `from` on, at most `limit`.
    ///
    /// # Errors
    /// Damage, by sequence number.
    fn read_stream(
        &self,
        stream: &StreamId,
        from: u64,
        limit: usize,
    ) -> Result<Vec<Record>, TapeError>;

    /// Number of events written, those that are not yet durable included.
    fn len(&self) -> u64;

    /// Whether nothing was ever written.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The durable watermark: every event with a smaller sequence number survives a
    /// loss of power. Reads end here.
    fn durable(&self) -> u64;
}
