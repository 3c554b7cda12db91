//! The tape: the only truth. One writer, commit frames in sled, acknowledgement only
//! behind a real sync.
//!
//! Layout, in reading order:
//! - [`frame`]: what one value of the database holds; pure
//! - [`store`]: the database: opening, the lock, the index, damage told apart
//! - [`writer`]: the thread that owns the next sequence number; group commit
//! - [`actor`]: messages in front of it
//! - [`tools`]: verify, stats, export, import
//! - [`error`]: what can go wrong, by code
//!
//! **Not here:** what events mean (`gametape-schemas`), blobs, projections.
//! No other room knows sled.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod actor;
pub mod error;
pub mod frame;
pub mod store;
pub mod tools;
pub mod writer;

#[cfg(test)]
mod tests;

pub use actor::TapeActor;
pub use error::TapeError;
pub use tools::{Stats, Verified, export, import, read_all, stats, verify};
pub use writer::{Clock, SledTape};
