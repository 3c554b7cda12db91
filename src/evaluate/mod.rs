//! What attempts on tapes are worth: Pass@k, Best@k of every selection rule, conduct,
//! ablation, training curve, gap between task sets. From tapes alone; nothing is run.
//!
//! Layout, in reading order:
//! - [`gather`]: what a tape says of attempts, one event at a time
//! - [`arms`]: which of them are draws of the same thing
//! - [`data`]: what an evaluation says; `evaluation.json`
//! - [`measure`]: the figures of one arm
//! - [`compare`]: between arms, between task sets
//! - [`mod@text`]: tables for a terminal
//! - [`figure`]: pictures, as SVG
//!
//! All of it is pure. `docs/evaluation.md` defines every figure.

pub mod arms;
pub mod compare;
pub mod data;
pub mod figure;
pub mod gather;
pub mod measure;
pub mod text;

#[cfg(test)]
pub(crate) mod synthetic;
#[cfg(test)]
mod tests;

pub use arms::Options;
pub use compare::TaskSet;
pub use data::Evaluation;
pub use gather::{Gather, Tape};

use data::{Arm, RunLine, wrong};
use gametape_schemas::Failure;
use measure::Dice;
use serde_json::Value;
use std::collections::BTreeMap;

/// Evaluates tapes. The same tapes and options give the same bits.
///
/// # Errors
/// `GT-EVALUATE-NONE` when no attempt is left to measure, a verifier was asked for that scored
/// none, or every k is larger than what any task has.
pub fn evaluate(
    tapes: &[Tape],
    options: &Options,
    sets: Option<&[TaskSet; 2]>,
) -> Result<Evaluation, Failure> {
    let groups = arms::groups(tapes, options);
    if groups.is_empty() {
        return Err(nothing(tapes));
    }
    let all = arms::trainings(tapes);
    let dice = Dice {
        seed: options.seed,
        resamples: options.resamples,
    };
    let measured = groups
        .iter()
        .map(|group| measure::arm(group, &all, options));
    let arms: Vec<Arm> = measured.collect::<Result<_, _>>()?;
    if let Some(asked) = &options.verifier
        && arms.iter().all(|arm| arm.setup.verifier.is_none())
    {
        return Err(wrong(
            "GT-EVALUATE-NONE",
            format!("no verifier whose name begins with `{asked}` scored any of these attempts"),
            "leave --verifier away to take the one that scored most",
        ));
    }
    if let Some(failure) = too_large(&arms, &options.ks) {
        return Err(failure);
    }
    let pairs: Vec<_> = groups.iter().zip(&arms).collect();
    Ok(Evaluation {
        schema_version: data::SCHEMA,
        seed: options.seed,
        resamples: options.resamples,
        ks: options.ks.clone(),
        runs: tapes.iter().map(run_line).collect(),
        differences: compare::differences(&arms, &options.ks, dice),
        ablation: compare::ablation(tapes, &pairs, options, dice)?,
        training_curve: compare::training_curve(&arms, &options.ks),
        gaps: sets.map_or_else(Vec::new, |sets| {
            compare::gaps(&arms, sets, &options.ks, dice)
        }),
        notes: notes(&arms, sets),
        trainings: all,
        arms,
    })
}

fn nothing(tapes: &[Tape]) -> Failure {
    let attempts = tapes.iter().flat_map(|tape| &tape.attempts);
    if attempts.clone().next().is_none() {
        return wrong(
            "GT-EVALUATE-NONE",
            "there is no attempt on the tape",
            "`gametape loop`, `gametape rollout` and `gametape trajectories import` put some there",
        );
    }
    let purposes: std::collections::BTreeSet<&str> =
        attempts.clone().map(|a| a.purpose.as_str()).collect();
    wrong(
        "GT-EVALUATE-NONE",
        format!(
            "none of {} attempts is to be measured; their phases are: {}",
            attempts.count(),
            purposes.into_iter().collect::<Vec<_>>().join(", ")
        ),
        "look at --purpose and --policy; a teacher's attempts count only where --policy names it",
    )
}

