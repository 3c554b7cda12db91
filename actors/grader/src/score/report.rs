//! Verdicts → SWE-bench's run report and its reports on instances, with what is ours
//! beside it.

use super::rules::Verdict;
use super::signs::Tier;
use super::{Graded, Outcome, Problem, Rules};
use gametape_schemas::formats::{InstanceReport, Prediction, RunReport, TaskRow};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// What came of a run's logs.
#[derive(Clone, PartialEq, Debug)]
pub struct Scored {
    /// Whose rules decide what is resolved.
    pub rules: Rules,
    /// The tasks.
    pub tasks: Vec<TaskRow>,
    /// The predictions.
    pub predictions: Vec<Prediction>,
    /// What came of each log, by task.
    pub outcomes: BTreeMap<String, Outcome>,
    /// Names of logs for which there is no task, or no prediction with a patch.
    pub unknown_logs: BTreeSet<String>,
    /// Rows that could not be used.
    pub problems: Vec<Problem>,
}

/// A task on which the two sets of rules differ.
#[derive(Clone, PartialEq, Debug)]
pub struct Difference<'a> {
    /// The task.
    pub instance_id: &'a str,
    /// What came of its log: the official rules grant it, the strict ones do not.
    pub graded: &'a Graded,
}

impl Scored {
    /// The verdict on a log by the rules of this run.
    pub fn verdict<'a>(&self, graded: &'a Graded) -> &'a Verdict {
        match self.rules {
            Rules::Swebench => &graded.swebench,
            Rules::Strict => &graded.strict,
        }
    }

    /// Where the strict rules withhold what the official ones grant.
    pub fn differences(&self) -> Vec<Difference<'_>> {
        self.graded()
            .filter(|(_, graded)| graded.swebench.resolved != graded.strict.resolved)
            .map(|(instance_id, graded)| Difference {
                instance_id,
                graded,
            })
            .collect()
    }

    /// Logs that were graded, by task.
    pub fn graded(&self) -> impl Iterator<Item = (&str, &Graded)> {
        self.outcomes
            .iter()
            .filter_map(|(task, outcome)| match outcome {
                Outcome::Graded(graded) => Some((task.as_str(), &**graded)),
                Outcome::Error(_) => None,
            })
    }

    /// SWE-bench's run report.
    pub fn run_report(&self) -> RunReport {
        let by_task: BTreeMap<&str, &Prediction> = self
            .predictions
            .iter()
            .map(|p| (p.instance_id.as_str(), p))
            .collect();
        let mut report = RunReport::default();
        report
            .submitted_ids
            .extend(by_task.keys().map(|id| (*id).to_owned()));
        for task in &self.tasks {
            let id = task.instance_id();
            let list = match (by_task.get(id), self.outcomes.get(id)) {
                (None, _) => &mut report.incomplete_ids,
                (Some(prediction), _) if prediction.is_empty() => &mut report.empty_patch_ids,
                (_, None | Some(Outcome::Error(_))) => &mut report.error_ids,
                (_, Some(Outcome::Graded(graded))) => {
                    report.completed_ids.push(id.to_owned());
                    if let Some(sign) = graded.sign_beside {
                        report
                            .failure_reasons
                            .insert(id.to_owned(), sign.reason.to_owned());
                        match sign.tier {
                            Tier::Environment => report.infra_failure_ids.push(id.to_owned()),
                            Tier::Ambiguous => report.ambiguous_failure_ids.push(id.to_owned()),
                        }
                    }
                    if self.verdict(graded).resolved {
                        &mut report.resolved_ids
                    } else {
                        &mut report.unresolved_ids
                    }
                }
            };
            list.push(id.to_owned());
        }
        report.settle(self.tasks.len());
        report
    }

    /// SWE-bench's report on each instance with a prediction.
    pub fn instance_reports(&self) -> BTreeMap<&str, InstanceReport> {
        let known: BTreeSet<&str> = self.tasks.iter().map(TaskRow::instance_id).collect();
        self.predictions
            .iter()
            .filter(|p| known.contains(p.instance_id.as_str()))
            .map(|prediction| {
                let mut report = InstanceReport {
                    patch_is_none: prediction.model_patch.is_none(),
                    patch_exists: prediction.model_patch.is_some(),
                    ..InstanceReport::default()
                };
                if let Some(Outcome::Graded(graded)) = self.outcomes.get(&prediction.instance_id) {
                    self.fill(&mut report, graded);
                }
                (prediction.instance_id.as_str(), report)
            })
            .collect()
    }

    fn fill(&self, report: &mut InstanceReport, graded: &Graded) {
        if graded.unscored.is_some() {
            report.infra_failure = graded.sign.is_some_and(|s| s.tier == Tier::Environment);
            report.infra_failure_reason = graded.sign.map(|sign| sign.reason.to_owned());
            return;
        }
        let verdict = self.verdict(graded);
        report.patch_successfully_applied = true;
        report.resolved = verdict.resolved;
        report.tests_status = Some(verdict.tests.clone());
    }

    /// Everything as one JSON object: SWE-bench's run report; `instances` by task, each
    /// SWE-bench's report and both verdicts; where the verdicts differ and why; and what
    /// could not be used.
    ///
    /// # Errors
    /// None are known: the values are plain data.
    pub fn to_json(&self) -> serde_json::Result<Value> {
        let mut whole = object(serde_json::to_value(self.run_report())?);
        whole.insert("rules".into(), json!(self.rules));
        let mut instances = Map::new();
        for (task, report) in self.instance_reports() {
            let mut fields = object(serde_json::to_value(report)?);
            match self.outcomes.get(task) {
                Some(Outcome::Graded(graded)) => {
                    fields.insert("unscored".into(), json!(graded.unscored));
                    fields.insert("resolved_swebench".into(), json!(graded.swebench.resolved));
                    fields.insert("resolved_strict".into(), json!(graded.strict.resolved));
                    fields.insert("strict_doubts".into(), json!(graded.why));
                }
                Some(Outcome::Error(why)) => {
                    fields.insert("error".into(), json!(why));
                }
                None => {}
            }
            instances.insert(task.to_owned(), Value::Object(fields));
        }
        whole.insert("instances".into(), Value::Object(instances));
        let differences = self.differences();
        let differences = differences.iter().map(|difference| {
            (
                difference.instance_id.to_owned(),
                json!(difference.graded.why),
            )
        });
        whole.insert("rules_differ".into(), Value::Object(differences.collect()));
        let problems: Vec<String> = self.problems.iter().map(ToString::to_string).collect();
        whole.insert("problems".into(), json!(problems));
        whole.insert("unknown_logs".into(), json!(self.unknown_logs));
        Ok(Value::Object(whole))
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
