//! Exact expectations over all `k`-subsets of the attempts at one task.

/// One attempt in the eyes of a selection rule: it picks the highest score.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Scored {
    /// What the rule looks at. NaN counts as lower than everything.
    pub score: f64,
    /// Whether the hidden tests pass.
    pub resolved: bool,
}

impl Scored {
    /// An attempt with its score.
    pub fn new(score: f64, resolved: bool) -> Self {
        Self { score, resolved }
    }

    /// The score with NaN out of the way, so that it has a total order.
    fn order(&self) -> f64 {
        if self.score.is_nan() {
            f64::NEG_INFINITY
        } else {
            self.score
        }
    }
}

/// Probability that at least one of `k` attempts, drawn without replacement from `n`
/// of which `c` resolved, resolved: `1 − C(n−c, k) / C(n, k)`. Unbiased for the
/// policy's Pass@k. `None` when `k` is 0 or above `n`, or `c` above `n`.
pub fn pass_at_k(n: usize, c: usize, k: usize) -> Option<f64> {
    if k == 0 || k > n || c > n {
        return None;
    }
    let losses = n - c;
    if losses < k {
        return Some(1.0);
    }
    // C(n−c, k) / C(n, k) as a product of min(c, k) factors in (0, 1]: no factorial,
    // so nothing overflows. By symmetry it is also C(n−k, c) / C(n, c).
    let (terms, other) = if c < k { (c, k) } else { (k, c) };
    let all_lose: f64 = (0..terms)
        .map(|i| (n - other - i) as f64 / (n - i) as f64)
        .product();
    Some(1.0 - all_lose)
}

/// Share of the attempts that resolved: what picking one at random gives, whatever `k`.
/// `None` without attempts.
pub fn random_pick(attempts: &[Scored]) -> Option<f64> {
    let wins = attempts.iter().filter(|a| a.resolved).count();
    pass_at_k(attempts.len(), wins, 1)
}

/// Best@k: expectation, over all `k`-subsets of the attempts, of whether the
/// highest-scored is resolved; ties for the highest score are averaged. Exact, in
/// O(n log n). `None` when `k` is 0 or above the number of attempts.
///
/// Sort by score and let `F(m) = C(m, k) / C(n, k)` be the probability that a subset
/// lies within the `m` lowest. The highest is in a group of equal scores that spans
/// positions `l..m` with probability `F(m) − F(l)`, and every member of the group is
/// as likely as any other to be the one picked.
pub fn best_at_k(attempts: &[Scored], k: usize) -> Option<f64> {
    let n = attempts.len();
    if k == 0 || k > n {
        return None;
    }
    let mut sorted = attempts.to_vec();
    sorted.sort_by(|a, b| b.order().total_cmp(&a.order()));
    // −0.0 and 0.0 are one score: total_cmp only puts them side by side.
    let mut expectation = 0.0;
    let mut within = 1.0;
    let mut left = n;
    for group in sorted.chunk_by(|a, b| a.order() == b.order()) {
        let mut below = within;
        for _ in group {
            // F(m − 1) = F(m) · (m − k) / m, and 0 once fewer than k are left.
            below *= left.saturating_sub(k) as f64 / left as f64;
            left -= 1;
        }
        let wins = group.iter().filter(|a| a.resolved).count();
        expectation += (within - below) * wins as f64 / group.len() as f64;
        within = below;
        if left < k {
            break;
        }
    }
    Some(expectation)
}

/// Attempts that left the same patch.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct VoteGroup {
    /// How many attempts left it.
    pub size: usize,
    /// Share of them that resolved (0 or 1 when grading is deterministic).
    pub resolved: f64,
    /// Whether the patch is empty: it votes only where nobody has anything to say.
    pub empty: bool,
}

/// The most attempts for which [`majority_at_k`] counts subsets in `f64`.
pub const MAJORITY_LIMIT: usize = 1000;

/// Majority vote: expectation, over all `k`-subsets of the attempts, of whether the
/// most frequent non-empty patch in the subset is resolved; ties are averaged. Exact.
/// `None` when `k` is 0 or above the number of attempts, or there are more than
/// [`MAJORITY_LIMIT`] of them.
///
/// For every possible height `m` of the winning vote a polynomial product counts the
/// subsets in which `t` patches have exactly `m` votes and all others fewer. Work is
/// about groups · k³, which is nothing for the tens of attempts that one makes.
pub fn majority_at_k(groups: &[VoteGroup], k: usize) -> Option<f64> {
    let n: usize = groups.iter().map(|g| g.size).sum();
    if k == 0 || k > n || n > MAJORITY_LIMIT {
        return None;
    }
    let silent: Vec<&VoteGroup> = groups.iter().filter(|g| g.empty).collect();
    let silent_size: usize = silent.iter().map(|g| g.size).sum();
    let silent_wins: f64 = silent.iter().map(|g| g.resolved * g.size as f64).sum();
    let mut favourable = 0.0;
    if silent_size >= k {
        // Nothing but empty patches in the subset: one of them is picked.
        favourable += choose(silent_size, k) * silent_wins / silent_size as f64;
    }
    for height in 1..=k {
        favourable += votes_of_height(groups, silent_size, height, k);
    }
    Some(favourable / choose(n, k))
}

