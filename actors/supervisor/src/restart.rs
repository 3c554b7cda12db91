//! When a dead child is restarted: OTP's intensity and period, with jittered
//! exponential backoff. Pure: the clock and the random number are arguments.

use serde::{Deserialize, Serialize};

/// Limits of restarting.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct RestartPolicy {
    /// At most this many deaths …
    pub intensity: usize,
    /// … within this many milliseconds; one more escalates.
    pub period_ms: u64,
    /// Wait before the first restart, milliseconds; doubles with each death in the period.
    pub first_backoff_ms: u64,
    /// Longest wait, milliseconds.
    pub max_backoff_ms: u64,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            intensity: 5,
            period_ms: 60_000,
            first_backoff_ms: 50,
            max_backoff_ms: 5_000,
        }
    }
}

/// What to do about a death.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Start a fresh child after this many milliseconds.
    RestartAfter(u64),
    /// Too many deaths: the parent gives up.
    Escalate,
}

impl RestartPolicy {
    /// Decides about the newest of `deaths` (clock readings in milliseconds, ascending).
    /// `jitter` in [0, 1) spreads the wait over its upper half.
    pub fn decide(&self, deaths: &[u64], now_ms: u64, jitter: f64) -> Verdict {
        let since = now_ms.saturating_sub(self.period_ms);
        let recent = deaths.iter().filter(|at| **at >= since).count();
        if recent > self.intensity {
            return Verdict::Escalate;
        }
        let doublings = recent.saturating_sub(1).min(32) as u32;
        let wait = self
            .first_backoff_ms
            .saturating_mul(1u64 << doublings.min(20))
            .min(self.max_backoff_ms);
        let half = wait / 2;
        let spread = (half as f64 * jitter.clamp(0.0, 1.0)) as u64;
        Verdict::RestartAfter(half + spread)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn escalates_only_above_the_intensity() {
        let policy = RestartPolicy {
            intensity: 2,
            period_ms: 1_000,
            first_backoff_ms: 10,
            max_backoff_ms: 100,
        };
        assert_eq!(policy.decide(&[0], 0, 0.0), Verdict::RestartAfter(5));
        assert_eq!(policy.decide(&[0, 1], 1, 0.0), Verdict::RestartAfter(10));
        assert_eq!(policy.decide(&[0, 1, 2], 2, 0.0), Verdict::Escalate);
        // Old deaths are forgotten.
        assert_eq!(
            policy.decide(&[0, 1, 5_000], 5_000, 0.0),
            Verdict::RestartAfter(5)
        );
    }

    proptest! {
        #[test]
        fn waits_stay_within_bounds(n in 1usize..6, jitter in 0.0f64..1.0) {
            let policy = RestartPolicy::default();
            let deaths = vec![10; n];
            match policy.decide(&deaths, 10, jitter) {
                Verdict::RestartAfter(ms) => prop_assert!(ms <= policy.max_backoff_ms),
                Verdict::Escalate => prop_assert!(n > policy.intensity),
            }
        }
    }
}
