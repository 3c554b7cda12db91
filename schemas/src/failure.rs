//! A failure of ours: never the agent's. It travels in messages and onto the tape,
//! so it is data. Each code has a page in `docs/errors/`.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What broke. Decides what is retried, what pauses the loop and what ends it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// A sandbox could not be opened, or died.
    Sandbox,
    /// An environment could not be provisioned.
    Provision,
    /// A model could not be loaded, sampled or trained.
    Model,
    /// The tape refused or failed.
    Tape,
    /// The disk is full or unreadable.
    Disk,
    /// Something exceeded its deadline.
    Timeout,
    /// Somebody asked us to stop (Ctrl-C).
    Cancelled,
    /// What the run may spend is spent.
    Budget,
    /// An actor died with the request in its hands.
    ActorDied,
    /// What the user gave is wrong: configuration, a package without tests, a path.
    Input,
    /// A defect of gametape.
    Internal,
}

impl FailureKind {
    /// Whether trying the same thing again can help.
    pub fn is_retryable(self) -> bool {
        match self {
            Self::Sandbox | Self::Timeout | Self::ActorDied | Self::Model => true,
            Self::Provision
            | Self::Tape
            | Self::Disk
            | Self::Cancelled
            | Self::Budget
            | Self::Input
            | Self::Internal => false,
        }
    }
}

/// What went wrong, where, and what to do.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Failure {
    /// Class of failure.
    pub kind: FailureKind,
    /// Stable code such as `GT-TAPE-LOCKED`; the page is `docs/errors/<code>.md`.
    pub code: String,
    /// What happened and to what, in one or two sentences.
    pub message: String,
    /// What the person can do about it; empty where there is nothing.
    pub help: String,
}

impl Failure {
    /// A failure without advice.
    pub fn new(kind: FailureKind, code: &str, message: impl Into<String>) -> Self {
        Self {
            kind,
            code: code.to_owned(),
            message: message.into(),
            help: String::new(),
        }
    }

    /// Adds what to do.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = help.into();
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {}", self.code, self.message)?;
        if !self.help.is_empty() {
            write!(f, "\n  help: {}", self.help)?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}
