//! An evaluation as one page of HTML: tables, pictures, and each task with its statement
//! and the patches that were picked.

use super::html::Html;
use crate::evaluate::data::{Arm, Evaluation};
use crate::evaluate::figure::Figure;
use crate::evaluate::gather::{Tape, policy_label, short};
use crate::evaluate::text::{
    CONDUCT, conduct_value, counts_text, fit_lines, interval, is_main, rows, signed, spread_text,
};
use std::collections::{BTreeMap, BTreeSet};

/// Texts of others that the page shows beside the figures.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Texts {
    /// Statements, by task.
    pub statements: BTreeMap<String, String>,
    /// Patches, by attempt.
    pub patches: BTreeMap<String, String>,
}

impl Texts {
    /// Those that the page of an evaluation of these tapes shows.
    pub fn of(tapes: &[Tape], evaluation: &Evaluation) -> Self {
        let lines = || evaluation.arms.iter().flat_map(|arm| &arm.tasks);
        let asked: BTreeSet<&str> = lines().map(|line| line.task.as_str()).collect();
        let picked: BTreeSet<&str> = lines().filter_map(|line| line.picked.as_deref()).collect();
        let mut texts = Self::default();
        for tape in tapes {
            for (id, task) in &tape.tasks {
                if asked.contains(id.as_str()) {
                    let statement = task.statement.clone();
                    texts.statements.insert(id.to_string(), statement);
                }
            }
            for attempt in &tape.attempts {
                if picked.contains(attempt.id.as_str()) {
                    let patch = attempt.patch.clone();
                    texts.patches.insert(attempt.id.to_string(), patch);
                }
            }
        }
        texts
    }
}

/// Writes the page. It needs nothing from outside, and nothing in it acts.
pub fn page(evaluation: &Evaluation, figures: &[Figure], texts: &Texts) -> String {
    let mut html = Html::titled("gametape: evaluation");
    let runs: Vec<String> = evaluation
        .runs
        .iter()
        .map(|r| {
            let versions: Vec<&str> = r.code_versions.iter().map(String::as_str).collect();
            format!(
                "{}: {} events, gametape {}",
                r.name,
                r.events,
                versions.join(", ")
            )
        })
        .collect();
    html.list(&runs);
    html.note(&format!(
        "From tapes alone: nothing was run. Intervals are 95%, bootstrap over tasks, {} resamples, \
         seed {}. Failures of ours are in no figure.",
        evaluation.resamples, evaluation.seed
    ));
    if !evaluation.notes.is_empty() {
        html.heading("To be known");
        html.list(&evaluation.notes);
    }
    if !figures.is_empty() {
        html.heading("Pictures");
    }
    for figure in figures {
        html.picture(&figure.svg, &figure.title);
    }
    comparisons(&mut html, evaluation);
    for arm in &evaluation.arms {
        arm_part(&mut html, arm);
    }
    trainings(&mut html, evaluation);
    html.heading("Tasks");
    for arm in &evaluation.arms {
        tasks(&mut html, arm, texts);
    }
    html.finish()
}

fn strings<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

fn comparisons(html: &mut Html, evaluation: &Evaluation) {
    if let Some(ablation) = &evaluation.ablation {
        html.heading("Ablation");
        let rows: Vec<Vec<String>> = ablation
            .cells
            .iter()
            .map(|(name, cell)| {
                let is_effect = name.starts_with("effect.");
                let over_tasks = match &cell.estimate {
                    Some(e) if is_effect => signed(e),
                    Some(e) => interval(e),
                    None => String::new(),
                };
                vec![name.clone(), spread_text(&cell.spread), over_tasks]
            })
            .collect();
        let picks = format!("%, the verifier picks of {}", ablation.k);
        html.table(
            &[
                picks,
                "over runs and seeds".to_owned(),
                "over tasks".to_owned(),
            ],
            &rows,
        );
    }
    if !evaluation.differences.is_empty() {
        html.heading("Differences, paired by task");
        let rows: Vec<Vec<String>> = evaluation
            .differences
            .iter()
            .map(|one| {
                vec![
                    one.arm.clone(),
                    one.minus.clone(),
                    one.quantity.clone(),
                    one.tasks.to_string(),
                    signed(&one.estimate),
                ]
            })
            .collect();
        html.table(
            &strings(["arm", "minus", "quantity", "tasks", "points"]),
            &rows,
        );
    }
    if let Some(first) = evaluation.gaps.first() {
        html.heading("Between two sets of tasks");
        let [a, b] = &first.sets;
        let rows: Vec<Vec<String>> = evaluation
            .gaps
            .iter()
            .map(|gap| {
                let [one, other] = &gap.estimates;
                let [n, m] = gap.tasks;
                vec![
                    gap.arm.clone(),
                    gap.quantity.clone(),
                    format!("{} ({n} tasks)", interval(one)),
                    format!("{} ({m} tasks)", interval(other)),
                    signed(&gap.difference),
                ]
            })
            .collect();
        html.table(&strings(["arm", "quantity", a, b, "difference"]), &rows);
    }
    if let Some(curve) = &evaluation.training_curve {
        html.heading("Over training trajectories");
        let rows: Vec<Vec<String>> = curve
            .points
            .iter()
            .map(|point| {
                vec![
                    point.arm.clone(),
                    point.rows.to_string(),
                    point.sample.clone().unwrap_or_default(),
                    interval(&point.pass),
                    point.best.as_ref().map_or_else(String::new, interval),
                ]
            })
            .collect();
        let best = format!("Best@{}", curve.k);
        let header = ["arm", "trajectories", "sampled by", "Pass@1", &best];
        html.table(&strings(header), &rows);
        html.list(&fit_lines(curve));
    }
}

