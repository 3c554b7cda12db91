//! The rooms, and the training itself.

use super::order::Order;
use crate::config::Paths;
use crate::rooms::recipient;
use crate::run::news::{NewsDesk, Subject, finished, settle};
use crate::run::stop::StopFlag;
use crate::run::watchdog;
use crate::system::{faults, start_trainer};
use crate::tree::Tree;
use actix::prelude::*;
use gametape_schemas::ask::{ask, ask_again};
use gametape_schemas::event::TrainingOrigin;
use gametape_schemas::message::{Append, Train, Trained};
use gametape_schemas::{Failure, FailureKind};
use gametape_tape::{SledTape, TapeActor};
use std::time::Duration;

/// How it is done on this machine.
#[derive(Clone, Copy, Debug)]
pub struct How {
    /// Threads of libtorch.
    pub threads: usize,
    /// How often a failure of ours is tried again.
    pub retries: u32,
    /// Seconds without a sign of life after which the process ends; 0 = it is not watched.
    pub stuck_s: u64,
}

/// Trains, or goes on where an earlier process was. Must be called within an actix system.
///
/// # Errors
/// As the trainer's; `GT-TRAIN-STOPPED` when somebody asked for a stop; the tape's.
pub async fn work(
    order: Order,
    tape: SledTape,
    paths: &Paths,
    how: How,
) -> Result<Trained, Failure> {
    let stop = StopFlag::default();
    stop.watch_signals();
    let mut tree = Tree::new(faults()?);
    let tape = tree.start("tape", move || TapeActor::new(tape.clone()));
    let append: Recipient<Append> = recipient(&tape);
    tree.report_to(append.clone());
    let trainer = start_trainer(&tree, how.threads, &stop);
    watchdog::watch(Duration::from_secs(how.stuck_s))?;
    let mut subject = Subject {
        name: order.name.clone(),
        base: order.identity.base.clone(),
        dataset: order.identity.dataset.clone(),
        hyper_json: hyper_json(&order)?,
        origin: TrainingOrigin {
            base_name: order.base.name.clone(),
            dataset_name: order.dataset.name.clone(),
            preset: order.preset.clone(),
            allowed_overlap: order.allowed_overlap.clone(),
            ..TrainingOrigin::default()
        },
        run: paths.run.clone(),
        taken_up_at: order.events,
    };
    let mut tries = 0;
    let trained = loop {
        stop.check()?;
        let desk = NewsDesk::new(subject.clone(), append.clone()).start();
        let request = Train {
            name: order.name.clone(),
            base: order.base.source.clone(),
            rows: order.rows.clone(),
            dataset: order.identity.dataset.clone(),
            hyper: order.identity.hyper.clone(),
            directory: order.directory.clone(),
            progress: desk.clone().recipient(),
        };
        let answer = ask(&recipient(&trainer), request).await;
        // What was told before it failed is on the tape, too.
        settle(&desk).await?;
        match answer {
            Ok(trained) => break trained,
            Err(failure) if failure.kind.is_retryable() && tries < how.retries => {
                tries += 1;
                // Steps that are made again in this process are other facts, too.
                subject.taken_up_at += 1;
                tracing::warn!(%failure, tries, "the training is taken up again");
            }
            Err(failure) => return Err(failure),
        }
    };
    match order
        .known
        .as_ref()
        .and_then(|known| known.finished.as_ref())
    {
        // The weights were gone and are made again: the tape says all of it already.
        Some(before) => {
            let told = before.weights.as_ref();
            if told.is_some_and(|told| *told != trained.weights) {
                return Err(other_weights(
                    &order,
                    told.map_or("", |d| d.short()),
                    &trained,
                ));
            }
        }
        None => {
            let events = vec![finished(&order.name, &trained, &paths.run)];
            ask_again(&append, Append { events }).await?;
        }
    }
    Ok(trained)
}

/// The training ended before, its weights were gone, and now they are others.
fn other_weights(order: &Order, told: &str, trained: &Trained) -> Failure {
    Failure::new(
        FailureKind::Model,
        "GT-TRAIN-BASE",
        format!(
            "the training `{}` was made again and its weights differ: their digest is {}, the \
             tape says {told}",
            order.name,
            trained.weights.short(),
        ),
    )
    .with_help(
        "another processor, number of threads or version of libtorch rounds otherwise; use the \
         weights under a name of their own (--name)",
    )
}

fn hyper_json(order: &Order) -> Result<String, Failure> {
    serde_json::to_string(&order.identity.hyper).map_err(|error| {
        Failure::new(
            FailureKind::Internal,
            "GT-RUN-INTERNAL",
            format!("the hyperparameters cannot be written: {error}"),
        )
    })
}
