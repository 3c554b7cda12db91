//! The tape: the only truth. One writer, commit frames in sled, acknowledgement only
//! behind a real sync.
//!
//! Layout, in reading order:
//! - [`tape`]: what a tape is to everybody else: the trait
//! - [`handle`]: opening one, and the handle on it
//! - [`decide`]: what an append means: versions, ids, refusals; pure
//! - [`frame`]: what one value of the database holds; pure
//! - [`index`]: streams and ids, in memory and as stored; pure
//! - [`writer`]: the thread that owns the next sequence number; group commit
//! - [`subscription`]: catching up with the writer, and waiting for it
//! - [`backend`]: where frames lie: the trait that a store fulfils
//! - [`sled_store`], [`memory`]: the stores
//! - [`payload`]: bodies that are too long for a frame, in files of their own
//! - `sled_guard`: calls into sled, with panics and errors told apart
//! - [`faulty`]: a store that crashes and fails on purpose
//! - [`watermark`]: what must be there at least, noted beside the database
//! - [`lock`]: one process a tape
//! - [`scan`]: reading frames with their links checked; the index at opening
//! - [`actor`]: messages in front of the handle
//! - [`projection`]: states folded from the tape, kept and rebuilt
//! - [`snapshot`]: the bytes of a kept state; pure
//! - [`slots`]: where kept states lie: the old one in service until the new one is whole
//! - [`examine`]: verify, stats, read everything
//! - [`mod@compact`]: removes payloads that no event names
//! - [`transfer`]: export, import; JSON lines
//! - [`mod@parquet`]: a tape as a table for other tools, and back
//! - [`error`]: what can go wrong, by code
//!
//! **Not here:** what events mean (`gametape-schemas`), and what projections there are.
//! No other room knows sled.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod actor;
pub mod backend;
pub mod compact;
pub mod decide;
pub mod error;
pub mod examine;
pub mod faulty;
pub mod frame;
pub mod handle;
pub mod index;
pub mod lock;
pub mod memory;
pub mod parquet;
pub mod payload;
pub mod prefix;
pub mod projection;
pub mod scan;
mod sled_guard;
pub mod sled_store;
pub mod slots;
pub mod snapshot;
pub mod subscription;
pub mod tape;
pub mod transfer;
pub mod watermark;
pub mod writer;

pub use actor::TapeActor;
pub use backend::Backend;
pub use compact::{Compacted, Removed, compact, compact_store};
pub use error::TapeError;
pub use examine::{
    ContentDigest, IndexState, Payloads, Stats, Verified, content_digest, read_all, stats,
    stats_of, verify, verify_store,
};
pub use faulty::{Fault, FaultyStore, Io};
pub use handle::{SledTape, TapeHandle, TapeOptions, start};
pub use memory::MemoryStore;
pub use prefix::Prefix;
pub use projection::{Projection, Projector, ProjectorOptions, Rebuilt, View};
pub use sled_guard::set_cache_bytes;
pub use sled_store::{Purpose, SledStore};
pub use subscription::Subscription;
pub use tape::{Clock, Tape};
pub use transfer::{Format, export, export_file, import, import_file};
