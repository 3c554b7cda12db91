//! Several commands, or one that has several lines? Pure.
//!
//! As in OpenHands, commands are several when they stand on lines of their own at the top
//! level: what `;`, `&&`, `||`, `|` and `&` join on a line is one, and so are loops,
//! functions, here-documents, quoted line breaks and continued lines. This is no parser
//! of bash. It is made so that an error is on one side: whatever it does not understand
//! is one command, and bash has the last word.

/// What is open at a place in the text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Open {
    /// `if`, `{`, `[[`, and `do` … `done` with what introduces it: closed by this word.
    Word(&'static str),
    /// `case`, closed by `esac`; whether a pattern is expected, which is no command.
    Case { pattern: bool },
    /// `(` of a subshell or a substitution: commands are inside.
    Commands,
    /// `(` of an array, a pattern or arithmetic: words are inside.
    Words,
    /// `"`
    Quote,
    /// `${`
    Parameter,
    /// A backquote.
    Backquote,
}

/// A here-document whose text begins on the next line.
#[derive(Debug)]
struct Document {
    delimiter: String,
    tabs: bool,
}

/// The commands of a text that stand on lines of their own at the top level, comments and
/// empty lines left out. A text that is not complete is one command.
pub fn commands(text: &str) -> Vec<&str> {
    let mut reader = Reader::new(text);
    match reader.read() {
        Some(ends) => {
            let mut start = 0;
            let parts = ends.into_iter().filter_map(|end| {
                let part = text.get(start..end);
                start = end;
                part.map(str::trim)
            });
            parts.filter(|part| !is_comment(part)).collect()
        }
        None => vec![text.trim()],
    }
}

fn is_comment(part: &str) -> bool {
    part.lines()
        .all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
}

