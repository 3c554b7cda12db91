//! Rows out of a text, without giving up at the first bad one.
//!
//! Three shapes are told apart by looking: one JSON object a line, one JSON list of
//! objects, one JSON object of objects by id. A row that cannot be used becomes a
//! [`RowProblem`] with its place, and the others go on.

use memchr::memchr;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt;

/// One row: a JSON object, its fields in their order.
pub type Row = Map<String, Value>;

/// Where a row stands in its file, counted from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Place {
    /// The file as a whole.
    File,
    /// The line, of a file of JSON lines.
    Line(usize),
    /// The row, of a list, a map or a table.
    Row(usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File => f.write_str("the file"),
            Self::Line(n) => write!(f, "line {n}"),
            Self::Row(n) => write!(f, "row {n}"),
        }
    }
}

/// A row that cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RowProblem {
    /// Where it stands.
    pub place: Place,
    /// What is wrong with it.
    pub message: String,
}

impl fmt::Display for RowProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Place::File => f.write_str(&self.message),
            place => write!(f, "{place}: {}", self.message),
        }
    }
}

/// The usable rows of a file, and what was wrong with the others.
#[derive(Clone, PartialEq, Debug)]
pub struct Rows<T> {
    /// Rows in the order of the file.
    pub rows: Vec<T>,
    /// The others, in the order of the file.
    pub problems: Vec<RowProblem>,
}

impl<T> Default for Rows<T> {
    fn default() -> Self {
        Self {
            rows: Vec::new(),
            problems: Vec::new(),
        }
    }
}

impl<T> Rows<T> {
    /// Notes a row that cannot be used.
    pub fn problem(&mut self, place: Place, message: impl Into<String>) {
        self.problems.push(RowProblem {
            place,
            message: message.into(),
        });
    }
}

/// A row or why there is none, and where.
pub type Placed<T> = (Place, Result<T, String>);

/// Objects out of a text of any of the three shapes, each with its place. The objects
/// of a map get their key as `instance_id` where they have none.
pub fn objects(text: &[u8]) -> Vec<Placed<Row>> {
    document(text).unwrap_or_else(|| lines(text, 1))
}

/// The text in up to `parts` pieces of about the same length that can be read apart, each
/// with the number of its first line; `None` for a text that is no JSON lines.
pub fn pieces(text: &[u8], parts: usize) -> Option<Vec<(usize, &[u8])>> {
    let (line, is_all) = first_line(text.strip_prefix(BOM).unwrap_or(text));
    if is_all || line.first() != Some(&b'{') || !is_json(line) {
        return None;
    }
    let mut out = Vec::new();
    let (mut rest, mut number) = (text, 1);
    for left in (1..=parts.max(1)).rev() {
        let about = rest.len() / left;
        let tail = rest.get(about..).unwrap_or_default();
        let end = memchr(b'\n', tail).filter(|_| left > 1);
        let end = end.map_or(rest.len(), |at| about + at + 1);
        let (piece, after) = rest.split_at_checked(end).unwrap_or((rest, &[]));
        out.push((number, piece));
        number += memchr::memchr_iter(b'\n', piece).count();
        rest = after;
    }
    Some(out)
}

/// What some editors write before a text.
const BOM: &[u8] = b"\xef\xbb\xbf";

/// The objects of a text that is one list or map; `None` if it is none, but lines.
fn document(text: &[u8]) -> Option<Vec<Placed<Row>>> {
    let text = text.strip_prefix(BOM).unwrap_or(text);
    let Some(first) = text.iter().find(|byte| !byte.is_ascii_whitespace()) else {
        return Some(Vec::new());
    };
    // A first line that is whole by itself is one of JSON lines; a single line may
    // still be the whole list or map.
    let (line, is_all) = first_line(text);
    if !is_all && *first != b'[' && is_json(line) {
        return None;
    }
    match serde_json::from_slice::<Value>(text) {
        Ok(Value::Array(items)) => Some(numbered(items.into_iter().map(object))),
        Ok(Value::Object(map)) => Some(of_one_object(map)),
        Ok(_) => Some(vec![(Place::Row(1), Err("no JSON object".to_owned()))]),
        // A bracket alone on its line opens a document, not a row.
        Err(e) if line.trim_ascii().len() == 1 || *first == b'[' => {
            let message = format!("the text is no JSON: {e}");
            Some(vec![(Place::Line(e.line()), Err(message))])
        }
        Err(_) => None,
    }
}

fn is_json(text: &[u8]) -> bool {
    serde_json::from_slice::<serde::de::IgnoredAny>(text).is_ok()
}

