//! Drawing one token from a distribution. Pure: the uniform number is handed in.

/// A drawn token and its log-probability.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Draw {
    /// The token.
    pub token: u32,
    /// Natural logarithm of its probability in the distribution that was drawn from.
    pub logprob: f32,
}

/// The most probable token (the first of equals).
pub fn greedy(logprobs: &[f32]) -> Draw {
    let mut best = Draw {
        token: 0,
        logprob: f32::NEG_INFINITY,
    };
    for (token, logprob) in logprobs.iter().enumerate() {
        if *logprob > best.logprob {
            best = Draw {
                token: token as u32,
                logprob: *logprob,
            };
        }
    }
    best
}

/// Draws with `uniform` in [0, 1) from normalised log-probabilities, restricted to the
/// nucleus: the fewest most probable tokens that have mass `top_p` together,
/// renormalised.
pub fn draw(logprobs: &[f32], top_p: f64, uniform: f64) -> Draw {
    if top_p >= 1.0 {
        return pick(
            logprobs.iter().enumerate().map(|(t, l)| (t as u32, *l)),
            1.0,
            uniform,
        )
        .unwrap_or_else(|| greedy(logprobs));
    }
    // Tokens below (1 - top_p) / V have less than 1 - top_p together, so none of them
    // is in the nucleus: only the few others need sorting.
    let floor = ((1.0 - top_p) / logprobs.len().max(1) as f64).ln() as f32 - 1e-3;
    let mut nucleus: Vec<(u32, f32)> = logprobs
        .iter()
        .enumerate()
        .filter(|(_, l)| **l >= floor)
        .map(|(t, l)| (t as u32, *l))
        .collect();
    nucleus.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let mut mass = 0.0;
    let mut kept = 0;
    for (_, l) in &nucleus {
        mass += f64::from(*l).exp();
        kept += 1;
        if mass >= top_p {
            break;
        }
    }
    nucleus.truncate(kept);
    pick(nucleus.into_iter(), mass, uniform).unwrap_or_else(|| greedy(logprobs))
}

/// Inverse of the cumulative distribution over the tokens in the order given.
fn pick(tokens: impl Iterator<Item = (u32, f32)>, mass: f64, uniform: f64) -> Option<Draw> {
    let target = uniform * mass;
    let mut sum = 0.0;
    let mut last = None;
    for (token, l) in tokens {
        let p = f64::from(l.exp());
        if p > 0.0 {
            sum += p;
            last = Some(Draw {
                token,
                logprob: l - mass.ln() as f32,
            });
            if sum > target {
                break;
            }
        }
    }
    // Rounding may leave the sum a hair below the target: then it is the last one.
    last
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn normalised(weights: &[f64]) -> Vec<f32> {
        let sum: f64 = weights.iter().sum();
        weights.iter().map(|w| (w / sum).ln() as f32).collect()
    }

    #[test]
    fn inverts_the_cumulative_distribution() {
        let l = normalised(&[1.0, 2.0, 1.0]);
        assert_eq!(draw(&l, 1.0, 0.0).token, 0);
        assert_eq!(draw(&l, 1.0, 0.26).token, 1);
        assert_eq!(draw(&l, 1.0, 0.74).token, 1);
        assert_eq!(draw(&l, 1.0, 0.76).token, 2);
        assert_eq!(greedy(&l).token, 1);
    }

    #[test]
    fn nucleus_cuts_and_renormalises() {
        let l = normalised(&[6.0, 3.0, 1.0]);
        for u in [0.0, 0.3, 0.6, 0.99] {
            let d = draw(&l, 0.85, u);
            assert!(d.token < 2);
            let want = if d.token == 0 {
                6.0f32 / 9.0
            } else {
                3.0 / 9.0
            };
            assert!((d.logprob - want.ln()).abs() < 1e-4);
        }
        assert_eq!(draw(&l, 0.01, 0.999).token, 0);
    }

    proptest! {
        #[test]
        fn always_a_token_of_the_nucleus(
            weights in prop::collection::vec(0.001f64..10.0, 1..60),
            top_p in 0.01f64..=1.0, u in 0.0f64..1.0,
        ) {
            let l = normalised(&weights);
            let d = draw(&l, top_p, u);
            // Every token strictly more probable than the drawn one, together with
            // it, would have been enough only if they do not reach top_p alone.
            let p = l[d.token as usize];
            let above: f64 = l.iter().filter(|x| **x > p).map(|x| f64::from(*x).exp()).sum();
            prop_assert!(above < top_p + 1e-5);
            prop_assert!(d.logprob <= 1e-4);
        }
    }
}
