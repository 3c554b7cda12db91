//! Records whose steps are still bytes.
//!
//! Most of a tape is steps, and most of what reads a whole tape wants little of most of them:
//! their place, what they cost, and whose they are. [`LazyRecord`] is read with that, and what
//! was said is decoded when it is asked for ([`StepBytes::decode`]).

use crate::attempt::Step;
use crate::codec::CodecError;
use crate::event::{Event, Record, StepTaken};
use crate::ids::AttemptId;
use serde::Deserialize;
use std::ops::Range;

/// A record of which the step may not be decoded yet.
#[derive(Clone, PartialEq, Debug)]
pub struct LazyRecord {
    /// Its sequence number.
    pub seq: u64,
    /// Its position in its stream.
    pub version: u64,
    /// Its id.
    pub event_id: String,
    /// When it was appended, microseconds since 1970.
    pub at_micros: u64,
    /// What happened.
    pub body: LazyBody,
}

/// What happened, a step perhaps as bytes.
#[derive(Clone, PartialEq, Debug)]
pub enum LazyBody {
    /// Decoded. A step is so too where it comes from memory or from an older version.
    Event(Box<Event>),
    /// A step.
    Step(StepBytes),
}

/// A step as it lies on the tape, save for its sampled tokens, and what can be said of it
/// without decoding it.
#[derive(Clone, PartialEq, Debug)]
pub struct StepBytes {
    /// Its attempt.
    pub attempt: AttemptId,
    /// Position in the attempt, from 0.
    pub index: u32,
    /// Tokens that the policy said ([`crate::Completion::said_tokens`]).
    pub said_tokens: u64,
    /// US dollars ([`crate::Completion::cost_usd`]).
    pub cost_usd: f64,
    bytes: Box<[u8]>,
}

impl StepBytes {
    /// Reads what is said of a body of the current version.
    ///
    /// # Errors
    /// What is not a step.
    pub(crate) fn read(body: &[u8]) -> Result<Self, CodecError> {
        let told = Told::read(body).ok_or_else(|| {
            let what = "the body of a step is not one".to_owned();
            rmp_serde::decode::Error::Syntax(what)
        })?;
        let served: Option<ToldServed> = match told.served {
            Some(range) => rmp_serde::from_slice(body.get(range).unwrap_or_default())?,
            None => None,
        };
        let said_tokens = match (&served, told.tokens) {
            (Some(served), 0) => u64::from(served.completion_tokens),
            (_, n) => n,
        };
        let cut: usize = told.cut.iter().map(|range| range.len() - 1).sum();
        let mut bytes = Vec::with_capacity(body.len() - cut);
        let mut from = 0;
        for range in told.cut {
            bytes.extend_from_slice(body.get(from..range.start).unwrap_or_default());
            bytes.push(EMPTY_LIST);
            from = range.end;
        }
        bytes.extend_from_slice(body.get(from..).unwrap_or_default());
        Ok(Self {
            attempt: AttemptId::new(told.attempt),
            index: told.index,
            said_tokens,
            cost_usd: served.map_or(0.0, |served| served.cost_usd),
            bytes: bytes.into_boxed_slice(),
        })
    }

    /// Bytes that it takes as it is.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Never.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The step, without sampled tokens and their log-probabilities.
    ///
    /// # Errors
    /// [`CodecError::Decode`]: damage that passed the frame's checksum.
    pub fn decode(&self) -> Result<Step, CodecError> {
        let body: StepTaken = rmp_serde::from_slice(&self.bytes)?;
        Ok(body.step)
    }
}

impl LazyRecord {
    /// The attempt that it is of, once that is scheduled; `None` for what is of no attempt.
    pub fn attempt(&self) -> Option<&AttemptId> {
        let event = match &self.body {
            LazyBody::Step(step) => return Some(&step.attempt),
            LazyBody::Event(event) => event,
        };
        match &**event {
            Event::StepTaken(body) => Some(&body.attempt),
            Event::PatchSubmitted(body) => Some(&body.end.attempt),
            Event::Graded(body) => Some(&body.attempt),
            Event::Regraded(body) => Some(&body.attempt),
            Event::ConductExamined(body) => Some(&body.attempt),
            Event::AttemptAbandoned(body) => Some(&body.attempt),
            Event::AttemptFailed(body) => Some(&body.attempt),
            Event::TrajectoryImported(body) => Some(&body.attempt),
            _ => None,
        }
    }
}

impl From<Record> for LazyRecord {
    fn from(record: Record) -> Self {
        Self {
            seq: record.seq,
            version: record.version,
            event_id: record.event_id,
            at_micros: record.at_micros,
            body: LazyBody::Event(Box::new(record.event)),
        }
    }
}

/// What is read of a body on the way through it.
struct Told<'a> {
    attempt: &'a str,
    index: u32,
    tokens: u64,
    /// Where it says what the endpoint said.
    served: Option<Range<usize>>,
    /// Where lists are that are left out, in order.
    cut: Vec<Range<usize>>,
}

#[derive(Deserialize)]
struct ToldServed {
    completion_tokens: u32,
    cost_usd: f64,
}

