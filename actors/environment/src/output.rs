//! What is kept of a stream: its first and last bytes, and a count of the rest. Pure.

use std::collections::VecDeque;

/// First and last bytes of a stream.
#[derive(Debug, Default)]
pub struct Capture {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    dropped: u64,
}

impl Capture {
    /// Takes the next bytes of the stream, keeping `cap` of all in the end.
    pub fn push(&mut self, bytes: &[u8], cap: usize) {
        let half = cap / 2;
        let room = (cap - half)
            .saturating_sub(self.head.len())
            .min(bytes.len());
        let (first, rest) = bytes.split_at(room);
        self.head.extend_from_slice(first);
        // Of a large piece only its end can stay: nothing else is ever copied.
        let skipped = rest.len().saturating_sub(half);
        self.dropped += skipped as u64;
        self.tail.extend(rest.iter().skip(skipped));
        let excess = self.tail.len().saturating_sub(half);
        self.tail.drain(..excess);
        self.dropped += excess as u64;
    }

    /// Bytes that were left out.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// All of the stream's bytes; nothing when some were left out.
    pub fn whole(&self) -> Option<Vec<u8>> {
        let (a, b) = self.tail.as_slices();
        (self.dropped == 0).then(|| [&self.head, a, b].concat())
    }

    /// The text, lossily decoded, with a note where bytes are missing.
    pub fn text(&self) -> String {
        let (a, b) = self.tail.as_slices();
        let mut bytes = self.head.clone();
        if self.dropped > 0 {
            let note = format!("\n[... {} bytes left out ...]\n", self.dropped);
            bytes.extend_from_slice(note.as_bytes());
        }
        bytes.extend_from_slice(a);
        bytes.extend_from_slice(b);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn both_ends_are_kept() {
        let mut capture = Capture::default();
        for n in 0..1000u32 {
            capture.push(format!("{n},").as_bytes(), 20);
        }
        let text = capture.text();
        assert!(text.starts_with("0,1,2,3,4,"), "{text}");
        assert!(text.ends_with("8,999,"), "{text}");
        assert_eq!(capture.dropped(), 3890 - 20);
        let mut bytes = Capture::default();
        bytes.push(&[b'a', 0xff, b'b'], 8);
        assert_eq!(bytes.text(), "a\u{fffd}b");
    }

    proptest! {
        #[test]
        fn nothing_is_lost_or_counted_twice(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..12),
            cap in 0usize..60,
        ) {
            let mut capture = Capture::default();
            for piece in &pieces {
                capture.push(piece, cap);
            }
            let whole = pieces.concat();
            let kept = capture.head.len() + capture.tail.len();
            prop_assert!(kept <= cap);
            prop_assert_eq!(kept as u64 + capture.dropped(), whole.len() as u64);
            prop_assert!(whole.starts_with(&capture.head));
            prop_assert!(whole.ends_with(&capture.tail.iter().copied().collect::<Vec<_>>()));
            prop_assert_eq!(capture.dropped() > 0, whole.len() > cap);
        }
    }
}
