//! The bytes of every event type, frozen: what was written once is read for ever.
//!
//! `GAMETAPE_BLESS=1 cargo test -p gametape-tape --test golden` writes the files that
//! are missing. It never changes one: a body that changes raises its version (see
//! `gametape_schemas::event`), and the files of the old version stay and are read
//! through the upcaster.
#![allow(clippy::unwrap_used)]

mod samples;

use gametape_schemas::event::*;
use gametape_schemas::lazy::LazyBody;
use gametape_schemas::*;
use samples::*;
use std::path::PathBuf;

fn record(event: Event) -> Record {
    Record {
        seq: 300,
        stream: StreamId::new("run/r1"),
        version: 7,
        event_id: "run/r1#sample".into(),
        causation: Some(299),
        correlation: Some("phase".into()),
        at_micros: 1_700_000_000_000_000,
        event,
    }
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn to_hex(bytes: &[u8]) -> String {
    let line = |part: &[u8]| part.iter().map(|b| format!("{b:02x}")).collect::<String>() + "\n";
    bytes.chunks(40).map(line).collect()
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<char> = text.chars().filter(|c| !c.is_whitespace()).collect();
    let byte = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

#[test]
fn every_event_type_has_a_sample() {
    let kinds: Vec<&str> = samples().iter().map(Event::kind).collect();
    assert_eq!(kinds, Event::KINDS);
}

#[test]
fn the_bytes_of_every_event_type_are_the_frozen_ones() {
    let bless = std::env::var_os("GAMETAPE_BLESS").is_some();
    for event in samples() {
        let name = format!("{}.v{}.hex", event.kind(), event.schema_version());
        let path = folder().join(&name);
        let sample = record(event);
        let bytes = codec::encode(&sample).unwrap();
        if bless && !path.exists() {
            std::fs::create_dir_all(folder()).unwrap();
            std::fs::write(&path, to_hex(&bytes)).unwrap();
        }
        let frozen = std::fs::read_to_string(&path)
            .unwrap_or_else(|e| panic!("{name}: {e}; GAMETAPE_BLESS=1 writes missing files"));
        let frozen = from_hex(&frozen);
        assert_eq!(
            codec::decode(&frozen).map_err(|e| e.to_string()),
            Ok(sample),
            "{name}: what was written is read differently"
        );
        assert_eq!(
            frozen, bytes,
            "{name}: the form on the tape changed: raise the event's version and write an upcaster"
        );
    }
}

/// What the frozen bytes of older versions are read as, by file.
fn older_samples() -> Vec<(&'static str, Event)> {
    vec![
        (
            "ActorDied.v1",
            Event::ActorDied(ActorDied {
                actor: "grader".into(),
                cause: DeathCause::Panic,
                deaths: 2,
            }),
        ),
        (
            "AttemptAbandoned.v1",
            Event::AttemptAbandoned(AttemptAbandoned {
                attempt: attempt(),
                step: 4,
                divergence: Divergence {
                    field: Diverged::Observation,
                    line: Some(1),
                    recorded: "a".into(),
                    replayed: "b".into(),
                },
                rules: vec![],
                rules_version: "none".into(),
            }),
        ),
        (
            "Graded.v1",
            Event::Graded(Graded {
                attempt: attempt(),
                cache_key: digest(3),
                cached: false,
                rules: "unrecorded".into(),
                verdict: verdict(VerdictOutcome::Infrastructure),
            }),
        ),
        (
            "CheckpointWritten.v1",
            Event::CheckpointWritten(checkpoint()),
        ),
        (
            "StepTaken.v1",
            Event::StepTaken(StepTaken {
                attempt: attempt(),
                step: step(),
            }),
        ),
        (
            "TrainingProgressed.v1",
            Event::TrainingProgressed(TrainingProgressed {
                name: "policy".into(),
                step: 1,
                loss: 2.5,
                grad_norm: 1.25,
                lr: 1e-4,
                tokens_per_s: 512.0,
                ..TrainingProgressed::default()
            }),
        ),
        (
            "TrainingStarted.v1",
            Event::TrainingStarted(TrainingStarted {
                name: "policy".into(),
                base: CheckpointId::new("b"),
                dataset: digest(4),
                hyper_json: "{}".into(),
                steps: 300,
                tokens: 200_000,
                loss_tokens: 40_000,
                origin: None,
            }),
        ),
        (
            "TrainingFinished.v1",
            Event::TrainingFinished(TrainingFinished {
                name: "policy".into(),
                checkpoint: CheckpointId::new("c"),
                path: "checkpoints/policy".into(),
                steps: 300,
                final_loss: 0.125,
                tokens: 400_000,
                wall_seconds: 600.5,
                weights: None,
            }),
        ),
        (
            "TaskRegistered.v1",
            Event::TaskRegistered(TaskRegistered::forged(task())),
        ),
    ]
}

#[test]
fn what_older_versions_wrote_is_read_in_todays_shape() {
    let mut known: Vec<String> = samples()
        .iter()
        .map(|event| format!("{}.v{}", event.kind(), event.schema_version()))
        .collect();
    for (name, event) in older_samples() {
        let frozen = std::fs::read_to_string(folder().join(format!("{name}.hex"))).unwrap();
        let bytes = from_hex(&frozen);
        let sample = record(event);
        assert_eq!(codec::decode(&bytes).unwrap(), sample, "{name}");
        assert_ne!(
            codec::encode(&sample).unwrap(),
            bytes,
            "{name} is not older"
        );
        known.push(name.to_owned());
    }
    // No frozen form is without its meaning.
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        assert!(known.contains(&name), "{name}: say what it is read as");
    }
}

#[test]
fn every_frozen_form_can_be_read() {
    let mut files = 0;
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let bytes = from_hex(&std::fs::read_to_string(&path).unwrap());
        let record = codec::decode(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert_eq!(record.seq, 300);
        let lazy = codec::decode_lazy(&bytes, |digest| {
            Err(codec::CodecError::Outside { digest: *digest })
        });
        let lazy = lazy.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        match (&lazy.body, &record.event) {
            (LazyBody::Event(event), whole) => assert_eq!(&**event, whole),
            (LazyBody::Step(step), Event::StepTaken(whole)) => {
                assert_eq!(step.attempt, whole.attempt);
                let mut said = whole.step.clone();
                assert_eq!(step.said_tokens, said.completion.said_tokens());
                assert_eq!(step.cost_usd, said.completion.cost_usd());
                said.completion.tokens = Vec::new();
                said.completion.logprobs = Vec::new();
                assert_eq!(step.decode().unwrap(), said);
            }
            (step, whole) => panic!("{step:?} is read of {whole:?}"),
        }
        files += 1;
    }
    assert!(files >= Event::KINDS.len());
}

#[test]
fn the_bytes_of_an_event_whose_body_lies_outside_are_the_frozen_ones() {
    let sample = record(Event::RunPaused(RunPaused {
        reason: "a long reason, ".repeat(3_000),
    }));
    let parts = codec::split(&sample).unwrap();
    let path = folder()
        .with_file_name("golden_outside")
        .join("RunPaused.v1.hex");
    if std::env::var_os("GAMETAPE_BLESS").is_some() && !path.exists() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, to_hex(&parts.inside)).unwrap();
    }
    let frozen = from_hex(&std::fs::read_to_string(&path).unwrap());
    assert_eq!(frozen, parts.inside, "the form on the tape changed");
    let payload = parts.payload.unwrap();
    let read = codec::decode_with(&frozen, |digest| -> Result<_, codec::CodecError> {
        assert_eq!(*digest, payload.digest);
        Ok(payload.body.clone())
    });
    assert_eq!(read.unwrap(), sample);
    // What an export and the content digest are made of has the body in it.
    assert_eq!(
        codec::decode(&codec::encode(&sample).unwrap()).unwrap(),
        sample
    );
    assert!(matches!(
        codec::decode(&frozen),
        Err(codec::CodecError::Outside { digest }) if digest == payload.digest
    ));
}
