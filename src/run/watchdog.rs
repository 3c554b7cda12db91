//! A dog that watches the thread of all actors. A handler that never returns stops every
//! actor at once, and nothing on that thread can notice: a thread of its own does, and
//! ends the process so that whatever started it can start it again.

use gametape_schemas::{Failure, FailureKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How often the actors' thread shows that it is alive, and the dog looks.
const BEAT: Duration = Duration::from_millis(500);

/// Starts watching the current arbiter; after `limit` without a sign of life the process
/// ends with exit code 1. A limit of zero watches nothing.
///
/// # Errors
/// When the system gives no thread.
pub fn watch(limit: Duration) -> Result<(), Failure> {
    if limit.is_zero() {
        return Ok(());
    }
    let beats = Arc::new(AtomicU64::new(0));
    let beating = beats.clone();
    actix::spawn(async move {
        loop {
            beating.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(BEAT).await;
        }
    });
    let dog = move || {
        let mut silence = Silence::default();
        // Only the beating task holds the other one: when it is gone, so is the system.
        while Arc::strong_count(&beats) > 1 {
            std::thread::sleep(BEAT);
            if silence.looks(beats.load(Ordering::Relaxed)) * BEAT > limit {
                let failure = stuck(limit);
                tracing::error!(%failure, "the process ends");
                eprintln!("error: {failure}");
                std::process::exit(1);
            }
        }
    };
    std::thread::Builder::new()
        .name("gametape-watchdog".to_owned())
        .spawn(dog)
        .map(drop)
        .map_err(super::driver::internal)
}

/// Counts looks and not time: a process that was stopped as a whole (SIGSTOP, a
/// suspended machine) looks as little as it beats.
#[derive(Default)]
struct Silence {
    last: u64,
    looks: u32,
}

impl Silence {
    /// Looks at the number of beats; how many looks in a row have found it unchanged.
    fn looks(&mut self, beats: u64) -> u32 {
        self.looks = match beats == self.last {
            true => self.looks.saturating_add(1),
            false => 0,
        };
        self.last = beats;
        self.looks
    }
}

fn stuck(limit: Duration) -> Failure {
    Failure::new(
        FailureKind::Internal,
        "GT-ARBITER-STUCK",
        format!(
            "the thread of all actors gave no sign of life for {} s",
            limit.as_secs()
        ),
    )
    .with_help("this is a defect of gametape; everything done is on the tape, and the same command goes on from there")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_beat_is_forgiven_missing_ones_add_up() {
        let mut silence = Silence::default();
        let looks: Vec<u32> = [1, 1, 2, 2, 2, 2, 5].map(|b| silence.looks(b)).to_vec();
        assert_eq!(looks, [0, 1, 0, 1, 2, 3, 0]);
    }
}
