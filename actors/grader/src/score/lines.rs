//! A log as blocks of whole lines, and as lines, however long the log and its lines are.
//!
//! Lines end as they do for the official harness, which opens logs as text: at `\n`,
//! at `\r\n` and at a lone `\r`.

use memchr::{memchr, memchr_iter, memchr2_iter, memrchr2};
use std::borrow::Cow;
use std::cell::Cell;
use std::io::{ErrorKind, Read, Result};

/// A line is parsed up to this length; what follows is only searched for markers. It
/// bounds the memory of a log of a single line.
pub const MAX_LINE: usize = 1 << 20;

/// Bytes read at a time. Most logs are shorter.
const CHUNK: usize = 1 << 18;

/// A line that is too long is cut at a marker that begins so near to its end.
const TAIL: usize = 64;

/// A log to be read once.
pub enum Input<'a> {
    /// In memory.
    Bytes(&'a [u8]),
    /// Read in pieces.
    Stream(Box<dyn Read + 'a>),
}

impl<'a> From<&'a [u8]> for Input<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Bytes(bytes)
    }
}

impl Read for Input<'_> {
    fn read(&mut self, out: &mut [u8]) -> Result<usize> {
        match self {
            Self::Bytes(bytes) => bytes.read(out),
            Self::Stream(stream) => stream.read(out),
        }
    }
}

/// Whole lines (the last of a log may lack its end), or a piece of one that is too long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Block<'a> {
    /// Its bytes, not necessarily UTF-8.
    pub bytes: &'a [u8],
    /// Whether it begins within a line.
    pub continued: bool,
}

impl<'a> Block<'a> {
    /// The bytes from the first line that begins in this block.
    pub fn fresh(&self) -> usize {
        if !self.continued {
            return 0;
        }
        let ends = memchr::memchr2(b'\n', b'\r', self.bytes);
        ends.map_or(self.bytes.len(), |end| after_end(self.bytes, end))
    }
}

thread_local! {
    /// Logs are many and short: the buffer is made once a thread.
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Calls `each` for block after block of `source`.
///
/// # Errors
/// What reading says.
pub fn for_each_block<'a>(source: impl Into<Input<'a>>, mut each: impl FnMut(Block)) -> Result<()> {
    match source.into() {
        Input::Bytes(bytes) => {
            if !bytes.is_empty() {
                let continued = false;
                each(Block { bytes, continued });
            }
            Ok(())
        }
        Input::Stream(stream) => {
            let mut buffer = BUFFER.take();
            let read = stream_blocks(stream, &mut buffer, each);
            BUFFER.set(buffer);
            read
        }
    }
}

fn stream_blocks(
    mut source: impl Read,
    buffer: &mut Vec<u8>,
    mut each: impl FnMut(Block),
) -> Result<()> {
    // What is in the buffer, and how much of it is known to hold no end of a line.
    let (mut filled, mut searched) = (0, 0);
    let mut continued = false;
    loop {
        if filled == buffer.len() {
            buffer.resize((buffer.len() * 2).max(CHUNK), 0);
        }
        let read = match source.read(buffer.get_mut(filled..).unwrap_or_default()) {
            Ok(read) => read,
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        filled += read;
        let bytes = buffer.get(..filled).unwrap_or_default();
        if read == 0 {
            if !bytes.is_empty() {
                each(Block { bytes, continued });
            }
            return Ok(());
        }
        let (end, within) = match last_end(bytes, searched) {
            Some(end) => (end, false),
            None if filled > MAX_LINE + TAIL => (cut(bytes), true),
            None => (0, continued),
        };
        if let Some(bytes) = bytes.get(..end).filter(|bytes| !bytes.is_empty()) {
            each(Block { bytes, continued });
        }
        continued = within;
        // Whether a `\n` belongs to a `\r` at the end comes with the next bytes.
        let waits = bytes.get(end..).and_then(<[u8]>::last) == Some(&b'\r');
        buffer.copy_within(end..filled, 0);
        filled -= end;
        searched = filled - usize::from(waits);
    }
}

/// Where the last line that is whole ends. A `\r` at the end of the bytes is left alone.
fn last_end(bytes: &[u8], searched: usize) -> Option<usize> {
    let (last, before) = bytes.split_last()?;
    if *last == b'\n' {
        return Some(bytes.len());
    }
    let at = memrchr2(b'\n', b'\r', before.get(searched..)?)?;
    Some(searched + at + 1)
}

/// Where the line after the one that ends at `end` begins.
fn after_end(bytes: &[u8], end: usize) -> usize {
    let pair = bytes.get(end..end + 2) == Some(b"\r\n");
    end + 1 + usize::from(pair)
}

/// Where to cut a line that is too long: not within a marker.
fn cut(line: &[u8]) -> usize {
    let tail = line.len().saturating_sub(TAIL);
    let in_tail = line.get(tail..).and_then(|t| memchr(b'>', t));
    match in_tail {
        Some(at) if tail + at > 0 => tail + at,
        _ => line.len(),
    }
}

/// Calls `each` for every line of a block that begins with one.
pub fn each_line(bytes: &[u8], mut each: impl FnMut(&[u8])) {
    let mut start = 0;
    let mut line = |end: usize| {
        if end >= start {
            each(bytes.get(start..end).unwrap_or_default());
            start = after_end(bytes, end);
        }
    };
    // Most logs have one kind of line end, and looking for one is quicker.
    if memchr(b'\r', bytes).is_none() {
        memchr_iter(b'\n', bytes).for_each(&mut line);
    } else {
        memchr2_iter(b'\n', b'\r', bytes).for_each(&mut line);
    }
    if bytes
        .last()
        .is_some_and(|last| !matches!(last, b'\n' | b'\r'))
    {
        line(bytes.len());
    }
}

/// A line without its end, or a piece of one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Line<'a> {
    /// Its bytes, not necessarily UTF-8.
    pub bytes: &'a [u8],
    /// Whether this is a further piece of a line that is too long.
    pub continued: bool,
}

