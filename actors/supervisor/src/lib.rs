//! The tree of actors and the decisions of the loop.
//!
//! - [`child`]: an actor under supervision. A panicking handler kills an actix actor
//!   *and* actix's own `Supervisor` silently, so every child here carries a guard
//!   whose `Drop` reports the death; a **fresh** child is made by a factory.
//! - `keeper`: a child's life, from its factory to its end and again.
//! - [`mod@line`]: children that lean on each other: rest-for-one.
//! - [`fault`]: panics and hangs on purpose, for drills and tests.
//! - [`restart`]: when a child is restarted and when its death ends the process;
//!   a pure function of (deaths so far, clock).
//! - [`core`]: what the loop does next; a pure function of the tape.
//! - [`rounds`]: the policy's rounds, and the guard between them; pure.
//! - [`breaker`]: whether work is begun on a resource that fails; pure.
//! - [`budget`]: what a run may spend, and what it has; a fold over the tape.
//! - [`plan`]: how much of everything; the configuration that [`core`] reads.
//!
//! **Not here:** what the rooms do, and how the process ends. Escalation is a
//! callback that the edge hands in.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod breaker;
pub mod budget;
pub mod child;
pub mod core;
pub mod fault;
mod keeper;
pub mod line;
pub mod plan;
pub mod restart;
pub mod rounds;

pub use breaker::{Breaker, BreakerPolicy, Permit, Resource};
pub use budget::{Budget, Exceeded, Price, Spent};
pub use child::{ChildReport, ChildSpec, Supervised};
pub use core::{AttemptGroup, LoopState, Next, Purpose, next};
pub use fault::{Fault, FaultPlan, Faults};
pub use line::Line;
pub use plan::{AttemptsPlan, LoopPlan, RoundsPlan, Start};
pub use restart::{RestartPolicy, Verdict};
pub use rounds::{Lesson, is_guard};
