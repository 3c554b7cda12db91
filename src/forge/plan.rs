//! What the forge is asked for, and what it answers.

use super::candidate::Division;
use super::recipe::ForgeRecipe;
use gametape_schemas::event::ForgeFinished;
use gametape_schemas::message::Provisioned;
use gametape_schemas::{EnvironmentRecipe, Event, Record, Split, StreamId, Task, TaskId};
use std::collections::BTreeMap;

/// How many tasks of a package are wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// A package that nothing is trained on.
    HeldOut(u32),
    /// A package for training: functions are divided between the two sides.
    Training {
        /// Tasks for the teacher's demonstrations.
        train: u32,
        /// Tasks that the tuned policy attempts.
        explore: u32,
    },
}

impl Wanted {
    /// How functions are divided.
    pub(crate) fn division(self) -> Division {
        match self {
            Self::HeldOut(_) => Division::HeldOut,
            Self::Training { train, explore } => {
                Division::Explore(f64::from(explore) / f64::from((train + explore).max(1)))
            }
        }
    }

    /// Numbers by split.
    pub fn by_split(self) -> BTreeMap<Split, u32> {
        match self {
            Self::HeldOut(count) => BTreeMap::from([(Split::HeldOut, count)]),
            Self::Training { train, explore } => {
                BTreeMap::from([(Split::Train, train), (Split::Explore, explore)])
            }
        }
    }
}

/// What is to be forged from one package.
#[derive(Clone, PartialEq, Debug)]
pub struct ForgePlan {
    /// The package and its environment.
    pub environment: EnvironmentRecipe,
    /// Weights, limits, seed.
    pub recipe: ForgeRecipe,
    /// Numbers.
    pub wanted: Wanted,
    /// Sandboxes at a time; the number of cores is right.
    pub jobs: usize,
    /// Stream of `ForgeFinished`: the run's.
    pub stream: StreamId,
}

/// What came of it.
#[derive(Clone, PartialEq, Debug)]
pub struct ForgeReport {
    /// The environment.
    pub provisioned: Provisioned,
    /// Chosen tasks, in the order of the candidates.
    pub tasks: Vec<Task>,
    /// Candidates that tests reach and limits allow.
    pub pool: u32,
    /// As on the tape: candidates tried, valid ones, drops by reason, by modifier.
    pub finished: ForgeFinished,
    /// Tasks that the package could not give, by split. Empty when all is there.
    pub missing: BTreeMap<Split, u32>,
}

/// Candidates that the tape has given up on, with the reason.
pub fn quarantined<'a>(records: impl IntoIterator<Item = &'a Record>) -> BTreeMap<TaskId, String> {
    records
        .into_iter()
        .filter_map(|record| match &record.event {
            Event::TaskQuarantined(body) => Some((body.task.clone(), body.reason.clone())),
            _ => None,
        })
        .collect()
}
