//! Any bytes as a log, for the parser that `GAMETAPE_PARSER` names, else for the one that
//! the first byte chooses: nothing panics, and a log says the same whether it is read at
//! once or in pieces.

#![no_main]

use gametape_grader::score::lines::Input;
use gametape_grader::score::markers::{Part, Pass, pass, traced};
use gametape_grader::score::parsers::Parser;
use gametape_grader::score::signs::{Signs, suite_ran};
use libfuzzer_sys::fuzz_target;
use std::io::Read;
use std::sync::LazyLock;

static NAMED: LazyLock<Option<Parser>> = LazyLock::new(|| {
    let name = std::env::var("GAMETAPE_PARSER").ok()?;
    Some(Parser::named(&name).unwrap_or_else(|| panic!("no parser is named `{name}`")))
});

/// Hands out seven bytes at a time.
struct Slow<'a>(&'a [u8]);

impl Read for Slow<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let most = out.len().min(7);
        self.0.read(&mut out[..most])
    }
}

fn said(pass: &Pass) -> Vec<(String, String)> {
    let all = pass.statuses.iter();
    all.map(|(test, said)| (test.to_owned(), format!("{said:?}"))).collect()
}

fuzz_target!(|data: &[u8]| {
    let Some((first, log)) = data.split_first() else {
        return;
    };
    let names: Vec<&str> = Parser::names().collect();
    let chosen = Parser::named(names[usize::from(*first) % names.len()]).unwrap();
    let parser = NAMED.unwrap_or(chosen);
    for part in [Part::Output, Part::AfterPatch, Part::Whole] {
        let whole = pass(log, &parser, part).unwrap();
        let pieces = pass(Input::Stream(Box::new(Slow(log))), &parser, part).unwrap();
        assert_eq!(whole.evidence, pieces.evidence);
        assert_eq!(said(&whole), said(&pieces), "{parser:?}");
    }
    traced(log).unwrap();
    suite_ran(log).unwrap();
    Signs::default().look(log).unwrap();
});
