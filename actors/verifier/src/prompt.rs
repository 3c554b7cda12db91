//! What the verifier reads of an attempt, and how it is asked.
//!
//! The same conversation is scored and trained on: a training row is the conversation
//! plus the answer as a trained assistant turn, so the token at the answer position is
//! the same in both. The answers are [`YES`] and [`NO`], right after the assistant's
//! header, without a leading space.
//!
//! **Shortening rule `verifier-prompt/1`.** Small models on a CPU pay for every token,
//! so a prompt holds about 300 tokens, whatever the attempt did (SmolLM2's tokenizer
//! on 706 functions of three packages: half below 282, 95% below 344, none above 430):
//! 1. the problem statement, middle cut out beyond [`STATEMENT_CHARS`];
//! 2. the code as the agent first saw it, without line numbers, blank lines, common
//!    indentation and docstrings (first line kept); beyond [`CODE_CHARS`] the first
//!    line and the lines nearest to the change, with `…` for what was left out of them;
//! 3. removed and added lines of the patch without context, cut beyond
//!    [`CHANGE_CHARS`]; the file is named only when it is not the task's;
//! 4. one line of facts: turns, errors, how it ended.
//!
//! Neither the gold patch, nor test names, nor the verdict enter.

use crate::patch::{Hunk, hunks};
use gametape_schemas::{ChatMessage, EndReason, Role, Task, Trajectory};

/// Name and version of the prompt and its shortening rule.
pub const VERIFIER_PROMPT: &str = "verifier-prompt/1";
/// The answer for "the hidden tests pass".
pub const YES: &str = "YES";
/// The answer for "they do not".
pub const NO: &str = "NO";

/// Most characters of the problem statement.
pub const STATEMENT_CHARS: usize = 360;
/// Most characters of the code.
pub const CODE_CHARS: usize = 480;
/// Most characters of the change.
pub const CHANGE_CHARS: usize = 280;

const SYSTEM: &str =
    "Judge the change. Answer YES if the hidden tests pass after it, otherwise NO.";

/// The conversation about a finished attempt, ending where the verifier is to answer.
pub fn conversation(task: &Task, attempt: &Trajectory) -> Vec<ChatMessage> {
    let changed = hunks(attempt.patch().unwrap_or(""));
    let mut user = format!(
        "Issue:\n{}\n",
        cut(task.problem_statement.trim(), STATEMENT_CHARS)
    );
    let mut indent = 0;
    if let Some(view) = first_view(attempt) {
        let code = show_code(view, &task.file, &changed);
        indent = code.indent;
        user.push_str(&format!("Code:\n{}\n", code.text));
    }
    let change = show_change(&task.file, &changed, indent);
    user.push_str(&format!("Change:\n{change}\n"));
    user.push_str(&facts(attempt));
    vec![
        ChatMessage::new(Role::System, SYSTEM),
        ChatMessage::new(Role::User, user),
    ]
}

/// The conversation of a training row: [`conversation`] and the right answer.
pub fn training_conversation(
    task: &Task,
    attempt: &Trajectory,
    resolved: bool,
) -> Vec<ChatMessage> {
    let mut messages = conversation(task, attempt);
    messages.push(ChatMessage::trained(if resolved { YES } else { NO }));
    messages
}

/// The two answers in the order in which they are scored.
pub fn answers() -> Vec<String> {
    vec![YES.to_owned(), NO.to_owned()]
}

/// Whether a step went wrong: it could not be parsed, or the tool refused it.
fn is_error(step: &gametape_schemas::Step) -> bool {
    let start: String = step.observation.chars().take(5).collect();
    step.call.is_none() || start.eq_ignore_ascii_case("error")
}

/// What the agent saw when it first looked at code.
fn first_view(attempt: &Trajectory) -> Option<&str> {
    attempt
        .steps
        .iter()
        .find(|step| !is_error(step) && step.call.as_ref().is_some_and(|c| c.tool == "view"))
        .map(|step| step.observation.as_str())
}

fn facts(attempt: &Trajectory) -> String {
    let errors = attempt.steps.iter().filter(|s| is_error(s)).count();
    let ended = match attempt.end.as_ref().map(|end| end.reason) {
        Some(EndReason::Submitted) => "submitted",
        Some(EndReason::TurnLimit) => "out of turns",
        Some(EndReason::TokenLimit) => "out of tokens",
        Some(EndReason::Stuck) => "stuck",
        Some(EndReason::CostLimit) => "out of money",
        Some(EndReason::TimeLimit) => "out of time",
        Some(EndReason::GaveUp) => "gave up",
        None => "unfinished",
    };
    format!("Turns {}, errors {errors}, {ended}.", attempt.steps.len())
}

