//! Everything that is checked before a training begins. What can be refused is refused here,
//! before anything is on the tape.

use super::args::TrainingArgs;
use super::base::{self, Base};
use super::chronicle::{Chronicle, Training};
use super::fit;
use super::knobs::{Knobs, knobs};
use super::outlook::Outlook;
use crate::config::Paths;
use crate::datasets::{self, Folded, Found};
use gametape_schemas::event::DatasetBuilt;
use gametape_schemas::overlap::refuse;
use gametape_schemas::recipe::{BuiltRow, Kind, Options};
use gametape_schemas::{AttemptId, DatasetRow, Failure, FailureKind, Split, Task};
use gametape_tape::{Prefix, SledTape};
use gametape_trainer::Identity;
use gametape_trainer::data::prepare;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Training names that are the loop's, and what may follow them.
const RESERVED: [&str; 2] = ["policy", "verifier"];

/// A training that may begin, or that has ended.
pub struct Order {
    /// Its name.
    pub name: String,
    /// What it is.
    pub identity: Identity,
    /// The preset that its hyperparameters began with.
    pub preset: Option<String>,
    /// Starting weights.
    pub base: Base,
    /// The dataset, as the tape has it.
    pub dataset: DatasetBuilt,
    /// What its rows are for.
    pub kind: Kind,
    /// Its rows; empty when the training has ended.
    pub rows: Vec<DatasetRow>,
    /// Tasks or repositories whose overlap with the evaluation is let pass.
    pub allowed_overlap: Vec<String>,
    /// What it would do and need; nothing when it has ended.
    pub outlook: Option<Outlook>,
    /// Where checkpoints and weights go.
    pub directory: PathBuf,
    /// What the tape knows of this very training.
    pub known: Option<Training>,
    /// Events on the tape.
    pub events: u64,
}

impl Order {
    /// Whether it has ended, and its weights are where the tape says.
    pub fn is_done(&self) -> bool {
        self.outlook.is_none()
    }
}

/// What a tape says.
///
/// # Errors
/// The tape's.
pub fn chronicle(tape: &SledTape) -> Result<Chronicle, Failure> {
    let mut chronicle = Chronicle::default();
    Prefix::new(tape, None).scan_from(0, &mut |record| chronicle.apply(&record))?;
    Ok(chronicle)
}

