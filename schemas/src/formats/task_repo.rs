//! Folders of SWE-bench's task repositories, `tasks/<id>/`: a row in files. What a row
//! has no field for (`task.yaml` as it was written, the Dockerfile, assets) is kept in the
//! field `task_files`, so that the folder comes out as it went in.

use super::harbor::{Files, text_of};
use super::rows::{Row, kind};
use serde_json::Value;

/// The field of a row that holds the other files.
pub const KEY: &str = "task_files";
/// The file by which such a folder is known.
pub const TASK_FILE: &str = "task.yaml";
/// Fields that are files of their own.
const FIELDS: [(&str, &str); 5] = [
    ("patch", "gold.patch"),
    ("test_patch", "test.patch"),
    ("eval_script", "eval.sh"),
    ("problem_statement", "problem_statement.md"),
    ("hints_text", "hints.md"),
];

/// The row of a folder.
///
/// # Errors
/// What is missing or cannot be read, in words.
pub fn to_row(name: &str, mut files: Files) -> Result<Row, String> {
    let yaml = text_of(&files, TASK_FILE)?;
    let meta: Value =
        serde_yaml_ng::from_str(yaml).map_err(|e| format!("`{TASK_FILE}` is no YAML: {e}"))?;
    let Value::Object(mut row) = meta else {
        return Err(format!("`{TASK_FILE}` is {}, no mapping", kind(&meta)));
    };
    row.entry("instance_id").or_insert(name.into());
    for (field, file) in FIELDS {
        let text = match files.get(file) {
            Some(_) => text_of(&files, file)?.to_owned(),
            None if field == "hints_text" => String::new(),
            None => return Err(format!("`{file}` is missing")),
        };
        files.shift_remove(file);
        row.insert(field.to_owned(), text.into());
    }
    let tests: Value = serde_json::from_str(text_of(&files, "tests.json")?)
        .map_err(|e| format!("`tests.json` is no JSON: {e}"))?;
    let Value::Object(tests) = tests else {
        return Err(format!("`tests.json` is {}, no object", kind(&tests)));
    };
    row.extend(tests);
    row.insert(KEY.to_owned(), Value::Object(files));
    Ok(row)
}

/// The files of a row that came from such a folder; `None` for other rows.
///
/// # Errors
/// What is of another type, in words.
pub fn to_files(row: &Row) -> Option<Result<Files, String>> {
    let mut files = match row.get(KEY)? {
        Value::Object(files) => files.clone(),
        other => return Some(Err(format!("`{KEY}` is {}, no object", kind(other)))),
    };
    for (field, file) in FIELDS {
        match row.get(field) {
            Some(Value::String(text)) if text.is_empty() && field == "hints_text" => {}
            Some(text @ Value::String(_)) => drop(files.insert(file.to_owned(), text.clone())),
            _ => return Some(Err(format!("`{field}` is missing"))),
        }
    }
    Some(Ok(files))
}
