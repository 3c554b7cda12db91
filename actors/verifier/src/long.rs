//! What a language model reads of a whole trajectory (`verifier-prompt/2`): the issue, the
//! turns by number, the final patch, within a budget of tokens.
//!
//! It is asked by four criteria: the task is done, edge cases are handled, the final change
//! is free of errors, tests confirmed it. The answers are those of
//! [`prompt`](crate::prompt), right after the assistant's header, in training and scoring.
//!
//! **Shortening rule `middle-out/1`.** Pure; the same for training and scoring.
//! 1. Every turn is short: what was said (of a long text its first three fifths and last
//!    two, [`SAID_CHARS`]), what was called where the words do not hold it
//!    ([`CALL_CHARS`]), exit code and what came back ([`SEEN_CHARS`]).
//! 2. The patch may take two fifths of the budget, the issue a quarter, the turns the rest,
//!    and each what the others leave.
//! 3. Of the issue the head is kept, of the patch the head; what is cut off is counted in
//!    lines.
//! 4. Of the turns the last and the first are kept, two of the end for one of the
//!    beginning, whole; `[… 12 turns left out]` stands for the middle.
//! 5. Should it all be above the budget still (words that only together are one token
//!    more), the budget of the parts is lowered by what it is above, and again.
//!
//! Neither the gold patch, nor test names, nor the verdict, findings, cost or time enter.

use crate::prompt::{NO, YES, cut};
use gametape_schemas::attempt::ToolCall;
use gametape_schemas::{ChatMessage, EndReason, Role, Step, Task, Trajectory};
use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;

/// Name and version of the prompt.
pub const LONG_PROMPT: &str = "verifier-prompt/2";
/// Name and version of its shortening rule.
pub const SHORTENING: &str = "middle-out/1";

/// Most characters of what was said in a turn.
pub const SAID_CHARS: usize = 280;
/// Most characters of a call.
pub const CALL_CHARS: usize = 160;
/// Most characters of an observation.
pub const SEEN_CHARS: usize = 160;
/// Fewest tokens that a budget may have: below it nothing of an attempt is left.
pub const LEAST_BUDGET: usize = 96;

const SYSTEM: &str = "You judge an agent's finished attempt at a programming task. Weigh four \
things. Is what the issue asks for really done? Do edge cases and other callers still work? \
Is the final patch free of mistakes? Did tests, run after the last edit, confirm it? Answer \
YES if hidden tests of the fix would pass, otherwise NO.";

/// How texts are measured: tokens of a piece. The same text is as long every time.
pub type Measure<'a> = &'a dyn Fn(&str) -> usize;

/// The conversation about a finished attempt, ending where the verifier is to answer. The
/// user's message takes at most `budget` tokens (at least [`LEAST_BUDGET`]), as `measure`
/// counts them; the system's words and the marks of turns come on top.
pub fn conversation(
    task: &Task,
    attempt: &Trajectory,
    budget: usize,
    measure: Measure<'_>,
) -> Vec<ChatMessage> {
    let budget = budget.max(LEAST_BUDGET);
    let parts = Parts::of(task, attempt);
    let measured = Measured::of(&parts, measure);
    let mut allowed = budget;
    let user = loop {
        let user = measured.within(allowed);
        let over = measure(&user).saturating_sub(budget);
        if over == 0 || allowed == 0 {
            break user;
        }
        allowed = allowed.saturating_sub(over.max(1));
    };
    vec![
        ChatMessage::new(Role::System, SYSTEM),
        ChatMessage::new(Role::User, user),
    ]
}

/// The conversation of a training row: [`conversation`] and the right answer.
pub fn training_conversation(
    task: &Task,
    attempt: &Trajectory,
    budget: usize,
    measure: Measure<'_>,
    resolved: bool,
) -> Vec<ChatMessage> {
    let mut messages = conversation(task, attempt, budget, measure);
    messages.push(ChatMessage::trained(if resolved { YES } else { NO }));
    messages
}

/// What there is to show, before it is shortened.
struct Parts {
    issue: String,
    patch: String,
    turns: Vec<String>,
    end: String,
}

impl Parts {
    fn of(task: &Task, attempt: &Trajectory) -> Self {
        let count = attempt.steps.len();
        let patch = bare_patch(attempt.patch().unwrap_or(""));
        Self {
            issue: task.problem_statement.trim().replace("\r\n", "\n"),
            patch: match patch.is_empty() {
                true => "none".to_owned(),
                false => patch,
            },
            turns: attempt
                .steps
                .iter()
                .enumerate()
                .map(|(at, step)| turn(at + 1, count, step))
                .collect(),
            end: format!("{count} turns, {}.", ended(attempt)),
        }
    }
}

