//! The forge with the real environment and grader: five tasks from a small pinned
//! package. Needs bubblewrap, the sandbox helper and, the first time, the network.

#![allow(clippy::unwrap_used)]

use actix::prelude::*;
use gametape::forge::{ForgeDeps, ForgePlan, ForgeRecipe, News, Wanted, forge_package, package};
use gametape_environment::{EnvironmentActor, EnvironmentOptions};
use gametape_grader::actor::{GraderActor, GraderOptions, GraderRooms};
use gametape_schemas::message::{Append, Appended};
use gametape_schemas::{Event, Failure, FailureKind, Split, StreamId};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

/// A tape that is a list.
struct Tape(Arc<Mutex<Vec<Event>>>);

impl Actor for Tape {
    type Context = Context<Self>;
}

impl Handler<Append> for Tape {
    type Result = Result<Appended, Failure>;
    fn handle(&mut self, message: Append, _: &mut Self::Context) -> Self::Result {
        let events = message.events.into_iter().map(|event| event.event);
        self.0.lock().unwrap().extend(events);
        Ok(Appended { first: 0, last: 0 })
    }
}

fn cache() -> PathBuf {
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    variable("GAMETAPE_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|cache| cache.join("gametape")))
        .or_else(|| variable("HOME").map(|home| home.join(".cache/gametape")))
        .unwrap()
}

#[test]
fn five_tasks_from_a_real_package() {
    let skipped = |why: &str| eprintln!("SKIPPED: five_tasks_from_a_real_package: {why}");
    let options = match EnvironmentOptions::usual(cache(), 2) {
        Ok(options) => options,
        Err(failure) => return skipped(&failure.to_string()),
    };
    // GAMETAPE_TEST_PACKAGE and GAMETAPE_TEST_TASKS turn this test into a measurement.
    let name = std::env::var("GAMETAPE_TEST_PACKAGE").unwrap_or_else(|_| "toolz".to_owned());
    let wanted = std::env::var("GAMETAPE_TEST_TASKS").map_or(5, |n| n.parse().unwrap());
    let plan = ForgePlan {
        environment: package(&name).unwrap(),
        recipe: ForgeRecipe {
            chunk: 8,
            max_changed_lines: 1,
            ..ForgeRecipe::default()
        },
        wanted: Wanted::HeldOut(wanted),
        jobs: 2,
        stream: StreamId::new("run/test"),
    };
    let tape = Arc::new(Mutex::new(Vec::new()));
    let surveys = tempfile::tempdir().unwrap();
    let started = std::time::Instant::now();
    let report = System::new().block_on(async {
        let environment = EnvironmentActor::new(options).start();
        let rooms = GraderRooms {
            open: environment.clone().recipient(),
            exec: environment.clone().recipient(),
            apply: environment.clone().recipient(),
            close: environment.clone().recipient(),
        };
        // Good enough for tests that are not trying to cheat.
        let nonce = || {
            use std::hash::{BuildHasher, Hasher, RandomState};
            format!("{:x}", RandomState::new().build_hasher().finish())
        };
        let grader =
            GraderActor::new(rooms, GraderOptions::default(), Box::new(nonce), Vec::new()).start();
        let deps = ForgeDeps {
            provision: environment.clone().recipient(),
            open: environment.clone().recipient(),
            exec: environment.clone().recipient(),
            close: environment.clone().recipient(),
            run_tests: grader.clone().recipient(),
            grade: grader.recipient(),
            append: Tape(tape.clone()).start().recipient(),
            // Nothing is kept: everything is looked at.
            surveys: surveys.path().to_owned(),
            now_micros: Arc::new(|| 0),
        };
        let progress = |news: News| {
            eprintln!(
                "{:?} {}/{} {}",
                news.phase, news.done, news.wanted, news.note
            );
        };
        forge_package(
            &plan,
            &deps,
            &Default::default(),
            &Default::default(),
            &progress,
        )
        .await
    });
    let report = match report {
        Ok(report) => report,
        Err(failure)
            if failure.kind == FailureKind::Provision || failure.code.starts_with("GT-SANDBOX") =>
        {
            return skipped(&failure.to_string());
        }
        Err(failure) => panic!("{failure}"),
    };
    eprintln!(
        "{name}: {} tasks from {} candidates (pool {}) in {:.1} s; dropped {:?}; by modifier {:?}",
        report.tasks.len(),
        report.finished.candidates,
        report.pool,
        started.elapsed().as_secs_f64(),
        report.finished.dropped,
        report.finished.modifiers,
    );
    assert_eq!(report.tasks.len() as u32, wanted);
    for task in &report.tasks {
        eprintln!(
            "{}\n  {}",
            task.id,
            task.problem_statement.replace('\n', "\n  ")
        );
        assert_eq!(task.split, Split::HeldOut);
        assert!(!task.fail_to_pass.is_empty() && !task.pass_to_pass.is_empty());
        assert!(task.problem_statement.len() < 400);
    }
    for event in tape.lock().unwrap().iter() {
        if let Event::TaskValidated(body) = event {
            assert!(body.gold.is_resolved() && !body.empty.is_resolved());
            assert!(body.empty.wall_ms > 0, "the empty patch was run");
        }
    }
}
