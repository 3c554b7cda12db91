//! The actors of a rollout, wired to each other.

use super::board::Board;
use super::feed::{Display, Feed};
use super::outcome::Done;
use super::policy::{Chosen, Kind};
use super::run::{self, Plan, Rooms, read_attempt};
use super::{digest, teacher};
use crate::config::{Config, Paths};
use crate::grading::tester::Tester;
use crate::lower::{self, Lower, LowerOptions};
use crate::rooms::{each_record, recipient};
use crate::run::stop::StopFlag;
use crate::run::watchdog;
use crate::system::{faults, put_in_place};
use actix::prelude::*;
use gametape_agent::toolbox::ToolRooms;
use gametape_agent::{EndpointActor, HumanPolicy, LocalPolicy, SearchPolicy, TapePolicy};
use gametape_agent::{EpisodeActor, EpisodeOptions, EpisodeRooms};
use gametape_environment::Backend;
use gametape_model::{HostOptions, ModelActor, ModelHost};
use gametape_schemas::ask::ask;
use gametape_schemas::message::Subscribe;
use gametape_schemas::{Complete, Digest, Failure};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// What came of a rollout.
pub struct Finished {
    /// Every attempt, in the order in which they ended.
    pub attempts: Vec<Done>,
    /// Digest of what they did ([`digest`]).
    pub digest: Digest,
}

/// Starts the rooms and makes the attempts. Must be called within an actix system.
///
/// # Errors
/// As [`run::run`].
pub async fn run(
    chosen: Chosen,
    plan: Plan,
    config: &Config,
    paths: &Paths,
    sandbox: Option<Backend>,
) -> Result<Finished, Failure> {
    let stop = StopFlag::default();
    stop.watch_signals();
    if let Kind::Model(source) = &chosen.kind {
        put_in_place(source, config.seed, paths)?;
    }
    let tasks: Vec<_> = plan.attempts.iter().map(|(task, _)| task.clone()).collect();
    let options = LowerOptions {
        backend: sandbox.unwrap_or_else(|| crate::commands::grade::usual_backend(&tasks)),
        // Attempts hold a sandbox each while their policy thinks.
        sandboxes: config.limits.sandboxes,
        ..LowerOptions::of(config)?
    };
    let lower = lower::start(paths, &options, faults()?)?;
    let read = recipient(&lower.tape);
    let board = Rc::new(RefCell::new(Board::default()));
    each_record(&read, |record| board.borrow_mut().remember(&record)).await?;
    let feed = Feed::new(board.clone()).start();
    let subscribe = Subscribe {
        from: board.borrow().end,
        stream: None,
        to: feed.recipient(),
    };
    ask(&recipient(&lower.tape), subscribe).await?;

    let complete = policy(&chosen, config, &lower, &plan)?;
    let episode = EpisodeOptions {
        history: chosen.history,
        ..EpisodeOptions::new(chosen.scaffold.clone())
    };
    let stopping = episode.stop.clone();
    stop.on_request(move || stopping.store(true, Ordering::SeqCst));
    let rooms = EpisodeRooms {
        append: lower.append(),
        open: recipient(&lower.environment),
        diff: recipient(&lower.environment),
        close: recipient(&lower.environment),
        tools: ToolRooms {
            shell: recipient(&lower.environment),
            read: recipient(&lower.environment),
            write: recipient(&lower.environment),
            exec: recipient(&lower.environment),
            diff: recipient(&lower.environment),
        },
        complete,
    };
    let make = lower.tree.start_in_line("agent", move || {
        EpisodeActor::new(rooms.clone(), episode.clone())
    });
    watchdog::watch(Duration::from_secs(config.limits.stuck_s))?;
    let rooms = Rooms {
        make: recipient(&make),
        read,
        tester: Tester::new(&lower, plan.retries, stop.clone()),
        board: board.clone(),
        stop,
    };
    let attempts = {
        // A person has the terminal to themselves.
        let is_human = matches!(chosen.kind, Kind::Human);
        let _shown = (!is_human).then(|| Display::begin(board));
        run::run(&rooms, &plan).await?
    };
    let mut digests = Vec::with_capacity(attempts.len());
    for one in &attempts {
        if let Some(trajectory) = read_attempt(&rooms.read, &one.attempt).await? {
            digests.push(digest::of_attempt(&trajectory));
        }
    }
    Ok(Finished {
        attempts,
        digest: digest::of_attempts(digests),
    })
}

/// What answers.
fn policy(
    chosen: &Chosen,
    config: &Config,
    lower: &Lower,
    plan: &Plan,
) -> Result<Recipient<Complete>, Failure> {
    Ok(match &chosen.kind {
        Kind::Endpoint(all) => {
            // A clone goes on with what the one before it knew of its servers.
            let endpoint = EndpointActor::new(
                all.clone(),
                config.patience.clone(),
                |name| std::env::var(name).ok(),
                rand::random(),
            )?;
            recipient(&lower.tree.start("policy", move || endpoint.clone()))
        }
        Kind::Model(source) => {
            let cores = std::thread::available_parallelism().map_or(2, usize::from);
            let threads = match config.limits.model_threads {
                0 => cores,
                n => n,
            };
            let (host, _thread) = ModelHost::spawn(HostOptions {
                threads: i32::try_from(threads).ok(),
                max_models: 1,
                queue: 1024,
                ..HostOptions::default()
            })?;
            let model = lower
                .tree
                .start("model", move || ModelActor::new(host.clone()));
            let generate = recipient(&model);
            let source = source.clone();
            recipient(&lower.tree.start("policy", move || {
                LocalPolicy::new(source.clone(), Recipient::clone(&generate))
            }))
        }
        Kind::Oracle(form) => {
            let teacher = teacher::Teacher {
                tasks: plan
                    .attempts
                    .iter()
                    .map(|(task, _)| (task.task.id.clone(), task.clone()))
                    .collect(),
                open: recipient(&lower.environment),
                read: recipient(&lower.environment),
                close: recipient(&lower.environment),
                form: *form,
            };
            let teacher = Arc::new(teacher);
            recipient(&lower.tree.start("policy", move || {
                teacher::TeacherActor::new(teacher.clone())
            }))
        }
        Kind::Search { form, turns } => {
            let search = SearchPolicy::new(*form, *turns);
            recipient(&lower.tree.start("policy", move || search))
        }
        Kind::Tape(recorded) => {
            let recorded = recorded.clone();
            recipient(&lower.tree.start("policy", move || {
                let steps = recorded.iter();
                TapePolicy::new(
                    steps
                        .map(|t| (t.attempt.clone(), t.steps.clone()))
                        .collect(),
                )
            }))
        }
        Kind::Human => {
            let stdin = std::io::BufReader::new(std::io::stdin());
            let human = HumanPolicy::new(stdin, std::io::stderr())?;
            recipient(&lower.tree.start("policy", move || human.clone()))
        }
    })
}
