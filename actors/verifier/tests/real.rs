//! The small verifier on trajectories of other people's agents, on repositories that it
//! never saw. Without the data: `SKIPPED`.

mod shared;

use gametape_verifier::head::HeadRecipe;
use gametape_verifier::validate::{Candidate, cross_validate};

#[test]
fn on_unseen_repositories_it_beats_every_baseline() {
    let mut candidates = Vec::new();
    for run in shared::RUNS {
        let Some(items) = shared::load(run) else {
            eprintln!(
                "SKIPPED: on_unseen_repositories_it_beats_every_baseline: \
                 no trajectories (GAMETAPE_SHARED)"
            );
            return;
        };
        candidates.extend(items.iter().filter_map(|(t, a)| Candidate::of(t, a)));
    }
    let resamples = match std::env::var("GAMETAPE_RESAMPLES") {
        Ok(n) => n.parse().expect("GAMETAPE_RESAMPLES is a number"),
        Err(_) => 100,
    };
    let report = cross_validate(&candidates, &HeadRecipe::default(), 7, resamples, 7)
        .expect("wins and losses in every part");
    println!(
        "{}",
        serde_json::to_string_pretty(&report).expect("a report is JSON")
    );
    assert_eq!((report.attempts, report.resolved), (819, 351));
    // Measured: 0.688 within policies, 0.801 over all pairs.
    let verifier = &report.rules[0];
    let within = verifier.within.expect("pairs");
    assert!(within.mean > 0.66 && within.low > 0.6, "{within:?}");
    assert!(verifier.pooled.expect("pairs").mean > 0.77, "{verifier:?}");
    // Measured: 0.037 above the best baseline (itself trained), 0.056 above the best rule.
    let best = report.best_baseline().expect("baselines");
    let gain = best.verifier_gains.expect("pairs");
    assert!(gain.mean > 0.02, "{best:?}");
    for rule in report.rules.iter().skip(1) {
        let gains = rule.verifier_gains.expect("pairs");
        assert!(gains.mean > 0.02, "{rule:?}");
    }
    assert!(report.calibration_error.is_some_and(|e| e < 0.08));
    for policy in &report.policies {
        assert!(policy.within.is_some_and(|a| a > 0.58), "{policy:?}");
    }
}

/// A number that has nothing to do with the verdict, made of names alone, ranks nothing:
/// whatever the features are, the way from attempts to figures adds no skill.
#[test]
fn names_of_attempts_say_nothing_of_their_verdicts() {
    use gametape_schemas::Digest;
    use gametape_verifier::estimate::{Scored, auroc};
    let mut sums = Vec::new();
    for salt in 0..16 {
        let mut scored = Vec::new();
        for run in &shared::RUNS[1..] {
            let Some(items) = shared::load(run) else {
                eprintln!(
                    "SKIPPED: names_of_attempts_say_nothing_of_their_verdicts: \
                     no trajectories (GAMETAPE_SHARED)"
                );
                return;
            };
            scored.extend(items.iter().filter_map(|(_, attempt)| {
                let digest = Digest::of_bytes(format!("{salt}/{}", attempt.attempt).as_bytes());
                let lot = u32::from_str_radix(&digest.0[..8], 16).ok()?;
                Some(Scored::new(
                    f64::from(lot),
                    attempt.verdict.as_ref()?.is_resolved(),
                ))
            }));
        }
        sums.push(auroc(&scored).expect("wins and losses"));
    }
    println!("{sums:?}");
    let mean = sums.iter().sum::<f64>() / sums.len() as f64;
    assert!((mean - 0.5).abs() < 0.03, "{mean}");
}