fn show_change(file: &str, changed: &[Hunk], indent: usize) -> String {
    if changed.iter().all(|hunk| hunk.changes.is_empty()) {
        return "no patch".to_owned();
    }
    // The code lost this much indentation; the change loses it too, if all of it can.
    let blank = |line: &String| line.chars().skip(1).take(indent).all(|c| c == ' ');
    let all_blank = changed.iter().flat_map(|hunk| &hunk.changes).all(blank);
    let indent = if all_blank { indent } else { 0 };
    let mut lines: Vec<String> = Vec::new();
    let mut named = file;
    for hunk in changed {
        if hunk.file != named {
            lines.push(hunk.file.clone());
            named = &hunk.file;
        }
        lines.extend(hunk.changes.iter().map(|line| {
            let sign = line.chars().take(1);
            sign.chain(line.chars().skip(1 + indent)).collect()
        }));
    }
    cut(&lines.join("\n"), CHANGE_CHARS)
}

/// A line of code as the agent saw it.
struct Line<'a> {
    number: Option<usize>,
    text: &'a str,
}

/// Splits `12: code`, `12| code`, `12<tab>code` or `12 code` into number and code.
fn numbered(line: &str) -> Line<'_> {
    let trimmed = line.trim_start();
    let digits = trimmed.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = trimmed.split_at_checked(digits).unwrap_or(("", trimmed));
    let text = [": ", " | ", "| ", ":", "|", "\t", " "]
        .iter()
        .find_map(|mark| rest.strip_prefix(mark))
        .or(rest.is_empty().then_some(""));
    match (number.parse().ok(), text) {
        (Some(number), Some(text)) => Line {
            number: Some(number),
            text,
        },
        _ => Line {
            number: None,
            text: line,
        },
    }
}

/// The code as it is shown.
struct Code {
    text: String,
    /// Characters of common indentation that were taken off.
    indent: usize,
}

fn show_code(view: &str, file: &str, changed: &[Hunk]) -> Code {
    let touched: Vec<usize> = changed
        .iter()
        .filter(|hunk| hunk.file == file)
        .flat_map(|hunk| hunk.touched.iter().copied())
        .collect();
    let all: Vec<Line> = view.lines().map(numbered).collect();
    let lines = without_docstrings(&all, &touched);
    let indent = lines
        .iter()
        .map(|line| line.text.len() - line.text.trim_start().len())
        .min()
        .unwrap_or(0);
    let keep = nearest(&lines, &touched, indent);
    let mut shown: Vec<&str> = Vec::new();
    for (line, keep) in lines.iter().zip(&keep) {
        if *keep {
            shown.push(line.text.get(indent..).unwrap_or(line.text).trim_end());
        } else if shown.last() != Some(&"…") {
            shown.push("…");
        }
    }
    // One very long line can still be over.
    let text = cut(&shown.join("\n"), CODE_CHARS + CODE_CHARS / 4);
    Code { text, indent }
}

/// Lines with something on them; of a docstring only its first line and what the
/// change touches.
fn without_docstrings<'a, 'b>(all: &'b [Line<'a>], touched: &[usize]) -> Vec<&'b Line<'a>> {
    let mut open: Option<&str> = None;
    let mut kept = Vec::new();
    for line in all {
        let text = line.text.trim();
        let inside = open.is_some();
        match open {
            Some(quote) if text.contains(quote) => open = None,
            Some(_) => {}
            None => {
                let body = text.trim_start_matches(['r', 'R', 'u', 'U', 'b', 'B']);
                open = ["\"\"\"", "'''"]
                    .into_iter()
                    .find(|quote| body.starts_with(quote) && body.matches(quote).count() == 1);
            }
        }
        let wanted = line.number.is_some_and(|number| touched.contains(&number));
        if !text.is_empty() && (!inside || wanted) {
            kept.push(line);
        }
    }
    kept
}

/// Which lines fit: all of them, or the first and those nearest to the change (to the
/// beginning where nothing is known of the change).
fn nearest(lines: &[&Line], touched: &[usize], indent: usize) -> Vec<bool> {
    let distance = |at: usize, line: &Line| -> usize {
        let number = line.number.filter(|_| !touched.is_empty());
        number
            .and_then(|number| touched.iter().map(|t| t.abs_diff(number)).min())
            .unwrap_or(at)
    };
    let mut order: Vec<(usize, usize)> = lines
        .iter()
        .enumerate()
        .map(|(at, line)| (if at == 0 { 0 } else { distance(at, line) }, at))
        .collect();
    order.sort_unstable();
    let mut keep = vec![false; lines.len()];
    let mut left = CODE_CHARS;
    for (rank, (_, at)) in order.into_iter().enumerate() {
        let Some(line) = lines.get(at) else { continue };
        let cost = line.text.trim_end().chars().count().saturating_sub(indent) + 1;
        if cost > left && rank > 0 {
            break;
        }
        left = left.saturating_sub(cost);
        if let Some(slot) = keep.get_mut(at) {
            *slot = true;
        }
    }
    keep
}

