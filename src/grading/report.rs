//! What came of a grading → SWE-bench's run report and its reports on instances, with what
//! is ours beside it. Pure.

use super::work::Plan;
use gametape_schemas::formats::{InstanceReport, RunReport, TestList, TestsStatus};
use gametape_schemas::{Failure, Task, TaskId, Verdict, VerdictOutcome};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// What came of a prediction.
#[derive(Clone, PartialEq, Debug)]
pub enum Outcome {
    /// A verdict.
    Graded(Box<Verdict>),
    /// A failure of ours: no verdict.
    Failed(Failure),
}

/// What came of all of them.
#[derive(Clone, PartialEq, Debug)]
pub struct Results<'a> {
    /// The rules that decided.
    pub rules: &'a str,
    /// The tasks, by id.
    pub tasks: BTreeMap<&'a TaskId, &'a Task>,
    /// What was to be done.
    pub plan: &'a Plan,
    /// What came of it, by task.
    pub outcomes: &'a BTreeMap<TaskId, Outcome>,
    /// Rows that could not be used, in words.
    pub problems: &'a [String],
}

impl Results<'_> {
    /// SWE-bench's run report.
    pub fn run_report(&self) -> RunReport {
        let mut report = RunReport::default();
        let name = |id: &TaskId| id.as_str().to_owned();
        report.incomplete_ids = self.plan.missing.iter().map(name).collect();
        report.empty_patch_ids = self.plan.empty.keys().map(name).collect();
        report.submitted_ids = report.empty_patch_ids.clone();
        report
            .submitted_ids
            .extend(self.plan.unknown.iter().cloned());
        for work in &self.plan.works {
            let id = name(&work.key.task);
            report.submitted_ids.push(id.clone());
            match self.outcomes.get(&work.key.task) {
                Some(Outcome::Graded(verdict)) => match verdict.outcome {
                    VerdictOutcome::Resolved => {
                        report.completed_ids.push(id.clone());
                        report.resolved_ids.push(id);
                    }
                    VerdictOutcome::Unresolved => {
                        report.completed_ids.push(id.clone());
                        report.unresolved_ids.push(id);
                    }
                    VerdictOutcome::Infrastructure => {
                        ours(&mut report, id, verdict.reason.clone());
                    }
                },
                Some(Outcome::Failed(failure)) => ours(&mut report, id, failure.to_string()),
                None => report.error_ids.push(id),
            }
        }
        report.settle(self.tasks.len());
        report
    }

    /// SWE-bench's report on each instance that was to be graded.
    pub fn instances(&self) -> BTreeMap<&TaskId, InstanceReport> {
        let mut all: BTreeMap<&TaskId, InstanceReport> = BTreeMap::new();
        for (id, is_none) in &self.plan.empty {
            let report = InstanceReport {
                patch_is_none: *is_none,
                patch_exists: !*is_none,
                ..InstanceReport::default()
            };
            all.insert(id, report);
        }
        for work in &self.plan.works {
            let id = &work.key.task;
            let mut report = InstanceReport {
                patch_exists: true,
                ..InstanceReport::default()
            };
            match self.outcomes.get(id) {
                Some(Outcome::Graded(verdict)) => {
                    report.patch_successfully_applied = verdict.patch_applied;
                    report.resolved = verdict.is_resolved();
                    report.infra_failure = verdict.outcome == VerdictOutcome::Infrastructure;
                    report.infra_failure_reason =
                        report.infra_failure.then(|| verdict.reason.clone());
                    let task = self.tasks.get(id).filter(|_| ran(verdict));
                    report.tests_status = task.map(|task| lists(task, verdict));
                }
                Some(Outcome::Failed(failure)) => {
                    report.infra_failure = true;
                    report.infra_failure_reason = Some(failure.to_string());
                }
                None => {}
            }
            all.insert(id, report);
        }
        all
    }

    /// Everything as one JSON object: SWE-bench's run report; `instances` by task, each
    /// SWE-bench's report with the reason of the verdict; what could not be used.
    ///
    /// # Errors
    /// None are known: the values are plain data.
    pub fn to_json(&self) -> serde_json::Result<Value> {
        let mut whole = object(serde_json::to_value(self.run_report())?);
        whole.insert("rules".into(), json!(self.rules));
        let mut instances = Map::new();
        for (id, report) in self.instances() {
            let mut fields = object(serde_json::to_value(report)?);
            match self.outcomes.get(id) {
                Some(Outcome::Graded(verdict)) => {
                    fields.insert("reason".into(), json!(verdict.reason));
                    fields.insert("resolution".into(), json!(verdict.resolution()));
                    fields.insert("exit_code".into(), json!(verdict.exit_code));
                    fields.insert("wall_ms".into(), json!(verdict.wall_ms));
                }
                Some(Outcome::Failed(failure)) => {
                    fields.insert("error".into(), json!(failure));
                }
                None => {}
            }
            instances.insert(id.as_str().to_owned(), Value::Object(fields));
        }
        whole.insert("instances".into(), Value::Object(instances));
        whole.insert("problems".into(), json!(self.problems));
        whole.insert("unknown_predictions".into(), json!(self.plan.unknown));
        Ok(Value::Object(whole))
    }
}

/// A failure of ours is no verdict: it was not completed, and is not unresolved.
fn ours(report: &mut RunReport, id: String, why: String) {
    report.failure_reasons.insert(id.clone(), why);
    report.infra_failure_ids.push(id.clone());
    report.error_ids.push(id);
}

/// Whether tests ran at all.
fn ran(verdict: &Verdict) -> bool {
    verdict.patch_applied && verdict.outcome != VerdictOutcome::Infrastructure
}

