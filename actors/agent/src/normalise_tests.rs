//! What agreement means, and that nothing else passes for it.

use super::*;
use proptest::prelude::*;

fn differs_at(was: &str, is: &str) -> (usize, usize, usize) {
    match compare(was, is) {
        Agreement::Differs(place) => (place.line, place.recorded, place.replayed),
        other => panic!("{other:?}"),
    }
}

#[test]
fn rules_are_told_once_each_in_order_and_only_those_that_were_needed() {
    let was = "pid 1\n12:00:01\nin 0.1s\nin 0.2s\n0x7f0000000000\n";
    let is = "pid 2\n12:00:02\nin 0.3s\nin 0.4s\n0x7f0000000000\n";
    let rules = vec!["clock", "pid", "duration"];
    assert_eq!(compare(was, is), Agreement::Under(rules));
    assert_eq!(compare(was, was), Agreement::Exact);
}

#[test]
fn of_two_rules_that_would_do_the_earlier_one_is_told() {
    let (was, is) = ("2024-01-31 12:00:01", "2024-01-31 12:00:02");
    assert_eq!(compare(was, is), Agreement::Under(vec!["iso-8601"]));
    // Where only one of them does, it is that one.
    let (was, is) = (
        "2024-01-31 12:00:01\n12:00:01",
        "2024-01-31 12:00:02\n12:00:02",
    );
    assert_eq!(compare(was, is), Agreement::Under(vec!["clock"]));
}

#[test]
fn the_first_difference_is_the_first_that_no_rule_explains() {
    let was = "at 12:00:01\nin 0.5s: 3 ok, 7 bad\nx";
    let is = "at 12:00:02\nin 10.5s: 3 ok, 8 bad\ny";
    assert_eq!(differs_at(was, is), (1, 15, 16));
    assert_eq!(differs_at("a\nb", "a\nb\n12:00:01"), (2, 0, 0));
    assert_eq!(differs_at("at 12:00:01", "at 12:00:02 x"), (0, 11, 11));
    assert_eq!(differs_at("é 12:00:01", "é 1.2 ms"), (0, 3, 3));
}

#[test]
fn a_value_is_shown_as_the_name_of_its_rule() {
    assert_eq!(
        normalise("12:00:01 pid 12\n=== 3 passed in 0.12s ===\n7"),
        "⟨clock⟩ pid ⟨pid⟩\n⟨pytest-summary⟩ 3 passed in ⟨pytest-summary⟩ ⟨pytest-summary⟩\n7"
    );
}

/// Something that varies: two values of one form.
fn varying() -> impl Strategy<Value = (String, String)> {
    let two = |form: fn(u32) -> String| {
        (0..60u32, 0..60u32).prop_map(move |(was, is)| (form(was), form(is)))
    };
    prop_oneof![
        two(|n| format!("12:34:{n:02}")),
        two(|n| format!("2024-01-31T12:34:{n:02}Z")),
        two(|n| format!("in 0.{n:02}s")),
        two(|n| format!("{n}.5 ms")),
        two(|n| format!("pid {n}")),
        two(|n| format!("<f at 0x7f{n:010x}>")),
        two(|n| format!("/tmp/tmpabcdef{n:02}")),
        two(|n| format!("00000000-0000-4000-8000-0000000000{n:02}")),
        two(|n| format!("token: {n:032x}")),
    ]
}

/// A number that is none of them, around which only `{}` is put in.
fn near_miss() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("assert {} == 4"),
        Just("line {}"),
        Just("m.py:{}:"),
        Just("{} passed"),
        Just("size {} bytes"),
        Just("0x{}"),
        Just("x[{}]"),
        Just("v1.{}"),
        Just("-{}.5s"),
        Just("{} seconds"),
    ]
    .prop_map(str::to_owned)
}

