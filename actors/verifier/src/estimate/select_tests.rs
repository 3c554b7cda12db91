use super::*;
use proptest::prelude::*;

/// What a rule picks of a subset, written down a second time without any of the code under
/// test: all that tie for the first place, equally likely.
fn by_hand(subset: &[Candidate], rule: Selector) -> f64 {
    let mean =
        |of: &[&Candidate]| of.iter().filter(|a| a.resolved).count() as f64 / of.len() as f64;
    let all: Vec<&Candidate> = subset.iter().collect();
    let least = |of: &[&Candidate], key: &dyn Fn(&Candidate) -> i64| {
        let best = of.iter().map(|a| key(a)).min().unwrap();
        let top: Vec<&Candidate> = of.iter().copied().filter(|a| key(a) == best).collect();
        mean(&top)
    };
    let full: Vec<&Candidate> = all.iter().copied().filter(|a| a.patch_chars > 0).collect();
    let speaking = if full.is_empty() { &all } else { &full };
    // Scores and confidences of these tests are whole numbers.
    match rule {
        Selector::Verifier => least(&all, &|a| -(a.score.unwrap() as i64)),
        Selector::Random => mean(&all),
        Selector::Shortest => least(speaking, &|a| a.patch_chars as i64),
        Selector::FewestSteps => least(&all, &|a| a.steps as i64),
        Selector::FewestTokens => least(&all, &|a| match a.steps {
            0 => i64::MAX,
            _ => a.tokens.unwrap() as i64,
        }),
        Selector::Confidence => least(&all, &|a| match a.steps {
            0 => i64::MAX,
            _ => -(a.confidence.unwrap() as i64),
        }),
        Selector::Majority => {
            let votes = |a: &Candidate| speaking.iter().filter(|b| b.patch == a.patch).count();
            let most = speaking.iter().map(|a| votes(a)).max().unwrap();
            let mut patches: Vec<(&str, bool)> = speaking
                .iter()
                .filter(|a| votes(a) == most)
                .map(|a| (a.patch.as_str(), a.resolved))
                .collect();
            patches.sort_unstable();
            patches.dedup();
            patches.iter().filter(|p| p.1).count() as f64 / patches.len() as f64
        }
        Selector::Oracle => f64::from(u8::from(subset.iter().any(|a| a.resolved))),
    }
}

/// Mean of [`by_hand`] over every k-subset.
fn over_subsets(attempts: &[Candidate], rule: Selector, k: usize) -> f64 {
    let (mut sum, mut count) = (0.0, 0.0);
    for mask in 0_u32..1 << attempts.len() {
        if mask.count_ones() as usize == k {
            let inside = |at: &usize| mask & (1 << at) != 0;
            let subset: Vec<Candidate> = (0..attempts.len())
                .filter(inside)
                .map(|at| attempts[at].clone())
                .collect();
            sum += by_hand(&subset, rule);
            count += 1.0;
        }
    }
    sum / count
}

fn attempts() -> impl Strategy<Value = Vec<Candidate>> {
    // Verdict and length belong to the patch, as they do in life; patch 0 is empty.
    let patches = prop::collection::vec((any::<bool>(), 1_usize..4), 4);
    let each = prop::collection::vec((0_usize..4, 0_i32..4, 0_usize..4, -3_i32..1), 1..=12);
    (patches, each).prop_map(|(patches, each)| {
        let one = |(patch, score, steps, sure): (usize, i32, usize, i32)| Candidate {
            resolved: patches[patch].0,
            score: Some(f64::from(score)),
            patch: format!("p{patch}"),
            patch_chars: if patch == 0 { 0 } else { patches[patch].1 },
            steps,
            tokens: Some((steps as u64 * 7 + u64::from(sure.unsigned_abs())) % 5),
            confidence: Some(f64::from(sure)),
        };
        each.into_iter().map(one).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn every_rule_agrees_with_all_subsets(attempts in attempts(), k in 1_usize..=12) {
        prop_assume!(k <= attempts.len());
        for rule in Selector::ALL {
            let found = selected_at_k(&attempts, rule, k).unwrap();
            let expected = over_subsets(&attempts, rule, k);
            prop_assert!((found - expected).abs() < 1e-9, "{rule:?}@{k}: {found} {expected}");
        }
    }

    #[test]
    fn no_rule_beats_the_oracle_and_one_attempt_leaves_no_choice(attempts in attempts()) {
        let n = attempts.len();
        for rule in Selector::ALL {
            let one = selected_at_k(&attempts, rule, 1).unwrap();
            let share = attempts.iter().filter(|a| a.resolved).count() as f64 / n as f64;
            prop_assert!((one - share).abs() < 1e-9, "{:?}", rule);
            let best = selected_at_k(&attempts, rule, n).unwrap();
            prop_assert!(best <= selected_at_k(&attempts, Selector::Oracle, n).unwrap() + 1e-9);
        }
    }
}

#[test]
fn a_rule_that_cannot_tell_says_nothing() {
    let known = Candidate {
        resolved: true,
        score: Some(0.5),
        patch: "a".to_owned(),
        patch_chars: 1,
        steps: 2,
        tokens: Some(9),
        confidence: Some(-0.1),
    };
    let unknown = Candidate {
        score: None,
        tokens: None,
        confidence: None,
        ..known.clone()
    };
    let two = [known.clone(), unknown];
    assert_eq!(selected_at_k(&two, Selector::Verifier, 1), None);
    assert_eq!(selected_at_k(&two, Selector::Confidence, 2), None);
    assert_eq!(selected_at_k(&two, Selector::Majority, 2), Some(1.0));
    for rule in Selector::ALL {
        assert_eq!(selected_at_k(&two, rule, 3), None);
        assert_eq!(selected_at_k(&two, rule, 0), None);
        assert_eq!(Selector::of_name(rule.name()), Some(rule));
    }
    // An attempt that never spoke is there, and never preferred.
    let silent = Candidate {
        resolved: false,
        steps: 0,
        confidence: None,
        ..known.clone()
    };
    assert_eq!(
        selected_at_k(&[silent, known.clone()], Selector::Confidence, 2),
        Some(1.0)
    );
    assert_eq!(
        picked(&[known.clone(), known.clone()], Selector::Verifier),
        Some(0)
    );
    assert_eq!(picked(&two, Selector::Verifier), None);
    assert_eq!(picked(&[known], Selector::Majority), None);
}
