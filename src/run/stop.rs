//! Stopping on request: the first Ctrl-C lets the work in hand reach the tape, a second
//! one ends the process at once (nothing is lost then either; only the attempt in hand
//! is replayed).

use gametape_schemas::{Failure, FailureKind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

type Hook = Box<dyn Fn() + Send>;

/// Whether somebody asked us to stop.
#[derive(Clone, Default)]
pub struct StopFlag {
    requested: Arc<AtomicBool>,
    /// Called once at the request: long work that must hear of it at once.
    hooks: Arc<Mutex<Vec<Hook>>>,
}

impl StopFlag {
    /// Asks for a stop.
    pub fn request(&self) {
        self.requested.store(true, Ordering::SeqCst);
        let mut hooks = self.hooks.lock().unwrap_or_else(PoisonError::into_inner);
        for hook in hooks.drain(..) {
            hook();
        }
    }

    /// Lets long work hear of the request at once.
    pub fn on_request(&self, hook: impl Fn() + Send + 'static) {
        let mut hooks = self.hooks.lock().unwrap_or_else(PoisonError::into_inner);
        hooks.push(Box::new(hook));
    }

    /// Whether a stop was asked for.
    pub fn is_requested(&self) -> bool {
        self.requested.load(Ordering::SeqCst)
    }

    /// Comes when a stop is asked for.
    pub async fn requested(&self) {
        let (tell, told) = tokio::sync::oneshot::channel();
        let tell = Mutex::new(Some(tell));
        self.on_request(move || {
            if let Some(tell) = tell.lock().unwrap_or_else(PoisonError::into_inner).take() {
                // Whoever waited may have ended meanwhile.
                let _ = tell.send(());
            }
        });
        if !self.is_requested() {
            // The flag keeps the sender: the channel cannot close before it speaks.
            let _ = told.await;
        }
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