fn arm_part(html: &mut Html, arm: &Arm) {
    let setup = &arm.setup;
    html.heading(&arm.label);
    html.paragraph(&format!(
        "{}, {}, temperature {}. {}.",
        policy_label(&setup.policy),
        setup.scaffold,
        setup.sampling.temperature,
        counts_text(&arm.counts)
    ));
    let curves = rows(arm);
    let ks: Vec<usize> = curves.first().map_or_else(Vec::new, |(_, points)| {
        points.iter().map(|point| point.k).collect()
    });
    let mut header = vec!["% of tasks".to_owned()];
    header.extend(ks.iter().map(|k| format!("k = {k}")));
    let table: Vec<Vec<String>> = curves
        .iter()
        .map(|(name, points)| {
            let at = |k: &usize| points.iter().find(|point| point.k == *k);
            let cell = |k: &usize| {
                at(k).map_or_else(String::new, |p| {
                    format!("{}, {} tasks", interval(&p.estimate), p.tasks)
                })
            };
            std::iter::once(name.clone())
                .chain(ks.iter().map(cell))
                .collect()
        })
        .collect();
    if !table.is_empty() {
        html.table(&header, &table);
    }
    let mut figures: Vec<Vec<String>> = CONDUCT
        .iter()
        .filter_map(|(name, is_share, what)| {
            let e = arm.conduct.get(*name)?;
            Some(vec![(*what).to_owned(), conduct_value(*is_share, e)])
        })
        .collect();
    for (name, e) in &arm.verifier {
        let id = setup.verifier.as_deref().map_or("", short);
        let value = format!("{:.3} [{:.3}, {:.3}]", e.mean, e.low, e.high);
        figures.push(vec![format!("verifier {id}, {name}"), value]);
    }
    for (name, points) in &arm.gains {
        for point in points {
            let what = format!("{name} minus random pick at k = {}", point.k);
            figures.push(vec![what, format!("{} points", signed(&point.estimate))]);
        }
    }
    for (name, spread) in arm.spread.iter().filter(|(name, _)| is_main(name)) {
        figures.push(vec![
            format!("{name} over runs and seeds"),
            spread_text(spread),
        ]);
    }
    html.table(&strings(["", "value"]), &figures);
}

fn trainings(html: &mut Html, evaluation: &Evaluation) {
    if evaluation.trainings.is_empty() {
        return;
    }
    html.heading("Trainings");
    let rows: Vec<Vec<String>> = evaluation
        .trainings
        .iter()
        .map(|t| {
            vec![
                t.name.clone(),
                short(&t.base).to_owned(),
                short(&t.dataset).to_owned(),
                t.rows.map_or_else(String::new, |rows| rows.to_string()),
                short(&t.checkpoint).to_owned(),
            ]
        })
        .collect();
    html.table(
        &strings(["training", "from", "dataset", "rows", "made"]),
        &rows,
    );
}

fn tasks(html: &mut Html, arm: &Arm, texts: &Texts) {
    html.subheading(&arm.label);
    for line in &arm.tasks {
        let summary = format!(
            "{} · {} of {} resolved{}",
            line.task,
            line.resolved,
            line.attempts,
            match line.infrastructure {
                0 => String::new(),
                n => format!(" · {n} failures of ours"),
            }
        );
        let mut blocks = Vec::new();
        if let Some(statement) = texts.statements.get(&line.task) {
            blocks.push((format!("Statement ({})", line.repo), statement.clone()));
        }
        if let Some(id) = &line.picked
            && let Some(patch) = texts.patches.get(id)
        {
            let title = format!("The verifier's pick, attempt {}", short(id));
            let patch = if patch.is_empty() { "(empty)" } else { patch };
            blocks.push((title, patch.to_owned()));
        }
        let values: Vec<String> = line
            .values
            .iter()
            .map(|(name, value)| format!("{name} {value:.3}"))
            .collect();
        blocks.push(("Expectations".to_owned(), values.join("\n")));
        html.details(&summary, &blocks);
    }
}
