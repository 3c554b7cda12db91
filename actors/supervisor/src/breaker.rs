//! Circuit breakers: when a resource fails again and again, the loop waits, tries once,
//! and goes on or waits longer. Pure: clock and random number are arguments.
//!
//! A breaker never decides whether work failed, only whether more of it is begun: what
//! failed while it opened is retried like any failure of ours and is nobody's loss.

use serde::{Deserialize, Serialize};

/// What a breaker stands in front of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// Free space where the run lies.
    Disk,
    /// Sandboxes of the local back end.
    Sandbox,
    /// The model, in process or behind an endpoint.
    Model,
}

impl Resource {
    /// Name in events and messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Sandbox => "sandbox",
            Self::Model => "model",
        }
    }
}

/// When a breaker opens and how long it waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreakerPolicy {
    /// Failures in a row that open it.
    pub failures: u32,
    /// First wait, milliseconds; doubles with each failed probe.
    pub first_wait_ms: u64,
    /// Longest wait between two probes, milliseconds.
    pub max_wait_ms: u64,
    /// Open this long without a successful probe, it gives up; milliseconds.
    pub give_up_ms: u64,
}

impl Default for BreakerPolicy {
    /// Opens after 5 failures, probes after 2 s to 5 min, gives up after 12 hours: a
    /// night in which somebody can free a disk.
    fn default() -> Self {
        Self {
            failures: 5,
            first_wait_ms: 2_000,
            max_wait_ms: 300_000,
            give_up_ms: 43_200_000,
        }
    }
}

/// Where a breaker stands. Times are milliseconds of one monotonic clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Breaker {
    /// Work is begun.
    #[default]
    Closed,
    /// Work is begun; the last ones failed.
    Shaky {
        /// Failures in a row.
        failures: u32,
    },
    /// Nothing is begun before `until_ms`; then one probe.
    Open {
        /// When it opened.
        since_ms: u64,
        /// When the next probe may begin.
        until_ms: u64,
        /// Probes that failed.
        probes: u32,
    },
    /// One piece of work is under way to see whether the resource is back.
    Probing {
        /// When it opened.
        since_ms: u64,
        /// Probes that failed before this one.
        probes: u32,
    },
    /// Open for too long: the run ends with an error and can be taken up later.
    GivenUp,
}

/// May work begin?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Permit {
    /// Yes.
    Go,
    /// One piece, as a probe; say [`Breaker::probing`] first.
    Probe,
    /// Not before this many milliseconds.
    Wait(u64),
    /// No more in this process.
    GiveUp,
}

impl Breaker {
    /// What may be done now.
    pub fn permit(self, now_ms: u64) -> Permit {
        match self {
            Self::Closed | Self::Shaky { .. } => Permit::Go,
            Self::Open { until_ms, .. } if now_ms >= until_ms => Permit::Probe,
            Self::Open { until_ms, .. } => Permit::Wait(until_ms - now_ms),
            // A second probe beside the first one tells nothing.
            Self::Probing { .. } => Permit::Wait(1),
            Self::GivenUp => Permit::GiveUp,
        }
    }

    /// A probe begins.
    #[must_use]
    pub fn probing(self) -> Self {
        match self {
            Self::Open {
                since_ms, probes, ..
            } => Self::Probing { since_ms, probes },
            other => other,
        }
    }

    /// A piece of work came through.
    #[must_use]
    pub fn succeeded(self) -> Self {
        match self {
            // Work that began before it opened proves nothing.
            Self::Open { .. } | Self::GivenUp => self,
            Self::Closed | Self::Shaky { .. } | Self::Probing { .. } => Self::Closed,
        }
    }

    /// The resource failed. `jitter` in [0, 1) spreads waits over their upper half.
    #[must_use]
    pub fn failed(self, policy: &BreakerPolicy, now_ms: u64, jitter: f64) -> Self {
        let failures = match self {
            Self::Closed => 1,
            Self::Shaky { failures } => failures.saturating_add(1),
            Self::Probing { since_ms, probes } => {
                if now_ms.saturating_sub(since_ms) >= policy.give_up_ms {
                    return Self::GivenUp;
                }
                return Self::open(policy, since_ms, now_ms, probes.saturating_add(1), jitter);
            }
            Self::Open { .. } | Self::GivenUp => return self,
        };
        if failures < policy.failures.max(1) {
            return Self::Shaky { failures };
        }
        Self::open(policy, now_ms, now_ms, 0, jitter)
    }

