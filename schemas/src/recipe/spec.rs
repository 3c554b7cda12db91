//! What a recipe says: TOML of version 1. What is not known is refused, and so is what can
//! never select anything.

use super::check::wrong;
use crate::attempt::PolicyRef;
use crate::failure::Failure;
use crate::finding::Severity;
use crate::formats::trajectories::told::policy_name;
use crate::ids::{AttemptId, Digest, TaskId};
use crate::task::Split;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The version that this gametape reads.
pub const VERSION: u32 = 1;

/// A recipe.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// [`VERSION`].
    pub version: u32,
    /// What the rows are for.
    pub kind: Kind,
    /// Seed of every choice that names no other.
    #[serde(default)]
    pub seed: u64,
    /// Which assistant turns get a loss.
    #[serde(default)]
    pub train_on: TrainOn,
    /// What becomes of an attempt whose observations were hidden on the way.
    #[serde(default)]
    pub views: Views,
    /// Names of policies that are on-policy; empty = every model in this process.
    #[serde(default)]
    pub on_policy: Vec<String>,
    /// Whether tasks that were registered and never validated here are let pass: those of
    /// imported attempts, whose verdicts were recorded elsewhere.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unvalidated: bool,
    /// Files of task sets (JSON lines, Parquet, folders) that are measured with: tasks that
    /// overlap with one of theirs never become rows. Relative to where the recipe lies.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Names of tasks or repositories whose overlap somebody looked at: they are let pass.
    #[serde(default)]
    pub allow_overlap: Vec<String>,
    /// A JSON file with an object of tokens by attempt, measured with the tokenizer that
    /// will train. Without it tokens are characters / 4.
    #[serde(default)]
    pub lengths: Option<String>,
    /// Filters, in the order in which they are applied.
    #[serde(default, rename = "filter")]
    pub filters: Vec<Filter>,
}

/// What rows are for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Conversations that an agent learns from.
    Policy,
    /// Wins and losses that a verifier learns from.
    Verifier,
    /// A win and a loss at the same task.
    Preference,
    /// From a failing visible test run to a passing one, within an attempt.
    Recovery,
}

impl Kind {
    /// As recipes say it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Verifier => "verifier",
            Self::Preference => "preference",
            Self::Recovery => "recovery",
        }
    }

    /// Whether it takes wins and losses.
    pub fn needs_both(self) -> bool {
        matches!(self, Self::Verifier | Self::Preference)
    }
}

/// Which assistant turns get a loss.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrainOn {
    /// All that the policy said.
    #[default]
    All,
    /// Turns with a call that was understood.
    Understood,
}

/// What becomes of an attempt whose observations were hidden on the way.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Views {
    /// A row for each view: the turns that were said while the same observations were
    /// hidden get a loss there and nowhere else.
    #[default]
    Each,
    /// It is dropped.
    Whole,
}

/// Kinds of policies.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum PolicyKind {
    /// Oracle, search or a person: off-policy for any model.
    Teacher,
    Oracle,
    Search,
    Human,
    Model,
    Endpoint,
    /// Imported.
    Outside,
}

impl PolicyKind {
    /// Whether a policy is of this kind.
    pub fn is(self, policy: &PolicyRef) -> bool {
        match self {
            Self::Teacher => policy.is_teacher(),
            Self::Oracle => matches!(policy, PolicyRef::Oracle),
            Self::Search => matches!(policy, PolicyRef::Search),
            Self::Human => matches!(policy, PolicyRef::Human),
            Self::Model => matches!(policy, PolicyRef::Model { .. }),
            Self::Endpoint => matches!(policy, PolicyRef::Endpoint { .. }),
            Self::Outside => matches!(policy, PolicyRef::Outside { .. }),
        }
    }
}

/// How an attempt was graded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The hidden tests pass.
    Resolved,
    /// They do not.
    Unresolved,
}

/// Who comes first where not all is kept. Ties go by attempt id.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Order {
    /// Fewest steps.
    FewestTurns,
    /// Fewest tokens that the policy said.
    FewestTokens,
    /// Lowest generation and index of the attempt. Not the clock: that differs between runs.
    First,
    /// By a hash of this seed and the attempt.
    Random(u64),
}

/// Over what classes are balanced.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Over all tasks together, as SWE-Gym's notebook does.
    #[default]
    Pooled,
    /// Within each task.
    Task,
}

/// What a sample fills up whole before it begins the next.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Nothing: attempts are drawn one by one.
    Attempt,
    /// Tasks.
    Task,
    /// Repositories.
    Repo,
}

impl Unit {
    /// As recipes say it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Attempt => "attempt",
            Self::Task => "task",
            Self::Repo => "repo",
        }
    }
}

