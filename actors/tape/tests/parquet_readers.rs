//! A tape as a Parquet file in the eyes of other programs. A file of its own: a process
//! that is being started holds the locks of every open tape for a moment.
#![allow(clippy::unwrap_used)]

mod common;

use common::{tape, varied};
use gametape_schemas::codec;
use gametape_tape::parquet::{GroupLimits, export};
use gametape_tape::read_all;
use std::fs::File;
use std::process::Command;

/// What each reader of Parquet that is there sees in a file, a line of JSON each.
const READER: &str = r#"
import datetime, json, sys
path = sys.argv[1]
epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
def with_pyarrow():
    import pyarrow.parquet
    return pyarrow.parquet.read_table(path).to_pylist()
def with_duckdb():
    import duckdb
    found = duckdb.sql(f'SELECT * REPLACE (epoch_us("at") AS "at") FROM "{path}" ORDER BY seq')
    return [dict(zip(found.columns, row)) for row in found.fetchall()]
def with_polars():
    import polars
    return polars.read_parquet(path).to_dicts()
def with_pandas():
    import pandas
    return pandas.read_parquet(path).to_dict("records")
for read in (with_pyarrow, with_duckdb, with_polars, with_pandas):
    try:
        rows = read()
    except ImportError:
        continue
    if rows[0]["correlation"] != rows[0]["correlation"]:
        rows[0]["correlation"] = None # pandas has not-a-number for nothing
    at = rows[1]["at"]
    if not isinstance(at, int):
        at = (at - epoch) // datetime.timedelta(microseconds=1)
    print(json.dumps({
        "by": read.__name__,
        "columns": list(rows[1]),
        "seq": [row["seq"] for row in rows],
        "category": rows[-1]["category"],
        "type": rows[-1]["type"],
        "body": json.loads(rows[1]["body"]),
        "at": at,
        "correlations": [row["correlation"] for row in rows[:2]],
        "exact": bytes(rows[1]["exact"]).hex(),
    }))
"#;

#[test]
fn other_readers_see_the_same() {
    let mut all = varied();
    all.pop(); // Its time is none that Python can say.
    let tape = tape(all);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tape.parquet");
    let limits = GroupLimits {
        rows: 7,
        ..GroupLimits::default()
    };
    export(tape.path(), File::create(&file).unwrap(), limits).unwrap();
    let run = Command::new("python3")
        .args(["-c", READER])
        .arg(&file)
        .output();
    let said = match &run {
        Ok(run) if run.status.success() => String::from_utf8_lossy(&run.stdout),
        Ok(run) => panic!("{}", String::from_utf8_lossy(&run.stderr)),
        Err(_) => "".into(),
    };
    if said.is_empty() {
        let why = "no python3 with pyarrow, duckdb, polars or pandas";
        eprintln!("SKIPPED: other_readers_see_the_same: {why}");
        return;
    }
    let records = read_all(tape.path()).unwrap();
    let exact = codec::encode(&records[1]).unwrap();
    let exact: String = exact.iter().map(|byte| format!("{byte:02x}")).collect();
    for line in said.lines() {
        let found: serde_json::Value = serde_json::from_str(line).unwrap();
        eprintln!("read {}", found["by"]);
        let seq: Vec<u64> = (0..records.len() as u64).collect();
        let expected = serde_json::json!({
            "by": found["by"],
            "columns": [
                "seq", "stream", "category", "version", "event_id", "causation",
                "correlation", "at", "type", "schema", "body", "exact",
            ],
            "seq": seq,
            "category": "training",
            "type": "TrainingProgressed",
            "body": {"reason": "é∂ \u{1f600}"},
            "at": records[1].at_micros,
            "correlations": [null, "é∂ \u{1f600}"],
            "exact": exact,
        });
        assert_eq!(found, expected);
    }
}