/// Sum over subsets of size `k` whose winning patches have exactly `height` votes of
/// the mean of `resolved` over those winners.
fn votes_of_height(groups: &[VoteGroup], silent: usize, height: usize, k: usize) -> f64 {
    let most = k / height;
    // (used, winners) → (subsets so far, those subsets weighted by Σ resolved of winners).
    let width = most + 1;
    let mut table = vec![(0.0_f64, 0.0_f64); (k + 1) * width];
    for used in 0..=silent.min(k) {
        if let Some(cell) = table.get_mut(used * width) {
            cell.0 = choose(silent, used);
        }
    }
    for group in groups.iter().filter(|g| !g.empty && g.size > 0) {
        let mut next = vec![(0.0_f64, 0.0_f64); table.len()];
        for used in 0..=k {
            for winners in 0..=most {
                let Some(&(ways, weight)) = table.get(used * width + winners) else {
                    continue;
                };
                if ways == 0.0 {
                    continue;
                }
                for taken in 0..=group.size.min(height).min(k - used) {
                    let won = usize::from(taken == height);
                    if winners + won > most {
                        continue;
                    }
                    let times = choose(group.size, taken);
                    let at = (used + taken) * width + winners + won;
                    if let Some(cell) = next.get_mut(at) {
                        cell.0 += ways * times;
                        cell.1 += times * (weight + ways * group.resolved * won as f64);
                    }
                }
            }
        }
        table = next;
    }
    (1..=most)
        .filter_map(|winners| {
            let cell = table.get(k * width + winners)?;
            Some(cell.1 / winners as f64)
        })
        .sum()
}