/// A part of a split by repository.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The larger one.
    Train,
    /// What is measured.
    Validation,
}

/// One filter. Bounds are inclusive; a bound that is absent does not bind.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case", deny_unknown_fields)]
pub enum Filter {
    /// How it was graded.
    Outcome {
        /// One of these.
        is: Vec<Outcome>,
    },
    /// Who acted: of one of the kinds or with one of the names.
    Policy {
        /// Kinds.
        #[serde(default)]
        kinds: Vec<PolicyKind>,
        /// Names: checkpoint, model of an endpoint, name of an import.
        #[serde(default)]
        names: Vec<String>,
        /// Take all others instead.
        #[serde(default)]
        not: bool,
    },
    /// The scaffold: its whole name (`codeact/1:native`), or what stands before the version.
    Scaffold {
        /// One of these.
        any: Vec<String>,
    },
    /// Which phase asked for it.
    Purpose {
        /// One of these.
        any: Vec<String>,
    },
    /// Steps.
    Turns {
        /// At least.
        #[serde(default)]
        min: Option<u32>,
        /// At most.
        #[serde(default)]
        max: Option<u32>,
    },
    /// Tokens that the policy said, as sampled or as the endpoint counted.
    Tokens {
        /// At least.
        #[serde(default)]
        min: Option<u64>,
        /// At most.
        #[serde(default)]
        max: Option<u64>,
    },
    /// What its answers cost, US dollars.
    Cost {
        /// At most.
        max: f64,
    },
    /// Drops attempts whose very patch was graded both ways at their task: one of the two
    /// is wrong.
    Agreeing {},
    /// What its conduct showed.
    Findings {
        /// The worst that is let pass.
        allow: Allow,
    },
    /// When it happened: every event of it that counts lies there.
    Dates {
        /// From here, `2026-01-31T00:00:00Z`.
        #[serde(default)]
        from: Option<String>,
        /// Before this.
        #[serde(default)]
        until: Option<String>,
    },
    /// Share of the task's graded attempts that resolve it, over all of the prefix and
    /// whatever other filters say.
    SolveRate {
        /// At least.
        #[serde(default)]
        min: f64,
        /// At most.
        #[serde(default = "one")]
        max: f64,
        /// Tasks with fewer graded attempts are dropped.
        #[serde(default)]
        least: u64,
    },
    /// Repositories.
    Repos {
        /// Only these; empty = all.
        #[serde(default)]
        only: Vec<String>,
        /// None of these.
        #[serde(default)]
        not: Vec<String>,
    },
    /// Side of the experiment.
    Split {
        /// One of these; `held_out` can never be.
        any: Vec<Split>,
    },
    /// The longest row that it would become, in tokens.
    Length {
        /// At most.
        max: u64,
    },
    /// Of attempts whose rows say the same one is kept, the first in an order.
    Dedup {
        /// Who is first.
        #[serde(default = "fewest_turns")]
        keep: Order,
    },
    /// Of attempts at one task that say nearly the same one is kept.
    NearDedup {
        /// Words in a run.
        #[serde(default = "thirteen")]
        ngram: usize,
        /// Share of the shorter one's runs that both have.
        share: f64,
        /// Who is first.
        #[serde(default = "fewest_turns")]
        keep: Order,
    },
    /// At most so many attempts of one task.
    PerTask {
        /// So many; for recipes of both classes, of each.
        most: usize,
        /// Who is first.
        keep: Order,
    },
    /// Share of off-policy attempts: whichever side is too large is thinned out.
    Mix {
        /// Between 0 and 1.
        off_policy: f64,
    },
    /// Losses for each win: the larger class is thinned out.
    Balance {
        /// So many.
        ratio: f64,
        /// Over what.
        #[serde(default)]
        scope: Scope,
    },
    /// One part of a split by repository: a repository is wholly on one side.
    Part {
        /// Which is kept.
        keep: Part,
        /// Share of the repositories that is for validation.
        validation: f64,
    },
    /// A share of the attempts, for curves over the size of a dataset: of equal seeds a
    /// smaller sample is part of each larger one, and however it is drawn it has as many
    /// attempts.
    Sample {
        /// Above 0 and up to 1, of the attempts that are left here; one at least is kept.
        share: f64,
        /// What is filled up before the next is begun; the last one may be cut.
        #[serde(default = "attempt")]
        unit: Unit,
        /// Of the order in which they are drawn; absent = the recipe's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seed: Option<u64>,
    },
    /// At most so many tokens in all; an attempt that does not fit is passed over.
    Budget {
        /// So many.
        tokens: u64,
        /// Who comes first.
        keep: Order,
    },
}

/// The worst finding that is let pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Allow {
    /// Nothing was found.
    None,
    /// Soft ones.
    Soft,
    /// All.
    Hard,
}

