//! Python text → tokens, and the calls among them. Pure, one pass, never fails: what is
//! read may be a fragment of a diff.

/// What a token is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A name or a keyword.
    Name,
    /// A number.
    Number,
    /// A string; `text` is its inside, as written.
    Text,
    /// One character that is none of these.
    Sign,
    /// The end of a line that has tokens.
    Line,
}

/// A token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Token<'a> {
    /// What.
    pub kind: Kind,
    /// Its text.
    pub text: &'a str,
    /// Line, from 0.
    pub line: usize,
}

impl Token<'_> {
    /// Whether it is this name.
    pub fn is_name(&self, name: &str) -> bool {
        self.kind == Kind::Name && self.text == name
    }

    /// Whether it is this character.
    pub fn is_sign(&self, sign: &str) -> bool {
        self.kind == Kind::Sign && self.text == sign
    }
}

/// The tokens of a text. Comments are left out.
pub fn tokens(text: &str) -> Vec<Token<'_>> {
    let bytes = text.as_bytes();
    let mut out: Vec<Token<'_>> = Vec::new();
    let (mut at, mut line) = (0, 0);
    while let Some(&byte) = bytes.get(at) {
        let start = at;
        let begun = line;
        let kind = match byte {
            b'\n' => {
                at += 1;
                line += 1;
                if out.last().is_none_or(|last| last.kind == Kind::Line) {
                    continue;
                }
                Kind::Line
            }
            b' ' | b'\t' | b'\r' => {
                at += 1;
                continue;
            }
            b'\\' if bytes.get(at + 1) == Some(&b'\n') => {
                at += 2;
                line += 1;
                continue;
            }
            b'#' => {
                while bytes.get(at).is_some_and(|byte| *byte != b'\n') {
                    at += 1;
                }
                continue;
            }
            b'\'' | b'"' => {
                let (inside, end) = string(bytes, &mut at, &mut line);
                out.push(Token {
                    kind: Kind::Text,
                    text: text.get(inside..end).unwrap_or_default(),
                    line: begun,
                });
                continue;
            }
            b'0'..=b'9' => {
                at = run(bytes, at, |byte| {
                    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.')
                });
                Kind::Number
            }
            byte if byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80 => {
                at = run(bytes, at, |byte| {
                    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
                });
                let prefix = at - start <= 2
                    && matches!(bytes.get(at), Some(b'\'' | b'"'))
                    && bytes
                        .get(start..at)
                        .unwrap_or_default()
                        .iter()
                        .all(|byte| b"rRbBuUfF".contains(byte));
                if prefix {
                    continue;
                }
                Kind::Name
            }
            _ => {
                at += 1;
                Kind::Sign
            }
        };
        out.push(Token {
            kind,
            text: text.get(start..at).unwrap_or_default(),
            line: begun,
        });
    }
    out
}

fn run(bytes: &[u8], mut at: usize, more: impl Fn(u8) -> bool) -> usize {
    while bytes.get(at).is_some_and(|byte| more(*byte)) {
        at += 1;
    }
    at
}

/// Goes past a string; where its inside begins and ends. One that is not closed ends with
/// its line, with three quotes at the end of the text.
fn string(bytes: &[u8], at: &mut usize, line: &mut usize) -> (usize, usize) {
    let quote = bytes.get(*at).copied().unwrap_or_default();
    let triple = bytes.get(*at + 1) == Some(&quote) && bytes.get(*at + 2) == Some(&quote);
    *at += if triple { 3 } else { 1 };
    let inside = *at;
    while let Some(&byte) = bytes.get(*at) {
        match byte {
            b'\\' => {
                *line += usize::from(bytes.get(*at + 1) == Some(&b'\n'));
                *at = (*at + 2).min(bytes.len());
            }
            b'\n' if !triple => return (inside, *at),
            b'\n' => {
                *line += 1;
                *at += 1;
            }
            _ if byte == quote => {
                if !triple {
                    *at += 1;
                    return (inside, *at - 1);
                }
                if bytes.get(*at + 1) == Some(&quote) && bytes.get(*at + 2) == Some(&quote) {
                    *at += 3;
                    return (inside, *at - 3);
                }
                *at += 1;
            }
            _ => *at += 1,
        }
    }
    (inside, *at)
}

/// A call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Call {
    /// Dotted name, as far as it is one (`subprocess.run`; `.write_text` after `)`).
    pub name: String,
    /// Place of the name's first token.
    pub at: usize,
    /// Place of the first token inside the parentheses.
    pub inside: usize,
    /// Line.
    pub line: usize,
}

