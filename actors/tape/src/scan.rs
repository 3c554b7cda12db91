//! Reading frames in order, with everything checked that links them; and the index
//! at opening.

use crate::backend::{Backend, Pair, Pairs, key_number};
use crate::error::TapeError;
use crate::frame::{self, Header};
use crate::index::{Index, IndexEntry, id_hash};
use crate::payload;
use crossbeam_channel::{Receiver, Sender, bounded};
use gametape_schemas::codec::{Outline, PayloadDigest};
use gametape_schemas::lazy::LazyRecord;
use gametape_schemas::{Record, StreamId};
use std::collections::VecDeque;

/// A frame as a scan hands it on.
pub struct Scanned<'a> {
    /// Its bytes.
    pub bytes: &'a [u8],
    /// Its header.
    pub header: Header,
    /// Its events.
    pub records: &'a [Record],
    /// The bodies of them that lie outside of it, each there and whole.
    pub payloads: &'a [Outside],
}

/// A body outside of a frame, as a scan found it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outside {
    /// The event that names it.
    pub seq: u64,
    /// Its name.
    pub digest: PayloadDigest,
    /// Its bytes, uncompressed.
    pub bytes: u64,
}

/// A frame with everything that belongs to it.
struct Opened {
    header: Header,
    records: Vec<Record>,
    payloads: Vec<Outside>,
}

/// The end of the chain of frames.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Tip {
    /// Next sequence number.
    pub next: u64,
    /// Hash of the newest frame.
    pub previous: [u8; 32],
}

/// Reads one stored frame that should begin at `seq`, and its payloads.
fn read_pair(backend: &dyn Backend, seq: u64, pair: &Pair) -> Result<Opened, TapeError> {
    let mut payloads = Vec::new();
    let look_up = |seq, digest: &PayloadDigest| {
        let body = payload::resolve(backend, seq, digest)?;
        payloads.push(Outside {
            seq,
            digest: *digest,
            bytes: body.len() as u64,
        });
        Ok(body)
    };
    let read = frame::read_with(&pair.1, look_up);
    let (header, records) = read.map_err(|e| TapeError::frame(seq, &e))?;
    in_its_place(seq, &pair.0, &header)?;
    Ok(Opened {
        header,
        records,
        payloads,
    })
}

/// Reads what one stored frame itself says, without its payloads.
fn outline_pair(seq: u64, pair: &Pair) -> Result<(Header, Vec<Outline>), TapeError> {
    let (header, events) = frame::outlines(&pair.1).map_err(|e| TapeError::frame(seq, &e))?;
    in_its_place(seq, &pair.0, &header)?;
    Ok((header, events))
}

/// Whether a frame lies where it belongs.
fn in_its_place(seq: u64, key: &[u8], header: &Header) -> Result<(), TapeError> {
    if key_number(key) != Some(header.first) {
        return Err(TapeError::corrupt(
            seq,
            "a frame lies under another frame's key",
        ));
    }
    if header.first != seq {
        return Err(TapeError::corrupt(
            seq,
            format!("the next event found is number {}", header.first),
        ));
    }
    Ok(())
}

