//! Stopping on request: the first Ctrl-C lets the work in hand reach the tape, a second
//! one ends the process at once (nothing is lost then either; only the attempt in hand
//! is replayed).

use gametape_schemas::{Failure, FailureKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether somebody asked us to stop.
#[derive(Clone, Debug, Default)]
pub struct StopFlag(Arc<AtomicBool>);

impl StopFlag {
    /// Asks for a stop.
    pub fn request(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether a stop was asked for.
    pub fn is_requested(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// An error when a stop was asked for.
    ///
    /// # Errors
    /// `GT-RUN-STOPPED`.
    pub fn check(&self) -> Result<(), Failure> {
        if self.is_requested() {
            Err(stopped())
        } else {
            Ok(())
        }
    }

    /// Watches for Ctrl-C and SIGTERM until the process ends.
    pub fn watch_signals(&self) {
        let flag = self.clone();
        actix::spawn(async move {
            let mut terminate =
                match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
                    Ok(stream) => stream,
                    Err(error) => {
                        tracing::warn!(%error, "SIGTERM cannot be watched");
                        return;
                    }
                };
            loop {
                tokio::select! {
                    result = tokio::signal::ctrl_c() => if result.is_err() { return },
                    _ = terminate.recv() => {}
                }
                if flag.is_requested() {
                    eprintln!("stopped at once; the same command goes on where the tape ends");
                    std::process::exit(130);
                }
                eprintln!(
                    "\nstopping: the work in hand is brought onto the tape first \
                     (press Ctrl-C again to stop at once)"
                );
                flag.request();
            }
        });
    }
}

/// The failure that means "somebody asked us to stop".
pub fn stopped() -> Failure {
    Failure::new(
        FailureKind::Cancelled,
        "GT-RUN-STOPPED",
        "the run was stopped on request; everything done so far is on the tape",
    )
    .with_help("type the same command again to go on where it stopped")
}
