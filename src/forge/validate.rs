//! The last gate: a caught bug becomes a task when fresh sandboxes agree.

use super::ask::{ForgeDeps, ask};
use super::decide::{self, Drop};
use super::recipe::ForgeRecipe;
use super::survey::{Survey, run_deadline};
use gametape_schemas::event::{TaskQuarantined, TaskRegistered, TaskValidated};
use gametape_schemas::message::{GradePatch, RunTests};
use gametape_schemas::{
    Event, Failure, FailureKind, NewEvent, StreamId, Task, TaskId, TestStatus, Verdict,
};

/// Validates tasks of one package.
pub(crate) struct Gate<'a> {
    /// Limits.
    pub recipe: &'a ForgeRecipe,
    /// The rooms.
    pub deps: &'a ForgeDeps,
    /// The clean package.
    pub survey: &'a Survey,
}

impl Gate<'_> {
    /// Grades the empty and the gold patch in fresh sandboxes and writes the decision
    /// on the tape. Screening was the first run with the bug; the empty patch is the
    /// second, and must agree with it test by test.
    pub(crate) async fn judge(&self, task: &Task) -> Result<Result<(), Drop>, Failure> {
        let stream = StreamId::task(&task.id);
        let registered = Event::TaskRegistered(TaskRegistered::forged(task.clone()));
        self.deps
            .record(vec![NewEvent::named(
                stream.clone(),
                "registered",
                registered,
            )])
            .await?;
        let decision = self.grades(task).await?;
        let event = match &decision {
            Ok((empty, gold)) => NewEvent::named(
                stream,
                "validated",
                Event::TaskValidated(TaskValidated {
                    task: task.id.clone(),
                    repeats: 2,
                    gold: gold.clone(),
                    empty: empty.clone(),
                }),
            ),
            Err(drop) => quarantine(&task.id, drop.clone()),
        };
        self.deps.record(vec![event]).await?;
        Ok(decision.map(|_| ()))
    }

    async fn grades(&self, task: &Task) -> Result<Result<(Verdict, Verdict), Drop>, Failure> {
        let empty = self.grade(task, "").await?;
        if let Err(drop) = decide::empty_repeats(&empty) {
            return Ok(Err(drop));
        }
        // A grader may know without a run that an empty patch resolves nothing; the
        // repeat is still owed.
        if empty.wall_ms == 0
            && let Err(drop) = self.repeat(task).await?
        {
            return Ok(Err(drop));
        }
        let gold = self.grade(task, &task.gold_patch).await?;
        Ok(decide::gold_resolves(&gold).map(|()| (empty, gold)))
    }

    async fn grade(&self, task: &Task, patch: &str) -> Result<Verdict, Failure> {
        let deadline = run_deadline(self.limit_ms(task));
        // One more try: a sandbox that failed once may not fail again.
        for _ in 0..2 {
            let message = GradePatch {
                task: task.clone(),
                patch: patch.to_owned(),
                use_cache: false,
            };
            let verdict = ask(&self.deps.grade, message, deadline).await?.verdict;
            if !decide::is_infrastructure(&verdict) {
                return Ok(verdict);
            }
        }
        Err(Failure::new(
            FailureKind::Sandbox,
            "GT-FORGE-GRADER",
            format!("the grader could not tell, twice, about task {}", task.id),
        )
        .with_help("the same command goes on where it was; `gametape doctor` checks sandboxes"))
    }

    fn limit_ms(&self, task: &Task) -> u64 {
        self.recipe
            .timeout_ms(self.survey.clean_ms(&task.test_files))
    }

    /// Runs the tests on the bug once more and compares test by test.
    async fn repeat(&self, task: &Task) -> Result<Result<(), Drop>, Failure> {
        let limit = self.limit_ms(task);
        let message = RunTests {
            environment: task.environment.clone(),
            patches: vec![task.bug_patch.clone()],
            test_files: task.test_files.clone(),
            timeout_ms: limit,
        };
        let report = ask(&self.deps.run_tests, message, run_deadline(limit)).await?;
        if report.timed_out {
            return Ok(Err(Drop {
                reason: "timeout",
                detail: "the second run did not end within the limit".to_owned(),
            }));
        }
        let passed = |test: &String| report.statuses.get(test) == Some(&TestStatus::Passed);
        let differs = task
            .fail_to_pass
            .iter()
            .find(|test| passed(test))
            .or_else(|| task.pass_to_pass.iter().find(|test| !passed(test)));
        Ok(match differs {
            None => Ok(()),
            Some(test) => Err(Drop {
                reason: "flaky",
                detail: format!("{test} differs between two runs with the bug"),
            }),
        })
    }
}

/// The event that says that a candidate is not fit for use.
pub(crate) fn quarantine(task: &TaskId, drop: Drop) -> NewEvent {
    NewEvent::named(
        StreamId::task(task),
        "quarantined",
        Event::TaskQuarantined(TaskQuarantined {
            task: task.clone(),
            reason: drop.reason.to_owned(),
            detail: drop.detail,
        }),
    )
}
