//! Datasets of a tape: built by a recipe, found again, rebuilt and written.
//!
//! Two kinds are on a tape: those of the loop, whose recipes are part of its configuration
//! (`policy`, `verifier`), and those of `gametape dataset build`, whose recipe lies with them
//! whole ([`Given`]): the tape alone rebuilds both.
//!
//! - [`args`]: the command line
//! - [`make`]: from a recipe's file to a dataset on the tape
//! - [`show`]: what is in one, for people and machines
//! - [`export`]: the forms that trainers read

pub mod args;
pub mod export;
pub mod make;
pub mod show;

use crate::config::Config;
use crate::run::learning::fold_dataset;
use gametape_agent::voice::Voices;
use gametape_schemas::event::DatasetBuilt;
use gametape_schemas::lazy::LazyBody;
use gametape_schemas::recipe::diff::Between;
use gametape_schemas::recipe::{
    Built, BuiltRow, Given, Kind, Options, Recipe, Row, Sink, Source, Stage, Summing, each,
};
use gametape_schemas::trajectory::Ledger;
use gametape_schemas::{DatasetKind, Event, Failure, FailureKind};
use gametape_tape::{Prefix, SledTape};

/// The one stage of a dataset of the loop.
const LOOP: &str = "loop";

/// The scaffolds and the verifier of this program.
///
/// # Errors
/// `GT-AGENT-PROMPT`.
pub fn voices() -> Result<Voices, Failure> {
    Voices::new(gametape_verifier::prompt::training_conversation)
}

/// What a dataset was folded with.
pub enum Folded {
    /// A recipe of the loop, and the configuration that holds it.
    Loop(DatasetKind, Box<Config>),
    /// A recipe of its own.
    Recipe(Box<Given>),
}

/// A dataset that is on the tape.
pub struct Found {
    /// What the tape says of it.
    pub event: DatasetBuilt,
    /// How it is folded.
    pub folded: Folded,
}

/// All datasets of a tape, in order.
///
/// # Errors
/// `GT-RUN-CONFIG` when a recipe cannot be read by this version, and the tape's own.
pub fn all(tape: &SledTape) -> Result<Vec<Found>, Failure> {
    let mut events = Vec::new();
    let mut config: Option<String> = None;
    Prefix::new(tape, None).scan(&mut |record| {
        let LazyBody::Event(event) = record.body else {
            return;
        };
        match *event {
            Event::DatasetBuilt(body) => events.push(body),
            Event::ConfigResolved(body) => {
                config.get_or_insert(body.config_json);
            }
            _ => {}
        }
    })?;
    let found = |event: DatasetBuilt| {
        if let Ok(given) = serde_json::from_str::<Given>(&event.recipe_json) {
            let folded = Folded::Recipe(Box::new(given));
            return Ok(Found { event, folded });
        }
        let kind = match event.name.as_str() {
            "policy" => DatasetKind::Policy,
            "verifier" => DatasetKind::Verifier,
            other => return Err(unreadable(format!("the recipe of `{other}` is not known"))),
        };
        let config = config
            .as_ref()
            .ok_or_else(|| none("the tape holds no configuration"))?;
        let config: Config = serde_json::from_str(config).map_err(unreadable)?;
        let folded = Folded::Loop(kind, Box::new(config));
        Ok(Found { event, folded })
    };
    events.into_iter().map(found).collect()
}

/// The dataset of a name.
///
/// # Errors
/// `GT-DATASET-NONE`, and as [`all`].
pub fn named(tape: &SledTape, name: &str) -> Result<Found, Failure> {
    let all = all(tape)?;
    let names: Vec<String> = all
        .iter()
        .map(|found| format!("`{}`", found.event.name))
        .collect();
    let found = all.into_iter().find(|found| found.event.name == name);
    found.ok_or_else(|| {
        let there = if names.is_empty() {
            "none is".to_owned()
        } else {
            format!("there are {}", names.join(", "))
        };
        none(format!("no dataset `{name}` is on this tape: {there}"))
    })
}

impl Found {
    /// Folds it again, over the prefix that it was folded over, and hands its rows on, each
    /// with its JSON line.
    ///
    /// # Errors
    /// The tape's, and those of whom the rows are handed to.
    pub fn each<E: From<Failure>>(
        &self,
        tape: &SledTape,
        options: Options,
        sink: Sink<'_, E>,
    ) -> Result<Built, E> {
        let prefix = Prefix::new(tape, Some(self.event.prefix_end));
        match &self.folded {
            Folded::Recipe(given) => each(given, &prefix, &voices()?, options, sink),
            Folded::Loop(kind, config) => {
                let mut ledger = Ledger::default();
                prefix.scan_from(0, &mut |record| ledger.apply(&record))?;
                let dataset = fold_dataset(config, *kind, &ledger);
                of_loop(dataset, ledger.attempts.len() as u64, prefix.end(), sink)
            }
        }
    }

