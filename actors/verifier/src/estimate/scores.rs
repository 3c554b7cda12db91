//! What scores are worth apart from any selection: ranking, calibration, correlation.

use super::subsets::Scored;

/// Probability that a resolved attempt is scored above an unresolved one, ties
/// counted half. `None` unless there are both. NaN scores count as the lowest.
pub fn auroc(attempts: &[Scored]) -> Option<f64> {
    let (above, pairs) = ordered_pairs(attempts);
    (pairs > 0.0).then(|| above / pairs)
}

/// [`auroc`] over pairs of attempts at the *same* task: what selection lives on. The
/// plain one also rewards knowing which tasks are easy. `None` without such a pair.
pub fn auroc_within<'a>(tasks: impl IntoIterator<Item = &'a [Scored]>) -> Option<f64> {
    let (above, pairs) = tasks
        .into_iter()
        .map(ordered_pairs)
        .fold((0.0, 0.0), |(a, b), (above, pairs)| (a + above, b + pairs));
    (pairs > 0.0).then(|| above / pairs)
}

/// (win, loss) pairs in which the win is scored higher (ties half), and all such pairs.
fn ordered_pairs(attempts: &[Scored]) -> (f64, f64) {
    let mut sorted: Vec<(f64, bool)> = attempts
        .iter()
        .map(|a| {
            let score = if a.score.is_nan() {
                f64::NEG_INFINITY
            } else {
                a.score
            };
            (score, a.resolved)
        })
        .collect();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut above, mut wins, mut losses) = (0.0, 0.0, 0.0);
    for group in sorted.chunk_by(|a, b| a.0 == b.0) {
        let won = group.iter().filter(|a| a.1).count() as f64;
        let lost = group.len() as f64 - won;
        above += won * (losses + lost / 2.0);
        wins += won;
        losses += lost;
    }
    (above, wins * losses)
}

/// Expected calibration error: mean over `bins` equal bins of the score in [0, 1],
/// weighted by attempts, of |mean score − share resolved|. `None` without attempts or
/// bins, or when a score is no probability.
pub fn expected_calibration_error(attempts: &[Scored], bins: usize) -> Option<f64> {
    if attempts.is_empty() || bins == 0 {
        return None;
    }
    let mut sums = vec![(0.0_f64, 0.0_f64); bins];
    for attempt in attempts {
        if !(0.0..=1.0).contains(&attempt.score) {
            return None;
        }
        let bin = ((attempt.score * bins as f64) as usize).min(bins - 1);
        let sum = sums.get_mut(bin)?;
        sum.0 += attempt.score;
        sum.1 += f64::from(u8::from(attempt.resolved));
    }
    // |Σ score − Σ resolved| of a bin is its weight times its gap.
    let gaps: f64 = sums.iter().map(|(score, wins)| (score - wins).abs()).sum();
    Some(gaps / attempts.len() as f64)
}

/// Point-biserial correlation of score and verdict, in [−1, 1]. `None` when either
/// does not vary.
pub fn point_biserial(attempts: &[Scored]) -> Option<f64> {
    let n = attempts.len() as f64;
    let verdict = |a: &Scored| f64::from(u8::from(a.resolved));
    let mean_score = attempts.iter().map(|a| a.score).sum::<f64>() / n;
    let mean_verdict = attempts.iter().map(verdict).sum::<f64>() / n;
    let (mut both, mut score, mut resolved) = (0.0, 0.0, 0.0);
    for attempt in attempts {
        let (s, r) = (attempt.score - mean_score, verdict(attempt) - mean_verdict);
        both += s * r;
        score += s * s;
        resolved += r * r;
    }
    let scale = (score * resolved).sqrt();
    (scale > 0.0).then(|| both / scale)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn attempts(raw: &[(f64, bool)]) -> Vec<Scored> {
        raw.iter().map(|(s, r)| Scored::new(*s, *r)).collect()
    }

    #[test]
    fn small_cases_by_hand() {
        let ranked = attempts(&[(0.9, true), (0.8, false), (0.7, true), (0.1, false)]);
        assert_eq!(auroc(&ranked), Some(0.75));
        assert_eq!(auroc(&attempts(&[(0.5, true), (0.5, false)])), Some(0.5));
        assert_eq!(auroc(&attempts(&[(0.5, true)])), None);
        // Between tasks the order is perfect, within them it is a coin.
        let easy = attempts(&[(0.9, true), (0.9, false)]);
        let hard = attempts(&[(0.1, true), (0.1, false)]);
        assert_eq!(auroc_within([&easy[..], &hard[..]]), Some(0.5));
        assert_eq!(auroc_within([&easy[..1]]), None);

        // Says 0.8, is right half the time; says 0.2, never right.
        let said = attempts(&[(0.8, true), (0.8, false), (0.2, false), (0.2, false)]);
        let ece = expected_calibration_error(&said, 10).unwrap();
        assert!((ece - 0.25).abs() < 1e-9, "{ece}");
        assert_eq!(
            expected_calibration_error(&attempts(&[(1.0, true)]), 10),
            Some(0.0)
        );
        assert_eq!(
            expected_calibration_error(&attempts(&[(1.5, true)]), 10),
            None
        );

        let perfect = attempts(&[(1.0, true), (0.0, false)]);
        assert!((point_biserial(&perfect).unwrap() - 1.0).abs() < 1e-9);
        assert_eq!(
            point_biserial(&attempts(&[(0.4, true), (0.4, false)])),
            None
        );
        assert_eq!(point_biserial(&[]), None);
    }

    proptest! {
        #[test]
        fn auroc_agrees_with_all_pairs(
            raw in prop::collection::vec((0_u8..6, any::<bool>()), 2..40),
        ) {
            let all: Vec<Scored> = raw.iter().map(|(s, r)| Scored::new(f64::from(*s), *r)).collect();
            let (mut sum, mut pairs) = (0.0, 0.0);
            for win in all.iter().filter(|a| a.resolved) {
                for loss in all.iter().filter(|a| !a.resolved) {
                    pairs += 1.0;
                    sum += if win.score > loss.score { 1.0 } else if win.score == loss.score { 0.5 } else { 0.0 };
                }
            }
            match auroc(&all) {
                Some(value) => prop_assert!((value - sum / pairs).abs() < 1e-9),
                None => prop_assert_eq!(pairs, 0.0),
            }
        }
    }
}
