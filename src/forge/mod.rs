//! The task forge: plants bugs in real packages with SWE-smith's procedural
//! modifiers, and keeps those that the packages' own tests catch.
//!
//! In the order in which a task comes to be:
//! - [`mod@packages`]: the pinned subjects
//! - [`recipe`]: weights, limits, seed
//! - [`survey`]: the clean package; which tests are stable, which functions they reach;
//!   `kept`: what it need not look at twice
//! - [`syntax`], [`modifiers`], [`edit`], [`candidate`]: from source text to an ordered
//!   list of mutants
//! - [`driver`]: many short test runs in one sandbox, the sieve
//! - [`reach`], [`decide`], [`statement`]: what the runs mean, and what the agent reads
//! - [`plan`], [`forge`], [`validate`]: what is asked for, the loop over candidates, and
//!   the last gate; every decision goes on the tape
//! - [`ask`], [`progress`]: the other rooms, and the person who waits
//!
//! **Invariants.** Only `survey` (which reads the package), `kept` (files) and `ask`
//! (which sends messages) touch the world; everything else is a function of its inputs. The set of
//! tasks depends on plan and package alone, never on time or on the number of jobs.

pub mod ask;
pub mod candidate;
pub mod decide;
pub mod driver;
pub mod edit;
#[allow(clippy::module_inception)] // the loop itself is what the module is named after
pub mod forge;
mod kept;
pub mod modifiers;
pub mod packages;
pub mod plan;
pub mod progress;
pub mod reach;
pub mod recipe;
pub mod statement;
pub mod survey;
pub mod syntax;
pub mod validate;

pub use ask::ForgeDeps;
pub use forge::forge_package;
pub use packages::{package, packages};
pub use plan::{ForgePlan, ForgeReport, Wanted, quarantined};
pub use progress::{News, Phase, Progress};
pub use recipe::ForgeRecipe;
