//! Events to bytes and back.
//!
//! One event on the tape is a MessagePack **map** with named fields (arrays break
//! when a field moves): envelope fields, the type name, the schema version and the
//! body as opaque bytes. Bodies of an older version pass through `upcast.rs`.

use crate::event::{Event, Record};
use crate::ids::StreamId;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// One event as it lies on the tape. Field names are short: they are stored.
#[derive(Serialize, Deserialize)]
struct Stored {
    seq: u64,
    stream: StreamId,
    ver: u64,
    id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cause: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    corr: Option<String>,
    at: u64,
    kind: String,
    schema: u16,
    #[serde(with = "serde_bytes")]
    body: Vec<u8>,
}

/// Why bytes are not an event, or an event has no bytes.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The event cannot be written.
    #[error("event cannot be encoded: {0}")]
    Encode(#[from] rmp_serde::encode::Error),
    /// The bytes are not an event.
    #[error("bytes are not an event: {0}")]
    Decode(#[from] rmp_serde::decode::Error),
    /// The type is not known to this version of gametape.
    #[error("unknown event type `{kind}` version {schema}: written by a newer gametape?")]
    Unknown {
        /// Type name found.
        kind: String,
        /// Schema version found.
        schema: u16,
    },
}

/// Writes a record.
///
/// # Errors
/// [`CodecError::Encode`] when a body has no MessagePack form.
pub fn encode(record: &Record) -> Result<Vec<u8>, CodecError> {
    Ok(rmp_serde::to_vec_named(&Stored {
        seq: record.seq,
        stream: record.stream.clone(),
        ver: record.version,
        id: record.event_id.clone(),
        cause: record.causation,
        corr: record.correlation.clone(),
        at: record.at_micros,
        kind: record.event.kind().to_owned(),
        schema: record.event.schema_version(),
        body: record.event.encode_body()?,
    })?)
}

/// Reads a record; older bodies are brought to the current version.
///
/// # Errors
/// [`CodecError::Decode`] for bytes that are not an event, [`CodecError::Unknown`]
/// for a type or a version that this gametape does not know.
pub fn decode(bytes: &[u8]) -> Result<Record, CodecError> {
    let stored: Stored = rmp_serde::from_slice(bytes)?;
    let unknown = || CodecError::Unknown {
        kind: stored.kind.clone(),
        schema: stored.schema,
    };
    let current = Event::current_version(&stored.kind).ok_or_else(unknown)?;
    if stored.schema > current {
        return Err(unknown());
    }
    let body = upcast(&stored.kind, stored.schema, current, &stored.body).ok_or_else(unknown)??;
    let event = Event::decode_body(&stored.kind, &body).ok_or_else(unknown)??;
    Ok(Record {
        seq: stored.seq,
        stream: stored.stream,
        version: stored.ver,
        event_id: stored.id,
        causation: stored.cause,
        correlation: stored.corr,
        at_micros: stored.at,
        event,
    })
}

/// Brings a body from version `from` to version `to`, one version at a time. Pure.
/// `None` when a version on the way is not known.
fn upcast<'a>(
    kind: &str,
    from: u16,
    to: u16,
    body: &'a [u8],
) -> Option<Result<Cow<'a, [u8]>, CodecError>> {
    (from..to).try_fold(Ok(Cow::Borrowed(body)), |body, version| {
        let step = crate::upcast::step(kind, version)?;
        Some(body.and_then(|body| step(&body).map(Cow::Owned)))
    })
}
