//! One run of the loop: asks the pure core what is next, has it done by the rooms,
//! and lets the tape remember.
//!
//! - [`driver`]: the loop itself, resume, pause
//! - [`attempts`]: making attempts and grading them
//! - [`learning`]: datasets, trainings, scores, the evaluation
//! - `rounds`: datasets of the policy's own wins, and the guard's decisions
//! - `fitness`: whether more work may begin: budgets and breakers
//! - [`news`]: what a training tells, onto the tape
//! - [`phases`]: how long each phase took, read off the tape
//! - [`progress`]: what the person sees meanwhile
//! - [`stop`]: stopping on request, such as Ctrl-C
//! - [`watchdog`]: ends a process whose actors' thread hangs

pub mod attempts;
pub mod driver;
mod fitness;
pub mod learning;
pub mod news;
pub mod phases;
pub mod progress;
mod rounds;
pub mod stop;
pub mod watchdog;

pub use driver::{Driver, Ended};
