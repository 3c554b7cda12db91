//! Grading: a patch, a fresh sandbox that no agent ever touched, the hidden tests, a
//! verdict.
//!
//! Layout, in reading order:
//! - [`parse`]: the test runner's log → status by test; pure
//! - [`strip`]: hunks that a patch may not bring (tests, test configuration); pure
//! - [`decide`]: task + report → verdict; pure
//! - [`actor`]: the effects: sandbox, patch, run, cache
//! - [`score`]: stored logs of others, graded without running anything
//!
//! **What it does not promise:** the graded code runs in the runner's own process, so a
//! patch made to deceive can still write a whole, consistent summary to the runner's
//! output and leave with status 0. Whatever is less than that is caught.
//!
//! **Not here:** how a sandbox works.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod actor;
pub mod conduct;
pub mod decide;
pub mod parse;
pub mod score;
pub mod strip;

pub use actor::{GraderActor, GraderOptions};

/// Version of the rules; part of the key under which verdicts are kept.
pub const RULES: &str = "strict/2";
