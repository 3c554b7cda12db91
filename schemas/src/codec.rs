//! Events to bytes and back.
//!
//! One event on the tape is a MessagePack **map** with named fields (arrays break
//! when a field moves): envelope fields, the type name, the schema version and the
//! body as opaque bytes. Bodies of an older version pass through `upcast.rs`.
//!
//! A body over [`OUTSIDE_BYTES`] lies apart from its event, under the digest of its
//! bytes: [`split`] and [`decode_with`]. Where bodies lie is the tape's business and no
//! part of an event: [`encode`] is always whole, and digests are taken of that.

use crate::event::{Event, Record};
use crate::ids::StreamId;
use crate::lazy::{LazyBody, LazyRecord, StepBytes};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteArray;
use std::borrow::Cow;

/// blake3 of the bytes of a body that lies outside its event: its name.
pub type PayloadDigest = [u8; 32];

/// The type name of a step.
const STEP: &str = "StepTaken";

/// A body of more bytes than this lies outside its event.
pub const OUTSIDE_BYTES: usize = 32 << 10;

/// A payload's name in lower-case hexadecimal, as files and messages have it.
pub fn payload_name(digest: &PayloadDigest) -> String {
    blake3::Hash::from(*digest).to_hex().to_string()
}

/// One event as it lies on the tape, texts and body where they are. Field names are short:
/// they are stored.
#[derive(Serialize, Deserialize)]
struct Stored<'a> {
    seq: u64,
    stream: &'a str,
    ver: u64,
    id: &'a str,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cause: Option<u64>,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    corr: Option<&'a str>,
    at: u64,
    kind: &'a str,
    schema: u16,
    /// Digest of the body when it lies outside; `body` is then empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    blob: Option<ByteArray<32>>,
    #[serde(borrow, with = "serde_bytes")]
    body: &'a [u8],
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
    /// The body lies elsewhere, and nobody was there to look it up.
    #[error(
        "the event's body lies outside it, as payload {}",
        payload_name(digest)
    )]
    Outside {
        /// Its name.
        digest: PayloadDigest,
    },
}

/// A body that lies outside its event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Payload {
    /// Its name.
    pub digest: PayloadDigest,
    /// Its bytes.
    pub body: Vec<u8>,
}

/// A record as it is stored: one part, or two.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Split {
    /// What lies in a frame. Without a payload this is what [`encode`] gives.
    pub inside: Vec<u8>,
    /// The body, when it is too long to lie there, too.
    pub payload: Option<Payload>,
}

/// What can be said of a stored event without its body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outline {
    /// Its sequence number.
    pub seq: u64,
    /// Its stream.
    pub stream: StreamId,
    /// Its id.
    pub event_id: String,
    /// The name of its body, when that lies outside.
    pub payload: Option<PayloadDigest>,
}

impl<'a> Stored<'a> {
    fn of(record: &'a Record, blob: Option<PayloadDigest>, body: &'a [u8]) -> Self {
        Self {
            seq: record.seq,
            stream: record.stream.as_str(),
            ver: record.version,
            id: &record.event_id,
            cause: record.causation,
            corr: record.correlation.as_deref(),
            at: record.at_micros,
            kind: record.event.kind(),
            schema: record.event.schema_version(),
            blob: blob.map(ByteArray::new),
            body,
        }
    }

    /// Reads the envelope; type and version are known then.
    fn read(bytes: &'a [u8]) -> Result<Self, CodecError> {
        let stored: Self = rmp_serde::from_slice(bytes)?;
        if Event::current_version(stored.kind).is_none_or(|current| stored.schema > current) {
            return Err(stored.unknown());
        }
        if stored.blob.is_some() && !stored.body.is_empty() {
            let twice = "its body lies inside and outside".to_owned();
            return Err(rmp_serde::decode::Error::Syntax(twice).into());
        }
        Ok(stored)
    }

    fn payload(&self) -> Option<PayloadDigest> {
        self.blob.map(ByteArray::into_array)
    }

    fn unknown(&self) -> CodecError {
        CodecError::Unknown {
            kind: self.kind.to_owned(),
            schema: self.schema,
        }
    }

    fn event(&self, body: &[u8]) -> Result<Event, CodecError> {
        let unknown = || self.unknown();
        let current = Event::current_version(self.kind).ok_or_else(unknown)?;
        let body = upcast(self.kind, self.schema, current, body).ok_or_else(unknown)??;
        Ok(Event::decode_body(self.kind, &body).ok_or_else(unknown)??)
    }

