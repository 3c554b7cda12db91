//! What came of a run, in the shape of SWE-bench's run report (`schema_version` 2) and
//! of its report on each instance. Fields of ours stand beside theirs.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of SWE-bench's run report.
pub const SCHEMA_VERSION: u32 = 2;

/// Tests of one list, by what became of them, in the order of the task.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct TestList {
    /// Those that were as expected.
    pub success: Vec<String>,
    /// Those that were not.
    pub failure: Vec<String>,
}

/// The expected tests of an instance. The last two lists are always empty: nothing is
/// expected of such tests.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct TestsStatus {
    /// Tests that the gold patch mends.
    #[serde(rename = "FAIL_TO_PASS")]
    pub fail_to_pass: TestList,
    /// Tests that pass before and after.
    #[serde(rename = "PASS_TO_PASS")]
    pub pass_to_pass: TestList,
    /// Tests that fail before and after.
    #[serde(rename = "FAIL_TO_FAIL", default)]
    pub fail_to_fail: TestList,
    /// Tests that the gold patch breaks.
    #[serde(rename = "PASS_TO_FAIL", default)]
    pub pass_to_fail: TestList,
}

/// SWE-bench's report on an instance.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct InstanceReport {
    /// Whether the prediction's patch is null.
    #[serde(rename = "patch_is_None")]
    pub patch_is_none: bool,
    /// Whether there is a patch.
    pub patch_exists: bool,
    /// Whether the log tells of a run of the tests with the patch.
    pub patch_successfully_applied: bool,
    /// Whether the tests say that the task is solved.
    pub resolved: bool,
    /// Whether the environment broke, as far as the log shows. Changes no verdict.
    #[serde(default)]
    pub infra_failure: bool,
    /// What broke, as far as the log shows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub infra_failure_reason: Option<String>,
    /// The expected tests one by one; absent where there is nothing to say of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tests_status: Option<TestsStatus>,
}

/// SWE-bench's report on a run. Every list of ids is sorted.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RunReport {
    /// Tasks.
    pub total_instances: usize,
    /// Predictions.
    pub submitted_instances: usize,
    /// Predictions that were run.
    pub completed_instances: usize,
    /// Tasks that are solved.
    pub resolved_instances: usize,
    /// Predictions that were run and do not solve their task.
    pub unresolved_instances: usize,
    /// Failures for which the log shows a broken environment.
    pub infra_failure_instances: usize,
    /// Failures that a broken environment or the patch may have caused.
    pub ambiguous_failure_instances: usize,
    /// Predictions without a patch.
    pub empty_patch_instances: usize,
    /// Predictions of which no run is known.
    pub error_instances: usize,
    /// Ids of those that were run.
    pub completed_ids: Vec<String>,
    /// Ids of tasks without a prediction.
    pub incomplete_ids: Vec<String>,
    /// Ids of predictions without a patch.
    pub empty_patch_ids: Vec<String>,
    /// Ids of all predictions.
    pub submitted_ids: Vec<String>,
    /// Ids of solved tasks.
    pub resolved_ids: Vec<String>,
    /// Ids of those that were run and are not solved.
    pub unresolved_ids: Vec<String>,
    /// Ids of failures of the environment.
    pub infra_failure_ids: Vec<String>,
    /// Ids of failures of the environment or of the patch.
    pub ambiguous_failure_ids: Vec<String>,
    /// What the log shows of a failure, by id.
    pub failure_reasons: BTreeMap<String, String>,
    /// Ids of predictions of which no run is known.
    pub error_ids: Vec<String>,
    /// Version of this shape.
    pub schema_version: u32,
}

impl RunReport {
    /// Sorts the lists and makes the counts agree with them. `total` is the number of
    /// tasks.
    pub fn settle(&mut self, total: usize) {
        for ids in [
            &mut self.completed_ids,
            &mut self.incomplete_ids,
            &mut self.empty_patch_ids,
            &mut self.submitted_ids,
            &mut self.resolved_ids,
            &mut self.unresolved_ids,
            &mut self.infra_failure_ids,
            &mut self.ambiguous_failure_ids,
            &mut self.error_ids,
        ] {
            ids.sort();
            ids.dedup();
        }
        self.total_instances = total;
        self.submitted_instances = self.submitted_ids.len();
        self.completed_instances = self.completed_ids.len();
        self.resolved_instances = self.resolved_ids.len();
        self.unresolved_instances = self.unresolved_ids.len();
        self.infra_failure_instances = self.infra_failure_ids.len();
        self.ambiguous_failure_instances = self.ambiguous_failure_ids.len();
        self.empty_patch_instances = self.empty_patch_ids.len();
        self.error_instances = self.error_ids.len();
        self.schema_version = SCHEMA_VERSION;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_the_fields_are_swe_benchs() {
        let mut report = RunReport {
            resolved_ids: vec!["b".into(), "a".into(), "a".into()],
            ..RunReport::default()
        };
        report.settle(3);
        let value = serde_json::to_value(&report).unwrap();
        assert_eq!(value["resolved_ids"], serde_json::json!(["a", "b"]));
        assert_eq!(value["resolved_instances"], 2);
        assert_eq!(value["total_instances"], 3);
        assert_eq!(value["schema_version"], 2);
        let instance = InstanceReport {
            tests_status: Some(TestsStatus::default()),
            ..InstanceReport::default()
        };
        let value = serde_json::to_value(&instance).unwrap();
        assert_eq!(value["patch_is_None"], false);
        assert_eq!(
            value["tests_status"]["FAIL_TO_PASS"]["success"],
            serde_json::json!([])
        );
        assert_eq!(value.get("infra_failure_reason"), None);
        // Reports of others have fields that are not ours.
        let theirs = r#"{"schema_version": 2, "total_instances": 1, "unstopped_instances": 0}"#;
        let read: RunReport = serde_json::from_str(theirs).unwrap();
        assert_eq!(read.total_instances, 1);
    }
}
