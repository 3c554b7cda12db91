//! The causal chain: lever, setup, result, artifacts, implication.

use super::levers::{Comparison, Held, Lever, Moved, compare};
use super::side::Side;
use crate::evaluate::compare::pairs;
use crate::evaluate::data::Arm;
use crate::evaluate::measure::Dice;
use gametape_schemas::Digest;
use gametape_schemas::event::Estimate;
use gametape_verifier::estimate::bootstrap_difference;
use serde::{Deserialize, Serialize};

/// Tasks below which an interval by resampling is not to be trusted.
const FEW_TASKS: usize = 20;

/// Why the number moved.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Explanation {
    /// The first measurement: arm and quantity.
    pub a: String,
    /// The second.
    pub b: String,
    /// What moved.
    pub moved: Vec<Moved>,
    /// What was held fixed.
    pub held: Vec<Held>,
    /// What cannot be told.
    pub unsure: Vec<String>,
    /// The difference; absent where there is nothing to take it of.
    pub result: Option<Outcome>,
    /// Who gets the credit.
    pub credit: Credit,
    /// What is left of both, by digest.
    pub artifacts: Vec<Artifact>,
    /// What it means, and what it does not show.
    pub implication: Vec<String>,
}

/// Second minus first.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// Mean of the first.
    pub a: f64,
    /// Mean of the second.
    pub b: f64,
    /// The difference with its interval.
    pub difference: Estimate,
    /// Tasks.
    pub tasks: usize,
    /// Whether it is paired by task.
    pub paired: bool,
}

impl Outcome {
    /// Whether the interval leaves zero out.
    pub fn is_shown(&self) -> bool {
        self.difference.low > 0.0 || self.difference.high < 0.0
    }
}

/// Who gets the credit for a difference.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "credit", content = "lever")]
pub enum Credit {
    /// This lever: it alone moved, and the interval leaves zero out.
    Lever(Lever),
    /// One lever moved, and nothing is shown of it.
    NothingShown,
    /// No lever moved: two measurements of the same.
    NothingMoved,
    /// More than one moved: nobody.
    Refused,
    /// There is no difference to credit.
    NoResult,
}

/// A thing that is left.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Artifact {
    /// Whose and what: `a: dataset`.
    pub what: String,
    /// Its digest or id.
    pub digest: String,
}

/// Explains the second by the first.
pub fn explain(a: &Side, b: &Side, dice: Dice) -> Explanation {
    let compared = compare(a, b);
    let result = result(a, b, dice);
    let levers: Vec<Lever> = compared.levers().into_iter().collect();
    let credit = match (levers.as_slice(), &result) {
        (_, None) if levers.len() < 2 => Credit::NoResult,
        ([], _) => Credit::NothingMoved,
        ([one], Some(result)) if result.is_shown() => Credit::Lever(*one),
        ([_], _) => Credit::NothingShown,
        _ => Credit::Refused,
    };
    let name = |side: &Side| format!("{}, {}", side.arm.label, side.pick.quantity());
    Explanation {
        a: name(a),
        b: name(b),
        implication: implication(credit, &levers, &compared, result.as_ref(), (a, b)),
        moved: compared.moved,
        held: compared.held,
        unsure: compared.unsure,
        result,
        credit,
        artifacts: artifacts(a, "a")
            .into_iter()
            .chain(artifacts(b, "b"))
            .collect(),
    }
}

fn result(a: &Side, b: &Side, dice: Dice) -> Option<Outcome> {
    let (of_a, of_b) = (a.pick.quantity(), b.pick.quantity());
    let pairs = pairs_of(&b.arm, &of_b, &a.arm, &of_a);
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    if !pairs.is_empty() {
        let (second, first): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
        return Some(Outcome {
            a: mean(&first),
            b: mean(&second),
            difference: dice.paired("explain", &pairs)?,
            tasks: pairs.len(),
            paired: true,
        });
    }
    let values = |arm: &Arm, quantity: &str| -> Vec<f64> {
        arm.tasks
            .iter()
            .filter_map(|t| t.values.get(quantity).copied())
            .collect()
    };
    let (first, second) = (values(&a.arm, &of_a), values(&b.arm, &of_b));
    let mut rng = dice.of("explain");
    let difference = bootstrap_difference(&second, &first, dice.resamples, &mut rng)?;
    Some(Outcome {
        a: mean(&first),
        b: mean(&second),
        difference,
        tasks: first.len() + second.len(),
        paired: false,
    })
}