/// C(n, k) in `f64`; exact while it fits 53 bits.
fn choose(n: usize, k: usize) -> f64 {
    if k > n {
        return 0.0;
    }
    (0..k.min(n - k)).fold(1.0, |product, i| product * (n - i) as f64 / (i + 1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-9
    }

    /// Mean over every k-subset of what `value` says of it.
    fn over_subsets<T: Clone>(items: &[T], k: usize, value: impl Fn(&[T]) -> f64) -> f64 {
        let (mut sum, mut count) = (0.0, 0.0);
        for mask in 0_u32..1 << items.len() {
            if mask.count_ones() as usize == k {
                let subset: Vec<T> = (0..items.len())
                    .filter(|i| mask & (1 << i) != 0)
                    .map(|i| items[i].clone())
                    .collect();
                sum += value(&subset);
                count += 1.0;
            }
        }
        sum / count
    }

    fn picked_by_score(subset: &[Scored]) -> f64 {
        let best = subset
            .iter()
            .map(|a| a.score)
            .fold(f64::NEG_INFINITY, f64::max);
        let top: Vec<_> = subset.iter().filter(|a| a.score == best).collect();
        top.iter().filter(|a| a.resolved).count() as f64 / top.len() as f64
    }

    /// Attempts as (patch, resolved); patch 0 is the empty one.
    fn picked_by_vote(subset: &[(u8, bool)]) -> f64 {
        let count = |patch: u8| subset.iter().filter(|a| a.0 == patch).count();
        let mut patches: Vec<u8> = subset.iter().map(|a| a.0).collect();
        patches.sort_unstable();
        patches.dedup();
        if patches != [0] {
            patches.retain(|p| *p != 0);
        }
        let most = patches.iter().map(|p| count(*p)).max().unwrap();
        let top: Vec<u8> = patches.into_iter().filter(|p| count(*p) == most).collect();
        top.iter()
            .map(|p| f64::from(u8::from(subset.iter().find(|a| a.0 == *p).unwrap().1)))
            .sum::<f64>()
            / top.len() as f64
    }

    #[test]
    fn small_cases_by_hand() {
        assert!(close(pass_at_k(4, 1, 1).unwrap(), 0.25));
        assert!(close(pass_at_k(4, 1, 2).unwrap(), 0.5));
        assert!(close(pass_at_k(4, 2, 2).unwrap(), 5.0 / 6.0));
        assert!(close(pass_at_k(5, 0, 5).unwrap(), 0.0));
        assert!(close(pass_at_k(5, 1, 5).unwrap(), 1.0));
        assert_eq!(pass_at_k(3, 1, 0), None);
        assert_eq!(pass_at_k(3, 1, 4), None);
        assert_eq!(pass_at_k(3, 4, 1), None);
        assert_eq!(pass_at_k(0, 0, 1), None);

        // Scores 0.9 loss, 0.5 win, 0.1 loss: pairs pick loss, loss, win.
        let three = [(0.9, false), (0.5, true), (0.1, false)].map(|(s, r)| Scored::new(s, r));
        assert!(close(best_at_k(&three, 1).unwrap(), 1.0 / 3.0));
        assert!(close(best_at_k(&three, 2).unwrap(), 1.0 / 3.0));
        assert!(close(best_at_k(&three, 3).unwrap(), 0.0));
        assert_eq!(best_at_k(&three, 4), None);
        assert_eq!(best_at_k(&[], 1), None);
        // NaN is never picked while there is anything else.
        let nan = [Scored::new(f64::NAN, true), Scored::new(-5.0, false)];
        assert!(close(best_at_k(&nan, 2).unwrap(), 0.0));
        // Zero has no sign.
        let zeros = [Scored::new(0.0, true), Scored::new(-0.0, false)];
        assert!(close(best_at_k(&zeros, 2).unwrap(), 0.5));
    }

    #[test]
    fn majority_by_hand() {
        let group = |size, resolved, empty| VoteGroup {
            size,
            resolved,
            empty,
        };
        // aab: the pair {a, a} picks a; {a, b} twice is a tie.
        let groups = [group(2, 1.0, false), group(1, 0.0, false)];
        assert!(close(majority_at_k(&groups, 3).unwrap(), 1.0));
        assert!(close(
            majority_at_k(&groups, 2).unwrap(),
            (1.0 + 0.5 + 0.5) / 3.0
        ));
        // Many empty patches do not outvote one that says something.
        let silent = [group(5, 0.0, true), group(1, 1.0, false)];
        assert!(close(majority_at_k(&silent, 6).unwrap(), 1.0));
        assert!(close(majority_at_k(&silent, 1).unwrap(), 1.0 / 6.0));
        assert_eq!(majority_at_k(&groups, 4), None);
    }

    #[test]
    fn large_counts_stay_finite_and_ordered() {
        let n = 10_000;
        let mut last = 0.0;
        for k in [1, 2, 10, 100, 1_000, 5_000, 9_000, 9_999, 10_000] {
            let pass = pass_at_k(n, 3, k).unwrap();
            assert!(
                pass.is_finite() && pass >= last && pass <= 1.0,
                "{k}: {pass}"
            );
            last = pass;
        }
        assert!(close(pass_at_k(n, 3, 1).unwrap(), 3e-4));
        let attempts: Vec<Scored> = (0..n)
            .map(|i| Scored::new((i % 97) as f64, i % 3 == 0))
            .collect();
        for k in [1, 50, 9_000, 10_000] {
            let best = best_at_k(&attempts, k).unwrap();
            assert!((0.0..=1.0).contains(&best), "{k}: {best}");
        }
        assert!(close(
            best_at_k(&attempts, 1).unwrap(),
            random_pick(&attempts).unwrap()
        ));
    }

    proptest! {
        #[test]
        fn estimators_agree_with_all_subsets(
            raw in prop::collection::vec((0_u8..5, any::<bool>()), 1..=12),
            k in 1_usize..=12,
        ) {
            prop_assume!(k <= raw.len());
            let attempts: Vec<Scored> =
                raw.iter().map(|(s, r)| Scored::new(f64::from(*s), *r)).collect();
            let wins = raw.iter().filter(|a| a.1).count();
            let any = over_subsets(&attempts, k, |s| f64::from(u8::from(s.iter().any(|a| a.resolved))));
            prop_assert!(close(pass_at_k(raw.len(), wins, k).unwrap(), any));
            let best = over_subsets(&attempts, k, picked_by_score);
            prop_assert!(close(best_at_k(&attempts, k).unwrap(), best));
            // Scoring by the verdict itself is the oracle.
            let oracle: Vec<Scored> = attempts
                .iter()
                .map(|a| Scored::new(f64::from(u8::from(a.resolved)), a.resolved))
                .collect();
            prop_assert!(close(best_at_k(&oracle, k).unwrap(), any));
        }

        #[test]
        fn the_vote_agrees_with_all_subsets(
            patches in prop::collection::vec(0_u8..4, 1..=10),
            verdicts in prop::collection::vec(any::<bool>(), 4),
            k in 1_usize..=10,
        ) {
            prop_assume!(k <= patches.len());
            let attempts: Vec<(u8, bool)> =
                patches.iter().map(|p| (*p, verdicts[*p as usize])).collect();
            let groups: Vec<VoteGroup> = (0..4)
                .map(|p| VoteGroup {
                    size: patches.iter().filter(|q| **q == p).count(),
                    resolved: f64::from(u8::from(verdicts[p as usize])),
                    empty: p == 0,
                })
                .collect();
            let expected = over_subsets(&attempts, k, picked_by_vote);
            prop_assert!(close(majority_at_k(&groups, k).unwrap(), expected));
        }
    }
}
