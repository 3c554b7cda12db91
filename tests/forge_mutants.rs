//! Property: whatever function the modifiers are let loose on, every candidate
//! differs from the original, parses, and touches nothing outside the function.

#![allow(clippy::unwrap_used)]

use gametape::forge::edit::unified_diff;
use gametape::forge::modifiers;
use gametape::forge::syntax::{Source, entities};
use proptest::prelude::*;

fn expression() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        "[abcd]",
        (0u32..300).prop_map(|n| n.to_string()),
        Just("'text'".to_owned()),
        Just("None".to_owned()),
        Just("xs[-1]".to_owned()),
        Just("f'{a + 1}'".to_owned()),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        let operator = prop::sample::select(vec![
            "+", "-", "*", "/", "//", "%", "**", "<<", "&", "|", "==", "!=", "<", "<=", "is",
            "is not", "in", "not in", "and", "or",
        ]);
        prop_oneof![
            (inner.clone(), operator.clone(), inner.clone())
                .prop_map(|(a, op, b)| format!("{a} {op} {b}")),
            (inner.clone(), operator, inner.clone())
                .prop_map(|(a, op, b)| format!("({a} {op} {b})")),
            (inner.clone(), inner.clone(), inner.clone())
                .prop_map(|(a, b, c)| format!("({a} if {b} else {c})")),
            (inner.clone(), inner.clone(), inner.clone())
                .prop_map(|(a, b, c)| format!("{a} < {b} <= {c}")),
            inner.clone().prop_map(|a| format!("(not {a})")),
            inner
                .clone()
                .prop_map(|a| format!("f({a}, key=lambda x: x + {a})")),
            (inner.clone(), inner).prop_map(|(a, b)| format!("[x for x in {a} if {b}]")),
        ]
    })
}

fn indent(block: &str) -> String {
    block.lines().map(|line| format!("    {line}\n")).collect()
}

fn statement() -> impl Strategy<Value = String> {
    let simple = prop_oneof![
        expression().prop_map(|e| format!("x = {e}\n")),
        expression().prop_map(|e| format!("x += {e}  # note\n")),
        expression().prop_map(|e| format!("x: int | None = {e}\n")),
        expression().prop_map(|e| format!("f({e}); y = 1\n")),
        expression().prop_map(|e| format!("return {e}\n")),
        Just("'''two\n  lines'''\n".to_owned()),
        Just("# only a comment\npass\n".to_owned()),
        Just("del x\n".to_owned()),
    ];
    simple.prop_recursive(3, 10, 3, |inner| {
        let block = prop::collection::vec(inner, 1..4).prop_map(|lines| indent(&lines.concat()));
        prop_oneof![
            (expression(), block.clone()).prop_map(|(e, a)| format!("if {e}:\n{a}")),
            (expression(), block.clone(), block.clone())
                .prop_map(|(e, a, b)| format!("if {e}:\n{a}else:\n{b}")),
            (expression(), expression(), block.clone(), block.clone())
                .prop_map(|(e, g, a, b)| format!("if {e}:\n{a}elif {g}:\n{b}")),
            (expression(), block.clone()).prop_map(|(e, a)| format!("for x in {e}:\n{a}")),
            (expression(), block.clone()).prop_map(|(e, a)| format!("while {e}:\n{a}")),
            (block.clone(), block.clone())
                .prop_map(|(a, b)| format!("try:\n{a}except ValueError:\n{b}")),
            (expression(), block.clone()).prop_map(|(e, a)| format!("with f({e}) as x:\n{a}")),
            block.prop_map(|a| format!("def inner(n=2):\n{a}")),
        ]
    })
}

fn function() -> impl Strategy<Value = String> {
    (
        prop::collection::vec(statement(), 1..6),
        0u32..9,
        any::<bool>(),
    )
        .prop_map(|(body, default, newline)| {
            let text = format!(
                "import os\n\n@wraps(1 + 2)\ndef target(a, b={default}):\n    \"\"\"Doc.\"\"\"\n{}",
                indent(&body.concat())
            );
            if newline {
                format!("{text}\nAFTER = 1 + 2\n")
            } else {
                text.trim_end().to_owned()
            }
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, max_shrink_iters: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn candidates_differ_parse_and_stay_inside(text in function()) {
        // The generator may nest what Python refuses; those texts are not subjects.
        let Some(source) = Source::parse(text.as_str()) else {
            return Ok(());
        };
        let found = entities(&source);
        prop_assert_eq!(found.len(), 1);
        let entity = &found[0];
        for modifier in modifiers::ALL {
            let edits = modifier.edits(&source, entity);
            prop_assert_eq!(&edits, &modifier.edits(&source, entity), "deterministic");
            for edit in edits {
                let mutant = edit.apply(&text);
                prop_assert!(mutant.is_some(), "{}: no change: {edit:?}", modifier.id);
                let mutant = mutant.unwrap();
                prop_assert!(
                    Source::parse(mutant.as_str()).is_some(),
                    "{} breaks\n{text}\n---\n{mutant}",
                    modifier.id
                );
                prop_assert!(edit.start >= entity.definition.start);
                let line_after = source.line_end(entity.definition.end.saturating_sub(1));
                prop_assert!(edit.end <= line_after, "{}", modifier.id);
                prop_assert!(unified_diff("x.py", &text, &mutant).starts_with("diff --git"));
            }
        }
    }
}