/// At most `most` characters: the first three fifths and the last two.
pub(crate) fn cut(text: &str, most: usize) -> String {
    let count = text.chars().count();
    if count <= most {
        return text.to_owned();
    }
    let room = most.saturating_sub(3);
    let head = room * 3 / 5;
    let first: String = text.chars().take(head).collect();
    let last: String = text.chars().skip(count - (room - head)).collect();
    format!("{} … {}", first.trim_end(), last.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{attempt, patch_of, task, view_step};
    use gametape_schemas::Split;
    use proptest::prelude::*;

    fn user(messages: &[ChatMessage]) -> &str {
        &messages[1].content
    }

    #[test]
    fn it_reads_as_expected() {
        let task = task("toolz", "t1", Split::Explore);
        let mut one = attempt(
            &task,
            "explore",
            0,
            Some(true),
            &patch_of("    return a - b", "    return a + b"),
        );
        one.steps.insert(0, view_step("10: def add(a, b):\n11:     \"\"\"Sum.\n12:\n13:     More.\n14:     \"\"\"\n15:     return a - b"));
        let messages = training_conversation(&task, &one, true);
        assert_eq!(
            user(&messages),
            "Issue:\nadd in toolz/core.py is wrong: assert -1 == 3\n\
             Code:\ndef add(a, b):\n    \"\"\"Sum.\n    return a - b\n\
             Change:\n-    return a - b\n+    return a + b\n\
             Turns 2, errors 0, submitted."
        );
        assert_eq!(messages[2], ChatMessage::trained("YES"));
        assert_eq!(messages[..2], conversation(&task, &one)[..]);
        assert!(messages[..2].iter().all(|m| !m.train));
    }

    #[test]
    fn a_method_and_its_change_lose_the_same_indentation() {
        let task = task("toolz", "t1", Split::Explore);
        let patch = patch_of("        return 1", "        return 2");
        let mut one = attempt(&task, "explore", 0, Some(true), &patch);
        one.steps
            .insert(0, view_step("14:     def one(self):\n15:         return 1"));
        let messages = conversation(&task, &one);
        assert!(user(&messages).contains(
            "Code:\ndef one(self):\n    return 1\nChange:\n-    return 1\n+    return 2\n"
        ));
        // A change that is itself indented too little stays as it is.
        one.end.as_mut().unwrap().patch = patch.replace("        return 2", "  return 2");
        let messages = conversation(&task, &one);
        assert!(user(&messages).contains("Change:\n-        return 1\n+  return 2\n"));
    }

    #[test]
    fn no_patch_no_view_and_errors_are_said() {
        let task = task("toolz", "t1", Split::Explore);
        let mut none = attempt(&task, "explore", 0, Some(false), "");
        none.steps[0].call = None;
        none.steps[0].observation = "Error: unknown command".into();
        none.end.as_mut().unwrap().reason = EndReason::TurnLimit;
        let messages = conversation(&task, &none);
        assert!(user(&messages).ends_with("Change:\nno patch\nTurns 1, errors 1, out of turns."));
        assert!(!user(&messages).contains("Code:"));
    }

    #[test]
    fn long_code_keeps_the_signature_and_what_is_near_the_change() {
        let task = task("toolz", "t1", Split::Explore);
        let view: String = (1..=200)
            .map(|n| format!("{n}:     value_{n} = compute({n})\n"))
            .collect();
        let patch =
            "--- a/toolz/core.py\n+++ b/toolz/core.py\n@@ -150,1 +150,1 @@\n-    x\n+    y\n";
        let mut one = attempt(&task, "explore", 0, Some(false), patch);
        one.steps.insert(0, view_step(&view));
        let messages = conversation(&task, &one);
        let text = user(&messages);
        assert!(
            text.contains("value_1 =") && text.contains("value_150 ="),
            "{text}"
        );
        assert!(!text.contains("value_20 ="), "{text}");
        // Another file is named, and is not what the code shows.
        let other = patch.replace("toolz/core.py", "toolz/other.py");
        one.end.as_mut().unwrap().patch = other;
        let messages = conversation(&task, &one);
        assert!(user(&messages).contains("Change:\ntoolz/other.py\n-x"));
        assert!(user(&messages).contains("value_2 ="));
    }

    proptest! {
        #[test]
        fn it_is_bounded_and_never_panics(
            statement in "(?s).{0,900}",
            view in "(?s)([0-9]{0,3}[:| \t]?.{0,60}\n){0,60}",
            patch in "(?s)[-+ @a-z0-9,\n]{0,600}",
        ) {
            let mut task = task("toolz", "t1", Split::Explore);
            task.problem_statement = statement;
            let mut one = attempt(&task, "explore", 0, Some(false), &format!("@@ -1,9 +1,9 @@\n{patch}"));
            one.steps.insert(0, view_step(&view));
            let messages = conversation(&task, &one);
            let chars = user(&messages).chars().count();
            prop_assert!(chars <= STATEMENT_CHARS + CODE_CHARS * 5 / 4 + CHANGE_CHARS + 80, "{}", chars);
        }

        #[test]
        fn what_only_we_know_does_not_enter(gold in "[a-z]{1,40}", resolved in any::<bool>()) {
            let task = task("toolz", "t1", Split::Explore);
            let one = attempt(&task, "explore", 0, Some(true), "");
            let mut other_task = task.clone();
            other_task.gold_patch = gold.clone();
            other_task.fail_to_pass = vec![gold];
            let other = attempt(&other_task, "explore", 0, Some(resolved), "");
            prop_assert_eq!(conversation(&task, &one), conversation(&other_task, &other));
        }
    }
}