/// The parts, and how long they are. Measuring takes most of the time, and a budget is
/// often come to in several goes: what was measured once is known from then on, and what
/// lies beyond any budget is not measured at all.
struct Measured<'a> {
    parts: &'a Parts,
    measure: Measure<'a>,
    issue: Beginnings<'a>,
    patch: Beginnings<'a>,
    /// Tokens of each turn and of the end of its line.
    turns: Vec<OnceCell<usize>>,
    /// Tokens of what is there whatever is left out.
    fixed: usize,
}

impl<'a> Measured<'a> {
    fn of(parts: &'a Parts, measure: Measure<'a>) -> Self {
        Self {
            parts,
            measure,
            issue: Beginnings::of(&parts.issue, measure),
            patch: Beginnings::of(&parts.patch, measure),
            turns: vec![OnceCell::new(); parts.turns.len()],
            fixed: measure("Issue:\n\nTurns:\n\n\nPatch:\n\n") + measure(&parts.end),
        }
    }

    /// Tokens of a turn; none where there is no such turn.
    fn turn(&self, at: usize) -> usize {
        match (self.turns.get(at), self.parts.turns.get(at)) {
            (Some(known), Some(text)) => *known.get_or_init(|| (self.measure)(text) + 1),
            _ => 0,
        }
    }

    /// Tokens of all turns, or of so many from the end that it is above `most`: those that
    /// are kept are mostly the last.
    fn turns_up_to(&self, most: usize) -> usize {
        let mut sum = 0;
        for at in (0..self.turns.len()).rev() {
            sum += self.turn(at);
            if sum > most {
                break;
            }
        }
        sum
    }

    /// All of it, in about so many tokens.
    fn within(&self, budget: usize) -> String {
        let room = budget.saturating_sub(self.fixed);
        let needs = [
            self.patch.up_to(room),
            self.issue.up_to(room),
            self.turns_up_to(room),
        ];
        let [patch, issue, talk] = shares(room, needs);
        format!(
            "Issue:\n{}\nTurns:\n{}\n{}\nPatch:\n{}",
            self.issue.head(issue),
            self.ends(talk),
            self.parts.end,
            self.patch.head(patch)
        )
    }

    /// Turns of the end and of the beginning that fit.
    fn ends(&self, room: usize) -> String {
        let turns = &self.parts.turns;
        let count = turns.len();
        if self.turns_up_to(room) <= room {
            return turns.join("\n");
        }
        let mut left = room.saturating_sub((self.measure)("[… 1000 turns left out]") + 1);
        let (mut first, mut last) = (0, 0);
        loop {
            // Two of the end for one of the beginning.
            let is_last = last <= 2 * first + 1;
            let at = if is_last {
                count.saturating_sub(last + 1)
            } else {
                first
            };
            let cost = self.turn(at);
            if first + last >= count || cost > left {
                break;
            }
            left -= cost;
            if is_last {
                last += 1;
            } else {
                first += 1;
            }
        }
        let mut lines: Vec<&str> = turns.iter().take(first).map(String::as_str).collect();
        let gap = format!("[… {} turns left out]", count - first - last);
        lines.push(&gap);
        let rest = turns.iter().skip(count - last);
        lines.extend(rest.map(String::as_str));
        lines.join("\n")
    }
}

/// Tokens for patch, issue and turns: each at most what it needs, and what one does not
/// need goes to the others, the patch first. What is needed above the room changes nothing.
fn shares(room: usize, needs: [usize; 3]) -> [usize; 3] {
    let [patch, issue, turns] = needs;
    let fair = [room * 2 / 5, room / 4, room - room * 2 / 5 - room / 4];
    let mut given = [patch.min(fair[0]), issue.min(fair[1]), turns.min(fair[2])];
    let mut left = room - given.iter().sum::<usize>();
    for (have, need) in given.iter_mut().zip([patch, issue, turns]) {
        let more = left.min(need - *have);
        *have += more;
        left -= more;
    }
    given
}

/// A text, and how long those of its beginnings are that were asked for.
struct Beginnings<'a> {
    text: &'a str,
    measure: Measure<'a>,
    /// Tokens by number of bytes.
    known: RefCell<BTreeMap<usize, usize>>,
}

impl<'a> Beginnings<'a> {
    fn of(text: &'a str, measure: Measure<'a>) -> Self {
        Self {
            text,
            measure,
            known: RefCell::default(),
        }
    }

    /// Tokens of a beginning of the text.
    fn tokens(&self, beginning: &str) -> usize {
        let mut known = self.known.borrow_mut();
        let tokens = known.entry(beginning.len());
        *tokens.or_insert_with(|| (self.measure)(beginning))
    }

    /// Tokens of the text, of which no more than a little above `most` is looked at: what
    /// is far longer than its room need not be counted whole.
    fn up_to(&self, most: usize) -> usize {
        self.tokens(prefix(self.text, most.saturating_mul(8))) + 1
    }