/// The first line that is not blank, and whether nothing but blanks follows it.
fn first_line(text: &[u8]) -> (&[u8], bool) {
    let text = text.trim_ascii();
    match memchr(b'\n', text) {
        Some(at) => (text.get(..at).unwrap_or_default(), false),
        None => (text, true),
    }
}

/// Rows as JSON lines.
///
/// # Errors
/// None are known: a row is plain data.
pub fn to_lines<'a>(rows: impl IntoIterator<Item = &'a Row>) -> serde_json::Result<String> {
    let mut out = String::new();
    for row in rows {
        out.push_str(&serde_json::to_string(row)?);
        out.push('\n');
    }
    Ok(out)
}

/// The objects of JSON lines of which the first has the number `first`.
pub fn lines(text: &[u8], first: usize) -> Vec<Placed<Row>> {
    let text = text.strip_prefix(BOM).unwrap_or(text);
    let mut out = Vec::new();
    let mut from = 0;
    let ends = memchr::memchr_iter(b'\n', text).chain(std::iter::once(text.len()));
    for (index, end) in ends.enumerate() {
        let line = text.get(from..end).unwrap_or_default();
        from = end + 1;
        if !line.trim_ascii().is_empty() {
            let row = serde_json::from_slice(line).map_err(|e| reason(&e));
            out.push((Place::Line(first + index), row.and_then(object)));
        }
    }
    out
}

fn numbered(rows: impl Iterator<Item = Result<Row, String>>) -> Vec<Placed<Row>> {
    rows.enumerate()
        .map(|(index, row)| (Place::Row(index + 1), row))
        .collect()
}

/// A single object is a row if it has an id of its own, else a map of rows.
fn of_one_object(map: Row) -> Vec<Placed<Row>> {
    let is_row = ["instance_id", "expected_output_json", "FAIL_TO_PASS"]
        .iter()
        .any(|key| map.contains_key(*key));
    if is_row || !map.values().all(Value::is_object) {
        return vec![(Place::Row(1), Ok(map))];
    }
    numbered(map.into_iter().map(|(id, value)| {
        let mut row = object(value)?;
        row.entry("instance_id").or_insert(Value::String(id));
        Ok(row)
    }))
}

fn object(value: Value) -> Result<Row, String> {
    match value {
        Value::Object(map) => Ok(map),
        other => Err(format!("a JSON object is expected, not {}", kind(&other))),
    }
}

/// Why a line is no JSON. A line that ends too early is most often the last of a file
/// that was cut off.
fn reason(e: &serde_json::Error) -> String {
    if e.is_eof() {
        format!("the row is cut off ({e})")
    } else {
        format!("the row is no JSON: {e}")
    }
}

/// The JSON type of a value, for messages.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Which of several rows of one id is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keep {
    /// The first.
    First,
    /// The last, as where a later try replaces an earlier one.
    Last,
}

/// The usable rows; of several of one id (by `id`) one is used, and the others are
/// problems.
pub fn collect<T>(
    rows: impl IntoIterator<Item = Placed<T>>,
    keep: Keep,
    id: impl Fn(&T) -> &str,
) -> Rows<T> {
    let mut out = Rows::default();
    let mut places: Vec<Place> = Vec::new();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for (place, row) in rows {
        let row = match row {
            Ok(row) => row,
            Err(message) => {
                out.problem(place, message);
                continue;
            }
        };
        let name = id(&row).to_owned();
        let earlier = seen.get(&name).copied();
        match earlier.and_then(|at| Some((places.get_mut(at)?, out.rows.get_mut(at)?))) {
            None => {
                seen.insert(name, places.len());
                places.push(place);
                out.rows.push(row);
            }
            Some((at, kept)) if keep == Keep::Last => {
                let left = std::mem::replace(at, place);
                *kept = row;
                let message = format!("`{name}` comes again at {place}; this one is left out");
                out.problem(left, message);
            }
            Some((at, _)) => {
                let message = format!("`{name}` was there at {at}; this one is left out");
                out.problem(place, message);
            }
        }
    }
    out.problems.sort_by_key(|problem| problem.place);
    out
}

/// A field that must be a string.
pub(crate) fn string(row: &Row, key: &str) -> Result<String, String> {
    match row.get(key) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Err(format!("`{key}` is {}, not a string", kind(other))),
        None => Err(format!("`{key}` is missing")),
    }
}