impl Allow {
    /// Whether the worst that was found passes.
    pub fn passes(self, worst: Option<Severity>) -> bool {
        match (self, worst) {
            (_, None) | (Self::Hard, _) | (Self::Soft, Some(Severity::Soft)) => true,
            (Self::None, Some(_)) | (Self::Soft, Some(Severity::Hard)) => false,
        }
    }
}

fn one() -> f64 {
    1.0
}
fn thirteen() -> usize {
    13
}
fn attempt() -> Unit {
    Unit::Attempt
}
fn fewest_turns() -> Order {
    Order::FewestTurns
}

impl Filter {
    /// Its name, as recipes and funnels have it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Outcome { .. } => "outcome",
            Self::Policy { .. } => "policy",
            Self::Scaffold { .. } => "scaffold",
            Self::Purpose { .. } => "purpose",
            Self::Turns { .. } => "turns",
            Self::Tokens { .. } => "tokens",
            Self::Cost { .. } => "cost",
            Self::Agreeing {} => "agreeing",
            Self::Findings { .. } => "findings",
            Self::Dates { .. } => "dates",
            Self::SolveRate { .. } => "solve_rate",
            Self::Repos { .. } => "repos",
            Self::Split { .. } => "split",
            Self::Length { .. } => "length",
            Self::Dedup { .. } => "dedup",
            Self::NearDedup { .. } => "near_dedup",
            Self::PerTask { .. } => "per_task",
            Self::Mix { .. } => "mix",
            Self::Balance { .. } => "balance",
            Self::Part { .. } => "part",
            Self::Sample { .. } => "sample",
            Self::Budget { .. } => "budget",
        }
    }

    /// Whether it must know which attempts can be rows: because it looks at what they say, or
    /// because it chooses among attempts (a place in a cap is not wasted on one of which no
    /// row can be made).
    pub fn needs_rows(&self) -> bool {
        matches!(
            self,
            Self::Length { .. }
                | Self::Dedup { .. }
                | Self::NearDedup { .. }
                | Self::PerTask { .. }
                | Self::Mix { .. }
                | Self::Balance { .. }
                | Self::Sample { .. }
                | Self::Budget { .. }
        )
    }
}

impl Recipe {
    /// Reads a recipe, and checks it.
    ///
    /// # Errors
    /// `GT-DATASET-RECIPE`.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        // The version first: what a newer one has besides is not the mistake.
        let table: toml::Table = text
            .parse()
            .map_err(|e: toml::de::Error| wrong(e.to_string()))?;
        match table.get("version").and_then(toml::Value::as_integer) {
            Some(found) if found == i64::from(VERSION) => {}
            Some(found) => {
                return Err(wrong(format!(
                    "it is of version {found}, and this gametape reads version {VERSION}"
                )));
            }
            None => return Err(wrong(format!("it does not say `version = {VERSION}`"))),
        }
        let recipe: Self = toml::from_str(text).map_err(|e| wrong(e.to_string()))?;
        recipe.check()?;
        Ok(recipe)
    }

    /// Digest of what it says, whatever its layout, comments and order of keys. The order
    /// of filters counts.
    pub fn digest(&self) -> Digest {
        // A struct of texts and finite numbers always has a JSON form.
        Digest::of_value(self).unwrap_or_else(|_| Digest::of_bytes(b"unrepresentable recipe"))
    }

    /// Whether a policy is off-policy for what is trained.
    pub fn is_off_policy(&self, policy: &PolicyRef) -> bool {
        if self.on_policy.is_empty() {
            !matches!(policy, PolicyRef::Model { .. })
        } else {
            !self.on_policy.contains(&policy_name(policy))
        }
    }
}

/// A recipe with all that it takes from outside of the tape: what is recorded with a
/// dataset, so that the tape alone rebuilds it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Given {
    /// The recipe.
    pub recipe: Recipe,
    /// Digests of the files that it names.
    #[serde(default)]
    pub inputs: BTreeMap<String, Digest>,
    /// Tasks that overlap with what is measured with, and why. Those that overlap with
    /// held-out tasks of the tape are found anew.
    #[serde(default)]
    pub excluded: BTreeMap<TaskId, String>,
    /// Tokens by attempt, where the recipe gives lengths.
    #[serde(default)]
    pub lengths: BTreeMap<AttemptId, u64>,
}

impl Given {
    /// A recipe that names no files.
    pub fn new(recipe: Recipe) -> Self {
        Self {
            recipe,
            inputs: BTreeMap::new(),
            excluded: BTreeMap::new(),
            lengths: BTreeMap::new(),
        }
    }
}

#[cfg(test)]
#[path = "spec_tests.rs"]
mod tests;
