use super::*;
use crate::formats::to_task::to_task;
use crate::formats::{TaskKind, TaskRow, to_row};
use crate::ids::{EnvironmentId, TaskId};
use crate::task::{Execution, PinnedPackage, Split};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn folder(toml: &str, more: &[(&str, &str)]) -> TaskRow {
    let mut files = Files::new();
    let base = [
        (harbor::TASK_FILE, toml),
        (harbor::INSTRUCTION, "Do it.\r\n"),
        (
            "environment/Dockerfile",
            "FROM python:3.12\nWORKDIR /work\nRUN pip install x\n",
        ),
        ("tests/test.sh", "echo 1 > /logs/verifier/reward.txt\n"),
    ];
    for (path, text) in base.iter().chain(more) {
        files.insert((*path).to_owned(), (*text).into());
    }
    let row = harbor::to_row("t1", files, vec!["tests/test.sh".to_owned()]).unwrap();
    TaskRow::from_row(row).unwrap()
}

fn imported(row: &TaskRow) -> Imported {
    Imported {
        format: row.kind().name().to_owned(),
        row_json: serde_json::to_string(row.row()).unwrap(),
        recipe: None,
    }
}

#[test]
fn folders_of_both_generations_are_tasks_with_a_reward() {
    let new = folder(
        "schema_version = \"1.1\"\n[verifier]\ntimeout_sec = 90.5\n[environment]\ndocker_image = \"i@sha256:0\"\nmemory_mb = 4096\n",
        &[("tests/data/a.txt", "x")],
    );
    assert_eq!(new.kind(), TaskKind::Harbor);
    let (task, recipe) = to_task(&new).unwrap();
    let recipe = recipe.unwrap();
    assert_eq!(task.environment, recipe.id());
    assert_eq!(
        recipe.source,
        Some(RepositorySource::Image {
            reference: "i@sha256:0".into(),
            directory: "/work".into()
        })
    );
    let execution = task.execution.clone().unwrap();
    assert_eq!(execution.timeout_s, Some(91));
    let Runner::Reward {
        files,
        threshold_milli,
    } = execution.runner
    else {
        panic!("a reward");
    };
    assert_eq!(files.keys().collect::<Vec<_>>(), ["data/a.txt", "test.sh"]);
    assert_eq!(
        (threshold_milli, task.problem_statement.as_str()),
        (1000, "Do it.\r\n")
    );

    let old = folder(
        "version = \"1.0\"\n[environment]\nmemory = \"2G\"\nallow_internet = true\n",
        &[],
    );
    let (task, recipe) = to_task(&old).unwrap();
    assert_eq!(recipe, None, "its Dockerfile must be built");
    let (other, _) = to_task(&folder("", &[("environment/x", "")])).unwrap();
    assert_ne!(task.environment, other.environment);
    let plain = folder(
        "",
        &[("environment/Dockerfile", "from img:1 as x\n# note\n")],
    );
    let (_, recipe) = to_task(&plain).unwrap();
    let image = |directory: &str| RepositorySource::Image {
        reference: "img:1".into(),
        directory: directory.into(),
    };
    assert_eq!(recipe.unwrap().source, Some(image("/app")));
}

#[test]
fn what_cannot_be_run_is_said_and_kept() {
    let steps = folder(
        "[[steps]]\nname = \"a\"\n",
        &[("steps/a/instruction.md", "x")],
    );
    assert!(to_task(&steps).unwrap_err().contains("several steps"));
    let read = |json: Value| match json {
        Value::Object(row) => TaskRow::from_row(row).map(|_| ()),
        _ => panic!("an object"),
    };
    for (row, word) in [
        (
            json!({"instance_id": "a", "harbor": {}}),
            "`task.toml` is missing",
        ),
        (
            json!({"instance_id": "a", "harbor": {"task.toml": "= 1"}}),
            "no TOML",
        ),
        (
            json!({"instance_id": "a", "harbor": {"task.toml": "", "../x": ""}}),
            "no path below",
        ),
        (
            json!({"instance_id": "a", "harbor": {"task.toml": "", "x": 3}}),
            "no content",
        ),
        (
            json!({"instance_id": "a", "harbor": {"task.toml": {"hex": "6"}}}),
            "no content",
        ),
        (json!({"instance_id": "a", "harbor": 3}), "not an object"),
    ] {
        assert!(read(row).unwrap_err().contains(word), "{word}");
    }
    let no_tests = folder("", &[]);
    let mut row = no_tests.into_row();
    if let Some(Value::Object(files)) = row.get_mut("harbor") {
        files.remove("tests/test.sh");
    }
    let read = TaskRow::from_row(row).unwrap();
    assert!(to_task(&read).unwrap_err().contains("test.sh"));
}

#[test]
fn a_folder_comes_out_as_it_went_in() {
    let row = folder("version = \"1.0\"\n", &[("solution/solve.sh", "x")]);
    let (task, _) = to_task(&row).unwrap();
    let kept = imported(&row);
    assert_eq!(&to_row(&task, Some(&kept), None).unwrap(), row.row());
    assert_eq!(&to_harbor(&task, Some(&kept), None).unwrap(), row.row());
    let files = harbor::to_files(row.row()).unwrap();
    assert!(files.contains(&("solution/solve.sh".into(), b"x".to_vec(), false)));
    assert!(
        files
            .iter()
            .any(|(path, _, run)| path == "tests/test.sh" && *run)
    );
}

