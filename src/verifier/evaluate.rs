//! What a verifier is worth: heads by cross-validation over repositories, or a trained
//! verifier on attempts of which its training saw nothing.

use super::args::{EvaluateArgs, Unseen};
use super::gather::{self, Found, Wanted};
use super::score::Scorer;
use super::{check_examples, too_little};
use crate::run::progress::Phase;
use crate::system::in_system;
use gametape_schemas::{AttemptId, Failure};
use gametape_verifier::head::{HeadRecipe, Seen};
use gametape_verifier::served::Served;
use gametape_verifier::stated;
use gametape_verifier::validate::{
    Candidate, Newcomer, Report, cross_validate, newcomers, of_scores,
};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// Attempts that are asked for together.
const BATCH: usize = 16;

/// What came of an evaluation.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Done {
    /// How the attempts were scored, in words.
    pub method: String,
    /// The verifier; absent where heads were cross-validated.
    pub verifier: Option<Judged>,
    /// Attempts whose task is known by its opening alone.
    pub stated: u64,
    /// Attempts left out, by reason.
    pub left_out: BTreeMap<&'static str, u64>,
    /// Every policy as if it had never been seen; of heads, where it was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub newcomers: Vec<Newcomer>,
    /// Resamples of each interval.
    pub resamples: usize,
    /// Seed of the bootstrap.
    pub seed: u64,
    /// The figures.
    #[serde(flatten)]
    pub report: Report,
}

/// A trained verifier that was judged.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Judged {
    /// Its name.
    pub id: String,
    /// What it is.
    pub kind: &'static str,
    /// Attempts that its training had.
    pub trained_on: usize,
    /// Repositories of its training.
    pub repos: Vec<String>,
    /// Attempts at hand, by what its training saw of them.
    pub seen: BTreeMap<Seen, u64>,
    /// Figures are of attempts of which it had seen at most this.
    pub unseen: Seen,
    /// Scores that were on the tape already.
    pub scores_on_tape: u64,
}

/// Evaluates.
///
/// # Errors
/// `GT-VERIFIER-…`, `GT-MODEL-…`, and the tape's.
pub fn run(args: &EvaluateArgs) -> Result<Done, Failure> {
    match &args.verifier {
        Some(path) => trained(args, &Served::at(path)?),
        None => heads(args),
    }
}

fn heads(args: &EvaluateArgs) -> Result<Done, Failure> {
    let wanted = Wanted::of(&args.which);
    let found = gather::all(&args.which.runs, &wanted, |task, attempt| {
        Ok(Candidate::of(&task, &attempt))
    })?;
    check_examples(&found, |c| &c.example)?;
    let repos: BTreeSet<&str> = found.kept.iter().map(|c| &*c.example.repo).collect();
    let parts = (args.parts as usize).min(repos.len());
    let recipe = HeadRecipe::default();
    let report = cross_validate(&found.kept, &recipe, parts, args.resamples, args.seed);
    let report = report.ok_or_else(|| {
        too_little(
            "some part of the repositories leaves no wins or no losses to train on",
            "ask for fewer --parts, or add runs with other repositories",
        )
    })?;
    let newcomers = match args.newcomers {
        true => newcomers(&found.kept, &recipe, parts),
        false => Vec::new(),
    };
    Ok(Done {
        newcomers,
        method: format!("heads, cross-validated in {parts} parts of whole repositories"),
        verifier: None,
        stated: found.stated,
        left_out: found.dropped,
        resamples: args.resamples,
        seed: args.seed,
        report,
    })
}

/// An attempt at hand: what is measured, what was seen of it, and its score.
struct One {
    candidate: Candidate,
    seen: Seen,
    score: Option<f64>,
    is_stated: bool,
}

