//! Where frames lie: what the writer asks of a store.
//!
//! Two stores exist: [`crate::sled_store`] and [`crate::memory`]. One that injects
//! faults wraps either: everything that can fail goes through this trait.
//!
//! Beside frames a store keeps payloads: bodies that frames name by their digests.

use crate::error::TapeError;
use crate::scan::Tip;
use gametape_schemas::codec::PayloadDigest;

/// A frame and its index entry, about to be written.
#[derive(Clone, Debug)]
pub struct Packed {
    /// Its first sequence number: its key.
    pub first: u64,
    /// The frame.
    pub frame: Vec<u8>,
    /// Its index entry.
    pub entry: Vec<u8>,
}

/// A key with its value; keys are 8 bytes, big-endian, unless something is damaged.
pub type Pair = (Vec<u8>, Vec<u8>);

/// An iterator over stored pairs in the order of keys.
pub type Pairs<'a> = Box<dyn Iterator<Item = Result<Pair, TapeError>> + 'a>;

/// An ordered store of frames, with a second, rebuildable one of index entries.
/// One writer; readers beside it see frames that were put, durable or not.
pub trait Backend: Send + Sync {
    /// Puts frames: after a crash either all of this call are there or none. Index
    /// entries may lag behind.
    ///
    /// # Errors
    /// The disk's.
    fn put(&self, frames: &[Packed]) -> Result<(), TapeError>;

    /// Makes everything put so far survive a loss of power.
    ///
    /// # Errors
    /// The disk's. Never retry: what the kernel dropped is gone from its view.
    fn sync(&self) -> Result<(), TapeError>;

    /// Frames in order, beginning with the one that holds sequence number `seq`
    /// (or, when there is none, with the next one).
    fn frames(&self, seq: u64) -> Pairs<'_>;

    /// Index entries in order.
    fn entries(&self) -> Pairs<'_>;

    /// Replaces the index entries from key `from` on.
    ///
    /// # Errors
    /// The disk's.
    fn replace_entries(&self, from: u64, entries: &[(u64, Vec<u8>)]) -> Result<(), TapeError>;

    /// Counts this opening for writing and says how many there have been, durably at
    /// the next [`Self::sync`].
    ///
    /// # Errors
    /// The disk's.
    fn next_epoch(&self) -> Result<u64, TapeError>;

    /// The end of the chain that was noted last: what must be there at least.
    ///
    /// # Errors
    /// The disk's.
    fn watermark(&self) -> Result<Option<Tip>, TapeError>;

    /// Notes the end of the chain, once it is durable, apart from the frames.
    ///
    /// # Errors
    /// The disk's.
    fn set_watermark(&self, tip: Tip) -> Result<(), TapeError>;

    /// Puts a payload, durable on return. One that is there already and whole is not
    /// written again. It is to be put before the frame that names it.
    ///
    /// # Errors
    /// The disk's. Nothing is then under its name, or all of it.
    fn put_payload(&self, digest: &PayloadDigest, body: &[u8]) -> Result<(), TapeError>;

    /// A payload as it lies there, to be held against its digest
    /// ([`crate::payload::resolve`]); `None` when there is none.
    ///
    /// # Errors
    /// The disk's; [`TapeError::Corrupt`] when nothing can be made of what is there
    /// (the store does not know of which event: its sequence number means nothing).
    fn payload(&self, digest: &PayloadDigest) -> Result<Option<Vec<u8>>, TapeError>;

    /// Digest of every payload and the bytes that it takes where it lies, in order of
    /// digests.
    ///
    /// # Errors
    /// The disk's.
    fn payloads(&self) -> Result<Vec<(PayloadDigest, u64)>, TapeError>;

    /// Removes a payload that no event names, if it is there.
    ///
    /// # Errors
    /// The disk's.
    fn remove_payload(&self, digest: &PayloadDigest) -> Result<(), TapeError>;

    /// Bytes taken on disk by everything.
    fn disk_bytes(&self) -> u64;
}

/// A big-endian number, as in keys; `None` when it has not 8 bytes.
pub fn key_number(key: &[u8]) -> Option<u64> {
    key.try_into().ok().map(u64::from_be_bytes)
}
