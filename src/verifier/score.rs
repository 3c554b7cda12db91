//! A verifier's scores onto tapes. What has its score is not scored again, and each batch is
//! durable before the next is asked for: killed anywhere, the same command goes on.

use super::args::ScoreArgs;
use super::gather::{self, Found, Wanted};
use crate::rooms::recipient;
use crate::run::progress::Phase;
use crate::run::stop::StopFlag;
use crate::system::{faults, in_system};
use crate::tree::Tree;
use gametape_model::{HostOptions, ModelActor, ModelHost};
use gametape_schemas::ask::ask;
use gametape_schemas::event::VerifierScored;
use gametape_schemas::message::{ModelSource, ScoreTrajectories};
use gametape_schemas::{
    AttemptId, CheckpointId, Event, Failure, FailureKind, NewEvent, StreamId, Task, Trajectory,
};
use gametape_tape::{SledTape, TapeActor};
use gametape_verifier::VerifierActor;
use gametape_verifier::served::Served;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Attempts that are asked for together.
const BATCH: usize = 16;

/// What came of scoring.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Done {
    /// Name of the verifier.
    pub verifier: CheckpointId,
    /// Attempts that were scored now.
    pub scored: u64,
    /// Attempts that had its score.
    pub known: u64,
    /// Of all these, how many are attempts that it was trained on: their scores are no
    /// judgement.
    pub trained_on: u64,
    /// Of all these, how many are of policies for which it does not know what is usual.
    pub of_unknown_policies: u64,
    /// Attempts left out, by reason.
    pub left_out: BTreeMap<&'static str, u64>,
}

/// Scores.
///
/// # Errors
/// `GT-VERIFIER-…`, `GT-MODEL-…`, `GT-RUN-STOPPED` after Ctrl-C, and the tape's.
pub fn run(args: &ScoreArgs) -> Result<Done, Failure> {
    let served = Served::at(&args.verifier)?;
    let mut wanted = Wanted::of(&args.which);
    wanted.ungraded = true;
    let mut done = Done {
        verifier: served.source.checkpoint.clone(),
        scored: 0,
        known: 0,
        trained_on: 0,
        of_unknown_policies: 0,
        left_out: BTreeMap::new(),
    };
    for run in &args.which.runs {
        let tape = gather::open(run)?;
        // First which, then one batch after another: a trajectory may be large.
        let mut found = Found::default();
        let mut known = 0;
        gather::each(
            &tape,
            &wanted,
            &mut BTreeSet::new(),
            &mut found,
            |_, attempt| {
                let ids = &served.trained.ids;
                let was = ids.binary_search_by(|id| id.as_str().cmp(attempt.attempt.as_str()));
                done.trained_on += u64::from(was.is_ok());
                done.of_unknown_policies += u64::from(!served.knows(&attempt.key));
                let has = attempt.scores.contains_key(&served.source.checkpoint);
                known += u64::from(has);
                Ok(Some((!has).then_some(attempt.attempt)))
            },
        )?;
        done.known += known;
        for (why, count) in &found.dropped {
            *done.left_out.entry(why).or_default() += count;
        }
        let open: Vec<AttemptId> = found.kept.into_iter().flatten().collect();
        done.scored += open.len() as u64;
        if !open.is_empty() {
            in_system(score(tape, served.source.clone(), open))?;
        }
    }
    Ok(done)
}

async fn score(tape: SledTape, model: ModelSource, open: Vec<AttemptId>) -> Result<(), Failure> {
    let stop = StopFlag::default();
    stop.watch_signals();
    let scorer = Scorer::start(Some(tape.clone()))?;
    let mut phase = Phase::begin("verifier scores", open.len() as u64);
    for batch in open.chunks(BATCH) {
        stop.check()?;
        let wanted = Wanted {
            held_out: true,
            ungraded: true,
            ..Wanted::default()
        };
        let items = gather::these(&tape, &wanted, batch)?;
        let scores = scorer.ask(&model, items).await?;
        let events = scores.into_iter().map(|score| {
            NewEvent::named(
                StreamId::attempt(&score.attempt),
                &format!("scored-{}", score.verifier),
                Event::VerifierScored(score),
            )
        });
        let answer = tape.submit(events.collect()).await;
        answer.map_err(|_| {
            Failure::new(
                FailureKind::Tape,
                "GT-TAPE-STOPPED",
                "the tape's writer is gone",
            )
            .with_help("type the same command again: what is there stays there")
        })??;
        for _ in batch {
            phase.inc("");
        }
    }
    Ok(())
}

/// The rooms that score.
pub struct Scorer {
    score: actix::Recipient<ScoreTrajectories>,
    /// Dropped last: it keeps the rooms.
    _tree: Tree,
}

impl Scorer {
    /// Starts them, within an actix system. Deaths are told to the tape.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub fn start(tape: Option<SledTape>) -> Result<Self, Failure> {
        let mut tree = Tree::new(faults()?);
        if let Some(tape) = tape {
            let tape = tree.start("tape", move || TapeActor::new(tape.clone()));
            tree.report_to(recipient(&tape));
        }
        // Loads nothing until a language model is asked.
        let (host, _thread) = ModelHost::spawn(HostOptions {
            max_models: 1,
            ..HostOptions::default()
        })?;
        let model = tree.start("model", move || ModelActor::new(host.clone()));
        let answers = recipient(&model);
        let verifier = tree.start("verifier", move || {
            VerifierActor::new(actix::Recipient::clone(&answers))
        });
        Ok(Self {
            score: recipient(&verifier),
            _tree: tree,
        })
    }

    /// The scores of these attempts, in order.
    ///
    /// # Errors
    /// The verifier's.
    pub async fn ask(
        &self,
        model: &ModelSource,
        items: Vec<(Task, Trajectory)>,
    ) -> Result<Vec<VerifierScored>, Failure> {
        let request = ScoreTrajectories {
            model: model.clone(),
            items,
        };
        ask(&self.score, request).await
    }
}
