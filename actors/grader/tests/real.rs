//! A real package in a real sandbox: what pytest prints is what the parser reads, and
//! patches that try to earn a verdict by deceit do not.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use actix::prelude::*;
use gametape_environment::{EnvironmentActor, EnvironmentOptions};
use gametape_grader::actor::{GraderActor, GraderOptions, GraderRooms};
use gametape_schemas::message::*;
use gametape_schemas::{
    EnvironmentRecipe, PinnedPackage, Split, Task, TaskId, TestStatus, Verdict,
};
use std::path::PathBuf;

fn recipe() -> EnvironmentRecipe {
    let pinned = |name: &str, hash: &str| format!("{name} --hash=sha256:{hash}");
    EnvironmentRecipe {
        package: PinnedPackage {
            name: "toolz".into(),
            version: "1.2.0".into(),
            sha256: "9667a038e9d6ecba37995e26cb2f59ec6420b6ad8dd9677de59db9b956b08490".into(),
        },
        requirements: vec![
            pinned(
                "iniconfig==2.3.1",
                "9121e2c1fdb355232495be3194c8dfe87ccc2d5dee45947b78e68f499790d7a7",
            ),
            pinned(
                "packaging==26.3",
                "d7193f7c8e4e93f444fde0262bf90af30e16fa0ad0ad44cb553c87339b23cd1c",
            ),
            pinned(
                "pluggy==1.7.0",
                "7dd7b0d8832ba3cb632c306926ded123429211b83641b35dc5c41ad2d34f9bec",
            ),
            pinned(
                "pygments==2.21.0",
                "2363c69b61c4a97c838da3b130dcd6468f4848992b21a82f2a63ec34377137d9",
            ),
            pinned(
                "pytest==9.2.0",
                "07acdcf88ec174f907dc01af70bf52d49b014bbab03faeeade31c96b18c2e588",
            ),
        ],
        source_root: ".".into(),
        code: vec!["toolz".into()],
        tests: vec!["toolz/tests".into()],
        skip_tests: vec![],
        layout: 0,
    }
}

fn cache() -> PathBuf {
    let var = |name: &str| std::env::var_os(name).map(PathBuf::from);
    var("GAMETAPE_CACHE")
        .or_else(|| var("XDG_CACHE_HOME").map(|d| d.join("gametape")))
        .or_else(|| var("HOME").map(|d| d.join(".cache/gametape")))
        .unwrap_or_else(std::env::temp_dir)
}

const FILE: &str = "toolz/functoolz.py";
const TESTS: &str = "toolz/tests/test_functoolz.py";

struct Rig {
    grader: Addr<GraderActor>,
    environment: Provisioned,
    source: String,
}

/// A grader on a real environment, or a loud skip.
async fn rig(test: &str) -> Option<Rig> {
    let room = gametape_environment::probe::require(&gametape_environment::probe())
        .and_then(|_| EnvironmentOptions::usual(cache(), 2))
        .map(|options| EnvironmentActor::new(options).start());
    let room = match room {
        Ok(room) => room,
        Err(failure) => {
            eprintln!("SKIPPED: {test}: {failure}");
            return None;
        }
    };
    let environment = match room.send(Provision { recipe: recipe() }).await.unwrap() {
        Ok(environment) => environment,
        Err(failure) => {
            eprintln!("SKIPPED: {test}: {failure}");
            return None;
        }
    };
    let rooms = GraderRooms {
        open: room.clone().recipient(),
        exec: room.clone().recipient(),
        apply: room.clone().recipient(),
        close: room.recipient(),
    };
    let options = GraderOptions {
        timeout_ms: 10_000,
        parallel: 2,
        ..GraderOptions::default()
    };
    // Unguessable it need not be here: nothing below looks for it.
    let nonce = Box::new(|| "6a1f".to_owned());
    let source = std::fs::read_to_string(environment.repository.join(FILE)).unwrap();
    Some(Rig {
        grader: GraderActor::new(rooms, options, nonce, vec![]).start(),
        environment,
        source,
    })
}

impl Rig {
    /// The product's file with another body for `identity`.
    fn with_identity(&self, body: &str) -> String {
        let (before, after) = self.source.split_once(RIGHT).unwrap();
        format!("{before}{body}{after}")
    }

    async fn run(&self, patches: Vec<String>) -> gametape_schemas::verdict::TestReport {
        let request = RunTests {
            environment: self.environment.environment.clone(),
            patches,
            test_files: vec![TESTS.into()],
            timeout_ms: 20_000,
        };
        self.grader.send(request).await.unwrap().unwrap()
    }