impl<'a> Told<'a> {
    fn read(body: &'a [u8]) -> Option<Self> {
        let mut walk = Walk { bytes: body, at: 0 };
        let (mut attempt, mut index, mut tokens) = (None, None, None);
        let (mut served, mut cut) = (None, Vec::with_capacity(2));
        for _ in 0..walk.map()? {
            match walk.text()? {
                "attempt" => attempt = Some(walk.text()?),
                "step" => {
                    for _ in 0..walk.map()? {
                        match walk.text()? {
                            "index" => index = Some(u32::try_from(walk.number()?).ok()?),
                            "completion" => {
                                for _ in 0..walk.map()? {
                                    match walk.text()? {
                                        "tokens" => {
                                            let range = walk.value()?;
                                            let bytes = body.get(range.clone())?;
                                            tokens = Some(Walk { bytes, at: 0 }.list()?);
                                            cut.push(range);
                                        }
                                        "logprobs" => cut.push(walk.value()?),
                                        "served" => served = Some(walk.value()?),
                                        _ => {
                                            walk.value()?;
                                        }
                                    }
                                }
                            }
                            _ => {
                                walk.value()?;
                            }
                        }
                    }
                }
                _ => {
                    walk.value()?;
                }
            }
        }
        (walk.at == body.len()).then_some(())?;
        Some(Self {
            attempt: attempt?,
            index: index?,
            tokens: tokens?,
            served,
            cut,
        })
    }
}

/// MessagePack's list of nothing.
const EMPTY_LIST: u8 = 0x90;