struct Reader<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    open: Vec<Open>,
    documents: Vec<Document>,
    /// The next word is the first of a command.
    command: bool,
    /// A line break does not end the command: after `&&`, `f()`, `function f`.
    wants_more: bool,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text,
            bytes: text.as_bytes(),
            at: 0,
            open: Vec::new(),
            documents: Vec::new(),
            command: true,
            wants_more: false,
        }
    }

    fn peek(&self, ahead: usize) -> u8 {
        self.bytes.get(self.at + ahead).copied().unwrap_or(0)
    }

    /// Ends of the top-level commands; `None` when the text is not understood.
    fn read(&mut self) -> Option<Vec<usize>> {
        let mut ends = Vec::new();
        while self.at < self.bytes.len() {
            match self.open.last() {
                Some(Open::Quote | Open::Parameter | Open::Backquote) => self.quoted()?,
                _ => self.plain(&mut ends)?,
            }
        }
        ends.push(self.text.len());
        self.open.is_empty().then_some(ends)
    }

    /// Inside `"…"`, `${…}` and backquotes: only what opens and closes.
    fn quoted(&mut self) -> Option<()> {
        let inside = *self.open.last()?;
        match (self.peek(0), inside) {
            (b'\\', _) => self.at += 1,
            (b'"', Open::Quote) | (b'}', Open::Parameter) | (b'`', Open::Backquote) => {
                self.open.pop();
            }
            (b'"', _) => self.open.push(Open::Quote),
            (b'`', _) => self.open.push(Open::Backquote),
            (b'\'', Open::Backquote | Open::Parameter) => self.single_quote()?,
            (b'$', _) => self.dollar(),
            _ => {}
        }
        self.at += 1;
        Some(())
    }

    /// To the closing `'`; stands on it.
    fn single_quote(&mut self) -> Option<()> {
        let rest = self.bytes.get(self.at + 1..)?;
        self.at += 1 + rest.iter().position(|&b| b == b'\'')?;
        Some(())
    }

    /// To the closing `'` of `$'…'`; stands on it.
    fn escaped_quote(&mut self) -> Option<()> {
        self.at += 2;
        while self.peek(0) != b'\'' {
            self.at += if self.peek(0) == b'\\' { 2 } else { 1 };
            (self.at < self.bytes.len()).then_some(())?;
        }
        Some(())
    }

    /// `$(`, `$((` and `${` open something; stands on the last byte of it.
    fn dollar(&mut self) {
        match (self.peek(1), self.peek(2)) {
            (b'(', b'(') => {
                self.at += 2;
                self.open.extend([Open::Words, Open::Words]);
            }
            (b'(', _) => {
                self.at += 1;
                self.open.push(Open::Commands);
                self.command = true;
            }
            (b'{', _) => {
                self.at += 1;
                self.open.push(Open::Parameter);
            }
            _ => {}
        }
    }

    /// One token outside of quotes.
    fn plain(&mut self, ends: &mut Vec<usize>) -> Option<()> {
        match self.peek(0) {
            b' ' | b'\t' | b'\r' => self.at += 1,
            b'\n' => self.line_break(ends)?,
            b'#' => {
                let rest = self.bytes.get(self.at..)?;
                self.at += rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len());
            }
            b'\\' if self.peek(1) == b'\n' => self.at += 2,
            b';' => self.semicolon(),
            b'&' | b'|' => {
                self.wants_more = self.peek(0) == b'|' || self.peek(1) == b'&';
                self.command = true;
                // `&>file` redirects; the command goes on.
                if self.peek(1) == b'>' {
                    self.command = false;
                }
                self.at += if matches!(self.peek(1), b'&' | b'|') {
                    2
                } else {
                    1
                };
            }
            b'(' => self.parenthesis(),
            b')' => self.closing()?,
            b'<' if self.peek(1) == b'<' && self.peek(2) != b'<' && !self.in_words() => {
                self.document()?;
            }
            b'<' | b'>' => {
                self.at += if self.bytes.get(self.at..)?.starts_with(b"<<<") {
                    3
                } else {
                    1
                };
                if self.peek(0) == b'(' {
                    self.open.push(Open::Commands);
                    self.command = true;
                    self.at += 1;
                } else if self.peek(0) == b'&' {
                    self.at += 1;
                }
            }
            _ => self.word()?,
        }
        Some(())
    }

    fn in_words(&self) -> bool {
        matches!(self.open.last(), Some(Open::Words))
    }

    fn line_break(&mut self, ends: &mut Vec<usize>) -> Option<()> {
        self.at += 1;
        for document in std::mem::take(&mut self.documents) {
            self.skip(&document)?;
        }
        self.command = true;
        if self.open.is_empty() && !self.wants_more {
            ends.push(self.at);
        }
        Some(())
    }

    fn semicolon(&mut self) {
        self.at += 1;
        self.command = true;
        if matches!(self.peek(0), b';' | b'&') {
            while matches!(self.peek(0), b';' | b'&') {
                self.at += 1;
            }
            if let Some(Open::Case { pattern }) = self.open.last_mut() {
                *pattern = true;
            }
        }
    }

    fn parenthesis(&mut self) {
        if matches!(self.open.last(), Some(Open::Case { pattern: true })) {
            // The opening one before a pattern has no partner of its own.
            self.at += 1;
            return;
        }
        self.at += 1;
        self.wants_more = false;
        if !self.command || self.in_words() {
            self.open.push(Open::Words);
        } else if self.peek(0) == b'(' {
            self.at += 1;
            self.open.extend([Open::Words, Open::Words]);
        } else {
            self.open.push(Open::Commands);
        }
    }

    fn closing(&mut self) -> Option<()> {
        self.at += 1;
        if let Some(Open::Case { pattern }) = self.open.last_mut() {
            *pattern = false;
            self.command = true;
            return Some(());
        }
        let closed = self.open.pop()?;
        matches!(closed, Open::Commands | Open::Words).then_some(())?;
        // `f()`: the body may be on the next line.
        let before = self.text.get(..self.at - 1)?.trim_end();
        let function = closed == Open::Words && before.ends_with('(');
        self.command = function;
        self.wants_more = function;
        Some(())
    }

    /// `<<word`: its text begins after the line.
    fn document(&mut self) -> Option<()> {
        self.at += 2;
        let tabs = self.peek(0) == b'-';
        self.at += usize::from(tabs);
        while matches!(self.peek(0), b' ' | b'\t') {
            self.at += 1;
        }
        let rest = self.text.get(self.at..)?;
        let mut delimiter = String::new();
        let mut quote = None;
        let mut taken = 0;
        for c in rest.chars() {
            match (quote, c) {
                (Some(open), c) if c == open => quote = None,
                (None, '\'' | '"') => quote = Some(c),
                (None, '\\') => {}
                (None, c) if c.is_whitespace() || ";&|<>()".contains(c) => break,
                (_, c) => delimiter.push(c),
            }
            taken += c.len_utf8();
        }
        self.at += taken;
        (quote.is_none() && taken > 0).then_some(())?;
        self.documents.push(Document { delimiter, tabs });
        Some(())
    }

    /// Over the text of a here-document. `None` when its end is missing.
    fn skip(&mut self, document: &Document) -> Option<()> {
        loop {
            let rest = self.text.get(self.at..)?;
            (!rest.is_empty()).then_some(())?;
            let length = rest.find('\n').map_or(rest.len(), |at| at + 1);
            self.at += length;
            let line = rest.get(..length)?.trim_end_matches('\n');
            let line = if document.tabs {
                line.trim_start_matches('\t')
            } else {
                line
            };
            if line == document.delimiter {
                return Some(());
            }
        }
    }

    /// A word, and what it opens or closes when it is the first of a command.
    fn word(&mut self) -> Option<()> {
        let start = self.at;
        let depth = self.open.len();
        let mut plain = true;
        while self.at < self.bytes.len() {
            match self.peek(0) {
                b' ' | b'\t' | b'\r' | b'\n' | b';' | b'&' | b'|' | b'<' | b'>' | b')' => break,
                b'(' => {
                    // `f(`, `a=(`, `@(`: what is inside is no command.
                    self.at += 1;
                    self.open.push(Open::Words);
                    self.command = false;
                    return Some(());
                }
                b'\\' => self.at += 1,
                b'\'' => self.single_quote()?,
                b'$' if self.peek(1) == b'\'' => self.escaped_quote()?,
                b'$' => self.dollar(),
                b'"' => self.open.push(Open::Quote),
                b'`' => self.open.push(Open::Backquote),
                _ => {
                    self.at += 1;
                    continue;
                }
            }
            plain = false;
            self.at += 1;
            // Read on from the outside when what was opened is closed.
            while self.open.len() > depth {
                match self.open.last()? {
                    Open::Quote | Open::Parameter | Open::Backquote => self.quoted()?,
                    _ => self.plain(&mut Vec::new())?,
                }
                (self.at <= self.bytes.len()).then_some(())?;
                if self.at == self.bytes.len() && self.open.len() > depth {
                    return None;
                }
            }
        }
        self.wants_more = false;
        let first = std::mem::replace(&mut self.command, false);
        let word = self.text.get(start..self.at)?;
        if plain {
            self.reserved(word, first)?;
        }
        Some(())
    }

    fn reserved(&mut self, word: &str, first: bool) -> Option<()> {
        match self.open.last_mut() {
            Some(Open::Word(closing @ "]]")) if word == *closing => {
                self.open.pop();
                return Some(());
            }
            Some(Open::Word("]]")) => return Some(()),
            Some(Open::Case { pattern: true }) if word != "esac" => return Some(()),
            // `case x in`: the patterns begin.
            Some(Open::Case { pattern }) if word == "in" && !first => {
                *pattern = true;
                return Some(());
            }
            Some(Open::Words) => return Some(()),
            _ => {}
        }
        let ends_case = word == "esac" && matches!(self.open.last(), Some(Open::Case { .. }));
        if ends_case {
            self.open.pop();
            return Some(());
        }
        if !first {
            return Some(());
        }
        match word {
            "if" => self.open.push(Open::Word("fi")),
            "for" | "while" | "until" | "select" => self.open.push(Open::Word("done")),
            "{" => self.open.push(Open::Word("}")),
            "[[" => self.open.push(Open::Word("]]")),
            "case" => self.open.push(Open::Case { pattern: false }),
            "fi" | "done" | "}" => {
                (self.open.pop()? == Open::Word(closing_word(word))).then_some(())?;
            }
            "then" | "do" | "else" | "elif" | "!" | "time" => self.command = true,
            "function" => {
                // The name, then the body, which may be on the next line.
                while matches!(self.peek(0), b' ' | b'\t') {
                    self.at += 1;
                }
                self.word()?;
                self.wants_more = true;
                self.command = true;
            }
            _ => {}
        }
        // After these a command follows, on this line or on the next.
        if matches!(word, "if" | "while" | "until" | "{") {
            self.command = true;
        }
        Some(())
    }
}

/// The same word, as long as the program lives.
fn closing_word(word: &str) -> &'static str {
    match word {
        "fi" => "fi",
        "done" => "done",
        _ => "}",
    }
}

#[cfg(test)]
#[path = "split_tests.rs"]
mod tests;