fn package() -> EnvironmentRecipe {
    EnvironmentRecipe {
        package: PinnedPackage {
            name: "toolz".into(),
            version: "1.0".into(),
            sha256: "00".into(),
        },
        requirements: vec!["pytest==8 --hash=sha256:11".into()],
        source: None,
        ..EnvironmentRecipe::of_image("", "", "", "")
    }
}

fn task(execution: Option<Execution>, recipe: &EnvironmentRecipe) -> Task {
    Task {
        id: TaskId::new("t1"),
        repo: "toolz".into(),
        base_commit: "1.0".into(),
        environment: recipe.id(),
        bug_patch: "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n".into(),
        gold_patch: "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-b\n+a\n".into(),
        problem_statement: "It is broken.".into(),
        fail_to_pass: vec!["tests/t.py::a".into()],
        pass_to_pass: vec!["tests/t.py::b[x y]".into()],
        test_files: vec!["tests/t.py".into()],
        hidden_paths: vec!["tests/t.py".into()],
        file: "x".into(),
        entity: "C.f".into(),
        origin: "func_pm_op_swap".into(),
        split: Split::Explore,
        execution: execution.map(Box::new),
    }
}

#[test]
fn our_tasks_come_back_equal_from_a_folder() {
    let recipe = package();
    let task = task(None, &recipe);
    let row = to_harbor(&task, None, Some(&recipe)).unwrap();
    let read = TaskRow::from_row(row.clone()).unwrap();
    assert_eq!(to_task(&read), Ok((task, Some(recipe))));
    let script = text(&row, "tests/test.sh");
    assert!(
        script.contains("git checkout -q HEAD -- tests/t.py"),
        "{script}"
    );
    assert!(text(&row, "environment/Dockerfile").contains("git apply /bug.patch"));
    assert!(
        text(&row, "task.toml")
            .parse::<toml::Table>()
            .unwrap()
            .contains_key("verifier")
    );
}

fn text(row: &Row, path: &str) -> String {
    harbor::files(row).unwrap()[path]
        .as_str()
        .unwrap()
        .to_owned()
}

#[test]
fn what_a_folder_cannot_grade_is_refused() {
    let recipe = EnvironmentRecipe::of_image("o/r", "1", "i", "/testbed");
    let with = |runner: Runner, expectation: Expectation| {
        let execution = Execution {
            test_patch: "t".into(),
            runner,
            expectation,
            timeout_s: None,
        };
        to_harbor(&task(Some(execution), &recipe), None, Some(&recipe)).map(|_| ())
    };
    let command = |parser: &str| Runner::Command {
        command: "x".into(),
        log_parser: parser.into(),
    };
    let pytest = || Runner::Pytest { arguments: vec![] };
    assert_eq!(
        with(command("parse_log_pytest"), Expectation::Lists),
        Ok(())
    );
    assert!(
        with(command("parse_log_django"), Expectation::Lists)
            .unwrap_err()
            .contains("django")
    );
    assert!(with(pytest(), Expectation::FailuresOnly).is_err());
    assert!(
        to_harbor(&task(None, &recipe), None, None)
            .unwrap_err()
            .contains("environment")
    );
}

proptest! {
    #[test]
    fn any_content_is_kept(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        prop_assert_eq!(harbor::bytes(&harbor::content(&bytes)), Some(bytes));
    }

    #[test]
    fn any_task_of_ours_is_the_equal_task_again(
        texts in prop::collection::vec("\\PC{0,20}", 9), lists in prop::collection::vec("\\PC{1,12}", 0..4),
        runner in 0usize..5, failures in any::<bool>(), timeout in prop::option::of(any::<u64>()), known in any::<bool>(),
    ) {
        let t = |n: usize| texts[n].clone();
        let recipe = package();
        let runner = match runner {
            0 => None,
            1 => Some(Runner::Pytest { arguments: lists.clone() }),
            2 => Some(Runner::Command { command: t(0), log_parser: t(1) }),
            3 => Some(Runner::Script { script: t(0), log_parser: t(1) }),
            _ => Some(Runner::Reward { files: BTreeMap::from([(t(0), t(1))]), threshold_milli: 500 }),
        };
        let execution = runner.map(|runner| Box::new(Execution {
            test_patch: t(2), runner, timeout_s: timeout,
            expectation: if failures { Expectation::FailuresOnly } else { Expectation::Lists },
        }));
        let task = Task {
            id: TaskId::new(format!("x{}", t(3))), repo: t(4), base_commit: t(5), gold_patch: t(6),
            environment: if known { recipe.id() } else { EnvironmentId::new(t(7)) },
            problem_statement: t(8), fail_to_pass: lists.clone(), hidden_paths: lists, execution,
            ..task(None, &recipe)
        };
        let recipe = known.then_some(recipe);
        for row in [to_row(&task, None, recipe.as_ref()).unwrap(), crate::formats::swe_bench_row(&task, None, recipe.as_ref()).unwrap()] {
            let line = serde_json::to_string(&row).unwrap();
            let read = TaskRow::read_all(line.as_bytes());
            prop_assert_eq!(&read.problems, &vec![]);
            prop_assert_eq!(read.rows[0].kind(), TaskKind::Gametape);
            prop_assert_eq!(to_task(&read.rows[0]), Ok((task.clone(), recipe.clone())));
        }
    }
}
