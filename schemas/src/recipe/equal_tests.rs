//! What must be equal whatever the tape looks like and however it is read; and why two
//! datasets are not.

use super::build::{Options, build, each};
use super::built::Built;
use super::diff::{Between, Diff, Rows, diff};
use super::facts::Records;
use super::made_up::{Plain, interleaved, streams};
use super::spec::Given;
use super::tests::{ALL, WINS, of, recipe, selected, tape};
use crate::event::Record;
use proptest::prelude::*;

const EVERYTHING: &str = "[[filter]]\nby = \"findings\"\nallow = \"soft\"\n[[filter]]\nby = \"solve_rate\"\nmax = 0.9\n\
    [[filter]]\nby = \"dedup\"\n[[filter]]\nby = \"near_dedup\"\nngram = 5\nshare = 0.95\n\
    [[filter]]\nby = \"mix\"\noff_policy = 0.5\n[[filter]]\nby = \"per_task\"\nmost = 3\nkeep = \"first\"\n\
    [[filter]]\nby = \"budget\"\ntokens = 4000\nkeep = { random = 1 }\n";

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    #[test]
    fn the_same_facts_give_the_same_bytes(seed in 0_u64..1000, other in 0_u64..1000, later in 1_u64..1_000_000) {
        let streams = streams(seed, 26, 120);
        let one = interleaved(&streams, seed);
        let mut two = interleaved(&streams, other);
        for record in &mut two {
            record.at_micros += later;
        }
        for kind in ["policy", "verifier", "preference", "recovery"] {
            let filters = if kind == "policy" { format!("{ALL}{EVERYTHING}") } else { EVERYTHING.to_owned() };
            let given = Given::new(recipe(kind, &filters));
            let kept = build(&given, &Records(&one), &Plain, Options::default()).unwrap();
            // Another order, other clocks, and nothing kept on the first pass, or a little.
            for (keep_bytes, rows_bytes) in [(0, 0), (2000, 3000), (usize::MAX, 5000), (0, usize::MAX)] {
                let options = Options { keep_bytes, rows_bytes, native: false };
                let twice = build(&given, &Records(&two), &Plain, options).unwrap();
                prop_assert!(twice.passes > 1 || twice.rows.len() < 2);
                prop_assert_eq!(&kept.sum, &twice.sum);
                prop_assert_eq!(kept.to_jsonl().unwrap(), twice.to_jsonl().unwrap());
                prop_assert_eq!(&kept.funnel, &twice.funnel);
            }
            prop_assert_eq!(&kept.sum.digest, &crate::Digest::of_bytes(&kept.to_jsonl().unwrap()));
            prop_assert_eq!(kept.passes, 1);
            // Handed on one by one, they are the same lines.
            let mut lines = Vec::new();
            let handed = each(&given, &Records(&one), &Plain, Options::default(), &mut |_, line| {
                lines.extend_from_slice(line);
                Ok::<(), crate::Failure>(())
            }).unwrap();
            prop_assert_eq!(lines, kept.to_jsonl().unwrap());
            prop_assert_eq!((handed.sum, handed.rows.len()), (kept.sum, 0));
        }
    }

    #[test]
    fn every_attempt_is_in_the_rows_or_dropped_once(seed in 0_u64..1000) {
        let tape = interleaved(&streams(seed, 26, 120), seed);
        for kind in ["policy", "verifier", "preference", "recovery"] {
            let filters = if kind == "policy" { format!("{ALL}{EVERYTHING}") } else { EVERYTHING.to_owned() };
            let built = of(kind, &filters, &tape);
            let selected = selected(&built);
            prop_assert_eq!(built.dropped().values().sum::<u64>() + selected.len() as u64, built.attempts);
            prop_assert_eq!(built.fates.len() + selected.len(), built.attempts as usize);
            prop_assert!(selected.iter().all(|id| !built.fates.contains_key(id)));
            let mut left = built.attempts;
            for stage in &built.funnel {
                left -= stage.dropped.values().sum::<u64>();
                prop_assert_eq!(stage.left, left, "{}", &stage.name);
            }
        }
    }
}

fn differing(a: (&Given, &Built), b: (&Given, &Built), records: &[Record]) -> Diff {
    let rows = |built: &Built| {
        let mut rows = Rows::default();
        for row in &built.rows {
            rows.add(&row.row, &serde_json::to_vec(&row.row).unwrap());
        }
        rows
    };
    let mut between = Between::default();
    records.iter().for_each(|record| between.add(record));
    diff(
        (a.0, &rows(a.1), &a.1.fates),
        (b.0, &rows(b.1), &b.1.fates),
        &between,
    )
}

#[test]
fn a_diff_names_the_event_that_made_it_so() {
    let tape = tape(2);
    let given = Given::new(recipe("policy", WINS));
    let at = tape
        .iter()
        .rposition(|r| {
            matches!(&r.event, crate::Event::Graded(b) if {
                b.verdict.is_resolved() && selected(&of("policy", WINS, &tape)).contains(&b.attempt)
            })
        })
        .unwrap();
    let before = build(&given, &Records(&tape[..at]), &Plain, Options::default()).unwrap();
    let after = build(&given, &Records(&tape), &Plain, Options::default()).unwrap();
    let diff = differing((&given, &before), (&given, &after), &tape[at..]);
    assert!(diff.recipe.is_empty() && diff.removed.is_empty());
    let added = diff
        .added
        .iter()
        .find(|change| {
            change
                .events
                .iter()
                .any(|e| e.starts_with(&format!("{at} Graded")))
        })
        .unwrap();
    assert!(
        added.other_dropped[0].contains("admission: ungraded"),
        "{:?}",
        added.other_dropped
    );
    let narrower = Given::new(recipe(
        "policy",
        &format!("{WINS}[[filter]]\nby = \"turns\"\nmax = 2\n"),
    ));
    let few = build(&narrower, &Records(&tape), &Plain, Options::default()).unwrap();
    let diff = differing((&given, &after), (&narrower, &few), &[]);
    assert_eq!(diff.recipe.len(), 1);
    assert!(
        diff.removed
            .iter()
            .all(|change| change.other_dropped[0].contains("turns: turns"))
            && !diff.removed.is_empty()
    );
}
