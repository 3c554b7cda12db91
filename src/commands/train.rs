//! `gametape train`: trainings, and where weights come from.

use super::{existing, print_json, put, start_log};
use crate::cli::RunDir;
use crate::config::{self, Paths};
use crate::datasets;
use crate::system::{in_system, model_threads, now_micros};
use crate::training::args::{TrainAction, TrainArgs, TrainingArgs};
use crate::training::lineage::{self, Used};
use crate::training::order::{self, Order, order};
use crate::training::work::{How, work};
use crate::training::{base, text};
use gametape_schemas::event::DatasetBuilt;
use gametape_schemas::message::Trained;
use gametape_schemas::{Failure, FailureKind};
use gametape_tape::SledTape;
use gametape_trainer::presets;
use serde_json::{Value, json};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

/// Does what `gametape train` is asked for.
///
/// # Errors
/// As [`order()`] and [`work`]; `GT-TRAIN-UNKNOWN`.
pub fn run(args: &TrainArgs, as_json: bool, verbose: bool) -> Result<ExitCode, Failure> {
    match &args.action {
        None => train(&args.training, as_json, verbose),
        Some(TrainAction::Presets) => {
            let all = presets::all();
            match as_json {
                true => {
                    let named = |p: &presets::Preset| json!({"name": p.name, "about": p.about, "hyper": p.hyper});
                    print_json(&all.iter().map(named).collect::<Vec<_>>())?;
                }
                false => put(&text::presets(&all))?,
            }
            Ok(ExitCode::SUCCESS)
        }
        Some(TrainAction::Show { weights, run }) => show(weights.as_deref(), run, as_json),
    }
}

fn open(paths: &Paths) -> Result<SledTape, Failure> {
    Ok(SledTape::open(&existing(paths)?, Arc::new(now_micros))?)
}

