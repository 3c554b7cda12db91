//! `gametape grade`: predictions, graded by running the hidden tests in fresh sandboxes.
//!
//! Everything goes on the tape of a run: each prediction is an attempt of somebody
//! outside, with its patch, the tests' own words, what its patch shows of cheating, and
//! the verdict. So the same command goes on where it was interrupted, and what was graded
//! once is never run again.
//!
//! - [`work`]: tasks and predictions → what is to be graded; pure
//! - [`graded`]: what a tape knows of it; pure
//! - [`tester`]: environments made ready, patches graded
//! - [`run`]: the effects
//! - [`report`]: what came of it → SWE-bench's run report; pure
//! - [`again`]: stored runs, read again by other rules

pub mod again;
pub mod graded;
pub mod report;
pub mod run;
pub mod tester;
pub mod work;
