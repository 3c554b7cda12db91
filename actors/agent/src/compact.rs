//! The compact scaffold, version 1: three commands, few tokens.
//!
//! ```text
//! view FILE ENTITY      the lines of a function or class, numbered from 1
//! edit FIRST LAST       then the new lines: they replace FIRST..=LAST of what was
//! …                     viewed last; `edit N` is short for `edit N N`
//! submit                ends the attempt
//! ```
//! Numbers count from the entity's first line, because small models pay a token for
//! every digit. Inner lines of docstrings are not shown; numbering goes on over them.
//!
//! Observations that begin with `error` say what was wrong. They are on the tape, but
//! the model is not shown its failed turns again: a small model repeats what stands in
//! its context, so the next turn is a fresh draw from the conversation without them.
//! (Seen on 400 attempts of a tuned 135M model: of the turns after `error: no change`,
//! nearly all were the same edit again.)
//!
//! Everything here is a pure function; the tools' effects are the actor's.

use crate::entity::{self, Span};
use gametape_schemas::{ChatMessage, Role, Step, Task, ToolCall, Trajectory};
use std::collections::BTreeMap;

/// Name and version, as it stands in attempt keys.
pub const SCAFFOLD: &str = "compact/1";

/// Lines shown of an entity at most.
const MAX_LINES: usize = 80;

/// Failed turns in a row after which the attempt is over.
pub const MAX_FAILED_TURNS: usize = 3;

const SYSTEM: &str = "Fix the bug. Commands:\nview FILE NAME\nedit LINE\nsubmit";

/// What the model asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// Show an entity.
    View {
        /// Path relative to the repository.
        file: String,
        /// Qualified name; empty for the head of the file.
        entity: String,
    },
    /// Replace lines of what was viewed last.
    Edit {
        /// First line, from 1.
        first: usize,
        /// Last line, inclusive.
        last: usize,
        /// New lines, without the last line's end; empty deletes.
        text: String,
    },
    /// Done.
    Submit,
}

impl Command {
    /// The command as the model is to write it.
    pub fn render(&self) -> String {
        match self {
            Self::View { file, entity } => format!("view {file} {entity}").trim_end().to_owned(),
            Self::Edit { first, last, text } if first == last => format!("edit {first}\n{text}"),
            Self::Edit { first, last, text } => format!("edit {first} {last}\n{text}"),
            Self::Submit => "submit".to_owned(),
        }
    }

    /// The command as the tape has it.
    pub fn call(&self) -> ToolCall {
        let (tool, arguments) = match self {
            Self::View { file, entity } => (
                "view",
                vec![("file", file.clone()), ("entity", entity.clone())],
            ),
            Self::Edit { first, last, text } => (
                "edit",
                vec![
                    ("first", first.to_string()),
                    ("last", last.to_string()),
                    ("text", text.clone()),
                ],
            ),
            Self::Submit => ("submit", vec![]),
        };
        ToolCall {
            tool: tool.to_owned(),
            arguments: arguments
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect::<BTreeMap<_, _>>(),
        }
    }
}

/// Understands a turn.
///
/// # Errors
/// The observation that tells the model what was wrong.
pub fn parse(text: &str) -> Result<Command, String> {
    let text = text.trim_matches(['\n', '\r']);
    let (head, body) = text.split_once('\n').unwrap_or((text, ""));
    let mut words = head.split_whitespace();
    let command = words.next().unwrap_or("");
    let rest: Vec<&str> = words.collect();
    match (command, rest.as_slice()) {
        ("view", [file]) => Ok(Command::View {
            file: (*file).to_owned(),
            entity: String::new(),
        }),
        ("view", [file, entity]) => Ok(Command::View {
            file: (*file).to_owned(),
            entity: (*entity).to_owned(),
        }),
        ("view", _) => Err("error: view FILE NAME".to_owned()),
        ("edit", [first, rest @ ..]) if rest.len() < 2 => {
            let number = |word: &str| word.parse::<usize>().ok().filter(|n| *n > 0);
            let last = rest.first().copied().unwrap_or(first);
            match (number(first), number(last)) {
                (Some(first), Some(last)) if first <= last => Ok(Command::Edit {
                    first,
                    last,
                    text: body.to_owned(),
                }),
                _ => Err("error: edit LINE, then the new line".to_owned()),
            }
        }
        ("edit", _) => Err("error: edit LINE, then the new line".to_owned()),
        ("submit", []) => Ok(Command::Submit),
        _ => Err("error: use view, edit or submit".to_owned()),
    }
}

/// What was viewed last: edits go there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Viewed {
    /// Path.
    pub file: String,
    /// Lines of the file.
    pub span: Span,
}

/// Shows an entity of a source text; what `view` answers.
///
/// # Errors
/// The observation when the entity is not there.
pub fn view(file: &str, source: &str, name: &str) -> Result<(String, Viewed), String> {
    let span = if name.is_empty() {
        Span {
            start: 0,
            end: source.lines().count(),
        }
    } else {
        entity::find(source, name).ok_or(format!("error: no {name} in {file}"))?
    };
    let hidden = entity::docstring_interior(source, span);
    let mut out = format!("{file}:{}", span.start + 1);
    let mut shown = 0;
    for (at, line) in source.lines().enumerate().take(span.end).skip(span.start) {
        if hidden.contains(&at) || line.trim().is_empty() {
            continue;
        }
        if shown == MAX_LINES {
            out.push_str("\n(more lines follow)");
            break;
        }
        shown += 1;
        out.push_str(&format!("\n{} {line}", at - span.start + 1));
    }
    let viewed = Viewed {
        file: file.to_owned(),
        span,
    };
    Ok((out, viewed))
}