/// Walks the frames from `tip` on: magic, checksum, hash chain, numbers, every event,
/// every payload. `each` may end it with an error of its own.
///
/// # Errors
/// The first damage, by sequence number.
pub fn scan(
    backend: &dyn Backend,
    tip: Tip,
    mut each: impl FnMut(Scanned<'_>) -> Result<(), TapeError>,
) -> Result<Tip, TapeError> {
    let read = |seq, pair: &Pair| {
        let opened = read_pair(backend, seq, pair)?;
        Ok((opened.header, opened))
    };
    walk(backend, tip, read, |bytes, opened| {
        each(Scanned {
            bytes,
            header: opened.header,
            records: &opened.records,
            payloads: &opened.payloads,
        })
    })
}

/// Walks the frames from `tip` on: `read` makes something of each, and `each` is given
/// it once the frame's link is checked.
fn walk<T>(
    backend: &dyn Backend,
    mut tip: Tip,
    read: impl Fn(u64, &Pair) -> Result<(Header, T), TapeError>,
    mut each: impl FnMut(&[u8], T) -> Result<(), TapeError>,
) -> Result<Tip, TapeError> {
    for pair in backend.frames(tip.next) {
        let pair = pair?;
        // The frame before the tip may be handed out when there is none behind it.
        if key_number(&pair.0).is_some_and(|key| key < tip.next) {
            continue;
        }
        let (header, found) = read(tip.next, &pair)?;
        if header.previous != tip.previous {
            return Err(TapeError::corrupt(tip.next, "the hash chain is broken"));
        }
        each(&pair.1, found)?;
        tip = Tip {
            next: tip.next + u64::from(header.count),
            previous: frame::hash(&pair.1),
        };
    }
    Ok(tip)
}

/// Walks all frames, and holds what it found against the noted watermark.
///
/// # Errors
/// The first damage, by sequence number; events that were durable and are gone.
pub fn scan_all(
    backend: &dyn Backend,
    each: impl FnMut(Scanned<'_>) -> Result<(), TapeError>,
) -> Result<Tip, TapeError> {
    let tip = scan(backend, Tip::default(), each)?;
    hold_against_watermark(backend, tip)?;
    Ok(tip)
}

fn hold_against_watermark(backend: &dyn Backend, tip: Tip) -> Result<(), TapeError> {
    let Some(noted) = backend.watermark()? else {
        return Ok(());
    };
    if noted.next > tip.next {
        return Err(TapeError::corrupt(
            tip.next,
            format!(
                "{} events were durable, {} are left: the database dropped what lies behind damage",
                noted.next, tip.next
            ),
        ));
    }
    if noted.next == tip.next && noted.previous != tip.previous {
        return Err(TapeError::corrupt(
            tip.next.saturating_sub(1),
            "the newest frame is not the one that was written",
        ));
    }
    Ok(())
}

/// Events from `from` on, at most `limit`, below `end`. Where there are many, frames are
/// decompressed and decoded on other threads while the next ones are fetched here.
///
/// # Errors
/// Damage, by sequence number.
pub fn read(
    backend: &dyn Backend,
    from: u64,
    limit: usize,
    end: u64,
) -> Result<Vec<Record>, TapeError> {
    if from >= end || limit == 0 {
        return Ok(Vec::new());
    }
    let stop = end.min(from.saturating_add(limit as u64));
    let mut out = Vec::with_capacity((stop - from).min(READ_AHEAD) as usize);
    let decode = |seq, pair: &Pair| Ok(read_pair(backend, seq, pair)?.records);
    in_order(backend, from, stop, &decode, &mut |records| {
        let wanted = records.into_iter();
        out.extend(wanted.filter(|r| r.seq >= from && r.seq < stop));
    })?;
    Ok(out)
}

/// Hands on the events between two sequence numbers, in order. What is in memory of them
/// does not grow with how many there are.
///
/// # Errors
/// As [`read`]; those before the damage were handed on.
pub fn each(
    backend: &dyn Backend,
    from: u64,
    end: u64,
    each: &mut dyn FnMut(Record),
) -> Result<(), TapeError> {
    let decode = |seq, pair: &Pair| Ok(read_pair(backend, seq, pair)?.records);
    in_order(backend, from, end, &decode, &mut |records| {
        let wanted = records.into_iter();
        wanted
            .filter(|r| r.seq >= from && r.seq < end)
            .for_each(&mut *each);
    })
}

/// As [`each`], with steps left as bytes.
///
/// # Errors
/// As there.
pub fn each_lazy(
    backend: &dyn Backend,
    from: u64,
    end: u64,
    each: &mut dyn FnMut(LazyRecord),
) -> Result<(), TapeError> {
    let decode = |seq, pair: &Pair| {
        let look_up = |seq, digest: &PayloadDigest| payload::resolve(backend, seq, digest);
        let read = frame::read_lazy(&pair.1, look_up);
        let (header, records) = read.map_err(|e| TapeError::frame(seq, &e))?;
        in_its_place(seq, &pair.0, &header)?;
        Ok(records)
    };
    in_order(backend, from, end, &decode, &mut |records| {
        let wanted = records.into_iter();
        wanted
            .filter(|r| r.seq >= from && r.seq < end)
            .for_each(&mut *each);
    })
}

/// Decodes the frames that hold the events between two sequence numbers, on as many threads
/// as there are processors, and hands them on in order: whole frames, the first and the last
/// with what lies outside of the two numbers.
fn in_order<T: Send>(
    backend: &dyn Backend,
    from: u64,
    stop: u64,
    decode: &Decode<'_, T>,
    keep: &mut dyn FnMut(Vec<T>),
) -> Result<(), TapeError> {
    if from >= stop {
        return Ok(());
    }
    let mut frames = Frames {
        frames: backend.frames(from),
        from,
        stop,
        expected: None,
    };
    let decode = |part: Vec<(u64, Pair)>| -> Result<Vec<T>, TapeError> {
        let mut records = Vec::new();
        for (seq, pair) in part {
            records.append(&mut decode(seq, &pair)?);
        }
        Ok(records)
    };
    let first = frames.part()?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    if threads < 2 || frames.is_at_the_end() {
        keep(decode(first)?);
        while !frames.is_at_the_end() {
            keep(decode(frames.part()?)?);
        }
        return Ok(());
    }
    std::thread::scope(|scope| {
        let (jobs, work) = bounded::<(Vec<(u64, Pair)>, Sender<Decoded<T>>)>(threads);
        for _ in 0..threads.min(MOST_DECODERS) {
            let work = work.clone();
            scope.spawn(move || {
                for (part, answer) in work {
                    // Nobody waits any more when an earlier part was damaged.
                    let _ = answer.send(decode(part));
                }
            });
        }
        drop(work);
        // Answers in the order of the parts, whichever is finished first.
        let mut answers = VecDeque::new();
        let give = |part, answers: &mut VecDeque<Receiver<Decoded<T>>>| {
            let (answer, receiver) = bounded(1);
            answers.push_back(receiver);
            // A decoder that is gone drops its answer's sender, which is told below.
            let _ = jobs.send((part, answer));
        };
        give(first, &mut answers);
        loop {
            while answers.len() < 2 * threads && !frames.is_at_the_end() {
                match frames.part() {
                    Ok(part) => give(part, &mut answers),
                    // Damage before this place is told first.
                    Err(error) => {
                        for answer in answers {
                            keep(received(&answer)?);
                        }
                        return Err(error);
                    }
                }
            }
            match answers.pop_front() {
                Some(answer) => keep(received(&answer)?),
                None => return Ok(()),
            }
        }
    })
}

/// What makes events of a frame that should begin at a sequence number.
type Decode<'a, T> = dyn Fn(u64, &Pair) -> Decoded<T> + Sync + 'a;

type Decoded<T> = Result<Vec<T>, TapeError>;

fn received<T>(answer: &Receiver<Decoded<T>>) -> Decoded<T> {
    answer
        .recv()
        .unwrap_or_else(|_| Err(TapeError::corrupt(0, "a decoder died")))
}

/// Records that room is made for at once, at most: a limit may be "all".
const READ_AHEAD: u64 = 1 << 16;
/// Bytes (uncompressed) of the frames that are decoded together, at least one frame.
const PART_BYTES: usize = 512 << 10;
/// More threads than this wait for the one that fetches.
const MOST_DECODERS: usize = 8;

/// Frames in their order, as far as they are wanted.
struct Frames<'a> {
    frames: Pairs<'a>,
    from: u64,
    stop: u64,
    /// Where the next one begins; unknown before the first.
    expected: Option<u64>,
}

impl Frames<'_> {
    fn is_at_the_end(&self) -> bool {
        self.expected >= Some(self.stop)
    }

    /// The next frames, each with the sequence number at which it should begin. What
    /// a frame says of itself is taken on trust here: reading it checks it.
    fn part(&mut self) -> Result<Vec<(u64, Pair)>, TapeError> {
        let (mut pairs, mut bytes) = (Vec::new(), 0);
        while bytes < PART_BYTES && !self.is_at_the_end() {
            let missing = || {
                let seq = self.expected.unwrap_or(self.from).max(self.from);
                TapeError::corrupt(seq, "the event is missing")
            };
            let pair = self.frames.next().transpose()?.ok_or_else(missing)?;
            let key = key_number(&pair.0);
            let from = self.from;
            let seq = self
                .expected
                .or(key.filter(|key| *key <= from))
                .unwrap_or(from);
            // What makes no sense is looked at again: a flipped bit is damage, whatever
            // else it looks like.
            let header = frame::claims(&pair.1).or_else(|_| frame::check(&pair.1));
            let header = header.map_err(|e| TapeError::frame(seq, &e))?;
            in_its_place(seq, &pair.0, &header)?;
            bytes += header.raw as usize;
            self.expected = Some(seq + u64::from(header.count.max(1)));
            pairs.push((seq, pair));
        }
        Ok(pairs)
    }
}