fn anything() -> impl Strategy<Value = String> {
    // Made of what the forms are made of, so that they are often nearly met.
    let part = prop_oneof![
        Just("12:34:56"),
        Just("2024-01-31"),
        Just("T"),
        Just("Z"),
        Just("0.5"),
        Just("s"),
        Just(" ms"),
        Just("in "),
        Just("took "),
        Just("0x7f1234567890"),
        Just(" at "),
        Just(">"),
        Just("pid "),
        Just("7"),
        Just("42"),
        Just("/tmp/tmpabcd1234"),
        Just("/"),
        Just(" "),
        Just(":"),
        Just("."),
        Just("-"),
        Just("="),
        Just("["),
        Just("] "),
        Just("[INFO]"),
        Just("\n"),
        Just("é"),
        Just("⟨"),
        Just("⟩"),
        Just("token="),
        Just("00000000-0000-4000-8000-000000000000"),
        Just("=== 3 passed in 0.1s ==="),
        Just("00000000000040008000000000000000"),
        Just("Wed Jan 31 12:34:56 2024"),
        Just("Wed, 31 Jan 2024 12:34:56 GMT"),
        Just("commit "),
        Just(" (0:01:02)"),
    ];
    prop::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn normalised_text_is_normal(text in anything()) {
        let once = normalise(&text);
        prop_assert_eq!(normalise(&once), once);
    }

    #[test]
    fn equal_texts_use_no_rules_and_any_text_is_read(text in "(?s).{0,80}", other in anything()) {
        prop_assert_eq!(compare(&text, &text), Agreement::Exact);
        prop_assert_eq!(compare(&other, &other), Agreement::Exact);
        let (there, back) = (compare(&text, &other), compare(&other, &text));
        prop_assert_eq!(matches!(there, Agreement::Differs(_)), matches!(back, Agreement::Differs(_)));
    }

    #[test]
    fn texts_that_agree_read_the_same_and_need_each_of_their_rules(
        lines in prop::collection::vec((varying(), near_miss()), 1..5),
    ) {
        let text = |which: fn(&(String, String)) -> &String| -> String {
            let line = |(pair, miss): &_| format!("{} | {}\n", which(pair), miss);
            lines.iter().map(line).collect()
        };
        let (was, is) = (text(|pair| &pair.0), text(|pair| &pair.1));
        match compare(&was, &is) {
            Agreement::Exact => prop_assert_eq!(&was, &is),
            Agreement::Under(rules) => {
                prop_assert!(!rules.is_empty() && was != is);
                prop_assert_eq!(normalise(&was), normalise(&is));
                for left_out in &rules {
                    let named = |name| rules.contains(&name) && name != *left_out;
                    let fewer: Vec<bool> = rule_names().map(named).collect();
                    let mut lines = was.lines().zip(is.lines());
                    let agree = lines.all(|(was, is)| Line::read(was).agrees(&Line::read(is), &fewer));
                    prop_assert!(!agree, "{left_out} is not needed\n{was}\n{is}");
                }
            }
            Agreement::Differs(place) => prop_assert!(false, "{was}\n{is}\n{place:?}"),
        }
    }

    #[test]
    fn a_digit_outside_of_all_forms_is_always_seen(
        lines in prop::collection::vec((varying(), near_miss(), 1..1_000u32), 1..5),
        which in any::<prop::sample::Index>(),
        to in 1..1_000u32,
    ) {
        let changed = which.index(lines.len());
        prop_assume!(lines[changed].2 != to);
        let (mut was, mut is) = (String::new(), String::new());
        for (n, ((a, b), miss, number)) in lines.iter().enumerate() {
            let now = if n == changed { to } else { *number };
            was += &format!("{a} | {}\n", miss.replace("{}", &number.to_string()));
            is += &format!("{b} | {}\n", miss.replace("{}", &now.to_string()));
        }
        match compare(&was, &is) {
            Agreement::Differs(place) => {
                prop_assert_eq!(place.line, changed);
                let at = |text: &str, column| {
                    text.lines().nth(changed).is_some_and(|line| column > line.find('|').unwrap())
                };
                prop_assert!(at(&was, place.recorded) && at(&is, place.replayed));
            }
            other => prop_assert!(false, "{was}\n{is}\n{other:?}"),
        }
    }

    #[test]
    fn where_texts_agree_only_values_differ(text in anything(), at in any::<prop::sample::Index>()) {
        let text = text + "7";
        // One digit of any text is changed: seen, unless it stands in a value.
        let digits: Vec<usize> = text.match_indices(|c: char| c.is_ascii_digit()).map(|d| d.0).collect();
        let at = digits[at.index(digits.len())];
        let digit = if text[at..].starts_with('5') { "6" } else { "5" };
        let other = format!("{}{digit}{}", &text[..at], &text[at + 1..]);
        let before = text[..at].rfind('\n').map_or(0, |n| n + 1);
        let line = text[before..].split('\n').next().unwrap();
        let pieces = Line::read(line).pieces(&vec![true; FORMS.len()]);
        let literal = pieces.iter().any(|(start, piece)| match piece {
            Piece::Text(text) => (*start..start + text.len()).contains(&(at - before)),
            Piece::Value(_) => false,
        });
        if literal {
            let found = compare(&text, &other);
            prop_assert!(matches!(found, Agreement::Differs(_)), "{text}\n{other}\n{found:?}");
        }
    }
}