fn trained(args: &EvaluateArgs, served: &Served) -> Result<Done, Failure> {
    let least = match args.unseen {
        Unseen::Repository => Seen::Nothing,
        Unseen::Task => Seen::Repository,
        Unseen::Attempt => Seen::Task,
    };
    let found = at_hand(args, served)?;
    let mut seen: BTreeMap<Seen, u64> = BTreeMap::new();
    for one in &found.kept {
        *seen.entry(one.seen).or_default() += 1;
    }
    let Found { kept, dropped, .. } = found;
    let kept: Vec<One> = kept.into_iter().filter(|one| one.seen >= least).collect();
    let count = |what: Seen| seen.get(&what).copied().unwrap_or(0);
    let known = format!(
        "{} attempts that it was trained on, {} at tasks and {} of repositories of its \
         training, {} of other repositories",
        count(Seen::Attempt),
        count(Seen::Task),
        count(Seen::Repository),
        count(Seen::Nothing)
    );
    let wins = kept.iter().filter(|one| one.candidate.example.resolved);
    let wins = wins.count();
    if wins == 0 || wins == kept.len() {
        return Err(too_little(
            format!(
                "of {known}; {} with a verdict are new to it, {wins} of them resolved",
                kept.len()
            ),
            "give attempts that are new to it; --unseen task and --unseen attempt ask for \
             less, and say less",
        ));
    }
    let stated = kept.iter().filter(|one| one.is_stated).count() as u64;
    let scores_on_tape = kept.iter().filter(|one| one.score.is_some()).count() as u64;
    let scores = scores_of(args, served, &kept)?;
    let candidates: Vec<Candidate> = kept.into_iter().map(|one| one.candidate).collect();
    let report = of_scores(&candidates, scores, args.resamples, args.seed).ok_or_else(|| {
        too_little(
            "some attempts have no score",
            "this is a defect: please report it",
        )
    })?;
    Ok(Done {
        newcomers: Vec::new(),
        method: known,
        verifier: Some(Judged {
            id: served.source.checkpoint.to_string(),
            kind: served.kind,
            trained_on: served.trained.attempts,
            repos: served.trained.repos.clone(),
            seen,
            unseen: least,
            scores_on_tape,
        }),
        stated,
        left_out: dropped,
        resamples: args.resamples,
        seed: args.seed,
        report,
    })
}

/// All attempts with a verdict; scores where the tape has them.
fn at_hand(args: &EvaluateArgs, served: &Served) -> Result<Found<One>, Failure> {
    let id = &served.source.checkpoint;
    gather::all(
        &args.which.runs,
        &Wanted::of(&args.which),
        |task, attempt| {
            let is_stated = task.origin == stated::ORIGIN;
            Ok(Candidate::of(&task, &attempt).map(|candidate| One {
                is_stated,
                seen: served.trained.seen(&candidate.example),
                score: attempt.scores.get(id).copied().filter(|s| s.is_finite()),
                candidate,
            }))
        },
    )
}

/// A score for each, in order: the tape's, else the verifier is asked. Nothing is written.
fn scores_of(args: &EvaluateArgs, served: &Served, kept: &[One]) -> Result<Vec<f64>, Failure> {
    let mut scores: BTreeMap<AttemptId, f64> = BTreeMap::new();
    let mut open: Vec<AttemptId> = Vec::new();
    for one in kept {
        let id = &one.candidate.example.attempt;
        match one.score {
            Some(score) => {
                scores.insert(id.clone(), score);
            }
            None => open.push(id.clone()),
        }
    }
    if !open.is_empty() {
        let source = served.source.clone();
        let asked = in_system(async {
            let scorer = Scorer::start(None)?;
            let mut phase = Phase::begin("verifier scores", open.len() as u64);
            let mut asked = Vec::with_capacity(open.len());
            for run in &args.which.runs {
                let tape = gather::open(run)?;
                for batch in open.chunks(BATCH) {
                    // Of a batch, what this tape has.
                    let items = gather::these(&tape, &Wanted::of(&args.which), batch)?;
                    if items.is_empty() {
                        continue;
                    }
                    let count = items.len();
                    asked.extend(scorer.ask(&source, items).await?);
                    (0..count).for_each(|_| phase.inc(""));
                }
            }
            Ok(asked)
        })?;
        scores.extend(asked.into_iter().map(|s| (s.attempt, s.score)));
    }
    let score = |one: &One| scores.get(&one.candidate.example.attempt).copied();
    Ok(kept.iter().filter_map(score).collect())
}
