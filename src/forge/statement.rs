//! The problem statement: which function of which file, which test fails, and how.
//! A few dozen tokens; never the fix.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;

/// Longest failure text in a statement, bytes.
const FAILURE_CAP: usize = 200;
/// Longest test name in a statement, characters.
const NAME_CAP: usize = 60;

/// Wordings. `{entity}`, `{file}`, `{test}` are replaced; the failure follows on lines
/// of its own.
const WORDINGS: [&str; 5] = [
    "Bug in `{entity}` ({file}). Test {test} fails",
    "`{entity}` in {file} gives wrong results. {test} fails",
    "{test} fails. The fault is in `{entity}` of {file}",
    "Please fix `{entity}` in {file}. The test {test} does not pass",
    "Something is wrong in {file}, function `{entity}`. See {test}",
];

/// What a statement is made of.
pub struct Facts<'a> {
    /// Path of the file.
    pub file: &'a str,
    /// Qualified name of the function.
    pub entity: &'a str,
    /// Tests that fail.
    pub fail_to_pass: &'a [String],
    /// Failure text by test.
    pub failures: &'a BTreeMap<String, String>,
    /// Lines that the fix brings back: they must not appear.
    pub fix: &'a [String],
}

/// Writes the statement.
pub fn statement(facts: &Facts<'_>, rng: &mut ChaCha8Rng) -> String {
    let (test, failure) = telling_failure(facts);
    let wording = WORDINGS
        .get(rng.random_range(0..WORDINGS.len()))
        .unwrap_or(&WORDINGS[0]);
    let mut text = wording
        .replace("{entity}", facts.entity)
        .replace("{file}", facts.file)
        .replace("{test}", &short_name(test));
    if failure.is_empty() {
        text.push('.');
    } else {
        text.push_str(":\n");
        text.push_str(&failure);
    }
    text
}

/// The failing test whose text says most in few lines: the shortest that is not
/// empty, the first by name among equals.
fn telling_failure<'a>(facts: &Facts<'a>) -> (&'a str, String) {
    let mut best: Option<(&str, String)> = None;
    for test in facts.fail_to_pass {
        let raw = facts.failures.get(test).map_or("", String::as_str);
        let text = essential(raw, facts.fix);
        let better = match &best {
            None => true,
            Some((_, old)) if old.is_empty() => !text.is_empty(),
            Some((_, old)) => !text.is_empty() && text.len() < old.len(),
        };
        if better {
            best = Some((test, text));
        }
    }
    best.unwrap_or(("the test suite", String::new()))
}

/// The first lines of a failure, capped, without what would give the fix away.
fn essential(raw: &str, fix: &[String]) -> String {
    let secret = |line: &str| {
        fix.iter().any(|fixed| {
            let fixed = fixed.trim();
            fixed.len() >= 6 && line.contains(fixed)
        })
    };
    let mut out = String::new();
    for line in raw.lines().map(str::trim_end) {
        if is_noise(line.trim()) || secret(line) {
            continue;
        }
        if out.len() + line.len() + 1 > FAILURE_CAP {
            if out.is_empty() {
                let cut = floor_char(line, FAILURE_CAP - 4);
                out.push_str(line.get(..cut).unwrap_or(""));
                out.push('…');
            }
            break;
        }
        if !out.is_empty() {
            out.push('\n');
        }
        out.push_str(line);
    }
    out
}

/// Lines that pytest writes for people at a terminal.
fn is_noise(line: &str) -> bool {
    line.is_empty()
        || line.starts_with('?')
        || ["Full diff", "Use -v", "Omitting ", "..."]
            .iter()
            .any(|start| line.starts_with(start))
}

fn floor_char(text: &str, at: usize) -> usize {
    (0..=at.min(text.len()))
        .rev()
        .find(|index| text.is_char_boundary(*index))
        .unwrap_or(0)
}

/// The last part of a test id: `test_x[param]` of `tests/test_a.py::TestB::test_x[param]`.
fn short_name(test: &str) -> String {
    // A parameter may hold `::` itself: only the part before `[` is split.
    let head = test.split('[').next().unwrap_or(test);
    let start = head.rfind("::").map_or(0, |at| at + 2);
    let name = test.get(start..).unwrap_or(test);
    if name.chars().count() <= NAME_CAP {
        name.to_owned()
    } else {
        head.get(start..)
            .unwrap_or(head)
            .chars()
            .take(NAME_CAP)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::rand_core::SeedableRng;

    fn write(failures: &[(&str, &str)], fix: &[&str], seed: u64) -> String {
        let failures: BTreeMap<_, _> = failures
            .iter()
            .map(|(test, text)| ((*test).to_owned(), (*text).to_owned()))
            .collect();
        let tests: Vec<_> = failures.keys().cloned().collect();
        let fix: Vec<_> = fix.iter().map(|line| (*line).to_owned()).collect();
        statement(
            &Facts {
                file: "toolz/itertoolz.py",
                entity: "take",
                fail_to_pass: &tests,
                failures: &failures,
                fix: &fix,
            },
            &mut ChaCha8Rng::seed_from_u64(seed),
        )
    }

    #[test]
    fn names_everything_and_stays_short() {
        for seed in 0..20 {
            let long = "assert ".repeat(100);
            let text = write(
                &[
                    (
                        "tests/t.py::test_a[x::y]",
                        "assert [1] == [2]\n\n  At index 0\n  ?  ^\n  Full diff:",
                    ),
                    ("tests/t.py::test_b", &long),
                ],
                &[],
                seed,
            );
            assert!(text.contains("`take`") && text.contains("toolz/itertoolz.py"));
            assert!(text.contains("test_a[x::y]"), "{text}");
            assert!(text.ends_with("assert [1] == [2]\n  At index 0"), "{text}");
            assert!(text.len() < 320);
        }
    }

    #[test]
    fn never_shows_the_fix() {
        let fix = "    return seq[:n + 1]\n";
        let text = write(
            &[("t::a", "E: return seq[:n + 1] was run\nassert 1 == 2")],
            &[fix],
            1,
        );
        assert!(!text.contains("seq[:n"), "{text}");
        assert!(text.contains("assert 1 == 2"));
    }

    #[test]
    fn works_without_text_and_with_long_lines() {
        let text = write(&[("t::a", "")], &[], 0);
        assert!(text.ends_with('.') && !text.contains('\n'), "{text}");
        let text = write(&[("t::a", &"é".repeat(500))], &[], 0);
        assert!(text.ends_with('…') && text.len() < 320, "{text}");
    }
}
