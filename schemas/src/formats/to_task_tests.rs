use super::*;
use crate::task::RepositorySource;

fn task(json: &str) -> Result<(Task, Option<EnvironmentRecipe>), String> {
    let row = TaskRow::from_row(serde_json::from_str(json).unwrap()).unwrap();
    to_task(&row)
}

fn image(recipe: Option<EnvironmentRecipe>) -> (String, String) {
    match recipe.and_then(|recipe| recipe.source) {
        Some(RepositorySource::Image {
            reference,
            directory,
        }) => (reference, directory),
        other => panic!("{other:?}"),
    }
}

fn command(task: &Task) -> (&str, &str) {
    match &task.execution.as_ref().unwrap().runner {
        Runner::Command {
            command,
            log_parser,
        } => (command, log_parser),
        other => panic!("{other:?}"),
    }
}

const TEST_PATCH: &str = r"diff --git a/tests/a/b.py b/tests/a/b.py\n--- a/tests/a/b.py\n+++ b/tests/a/b.py\n@@ -1 +1 @@\n-a\n+b\n";
const BUG: &str = r"diff --git a/x.py b/x.py\n--- a/x.py\n+++ b/x.py\n@@ -1 +1 @@\n-good\n+bad\n";

#[test]
fn rows_of_swe_bench_get_image_and_command_by_convention() {
    let old = format!(
        r#"{{"repo": "django/django", "instance_id": "django__django-1", "base_commit": "c",
        "patch": "{BUG}", "test_patch": "{TEST_PATCH}", "problem_statement": "p", "version": "3.0",
        "FAIL_TO_PASS": "[\"a\"]", "PASS_TO_PASS": "[]", "environment_setup_commit": "c"}}"#
    );
    let (task, recipe) = task(&old).unwrap();
    let (reference, directory) = image(recipe.clone());
    assert_eq!(
        reference,
        "swebench/sweb.eval.x86_64.django_1776_django-1:latest"
    );
    assert_eq!(
        (directory.as_str(), task.split),
        ("/testbed", Split::HeldOut)
    );
    assert_eq!(task.environment, recipe.unwrap().id());
    assert_eq!(task.bug_patch, "");
    assert_eq!(
        (task.file.as_str(), task.test_files.as_slice()),
        ("x.py", &["tests/a/b.py".to_owned()][..])
    );
    let (line, parser) = command(&task);
    assert!(line.ends_with("--parallel 1 a.b"), "{line}");
    assert_eq!(parser, "parse_log_django");
}

#[test]
fn newer_rows_bring_script_image_and_reading_of_the_lists() {
    let new = r#"{"repo": "o/r", "instance_id": "o__r-1", "patch": "", "test_patch": "",
        "FAIL_TO_PASS": ["a"], "PASS_TO_PASS": [], "image": "i", "eval_script": "s",
        "log_parser": "p", "eval_type": "fail_only"}"#;
    let (task, recipe) = task(new).unwrap();
    assert_eq!(image(recipe).0, "i");
    let execution = task.execution.unwrap();
    let script = Runner::Script {
        script: "s".into(),
        log_parser: "p".into(),
    };
    assert_eq!(execution.runner, script);
    assert_eq!(execution.expectation, Expectation::FailuresOnly);
    let unknown = new.replace("\"eval_script\": \"s\",", "");
    assert_eq!(
        super::tests::task(&unknown).unwrap_err(),
        "no command is known for the tests of `o/r`"
    );
}

#[test]
fn the_patch_of_swe_smith_plants_the_bug() {
    let row = format!(
        r#"{{"repo": "swesmith/o__r.01234567", "instance_id": "o__r.01234567.func_pm__x",
        "patch": "{BUG}", "FAIL_TO_PASS": ["t/a.py::f", "t/a.py::g"], "PASS_TO_PASS": ["t/b.py::h"],
        "image_name": "i", "problem_statement": ""}}"#
    );
    let (task, _) = task(&row).unwrap();
    assert!(task.bug_patch.contains("-good\n+bad\n"));
    assert!(task.gold_patch.contains("-bad\n+good\n"));
    assert_eq!(diff::reverse(&task.gold_patch).unwrap(), task.bug_patch);
    assert_eq!(task.hidden_paths, ["t/a.py"]);
    assert_eq!(task.base_commit, "01234567");
    assert!(command(&task).0.ends_with("--verbose t/a.py t/b.py"));
    assert_eq!(task.split, Split::Train);
    let broken = row.replace("@@ -1 +1 @@", "@@ -1,9 +1 @@");
    assert!(
        super::tests::task(&broken)
            .unwrap_err()
            .contains("cannot be reversed")
    );
}

