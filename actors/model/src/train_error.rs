//! Why a step of training did not happen.

use crate::error::ModelError;
use thiserror::Error;

/// Why a step did not happen. The weights are as before it.
#[derive(Debug, Error)]
pub enum TrainError {
    /// Loss or gradient is not a finite number.
    #[error("the {what} is {value}")]
    NotFinite {
        /// `loss` or `gradient norm`.
        what: &'static str,
        /// The value.
        value: f64,
    },
    /// The caller's stop flag was seen.
    #[error("asked to stop")]
    Stopped,
    /// A file could not be written or read.
    #[error("{0}")]
    Io(std::io::Error),
    /// A saved state does not belong to this learner.
    #[error("saved state: {0}")]
    State(String),
    /// Anything else about the model.
    #[error(transparent)]
    Model(#[from] ModelError),
}

impl From<tch::TchError> for TrainError {
    fn from(error: tch::TchError) -> Self {
        Self::Model(error.into())
    }
}
