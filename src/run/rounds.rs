//! Rounds of the policy: datasets by a recipe, and the guard's decision.

use super::driver::{Driver, internal};
use super::progress::Phase;
use crate::config::RoundsConfig;
use crate::datasets::voices;
use crate::report::rounds::{GUARD, Pair, judge};
use gametape_schemas::event::{DatasetBuilt, Decision, NewEvent, RoundDecided};
use gametape_schemas::recipe::{Built, Given, Kind, Options, Records, Row, build};
use gametape_schemas::{CheckpointId, DatasetRow, Event, Failure, FailureKind, Record, StreamId};
use gametape_supervisor::{Lesson, is_guard};

impl Driver {
    /// The rounds of the configuration.
    fn rounds(&self) -> Result<&RoundsConfig, Failure> {
        let rounds = self.config.rounds.as_ref();
        rounds.ok_or_else(|| internal("a round was asked for, and none is configured"))
    }

    /// Folds the recipe of a round over everything on the tape. Tasks of the guard never
    /// become rows, whatever the recipe says.
    pub(super) async fn build_round(&mut self, round: u32) -> Result<(), Failure> {
        let name = Lesson::Policy(round).name();
        let mut phase = Phase::begin(format!("dataset: {name}"), 1);
        let mut given = Given::new(self.rounds()?.recipe.clone());
        let tasks = self.state.ledger.tasks.values();
        for task in tasks.filter(|task| is_guard(&self.plan, task)) {
            given.excluded.insert(task.id.clone(), GUARD.to_owned());
        }
        let built = build(
            &given,
            &Records(&self.records),
            &voices()?,
            Options::default(),
        )?;
        if let Err(failure) = built.usable(Kind::Policy) {
            if failure.code != "GT-DATASET-EMPTY" {
                return Err(failure);
            }
            eprintln!("warning: round {round} has nothing to learn from: {failure}");
            return self.skip_round(round, failure.message).await;
        }
        let rows = chat_rows(&built)?;
        self.refuse_overlap(&rows)?;
        let digest = built.sum.digest.clone();
        phase.inc(format!("{} rows, {}", rows.len(), digest.short()));
        self.append(vec![NewEvent::named(
            StreamId::dataset(&name),
            "built",
            Event::DatasetBuilt(DatasetBuilt {
                name,
                recipe_json: serde_json::to_string(&given).map_err(internal)?,
                prefix_end: self.state.end,
                digest,
                rows: rows.len() as u64,
                dropped: built.dropped(),
                labels: built.labels(),
            }),
        )])
        .await
    }

    /// Closes a round that has no candidate: the loop goes on with the policy that it has.
    async fn skip_round(&mut self, round: u32, reason: String) -> Result<(), Failure> {
        let before = self.state.rounds.range(..round);
        let incumbent = before
            .filter(|(_, body)| body.decision == Decision::Promoted)
            .filter_map(|(_, body)| body.candidate.clone())
            .next_back()
            .unwrap_or_else(|| self.plan.base.clone());
        self.close_round(RoundDecided {
            round,
            incumbent,
            candidate: None,
            decision: Decision::NothingToLearn,
            tasks: 0,
            incumbent_pass: None,
            candidate_pass: None,
            gain: None,
            tolerance: self.rounds()?.tolerance,
            reason,
        })
        .await
    }

    /// Lets the guard decide on the candidate of a round.
    pub(super) async fn judge(
        &mut self,
        round: u32,
        incumbent: &CheckpointId,
        candidate: &CheckpointId,
    ) -> Result<(), Failure> {
        let pair = Pair {
            round,
            incumbent,
            candidate,
        };
        let tolerance = self.rounds()?.tolerance;
        let decided = judge(&self.state.ledger, pair, tolerance, self.config.seed);
        let mut phase = Phase::begin(format!("guard: round {round}"), 1);
        phase.inc(format!("{}, {}", decided.decision.as_str(), decided.reason));
        self.close_round(decided).await
    }

    async fn close_round(&mut self, decided: RoundDecided) -> Result<(), Failure> {
        let stream = StreamId::training(&Lesson::Policy(decided.round).name());
        self.append(vec![NewEvent::named(
            stream,
            "decided",
            Event::RoundDecided(decided),
        )])
        .await
    }
}

/// Rebuilds a round's dataset from the prefix that it was built from, by the recipe that lies
/// with it.
pub(super) fn rebuild(
    built: &DatasetBuilt,
    records: &[Record],
) -> Result<(Vec<DatasetRow>, gametape_schemas::Digest), Failure> {
    let given: Given = serde_json::from_str(&built.recipe_json).map_err(internal)?;
    let end = records.partition_point(|record| record.seq < built.prefix_end);
    let prefix = Records(records.get(..end).unwrap_or(records));
    let again = build(&given, &prefix, &voices()?, Options::default())?;
    Ok((chat_rows(&again)?, again.sum.digest))
}

fn chat_rows(built: &Built) -> Result<Vec<DatasetRow>, Failure> {
    let rows = built.rows.iter().map(|row| match &row.row {
        Row::Chat(row) => Ok(row.clone()),
        Row::Recovery(_) | Row::Preference(_) => Err(Failure::new(
            FailureKind::Input,
            "GT-CONFIG-VALUE",
            "rounds.recipe makes rows that the policy cannot be trained on",
        )
        .with_help("write kind = \"policy\" in [rounds.recipe]")),
    });
    rows.collect()
}
