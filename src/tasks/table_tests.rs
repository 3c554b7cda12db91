use super::*;
use crate::tasks::table_write::Table;
use proptest::prelude::*;
use serde_json::json;

fn written(rows: &[Row], shape: &Shape) -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.parquet");
    let mut table = Table::begin(File::create(&path).unwrap(), shape).unwrap();
    for row in rows {
        table.push(row).unwrap();
    }
    table.finish().unwrap();
    (dir, path)
}

fn back(path: &Path) -> Vec<Row> {
    rows(path)
        .unwrap()
        .unwrap()
        .map(|(_, row)| row.unwrap())
        .collect()
}

fn row(value: Value) -> Row {
    match value {
        Value::Object(row) => row,
        _ => panic!("an object"),
    }
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1e9..1e9f64).prop_map(Value::from),
        "\\PC{0,6}".prop_map(Value::from),
        prop::collection::vec("[a-z]{0,3}", 0..4).prop_map(Value::from),
        Just(json!([null, "a", null])),
        Just(json!({"a": [1, {"b": null}], "c": ""})),
        Just(json!([1, "a"])),
    ]
}

proptest! {
    #[test]
    fn rows_of_equal_fields_come_back_as_they_were(
        table in prop::collection::vec(prop::collection::vec(value(), 3), 1..9)
    ) {
        let rows: Vec<Row> = table.into_iter()
            .map(|values| ["a", "b_c", "D"].into_iter().map(str::to_owned).zip(values).collect())
            .collect();
        let mut columns = Columns::default();
        rows.iter().for_each(|row| columns.see(row));
        let shape = columns.shape().unwrap();
        let (_dir, path) = written(&rows, &shape);
        prop_assert_eq!(back(&path), rows);
    }
}

#[test]
fn nested_columns_of_others_are_written_again() {
    let schema = "message m { required binary id (STRING); optional group meta { \
        required int32 n; optional group tags (LIST) { repeated group list { optional group element { \
        optional binary x (STRING); optional boolean y; } } } } optional float f; }";
    let shape = Shape {
        schema: Arc::new(parse_message_type(schema).unwrap()),
        notes: Some(vec![KeyValue::new("k".to_owned(), "v".to_owned())]),
    };
    let rows: Vec<Row> = [
        json!({"id": "a", "meta": {"n": 1, "tags": [{"x": "p", "y": true}, null, {"x": null, "y": false}]}, "f": 0.5}),
        json!({"id": "b", "meta": null, "f": null}),
        json!({"id": "c", "meta": {"n": -2, "tags": []}, "f": 1.0}),
        json!({"id": "d", "meta": {"n": 3, "tags": null}, "f": 1.0}),
    ]
    .map(row)
    .into();
    let (_dir, path) = written(&rows, &shape);
    assert_eq!(back(&path), rows);
    let again = super::shape(&path).unwrap().unwrap();
    assert_eq!(again.schema, shape.schema);
    assert!(
        again
            .notes
            .unwrap()
            .contains(&KeyValue::new("k".to_owned(), "v".to_owned()))
    );
}

#[test]
fn what_does_not_fit_is_said_and_the_table_goes_on() {
    let mut columns = Columns::default();
    columns.see(&row(json!({"a": "x", "b": [1]})));
    let shape = columns.shape().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t");
    let mut table = Table::begin(File::create(&path).unwrap(), &shape).unwrap();
    assert_eq!(
        table.push(&row(json!({"a": 3}))).unwrap_err(),
        "`a` does not fit its column of BYTE_ARRAY"
    );
    assert_eq!(
        table.push(&row(json!({"c": 3}))).unwrap_err(),
        "the table has no column `c`"
    );
    table.push(&row(json!({"a": "y", "b": {"z": 0}}))).unwrap();
    table.finish().unwrap();
    assert_eq!(back(&path), [row(json!({"a": "y", "b": {"z": 0}}))]);
    columns.see(&row(json!({"x y": 1})));
    assert!(columns.shape().is_err());
}