    fn record(self, event: Event) -> Record {
        Record {
            seq: self.seq,
            stream: StreamId::new(self.stream),
            version: self.ver,
            event_id: self.id.to_owned(),
            causation: self.cause,
            correlation: self.corr.map(str::to_owned),
            at_micros: self.at,
            event,
        }
    }

    /// Whether its body is a step of today's version.
    fn is_step(&self) -> bool {
        self.kind == STEP && Event::current_version(STEP) == Some(self.schema)
    }

    fn lazy(&self, body: &[u8]) -> Result<LazyRecord, CodecError> {
        let body = match self.is_step() {
            true => LazyBody::Step(StepBytes::read(body)?),
            false => LazyBody::Event(Box::new(self.event(body)?)),
        };
        Ok(LazyRecord {
            seq: self.seq,
            version: self.ver,
            event_id: self.id.to_owned(),
            at_micros: self.at,
            body,
        })
    }
}

/// Writes a record whole, wherever the tape keeps its body.
///
/// # Errors
/// [`CodecError::Encode`] when a body has no MessagePack form.
pub fn encode(record: &Record) -> Result<Vec<u8>, CodecError> {
    let body = record.event.encode_body()?;
    Ok(rmp_serde::to_vec_named(&Stored::of(record, None, &body))?)
}

/// Writes a record as it is stored: a long body apart from it.
///
/// # Errors
/// As [`encode`].
pub fn split(record: &Record) -> Result<Split, CodecError> {
    let body = record.event.encode_body()?;
    if body.len() <= OUTSIDE_BYTES {
        return Ok(Split {
            inside: rmp_serde::to_vec_named(&Stored::of(record, None, &body))?,
            payload: None,
        });
    }
    let digest = *blake3::hash(&body).as_bytes();
    let envelope = Stored::of(record, Some(digest), &[]);
    Ok(Split {
        inside: rmp_serde::to_vec_named(&envelope)?,
        payload: Some(Payload { digest, body }),
    })
}

/// Reads a record that is whole; older bodies are brought to the current version.
///
/// # Errors
/// [`CodecError::Decode`] for bytes that are not an event, [`CodecError::Unknown`]
/// for a type or a version that this gametape does not know, [`CodecError::Outside`]
/// when the body lies elsewhere.
pub fn decode(bytes: &[u8]) -> Result<Record, CodecError> {
    decode_with(bytes, |digest| Err(CodecError::Outside { digest: *digest }))
}

/// Reads a record. `look_up` gives the bytes of a payload, held against their digest;
/// it is asked only for a body that lies outside.
///
/// # Errors
/// As [`decode`], and `look_up`'s.
pub fn decode_with<E: From<CodecError>>(
    bytes: &[u8],
    look_up: impl FnOnce(&PayloadDigest) -> Result<Vec<u8>, E>,
) -> Result<Record, E> {
    let stored = Stored::read(bytes)?;
    let event = match stored.payload() {
        Some(digest) => stored.event(&look_up(&digest)?)?,
        None => stored.event(stored.body)?,
    };
    Ok(stored.record(event))
}

/// As [`decode_with`], with a step left as bytes: checked no further than what
/// [`StepBytes`] says of it.
///
/// # Errors
/// As there.
pub fn decode_lazy<E: From<CodecError>>(
    bytes: &[u8],
    look_up: impl FnOnce(&PayloadDigest) -> Result<Vec<u8>, E>,
) -> Result<LazyRecord, E> {
    let stored = Stored::read(bytes)?;
    Ok(match stored.payload() {
        Some(digest) => stored.lazy(&look_up(&digest)?)?,
        None => stored.lazy(stored.body)?,
    })
}

