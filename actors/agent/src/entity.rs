//! Where a Python function or class lies in a text, by indentation: enough for showing
//! code to a model, robust against files that do not parse.

/// Lines of an entity, from 0, end exclusive; decorators included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// First line.
    pub start: usize,
    /// Line after the last.
    pub end: usize,
}

/// Finds `name` or `Class.method` (any depth; functions in functions count too). The
/// last definition wins when there are several, as it does in Python.
pub fn find(source: &str, qualified: &str) -> Option<Span> {
    let lines: Vec<&str> = source.lines().collect();
    let code = code_lines(&lines);
    let mut span = Span {
        start: 0,
        end: lines.len(),
    };
    let mut outer: Option<usize> = None;
    for part in qualified.split('.').filter(|p| *p != "<locals>") {
        let (found, indent) = definition(&lines, &code, span, outer, part)?;
        span = found;
        outer = Some(indent);
    }
    Some(span)
}

fn indent_of(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// The span of the definition of `name` directly or indirectly inside of `within`, and
/// its indentation.
fn definition(
    lines: &[&str],
    code: &[bool],
    within: Span,
    outer: Option<usize>,
    name: &str,
) -> Option<(Span, usize)> {
    let mut best: Option<(Span, usize)> = None;
    for at in within.start..within.end {
        let line = lines.get(at)?;
        if !code.get(at).copied().unwrap_or(false) || !defines(line.trim_start(), name) {
            continue;
        }
        let indent = indent_of(line);
        if outer.is_some_and(|outer| indent <= outer) {
            continue;
        }
        // A definition nested deeper than one already found does not replace it.
        if best.is_some_and(|(_, known)| indent > known) {
            continue;
        }
        best = Some((span_of(lines, code, at, indent), indent));
    }
    best
}

fn defines(text: &str, name: &str) -> bool {
    ["def ", "class ", "async def "].iter().any(|keyword| {
        text.strip_prefix(keyword)
            .and_then(|rest| rest.trim_start().strip_prefix(name))
            .is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
    })
}

fn span_of(lines: &[&str], code: &[bool], at: usize, indent: usize) -> Span {
    let mut start = at;
    // Decorators of the same indentation, with their continuation lines.
    let mut above = at;
    while above > 0 {
        above -= 1;
        let line = lines.get(above).copied().unwrap_or("");
        if line.trim().is_empty() || indent_of(line) < indent {
            break;
        }
        if indent_of(line) == indent && line.trim_start().starts_with('@') {
            start = above;
        } else if indent_of(line) == indent && !line.trim_start().starts_with([')', '#']) {
            break;
        }
    }
    let mut end = at + 1;
    // The header ends where its brackets are closed.
    let mut depth = brackets(lines.get(at).copied().unwrap_or(""));
    for below in at + 1..lines.len() {
        let line = lines.get(below).copied().unwrap_or("");
        if line.trim().is_empty() {
            continue;
        }
        // Text inside of a multi-line string may have any indentation.
        if code.get(below).copied().unwrap_or(true) && indent_of(line) <= indent && depth <= 0 {
            break;
        }
        if depth > 0 {
            depth += brackets(line);
        }
        end = below + 1;
    }
    Span { start, end }
}

/// Brackets opened less brackets closed.
fn brackets(line: &str) -> i32 {
    line.chars().fold(0, |depth, c| match c {
        '(' | '[' | '{' => depth + 1,
        ')' | ']' | '}' => depth - 1,
        _ => depth,
    })
}

/// For each line, whether it begins outside of a triple-quoted string.
fn code_lines(lines: &[&str]) -> Vec<bool> {
    let mut open: Option<&str> = None;
    let mut out = Vec::with_capacity(lines.len());
    for line in lines {
        out.push(open.is_none());
        let mut rest = *line;
        loop {
            match open {
                Some(quote) => match rest.find(quote) {
                    Some(at) => {
                        rest = rest.get(at + 3..).unwrap_or("");
                        open = None;
                    }
                    None => break,
                },
                None => {
                    let comment = rest.find('#').unwrap_or(usize::MAX);
                    let next = ["\"\"\"", "'''"]
                        .iter()
                        .filter_map(|q| rest.find(q).map(|at| (at, *q)))
                        .min();
                    match next {
                        Some((at, quote)) if at < comment => {
                            rest = rest.get(at + 3..).unwrap_or("");
                            open = Some(quote);
                        }
                        _ => break,
                    }
                }
            }
        }
    }
    out
}

/// Lines of `span` that only continue a docstring: shown code leaves them out.
pub fn docstring_interior(source: &str, span: Span) -> Vec<usize> {
    let lines: Vec<&str> = source.lines().collect();
    let code = code_lines(&lines);
    let mut interior = Vec::new();
    for at in span.start..span.end.min(lines.len()) {
        if code.get(at).copied().unwrap_or(true) {
            continue;
        }
        // The string began as a statement of its own: then it is a docstring.
        let begin = (0..at)
            .rev()
            .find(|n| code.get(*n).copied().unwrap_or(true));
        let statement = begin.and_then(|n| lines.get(n)).is_some_and(|line| {
            let text = line
                .trim_start()
                .trim_start_matches(['r', 'R', 'u', 'b', 'f']);
            text.starts_with("\"\"\"") || text.starts_with("'''")
        });
        if statement {
            interior.push(at);
        }
    }
    interior
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SOURCE: &str = "\
import os

def f(x):
    \"\"\"Doc.

def fake(): pass
    \"\"\"
    def inner():
        return 1
    return x

@decorator(
    1,
)
@other
class A:
    def f(self,
          y):
        return y

    async def g(self): return 2

def g():
    pass
";

    fn text(name: &str) -> Option<String> {
        let span = find(SOURCE, name)?;
        let lines: Vec<&str> = SOURCE.lines().collect();
        Some(lines[span.start..span.end].join("\n"))
    }

    #[test]
    fn entities_are_found_by_qualified_name() {
        assert!(
            text("f").unwrap().starts_with("def f(x):") && text("f").unwrap().ends_with("return x")
        );
        assert_eq!(
            text("f.inner").unwrap(),
            "    def inner():\n        return 1"
        );
        assert!(
            text("A").unwrap().starts_with("@decorator(")
                && text("A").unwrap().ends_with("return 2")
        );
        assert_eq!(
            text("A.f").unwrap(),
            "    def f(self,\n          y):\n        return y"
        );
        assert_eq!(text("A.g").unwrap(), "    async def g(self): return 2");
        assert_eq!(text("g").unwrap(), "def g():\n    pass");
        assert_eq!(text("fake"), None, "text in a docstring is no code");
        assert_eq!(text("nope"), None);
        assert_eq!(
            docstring_interior(SOURCE, find(SOURCE, "f").unwrap()),
            [4, 5, 6]
        );
    }

    proptest! {
        #[test]
        fn any_text_is_scanned_without_panic(source in "[a-z :\n\"'#@()]{0,200}", name in "[a-z.]{0,6}") {
            if let Some(span) = find(&source, &name) {
                prop_assert!(span.start < span.end && span.end <= source.lines().count().max(1));
                let _ = docstring_interior(&source, span);
            }
        }
    }
}
