//! Bodies as earlier versions of gametape wrote them, and their way to today's. Pure.
//!
//! To change the body of an event:
//! 1. Copy its struct here under the name of its version ([`AttemptAbandonedV1`] is the
//!    first), private, with the fields that it has now. It never changes again.
//! 2. Change the struct in [`crate::event`], and raise its version in `events!`.
//! 3. Write the function that goes from that version to the next, and name it in
//!    [`step`]. A function goes up one version; [`crate::codec`] calls one after another.
//!    When a later change makes its target old, it goes to the copy made then.
//! 4. The golden bytes of the old version stay, with what they are read as now;
//!    `GAMETAPE_BLESS=1 cargo test -p gametape-tape --test golden` adds the new ones.

use crate::codec::CodecError;
use crate::divergence::{Diverged, Divergence, first_difference};
use crate::event::{ActorDied, AttemptAbandoned, DeathCause, Graded, TaskRegistered};
use crate::ids::{AttemptId, Digest};
use crate::task::Task;
use crate::verdict::Verdict;
use serde::Deserialize;

/// Takes a body of one version and gives it in the next.
pub(crate) type Upcaster = fn(&[u8]) -> Result<Vec<u8>, CodecError>;

/// What takes a body of event type `kind` from version `from` to the next.
pub(crate) fn step(kind: &str, from: u16) -> Option<Upcaster> {
    match (kind, from) {
        ("ActorDied", 1) => Some(actor_died_1),
        ("AttemptAbandoned", 1) => Some(attempt_abandoned_1),
        ("CheckpointWritten", 1) => Some(same_bytes),
        ("Graded", 1) => Some(graded_1),
        ("StepTaken", 1) => Some(step_taken_1),
        ("TaskRegistered", 1) => Some(task_registered_1),
        ("TrainingFinished", 1) => Some(same_bytes),
        ("TrainingProgressed", 1) => Some(same_bytes),
        ("TrainingStarted", 1) => Some(same_bytes),
        _ => None,
    }
}

/// Version 1 of [`AttemptAbandoned`].
#[derive(Deserialize)]
struct AttemptAbandonedV1 {
    attempt: AttemptId,
    step: u32,
    /// One of `call`, `observation` and `exit_code`: a name of today's type.
    field: Diverged,
    /// The first 400 characters.
    recorded: String,
    /// Likewise.
    replayed: String,
}

/// Version 2 has the difference as a type, and the rules of the comparison. The texts
/// stay as they are. The line is where their beginnings differ; if they do not, the
/// difference lay beyond and nobody knows.
fn attempt_abandoned_1(body: &[u8]) -> Result<Vec<u8>, CodecError> {
    let old: AttemptAbandonedV1 = rmp_serde::from_slice(body)?;
    let line = match old.field {
        Diverged::Call | Diverged::Observation => first_difference(&old.recorded, &old.replayed)
            .and_then(|place| u32::try_from(place.line + 1).ok()),
        Diverged::ExitCode | Diverged::Ended => None,
    };
    Ok(rmp_serde::to_vec_named(&AttemptAbandoned {
        attempt: old.attempt,
        step: old.step,
        divergence: Divergence {
            field: old.field,
            line,
            recorded: old.recorded,
            replayed: old.replayed,
        },
        rules: Vec::new(),
        rules_version: "none".to_owned(),
    })?)
}

/// Version 1 of [`ActorDied`].
#[derive(Deserialize)]
struct ActorDiedV1 {
    actor: String,
    panicked: bool,
    deaths: u32,
}

/// Version 2 has the cause as a type. Hangs and renewals were not noticed before it.
fn actor_died_1(body: &[u8]) -> Result<Vec<u8>, CodecError> {
    let old: ActorDiedV1 = rmp_serde::from_slice(body)?;
    let cause = match old.panicked {
        true => DeathCause::Panic,
        false => DeathCause::Stop,
    };
    Ok(rmp_serde::to_vec_named(&ActorDied {
        actor: old.actor,
        cause,
        deaths: old.deaths,
    })?)
}

/// Version 1 of [`Graded`].
#[derive(Deserialize)]
struct GradedV1 {
    attempt: AttemptId,
    cache_key: Digest,
    cached: bool,
    verdict: Verdict,
}

