//! A log as lines, however long the log and its lines are.
//!
//! Lines end as they do for the official harness, which opens logs as text: at `\n`,
//! at `\r\n` and at a lone `\r`.

use memchr::memchr2;
use std::borrow::Cow;
use std::io::{ErrorKind, Read, Result};

/// A line is parsed up to this length; what follows comes in further pieces, which are
/// only searched for markers. It bounds the memory of a log of a single line.
pub const MAX_LINE: usize = 1 << 20;

/// Bytes read at a time. Most logs are a few times as long.
const CHUNK: usize = 1 << 16;

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
pub fn for_each_line(mut source: impl Read, mut each: impl FnMut(Line)) -> Result<()> {
    let mut buffer = vec![0; CHUNK];
    // What is in the buffer, and how much of it is known to hold no end of a line.
    let (mut filled, mut searched) = (0, 0);
    let mut continued = false;
    loop {
        if filled == buffer.len() {
            buffer.resize(buffer.len() * 2, 0);
        }
        let read = match source.read(buffer.get_mut(filled..).unwrap_or_default()) {
            Ok(read) => read,
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        let at_end = read == 0;
        filled += read;
        let text = buffer.get(..filled).unwrap_or_default();
        let mut start = 0;
        while let Some(found) = text
            .get(searched..)
            .and_then(|rest| memchr2(b'\n', b'\r', rest))
        {
            let end = searched + found;
            let is_cr = text.get(end) == Some(&b'\r');
            if is_cr && end + 1 == filled && !at_end {
                // Whether a `\n` belongs to it comes with the next bytes.
                break;
            }
            let bytes = text.get(start..end).unwrap_or_default();
            each(Line { bytes, continued });
            continued = false;
            let pair = is_cr && text.get(end + 1) == Some(&b'\n');
            start = end + 1 + usize::from(pair);
            searched = start;
        }
        let rest = text.get(start..).unwrap_or_default();
        let waits = rest.last() == Some(&b'\r');
        if at_end {
            if !rest.is_empty() {
                each(Line {
                    bytes: rest,
                    continued,
                });
            }
            return Ok(());
        }
        if rest.len() > MAX_LINE && !waits {
            let cut = cut(rest);
            let bytes = rest.get(..cut).unwrap_or_default();
            each(Line { bytes, continued });
            continued = true;
            start += cut;
        }
        buffer.copy_within(start..filled, 0);
        filled -= start;
        searched = filled.saturating_sub(usize::from(waits));
    }
}

/// Where to cut a line that is too long: not within a marker.
fn cut(line: &[u8]) -> usize {
    let tail = line.len().saturating_sub(64);
    let in_tail = line.get(tail..).and_then(|t| memchr::memchr(b'>', t));
    match in_tail {
        Some(at) if tail + at > 0 => tail + at,
        _ => line.len(),
    }
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
        for_each_line(Slow(text, step), |line| {
            out.push((line.bytes.to_vec(), line.continued))
        })
        .unwrap();
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
