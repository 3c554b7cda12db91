//! Formats of others: rows of task sets, predictions, reports. Bytes and values in,
//! values out; opening files is the caller's.
//!
//! Layout, in reading order:
//! - [`rows`]: a text of JSON lines, a JSON list or a JSON map → rows, each with its place
//! - [`task_row`]: rows of SWE-bench, SWE-Gym, SWE-smith, R2E-Gym and SWE-rebench
//! - [`prediction`]: what a model handed in
//! - [`run_report`]: what came of a run, in SWE-bench's shape

pub mod prediction;
pub mod rows;
pub mod run_report;
pub mod task_row;

pub use prediction::Prediction;
pub use rows::{Place, RowProblem, Rows};
pub use run_report::{InstanceReport, RunReport, TestList, TestsStatus};
pub use task_row::{EvalType, Expected, PatchDirection, TaskKind, TaskRow};
