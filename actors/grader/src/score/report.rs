//! Verdicts → SWE-bench's run report and its reports on instances, with what is ours
//! beside it.

use super::demands::{Demands, View};
use super::rules::Verdict;
use super::signs::Tier;
use super::{Graded, Outcome, Problem, Rules, Unscored, Why};
use gametape_schemas::formats::{InstanceReport, Prediction, RunReport, TaskRow};
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

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
        self.predicted()
            .map(|(id, task, prediction)| {
                let mut report = InstanceReport {
                    patch_is_none: prediction.model_patch.is_none(),
                    patch_exists: prediction.model_patch.is_some(),
                    ..InstanceReport::default()
                };
                if let Some(Outcome::Graded(graded)) = self.outcomes.get(id) {
                    self.fill(&mut report, graded, task);
                }
                (id, report)
            })
            .collect()
    }

    /// Predictions of which the task is known, with it, in the order of their ids.
    fn predicted(&self) -> impl Iterator<Item = (&str, &TaskRow, &Prediction)> {
        let tasks: BTreeMap<&str, &TaskRow> =
            self.tasks.iter().map(|t| (t.instance_id(), t)).collect();
        let by_id: BTreeMap<&str, &Prediction> = self
            .predictions
            .iter()
            .map(|p| (p.instance_id.as_str(), p))
            .collect();
        by_id
            .into_iter()
            .filter_map(move |(id, prediction)| Some((id, *tasks.get(id)?, prediction)))
    }

    fn fill(&self, report: &mut InstanceReport, graded: &Graded, task: &TaskRow) {
        if graded.unscored.is_some() {
            report.infra_failure = is_environment(graded);
            report.infra_failure_reason = graded.sign.map(|sign| sign.reason.to_owned());
            return;
        }
        let verdict = self.verdict(graded);
        report.patch_successfully_applied = true;
        report.resolved = verdict.resolved;
        report.tests_status = Some(verdict.tests.by_name(&Demands::of(task)));
    }

    /// Everything as one JSON object: SWE-bench's run report; `instances` by task, each
    /// SWE-bench's report and both verdicts; where the verdicts differ and why; and what
    /// could not be used.
    ///
    /// # Errors
    /// None are known: the values are plain data.
    pub fn to_json(&self) -> serde_json::Result<Value> {
        serde_json::to_value(Whole::of(self))
    }

    /// Writes what [`Self::to_json`] gives, indented, without making it first: it names
    /// every expected test of every task.
    ///
    /// # Errors
    /// What writing says.
    pub fn write_json(&self, mut to: impl Write) -> std::io::Result<()> {
        serde_json::to_writer_pretty(&mut to, &Whole::of(self))?;
        to.flush()
    }
}

/// The whole report as it is written.
#[derive(Serialize)]
struct Whole<'a> {
    #[serde(flatten)]
    run: RunReport,
    rules: Rules,
    instances: Instances<'a>,
    rules_differ: BTreeMap<&'a str, &'a [Why]>,
    problems: Vec<String>,
    unknown_logs: &'a BTreeSet<String>,
}

impl<'a> Whole<'a> {
    fn of(scored: &'a Scored) -> Self {
        let differences = scored.differences().into_iter();
        Self {
            run: scored.run_report(),
            rules: scored.rules,
            instances: Instances(scored),
            rules_differ: differences
                .map(|difference| (difference.instance_id, difference.graded.why.as_slice()))
                .collect(),
            problems: scored.problems.iter().map(ToString::to_string).collect(),
            unknown_logs: &scored.unknown_logs,
        }
    }
}

/// The reports on instances, made one after the other as they are written.
struct Instances<'a>(&'a Scored);

impl Serialize for Instances<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (id, task, prediction) in self.0.predicted() {
            let mut report = Instance {
                patch_is_none: prediction.model_patch.is_none(),
                patch_exists: prediction.model_patch.is_some(),
                ..Instance::default()
            };
            let demands;
            match self.0.outcomes.get(id) {
                Some(Outcome::Graded(graded)) => {
                    let verdict = self.0.verdict(graded);
                    if graded.unscored.is_some() {
                        report.infra_failure = is_environment(graded);
                        report.infra_failure_reason = graded.sign.map(|sign| sign.reason);
                    } else {
                        report.patch_successfully_applied = true;
                        report.resolved = verdict.resolved;
                        demands = Demands::of(task);
                        report.tests_status = Some(verdict.tests.view(&demands));
                    }
                    report.ours = Some(Ours {
                        unscored: graded.unscored,
                        resolved_swebench: graded.swebench.resolved,
                        resolved_strict: graded.strict.resolved,
                        strict_doubts: &graded.why,
                    });
                }
                Some(Outcome::Error(why)) => report.error = Some(why),
                None => {}
            }
            map.serialize_entry(id, &report)?;
        }
        map.end()
    }
}

/// SWE-bench's report on an instance, borrowed, and what is ours beside it.
#[derive(Default, Serialize)]
struct Instance<'a> {
    #[serde(rename = "patch_is_None")]
    patch_is_none: bool,
    patch_exists: bool,
    patch_successfully_applied: bool,
    resolved: bool,
    infra_failure: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    infra_failure_reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tests_status: Option<View<'a>>,
    #[serde(flatten)]
    ours: Option<Ours<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

#[derive(Serialize)]
struct Ours<'a> {
    unscored: Option<Unscored>,
    resolved_swebench: bool,
    resolved_strict: bool,
    strict_doubts: &'a [Why],
}

fn is_environment(graded: &Graded) -> bool {
    graded
        .sign
        .is_some_and(|sign| sign.tier == Tier::Environment)
}