/// A walk through MessagePack that passes values over without decoding them: a tape of steps
/// is mostly lists of numbers, and a decoder that must visit each takes longer than all else.
struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Walk<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(count)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    /// A big-endian number of so many bytes.
    fn big_endian(&mut self, bytes: usize) -> Option<u64> {
        let taken = self.take(bytes)?.iter();
        Some(taken.fold(0, |n, byte| n << 8 | u64::from(*byte)))
    }

    fn length(&mut self, bytes: usize) -> Option<usize> {
        usize::try_from(self.big_endian(bytes)?).ok()
    }

    fn marker(&mut self) -> Option<u8> {
        Some(*self.take(1)?.first()?)
    }

    /// The head of a map: how many keys follow.
    fn map(&mut self) -> Option<usize> {
        match self.marker()? {
            marker @ 0x80..=0x8f => Some(usize::from(marker & 0x0f)),
            0xde => self.length(2),
            0xdf => self.length(4),
            _ => None,
        }
    }

    /// The head of a list: how many values follow.
    fn list(&mut self) -> Option<u64> {
        match self.marker()? {
            marker @ 0x90..=0x9f => Some(u64::from(marker & 0x0f)),
            0xdc => self.big_endian(2),
            0xdd => self.big_endian(4),
            _ => None,
        }
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = match self.marker()? {
            marker @ 0xa0..=0xbf => usize::from(marker & 0x1f),
            0xd9 => self.length(1)?,
            0xda => self.length(2)?,
            0xdb => self.length(4)?,
            _ => return None,
        };
        std::str::from_utf8(self.take(length)?).ok()
    }

    /// A number that is not negative.
    fn number(&mut self) -> Option<u64> {
        match self.marker()? {
            marker @ 0x00..=0x7f => Some(u64::from(marker)),
            marker @ 0xcc..=0xcf => self.big_endian(1 << (marker - 0xcc)),
            _ => None,
        }
    }

    /// Passes a value over; gives where it lies.
    fn value(&mut self) -> Option<Range<usize>> {
        let begin = self.at;
        // Values that are still to come, those inside of others included.
        let mut left: u64 = 1;
        while left > 0 {
            left -= 1;
            let length = match self.marker()? {
                0xc1 => return None,
                0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => 0,
                marker @ 0x80..=0x8f => {
                    left += 2 * u64::from(marker & 0x0f);
                    0
                }
                marker @ 0x90..=0x9f => {
                    left += u64::from(marker & 0x0f);
                    0
                }
                marker @ 0xa0..=0xbf => usize::from(marker & 0x1f),
                0xcc | 0xd0 => 1,
                0xcd | 0xd1 => 2,
                0xca | 0xce | 0xd2 => 4,
                0xcb | 0xcf | 0xd3 => 8,
                0xc4 | 0xd9 => self.length(1)?,
                0xc5 | 0xda => self.length(2)?,
                0xc6 | 0xdb => self.length(4)?,
                // Extensions: their kind, and as many bytes as the marker or a number says.
                marker @ 0xd4..=0xd8 => 1 + (1 << (marker - 0xd4)),
                0xc7 => self.length(1)?.checked_add(1)?,
                0xc8 => self.length(2)?.checked_add(1)?,
                0xc9 => self.length(4)?.checked_add(1)?,
                0xdc => {
                    left += self.big_endian(2)?;
                    0
                }
                0xdd => {
                    left += self.big_endian(4)?;
                    0
                }
                0xde => {
                    left += 2 * self.big_endian(2)?;
                    0
                }
                0xdf => {
                    left += 2 * self.big_endian(4)?;
                    0
                }
            };
            self.take(length)?;
        }
        Some(begin..self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attempt::{Completion, Served};
    use crate::codec::{PayloadDigest, decode_lazy, encode, split};
    use crate::event::RunPaused;
    use crate::ids::StreamId;
    use proptest::prelude::*;

    fn record(event: Event) -> Record {
        Record {
            seq: 7,
            stream: StreamId::new("attempt/a"),
            version: 3,
            event_id: "e".to_owned(),
            causation: Some(2),
            correlation: Some("c".to_owned()),
            at_micros: 5,
            event,
        }
    }

    fn step(tokens: usize, said: Option<u32>, text: String) -> Step {
        Step {
            index: 4,
            completion: Completion {
                text,
                tokens: (0..tokens as u32).map(|at| at * 977).collect(),
                logprobs: vec![-0.25; tokens],
                served: said.map(|completion_tokens| Served {
                    completion_tokens,
                    cost_usd: 0.5,
                    ..Served::default()
                }),
                ..Completion::default()
            },
            observation: "seen".to_owned(),
            ..Step::default()
        }
    }

    fn lazy(record: &Record) -> LazyRecord {
        let parts = split(record).unwrap();
        let payload = parts.payload.clone();
        decode_lazy(&parts.inside, |digest: &PayloadDigest| {
            let payload = payload.ok_or(CodecError::Outside { digest: *digest })?;
            assert_eq!(*digest, payload.digest);
            Ok::<_, CodecError>(payload.body)
        })
        .unwrap()
    }

    #[test]
    fn what_is_no_step_is_decoded() {
        let paused = record(Event::RunPaused(RunPaused {
            reason: "r".repeat(50_000),
        }));
        assert_eq!(lazy(&paused), LazyRecord::from(paused));
    }

    #[test]
    fn bytes_that_are_no_step_are_an_error() {
        for damaged in [&[][..], &[0x80], &[0xc1], b"text"] {
            assert!(StepBytes::read(damaged).is_err());
        }
        // A step whose text is a number: seen when it is decoded.
        let whole = record(Event::StepTaken(StepTaken {
            attempt: AttemptId::new("a"),
            step: step(0, None, "xyz".to_owned()),
        }));
        let LazyBody::Step(mut bytes) = lazy(&whole).body else {
            panic!("a step is left as bytes");
        };
        let at = bytes
            .bytes
            .windows(4)
            .position(|w| w == b"\xa3xyz")
            .unwrap();
        bytes.bytes[at..at + 4].copy_from_slice(&[0xce, 0, 0, 1]);
        assert!(bytes.decode().is_err());
    }

    fn any_value() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<u64>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            ".{0,300}".prop_map(Into::into),
        ];
        leaf.prop_recursive(3, 60, 40, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..40).prop_map(Into::into),
                prop::collection::btree_map(".{0,40}", inner, 0..40)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_step_says_the_same_before_and_after_it_is_decoded(
            tokens in 0usize..200, said in prop::option::of(any::<u32>()),
            text in ".{0,40}", repeats in 0usize..2_000,
        ) {
            let step = step(tokens, said, text.repeat(repeats));
            let attempt = AttemptId::new("a");
            let whole = record(Event::StepTaken(StepTaken { attempt, step: step.clone() }));
            let lazy = lazy(&whole);
            prop_assert_eq!((lazy.seq, lazy.version, lazy.at_micros), (7, 3, 5));
            prop_assert_eq!(lazy.event_id.as_str(), "e");
            prop_assert_eq!(lazy.attempt().map(AttemptId::as_str), Some("a"));
            let LazyBody::Step(bytes) = lazy.body else {
                panic!("a step is left as bytes");
            };
            prop_assert_eq!(bytes.attempt.as_str(), "a");
            prop_assert_eq!(bytes.index, step.index);
            prop_assert_eq!(bytes.said_tokens, step.completion.said_tokens());
            prop_assert_eq!(bytes.cost_usd, step.completion.cost_usd());
            prop_assert!(!bytes.is_empty() && bytes.len() < encode(&whole).unwrap().len());
            let mut said = step;
            said.completion.tokens = Vec::new();
            said.completion.logprobs = Vec::new();
            prop_assert_eq!(bytes.decode().unwrap(), said);
        }

        #[test]
        fn a_walk_goes_as_far_as_a_decoder(value in any_value(), more in any::<[u8; 3]>()) {
            let mut bytes = rmp_serde::to_vec_named(&value).unwrap();
            let end = bytes.len();
            bytes.extend(more);
            let mut walk = Walk { bytes: &bytes, at: 0 };
            prop_assert_eq!(walk.value(), Some(0..end));
            for cut in 0..end {
                let mut walk = Walk { bytes: &bytes[..cut], at: 0 };
                prop_assert_eq!(walk.value(), None);
            }
        }

        #[test]
        fn garbage_is_walked_through_without_a_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let _ = Walk { bytes: &bytes, at: 0 }.value();
            prop_assert!(Told::read(&bytes).is_none());
        }
    }
}