/// The expected tests one by one, in the order of the task.
fn lists(task: &Task, verdict: &Verdict) -> TestsStatus {
    let list = |expected: &[String], bad: &[String]| {
        let (failure, success) = expected
            .iter()
            .cloned()
            .partition(|test| bad.contains(test));
        TestList { success, failure }
    };
    // Where nothing ran (an empty patch) the verdict names no test: all have failed.
    let none = verdict.fail_to_pass_ok.is_empty()
        && verdict.fail_to_pass_bad.is_empty()
        && verdict.pass_to_pass_ok == 0
        && verdict.pass_to_pass_bad.is_empty();
    if none {
        let all = |expected: &[String]| TestList {
            success: Vec::new(),
            failure: expected.to_vec(),
        };
        return TestsStatus {
            fail_to_pass: all(&task.fail_to_pass),
            pass_to_pass: all(&task.pass_to_pass),
            ..TestsStatus::default()
        };
    }
    TestsStatus {
        fail_to_pass: list(&task.fail_to_pass, &verdict.fail_to_pass_bad),
        pass_to_pass: list(&task.pass_to_pass, &verdict.pass_to_pass_bad),
        ..TestsStatus::default()
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::work::{Patches, plan, tests as made};
    use super::*;
    use gametape_schemas::FailureKind;

    fn verdict(outcome: VerdictOutcome, bad: &[&str]) -> Verdict {
        let bad: Vec<String> = bad.iter().map(|t| (*t).to_owned()).collect();
        Verdict {
            outcome,
            reason: "why".to_owned(),
            patch_applied: true,
            fail_to_pass_ok: vec!["t.py::a".to_owned()],
            fail_to_pass_bad: vec![],
            pass_to_pass_ok: 2 - bad.len(),
            pass_to_pass_bad: bad,
            exit_code: Some(1),
            wall_ms: 5,
        }
    }

    #[test]
    fn failures_of_ours_are_no_verdicts_and_every_prediction_is_somewhere() {
        let tasks = ["a", "b", "c", "d", "e", "f"].map(made::task);
        let predictions = vec![
            made::prediction("a", Some("p")),
            made::prediction("b", Some("p")),
            made::prediction("c", Some("p")),
            made::prediction("d", None),
            made::prediction("f", Some("p")),
            made::prediction("x", Some("p")),
        ];
        let plan = plan(&tasks, &Patches::Predictions(predictions));
        let outcomes = BTreeMap::from([
            (
                TaskId::new("a"),
                Outcome::Graded(Box::new(verdict(VerdictOutcome::Resolved, &[]))),
            ),
            (
                TaskId::new("b"),
                Outcome::Graded(Box::new(verdict(VerdictOutcome::Unresolved, &["t.py::c"]))),
            ),
            (
                TaskId::new("c"),
                Outcome::Failed(Failure::new(
                    FailureKind::Sandbox,
                    "GT-SANDBOX-DIED",
                    "gone",
                )),
            ),
        ]);
        let problems = ["line 3: no JSON".to_owned()];
        let results = Results {
            rules: "strict/3",
            tasks: tasks.iter().map(|t| (&t.task.id, &t.task)).collect(),
            plan: &plan,
            outcomes: &outcomes,
            problems: &problems,
        };
        let report = results.run_report();
        assert_eq!(report.resolved_ids, ["a"]);
        assert_eq!(report.unresolved_ids, ["b"]);
        assert_eq!(report.completed_ids, ["a", "b"]);
        assert_eq!(report.infra_failure_ids, ["c"]);
        // Not begun when a stop was asked for.
        assert_eq!(report.error_ids, ["c", "f"]);
        assert_eq!(report.empty_patch_ids, ["d"]);
        assert_eq!(report.incomplete_ids, ["e"]);
        assert_eq!(report.submitted_instances, 6);
        assert_eq!(report.total_instances, 6);
        let json = results.to_json().unwrap();
        let of = |id: &str, key: &str| json["instances"][id][key].clone();
        assert_eq!(
            of("b", "tests_status")["PASS_TO_PASS"]["failure"],
            json!(["t.py::c"])
        );
        assert_eq!(
            of("b", "tests_status")["PASS_TO_PASS"]["success"],
            json!(["t.py::b"])
        );
        assert_eq!(of("c", "infra_failure"), json!(true));
        assert_eq!(of("c", "error")["code"], json!("GT-SANDBOX-DIED"));
        assert_eq!(of("d", "patch_is_None"), json!(true));
        assert_eq!(json["unknown_predictions"], json!(["x"]));
        assert_eq!(json["problems"], json!(["line 3: no JSON"]));
    }

    #[test]
    fn where_nothing_ran_every_expected_test_has_failed() {
        let tasks = [made::task("a")];
        let plan = plan(&tasks, &Patches::Empty);
        let mut nothing = verdict(VerdictOutcome::Unresolved, &[]);
        (nothing.fail_to_pass_ok, nothing.pass_to_pass_ok) = (vec![], 0);
        let outcomes = BTreeMap::from([(TaskId::new("a"), Outcome::Graded(Box::new(nothing)))]);
        let results = Results {
            rules: "strict/3",
            tasks: tasks.iter().map(|t| (&t.task.id, &t.task)).collect(),
            plan: &plan,
            outcomes: &outcomes,
            problems: &[],
        };
        let instances = results.instances();
        let status = instances[&TaskId::new("a")].tests_status.clone().unwrap();
        assert_eq!(status.fail_to_pass.failure, ["t.py::a"]);
        assert_eq!(status.pass_to_pass.failure.len(), 2);
    }
}