/// Version 2 says whose rules decided.
fn graded_1(body: &[u8]) -> Result<Vec<u8>, CodecError> {
    let old: GradedV1 = rmp_serde::from_slice(body)?;
    Ok(rmp_serde::to_vec_named(&Graded {
        attempt: old.attempt,
        cache_key: old.cache_key,
        cached: old.cached,
        rules: "unrecorded".to_owned(),
        verdict: old.verdict,
    })?)
}

/// Version 1 of [`TaskRegistered`].
#[derive(Deserialize)]
struct TaskRegisteredV1 {
    task: Task,
}

/// Version 2 has imported tasks; before it all were forged, and none said how its tests
/// run.
fn task_registered_1(body: &[u8]) -> Result<Vec<u8>, CodecError> {
    let old: TaskRegisteredV1 = rmp_serde::from_slice(body)?;
    Ok(rmp_serde::to_vec_named(&TaskRegistered::forged(old.task))?)
}

/// Version 2 has fields for what endpoints tell, for turns of several calls and for what a
/// policy was not shown. A body without them says that there was nothing of the kind, which
/// is what version 1 meant: its bytes are a body of version 2. (The version is raised so that
/// a program of version 1 refuses what it would read half.)
fn step_taken_1(body: &[u8]) -> Result<Vec<u8>, CodecError> {
    Ok(body.to_vec())
}

/// Version 2 of `TrainingProgressed` and `CheckpointWritten` has fields for what was measured
/// beside the step; a body without them says that nothing was. Version 2 of `TrainingStarted`
/// and `TrainingFinished` says what else the weights rest on, and their digest; a body without
/// them says that nobody wrote it down.
fn same_bytes(body: &[u8]) -> Result<Vec<u8>, CodecError> {
    Ok(body.to_vec())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::event::Event;
    use serde::Serialize;

    #[test]
    fn every_older_version_of_every_event_has_its_step_and_no_other_has() {
        for kind in Event::KINDS {
            let current = Event::current_version(kind).unwrap();
            for from in 0..=current + 1 {
                let expected = (1..current).contains(&from);
                assert_eq!(step(kind, from).is_some(), expected, "{kind} {from}");
            }
        }
        assert!(step("Nothing", 1).is_none());
    }

    #[derive(Serialize)]
    struct Old<'a> {
        attempt: &'a str,
        step: u32,
        field: &'a str,
        recorded: &'a str,
        replayed: &'a str,
    }

    fn read(field: &str, recorded: &str, replayed: &str) -> Result<AttemptAbandoned, CodecError> {
        let old = Old {
            attempt: "a",
            step: 3,
            field,
            recorded,
            replayed,
        };
        let body = attempt_abandoned_1(&rmp_serde::to_vec_named(&old).unwrap())?;
        Ok(rmp_serde::from_slice(&body)?)
    }

    #[test]
    fn an_abandonment_of_version_1_keeps_its_texts_and_gets_its_line() {
        let long = "x".repeat(400);
        for (field, was, is, line) in [
            ("observation", "a\nb\nc", "a\nb\nd", Some(3)),
            ("call", "None", "Some(1)", Some(1)),
            ("exit_code", "Some(0)", "Some(1)", None),
            // Cut before the difference.
            ("observation", &long, &long, None),
        ] {
            let now = read(field, was, is).unwrap();
            assert_eq!((now.attempt.as_str(), now.step), ("a", 3));
            assert_eq!(now.divergence.field.as_str(), field);
            assert_eq!(now.divergence.line, line, "{field}");
            assert_eq!(
                (&*now.divergence.recorded, &*now.divergence.replayed),
                (was, is)
            );
            assert!(now.rules.is_empty());
            assert_eq!(now.rules_version, "none");
        }
    }

    #[test]
    fn a_body_that_is_not_of_version_1_is_an_error_and_no_guess() {
        assert!(matches!(
            read("colour", "a", "b"),
            Err(CodecError::Decode(_))
        ));
        assert!(matches!(
            attempt_abandoned_1(b"\x80"),
            Err(CodecError::Decode(_))
        ));
    }
}