    fn open(policy: &BreakerPolicy, since_ms: u64, now_ms: u64, probes: u32, jitter: f64) -> Self {
        let wait = policy
            .first_wait_ms
            .saturating_mul(1 << probes.min(20))
            .min(policy.max_wait_ms)
            .max(1);
        let half = wait / 2;
        let spread = (half as f64 * jitter.clamp(0.0, 1.0)) as u64;
        Self::Open {
            since_ms,
            until_ms: now_ms.saturating_add(half + spread).max(now_ms + 1),
            probes,
        }
    }

    /// Whether work waits.
    pub fn is_open(self) -> bool {
        matches!(
            self,
            Self::Open { .. } | Self::Probing { .. } | Self::GivenUp
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn policy() -> BreakerPolicy {
        BreakerPolicy {
            failures: 3,
            first_wait_ms: 100,
            max_wait_ms: 1_000,
            give_up_ms: 10_000,
        }
    }

    #[test]
    fn it_opens_probes_and_closes() {
        let policy = policy();
        let mut breaker = Breaker::default();
        for _ in 0..2 {
            breaker = breaker.failed(&policy, 0, 0.5);
            assert_eq!(breaker.permit(0), Permit::Go);
        }
        breaker = breaker.failed(&policy, 0, 0.5);
        assert_eq!(breaker.permit(0), Permit::Wait(75));
        assert_eq!(breaker.succeeded(), breaker, "late news do not close it");
        assert_eq!(breaker.permit(75), Permit::Probe);
        breaker = breaker.probing();
        assert!(matches!(breaker.permit(75), Permit::Wait(_)), "one probe");
        breaker = breaker.failed(&policy, 80, 0.0);
        assert_eq!(breaker.permit(80), Permit::Wait(100), "twice as long");
        breaker = breaker.probing().succeeded();
        assert_eq!(breaker, Breaker::Closed);
    }

    #[test]
    fn a_success_in_between_forgives() {
        let policy = policy();
        let breaker = Breaker::default()
            .failed(&policy, 0, 0.0)
            .failed(&policy, 0, 0.0)
            .succeeded()
            .failed(&policy, 0, 0.0);
        assert_eq!(breaker, Breaker::Shaky { failures: 1 });
    }

    proptest! {
        /// Whatever happens: waits are bounded, a lasting outage ends in giving up in
        /// bounded time, and a resource that is back is used again after one probe.
        #[test]
        fn any_story_stays_within_its_bounds(
            story in prop::collection::vec((any::<bool>(), 0u64..500, 0.0f64..1.0), 1..200),
        ) {
            let policy = policy();
            let (mut breaker, mut now) = (Breaker::default(), 0u64);
            for (works, passes, jitter) in story {
                now += passes;
                match breaker.permit(now) {
                    Permit::Wait(ms) => {
                        prop_assert!(ms > 0 && ms <= policy.max_wait_ms);
                        now += ms;
                        prop_assert_eq!(breaker.permit(now), Permit::Probe);
                    }
                    Permit::GiveUp => break,
                    Permit::Go | Permit::Probe => {}
                }
                let probe = breaker.permit(now) == Permit::Probe;
                if probe {
                    breaker = breaker.probing();
                }
                breaker = match works {
                    true => breaker.succeeded(),
                    false => breaker.failed(&policy, now, jitter),
                };
                if works {
                    prop_assert_eq!(breaker, Breaker::Closed);
                }
            }
            // From here on it is gone for good.
            let mut probes = 0;
            while breaker.permit(now) != Permit::GiveUp {
                now += match breaker.permit(now) { Permit::Wait(ms) => ms, _ => 0 };
                breaker = breaker.probing().failed(&policy, now, 1.0);
                probes += 1;
                prop_assert!(probes < 200);
            }
        }
    }
}
