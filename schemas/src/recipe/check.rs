//! What a recipe cannot say, beyond what its types refuse.

use super::date;
use super::spec::{Filter, Kind, Outcome, Recipe, VERSION};
use crate::failure::{Failure, FailureKind};
use crate::task::Split;

impl Filter {
    /// Why it can never select anything, or not what it seems to.
    fn wrong(&self) -> Option<String> {
        let share = |name: &str, n: f64| {
            (!(0.0..=1.0).contains(&n))
                .then(|| format!("`{name}` is {n}, and a share lies from 0 to 1"))
        };
        let none = |name: &str, empty: bool| {
            empty.then(|| format!("`{name}` is empty: it drops everything"))
        };
        let backwards = |min: u64, max: u64| {
            (min > max).then(|| format!("`min` {min} is above `max` {max}: it drops everything"))
        };
        match self {
            Self::Outcome { is } => none("is", is.is_empty()),
            Self::Policy { kinds, names, .. } => {
                none("kinds` and `names", kinds.is_empty() && names.is_empty())
            }
            Self::Scaffold { any } | Self::Purpose { any } => none("any", any.is_empty()),
            Self::Turns { min, max } => {
                backwards(min.unwrap_or(0).into(), max.unwrap_or(u32::MAX).into())
            }
            Self::Tokens { min, max } => backwards(min.unwrap_or(0), max.unwrap_or(u64::MAX)),
            Self::Cost { max } => (max.is_nan() || *max < 0.0)
                .then(|| format!("`max` is {max}: no attempt costs less than 0")),
            Self::Dates { from, until } => dates(from.as_deref(), until.as_deref()),
            Self::SolveRate { min, max, .. } => share("min", *min)
                .or_else(|| share("max", *max))
                .or_else(|| {
                    (min > max)
                        .then(|| format!("`min` {min} is above `max` {max}: it drops everything"))
                }),
            Self::Repos { only, not } => {
                let all = !only.is_empty() && only.iter().all(|repo| not.contains(repo));
                all.then(|| "every repository of `only` is in `not`, too".to_owned())
            }
            Self::Split { any } if any.contains(&Split::HeldOut) => Some(
                "tasks that are held out are for evaluation: no recipe can take them".to_owned(),
            ),
            Self::Split { any } => none("any", any.is_empty()),
            Self::NearDedup {
                ngram, share: s, ..
            } => {
                let short = (*ngram == 0).then(|| "`ngram` is 0".to_owned());
                let s = (!(*s > 0.0 && *s <= 1.0))
                    .then(|| format!("`share` is {s}, and it lies above 0 and up to 1"));
                short.or(s)
            }
            Self::PerTask { most, .. } => {
                (*most == 0).then(|| "`most` is 0: it drops everything".to_owned())
            }
            Self::Mix { off_policy } => share("off_policy", *off_policy),
            Self::Balance { ratio, .. } => (!(ratio.is_finite() && *ratio > 0.0))
                .then(|| format!("`ratio` is {ratio}, and it must be above 0")),
            Self::Part { validation, .. } => share("validation", *validation),
            Self::Sample { share: s, .. } => (!(*s > 0.0 && *s <= 1.0))
                .then(|| format!("`share` is {s}, and it lies above 0 and up to 1")),
            Self::Budget { tokens, .. } => {
                (*tokens == 0).then(|| "`tokens` is 0: it drops everything".to_owned())
            }
            Self::Length { max } => {
                (*max == 0).then(|| "`max` is 0: it drops everything".to_owned())
            }
            Self::Agreeing {} | Self::Findings { .. } | Self::Dedup { .. } => None,
        }
    }
}

fn dates(from: Option<&str>, until: Option<&str>) -> Option<String> {
    let read = |text: Option<&str>| text.map(date::micros).transpose();
    match (read(from), read(until)) {
        (Err(why), _) | (_, Err(why)) => Some(why),
        (Ok(Some(from)), Ok(Some(until))) if from >= until => {
            Some("`from` is not before `until`: it drops everything".to_owned())
        }
        (Ok(None), Ok(None)) => Some("neither `from` nor `until` is given".to_owned()),
        _ => None,
    }
}

impl Recipe {
    /// Checks what types cannot say.
    ///
    /// # Errors
    /// `GT-DATASET-RECIPE` names the first filter that cannot be used, or filters that
    /// contradict one another.
    pub fn check(&self) -> Result<(), Failure> {
        if self.version != VERSION {
            return Err(wrong(format!(
                "it is of version {}, and this gametape reads version {VERSION}",
                self.version
            )));
        }
        for (at, filter) in self.filters.iter().enumerate() {
            if let Some(why) = filter.wrong() {
                return Err(wrong(format!(
                    "filter {} (`{}`): {why}",
                    at + 1,
                    filter.name()
                )));
            }
        }
        let outcomes = self.filters.iter().filter_map(|filter| match filter {
            Filter::Outcome { is } => Some(is),
            _ => None,
        });
        let passes = |wanted| {
            outcomes
                .clone()
                .all(|is: &Vec<Outcome>| is.contains(&wanted))
        };
        let (wins, losses) = (passes(Outcome::Resolved), passes(Outcome::Unresolved));
        if !wins && !losses {
            return Err(wrong(
                "its `outcome` filters contradict one another: nothing is resolved and unresolved",
            ));
        }
        if self.kind.needs_both() && !(wins && losses) {
            return Err(wrong(format!(
                "a {} dataset is of wins and losses, and an `outcome` filter drops one of them",
                self.kind.as_str()
            )));
        }
        if self.kind == Kind::Policy && outcomes.clone().next().is_none() {
            return Err(wrong(
                "a policy dataset says what it learns from: add `[[filter]]` with `by = \"outcome\"` and `is = [\"resolved\"]`",
            ));
        }
        if !self.kind.needs_both()
            && self
                .filters
                .iter()
                .any(|f| matches!(f, Filter::Balance { .. }))
            && !(wins && losses)
        {
            return Err(wrong(
                "`balance` has two classes, and an `outcome` filter drops one of them",
            ));
        }
        let splits = self.filters.iter().filter_map(|filter| match filter {
            Filter::Split { any } => Some(any),
            _ => None,
        });
        let reachable = [Split::Train, Split::Explore]
            .iter()
            .any(|split| splits.clone().all(|any| any.contains(split)));
        if !reachable {
            return Err(wrong("its `split` filters contradict one another"));
        }
        Ok(())
    }
}

/// The failure of a recipe.
pub(super) fn wrong(what: impl Into<String>) -> Failure {
    Failure::new(
        FailureKind::Input,
        "GT-DATASET-RECIPE",
        format!("the recipe cannot be used: {}", what.into()),
    )
    .with_help("docs/datasets.md lists every key, with examples")
}
