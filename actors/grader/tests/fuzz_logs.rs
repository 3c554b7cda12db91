//! Logs that look real and are not whole: lines lost, doubled and moved, bytes cut, put in
//! and changed. No parser panics, and how a log is read makes no difference to what it
//! says. (`fuzz/` does more of the same, with coverage.)

#![allow(clippy::unwrap_used)]

use gametape_grader::score::lines::Input;
use gametape_grader::score::markers::{Part, Pass, pass, traced};
use gametape_grader::score::parsers::Parser;
use gametape_grader::score::signs::{Signs, suite_ran};
use proptest::prelude::*;
use std::io::Read;
use std::path::Path;

/// The logs that are mutated, and that `fuzz/` begins with.
fn seeds() -> Vec<Vec<u8>> {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds");
    let mut paths: Vec<_> = std::fs::read_dir(place)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths
        .iter()
        .map(|path| std::fs::read(path).unwrap())
        .collect()
}

/// Hands out at most `step` bytes at a time.
struct Slow<'a>(&'a [u8], usize);

impl Read for Slow<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let most = out.len().min(self.1);
        self.0.read(&mut out[..most])
    }
}

fn said(pass: &Pass) -> Vec<String> {
    pass.statuses
        .iter()
        .map(|said| format!("{said:?}"))
        .collect()
}

#[derive(Clone, Debug)]
enum Change {
    Lose(usize),
    Double(usize),
    Move(usize, usize),
    Cut(usize),
    Put(usize, Vec<u8>),
    Flip(usize, u8),
    JoinLines(usize),
    Crlf,
}

fn change() -> impl Strategy<Value = Change> {
    let at = || 0usize..4000;
    prop_oneof![
        at().prop_map(Change::Lose),
        at().prop_map(Change::Double),
        (at(), at()).prop_map(|(from, to)| Change::Move(from, to)),
        at().prop_map(Change::Cut),
        (at(), prop::collection::vec(any::<u8>(), 1..6)).prop_map(|(at, put)| Change::Put(at, put)),
        (at(), any::<u8>()).prop_map(|(at, byte)| Change::Flip(at, byte)),
        at().prop_map(Change::JoinLines),
        Just(Change::Crlf),
    ]
}

fn apply(log: &mut Vec<u8>, change: &Change) {
    let mut lines: Vec<Vec<u8>> = log.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
    let count = lines.len();
    let length = log.len().max(1);
    match change {
        Change::Lose(at) => drop(lines.remove(at % count)),
        Change::Double(at) => lines.insert(at % count, lines[at % count].clone()),
        Change::Move(from, to) => {
            let line = lines.remove(from % count);
            lines.insert(to % count, line);
        }
        Change::Cut(at) => return log.truncate(at % length),
        Change::Put(at, put) => {
            let at = at % length;
            let at = at.min(log.len());
            return drop(log.splice(at..at, put.iter().copied()));
        }
        Change::Flip(at, byte) => {
            if let Some(old) = log.get_mut(at % length) {
                *old = *byte;
            }
            return;
        }
        Change::JoinLines(at) => {
            let next = (at % count + 1 < count).then(|| lines.remove(at % count + 1));
            lines[at % count].extend(next.unwrap_or_default());
        }
        Change::Crlf => lines.iter_mut().for_each(|line| line.push(b'\r')),
    }
    *log = lines.join(&b'\n');
}

#[test]
fn every_parser_finds_something_in_a_seed() {
    let seeds = seeds();
    for name in Parser::names() {
        let parser = Parser::named(name).unwrap();
        let finds = |part| {
            let named = |log: &Vec<u8>| pass(log.as_slice(), &parser, part).unwrap();
            seeds.iter().any(|log| !named(log).statuses.is_empty())
        };
        assert!(finds(Part::Output), "{name}: no seed has a test for it");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn no_mutated_log_makes_a_parser_panic_and_pieces_say_what_the_whole_says(
        which in 0usize..64,
        other in 0usize..64,
        changes in prop::collection::vec(change(), 0..8),
        step in 1usize..40,
    ) {
        let seeds = seeds();
        let mut log = seeds[which % seeds.len()].clone();
        if other % 4 == 0 {
            log.extend_from_slice(&seeds[other % seeds.len()]);
        }
        for change in &changes {
            apply(&mut log, change);
        }
        traced(log.as_slice()).unwrap();
        suite_ran(log.as_slice()).unwrap();
        Signs::default().look(log.as_slice()).unwrap();
        for name in Parser::names() {
            let parser = Parser::named(name).unwrap();
            for part in [Part::Output, Part::Whole] {
                let whole = pass(log.as_slice(), &parser, part).unwrap();
                let slow = Input::Stream(Box::new(Slow(&log, step)));
                let pieces = pass(slow, &parser, part).unwrap();
                prop_assert_eq!(&whole.evidence, &pieces.evidence);
                prop_assert_eq!(said(&whole), said(&pieces), "{}", name);
            }
        }
    }
}