    /// The beginning in at most about `room` tokens; says how many lines are cut.
    fn head(&self, room: usize) -> String {
        let text = self.text;
        let start = prefix(text, room.saturating_mul(8));
        if start.len() == text.len() && self.tokens(text) <= room {
            return text.to_owned();
        }
        let room = room.saturating_sub((self.measure)("\n[… 1000 lines cut]"));
        // The longest beginning that fits.
        let count = start.chars().count();
        let (mut fits, mut above) = (0, count + 1);
        while above - fits > 1 {
            let middle = fits + (above - fits) / 2;
            if self.tokens(prefix(start, middle)) <= room {
                fits = middle;
            } else {
                above = middle;
            }
        }
        let kept = prefix(start, fits);
        let kept = match kept.rsplit_once('\n') {
            // Whole lines, unless that is next to nothing.
            Some((lines, _)) if lines.len() * 2 > kept.len() => lines,
            _ => kept,
        };
        let rest = text.get(kept.len()..).unwrap_or("");
        let lines = rest.trim().lines().count();
        format!("{}\n[… {lines} lines cut]", kept.trim_end())
    }
}

/// At most so many characters of the beginning.
fn prefix(text: &str, chars: usize) -> &str {
    match text.char_indices().nth(chars) {
        Some((end, _)) => text.get(..end).unwrap_or(text),
        None => text,
    }
}

/// A patch without what says nothing of the change: index lines and names said twice.
fn bare_patch(patch: &str) -> String {
    let noise = [
        "diff --git ",
        "index ",
        "new file mode ",
        "deleted file mode ",
    ];
    let kept: Vec<&str> = patch
        .trim()
        .lines()
        .filter(|line| !noise.iter().any(|n| line.starts_with(n)))
        .filter(|line| !(line.starts_with("--- ") && *line != "--- /dev/null"))
        .collect();
    kept.join("\n")
}

fn ended(attempt: &Trajectory) -> &'static str {
    match attempt.end.as_ref().map(|end| end.reason) {
        Some(EndReason::Submitted) => "submitted",
        Some(EndReason::TurnLimit) => "out of turns",
        Some(EndReason::TokenLimit) => "out of tokens",
        Some(EndReason::Stuck) => "stuck",
        Some(EndReason::CostLimit) => "out of money",
        Some(EndReason::TimeLimit) => "out of time",
        Some(EndReason::GaveUp) => "gave up",
        None => "unfinished",
    }
}

fn turn(number: usize, count: usize, step: &Step) -> String {
    let said = squeezed(&step.completion.text);
    let mut line = format!("{number}/{count} {}", cut(&said, SAID_CHARS));
    let first = (&step.call, step.observation.as_str(), step.exit_code);
    let further = step
        .further
        .iter()
        .map(|a| (&a.call, a.observation.as_str(), a.exit_code));
    for (call, observation, exit) in std::iter::once(first).chain(further) {
        if let Some(call) = call {
            let told = called(call);
            // Text scaffolds say the call in their words.
            let holds = call
                .arguments
                .values()
                .all(|value| said.contains(&squeezed(value)));
            if !holds || call.arguments.is_empty() {
                line.push_str(&format!(" > {}", cut(&told, CALL_CHARS)));
            }
        }
        let seen = cut(&squeezed(observation), SEEN_CHARS);
        match (exit, seen.is_empty()) {
            (Some(code), _) if code != 0 => line.push_str(&format!(" = exit {code} {seen}")),
            (_, false) => line.push_str(&format!(" = {seen}")),
            _ => {}
        }
    }
    line
}

fn called(call: &ToolCall) -> String {
    let values: Vec<String> = call.arguments.values().map(|v| squeezed(v)).collect();
    format!("{} {}", call.tool, values.join(" "))
        .trim_end()
        .to_owned()
}