/// That no figure at all would be left, where there are attempts that count.
fn too_large(arms: &[Arm], ks: &[usize]) -> Option<Failure> {
    let most = arms.iter().map(|arm| arm.counts.most).max()?;
    let least = ks.iter().copied().min()?;
    (most > 0 && least as u64 > most).then(|| {
        wrong(
            "GT-EVALUATE-NONE",
            format!("no task has {least} attempts that count; the most that a task has is {most}"),
            "ask for fewer attempts with --k",
        )
    })
}

fn run_line(tape: &Tape) -> RunLine {
    let mut settings = BTreeMap::new();
    let config = tape
        .config
        .as_deref()
        .and_then(|text| serde_json::from_str(text).ok());
    flatten("", &config.unwrap_or(Value::Null), &mut settings);
    RunLine {
        name: tape.name.clone(),
        run: tape.run.clone(),
        code_versions: tape.code_versions.clone(),
        events: tape.events,
        digest: tape.digest.clone(),
        settings,
    }
}

/// A JSON value by dotted names. Lists stay whole.
fn flatten(name: &str, value: &Value, into: &mut BTreeMap<String, String>) {
    match value {
        Value::Null => {}
        Value::Object(fields) => {
            for (field, value) in fields {
                let name = match name {
                    "" => field.clone(),
                    name => format!("{name}.{field}"),
                };
                flatten(&name, value, into);
            }
        }
        Value::String(text) => {
            into.insert(name.to_owned(), text.clone());
        }
        other => {
            into.insert(name.to_owned(), other.to_string());
        }
    }
}

/// What a reader of the figures must know.
fn notes(arms: &[Arm], sets: Option<&[TaskSet; 2]>) -> Vec<String> {
    let mut notes = Vec::new();
    for arm in arms {
        let (label, counts) = (&arm.label, &arm.counts);
        let mut note = |what: String| notes.push(format!("{label}: {what}"));
        if counts.infrastructure > 0 {
            note(format!(
                "{} attempts met a failure of ours; they are in no figure",
                counts.infrastructure
            ));
        }
        if counts.open > 0 {
            note(format!(
                "{} attempts have no verdict yet; they are in no figure",
                counts.open
            ));
        }
        if counts.quarantined > 0 {
            note(format!(
                "{} attempts at tasks that were found unfit are left out",
                counts.quarantined
            ));
        }
        if counts.duplicates > 0 {
            note(format!(
                "{} attempts stand on two tapes and count once",
                counts.duplicates
            ));
        }
        if let Some(points) = arm.curves.get("pass")
            && let (Some(first), Some(last)) = (points.first(), points.last())
            && first.tasks != last.tasks
        {
            note(format!(
                "{} tasks have at least {} attempts that count, {} at least {}: the ends of its \
                 curves are not over the same tasks",
                first.tasks, first.k, last.tasks, last.k
            ));
        }
        if arm.setup.verifier.is_some() && counts.unscored > 0 {
            note(format!(
                "{} attempts have no score; tasks with one of them are in no figure of the \
                 verifier",
                counts.unscored
            ));
        }
        if arm.setup.rules.len() > 1 {
            let rules: Vec<&str> = arm.setup.rules.iter().map(String::as_str).collect();
            note(format!(
                "verdicts are by different rules: {}",
                rules.join(", ")
            ));
        }
        if arm.setup.sampling.temperature == 0.0 && counts.most > 1 {
            note(
                "its sampling is greedy: attempts differ by chance of the machinery alone, and \
                 more of them say little"
                    .to_owned(),
            );
        }
    }
    if let Some([first, second]) = sets {
        let both = first.tasks.intersection(&second.tasks).count();
        if both > 0 {
            notes.push(format!(
                "{both} tasks are in `{}` and in `{}`: they count in neither",
                first.name, second.name
            ));
        }
    }
    notes
}
