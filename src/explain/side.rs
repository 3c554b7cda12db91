//! One measurement: an arm of an evaluation, and how one attempt of several is picked.

use crate::evaluate::data::{Arm, Evaluation};
use gametape_schemas::{Failure, FailureKind};
use gametape_verifier::estimate::Selector;
use std::path::PathBuf;

/// How one attempt of several is picked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pick {
    /// The only one there is: Pass@1.
    Single,
    /// By a rule, of this many.
    By(Selector, usize),
}

impl Pick {
    /// Name of the quantity in an evaluation's tables of tasks.
    pub fn quantity(self) -> String {
        match self {
            Self::Single => "pass@1".to_owned(),
            Self::By(rule, k) => format!("{}@{k}", rule.name()),
        }
    }

    /// Attempts that it picks from.
    pub fn k(self) -> usize {
        match self {
            Self::Single => 1,
            Self::By(_, k) => k,
        }
    }

    /// Whether the verifier picks.
    pub fn is_verifiers(self) -> bool {
        matches!(self, Self::By(Selector::Verifier, _))
    }
}

/// What a person wrote: `PATH[#ARM][,RULE@K]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Name {
    /// The directory of a run, or an `evaluation.json`.
    pub path: PathBuf,
    /// The arm, by its name or a part of it.
    pub arm: Option<String>,
    /// How one attempt is picked.
    pub pick: Pick,
}

impl std::str::FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (path, rest) = match text.split_once('#') {
            Some((path, rest)) => (path, Some(rest)),
            None => (text, None),
        };
        if path.is_empty() {
            return Err("it begins with the directory of a run or an evaluation.json".to_owned());
        }
        let (arm, pick) = match rest {
            None => ("", None),
            Some(rest) => match rest.rsplit_once(',') {
                Some((arm, pick)) => (arm, Some(pick)),
                None => (rest, None),
            },
        };
        Ok(Self {
            path: PathBuf::from(path),
            arm: (!arm.is_empty()).then(|| arm.to_owned()),
            pick: pick.map_or(Ok(Pick::Single), pick_of)?,
        })
    }
}

fn pick_of(text: &str) -> Result<Pick, String> {
    if text == "single" {
        return Ok(Pick::Single);
    }
    let read = || {
        let (rule, k) = text.split_once('@')?;
        let k = k.parse().ok().filter(|k| *k > 0)?;
        Some(Pick::By(Selector::of_name(rule)?, k))
    };
    read().ok_or_else(|| {
        let names: Vec<&str> = Selector::ALL.iter().map(|rule| rule.name()).collect();
        format!(
            "`{text}` is no way to pick: `single`, or RULE@K with a rule of {}",
            names.join(", ")
        )
    })
}

/// One measurement.
#[derive(Clone, PartialEq, Debug)]
pub struct Side {
    /// The attempts and what decides them.
    pub arm: Arm,
    /// How one is picked.
    pub pick: Pick,
    /// Configurations of its tapes, by dotted name; settings that differ between its own
    /// tapes are joined.
    pub settings: std::collections::BTreeMap<String, String>,
    /// Its tapes: name and content digest (empty where it is not known).
    pub tapes: Vec<(String, String)>,
}

impl Side {
    /// The arm that a name means.
    ///
    /// # Errors
    /// `GT-EXPLAIN-SIDE` when it is none or several, or has not the quantity.
    pub fn of(evaluation: &Evaluation, name: &Name) -> Result<Self, Failure> {
        let labels = || -> String {
            let labels: Vec<String> = evaluation
                .arms
                .iter()
                .map(|arm| format!("`{}`", arm.label))
                .collect();
            labels.join(", ")
        };
        let path = name.path.display();
        let exact = |arm: &&Arm| name.arm.as_deref() == Some(arm.label.as_str());
        let part = |arm: &&Arm| {
            name.arm
                .as_deref()
                .is_none_or(|part| arm.label.contains(part))
        };
        let mut meant: Vec<&Arm> = evaluation.arms.iter().filter(exact).collect();
        if meant.is_empty() {
            meant = evaluation.arms.iter().filter(part).collect();
        }
        let arm = match meant.as_slice() {
            [one] => *one,
            [] => {
                return Err(wrong(format!(
                    "{path} has no such arm; it has {}",
                    labels()
                )));
            }
            _ => {
                return Err(wrong(format!(
                    "{path} has several arms that are meant: {}",
                    labels()
                )));
            }
        };
        let quantity = name.pick.quantity();
        if !arm
            .tasks
            .iter()
            .any(|task| task.values.contains_key(&quantity))
        {
            return Err(wrong(format!(
                "no task of `{}` in {path} has {quantity}: it has {} to {} attempts a task{}",
                arm.label,
                arm.counts.least,
                arm.counts.most,
                match (&arm.setup.verifier, name.pick.is_verifiers()) {
                    (None, true) => ", and no verifier scored them",
                    _ => "",
                }
            )));
        }
        let mut settings = std::collections::BTreeMap::<String, String>::new();
        let own = evaluation
            .runs
            .iter()
            .filter(|run| arm.setup.runs.contains(&run.name));
        for (key, value) in own.flat_map(|run| &run.settings) {
            let known = settings.entry(key.clone()).or_insert_with(|| value.clone());
            if known != value {
                *known = format!("{known} | {value}");
            }
        }
        let own = evaluation
            .runs
            .iter()
            .filter(|run| arm.setup.runs.contains(&run.name));
        Ok(Self {
            arm: arm.clone(),
            pick: name.pick,
            settings,
            tapes: own
                .map(|run| (run.name.clone(), run.digest.clone()))
                .collect(),
        })
    }
}

fn wrong(message: String) -> Failure {
    Failure::new(FailureKind::Input, "GT-EXPLAIN-SIDE", message).with_help(
        "name an arm after `#` and a way to pick after a comma, as in \
         `run#evaluate-tuned,verifier@8`; `gametape evaluate` shows both",
    )
}
