//! `gametape tasks validate`: whether a task can be trusted.
//!
//! The gold patch and the empty one are graded several times, each time in a fresh
//! sandbox. Every run is evidence on the tape.
//!
//! - [`decide`]: runs → fit or not, flaky tests, tests that need the network; pure
//! - [`run`]: the effects

pub mod decide;
pub mod run;