/// Checks what is asked for.
///
/// # Errors
/// `GT-TRAIN-OPTIONS`, `GT-TRAIN-NAME`, `GT-TRAIN-BASE`, `GT-TRAIN-UNKNOWN`, `GT-TRAIN-KIND`,
/// `GT-TRAIN-TOKENIZER`, `GT-TRAIN-EMPTY`, `GT-DATASET-NONE`, `GT-DATASET-DIGEST`,
/// `GT-DATASET-OVERLAP`, what loading the base's head says, and the tape's.
pub fn order(args: &TrainingArgs, tape: &SledTape, paths: &Paths) -> Result<Order, Failure> {
    let Knobs { preset, hyper } = read_knobs(args)?;
    let chronicle = chronicle(tape)?;
    let found = datasets::named(tape, args.dataset.as_deref().unwrap_or_default())?;
    let kind = found.kind();
    if kind == Kind::Preference {
        return Err(Failure::new(
            FailureKind::Input,
            "GT-TRAIN-KIND",
            format!(
                "`{}` is a dataset of pairs of a win and a loss, and gametape trains on single \
                 conversations",
                found.event.name
            ),
        )
        .with_help(
            "build a policy, verifier or recovery dataset; `gametape dataset export --format \
             preference` writes this one for programs that train on pairs",
        ));
    }
    let base = base::resolve(args.base.as_deref().unwrap_or_default(), &chronicle, paths)?;
    let identity = Identity {
        base: base.source.checkpoint.clone(),
        dataset: found.event.digest.clone(),
        hyper,
    };
    let name = match &args.name {
        Some(name) => name.clone(),
        None => {
            let id = identity.checkpoint_id();
            let id = id.as_str().get(..8).unwrap_or(id.as_str());
            format!("{}-{id}", found.event.name)
        }
    };
    check_name(&name)?;
    let known = chronicle.training(&name).cloned();
    if let Some(known) = &known {
        is_the_same(known, &identity)?;
    }
    let directory = match &args.out {
        Some(out) => out.clone(),
        None => paths.run.join("checkpoints").join(&name),
    };
    let mut order = Order {
        name,
        identity,
        preset,
        base,
        kind,
        rows: Vec::new(),
        allowed_overlap: allowed(args, &found),
        outlook: None,
        directory,
        known,
        events: chronicle.end,
        dataset: found.event.clone(),
    };
    if is_whole(&order, paths) {
        return Ok(order);
    }
    order.rows = rows(&found, tape)?;
    refuse_overlap(&order.rows, &chronicle, &order.allowed_overlap)?;
    let (tokenizer, config) = (&order.base.tokenizer, &order.base.config);
    if !args.other_tokenizer {
        fit::check_tokens(tape, &chronicle, &order.rows, tokenizer)?;
        if let Folded::Recipe(given) = &found.folded
            && !given.lengths.is_empty()
        {
            fit::check_lengths(&given.lengths, &lengths(&order)?)?;
        }
    }
    let prepared = prepare(
        &order.rows,
        tokenizer,
        &order.identity.hyper,
        config.max_positions,
    )?;
    order.outlook = Some(Outlook::of(&prepared, config, &order.identity.hyper));
    Ok(order)
}

fn read_knobs(args: &TrainingArgs) -> Result<Knobs, Failure> {
    let text = match &args.hyper {
        Some(path) => {
            let unreadable = |e| {
                Failure::new(
                    FailureKind::Input,
                    "GT-TRAIN-OPTIONS",
                    format!("{} cannot be read: {e}", path.display()),
                )
                .with_help("name a TOML file of hyperparameters with --hyper")
            };
            let text = std::fs::read_to_string(path).map_err(unreadable)?;
            Some((path.display().to_string(), text))
        }
        None => None,
    };
    let file = text
        .as_ref()
        .map(|(name, text)| (name.as_str(), text.as_str()));
    knobs(args.preset.as_deref(), file, &args.sets)
}

fn check_name(name: &str) -> Result<(), Failure> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    // The loop asks the tape whether a training of these names has ended.
    let is_loops = RESERVED.iter().any(|reserved| {
        let rest = name.strip_prefix(reserved);
        let rest = rest.map(|rest| rest.strip_prefix('-').unwrap_or(rest));
        rest.is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit()))
    });
    if is_loops || name.len() > 100 || name.starts_with('.') || !name.chars().all(plain) {
        return Err(wrong_name(format!(
            "`{name}` cannot be the name of a training: names are of letters, digits, `.`, `_` \
             and `-`, and `policy` and `verifier`, with a number or without, are the loop's"
        )));
    }
    match name.is_empty() {
        true => Err(wrong_name("a training needs a name".to_owned())),
        false => Ok(()),
    }
}

/// A name is one training's for ever.
fn is_the_same(known: &Training, identity: &Identity) -> Result<(), Failure> {
    let name = &known.name;
    let Some(there) = known.identity() else {
        return Err(wrong_name(format!(
            "the tape holds a training `{name}` that this version cannot read"
        )));
    };
    let differences = identity.differences(&there);
    match differences.is_empty() {
        true => Ok(()),
        false => Err(wrong_name(format!(
            "the tape holds another training `{name}`: {differences}"
        ))),
    }
}

fn wrong_name(message: String) -> Failure {
    Failure::new(FailureKind::Input, "GT-TRAIN-NAME", message).with_help(
        "give another name with --name, or none: then the dataset and what is learnt make one",
    )
}