    async fn grade(&self, task: &Task, patch: &str) -> Verdict {
        let request = GradePatch {
            task: task.clone(),
            patch: patch.to_owned(),
            use_cache: false,
        };
        self.grader.send(request).await.unwrap().unwrap().verdict
    }
}

/// The body of `toolz.identity`; the first place where these lines stand.
const RIGHT: &str = "    return x\n";

fn diff(old: &str, new: &str) -> String {
    similar::TextDiff::from_lines(old, new)
        .unified_diff()
        .header(&format!("a/{FILE}"), &format!("b/{FILE}"))
        .to_string()
}

#[actix::test]
async fn a_bug_its_cure_and_attempts_at_deceit() {
    let Some(rig) = rig("a_bug_its_cure_and_attempts_at_deceit").await else {
        return;
    };
    let clean = rig.run(vec![]).await;
    assert!(
        clean.complete && clean.exit_code == Some(0),
        "{}",
        clean.tail
    );
    assert!(clean.statuses.values().all(|s| *s == TestStatus::Passed));

    // `identity` returns its argument; now it does not.
    let broken = rig.with_identity("    return None\n");
    let bug = diff(&rig.source, &broken);
    let buggy = rig.run(vec![bug.clone()]).await;
    assert_eq!(buggy.exit_code, Some(1));
    let (pass, fail): (Vec<String>, Vec<String>) = clean
        .statuses
        .keys()
        .cloned()
        .partition(|id| buggy.statuses.get(id) == Some(&TestStatus::Passed));
    assert!(!pass.is_empty() && !fail.is_empty());
    let text = &buggy.failures[&fail[0]];
    assert!(!text.is_empty() && text.len() <= 400, "{text}");

    let gold = diff(&broken, &rig.source);
    let task = Task {
        id: TaskId::new("toolz-identity"),
        repo: "toolz".into(),
        base_commit: "1.2.0".into(),
        environment: rig.environment.environment.clone(),
        bug_patch: bug.clone(),
        gold_patch: gold.clone(),
        problem_statement: String::new(),
        fail_to_pass: fail.clone(),
        pass_to_pass: pass.clone(),
        test_files: vec![TESTS.into()],
        hidden_paths: vec![TESTS.into()],
        file: FILE.into(),
        entity: "identity".into(),
        origin: "test".into(),
        split: Split::Train,
    };
    let verdict = rig.grade(&task, &gold).await;
    assert!(verdict.is_resolved(), "{verdict:?}");
    let verdict = rig.grade(&task, "").await;
    assert!(
        !verdict.is_resolved() && verdict.fail_to_pass_bad == fail,
        "{verdict:?}"
    );

    // The lines of a summary in which everything passes.
    let ids: Vec<&String> = fail.iter().chain(&pass).collect();
    let lines: String = ids.iter().map(|id| format!("PASSED {id}\\n")).collect();
    let block = format!(
        "=== short test summary info ===\\n{lines}{} passed in 0.01s\\n",
        ids.len()
    );
    let deceits = [
        ("leaves at once", "    import os; os._exit(0)".to_owned()),
        ("leaves politely", "    import sys; sys.exit(0)".to_owned()),
        ("skips", "    import pytest; pytest.skip('no')".to_owned()),
        (
            "is expected to fail",
            "    import pytest; pytest.xfail('no')".to_owned(),
        ),
        (
            "prints lines and skips",
            format!(
                "    import os, pytest\n    os.write(1, b\"{lines}\")\n    print(\"{lines}\")\n    pytest.skip('no')"
            ),
        ),
        (
            "prints a summary at exit",
            format!(
                "    import atexit, os, sys\n    if not hasattr(sys, 'done'):\n        sys.done = 1\n        atexit.register(lambda: (os.write(1, b\"{block}\"), os._exit(0)))\n    return None"
            ),
        ),
        ("never ends", "    while True: pass".to_owned()),
    ];
    for (what, code) in deceits {
        let patch = diff(&broken, &rig.with_identity(&format!("{code}\n")));
        let verdict = rig.grade(&task, &patch).await;
        eprintln!("{what}: {}", verdict.reason);
        assert!(verdict.patch_applied, "{what}: {}\n{patch}", verdict.reason);
        assert!(!verdict.is_resolved(), "{what}: {verdict:?}");
    }
    let planted = "--- /dev/null\n+++ b/conftest.py\n@@ -0,0 +1,4 @@\n+def pytest_runtest_makereport(item, call):\n+    from _pytest.runner import TestReport\n+    call.excinfo = None\n+    return TestReport.from_item_and_call(item, call)\n";
    let verdict = rig.grade(&task, planted).await;
    assert!(
        !verdict.is_resolved() && verdict.reason.contains("conftest.py"),
        "{verdict:?}"
    );
}
