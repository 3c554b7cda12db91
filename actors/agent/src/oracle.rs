//! The teacher: the same commands that a model has, in the order that leads to the gold
//! solution. Its trajectories are off-policy and marked so by their policy.

use crate::compact::{Command, view};

/// One change of the gold patch as line ranges of the entity that is viewed.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Change {
    first: usize,
    last: usize,
    text: String,
}

/// The commands that turn the text `buggy` of `file` into `gold`: look at the entity,
/// change it from its end to its beginning, submit. `None` when the change does not lie
/// within the entity.
pub fn commands(file: &str, entity: &str, buggy: &str, gold: &str) -> Option<Vec<Command>> {
    // Where the entity cannot be found, or the fix lies elsewhere, the whole file is
    // looked at: still a walk that the tools allow.
    for name in [entity, ""] {
        if let Ok((_, viewed)) = view(file, buggy, name)
            && let Some(changes) = changes(buggy, gold, viewed.span.start, viewed.span.end)
        {
            let mut out = vec![Command::View {
                file: file.to_owned(),
                entity: name.to_owned(),
            }];
            out.extend(changes.into_iter().rev().map(|c| Command::Edit {
                first: c.first,
                last: c.last,
                text: c.text,
            }));
            out.push(Command::Submit);
            return Some(out);
        }
    }
    None
}

/// Line changes from `buggy` to `gold`, relative to `start`, all within `start..end`.
fn changes(buggy: &str, gold: &str, start: usize, end: usize) -> Option<Vec<Change>> {
    let old: Vec<&str> = buggy.split('\n').collect();
    let new: Vec<&str> = gold.split('\n').collect();
    let diff = similar::capture_diff_slices(similar::Algorithm::Patience, &old, &new);
    let mut out: Vec<Change> = Vec::new();
    let (mut a_at, mut b_at) = (0, 0);
    for op in diff {
        // Positions are counted here: a deletion's position in the new text, as the
        // library tells it, may lie behind the equal lines that follow it.
        let (tag, a, b) = op.as_tag_tuple();
        let mut a = a_at..a_at + a.len();
        let mut b = b_at..b_at + b.len();
        (a_at, b_at) = (a.end, b.end);
        if tag == similar::DiffTag::Equal {
            continue;
        }
        if a.is_empty() || b.is_empty() {
            // A pure insertion has no line to replace, and an empty text deletes: take
            // the line before along, or the one after at the entity's beginning.
            if a.start > start && a.start > 0 && b.start > 0 {
                a.start -= 1;
                b.start -= 1;
            } else {
                a.end += 1;
                b.end += 1;
            }
        }
        if a.start < start || a.end > end {
            return None;
        }
        let text = new.get(b)?.join("\n");
        let change = Change {
            first: a.start - start + 1,
            last: a.end - start,
            text,
        };
        // Widened neighbours may touch: then they are one change, told over again.
        if out
            .last()
            .is_some_and(|previous| previous.last >= change.first)
        {
            return merged(&old, &new, start, end);
        }
        out.push(change);
    }
    (!out.is_empty()).then_some(out)
}

/// Everything between the first and the last difference as one change.
fn merged(old: &[&str], new: &[&str], start: usize, end: usize) -> Option<Vec<Change>> {
    let same = |a: &[&str], b: &[&str]| a.iter().zip(b).take_while(|(x, y)| x == y).count();
    let prefix = same(old, new);
    let reversed = |x: &[&str]| {
        x.iter()
            .rev()
            .copied()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let (ro, rn) = (reversed(old), reversed(new));
    let suffix = ro
        .iter()
        .zip(&rn)
        .take_while(|(x, y)| x == y)
        .count()
        .min(old.len().min(new.len()) - prefix);
    // At least one line on both sides: replaced, never inserted or deleted.
    let (mut from, mut to_old, mut to_new) = (prefix, old.len() - suffix, new.len() - suffix);
    if from == to_old || from == to_new {
        if from > start {
            from -= 1;
        } else {
            to_old += 1;
            to_new += 1;
        }
    }
    if from < start || to_old > end {
        return None;
    }
    Some(vec![Change {
        first: from - start + 1,
        last: to_old - start,
        text: new.get(from..to_new)?.join("\n"),
    }])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compact::edit;
    use proptest::prelude::*;

    /// Carries the commands out as the actor does.
    fn walk(file: &str, source: &str, commands: &[Command]) -> String {
        let mut text = source.to_owned();
        let mut viewed = None;
        for command in commands {
            match Command::clone(command) {
                Command::View { entity, .. } => {
                    viewed = Some(view(file, &text, &entity).unwrap().1)
                }
                Command::Edit {
                    first,
                    last,
                    text: new,
                } => {
                    let (now, _, again) =
                        edit(&text, viewed.as_ref().unwrap(), first, last, &new).unwrap();
                    text = now;
                    viewed = Some(again);
                }
                Command::Submit => {}
            }
        }
        text
    }

    #[test]
    fn one_line_is_one_short_edit() {
        let gold = "x\n\ndef f(a):\n    b = a + 1\n    return b\n";
        let buggy = gold.replace("a + 1", "a - 1");
        let found = commands("m.py", "f", &buggy, gold).unwrap();
        let texts: Vec<String> = found.iter().map(Command::render).collect();
        assert_eq!(texts, ["view m.py f", "edit 2\n    b = a + 1", "submit"]);
    }

    proptest! {
        #[test]
        fn the_walk_ends_at_the_gold_text(
            body in prop::collection::vec("[abc]{0,2}", 1..8),
            gold in prop::collection::vec("[abc]{0,2}", 1..8),
        ) {
            let make = |lines: &[String]| {
                let body: String = lines.iter().map(|l| format!("    x{l}\n")).collect();
                format!("import q\n\ndef f():\n{body}    return\n\nz = 1\n")
            };
            let (buggy, gold) = (make(&body), make(&gold));
            prop_assume!(buggy != gold);
            let found = commands("m.py", "f", &buggy, &gold).unwrap();
            let texts: Vec<Command> =
                found.iter().map(|c| crate::compact::parse(&c.render()).unwrap()).collect();
            prop_assert_eq!(&texts, &found, "every command survives its own text form");
            prop_assert_eq!(walk("m.py", &buggy, &found), gold);
        }
    }
}
