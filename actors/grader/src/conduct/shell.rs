//! Shell text → simple commands, quotes undone. Pure, one pass, never fails.
//!
//! This is no shell: nothing is expanded but variables that the text itself sets, and what
//! is not understood is taken as words. Substitutions, subshells, loops and branches are
//! flattened: which commands stand there counts, not whether they would run.

use std::collections::HashMap;

/// Substitutions within substitutions that are followed.
const DEPTH: usize = 24;

/// Values longer than this are not put in the place of a variable.
const VALUE: usize = 2048;

/// A simple command.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Command {
    /// Program and arguments, quotes undone.
    pub words: Vec<String>,
    /// `NAME=value` before the program.
    pub variables: Vec<(String, String)>,
    /// Files that output goes to.
    pub writes: Vec<String>,
    /// Files that input comes from.
    pub reads: Vec<String>,
    /// Here-document or here-string.
    pub input: Option<String>,
    /// Whether its input is the output of the command before it.
    pub piped: bool,
}

impl Command {
    fn is_empty(&self) -> bool {
        self.words.is_empty()
            && self.variables.is_empty()
            && self.writes.is_empty()
            && self.reads.is_empty()
            && self.input.is_none()
    }
}

/// The simple commands of a text in the order in which they stand; a substitution comes
/// before the command that it is part of.
pub fn commands(text: &str) -> Vec<Command> {
    let mut reader = Reader {
        text,
        bytes: text.as_bytes(),
        at: 0,
        out: Vec::new(),
        documents: Vec::new(),
        variables: HashMap::new(),
        budget: text.len().saturating_mul(4).saturating_add(65_536),
    };
    reader.list(None, 0);
    reader.out
}

/// A here-document whose text begins after the line's end.
struct Document {
    delimiter: String,
    tabs: bool,
    /// Which command reads it: its place in `out`, once it is there.
    command: Option<usize>,
}

struct Reader<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    out: Vec<Command>,
    documents: Vec<Document>,
    variables: HashMap<String, String>,
    /// Bytes that variables may still add in all: text that doubles itself ends here.
    budget: usize,
}