/// Values of two quantities on the tasks that have both.
fn pairs_of(a: &Arm, of_a: &str, b: &Arm, of_b: &str) -> Vec<(f64, f64)> {
    if of_a == of_b {
        return pairs(&a.tasks, &b.tasks, of_a);
    }
    let find = |task: &str| {
        b.tasks
            .iter()
            .find(|t| t.task == task)?
            .values
            .get(of_b)
            .copied()
    };
    let both = a
        .tasks
        .iter()
        .filter_map(|t| Some((*t.values.get(of_a)?, find(&t.task)?)));
    both.collect()
}

fn artifacts(side: &Side, whose: &str) -> Vec<Artifact> {
    let mut all = Vec::new();
    let mut add = |what: &str, digest: &str| {
        if !digest.is_empty() {
            all.push(Artifact {
                what: format!("{whose}: {what}"),
                digest: digest.to_owned(),
            });
        }
    };
    for (name, digest) in &side.tapes {
        add(&format!("tape {name}"), digest);
    }
    for training in &side.arm.setup.ancestry {
        add("weights", &training.checkpoint);
        add("dataset", &training.dataset);
    }
    if side.pick.is_verifiers() {
        add("verifier", side.arm.setup.verifier.as_deref().unwrap_or(""));
        for training in &side.arm.setup.verifier_ancestry {
            add("verifier's dataset", &training.dataset);
        }
    }
    // What the difference was computed from.
    let digest = Digest::of_value(&side.arm.tasks);
    add(
        "results by task",
        digest.as_ref().map_or("", |d| d.0.as_str()),
    );
    all
}

fn implication(
    credit: Credit,
    levers: &[Lever],
    compared: &Comparison,
    result: Option<&Outcome>,
    (a, b): (&Side, &Side),
) -> Vec<String> {
    let mut said = Vec::new();
    let points = |value: f64| format!("{:+.1} points", 100.0 * value);
    match (credit, result) {
        (Credit::Lever(lever), Some(result)) => said.push(format!(
            "Of what the tapes say, only the {} changed, and with it the number: {}.",
            lever.name(),
            points(result.difference.mean)
        )),
        (Credit::NothingShown, Some(result)) => {
            let lever = levers.first().map_or("", |lever| lever.name());
            let width = result.difference.high - result.difference.low;
            said.push(format!(
                "Nothing is shown: the interval holds zero. Whatever the {lever} did is smaller \
                 than {} tasks can tell (the interval is {:.1} points wide), in either direction.",
                result.tasks,
                100.0 * width
            ));
        }
        (Credit::NothingMoved, Some(result)) if result.is_shown() => said.push(format!(
            "Nothing that the tapes name changed, and yet the number did: {}. Something that \
             they do not name did it, or the draw of attempts.",
            points(result.difference.mean)
        )),
        (Credit::NothingMoved, _) => said.push(
            "Nothing changed, and no difference is shown: two measurements of the same.".to_owned(),
        ),
        (Credit::Refused, _) => {
            let names: Vec<&str> = levers.iter().map(|lever| lever.name()).collect();
            said.push(format!(
                "No credit: {} levers moved at once ({}). The difference belongs to all of them \
                 together. Measure again with one of them moved.",
                names.len(),
                names.join(", ")
            ));
        }
        (_, _) => said.push("There is no task with both numbers: nothing can be said.".to_owned()),
    }
    if let Some(result) = result {
        if result.paired && result.tasks < FEW_TASKS {
            said.push(format!(
                "{} tasks are few: an interval by resampling them is too narrow.",
                result.tasks
            ));
        }
        if !result.paired {
            said.push(
                "The sides have no task in common: how hard the tasks are is in the difference."
                    .to_owned(),
            );
        }
    }
    let trained = |lever| compared.moved.iter().any(|m| m.lever == lever);
    if trained(Lever::AgentWeights) || trained(Lever::Data) || trained(Lever::Verifier) {
        said.push(
            "It does not show what another training with another seed would give: the interval \
             is over tasks, and there is one training of each."
                .to_owned(),
        );
    }
    let lost = |side: &Side| side.arm.counts.infrastructure;
    if lost(a) != lost(b) {
        said.push(format!(
            "Failures of ours took {} attempts of the first and {} of the second. They count on \
             neither side; if they strike hard tasks more often, they bias both numbers.",
            lost(a),
            lost(b)
        ));
    }
    said.push(
        "It does not show anything of other tasks, other scaffolds or other samplings.".to_owned(),
    );
    said
}

impl Explanation {
    /// Whether a lever was refused its credit.
    pub fn is_refused(&self) -> bool {
        self.credit == Credit::Refused
    }
}
