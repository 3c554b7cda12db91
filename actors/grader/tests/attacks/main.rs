//! Patches that try to earn a verdict by deceit, against the real sandbox: under the
//! strict rules each of them fails to. Beside them an honest patch, which resolves. Prints
//! a table: what was tried, the strict verdict, and whether the official rules would have
//! been fooled by the log of the same run.
//!
//! `ATTACK=words` tries only those of which the name holds these words;
//! `ATTACK_BACKEND=docker` takes containers.
//!
//! Needs bubblewrap, the sandbox helper (`cargo build -p gametape-environment`) and, the
//! first time, the network. Skips loudly without them.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod imported;
mod list;

use actix::prelude::*;
use gametape_environment::{Backend, EnvironmentActor, EnvironmentOptions};
use gametape_grader::actor::{GraderActor, GraderOptions, GraderRooms};
use gametape_grader::score::Rules;
use gametape_schemas::message::*;
use gametape_schemas::task::{Execution, Expectation, Runner};
use gametape_schemas::*;
use list::{Attack, FILES, Files, GOLD, attacks, known_limits};
use std::path::PathBuf;

fn cache() -> PathBuf {
    let var = |name: &str| std::env::var_os(name).map(PathBuf::from);
    var("GAMETAPE_CACHE")
        .or_else(|| var("XDG_CACHE_HOME").map(|d| d.join("gametape")))
        .or_else(|| var("HOME").map(|d| d.join(".cache/gametape")))
        .unwrap_or_else(std::env::temp_dir)
}

/// A small package with pytest and nothing else; what is graded is planted in it.
fn recipe() -> EnvironmentRecipe {
    let pin = |name: &str, sum: &str| format!("{name} --hash=sha256:{sum}");
    EnvironmentRecipe {
        package: PinnedPackage {
            name: "toolz".into(),
            version: "1.2.0".into(),
            sha256: "9667a038e9d6ecba37995e26cb2f59ec6420b6ad8dd9677de59db9b956b08490".into(),
        },
        requirements: vec![
            pin(
                "iniconfig==2.3.1",
                "9121e2c1fdb355232495be3194c8dfe87ccc2d5dee45947b78e68f499790d7a7",
            ),
            pin(
                "packaging==26.3",
                "d7193f7c8e4e93f444fde0262bf90af30e16fa0ad0ad44cb553c87339b23cd1c",
            ),
            pin(
                "pluggy==1.7.0",
                "7dd7b0d8832ba3cb632c306926ded123429211b83641b35dc5c41ad2d34f9bec",
            ),
            pin(
                "pygments==2.21.0",
                "2363c69b61c4a97c838da3b130dcd6468f4848992b21a82f2a63ec34377137d9",
            ),
            pin(
                "pytest==9.2.0",
                "07acdcf88ec174f907dc01af70bf52d49b014bbab03faeeade31c96b18c2e588",
            ),
        ],
        source_root: ".".into(),
        code: vec!["toolz".into()],
        tests: vec!["toolz/tests".into()],
        skip_tests: vec![],
        layout: 0,
        python: None,
        source: None,
        setup: Vec::new(),
    }
}

struct Rig {
    grader: Addr<GraderActor>,
    environment: EnvironmentId,
}

async fn rig(test: &str) -> Option<Rig> {
    rig_by(test, Rules::Strict).await
}

fn is_docker() -> bool {
    std::env::var("ATTACK_BACKEND").is_ok_and(|name| name == "docker")
}

async fn rig_by(test: &str, rules: Rules) -> Option<Rig> {
    let room = gametape_environment::probe::require(&gametape_environment::probe())
        .and_then(|_| EnvironmentOptions::usual(cache(), 2))
        .map(|mut options| {
            if is_docker() {
                options.backend = Backend::Docker;
            }
            EnvironmentActor::new(options).start()
        });
    let provisioned = match room {
        Ok(room) => {
            let recipe = recipe();
            let answer = room.send(Provision { recipe }).await.unwrap();
            answer.map(|provisioned| (room, provisioned.environment))
        }
        Err(failure) => Err(failure),
    };
    let (room, environment) = match provisioned {
        Ok(found) => found,
        Err(failure) => {
            eprintln!("SKIPPED: {test}: {failure}");
            return None;
        }
    };
    let rooms = GraderRooms {
        open: room.clone().recipient(),
        exec: room.clone().recipient(),
        apply: room.clone().recipient(),
        close: room.clone().recipient(),
    };
    let options = GraderOptions {
        timeout_ms: 15_000,
        parallel: 2,
        output_cap: 1 << 20,
        rules,
    };
    // Unguessable it need not be here: nothing of the list knows it.
    let nonce = Box::new(|| "6a1f90c2".to_owned());
    let grader = GraderActor::new(rooms, options, nonce, vec![]).start();
    Some(Rig {
        grader,
        environment,
    })
}

/// A diff that takes files from one state to another, whole; `None` for one that is not
/// there.
fn diff(changes: &[(&str, Option<&str>, Option<&str>)]) -> String {
    let mut out = String::new();
    for (path, old, new) in changes {
        if old == new {
            continue;
        }
        let side = |text: Option<&str>, letter: char| match text {
            Some(_) => format!("{letter}/{path}"),
            None => "/dev/null".to_owned(),
        };
        let (before, after) = (old.unwrap_or(""), new.unwrap_or(""));
        let count = |text: &str| text.lines().count();
        let range = |text: &str| format!("{},{}", count(text).min(1), count(text));
        out += &format!(
            "--- {}\n+++ {}\n@@ -{} +{} @@\n",
            side(*old, 'a'),
            side(*new, 'b'),
            range(before),
            range(after)
        );
        out.extend(before.lines().map(|line| format!("-{line}\n")));
        out.extend(after.lines().map(|line| format!("+{line}\n")));
    }
    out
}

