//! Rest-for-one: children in the order in which they lean on each other. When one of
//! them is made anew, so are those behind it: what they hold (sandboxes of a room that
//! died) is gone.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc::UnboundedSender;

/// What the keeper of a child is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Notice {
    /// The child of this life ended.
    Died { life: u64, panicked: bool },
    /// The child of this life did not answer within a message's deadline.
    Hung { life: u64 },
    /// A child before it in the line was made anew.
    Renew,
    /// Nobody wants the child any more.
    Over,
}

/// Children in order of their start. Clones are the same line.
#[derive(Clone, Default, Debug)]
pub struct Line {
    members: Arc<Mutex<Vec<UnboundedSender<Notice>>>>,
}

impl Line {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    fn members(&self) -> MutexGuard<'_, Vec<UnboundedSender<Notice>>> {
        // Only pushes and reads happen under this lock.
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a child at the end; its place.
    pub(crate) fn join(&self, member: UnboundedSender<Notice>) -> usize {
        let mut members = self.members();
        members.push(member);
        members.len() - 1
    }

    /// Tells those behind a place to renew their children.
    pub(crate) fn renew_behind(&self, place: usize) {
        for member in self.members().iter().skip(place + 1) {
            // A member whose keeper ended has nothing to renew.
            let _ = member.send(Notice::Renew);
        }
    }
}