/// One line: runs of white space are one space.
fn squeezed(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
#[path = "long_tests.rs"]
mod long_tests;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{attempt, patch_of, task, view_step};
    use gametape_schemas::{Split, Verdict};
    use proptest::prelude::*;

    /// Four characters are a token.
    fn quarters(text: &str) -> usize {
        text.chars().count().div_ceil(4)
    }

    fn user(messages: &[ChatMessage]) -> &str {
        &messages[1].content
    }

    fn of_turns(count: usize) -> (Task, Trajectory) {
        let task = task("toolz", "t1", Split::Explore);
        let patch = patch_of("return a - b", "return a + b");
        let mut one = attempt(&task, "explore", 0, Some(true), &patch);
        one.steps = (0..count)
            .map(|n| {
                let mut step = view_step(&format!("saw {n}"));
                step.completion.text = format!("I do {n}.");
                step
            })
            .collect();
        (task, one)
    }

    #[test]
    fn it_reads_as_expected() {
        let (task, mut one) = of_turns(2);
        one.steps[1].exit_code = Some(3);
        let messages = training_conversation(&task, &one, 1000, &quarters, false);
        assert_eq!(
            user(&messages),
            "Issue:\nadd in toolz/core.py is wrong: assert -1 == 3\n\
             Turns:\n1/2 I do 0. > view = saw 0\n2/2 I do 1. > view = exit 3 saw 1\n\
             2 turns, submitted.\n\
             Patch:\n+++ b/toolz/core.py\n@@ -15,1 +15,1 @@\n-return a - b\n+return a + b"
        );
        assert_eq!(messages[2], ChatMessage::trained("NO"));
        assert_eq!(
            messages[..2],
            conversation(&task, &one, 1000, &quarters)[..]
        );
    }

    #[test]
    fn the_middle_of_long_attempts_is_left_out_and_counted() {
        let (task, one) = of_turns(100);
        let messages = conversation(&task, &one, 200, &quarters);
        let text = user(&messages);
        assert!(
            text.contains("\n100/100 I do 99.") && text.contains("\n1/100 I do 0."),
            "{text}"
        );
        let shown = (1..=100)
            .filter(|n| text.contains(&format!("\n{n}/100 ")))
            .count();
        assert!(
            text.contains(&format!("[… {} turns left out]", 100 - shown)),
            "{text}"
        );
        assert!(text.ends_with("+return a + b"), "{text}");
        // Another budget, another cut; a large one leaves nothing out.
        assert!(!user(&conversation(&task, &one, 9000, &quarters)).contains("left out"));
    }

    #[test]
    fn a_long_patch_and_issue_keep_their_heads() {
        let (mut task, mut one) = of_turns(1);
        task.problem_statement = (0..500).map(|n| format!("line {n}\n")).collect();
        let added: String = (0..500).map(|n| format!("+new {n}\n")).collect();
        one.end.as_mut().unwrap().patch = format!(
            "diff --git a/x.py b/x.py\nindex 1..2\n--- a/x.py\n+++ b/x.py\n@@ -1 +1,500 @@\n{added}"
        );
        let messages = conversation(&task, &one, 400, &quarters);
        let text = user(&messages);
        assert!(text.starts_with("Issue:\nline 0\nline 1\n"), "{text}");
        assert!(
            text.contains("Patch:\n+++ b/x.py\n@@ -1 +1,500 @@\n+new 0\n"),
            "{text}"
        );
        assert_eq!(text.matches(" lines cut]").count(), 2, "{text}");
        assert!(
            quarters(text) <= 400 && quarters(text) > 340,
            "{}",
            quarters(text)
        );
        let none = Trajectory { end: None, ..one };
        assert!(user(&conversation(&task, &none, 400, &quarters)).ends_with("Patch:\nnone"));
    }

    proptest! {
        #[test]
        fn it_keeps_its_budget_and_never_panics(
            statement in "(?s).{0,600}",
            said in prop::collection::vec("(?s).{0,120}", 0..30),
            seen in "(?s).{0,200}",
            patch in "(?s)[-+ @a-z0-9,\n]{0,600}",
            budget in LEAST_BUDGET..600,
        ) {
            let mut task = task("toolz", "t1", Split::Explore);
            task.problem_statement = statement;
            let mut one = attempt(&task, "explore", 0, Some(false), &patch);
            one.steps = said.into_iter().map(|text| {
                let mut step = view_step(&seen);
                step.completion.text = text;
                step
            }).collect();
            let messages = conversation(&task, &one, budget, &quarters);
            let tokens = quarters(user(&messages));
            prop_assert!(tokens <= budget, "{} of {}", tokens, budget);
        }

        #[test]
        fn what_only_we_know_does_not_enter(
            gold in "[a-z]{1,40}",
            resolved in any::<bool>(),
            reason in "[a-z]{1,40}",
        ) {
            let task = task("toolz", "t1", Split::Explore);
            let one = attempt(&task, "explore", 0, Some(true), &patch_of("a", "b"));
            let mut told = task.clone();
            told.gold_patch = gold.clone();
            told.test_files = vec![gold.clone()];
            told.pass_to_pass = vec![gold.clone()];
            told.file = gold.clone();
            told.fail_to_pass = vec![gold];
            let mut other = attempt(&told, "explore", 0, Some(resolved), &patch_of("a", "b"));
            if let Some(Verdict { reason: why, .. }) = &mut other.verdict {
                *why = reason;
            }
            let of = |task: &Task, one: &Trajectory| conversation(task, one, 300, &quarters);
            prop_assert_eq!(of(&task, &one), of(&told, &other));
        }
    }
}
