//! Recipes as data: which attempts of a tape become training rows, and as what.
//!
//! A dataset is a pure function of a [`Recipe`] (with what it takes from outside,
//! [`Given`]) and a prefix of a tape. Every attempt of the prefix becomes part of a row or
//! is dropped for one reason, and the [`Stage`]s of the funnel tell how many were left
//! after each filter. `docs/datasets.md` is the manual.
//!
//! Layout, in reading order:
//! - [`spec`]: what a recipe says
//! - `check`: what cannot be said
//! - [`facts`]: what filters ask of attempts, folded from the tape
//! - [`select`]: which attempts are left
//! - [`talk`]: what a policy saw, as rows
//! - [`recovery`]: from a failing test run to a passing one
//! - `render`: rows of what is left
//! - [`built`]: what comes of it: rows, the funnel, the digest
//! - [`build`](mod@build): all of it together
//! - [`diff`]: why two datasets are not the same
//! - [`date`]: points in time

pub mod build;
pub mod built;
mod check;
pub mod date;
pub mod diff;
pub mod facts;
pub mod recovery;
mod render;
pub mod select;
pub mod spec;
pub mod talk;

pub use build::{Options, Sink, build, each};
pub use built::{Built, BuiltRow, Row, Stage, Sum, Summing};
pub use facts::{AttemptFacts, Facts, Records, Source};
pub use spec::{Filter, Given, Kind, Order, Recipe, Unit};
pub use talk::{Talk, Voice};

#[cfg(test)]
#[path = "equal_tests.rs"]
mod equal_tests;
#[cfg(test)]
pub(crate) mod made_up;
#[cfg(test)]
#[path = "recipe_tests.rs"]
mod tests;
