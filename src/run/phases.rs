//! How long each phase took, over all processes of a run, read off the tape: the time
//! between two neighbouring events belongs to the phase of the later one. The pause
//! before a resumption belongs to nothing.

use gametape_schemas::{Event, Record};
use std::collections::BTreeMap;

/// Wall seconds by phase.
pub fn seconds_by_phase(records: &[Record]) -> BTreeMap<String, f64> {
    let mut seconds = BTreeMap::new();
    let mut purposes = BTreeMap::new();
    let mut last: Option<u64> = None;
    for record in records {
        if let Event::AttemptScheduled(body) = &record.event {
            purposes.insert(body.attempt.clone(), body.purpose.clone());
        }
        let purpose = |attempt| purposes.get(attempt).map_or("attempts", String::as_str);
        let phase = match &record.event {
            Event::TaskRegistered(_)
            | Event::TaskValidated(_)
            | Event::TaskQuarantined(_)
            | Event::TaskChecked(_)
            | Event::ForgeFinished(_) => "forge".to_owned(),
            Event::EnvironmentProvisioned(_) => "provision".to_owned(),
            Event::AttemptScheduled(body) => body.purpose.clone(),
            Event::SandboxOpened(body) => purpose(&body.attempt).to_owned(),
            Event::SandboxClosed(body) => purpose(&body.attempt).to_owned(),
            Event::StepTaken(body) => purpose(&body.attempt).to_owned(),
            Event::PatchSubmitted(body) => purpose(&body.end.attempt).to_owned(),
            Event::TrajectoryImported(body) => purpose(&body.attempt).to_owned(),
            Event::AttemptReplayed(body) => purpose(&body.attempt).to_owned(),
            Event::AttemptAbandoned(body) => purpose(&body.attempt).to_owned(),
            Event::AttemptFailed(body) => purpose(&body.attempt).to_owned(),
            Event::TestsRan(body) => format!("grade {}", purpose(&body.attempt)),
            Event::Graded(body) => format!("grade {}", purpose(&body.attempt)),
            Event::Regraded(body) => format!("grade {}", purpose(&body.attempt)),
            Event::ConductExamined(body) => format!("grade {}", purpose(&body.attempt)),
            Event::VerifierScored(_) => "score".to_owned(),
            Event::DatasetBuilt(_) => "datasets".to_owned(),
            Event::TrainingStarted(body) => format!("train {}", body.name),
            Event::TrainingProgressed(body) => format!("train {}", body.name),
            Event::CheckpointWritten(body) => format!("train {}", body.name),
            Event::TrainingFinished(body) => format!("train {}", body.name),
            Event::RoundDecided(_) => "guard".to_owned(),
            Event::EvaluationStarted(_)
            | Event::SelectionMade(_)
            | Event::EvaluationFinished(_) => "estimate".to_owned(),
            Event::RunStarted(_)
            | Event::ConfigResolved(_)
            | Event::RunResumed(_)
            | Event::RunPaused(_)
            | Event::RunFinished(_)
            | Event::ActorDied(_)
            | Event::ActorRestarted(_) => "other".to_owned(),
        };
        let resumed = matches!(&record.event, Event::RunResumed(_));
        if let (Some(last), false) = (last, resumed) {
            let gap = record.at_micros.saturating_sub(last);
            *seconds.entry(phase).or_insert(0.0) += gap as f64 / 1e6;
        }
        last = Some(record.at_micros);
    }
    seconds
}