/// A field that is a string, or null, or not there.
pub(crate) fn optional_string(row: &Row, key: &str) -> Result<Option<String>, String> {
    match row.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(_) => string(row, key).map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ids(text: &str) -> Vec<(Place, Result<String, String>)> {
        objects(text.as_bytes())
            .into_iter()
            .map(|(place, row)| (place, row.and_then(|row| string(&row, "instance_id"))))
            .collect()
    }

    #[test]
    fn the_three_shapes_are_told_apart() {
        let (line, row) = (Place::Line, Place::Row);
        let ok = |id: &str| Ok(id.to_owned());
        let a = r#"{"instance_id": "a"}"#;
        let b = r#"{"instance_id": "b"}"#;
        assert_eq!(
            ids(&format!("{a}\n\n{b}\n")),
            [(line(1), ok("a")), (line(3), ok("b"))]
        );
        assert_eq!(
            ids(&format!("[{a},\n {b}]")),
            [(row(1), ok("a")), (row(2), ok("b"))]
        );
        assert_eq!(ids(a), [(row(1), ok("a"))]);
        let map = r#"{"a": {"x": 1}, "b": {"instance_id": "c"}}"#;
        assert_eq!(ids(map), [(row(1), ok("a")), (row(2), ok("c"))]);
        let pretty = "{\n \"a\": {}\n}";
        assert_eq!(ids(pretty), [(row(1), ok("a"))]);
        assert_eq!(ids(&format!("\u{feff}{a}\r\n{b}\r\n")).len(), 2);
        assert_eq!(ids(" \n"), []);
    }

    #[test]
    fn a_bad_line_is_told_with_its_number_and_the_others_go_on() {
        let found = ids(
            "{\"instance_id\": \"a\"}\n[1]\n{\"instance_id\": 3}\n{\"instance_id\": \"d\"}\n{\"instance_",
        );
        assert_eq!(found.len(), 5);
        assert_eq!(found[0].1, Ok("a".into()));
        assert_eq!(
            found[1].1,
            Err("a JSON object is expected, not a list".into())
        );
        assert_eq!(
            found[2].1,
            Err("`instance_id` is a number, not a string".into())
        );
        assert_eq!(found[3], (Place::Line(4), Ok("d".into())));
        assert!(
            found[4]
                .1
                .as_ref()
                .is_err_and(|e| e.starts_with("the row is cut off"))
        );
        assert_eq!(found[4].0, Place::Line(5));
        // The first line may be the broken one.
        let found = ids("{\"instance_\n{\"instance_id\": \"b\"}\n");
        assert!(found[0].1.is_err());
        assert_eq!(found[1], (Place::Line(2), Ok("b".into())));
    }

    #[test]
    fn a_document_that_is_cut_off_is_one_problem() {
        let found = ids("[\n {\"instance_id\": \"a\"},\n {\"inst");
        assert_eq!(found.len(), 1);
        assert!(found[0].1.is_err());
        assert_eq!(ids("{\n\"a\": {},\n\"b\": \n").len(), 1);
    }

    #[test]
    fn of_several_rows_of_an_id_one_is_used_and_the_others_are_told() {
        let text = b"{\"instance_id\": \"a\", \"n\": 1}\n{\"instance_id\": \"a\", \"n\": 2}\n";
        let used = |keep| {
            let read = |row: Row| Ok((string(&row, "instance_id")?, row));
            let placed = objects(text)
                .into_iter()
                .map(|(place, row)| (place, row.and_then(read)));
            let rows = collect(placed, keep, |r| &r.0);
            assert_eq!(rows.rows.len(), 1);
            (rows.rows[0].1["n"].clone(), rows.problems[0].to_string())
        };
        let (n, problem) = used(Keep::First);
        assert_eq!(n, 1);
        assert_eq!(
            problem,
            "line 2: `a` was there at line 1; this one is left out"
        );
        let (n, problem) = used(Keep::Last);
        assert_eq!(n, 2);
        assert_eq!(
            problem,
            "line 1: `a` comes again at line 2; this one is left out"
        );
    }

    proptest! {
        #[test]
        fn pieces_read_apart_are_the_whole(
            lines in prop::collection::vec(prop_oneof!["", "x", r#"\{"instance_id": "[a-z]"\}"#], 0..12),
            parts in 1usize..5,
        ) {
            let text = format!("{{}}\n{}", lines.join("\n"));
            if let Some(pieces) = pieces(text.as_bytes(), parts) {
                let apart: Vec<_> = pieces.iter().flat_map(|(n, piece)| super::lines(piece, *n)).collect();
                prop_assert_eq!(apart, objects(text.as_bytes()));
            }
        }

        #[test]
        fn any_bytes_are_rows_or_problems(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            objects(&bytes);
            pieces(&bytes, 3);
        }
    }
}
