//! How the forge talks to the other rooms: recipients handed in, a deadline on every
//! ask, one more try where that can help, and a bounded number of asks at a time.

use actix::prelude::*;
use gametape_schemas::ask::{ask_again, ask_within};
use gametape_schemas::message::{
    Append, CloseSandbox, Exec, GradePatch, OpenSandbox, Provision, RunTests,
};
use gametape_schemas::{Failure, NewEvent};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

/// Where the forge's messages go, and its clock.
#[derive(Clone)]
pub struct ForgeDeps {
    /// Environment room.
    pub provision: Recipient<Provision>,
    /// Environment room.
    pub open: Recipient<OpenSandbox>,
    /// Environment room.
    pub exec: Recipient<Exec>,
    /// Environment room.
    pub close: Recipient<CloseSandbox>,
    /// Grader.
    pub run_tests: Recipient<RunTests>,
    /// Grader.
    pub grade: Recipient<GradePatch>,
    /// Tape.
    pub append: Recipient<Append>,
    /// Directory where surveys of clean packages are kept.
    pub surveys: PathBuf,
    /// Microseconds since 1970 (UTC).
    pub now_micros: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl ForgeDeps {
    /// Puts events on the tape and waits until they are durable. Nothing is written
    /// for an empty list.
    pub(crate) async fn record(&self, mut events: Vec<NewEvent>) -> Result<(), Failure> {
        if events.is_empty() {
            return Ok(());
        }
        let now = (self.now_micros)();
        for event in &mut events {
            event.at_micros = now;
        }
        ask_again(&self.append, Append { events }).await?;
        Ok(())
    }
}

/// Asks, and asks once more after a failure that may pass.
///
/// # Errors
/// As [`ask_within`].
pub(crate) async fn ask<M, T>(
    to: &Recipient<M>,
    message: M,
    deadline: Duration,
) -> Result<T, Failure>
where
    M: Message<Result = Result<T, Failure>> + Clone + Send + 'static,
    T: Send + 'static,
{
    match ask_within(to, message.clone(), deadline).await {
        Err(failure) if failure.kind.is_retryable() => ask_within(to, message, deadline).await,
        answer => answer,
    }
}

/// Awaits futures, at most `limit` at a time; the answers are in the order of the
/// futures, whatever the order in which they came.
pub(crate) async fn bounded<F: Future>(
    limit: usize,
    futures: impl IntoIterator<Item = F>,
) -> Vec<F::Output> {
    let mut waiting = futures.into_iter().enumerate();
    let mut running: Vec<(usize, Pin<Box<F>>)> = Vec::new();
    let mut done = BTreeMap::new();
    poll_fn(move |context| {
        loop {
            while running.len() < limit.max(1) {
                let Some((index, future)) = waiting.next() else {
                    break;
                };
                running.push((index, Box::pin(future)));
            }
            if running.is_empty() {
                return Poll::Ready(std::mem::take(&mut done).into_values().collect());
            }
            let before = running.len();
            running.retain_mut(|(index, future)| match future.as_mut().poll(context) {
                Poll::Ready(output) => {
                    done.insert(*index, output);
                    false
                }
                Poll::Pending => true,
            });
            // Every one that is left has taken the waker.
            if running.len() == before {
                return Poll::Pending;
            }
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn at_most_so_many_run_and_order_is_kept() {
        let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let (running, most) = (&running, &most);
        let answers = bounded(
            3,
            (0..20).map(|index| async move {
                let now = running.fetch_add(1, Ordering::SeqCst) + 1;
                most.fetch_max(now, Ordering::SeqCst);
                for _ in 0..(20 - index) {
                    tokio::task::yield_now().await;
                }
                running.fetch_sub(1, Ordering::SeqCst);
                index
            }),
        )
        .await;
        assert_eq!(answers, (0..20).collect::<Vec<_>>());
        assert_eq!(most.load(Ordering::SeqCst), 3);
        assert!(
            bounded(0, Vec::<std::future::Ready<()>>::new())
                .await
                .is_empty()
        );
    }
}