/// Replaces lines; gives the new text, the observation, and what is viewed now (its
/// span grew or shrank).
///
/// # Errors
/// The observation when the lines are not there or nothing would change.
pub fn edit(
    source: &str,
    viewed: &Viewed,
    first: usize,
    last: usize,
    text: &str,
) -> Result<(String, String, Viewed), String> {
    let length = viewed.span.end - viewed.span.start;
    if last > length {
        return Err(format!("error: there are lines 1 to {length}"));
    }
    let mut lines: Vec<&str> = source.split('\n').collect();
    let from = viewed.span.start + first - 1;
    let to = viewed.span.start + last;
    // A source of `split('\n')` has at least as many parts as it has lines.
    if to > lines.len() {
        return Err(format!("error: there are lines 1 to {length}"));
    }
    let ends_in_return = lines.get(from).is_some_and(|l| l.ends_with('\r'));
    let new: Vec<String> = if text.is_empty() {
        Vec::new()
    } else {
        text.split('\n')
            .map(|line| {
                let line = line.trim_end_matches('\r');
                if ends_in_return {
                    format!("{line}\r")
                } else {
                    line.to_owned()
                }
            })
            .collect()
    };
    let added = new.len();
    lines.splice(from..to, new.iter().map(String::as_str));
    let result = lines.join("\n");
    if result == source {
        return Err("error: no change".to_owned());
    }
    let viewed = Viewed {
        file: viewed.file.clone(),
        span: Span {
            start: viewed.span.start,
            end: viewed.span.end - (to - from) + added,
        },
    };
    Ok((result, "ok".to_owned(), viewed))
}

/// How every conversation begins.
pub fn opening(task: &Task) -> Vec<ChatMessage> {
    vec![
        ChatMessage::new(Role::System, SYSTEM),
        ChatMessage::new(Role::User, task.problem_statement.trim()),
    ]
}

/// The conversation after some steps, ending where the model is to speak.
pub fn conversation(task: &Task, steps: &[Step]) -> Vec<ChatMessage> {
    let mut messages = opening(task);
    for step in steps.iter().filter(|step| !is_failed(step)) {
        messages.push(ChatMessage {
            role: Role::Assistant,
            content: step.completion.text.clone(),
            train: false,
        });
        messages.push(ChatMessage::new(Role::User, step.observation.clone()));
    }
    messages
}

/// As [`opening`], in the shape that dataset recipes ask for.
pub fn dataset_opening(task: &Task, _attempt: &Trajectory) -> Vec<ChatMessage> {
    opening(task)
}

/// Whether a turn came to nothing: not understood, or refused by its tool.
pub fn is_failed(step: &Step) -> bool {
    step.observation.starts_with("error")
}

/// Whether the last turns failed so often that the attempt is over.
pub fn is_stuck(steps: &[Step]) -> bool {
    steps.len() >= MAX_FAILED_TURNS && steps.iter().rev().take(MAX_FAILED_TURNS).all(is_failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn commands_parse_as_they_render() {
        for command in [
            Command::View {
                file: "a/b.py".into(),
                entity: "C.f".into(),
            },
            Command::View {
                file: "a.py".into(),
                entity: String::new(),
            },
            Command::Edit {
                first: 3,
                last: 3,
                text: "    return x".into(),
            },
            Command::Edit {
                first: 3,
                last: 5,
                text: "a\n\n  b".into(),
            },
            Command::Edit {
                first: 2,
                last: 2,
                text: String::new(),
            },
            Command::Submit,
        ] {
            assert_eq!(parse(&command.render()).unwrap(), command);
        }
        for bad in [
            "",
            "hello",
            "edit",
            "edit x\ny",
            "edit 0\ny",
            "edit 5 3\nx",
            "view",
            "view a b c",
            "submit now",
        ] {
            assert!(parse(bad).unwrap_err().starts_with("error"), "{bad}");
        }
    }

    #[test]
    fn a_view_is_numbered_from_its_first_line_without_docstring_interiors() {
        let source =
            "import x\n\ndef f(a):\n    \"\"\"Doc.\n\n    More.\n    \"\"\"\n\n    return a\n";
        let (text, viewed) = view("m.py", source, "f").unwrap();
        assert_eq!(
            text,
            "m.py:3\n1 def f(a):\n2     \"\"\"Doc.\n7     return a"
        );
        let (now, observation, again) = edit(source, &viewed, 7, 7, "    return a + 1").unwrap();
        assert!(now.ends_with("    return a + 1\n") && observation == "ok");
        assert_eq!(again.span, viewed.span);
        assert!(
            edit(source, &viewed, 7, 7, "    return a").is_err(),
            "no change"
        );
        assert!(edit(source, &viewed, 9, 9, "x").is_err(), "beyond the end");
        let (_, _, longer) = edit(source, &viewed, 7, 7, "a\nb\nc").unwrap();
        assert_eq!(longer.span.end, viewed.span.end + 2);
        assert!(view("m.py", source, "g").is_err());
    }

    #[test]
    fn line_ends_are_kept() {
        let source = "def f():\r\n    return 1\r\n";
        let (_, viewed) = view("m.py", source, "f").unwrap();
        let (now, _, _) = edit(source, &viewed, 2, 2, "    return 2").unwrap();
        assert_eq!(now, "def f():\r\n    return 2\r\n");
    }

    proptest! {
        #[test]
        fn whatever_a_model_says_is_understood_or_refused(text in "\\PC{0,80}", source in "[a-z:\n ]{0,80}") {
            match parse(&text) {
                Err(observation) => prop_assert!(observation.starts_with("error")),
                Ok(Command::Edit { first, last, text }) => {
                    let (_, viewed) = view("a", &source, "").unwrap();
                    let _ = edit(&source, &viewed, first, last, &text);
                }
                Ok(_) => {}
            }
        }
    }
}