#[test]
fn swe_gym_swe_rebench_and_r2e_gym_have_their_own_ways() {
    let gym = format!(
        r#"{{"repo": "python/mypy", "instance_id": "python__mypy-10308", "patch": "{BUG}",
        "test_patch": "+[case testOne]\n+[case testTwo]", "FAIL_TO_PASS": ["a"], "PASS_TO_PASS": [], "version": "1"}}"#
    );
    let (gym, recipe) = task(&gym).unwrap();
    assert_eq!(
        image(recipe).0,
        "xingyaoww/sweb.eval.x86_64.python_s_mypy-10308"
    );
    assert!(
        command(&gym)
            .0
            .ends_with("pytest -rA -k 'testOne or testTwo'")
    );

    let rebench = format!(
        r#"{{"repo": "o/r", "instance_id": "o__r-1", "patch": "{BUG}", "test_patch": "{TEST_PATCH}",
        "FAIL_TO_PASS": ["a"], "PASS_TO_PASS": [], "image_name": "i", "meta": {{"llm_metadata": {{}}}},
        "install_config": {{"log_parser": "parse_log_pytest", "test_cmd": "pytest -q"}}}}"#
    );
    let (rebench_task, recipe) = task(&rebench).unwrap();
    assert_eq!(image(recipe), ("i".into(), "/r".into()));
    assert_eq!(
        command(&rebench_task),
        ("pytest -q tests/a/b.py", "parse_log_pytest")
    );
    assert!(
        task(&rebench.replace("test_cmd", "x"))
            .unwrap_err()
            .contains("test_cmd")
    );

    let r2e = r#"{"repo_name": "orange3", "docker_image": "i:c", "commit_hash": "c",
        "problem_statement": "p", "expected_output_json": "{\"T.a\": \"PASSED\", \"T.b\": \"FAILED\"}"}"#;
    let (task_, recipe) = task(r2e).unwrap();
    assert_eq!(
        (image(recipe).0.as_str(), task_.base_commit.as_str()),
        ("i:c", "c")
    );
    let execution = task_.execution.clone().unwrap();
    assert_eq!(execution.timeout_s, Some(300));
    let statuses = BTreeMap::from([
        ("T.a".to_owned(), TestStatus::Passed),
        ("T.b".to_owned(), TestStatus::Failed),
    ]);
    assert_eq!(execution.expectation, Expectation::Statuses { statuses });
    assert!(
        task(&r2e.replace("FAILED", "ODD"))
            .unwrap_err()
            .contains("`ODD` of T.b")
    );
    assert!(
        task(&r2e.replace("docker_image", "x"))
            .unwrap_err()
            .contains("`docker_image`")
    );
}

#[test]
fn a_task_repository_s_folder_is_a_row_and_comes_back() {
    use crate::formats::{harbor, task_repo};
    let mut files = harbor::Files::new();
    for (path, text) in [
        (
            "task.yaml",
            "repo: o/r\nbase_commit: abc\nversion: '1.0'\nlog_parser: p\nsplit: test\n",
        ),
        (
            "tests.json",
            "{\"FAIL_TO_PASS\": [\"a\"], \"PASS_TO_PASS\": []}",
        ),
        ("problem_statement.md", "text\r\n"),
        ("gold.patch", "g"),
        ("test.patch", "t"),
        ("eval.sh", "s"),
        ("Dockerfile", "FROM x\n"),
    ] {
        files.insert(path.to_owned(), text.into());
    }
    files.insert("test_assets/a".to_owned(), harbor::content(b"\xff"));
    let row = task_repo::to_row("o__r-1", files.clone()).unwrap();
    assert_eq!(row["instance_id"], "o__r-1");
    let read = TaskRow::from_row(row.clone()).unwrap();
    let (task, _) = to_task(&read).unwrap();
    assert_eq!(
        (task.gold_patch.as_str(), task.base_commit.as_str()),
        ("g", "abc")
    );
    let back = task_repo::to_files(&row).unwrap().unwrap();
    assert_eq!(back.len(), files.len());
    assert!(
        files
            .iter()
            .all(|(path, text)| back.get(path) == Some(text))
    );
    files.shift_remove("gold.patch");
    assert_eq!(
        task_repo::to_row("x", files.clone()).unwrap_err(),
        "`gold.patch` is missing"
    );
    files.insert("task.yaml".to_owned(), "- a".into());
    assert_eq!(
        task_repo::to_row("x", files).unwrap_err(),
        "`task.yaml` is a list, no mapping"
    );
}
