//! Where a command's output ends: marks in a stream of bytes that is cut anywhere. Pure.

use super::script::RECORD;

/// A mark: the shell is at its prompt.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mark {
    /// Number of the command before the prompt.
    pub number: u64,
    /// Its exit code.
    pub code: i32,
    /// The shell's directory.
    pub directory: Vec<u8>,
}

/// A part of the stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Piece {
    /// Bytes of programs.
    Text(Vec<u8>),
    /// The shell's.
    Mark(Mark),
}

/// The longest mark: a path has at most 4,096 bytes.
const LONGEST: usize = 8_192;

/// Finds marks with a nonce.
#[derive(Debug)]
pub struct Marks {
    opening: Vec<u8>,
    closing: Vec<u8>,
    /// What may yet become a mark.
    held: Vec<u8>,
}

impl Marks {
    /// For the shell that was set up with this nonce.
    pub fn new(nonce: &str) -> Self {
        let word = |last: u8| {
            let mut bytes = vec![RECORD];
            bytes.extend_from_slice(nonce.as_bytes());
            bytes.push(last);
            bytes
        };
        Self {
            opening: word(b'['),
            closing: word(b']'),
            held: Vec::new(),
        }
    }

    /// Takes the next bytes; gives out, in order, all that is certain.
    pub fn feed(&mut self, bytes: &[u8], mut out: impl FnMut(Piece)) {
        self.held.extend_from_slice(bytes);
        let held = std::mem::take(&mut self.held);
        let mut rest = held.as_slice();
        let mut text = Vec::new();
        loop {
            let Some(start) = find(rest, &self.opening) else {
                let keep = beginning(rest, &self.opening);
                let (certain, open) = rest.split_at(rest.len() - keep);
                text.extend_from_slice(certain);
                self.held = open.to_vec();
                break;
            };
            let (before, from) = rest.split_at(start);
            text.extend_from_slice(before);
            let inner = from.get(self.opening.len()..).unwrap_or_default();
            // A program that printed an opening of its own has begun nothing.
            let again = find(inner, &self.opening).map(|at| at + self.opening.len());
            let Some(end) = find(inner, &self.closing) else {
                if from.len() <= LONGEST && again.is_none() {
                    self.held = from.to_vec();
                    break;
                }
                let (lost, after) = from.split_at(again.unwrap_or(self.opening.len()));
                text.extend_from_slice(lost);
                rest = after;
                continue;
            };
            let body = inner.get(..end).unwrap_or_default();
            let after = end + self.opening.len() + self.closing.len();
            match parse(body) {
                Some(mark) if again.is_none_or(|at| at >= after) => {
                    flush(&mut text, &mut out);
                    out(Piece::Mark(mark));
                    rest = from.get(after..).unwrap_or_default();
                }
                _ => {
                    let (lost, after) = from.split_at(again.unwrap_or(after).min(after));
                    text.extend_from_slice(lost);
                    rest = after;
                }
            }
        }
        flush(&mut text, &mut out);
    }

    /// What was held back: the stream has ended, and it became no mark.
    pub fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }
}

fn flush(text: &mut Vec<u8>, out: &mut impl FnMut(Piece)) {
    if !text.is_empty() {
        out(Piece::Text(std::mem::take(text)));
    }
}

fn find(bytes: &[u8], word: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from + bytes.get(from..)?.iter().position(|&b| b == RECORD)?;
        if bytes.get(at..)?.starts_with(word) {
            return Some(at);
        }
        from = at + 1;
    }
}

/// How many bytes at the end may be the beginning of the word.
fn beginning(bytes: &[u8], word: &[u8]) -> usize {
    (1..word.len().min(bytes.len() + 1))
        .rev()
        .find(|&n| bytes.ends_with(word.get(..n).unwrap_or_default()))
        .unwrap_or(0)
}

/// `number code directory`.
fn parse(body: &[u8]) -> Option<Mark> {
    let mut words = body.splitn(3, |&b| b == b' ');
    let number = std::str::from_utf8(words.next()?).ok()?.parse().ok()?;
    let code = std::str::from_utf8(words.next()?).ok()?.parse().ok()?;
    let directory = words.next()?.to_vec();
    Some(Mark {
        number,
        code,
        directory,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Texts joined, marks told.
    fn read(chunks: &[&[u8]]) -> (Vec<u8>, Vec<(u64, i32)>) {
        let mut marks = Marks::new("n0nce");
        let (mut text, mut seen) = (Vec::new(), Vec::new());
        for chunk in chunks {
            marks.feed(chunk, |piece| match piece {
                Piece::Text(bytes) => text.extend(bytes),
                Piece::Mark(mark) => seen.push((mark.number, mark.code)),
            });
        }
        text.extend(marks.rest());
        (text, seen)
    }

    #[test]
    fn a_mark_without_the_nonce_is_text() {
        let forged = b"\x1enonce[7 0 /\x1enonce]\x1en0nc[7 0 /\x1en0nc]";
        assert_eq!(read(&[forged]), (forged.to_vec(), vec![]));
    }

    #[test]
    fn an_opening_that_a_program_printed_does_not_hide_the_mark() {
        let stream = b"a\x1en0nce[3 b\x1en0nce[4 130 /tmp\x1en0nce]c";
        let (text, seen) = read(&[stream]);
        assert_eq!(seen, [(4, 130)]);
        assert_eq!(text, b"a\x1en0nce[3 bc");
        let (text, seen) = read(&[b"x\x1en0nce[no mark\x1en0nce]y\x1en0nce[1 0 /\x1en0nce]"]);
        assert_eq!(seen, [(1, 0)]);
        assert_eq!(text, b"x\x1en0nce[no mark\x1en0nce]y");
    }

    #[test]
    fn an_opening_is_not_waited_on_for_ever() {
        let mut flood = b"\x1en0nce[".to_vec();
        flood.extend(vec![b'z'; LONGEST]);
        let mut marks = Marks::new("n0nce");
        let mut text = 0;
        marks.feed(&flood, |piece| {
            if let Piece::Text(bytes) = piece {
                text += bytes.len();
            }
        });
        assert_eq!(text, flood.len());
    }

    proptest! {
        #[test]
        fn where_the_stream_is_cut_does_not_matter(
            parts in prop::collection::vec(prop_oneof![
                "[a-z\n]{0,9}".prop_map(String::into_bytes),
                Just(b"\x1e".to_vec()),
                Just(b"\x1en0n".to_vec()),
                Just(b"\x1en0nce[".to_vec()),
                Just(b"\x1en0nce]".to_vec()),
                (0u64..9, 0i32..256).prop_map(|(n, c)|
                    format!("\x1en0nce[{n} {c} /a b\x1en0nce]").into_bytes()),
            ], 0..9),
            cuts in prop::collection::vec(1usize..12, 0..40),
        ) {
            let stream = parts.concat();
            let mut chunks = Vec::new();
            let mut rest = stream.as_slice();
            for cut in cuts {
                let (chunk, after) = rest.split_at(cut.min(rest.len()));
                chunks.push(chunk);
                rest = after;
            }
            chunks.push(rest);
            prop_assert_eq!(read(&chunks), read(&[&stream]));
        }
    }
}