/// The events of these sequence numbers (ascending); each frame is read once.
///
/// # Errors
/// Damage, by sequence number.
pub fn read_each(backend: &dyn Backend, wanted: &[u64]) -> Result<Vec<Record>, TapeError> {
    let mut out = Vec::with_capacity(wanted.len());
    let mut frame = Vec::new().into_iter();
    for seq in wanted {
        let mut found = frame.find(|r: &Record| r.seq >= *seq);
        if found.as_ref().is_none_or(|r| r.seq != *seq) {
            let pair = backend.frames(*seq).next().transpose()?;
            let missing = || TapeError::corrupt(*seq, "the event is missing");
            let pair = pair.ok_or_else(missing)?;
            let first = key_number(&pair.0).unwrap_or(*seq).min(*seq);
            frame = read_pair(backend, first, &pair)?.records.into_iter();
            found = frame.find(|r| r.seq >= *seq);
            if found.as_ref().is_none_or(|r| r.seq != *seq) {
                return Err(missing());
            }
        }
        out.extend(found);
    }
    Ok(out)
}

/// The index and the end of the chain. Entries that lag behind the frames (a kill
/// between the two writes) are added, entries that do not fit are made anew; both are
/// written back. The newest frame is checked; the others are when they are read, and
/// payloads always only then.
///
/// # Errors
/// Damage in the frames that had to be read.
pub fn load(backend: &dyn Backend) -> Result<(Index, Tip), TapeError> {
    let (mut index, tip) = match stored(backend)? {
        Some(found) => found,
        None => {
            tracing::warn!("the tape's index does not fit its frames and is made anew");
            backend.replace_entries(0, &[])?;
            (Index::default(), Tip::default())
        }
    };
    let known = tip.next;
    let mut late = Vec::new();
    let tip = walk(backend, tip, outline_pair, |_, events| {
        let first = index.next();
        let events = events.iter().map(|e| (&e.stream, e.event_id.as_str()));
        late.push((first, extend(&mut index, events).encode()));
        Ok(())
    })?;
    hold_against_watermark(backend, tip)?;
    if !late.is_empty() {
        backend.replace_entries(known, &late)?;
    }
    Ok((index, tip))
}