/// Reads what is there without looking anything up. A body that lies inside is checked.
///
/// # Errors
/// As [`decode`], save that a body may lie outside.
pub fn outline(bytes: &[u8]) -> Result<Outline, CodecError> {
    let stored = Stored::read(bytes)?;
    let payload = stored.payload();
    if payload.is_none() {
        stored.event(stored.body)?;
    }
    Ok(Outline {
        seq: stored.seq,
        stream: StreamId::new(stored.stream),
        event_id: stored.id.to_owned(),
        payload,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::RunPaused;
    use crate::ids::RunId;
    use proptest::prelude::*;

    fn record(reason: String) -> Record {
        Record {
            seq: 7,
            stream: StreamId::run(&RunId::new("r")),
            version: 3,
            event_id: "e".to_owned(),
            causation: None,
            correlation: None,
            at_micros: 5,
            event: Event::RunPaused(RunPaused { reason }),
        }
    }

    fn look_up(split: &Split) -> impl FnOnce(&PayloadDigest) -> Result<Vec<u8>, CodecError> {
        let payload = split.payload.clone().unwrap();
        move |digest| {
            assert_eq!(*digest, payload.digest);
            Ok(payload.body)
        }
    }

    #[test]
    fn a_body_goes_outside_when_it_is_longer_than_the_limit() {
        let empty = record(String::new()).event.encode_body().unwrap().len();
        // A string of this length has two bytes more of header than an empty one.
        let fits = OUTSIDE_BYTES - empty - 2;
        let last = record("x".repeat(fits));
        assert_eq!(last.event.encode_body().unwrap().len(), OUTSIDE_BYTES);
        let whole = split(&last).unwrap();
        assert_eq!(whole.payload, None);
        assert_eq!(whole.inside, encode(&last).unwrap());
        let first = record("x".repeat(fits + 1));
        let apart = split(&first).unwrap();
        let payload = apart.payload.clone().unwrap();
        assert_eq!(payload.body, first.event.encode_body().unwrap());
        assert_eq!(payload.digest, *blake3::hash(&payload.body).as_bytes());
        assert!(apart.inside.len() < 200);
        assert_eq!(decode_with(&apart.inside, look_up(&apart)).unwrap(), first);
    }

    #[test]
    fn without_a_look_up_a_body_outside_is_an_error_and_says_which() {
        let apart = split(&record("x".repeat(40_000))).unwrap();
        let digest = apart.payload.unwrap().digest;
        match decode(&apart.inside) {
            Err(CodecError::Outside { digest: found }) => assert_eq!(found, digest),
            other => panic!("{other:?}"),
        }
        let outline = outline(&apart.inside).unwrap();
        assert_eq!((outline.seq, outline.payload), (7, Some(digest)));
    }

    #[test]
    fn a_body_that_lies_in_two_places_is_no_event() {
        let sample = record(String::new());
        let both = Stored::of(&sample, Some([1; 32]), &[0x80]);
        let bytes = rmp_serde::to_vec_named(&both).unwrap();
        for error in [decode(&bytes).unwrap_err(), outline(&bytes).unwrap_err()] {
            assert!(matches!(error, CodecError::Decode(_)), "{error}");
        }
    }

    #[test]
    fn an_unknown_type_is_told_before_its_body_is_looked_up() {
        let sample = record(String::new());
        let mut stored = Stored::of(&sample, Some([1; 32]), &[]);
        stored.schema = 99;
        let bytes = rmp_serde::to_vec_named(&stored).unwrap();
        let error = decode_with(&bytes, |_| -> Result<_, CodecError> {
            panic!("not to be looked up")
        });
        assert!(matches!(error, Err(CodecError::Unknown { schema: 99, .. })));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_is_split_comes_together_again(
            text in ".{0,40}", repeats in 0usize..2_000, seq in any::<u64>(),
        ) {
            let mut sample = record(text.repeat(repeats));
            sample.seq = seq;
            let parts = split(&sample).unwrap();
            let outline = outline(&parts.inside).unwrap();
            prop_assert_eq!(outline.seq, seq);
            prop_assert_eq!(outline.payload, parts.payload.as_ref().map(|p| p.digest));
            let whole = encode(&sample).unwrap();
            match &parts.payload {
                None => prop_assert_eq!(&parts.inside, &whole),
                Some(payload) => prop_assert!(payload.body.len() > OUTSIDE_BYTES),
            }
            let back = match &parts.payload {
                None => decode(&parts.inside).unwrap(),
                Some(_) => decode_with(&parts.inside, look_up(&parts)).unwrap(),
            };
            prop_assert_eq!(encode(&back).unwrap(), whole);
            prop_assert_eq!(back, sample);
        }

        #[test]
        fn garbage_is_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(decode(&bytes).is_err());
            prop_assert!(outline(&bytes).is_err());
        }
    }
}
