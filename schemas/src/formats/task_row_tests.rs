use super::*;
use proptest::prelude::*;

fn read(json: &str) -> TaskRow {
    TaskRow::from_row(serde_json::from_str(json).unwrap()).unwrap()
}

fn problem(json: &str) -> String {
    TaskRow::from_row(serde_json::from_str(json).unwrap()).unwrap_err()
}

const OLD: &str = r#"{"repo": "o/r", "instance_id": "o__r-1", "base_commit": "c", "patch": "p",
    "test_patch": "t", "problem_statement": "", "hints_text": "", "created_at": "", "version": "1.0",
    "FAIL_TO_PASS": "[\"a\",   \"b[x y]\"]", "PASS_TO_PASS": "[]", "environment_setup_commit": "c"}"#;
const NEW: &str = r#"{"repo": "o/r", "instance_id": "o__r-1", "patch": "p", "test_patch": "t",
    "version": "1", "FAIL_TO_PASS": ["a"], "PASS_TO_PASS": ["b"], "image": "i", "eval_script": "s",
    "log_parser": "parse_log_pytest", "eval_type": "fail_only", "difficulty": {"x": [1, null]}}"#;
const GYM: &str = r#"{"repo": "o/r", "instance_id": "o__r-1", "patch": "p", "test_patch": "t",
    "FAIL_TO_PASS": ["a"], "PASS_TO_PASS": [], "version": "1"}"#;
const SMITH: &str = r#"{"repo": "swesmith/o__r.01234567", "instance_id": "o__r.01234567.func_pm__x",
    "patch": "bug", "FAIL_TO_PASS": ["a"], "PASS_TO_PASS": ["b"], "image_name": "i",
    "problem_statement": ""}"#;
const R2E: &str = r#"{"repo_name": "orange3", "docker_image": "i:c", "commit_hash": "c",
    "problem_statement": "", "expected_output_json": "{\"T.a\": \"PASSED\", \"T.b\": \"FAILED\"}"}"#;
const REBENCH: &str = r#"{"repo": "o/r", "instance_id": "o__r-1", "patch": "p", "test_patch": "t",
    "FAIL_TO_PASS": ["a"], "PASS_TO_PASS": [], "meta": {}, "image_name": "i",
    "install_config": {"log_parser": "parse_log_pytest_v2"}}"#;

#[test]
fn the_kinds_are_told_apart_by_their_fields() {
    for (json, kind, direction) in [
        (OLD, TaskKind::SweBench, Some(PatchDirection::Mends)),
        (NEW, TaskKind::SweBench, Some(PatchDirection::Mends)),
        (GYM, TaskKind::SweGym, Some(PatchDirection::Mends)),
        (SMITH, TaskKind::SweSmith, Some(PatchDirection::Plants)),
        (R2E, TaskKind::R2eGym, None),
        (REBENCH, TaskKind::SweRebench, Some(PatchDirection::Mends)),
    ] {
        let row = read(json);
        assert_eq!(
            (row.kind(), row.patch_direction()),
            (kind, direction),
            "{json}"
        );
    }
}

#[test]
fn a_row_comes_out_as_it_went_in() {
    for json in [OLD, NEW, GYM, SMITH, R2E, REBENCH] {
        let before: Value = serde_json::from_str(json).unwrap();
        assert_eq!(Value::Object(read(json).into_row()), before);
    }
}

#[test]
fn lists_are_read_in_both_writings() {
    let lists = |row: &TaskRow| match row.expected() {
        Expected::Lists {
            fail_to_pass,
            pass_to_pass,
        } => (fail_to_pass, pass_to_pass),
        Expected::Statuses(_) => panic!("lists"),
    };
    assert_eq!(
        lists(&read(OLD)),
        (vec!["a".into(), "b[x y]".into()], vec![])
    );
    let new = read(NEW);
    assert_eq!(lists(&new), (vec!["a".into()], vec!["b".into()]));
    assert_eq!(new.eval_type(), Some(EvalType::FailOnly));
    assert_eq!(new.log_parser(), Some("parse_log_pytest"));
    assert_eq!(read(REBENCH).log_parser(), Some("parse_log_pytest_v2"));
    let r2e = read(R2E);
    assert_eq!(r2e.instance_id(), "orange3__c");
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    let expected = vec![pair("T.a", "PASSED"), pair("T.b", "FAILED")];
    assert_eq!(r2e.expected(), Expected::Statuses(expected));
}

#[test]
fn what_is_wrong_is_said() {
    assert_eq!(problem("{}"), "`instance_id` is missing");
    assert_eq!(
        problem(r#"{"instance_id": "a", "repo": 3}"#),
        "`repo` is a number, not a string"
    );
    assert_eq!(
        problem(r#"{"instance_id": "a", "repo": "r", "FAIL_TO_PASS": null}"#),
        "`FAIL_TO_PASS` is null, not a list"
    );
    assert_eq!(
        problem(r#"{"instance_id": "a", "repo": "r", "FAIL_TO_PASS": [1]}"#),
        "`FAIL_TO_PASS` holds what is no test: invalid type: integer `1`, expected the name of a test"
    );
    assert!(
        problem(r#"{"instance_id": "a", "repo": "r", "FAIL_TO_PASS": "['a']"}"#)
            .starts_with("`FAIL_TO_PASS` is a text that is no JSON list")
    );
    let lists = r#""instance_id": "a", "repo": "r", "FAIL_TO_PASS": [], "PASS_TO_PASS": []"#;
    assert_eq!(
        problem(&format!("{{{lists}, \"eval_type\": \"x\"}}")),
        "`eval_type` is `x`, which is unknown"
    );
    assert_eq!(
        problem(&format!("{{{lists}, \"patch\": 1}}")),
        "`patch` is a number, not a string"
    );
}

#[test]
fn duplicates_and_broken_rows_do_not_stop_the_others() {
    let gym = GYM.replace('\n', " ");
    let text = format!(
        "{gym}\n{{\"instance_id\": 1}}\n{gym}\n{}\n{{\"ins",
        SMITH.replace('\n', " ")
    );
    let rows = TaskRow::read_all(text.as_bytes());
    assert_eq!(rows.rows.len(), 2);
    let places: Vec<Place> = rows.problems.iter().map(|p| p.place).collect();
    assert_eq!(places, [Place::Line(2), Place::Line(3), Place::Line(5)]);
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[a-z]{1,3}", inner, 0..3)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn fields_that_are_not_ours_stay(
        extra in prop::collection::btree_map("[a-z_]{1,12}x", json(), 0..5),
        f2p in prop::collection::vec(".{0,12}", 0..4), as_text in any::<bool>(),
    ) {
        let mut row: Row = serde_json::from_str(NEW).unwrap();
        row.extend(extra);
        let list = Value::from(f2p);
        row.insert("FAIL_TO_PASS".into(), if as_text { list.to_string().into() } else { list });
        let text = rows::to_lines([&row]).unwrap();
        let read = TaskRow::read_all(text.as_bytes());
        prop_assert!(read.problems.is_empty());
        prop_assert_eq!(read.rows[0].row(), &row);
    }

    #[test]
    fn any_value_for_a_field_is_read_or_refused(value in json(), field in 0usize..6) {
        let key = ["instance_id", "repo", "FAIL_TO_PASS", "version", "patch", "install_config"][field];
        let mut row: Row = serde_json::from_str(NEW).unwrap();
        row.insert(key.into(), value);
        let _ = TaskRow::from_row(row);
    }
}
