//! The shortening beside the simple way of it, which measures everything each time anew:
//! both give the same bytes, whatever measures.

use super::*;
use crate::testing::{attempt, patch_of, task, view_step};
use gametape_schemas::Split;
use proptest::prelude::*;

/// [`conversation`]'s text, simply.
fn simply(task: &Task, attempt: &Trajectory, budget: usize, measure: Measure<'_>) -> String {
    let budget = budget.max(LEAST_BUDGET);
    let parts = Parts::of(task, attempt);
    let mut allowed = budget;
    loop {
        let user = within(&parts, allowed, measure);
        let over = measure(&user).saturating_sub(budget);
        if over == 0 || allowed == 0 {
            return user;
        }
        allowed = allowed.saturating_sub(over.max(1));
    }
}

fn within(parts: &Parts, budget: usize, measure: Measure<'_>) -> String {
    let fixed = measure("Issue:\n\nTurns:\n\n\nPatch:\n\n") + measure(&parts.end);
    let room = budget.saturating_sub(fixed);
    let turns: Vec<usize> = parts.turns.iter().map(|t| measure(t) + 1).collect();
    let up_to = |text: &str| measure(prefix(text, room.saturating_mul(8))) + 1;
    let needs = [up_to(&parts.patch), up_to(&parts.issue), turns.iter().sum()];
    let [patch, issue, talk] = shares(room, needs);
    format!(
        "Issue:\n{}\nTurns:\n{}\n{}\nPatch:\n{}",
        head(&parts.issue, issue, measure),
        ends(parts, &turns, talk, measure),
        parts.end,
        head(&parts.patch, patch, measure)
    )
}

fn ends(parts: &Parts, costs: &[usize], room: usize, measure: Measure<'_>) -> String {
    let count = parts.turns.len();
    if costs.iter().sum::<usize>() <= room {
        return parts.turns.join("\n");
    }
    let mut left = room.saturating_sub(measure("[… 1000 turns left out]") + 1);
    let (mut first, mut last) = (0, 0);
    loop {
        let is_last = last <= 2 * first + 1;
        let at = match is_last {
            true => count.saturating_sub(last + 1),
            false => first,
        };
        let cost = costs.get(at).copied().unwrap_or(0);
        if first + last >= count || cost > left {
            break;
        }
        left -= cost;
        match is_last {
            true => last += 1,
            false => first += 1,
        }
    }
    let gap = format!("[… {} turns left out]", count - first - last);
    let mut lines = parts.turns[..first].to_vec();
    lines.push(gap);
    lines.extend_from_slice(&parts.turns[count - last..]);
    lines.join("\n")
}

fn head(text: &str, room: usize, measure: Measure<'_>) -> String {
    let start = prefix(text, room.saturating_mul(8));
    if start.len() == text.len() && measure(text) <= room {
        return text.to_owned();
    }
    let room = room.saturating_sub(measure("\n[… 1000 lines cut]"));
    let (mut fits, mut above) = (0, start.chars().count() + 1);
    while above - fits > 1 {
        let middle = fits + (above - fits) / 2;
        match measure(prefix(start, middle)) <= room {
            true => fits = middle,
            false => above = middle,
        }
    }
    let kept = prefix(start, fits);
    let kept = match kept.rsplit_once('\n') {
        Some((lines, _)) if lines.len() * 2 > kept.len() => lines,
        _ => kept,
    };
    let lines = text[kept.len()..].trim().lines().count();
    format!("{}\n[… {lines} lines cut]", kept.trim_end())
}

/// Several ways to measure, some of which no tokenizer would have.
fn measure_as(kind: u8, text: &str) -> usize {
    let (count, lines) = (text.chars().count(), text.matches('\n').count());
    match kind {
        0 => count.div_ceil(4),
        1 => text.len(),
        // Together it is more than its parts: several goes until it fits.
        2 => count.div_ceil(4) + 3 * lines,
        3 => count / 3 + count * count / 4000,
        // A longer text may be shorter.
        _ => count / 3 + count % 7,
    }
}

fn of(statement: &str, said: &[String], seen: &str, patch: &str) -> (Task, Trajectory) {
    let mut task = task("toolz", "t1", Split::Explore);
    task.problem_statement = statement.to_owned();
    let mut one = attempt(&task, "explore", 0, Some(false), patch);
    let step = |text: &String| {
        let mut step = view_step(seen);
        step.completion.text = text.clone();
        step
    };
    one.steps = said.iter().map(step).collect();
    (task, one)
}

proptest! {
    #[test]
    fn what_is_measured_once_gives_the_same_bytes_as_what_is_measured_each_time(
        statement in "(?s)(.{0,60}\n?){0,20}",
        said in prop::collection::vec("(?s).{0,120}", 0..40),
        seen in "(?s).{0,200}",
        patch in "(?s)([-+ @a-z0-9,é]{0,60}\n?){0,20}",
        budget in 0..1500usize,
        kind in 0..5u8,
    ) {
        let (task, one) = of(&statement, &said, &seen, &patch);
        let measure = |text: &str| measure_as(kind, text);
        let messages = conversation(&task, &one, budget, &measure);
        prop_assert_eq!(&messages[1].content, &simply(&task, &one, budget, &measure));
    }
}

#[test]
fn no_turn_is_measured_twice_and_few_of_those_outside_of_the_budget_at_all() {
    let said: Vec<String> = (0..200)
        .map(|n| format!("I look at {n}. ").repeat(9))
        .collect();
    let text = "a line of words\n".repeat(400);
    let (task, one) = of(&text, &said, "seen", &patch_of(&text, &text.repeat(2)));
    let calls = RefCell::new(BTreeMap::<String, usize>::new());
    let measure = |text: &str| {
        *calls.borrow_mut().entry(text.to_owned()).or_default() += 1;
        measure_as(2, text)
    };
    let short = conversation(&task, &one, 1500, &measure);
    let once = calls.take();
    let simple = simply(&task, &one, 1500, &measure);
    let each_time = calls.take();
    assert_eq!(short[1].content, simple);
    let turn = |text: &str| {
        text.split_once('/')
            .is_some_and(|(n, _)| n.parse::<u32>().is_ok())
    };
    let of_turns = |calls: &BTreeMap<String, usize>| -> Vec<usize> {
        let turns = calls.iter().filter(|(text, _)| turn(text));
        turns.map(|(_, times)| *times).collect()
    };
    let goes = of_turns(&each_time);
    assert!(
        goes.len() == 200 && goes.iter().all(|times| *times > 1),
        "{goes:?}"
    );
    let known = of_turns(&once);
    assert!(
        known.len() < 100 && known.iter().all(|times| *times == 1),
        "{known:?}"
    );
}