impl Reader<'_> {
    fn byte(&self, ahead: usize) -> Option<u8> {
        self.bytes.get(self.at + ahead).copied()
    }

    fn starts(&self, what: &str) -> bool {
        self.bytes
            .get(self.at..)
            .is_some_and(|rest| rest.starts_with(what.as_bytes()))
    }

    /// Text from `start` to here. Both are at ASCII bytes or ends: cuts are whole.
    fn since(&self, start: usize) -> &str {
        self.text.get(start..self.at).unwrap_or_default()
    }

    /// Reads commands up to `close` (taken too) or the end.
    fn list(&mut self, close: Option<u8>, depth: usize) {
        let mut open = Command::default();
        while let Some(byte) = self.byte(0) {
            if close == Some(byte) {
                self.at += 1;
                break;
            }
            match byte {
                b' ' | b'\t' | b'\r' => self.at += 1,
                b'\\' if self.byte(1) == Some(b'\n') => self.at += 2,
                b'\n' => {
                    self.at += 1;
                    self.end(&mut open, false);
                    self.bodies();
                }
                b'#' => {
                    while self.byte(0).is_some_and(|byte| byte != b'\n') {
                        self.at += 1;
                    }
                }
                b'&' if self.byte(1) == Some(b'>') => {
                    self.at += 2;
                    self.at += usize::from(self.byte(0) == Some(b'>'));
                    let target = self.target(close, depth);
                    open.writes.push(target);
                }
                b';' | b'&' | b'(' | b')' => {
                    self.at += 1;
                    if byte == b'(' && open.words.is_empty() && self.byte(0) == Some(b'(') {
                        self.arithmetic();
                    }
                    self.end(&mut open, false);
                }
                b'|' => {
                    self.at += 1;
                    let or = self.byte(0) == Some(b'|');
                    self.at += usize::from(or || self.byte(0) == Some(b'&'));
                    self.end(&mut open, !or);
                }
                b'<' | b'>' => self.redirection(&mut open, close, depth),
                _ => {
                    let start = self.at;
                    let word = self.word(close, depth);
                    let bare = self.since(start) == word;
                    self.add(&mut open, word, bare);
                    if self.at == start {
                        // Nothing was taken: a byte that stands for nothing here.
                        self.at += 1;
                    }
                }
            }
        }
        self.end(&mut open, false);
        if close.is_none() {
            self.bodies();
        }
    }

    /// Adds a word to a command: a keyword, an assignment, or an argument.
    fn add(&mut self, open: &mut Command, word: String, bare: bool) {
        if open.words.is_empty() {
            let keyword = matches!(
                word.as_str(),
                "if" | "then"
                    | "else"
                    | "elif"
                    | "fi"
                    | "do"
                    | "done"
                    | "while"
                    | "until"
                    | "esac"
                    | "{"
                    | "}"
                    | "!"
                    | "time"
            );
            if keyword && bare {
                return;
            }
            if let Some((name, value)) = assignment(&word) {
                if value.len() <= VALUE {
                    self.variables.insert(name.to_owned(), value.to_owned());
                }
                open.variables.push((name.to_owned(), value.to_owned()));
                return;
            }
        }
        if matches!(
            open.words.first().map(String::as_str),
            Some("export" | "declare" | "local" | "readonly")
        ) && let Some((name, value)) = assignment(&word)
            && value.len() <= VALUE
        {
            self.variables.insert(name.to_owned(), value.to_owned());
        }
        open.words.push(word);
    }

    /// Ends a command; `piped` says that the next one reads its output.
    fn end(&mut self, open: &mut Command, piped: bool) {
        let place = self.out.len();
        let ended = std::mem::take(open);
        open.piped = piped;
        if ended.is_empty() {
            open.piped |= ended.piped && piped;
            return;
        }
        for document in &mut self.documents {
            document.command.get_or_insert(place);
        }
        self.out.push(ended);
    }

    /// `<`, `>` and their kin.
    fn redirection(&mut self, open: &mut Command, close: Option<u8>, depth: usize) {
        // A number that stands before it names a descriptor, and is no argument.
        let joined = self.at > 0 && self.bytes.get(self.at - 1).is_some_and(u8::is_ascii_digit);
        if joined && open.words.last().is_some_and(|word| word.len() == 1) {
            open.words.pop();
        }
        if self.starts("<<<") {
            self.at += 3;
            let text = self.target(close, depth);
            open.input = Some(text);
        } else if self.starts("<<") {
            self.at += 2;
            let tabs = self.byte(0) == Some(b'-');
            self.at += usize::from(tabs);
            let delimiter = self.target(close, depth);
            self.documents.push(Document {
                delimiter,
                tabs,
                command: None,
            });
        } else if self.starts("<(") || self.starts(">(") {
            self.at += 2;
            self.nested(b')', depth);
        } else {
            let out = self.byte(0) == Some(b'>');
            self.at += 1;
            while self.byte(0).is_some_and(|byte| matches!(byte, b'>' | b'|')) {
                self.at += 1;
            }
            if self.byte(0) == Some(b'&') {
                // `2>&1` names a descriptor; `>&file` a file.
                self.at += 1;
                let target = self.target(close, depth);
                if out
                    && !target
                        .bytes()
                        .all(|byte| byte.is_ascii_digit() || byte == b'-')
                {
                    open.writes.push(target);
                }
                return;
            }
            let target = self.target(close, depth);
            // In `[[ a < b ]]` they compare.
            if open.words.first().is_some_and(|word| word == "[[") {
                return;
            }
            if out {
                open.writes.push(target);
            } else {
                open.reads.push(target);
            }
        }
    }

    /// The word after a redirection.
    fn target(&mut self, close: Option<u8>, depth: usize) -> String {
        while self
            .byte(0)
            .is_some_and(|byte| matches!(byte, b' ' | b'\t'))
        {
            self.at += 1;
        }
        self.word(close, depth)
    }

    /// Reads the here-documents that were announced on the line that ended.
    fn bodies(&mut self) {
        for document in std::mem::take(&mut self.documents) {
            let mut body = String::new();
            while self.at < self.bytes.len() {
                let rest = self.text.get(self.at..).unwrap_or_default();
                let line = rest.split_inclusive('\n').next().unwrap_or_default();
                self.at += line.len().max(1);
                let stripped = if document.tabs {
                    line.trim_start_matches('\t')
                } else {
                    line
                };
                if stripped.trim_end_matches(['\n', '\r']) == document.delimiter {
                    break;
                }
                body.push_str(stripped);
            }
            if let Some(command) = document.command.and_then(|at| self.out.get_mut(at)) {
                command.input = Some(body);
            }
        }
    }

    /// A word, up to what ends it.
    fn word(&mut self, close: Option<u8>, depth: usize) -> String {
        let mut word = String::new();
        while let Some(byte) = self.byte(0) {
            if close == Some(byte) {
                break;
            }
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' | b';' | b'&' | b'|' | b'<' | b'>' | b'(' | b')' => {
                    break;
                }
                b'\\' => {
                    self.at += 1;
                    if self.byte(0) == Some(b'\n') {
                        self.at += 1;
                    } else {
                        self.one(&mut word);
                    }
                }
                b'\'' => {
                    self.at += 1;
                    let start = self.at;
                    self.skip_past(b'\'');
                    let end = self.at.saturating_sub(1).max(start);
                    word.push_str(self.text.get(start..end).unwrap_or_default());
                }
                b'"' => {
                    self.at += 1;
                    self.quoted(&mut word, depth);
                }
                b'$' if self.byte(1) == Some(b'\'') => {
                    self.at += 2;
                    self.ansi(&mut word);
                }
                b'$' => self.dollar(&mut word, depth),
                b'`' => {
                    self.at += 1;
                    self.nested(b'`', depth);
                }
                _ => self.one(&mut word),
            }
        }
        word
    }

    /// Takes one character.
    fn one(&mut self, word: &mut String) {
        if let Some(next) = self
            .text
            .get(self.at..)
            .and_then(|rest| rest.chars().next())
        {
            word.push(next);
            self.at += next.len_utf8();
        } else {
            self.at += 1;
        }
    }

    /// Goes past the next such byte, or to the end and one further.
    fn skip_past(&mut self, byte: u8) {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        self.at += memchr::memchr(byte, rest).unwrap_or(rest.len()) + 1;
        self.at = self.at.min(self.bytes.len() + 1);
    }

    /// The inside of `"…"`.
    fn quoted(&mut self, word: &mut String, depth: usize) {
        while let Some(byte) = self.byte(0) {
            match byte {
                b'"' => {
                    self.at += 1;
                    return;
                }
                b'\\' => {
                    self.at += 1;
                    match self.byte(0) {
                        Some(b'\n') => self.at += 1,
                        Some(b'"' | b'\\' | b'$' | b'`') => self.one(word),
                        _ => word.push('\\'),
                    }
                }
                b'$' => self.dollar(word, depth),
                b'`' => {
                    self.at += 1;
                    self.nested(b'`', depth);
                }
                _ => self.one(word),
            }
        }
    }

    /// The inside of `$'…'`.
    fn ansi(&mut self, word: &mut String) {
        while let Some(byte) = self.byte(0) {
            match byte {
                b'\'' => {
                    self.at += 1;
                    return;
                }
                b'\\' => {
                    self.at += 1;
                    match self.byte(0) {
                        Some(b'n') => word.push('\n'),
                        Some(b't') => word.push('\t'),
                        Some(b'x') => {
                            let digits = self.text.get(self.at + 1..self.at + 3);
                            match digits.and_then(|two| u8::from_str_radix(two, 16).ok()) {
                                Some(code) => {
                                    word.push(char::from(code));
                                    self.at += 2;
                                }
                                None => word.push('x'),
                            }
                        }
                        _ => {
                            self.one(word);
                            continue;
                        }
                    }
                    self.at += 1;
                }
                _ => self.one(word),
            }
        }
    }

    /// `$(…)`, `${…}`, `$NAME`, or a dollar.
    fn dollar(&mut self, word: &mut String, depth: usize) {
        let start = self.at;
        self.at += 1;
        match self.byte(0) {
            Some(b'(') if self.byte(1) == Some(b'(') => {
                self.at += 1;
                self.arithmetic();
                word.push('0');
            }
            Some(b'(') => {
                self.at += 1;
                self.nested(b')', depth);
            }
            Some(b'{') => {
                self.at += 1;
                let inside = self.at;
                while self
                    .byte(0)
                    .is_some_and(|byte| !matches!(byte, b'}' | b'\n'))
                {
                    self.at += 1;
                }
                let name = self.since(inside).to_owned();
                self.at += usize::from(self.byte(0) == Some(b'}'));
                self.put(word, &name, start);
            }
            _ => {
                let inside = self.at;
                while self
                    .byte(0)
                    .is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
                {
                    self.at += 1;
                }
                let name = self.since(inside).to_owned();
                self.put(word, &name, start);
            }
        }
    }

    /// The value of a variable, or the text that names it.
    fn put(&mut self, word: &mut String, name: &str, start: usize) {
        match self.variables.get(name) {
            Some(value) if value.len() <= self.budget => {
                self.budget -= value.len();
                word.push_str(value);
            }
            _ => word.push_str(self.since(start)),
        }
    }

    /// Goes past the inside of `((…))`; the first parenthesis was taken.
    fn arithmetic(&mut self) {
        let mut open = 1i32;
        while let Some(byte) = self.byte(0) {
            match byte {
                b'(' => open += 1,
                b')' => open -= 1,
                b'\n' => return,
                _ => {}
            }
            self.at += 1;
            if open <= 0 {
                return;
            }
        }
    }

    /// Commands of a substitution, up to its end.
    fn nested(&mut self, close: u8, depth: usize) {
        if depth >= DEPTH {
            return;
        }
        let waiting = std::mem::take(&mut self.documents);
        self.list(Some(close), depth + 1);
        let mut inner = std::mem::replace(&mut self.documents, waiting);
        self.documents.append(&mut inner);
    }
}

/// `NAME=value`.
pub fn assignment(word: &str) -> Option<(&str, &str)> {
    let (name, value) = word.split_once('=')?;
    let name = name.strip_suffix('+').unwrap_or(name);
    let mut bytes = name.bytes();
    let good = bytes
        .next()
        .is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    good.then_some((name, value))
}

#[cfg(test)]
#[path = "shell_tests.rs"]
mod tests;
