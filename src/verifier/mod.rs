//! `gametape verifier …`: verifiers trained from tapes, scores put on tapes, and what both
//! are worth.
//!
//! - [`args`]: the command line
//! - [`gather`]: finished attempts of tapes, one at a time, with their tasks
//! - [`train`]: attempts to a verifier in a directory; [`tune`]: to a language model
//! - [`adapt`]: what is usual for policies that a head does not know
//! - [`score`]: a verifier's scores onto a tape
//! - [`evaluate`]: what a verifier is worth on repositories that it never saw
//! - [`text`], [`figure`]: tables and a picture of it

pub mod adapt;
pub mod args;
pub mod evaluate;
pub mod figure;
pub mod gather;
pub mod score;
pub mod text;
pub mod train;
pub mod tune;

use gametape_schemas::{Failure, FailureKind};
use gametape_verifier::head::Example;
use std::collections::BTreeSet;

/// Attempts that do not suffice.
pub(crate) fn too_little(message: impl Into<String>, help: &'static str) -> Failure {
    Failure::new(FailureKind::Input, "GT-VERIFIER-EXAMPLES", message).with_help(help)
}

/// Refuses attempts that a verifier cannot be trained on or judged by: of one class only,
/// or of fewer than two repositories.
///
/// # Errors
/// `GT-VERIFIER-EXAMPLES`, with what was left out and why.
pub(crate) fn check_examples<T>(
    found: &gather::Found<T>,
    of: impl Fn(&T) -> &Example,
) -> Result<(), Failure> {
    let all: Vec<&Example> = found.kept.iter().map(of).collect();
    let wins = all.iter().filter(|e| e.resolved).count();
    let repos: BTreeSet<&str> = all.iter().map(|e| e.repo.as_str()).collect();
    let (count, left) = (all.len(), found.left_out());
    if count == 0 && found.dropped.contains_key("held_out") {
        return Err(too_little(
            format!("all attempts with a verdict are at tasks for evaluation{left}"),
            "--held-out trains on them all the same; figures of such a verifier on tasks of \
             the same set are no result, those on other repositories are",
        ));
    }
    if count == 0 {
        return Err(too_little(
            format!("no attempt with a verdict is there{left}"),
            "`gametape trajectories import` brings recorded verdicts, `gametape grade` and \
             `gametape rollout` make some",
        ));
    }
    if wins == 0 || wins == count {
        let class = if wins == 0 { "unresolved" } else { "resolved" };
        return Err(too_little(
            format!("all {count} attempts are {class}{left}"),
            "a verifier learns from wins and losses: add runs (--run may be given several \
             times) or loosen --purpose and the recipe",
        ));
    }
    if repos.len() < 2 {
        return Err(too_little(
            format!(
                "all {count} attempts are at tasks of one repository, {}{left}",
                repos.first().unwrap_or(&"")
            ),
            "calibration and figures need repositories that were not learned from: add runs \
             with tasks of another one",
        ));
    }
    Ok(())
}