    /// What the tape says of it that does not fit what was folded again, in words.
    pub fn differs(&self, rebuilt: &Built) -> Vec<String> {
        let (said, sum) = (&self.event, &rebuilt.sum);
        let mut out = Vec::new();
        if said.digest != sum.digest {
            let (a, b) = (said.digest.short(), sum.digest.short());
            out.push(format!("digest {a} is recorded, {b} is rebuilt"));
        }
        if said.rows != sum.rows {
            out.push(format!(
                "{} rows are recorded, {} are rebuilt",
                said.rows, sum.rows
            ));
        }
        if said.labels != rebuilt.labels() {
            out.push("the labels are others".to_owned());
        }
        let dropped = match (&self.folded, rebuilt.funnel.first()) {
            (Folded::Loop(..), Some(stage)) => stage.dropped.clone(),
            _ => rebuilt.dropped(),
        };
        if said.dropped != dropped {
            out.push("what was dropped is recorded otherwise".to_owned());
        }
        if let Folded::Loop(kind, config) = &self.folded
            && !is_recipe_of(config, *kind, &said.recipe_json)
        {
            out.push("its recipe is not that of the run's configuration".to_owned());
        }
        out
    }

    /// What its rows are for.
    pub fn kind(&self) -> Kind {
        match &self.folded {
            Folded::Recipe(given) => given.recipe.kind,
            Folded::Loop(DatasetKind::Policy, _) => Kind::Policy,
            Folded::Loop(DatasetKind::Verifier, _) => Kind::Verifier,
        }
    }

    /// What it was folded with, as recipes are compared. A recipe of the loop has no filters
    /// of its own: its kind is all that is said.
    pub fn given(&self) -> Given {
        match &self.folded {
            Folded::Recipe(given) => (**given).clone(),
            Folded::Loop(..) => Given::new(Recipe {
                version: gametape_schemas::recipe::spec::VERSION,
                kind: self.kind(),
                seed: 0,
                train_on: Default::default(),
                views: Default::default(),
                on_policy: Vec::new(),
                unvalidated: false,
                exclude: Vec::new(),
                allow_overlap: Vec::new(),
                lengths: None,
                filters: Vec::new(),
            }),
        }
    }
}

/// Whether a recipe as it was recorded is the one of a configuration.
fn is_recipe_of(config: &Config, kind: DatasetKind, recorded: &str) -> bool {
    fn same<R: serde::de::DeserializeOwned + serde::Serialize>(a: &R, recorded: &str) -> bool {
        let value = |recipe: &R| serde_json::to_value(recipe).ok();
        serde_json::from_str::<R>(recorded).is_ok_and(|b| value(&b) == value(a))
    }
    match kind {
        DatasetKind::Policy => same(&config.policy_dataset, recorded),
        DatasetKind::Verifier => same(&config.verifier_dataset, recorded),
    }
}

/// A dataset of the loop in the shape of a recipe's: one stage, which says what it dropped.
fn of_loop<E: From<Failure>>(
    dataset: gametape_schemas::Dataset,
    attempts: u64,
    events: u64,
    sink: Sink<'_, E>,
) -> Result<Built, E> {
    let stage = Stage {
        name: LOOP.to_owned(),
        left: dataset.rows.len() as u64,
        dropped: dataset.dropped,
    };
    let mut sum = Summing::default();
    for row in dataset.rows {
        let characters = row
            .messages
            .iter()
            .map(|message| message.content.chars().count() as u64);
        let built = BuiltRow {
            tokens: characters.sum::<u64>().div_ceil(4),
            row: Row::Chat(row),
            native: Vec::new(),
        };
        let line = sum.add(&built)?;
        sink(built, &line)?;
    }
    Ok(Built {
        sum: sum.finish(),
        attempts,
        events,
        funnel: vec![stage],
        passes: 1,
        ..Built::default()
    })
}

/// Events of a tape between two sequence numbers.
///
/// # Errors
/// The tape's.
pub fn between(tape: &SledTape, from: u64, end: u64) -> Result<Between, Failure> {
    let mut between = Between::default();
    Prefix::new(tape, Some(end)).scan_from(from, &mut |record| between.add(&record))?;
    Ok(between)
}

pub(crate) fn none(message: impl Into<String>) -> Failure {
    Failure::new(FailureKind::Input, "GT-DATASET-NONE", message).with_help(
        "`gametape dataset build RECIPE.toml` and `gametape loop` make datasets; `gametape tape stats` shows what a tape holds",
    )
}

pub(crate) fn unreadable(error: impl std::fmt::Display) -> Failure {
    Failure::new(
        FailureKind::Input,
        "GT-RUN-CONFIG",
        format!("what the tape holds cannot be read by this version: {error}"),
    )
    .with_help("use the version of gametape that wrote the tape (`gametape tape tail` shows it)")
}