/// Calls `each` for every line of `source`.
///
/// # Errors
/// What reading says.
pub fn for_each_line<'a>(source: impl Into<Input<'a>>, mut each: impl FnMut(Line)) -> Result<()> {
    for_each_block(source, |block| {
        let mut continued = block.continued;
        each_line(block.bytes, |bytes| {
            each(Line { bytes, continued });
            continued = false;
        });
    })
}

/// A line as text; bytes that are not UTF-8 become replacement characters.
pub fn text(bytes: &[u8]) -> Cow<'_, str> {
    // Checking first is several times as fast as replacing, and nearly all is UTF-8.
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => String::from_utf8_lossy(bytes),
    }
}

/// What Python's `str.isspace` calls white space: Rust's notion and four separators.
pub fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// Python's `str.split()`.
pub fn words(line: &str) -> impl DoubleEndedIterator<Item = &str> {
    line.split(is_space).filter(|word| !word.is_empty())
}

/// Python's `str.strip()`.
pub fn strip(line: &str) -> &str {
    line.trim_matches(is_space)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Hands out at most `step` bytes at a time.
    struct Slow<'a>(&'a [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, out: &mut [u8]) -> Result<usize> {
            let n = self.1.min(self.0.len()).min(out.len());
            let (now, later) = self.0.split_at(n);
            out[..n].copy_from_slice(now);
            self.0 = later;
            Ok(n)
        }
    }

    fn lines(text: &[u8], step: usize) -> Vec<(Vec<u8>, bool)> {
        let mut out = Vec::new();
        let slow = Input::Stream(Box::new(Slow(text, step)));
        for_each_line(slow, |line| out.push((line.bytes.to_vec(), line.continued))).unwrap();
        out
    }

    #[test]
    fn lines_end_at_all_three_ends() {
        let found = lines(b"a\nb\r\nc\rd\n\ne", 1);
        let texts: Vec<&[u8]> = found.iter().map(|(line, _)| line.as_slice()).collect();
        assert_eq!(texts, [&b"a"[..], b"b", b"c", b"d", b"", b"e"]);
        assert_eq!(lines(b"x\r", 1), [(b"x".to_vec(), false)]);
    }

    #[test]
    fn a_line_that_is_too_long_comes_in_pieces_and_no_marker_is_cut() {
        let mut text = vec![b'x'; MAX_LINE + CHUNK - 10];
        text.extend_from_slice(b">>>>> End Test Output");
        text.extend(std::iter::repeat_n(b'y', MAX_LINE));
        text.extend_from_slice(b"\nnext");
        let found = lines(&text, CHUNK);
        assert!(found.len() > 2);
        assert_eq!(found.last().unwrap(), &(b"next".to_vec(), false));
        assert!(!found[0].1 && found[1].1);
        let whole: Vec<u8> = found.iter().flat_map(|(line, _)| line.clone()).collect();
        assert_eq!(whole.len(), text.len() - 1);
        assert!(
            found
                .iter()
                .any(|(l, _)| memchr::memmem::find(l, b">>>>> End Test Output").is_some())
        );
        assert!(found.iter().all(|(line, _)| line.len() <= MAX_LINE + CHUNK));
    }

    /// Hands out the same bytes over and over.
    struct Endless(&'static [u8], usize);

    impl Read for Endless {
        fn read(&mut self, out: &mut [u8]) -> Result<usize> {
            let n = out.len().min(self.1);
            let source = self.0.iter().cycle();
            out.iter_mut()
                .zip(source)
                .take(n)
                .for_each(|(to, from)| *to = *from);
            self.1 -= n;
            Ok(n)
        }
    }

    #[test]
    fn however_long_a_log_and_its_lines_are_little_of_it_is_held() {
        for text in [&b"x"[..], b"a line\n", b"progress\r", b"\n", b"\r"] {
            const LENGTH: usize = 40 << 20;
            let (mut longest, mut all) = (0, 0);
            let endless = Input::Stream(Box::new(Endless(text, LENGTH)));
            for_each_block(endless, |block| {
                longest = longest.max(block.bytes.len());
                all += block.bytes.len();
            })
            .unwrap();
            assert_eq!(all, LENGTH, "{text:?}");
            assert!(longest <= 2 * (MAX_LINE + CHUNK), "{text:?}: {longest}");
            let held = BUFFER.take().len();
            assert!(held <= 2 * MAX_LINE, "{text:?}: {held}");
        }
    }

    #[test]
    fn words_and_strip_are_pythons() {
        assert_eq!(
            words(" a\u{a0}b\u{1d}c\t").collect::<Vec<_>>(),
            ["a", "b", "c"]
        );
        assert_eq!(strip("\u{1f}\u{85} a "), "a");
    }

    proptest! {
        #[test]
        fn chunks_make_no_difference(text in "[a\r\n]{0,40}", step in 1usize..8) {
            let whole: Vec<u8> = text.replace("\r\n", "\n").replace('\r', "\n").into_bytes();
            let mut expected: Vec<&[u8]> = whole.split(|b| *b == b'\n').collect();
            if expected.last().is_some_and(|l| l.is_empty()) {
                expected.pop();
            }
            let found = lines(text.as_bytes(), step);
            let found: Vec<&[u8]> = found.iter().map(|(l, _)| l.as_slice()).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