/// Whether the training has ended and what it made is there.
fn is_whole(order: &Order, paths: &Paths) -> bool {
    let place = order
        .known
        .as_ref()
        .and_then(|known| base::place(known, paths));
    place.is_some_and(|place| place.join("training.json").is_file())
}

fn allowed(args: &TrainingArgs, found: &Found) -> Vec<String> {
    let before = match &found.folded {
        Folded::Recipe(given) => &given.recipe.allow_overlap,
        Folded::Loop(_, config) => &config.allow_overlap,
    };
    let all: BTreeSet<&String> = args.allow_overlap.iter().chain(before).collect();
    all.into_iter().cloned().collect()
}

/// The rows of a dataset, rebuilt from the tape.
fn rows(found: &Found, tape: &SledTape) -> Result<Vec<DatasetRow>, Failure> {
    let mut rows = Vec::new();
    each_row(found, tape, &mut |row| rows.push(row.clone()))?;
    Ok(rows)
}

/// Hands on every conversation of a dataset, folded again over its prefix. When it is not
/// what it was, what was handed on is nothing.
///
/// # Errors
/// `GT-DATASET-DIGEST`, and the tape's.
pub fn each_row(
    found: &Found,
    tape: &SledTape,
    take: &mut dyn FnMut(&DatasetRow),
) -> Result<(), Failure> {
    let mut sink = |row: BuiltRow, _: &[u8]| -> Result<(), Failure> {
        row.row.parts().into_iter().for_each(&mut *take);
        Ok(())
    };
    let rebuilt = found.each(tape, Options::default(), &mut sink)?.sum.digest;
    if rebuilt == found.event.digest {
        return Ok(());
    }
    Err(Failure::new(
        FailureKind::Internal,
        "GT-DATASET-DIGEST",
        format!(
            "the dataset `{}` rebuilt from the tape has digest {}, not {}",
            found.event.name,
            rebuilt.short(),
            found.event.digest.short()
        ),
    )
    .with_help("the tape was written by another version of gametape: use that version, or build the dataset anew under another name"))
}

/// Nothing is learnt from tasks that are measured with, or from their like. The dataset was
/// built without those that were held out then; others may have come since.
fn refuse_overlap(
    rows: &[DatasetRow],
    chronicle: &Chronicle,
    allowed: &[String],
) -> Result<(), Failure> {
    let learned: BTreeSet<_> = rows.iter().map(|row| &row.task).collect();
    let of = |wanted: &dyn Fn(&Task) -> bool| -> Vec<Task> {
        let tasks = chronicle.tasks.values().filter(|task| wanted(task));
        tasks.cloned().collect()
    };
    let train = of(&|task| learned.contains(&task.id));
    let evaluation = of(&|task| task.split == Split::HeldOut);
    refuse(&train, &evaluation, allowed)
}

/// Tokens of the longest row of each attempt.
fn lengths(order: &Order) -> Result<BTreeMap<AttemptId, u64>, Failure> {
    let mut out: BTreeMap<AttemptId, u64> = BTreeMap::new();
    for row in &order.rows {
        let rendered = order.base.tokenizer.render(&row.messages, false)?;
        let longest = out.entry(row.attempt.clone()).or_default();
        *longest = (*longest).max(rendered.tokens.len() as u64);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_loop_and_odd_ones_are_refused() {
        for name in [
            "policy",
            "verifier",
            "policy-2",
            "verifier-10",
            "policy3",
            ".x",
            "a/b",
            "",
            "a b",
        ] {
            let failure = check_name(name).unwrap_err();
            assert_eq!(failure.code, "GT-TRAIN-NAME", "{name}");
        }
        for name in ["wins-1a2b3c4d", "policy-lora", "verifier_2x", "My.Training"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        assert_eq!(
            check_name(&"x".repeat(101)).unwrap_err().code,
            "GT-TRAIN-NAME"
        );
    }
}