/// Adds a frame, given stream and id of its events, to the index; its entry.
pub(crate) fn extend<'a>(
    index: &mut Index,
    events: impl Iterator<Item = (&'a StreamId, &'a str)>,
) -> IndexEntry {
    let entry = index.entry(events.map(|(stream, id)| (stream, id_hash(id))));
    // An entry that was made from the index fits it.
    let _ = index.apply(entry.clone());
    entry
}

/// The stored index, if it agrees with the frames as far as it goes.
fn stored(backend: &dyn Backend) -> Result<Option<(Index, Tip)>, TapeError> {
    let mut index = Index::default();
    let mut last = None;
    for pair in backend.entries() {
        let (key, value) = pair?;
        let fits = key_number(&key) == Some(index.next());
        let entry = IndexEntry::decode(&value).filter(|_| fits);
        last = Some(index.next());
        if !entry.is_some_and(|entry| index.apply(entry)) {
            return Ok(None);
        }
    }
    let Some(last) = last else {
        return Ok(Some((index, Tip::default())));
    };
    let Some(pair) = backend.frames(last).next().transpose()? else {
        return Ok(None);
    };
    if key_number(&pair.0) != Some(last) {
        return Ok(None);
    }
    let (header, _) = outline_pair(last, &pair)?;
    let tip = Tip {
        next: last + u64::from(header.count),
        previous: frame::hash(&pair.1),
    };
    Ok((tip.next == index.next()).then_some((index, tip)))
}
