use super::*;
use crate::ids::{EnvironmentId, TaskId};
use crate::task::{Split, Task};

const SHA: &str = "0123456789abcdef0123456789abcdef01234567";

fn task(id: &str, repo: &str, commit: &str, statement: &str) -> Task {
    Task {
        id: TaskId::new(id),
        repo: repo.into(),
        base_commit: commit.into(),
        environment: EnvironmentId::new("e"),
        bug_patch: String::new(),
        gold_patch: String::new(),
        problem_statement: statement.into(),
        fail_to_pass: vec![],
        pass_to_pass: vec![],
        test_files: vec![],
        hidden_paths: vec![],
        file: String::new(),
        entity: String::new(),
        origin: "imported".into(),
        split: Split::Train,
        execution: None,
    }
}

fn patch(line: &str) -> String {
    format!("--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-{line}\n+new\n")
}

fn planted(id: &str, entity: &str, line: &str) -> Task {
    Task {
        bug_patch: patch(line),
        file: "x.py".into(),
        entity: entity.into(),
        ..task(id, "toolz", "1.0", &template(entity))
    }
}

fn template(entity: &str) -> String {
    format!(
        "There is a bug in this library and some of its tests do not pass any more since a \
         change that was made to it not long ago {entity} please find the reason and repair it \
         without a change to the tests themselves or to their configuration thank you very much"
    )
}

fn found(a: &[Task], b: &[Task]) -> Vec<(usize, usize, Vec<Evidence>)> {
    let options = Options::default();
    let entries = |tasks: &[Task]| -> Vec<Entry> {
        tasks
            .iter()
            .map(|t| Entry::of_task(t, options.ngram))
            .collect()
    };
    let pairs = overlap(&entries(a), &entries(b), &options);
    let turned = overlap(&entries(b), &entries(a), &options);
    let mut turned: Vec<_> = turned.into_iter().map(|p| (p.b, p.a)).collect();
    turned.sort_unstable();
    assert_eq!(turned, pairs.iter().map(|p| (p.a, p.b)).collect::<Vec<_>>());
    pairs.into_iter().map(|p| (p.a, p.b, p.evidence)).collect()
}

#[test]
fn commits_pull_requests_and_patches_are_evidence() {
    let eval = [
        task("o__r-1", "o/r", SHA, ""),
        Task {
            gold_patch: patch("old"),
            ..task("o__r-2", "o/r", "v1", "")
        },
    ];
    let fork = task("x__fork-9", "x/fork", SHA, "");
    assert_eq!(
        found(&[fork], &eval),
        [(0, 0, vec![Evidence::Commit { commit: SHA.into() }])]
    );
    let mirror = task("o__r.01234567.pr_1", "swesmith/o__r.01234567", "z", "");
    assert_eq!(
        found(&[mirror], &eval),
        [(
            0,
            0,
            vec![Evidence::PullRequest {
                pull: "o/r#1".into()
            }]
        )]
    );
    let same = Task {
        gold_patch: patch("  old "),
        ..task("a", "b", "c", "")
    };
    assert_eq!(found(&[same], &eval), [(0, 1, vec![Evidence::Patch])]);
    // A version is a commit within its repository only.
    assert_eq!(found(&[task("a", "p/q", "v1", "")], &eval), []);
    assert_eq!(found(&[task("a", "O/R", "v1", "")], &eval).len(), 1);
}

#[test]
fn statements_that_share_a_run_of_words_overlap_and_templates_do_not() {
    let unique = "when the frobnicator is given an empty list it raises a very surprising error about widgets and gadgets";
    let a = [task("a", "p", "1", &format!("Hello. {unique} Bye."))];
    let b = [task(
        "b",
        "q",
        "2",
        &format!("{} And more.", unique.to_uppercase()),
    )];
    let pairs = found(&a, &b);
    let Evidence::Statement {
        shared, example, ..
    } = &pairs[0].2[0]
    else {
        panic!("{pairs:?}");
    };
    assert_eq!(*shared, 6);
    assert!(
        unique.contains(example.as_str()) && example.split(' ').count() == 13,
        "{example}"
    );
    let many = |prefix: &str| -> Vec<Task> {
        (0..5)
            .map(|n| {
                task(
                    &format!("{prefix}{n}"),
                    prefix,
                    "1",
                    &template(&format!("{prefix}{n}")),
                )
            })
            .collect()
    };
    assert_eq!(found(&many("a"), &many("b")), []);
    let few: Vec<Task> = many("a").into_iter().take(2).collect();
    assert_eq!(
        found(&few, &few.clone()).len(),
        4,
        "too few to be known as a template"
    );
}

#[test]
fn planted_bugs_overlap_by_place_and_patch_and_by_nothing_else() {
    let train = [planted("t1", "f", "one"), planted("t2", "g", "two")];
    assert_eq!(found(&train, &[planted("e", "h", "three")]), []);
    let place = Evidence::Place {
        place: "toolz x.py:g".into(),
    };
    assert_eq!(
        found(&train, &[planted("e", "g", "three")]),
        [(1, 0, vec![place])]
    );
    assert_eq!(
        found(&train, &[planted("e", "h", "one")]),
        [(0, 0, vec![Evidence::Patch])]
    );
    // The same repository at the same version, one with a real issue.
    assert_eq!(found(&train, &[task("e", "toolz", "1.0", "x")]), []);
}

#[test]
fn training_on_what_is_measured_is_refused() {
    let train = [planted("t1", "f", "one"), planted("t2", "g", "two")];
    let eval = [planted("e", "f", "three")];
    assert_eq!(refuse(&train, &[planted("e", "h", "x")], &[]), Ok(()));
    let failure = refuse(&train, &eval, &[]).unwrap_err();
    assert_eq!(failure.code, "GT-DATASET-OVERLAP");
    assert!(
        failure
            .message
            .contains("t1 and e: bug in the same place toolz x.py:f"),
        "{failure}"
    );
    for name in ["t1", "e", "toolz"] {
        assert_eq!(refuse(&train, &eval, &[name.to_owned()]), Ok(()));
    }
    assert!(refuse(&train, &eval, &["t2".to_owned()]).is_err());
    assert!(
        refuse(&train, &train, &[])
            .unwrap_err()
            .message
            .starts_with("2 pair(s)")
    );
}

#[test]
fn rows_and_their_tasks_are_the_same_to_it() {
    use crate::formats::{TaskRow, to_task};
    let json = format!(
        r#"{{"repo": "pallets/flask", "instance_id": "pallets__flask-1", "base_commit": "{SHA}", "patch": "",
        "test_patch": "", "problem_statement": "one two three four five six", "version": "1",
        "FAIL_TO_PASS": "[]", "PASS_TO_PASS": "[]", "environment_setup_commit": ""}}"#
    );
    let row = TaskRow::from_row(serde_json::from_str(&json).unwrap()).unwrap();
    let (task, _) = to_task(&row).unwrap();
    assert_eq!(Entry::of_row(&row, 13), Entry::of_task(&task, 13));
}
