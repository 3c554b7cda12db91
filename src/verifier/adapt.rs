//! What is usual for policies that a head does not know, read off their attempts: features
//! alone, no verdict.

use super::args::AdaptArgs;
use super::gather::{self, Wanted};
use gametape_schemas::{CheckpointId, Failure, FailureKind};
use gametape_verifier::head::{Example, HeadRecipe};
use gametape_verifier::served::Served;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What came of it.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Done {
    /// Name of the new verifier.
    pub verifier: CheckpointId,
    /// The head that it was.
    pub before: CheckpointId,
    /// Its directory.
    pub path: PathBuf,
    /// Policies and scaffolds that it knows now and did not, with their attempts.
    pub added: BTreeMap<String, usize>,
    /// Policies that stay unknown, with their attempts.
    pub too_few: BTreeMap<String, usize>,
    /// Attempts that a policy needs.
    pub least: usize,
}

/// Adapts a head.
///
/// # Errors
/// `GT-VERIFIER-HEAD`, also for a language model, which need not be adapted, and the tape's.
pub fn run(args: &AdaptArgs) -> Result<Done, Failure> {
    let served = Served::at(&args.verifier)?;
    let Some(head) = &served.head else {
        return Err(Failure::new(
            FailureKind::Input,
            "GT-VERIFIER-HEAD",
            format!(
                "{} holds a {}: only a head measures attempts against what is usual",
                args.verifier.display(),
                served.kind
            ),
        )
        .with_help("score with it as it is"));
    };
    let mut wanted = Wanted::of(&args.which);
    wanted.ungraded = true;
    let found = gather::all(&args.which.runs, &wanted, |task, attempt| {
        Ok(Some(Example::unlabelled(&task, &attempt)))
    })?;
    let examples: Vec<&Example> = found.kept.iter().collect();
    let least = HeadRecipe::default().least_group;
    let adapted = head.adapted(&examples, least);
    adapted.save(&args.out)?;
    let added = adapted
        .groups
        .iter()
        .filter(|(name, _)| !head.groups.contains_key(*name))
        .map(|(name, usual)| (name.clone(), usual.attempts))
        .collect();
    let mut too_few: BTreeMap<String, usize> = BTreeMap::new();
    for example in examples {
        let [policy, _] = &example.groups;
        if !adapted.groups.contains_key(policy) {
            *too_few.entry(policy.clone()).or_default() += 1;
        }
    }
    Ok(Done {
        verifier: adapted.id()?,
        before: served.source.checkpoint,
        path: args.out.clone(),
        added,
        too_few,
        least,
    })
}
