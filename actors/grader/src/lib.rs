//! Grading: a patch, a fresh sandbox that no agent ever touched, the hidden tests, a
//! verdict.
//!
//! Layout, in reading order:
//! - [`strip`]: hunks that a patch may not bring (tests, test configuration); pure
//! - [`written`]: answers that a patch writes in instead of computing; pure
//! - [`judge`]: the program that runs the tests in the sandbox, and what it says of them
//! - `execute`, `reward`: tasks' runners: pytest, a command, a script, Harbor's rewards
//! - [`decide`], `expect`: task + run → verdict, by either rules; stored runs, too; pure
//! - [`actor`]: the effects: sandbox, patch, run, cache
//! - [`score`]: stored logs of others, graded without running anything
//!
//! **What it does not promise:** the graded code runs in the interpreter that runs the
//! tests. What code there can do, and what stands against it, is in docs/grading.md.
//!
//! **Not here:** how a sandbox works.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod actor;
pub mod conduct;
pub mod decide;
mod execute;
mod expect;
pub mod judge;
mod reward;
pub mod score;
pub mod strip;
pub mod written;

pub use actor::{GraderActor, GraderOptions};
pub use decide::regrade;

use score::Rules;

/// Version of the strict rules; part of the key under which verdicts are kept.
pub const RULES: &str = "strict/3";

/// The name of a set of rules, with its version, in events and keys.
pub fn rules_name(rules: Rules) -> &'static str {
    match rules {
        Rules::Strict => RULES,
        Rules::Swebench => "swebench/1",
    }
}