fn train(args: &TrainingArgs, as_json: bool, verbose: bool) -> Result<ExitCode, Failure> {
    let paths = Paths::new(args.run.run.clone())?;
    // Of the configuration only the limits of this machine matter here.
    let limits = config::load("default", None)?.limits;
    let tape = open(&paths)?;
    let order = order(args, &tape, &paths)?;
    if args.dry_run {
        match as_json {
            true => print_json(&told(&order))?,
            false => put(&text::dry(&order))?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    if order.is_done() {
        return done_before(&order, &paths, as_json);
    }
    start_log(&paths, verbose)?;
    base::put_in_place(&order.base, &paths)?;
    if let Some(look) = &order.outlook {
        if look.too_long > 0 {
            eprintln!(
                "{} of {} rows are left out: {}",
                look.too_long,
                order.rows.len(),
                text::too_long(look)
            );
        }
        if look.free_bytes.is_some_and(|free| free < look.memory_bytes) {
            eprintln!(
                "this may need more memory than is free: --dry-run says how much; docs/training.md \
                 says what makes it less"
            );
        }
    }
    let how = How {
        threads: args
            .threads
            .map_or_else(|| model_threads(limits.model_threads), |n| n.get()),
        retries: limits.retries,
        stuck_s: limits.stuck_s,
    };
    let summary = told(&order);
    let name = order.name.clone();
    let trained = in_system(work(order, tape, &paths, how))?;
    if as_json {
        print_json(&ended(summary, &trained))?;
    } else {
        put(&format!(
            "{name} {}: {} steps, loss {:.4}, {} tokens, {:.1} s\nthe weights lie in {}\n\
             `gametape train show {name} --run {}` tells where they come from\n",
            crate::evaluate::gather::short(trained.model.checkpoint.as_str()),
            trained.steps,
            trained.final_loss,
            trained.tokens,
            trained.wall_seconds,
            trained.model.path.display(),
            paths.run.display(),
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// It has ended: nothing is done.
fn done_before(order: &Order, paths: &Paths, as_json: bool) -> Result<ExitCode, Failure> {
    let finished = order
        .known
        .as_ref()
        .and_then(|known| known.finished.as_ref());
    let place = order
        .known
        .as_ref()
        .and_then(|known| base::place(known, paths));
    let place = place.unwrap_or_default();
    if as_json {
        let mut value = told(order);
        if let (Some(map), Some(body)) = (value.as_object_mut(), finished) {
            map.insert("trained".into(), false.into());
            map.insert("steps".into(), body.steps.into());
            map.insert("final_loss".into(), body.final_loss.into());
            map.insert("path".into(), place.display().to_string().into());
        }
        print_json(&value)?;
    } else {
        put(&format!(
            "the training {} has ended; nothing was done. Its weights lie in {}\n",
            order.name,
            place.display()
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What is asked for, for machines.
fn told(order: &Order) -> Value {
    json!({
        "name": order.name,
        "checkpoint": order.identity.checkpoint_id(),
        "base": { "checkpoint": order.identity.base, "name": order.base.name },
        "dataset": {
            "name": order.dataset.name,
            "digest": order.identity.dataset,
            "kind": order.kind.as_str(),
            "rows": order.dataset.rows,
        },
        "preset": order.preset,
        "hyper": order.identity.hyper,
        "outlook": order.outlook,
        "directory": order.directory,
    })
}

fn ended(mut summary: Value, trained: &Trained) -> Value {
    if let Some(map) = summary.as_object_mut() {
        map.insert("trained".into(), true.into());
        map.insert("steps".into(), trained.steps.into());
        map.insert("final_loss".into(), trained.final_loss.into());
        map.insert("tokens".into(), trained.tokens.into());
        map.insert("wall_seconds".into(), trained.wall_seconds.into());
        map.insert("weights".into(), trained.weights.0.clone().into());
        map.insert(
            "path".into(),
            trained.model.path.display().to_string().into(),
        );
    }
    summary
}

fn show(weights: Option<&str>, run: &RunDir, as_json: bool) -> Result<ExitCode, Failure> {
    let paths = Paths::new(run.run.clone())?;
    let tape = open(&paths)?;
    let chronicle = order::chronicle(&tape)?;
    let Some(weights) = weights else {
        if chronicle.trainings.is_empty() {
            return Err(Failure::new(
                FailureKind::Input,
                "GT-TRAIN-UNKNOWN",
                format!("nothing was trained on the tape of {}", run.run.display()),
            )
            .with_help("`gametape train` and `gametape loop` train"));
        }
        match as_json {
            true => {
                let none = &mut |_: &DatasetBuilt| Err("it was not asked for".to_owned());
                let each = chronicle.trainings.iter();
                print_json(
                    &each
                        .map(|t| lineage::of_training(&chronicle, t, none))
                        .collect::<Vec<_>>(),
                )?;
            }
            false => put(&text::list(&chronicle))?,
        }
        return Ok(ExitCode::SUCCESS);
    };
    let training = chronicle.find(weights)?;
    let mut rows = |built: &DatasetBuilt| used(&tape, built).map_err(|f| f.to_string());
    let tree = lineage::of_training(&chronicle, training, &mut rows);
    if as_json {
        print_json(&tree)?;
    } else {
        put(&text::tree(&tree))?;
        if let Some(place) = base::place(training, &paths).filter(|p| !is_there(p)) {
            put(&format!("\nnothing lies in {} any more\n", place.display()))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn is_there(place: &Path) -> bool {
    place.join("training.json").is_file()
}

/// The attempts of a dataset's rows, rebuilt from the tape.
fn used(tape: &SledTape, built: &DatasetBuilt) -> Result<Vec<Used>, Failure> {
    let found = datasets::named(tape, &built.name)?;
    let mut used = Vec::new();
    order::each_row(&found, tape, &mut |row| {
        used.push(Used {
            attempt: row.attempt.clone(),
            resolved: row.resolved,
        });
    })?;
    Ok(used)
}
