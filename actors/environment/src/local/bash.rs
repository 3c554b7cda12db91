//! The bash of a local sandbox, seen from the host.

use super::Standing;
use crate::inside::kill_job;
use crate::shell::wire::Elsewhere;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

/// The bash of a sandbox.
#[derive(Debug)]
pub(super) struct Bash {
    pub standing: Arc<Mutex<Option<Standing>>>,
    pub handle: UnixStream,
    pub job: u64,
}

impl Elsewhere for Bash {
    fn ended(&mut self) -> Option<Option<i32>> {
        match self.standing.try_lock() {
            Ok(mut turn) => match &mut *turn {
                Some(standing) => standing.inside.ended_on_terminal(self.job),
                None => Some(None),
            },
            // A command runs beside it: the next look tells.
            Err(_) => None,
        }
    }

    fn kill(&mut self) {
        kill_job(self.handle.as_fd(), self.job);
    }
}