/// The dotted name that begins at a token, and the place after it. A name that goes on
/// from an expression begins with a point.
pub fn dotted(tokens: &[Token<'_>], at: usize) -> Option<(String, usize)> {
    let first = tokens.get(at).filter(|token| token.kind == Kind::Name)?;
    let before = at.checked_sub(1).and_then(|before| tokens.get(before));
    let mut name = String::new();
    if before.is_some_and(|token| token.is_sign(".")) {
        name.push('.');
    }
    name.push_str(first.text);
    let mut next = at + 1;
    while tokens.get(next).is_some_and(|token| token.is_sign("."))
        && let Some(part) = tokens
            .get(next + 1)
            .filter(|token| token.kind == Kind::Name)
    {
        name.push('.');
        name.push_str(part.text);
        next += 2;
    }
    Some((name, next))
}

/// The calls of a text, definitions left out.
pub fn calls(tokens: &[Token<'_>]) -> Vec<Call> {
    let mut out = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let Some((name, next)) = dotted(tokens, at) else {
            at += 1;
            continue;
        };
        let defined = at
            .checked_sub(1)
            .and_then(|before| tokens.get(before))
            .is_some_and(|token| token.is_name("def") || token.is_name("class"));
        if !defined && tokens.get(next).is_some_and(|token| token.is_sign("(")) {
            out.push(Call {
                name,
                at,
                inside: next + 1,
                line: tokens.get(at).map_or(0, |token| token.line),
            });
        }
        at = next;
    }
    out
}

/// Tokens of a call's arguments, at most this many: enough to see what it is about, and no
/// more, so that nested calls stay cheap.
const ARGUMENTS: usize = 48;

/// What stands between a call's parentheses, up to a limit.
pub fn arguments<'t, 'a>(tokens: &'t [Token<'a>], call: &Call) -> &'t [Token<'a>] {
    let rest = tokens.get(call.inside..).unwrap_or_default();
    let mut open = 0usize;
    for (at, token) in rest.iter().take(ARGUMENTS).enumerate() {
        if token.is_sign("(") || token.is_sign("[") || token.is_sign("{") {
            open += 1;
        } else if token.is_sign(")") || token.is_sign("]") || token.is_sign("}") {
            if open == 0 {
                return rest.get(..at).unwrap_or_default();
            }
            open -= 1;
        }
    }
    rest.get(..ARGUMENTS.min(rest.len())).unwrap_or_default()
}

/// Undoes the usual escapes of a string's inside.
pub fn unescaped(inside: &str) -> String {
    let mut out = String::with_capacity(inside.len());
    let mut characters = inside.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            out.push(character);
            continue;
        }
        match characters.next() {
            Some('n') => out.push('\n'),
            Some('t') => out.push('\t'),
            Some('\n') => {}
            Some(other @ ('\\' | '\'' | '"')) => out.push(other),
            Some(other) => {
                out.push('\\');
                out.push(other);
            }
            None => out.push('\\'),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn strings_comments_and_names_are_told_apart() {
        let found = tokens("x = rb'a#\\'b' + \"\"\"c\nd\"\"\"  # os._exit(0)\nf(1.5e3)\n");
        let texts: Vec<(Kind, &str)> = found.iter().map(|token| (token.kind, token.text)).collect();
        assert_eq!(
            texts,
            [
                (Kind::Name, "x"),
                (Kind::Sign, "="),
                (Kind::Text, "a#\\'b"),
                (Kind::Sign, "+"),
                (Kind::Text, "c\nd"),
                (Kind::Line, "\n"),
                (Kind::Name, "f"),
                (Kind::Sign, "("),
                (Kind::Number, "1.5e3"),
                (Kind::Sign, ")"),
                (Kind::Line, "\n"),
            ]
        );
        assert_eq!(found[6].line, 2);
    }

    #[test]
    fn calls_have_names_and_arguments() {
        let found = tokens("def f(a): pass\nos.path.join(a, (b, 'c'))\nPath('x').write_text(y)");
        let calls = calls(&found);
        let names: Vec<&str> = calls.iter().map(|call| call.name.as_str()).collect();
        assert_eq!(names, ["os.path.join", "Path", ".write_text"]);
        assert_eq!(arguments(&found, &calls[0]).len(), 7);
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in r##"([a-z_.(){}'"#\\\n=0-9é-]|"""|f')*"##) {
            let found = tokens(&text);
            let calls = calls(&found);
            for call in &calls {
                arguments(&found, call);
            }
            prop_assert!(found.len() <= text.len());
        }
    }
}
