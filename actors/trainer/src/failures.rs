//! What can end a training, in words.

use gametape_model::train::TrainError;
use gametape_schemas::{Failure, FailureKind};
use std::io;
use std::path::Path;

/// An error inside a checkpoint write: of the files or of the tensors.
pub(crate) struct SaveError(pub TrainError);

impl From<io::Error> for SaveError {
    fn from(error: io::Error) -> Self {
        Self(TrainError::Io(error))
    }
}

/// What ended a step, for people.
pub(crate) fn step_failure(
    error: TrainError,
    step: u64,
    rows: &[usize],
    sources: &[String],
) -> Failure {
    match error {
        TrainError::NotFinite { .. } => {
            let attempts: Vec<&str> = rows
                .iter()
                .filter_map(|r| sources.get(*r))
                .map(String::as_str)
                .collect();
            Failure::new(
                FailureKind::Input,
                "GT-TRAIN-NAN",
                format!(
                    "{error} in step {step}, whose rows are of the attempts {}",
                    attempts.join(", ")
                ),
            )
            .with_help("lower the learning rate; the last checkpoint before this step is kept")
        }
        TrainError::Stopped => stopped(),
        TrainError::Io(error) => disk(Path::new("training"), &error),
        TrainError::State(text) => Failure::new(FailureKind::Internal, "GT-TRAIN-PANIC", text),
        TrainError::OutOfMemory(text) => Failure::new(FailureKind::Model, "GT-TRAIN-MEMORY", text)
            .with_help("the last checkpoint is kept"),
        TrainError::Model(error) => error.into(),
    }
}

/// The answer to a training that was told to stop.
pub fn stopped() -> Failure {
    Failure::new(
        FailureKind::Cancelled,
        "GT-TRAIN-STOPPED",
        "the training was told to stop",
    )
    .with_help("the same request resumes at the last checkpoint")
}

/// The disk refused something at this path.
pub(crate) fn disk(path: &Path, error: &io::Error) -> Failure {
    let full = error.kind() == io::ErrorKind::StorageFull;
    Failure::new(
        FailureKind::Disk,
        "GT-TRAIN-DISK",
        format!("{}: {error}", path.display()),
    )
    .with_help(if full {
        "free some space and repeat: the last checkpoint is whole, training resumes there"
    } else {
        "check the directory and its permissions and repeat: training resumes at the last checkpoint"
    })
}
