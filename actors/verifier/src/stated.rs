//! The task of an attempt whose task is on no tape: what the agent was told, and the name.
//! Pure. Trajectories of others are often all that there is of a task.

use gametape_schemas::policy::Said;
use gametape_schemas::{EnvironmentId, Split, Task, TaskId};

/// Where the task of [`task`] comes from, as its `origin` says.
pub const ORIGIN: &str = "stated";

/// What stands before and after the statement in the openings of known scaffolds. Of
/// several the first that is there counts.
const FRAMES: &[(&str, &str)] = &[
    // mini-swe-agent, SWE-agent 1
    (
        "Consider the following PR description:",
        "</pr_description>",
    ),
    ("<pr_description>", "</pr_description>"),
    // OpenHands
    ("<issue_description>", "</issue_description>"),
    // SWE-Gym's runs
    ("<issue>", "</issue>"),
    ("<problem_statement>", "</problem_statement>"),
    // OpenHands of 2024
    ("# Problem Statement\n", "\nIMPORTANT:"),
    // SWE-agent of 2024
    ("\nISSUE:\n", "\nINSTRUCTIONS:\n"),
];

/// The statement of a problem in what was said before the first turn: what stands in a
/// frame that a known scaffold puts round it, else all that a person said.
pub fn statement(opening: &[Said]) -> String {
    let said: Vec<&str> = opening
        .iter()
        .filter_map(|said| match said {
            Said::User { text } => Some(text.as_str()),
            _ => None,
        })
        .collect();
    let said = said.join("\n");
    let framed = FRAMES.iter().find_map(|(before, after)| {
        let (_, rest) = said.split_once(before)?;
        Some(rest.split_once(after)?.0)
    });
    framed.unwrap_or(&said).trim().to_owned()
}

/// The repository that the name of a task says: `owner__name-12` (SWE-bench, SWE-Gym) and
/// `owner__name.1a2b3c4d.change__xy` (SWE-smith) are of `owner/name`. A name of another form
/// is a repository of its own, but for a number at its end.
pub fn repository(task: &str) -> String {
    let is_commit = |part: &str| part.len() >= 7 && part.bytes().all(|b| b.is_ascii_hexdigit());
    let smith = task.split_once('.').and_then(|(before, rest)| {
        let commit = rest.split('.').next()?;
        is_commit(commit).then_some(before)
    });
    let name = smith.unwrap_or_else(|| match task.rsplit_once('-') {
        Some((before, _)) if !before.is_empty() => before,
        _ => task,
    });
    name.replacen("__", "/", 1)
}

/// The task that an attempt is at, as far as its opening tells it: statement, name and
/// repository; nothing that decides.
pub fn task(id: &TaskId, opening: &[Said]) -> Task {
    Task {
        id: id.clone(),
        repo: repository(id.as_str()),
        base_commit: String::new(),
        environment: EnvironmentId::new("none"),
        bug_patch: String::new(),
        gold_patch: String::new(),
        problem_statement: statement(opening),
        fail_to_pass: Vec::new(),
        pass_to_pass: Vec::new(),
        test_files: Vec::new(),
        hidden_paths: Vec::new(),
        file: String::new(),
        entity: String::new(),
        origin: ORIGIN.to_owned(),
        split: Split::Explore,
        execution: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(text: &str) -> Said {
        Said::User { text: text.into() }
    }

    #[test]
    fn the_statement_is_taken_out_of_its_frame() {
        for (text, expected) in [
            (
                "<pr_description>\nConsider the following PR description:\nIt fails.\n</pr_description>\nRules",
                "It fails.",
            ),
            (
                "a\n<issue_description>\nOops\n</issue_description>\nb",
                "Oops",
            ),
            (
                "Fix it.\n# Problem Statement\nNo MIT.\nIMPORTANT: do",
                "No MIT.",
            ),
            ("We solve:\nISSUE:\nBad.\nINSTRUCTIONS:\nNow", "Bad."),
            ("It is wrong.", "It is wrong."),
            // A frame without an end is none.
            ("<issue> open", "<issue> open"),
        ] {
            assert_eq!(statement(&[user(text)]), expected, "{text}");
        }
        let system = Said::System { text: "You".into() };
        assert_eq!(statement(&[system, user("a"), user("b")]), "a\nb");
        assert_eq!(statement(&[]), "");
    }

    #[test]
    fn repositories_of_names() {
        for (name, expected) in [
            ("django__django-11001", "django/django"),
            (
                "scikit-learn__scikit-learn-10297",
                "scikit-learn/scikit-learn",
            ),
            (
                "oauthlib__oauthlib.1fd52536.combine_file__09vl",
                "oauthlib/oauthlib",
            ),
            ("unnamed-1a2b", "unnamed"),
            ("thing", "thing"),
            ("-1", "-1"),
            ("a.b__c-3", "a.b/c"),
        ] {
            assert_eq!(repository(name), expected, "{name}");
        }
    }
}
