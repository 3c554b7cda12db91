//! Bytes of a terminal to text that can be read: decoded lossily, without the sequences
//! that move cursors and choose colours, with the lines that a progress bar wrote over
//! left out. Pure, and the same wherever the stream is cut.
//!
//! It is no terminal: a carriage return begins the line again, and the new text replaces
//! all of the old. Who moves the cursor upwards (editors, `top`) is not followed.

use super::kept::Kept;

/// A line longer than this was not made to be written over: it is passed on in parts.
const LONGEST_LINE: usize = 8_192;

/// Where the reader of escape sequences stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    Text,
    /// After ESC; also its intermediate bytes.
    Escape,
    /// In `ESC [ …`, until a letter.
    Control,
    /// In `ESC ] …` and the like, until BEL or `ESC \`.
    Words,
    /// After an ESC in those.
    WordsEnd,
}

/// Reads a stream and keeps its text.
#[derive(Debug)]
pub struct Screen {
    kept: Kept,
    /// Bytes of a character that is not complete.
    partial: Vec<u8>,
    mode: Mode,
    line: Vec<char>,
    /// A carriage return came; what comes next replaces the line, unless it ends it.
    returned: bool,
}

impl Screen {
    /// Keeps so many characters between two takes.
    pub fn new(limit: usize) -> Self {
        Self {
            kept: Kept::new(limit),
            partial: Vec::new(),
            mode: Mode::Text,
            line: Vec::new(),
            returned: false,
        }
    }

    /// Takes the next bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        let joined;
        let mut rest = if self.partial.is_empty() {
            bytes
        } else {
            let mut whole = std::mem::take(&mut self.partial);
            whole.extend_from_slice(bytes);
            joined = whole;
            joined.as_slice()
        };
        while !rest.is_empty() {
            match std::str::from_utf8(rest) {
                Ok(text) => {
                    text.chars().for_each(|c| self.character(c));
                    return;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    if let Ok(text) = std::str::from_utf8(valid) {
                        text.chars().for_each(|c| self.character(c));
                    }
                    let Some(wrong) = error.error_len() else {
                        self.partial = after.to_vec();
                        return;
                    };
                    self.character(char::REPLACEMENT_CHARACTER);
                    rest = after.get(wrong..).unwrap_or_default();
                }
            }
        }
    }

    /// The text since the last take, the line that is being written included, and how many
    /// bytes of it were left out.
    pub fn take(&mut self) -> (String, u64) {
        self.pass_on();
        self.kept.take()
    }

    /// [`Screen::take`] at the end of a command: what is not complete will not be any more.
    pub fn take_last(&mut self) -> (String, u64) {
        if !std::mem::take(&mut self.partial).is_empty() {
            self.character(char::REPLACEMENT_CHARACTER);
        }
        let taken = self.take();
        self.mode = Mode::Text;
        self.returned = false;
        taken
    }

    fn character(&mut self, c: char) {
        match self.mode {
            Mode::Text => self.text(c),
            Mode::Escape => {
                self.mode = match c {
                    '[' => Mode::Control,
                    ']' | 'P' | 'X' | '^' | '_' => Mode::Words,
                    ' '..='/' => Mode::Escape,
                    _ => Mode::Text,
                }
            }
            Mode::Control => match c {
                ' '..='?' => {}
                '@'..='~' => self.mode = Mode::Text,
                // No sequence after all.
                _ => {
                    self.mode = Mode::Text;
                    self.text(c);
                }
            },
            Mode::Words => match c {
                '\u{7}' => self.mode = Mode::Text,
                '\u{1b}' => self.mode = Mode::WordsEnd,
                // These words are one line; one that never ends must not hide everything.
                '\n' => {
                    self.mode = Mode::Text;
                    self.text(c);
                }
                _ => {}
            },
            Mode::WordsEnd => {
                self.mode = Mode::Text;
                if c != '\\' {
                    self.mode = Mode::Escape;
                    self.character(c);
                }
            }
        }
    }

    fn text(&mut self, c: char) {
        match c {
            '\u{1b}' => self.mode = Mode::Escape,
            '\r' => self.returned = true,
            '\n' => {
                self.returned = false;
                self.pass_on();
                self.kept.push('\n');
            }
            '\u{8}' => {
                self.line.pop();
            }
            '\0'..='\u{8}' | '\u{e}'..='\u{1f}' | '\u{7f}' => {}
            _ => {
                if std::mem::take(&mut self.returned) {
                    self.line.clear();
                }
                self.line.push(c);
                if self.line.len() >= LONGEST_LINE {
                    self.pass_on();
                }
            }
        }
    }

    fn pass_on(&mut self) {
        for c in self.line.drain(..) {
            self.kept.push(c);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seen(bytes: &[u8]) -> String {
        let mut screen = Screen::new(100_000);
        screen.feed(bytes);
        screen.take_last().0
    }

    #[test]
    fn colours_titles_and_cursor_keys_are_left_out() {
        assert_eq!(seen(b"\x1b[1;31mred\x1b[0m\x1b(B!\x1b[?2004h"), "red!");
        assert_eq!(seen(b"\x1b]0;title\x07a\x1b]8;;x\x1b\\b"), "ab");
        assert_eq!(seen(b"\x1b]0;never closed\nstill here"), "\nstill here");
        assert_eq!(seen(b"a\0\x07\x1eb\tc\x0c"), "ab\tc\x0c");
    }

    #[test]
    fn a_progress_bar_leaves_its_last_state() {
        assert_eq!(seen(b"10%\r50%\r100%\ndone\r\n"), "100%\ndone\n");
        assert_eq!(seen(b"|\x08/\x08-"), "-");
        assert_eq!(seen(b"kept\r"), "kept");
    }

    #[test]
    fn what_is_not_utf8_is_replaced() {
        assert_eq!(seen(b"a\xffb\xc3"), "a\u{fffd}b\u{fffd}");
        assert_eq!(seen("größe".as_bytes()), "größe");
    }

    #[test]
    fn a_line_that_is_being_written_is_shown() {
        let mut screen = Screen::new(100);
        screen.feed(b"one\nName? ");
        assert_eq!(screen.take().0, "one\nName? ");
        screen.feed(b"\xc3");
        screen.feed(b"\xa4\n");
        assert_eq!(screen.take_last().0, "ä\n");
    }

    proptest! {
        #[test]
        fn where_the_stream_is_cut_does_not_matter(
            parts in prop::collection::vec(prop_oneof![
                "[a-zä\r\n\u{8}]{0,9}".prop_map(String::into_bytes),
                Just(b"\x1b[31m".to_vec()),
                Just(b"\x1b]0;t\x1b\\".to_vec()),
                Just(b"\x1b(B".to_vec()),
                Just(vec![0xff]),
                Just(vec![0xe2, 0x82]),
                Just("\u{20ac}".as_bytes().to_vec()),
            ], 0..12),
            cuts in prop::collection::vec(1usize..5, 0..60),
        ) {
            let stream = parts.concat();
            let mut screen = Screen::new(100_000);
            let mut rest = stream.as_slice();
            for cut in cuts {
                let (chunk, after) = rest.split_at(cut.min(rest.len()));
                screen.feed(chunk);
                rest = after;
            }
            screen.feed(rest);
            prop_assert_eq!(screen.take_last().0, seen(&stream));
        }
    }
}