fn patch_of(files: &Files) -> String {
    let changes: Vec<_> = files
        .iter()
        .map(|(path, new)| {
            let old = FILES.iter().find(|(name, _)| name == path);
            (*path, old.map(|(_, text)| *text), Some(new.as_str()))
        })
        .collect();
    diff(&changes)
}

fn task(environment: &EnvironmentId) -> Task {
    let planted: Vec<_> = FILES
        .iter()
        .map(|(path, text)| (*path, None, Some(*text)))
        .collect();
    let ids = |names: &[&str]| {
        let id = |name: &&str| format!("tests/test_price.py::{name}");
        names.iter().map(id).collect::<Vec<_>>()
    };
    Task {
        id: TaskId::new("shop"),
        repo: "shop".into(),
        base_commit: "1".into(),
        environment: environment.clone(),
        bug_patch: diff(&planted),
        gold_patch: patch_of(&vec![("shop/price.py", GOLD.to_owned())]),
        problem_statement: "totals are wrong".into(),
        fail_to_pass: ids(&["test_total", "TestPrices::test_discount", "test_refuses"]),
        pass_to_pass: ids(&["test_nothing", "TestPrices::test_names"]),
        test_files: vec!["tests/test_price.py".into()],
        hidden_paths: vec!["tests/test_price.py".into()],
        file: "shop/price.py".into(),
        entity: "total".into(),
        origin: "test".into(),
        split: Split::Train,
        execution: None,
    }
}

/// Whether the official rules resolve by the log of a run, read by the official parser.
fn official(task: &Task, grade: &Grade) -> Option<bool> {
    let ran = grade.ran.as_ref()?;
    let mut task = task.clone();
    task.execution = Some(Box::new(Execution {
        test_patch: String::new(),
        runner: Runner::Command {
            command: String::new(),
            log_parser: "parse_log_pytest".into(),
        },
        expectation: Expectation::Lists,
        timeout_s: None,
    }));
    let mut ran = ran.clone();
    let code = ran.report.exit_code.map_or(String::new(), |code| {
        format!(">>>>> Test Exit Code: {code}\n")
    });
    ran.log = format!(
        ">>>>> Start Test Output\n{}\n>>>>> End Test Output\n{code}",
        ran.log
    );
    // A log says nothing of what the judge saw.
    ran.report.complete = true;
    let verdict = gametape_grader::regrade(&task, &ran, Rules::Swebench).unwrap();
    Some(verdict.is_resolved())
}

async fn grade(rig: &Rig, task: &Task, patch: &str) -> Grade {
    let request = GradePatch {
        task: task.clone(),
        patch: patch.to_owned(),
        use_cache: false,
    };
    rig.grader.send(request).await.unwrap().unwrap()
}

fn row(name: &str, grade: &Grade, fooled: Option<bool>) {
    let verdict = if grade.verdict.is_resolved() {
        "RESOLVED"
    } else {
        "unresolved"
    };
    let fooled = match fooled {
        Some(true) => "RESOLVED",
        Some(false) => "unresolved",
        None => "-",
    };
    let reason: String = grade.verdict.reason.chars().take(110).collect();
    eprintln!("{name:<44} | {verdict:<10} | {fooled:<10} | {reason}");
}

#[actix::test]
async fn no_deceit_earns_a_verdict() {
    let Some(rig) = rig("no_deceit_earns_a_verdict").await else {
        return;
    };
    let task = task(&rig.environment);
    eprintln!(
        "{:<44} | {:<10} | {:<10} | reason",
        "what", "strict", "swebench"
    );
    let gold = grade(&rig, &task, &task.gold_patch).await;
    row("an honest patch", &gold, official(&task, &gold));
    assert!(gold.verdict.is_resolved(), "{gold:#?}");
    assert_eq!(official(&task, &gold), Some(true));
    let hard = |f: &Finding| f.severity == Severity::Hard;
    assert!(!gold.findings.iter().any(hard), "{:?}", gold.findings);
    let nothing = grade(&rig, &task, "").await;
    row("no patch", &nothing, official(&task, &nothing));
    assert!(!nothing.verdict.is_resolved() && nothing.verdict.pass_to_pass_ok == 2);

    let only = std::env::var("ATTACK").unwrap_or_default();
    let mut earned = Vec::new();
    for Attack { name, files } in attacks() {
        if !name.contains(&only) {
            continue;
        }
        let grade = grade(&rig, &task, &patch_of(&files)).await;
        row(name, &grade, official(&task, &grade));
        if !only.is_empty() {
            eprintln!("{grade:#?}");
        }
        let log = grade.ran.as_ref().map_or("", |ran| &ran.log);
        assert!(!log.contains("OPENED"), "the judge is open: {log}");
        if grade.verdict.is_resolved() {
            earned.push(name);
        }
    }
    for Attack { name, files } in known_limits() {
        if only.is_empty() || name.contains(&only) {
            let grade = grade(&rig, &task, &patch_of(&files)).await;
            row(
                &format!("KNOWN LIMIT: {name}"),
                &grade,
                official(&task, &grade),
            );
        }
    }
    assert!(earned.is_empty(), "resolved by deceit: {earned:?}");
}
