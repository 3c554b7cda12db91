//! What a model handed in for a task: SWE-bench's three fields.

use super::rows::{Keep, Place, Placed, Row, Rows, collect, objects, optional_string, string};
use serde_json::Value;

/// A patch that somebody hands in for a task.
#[derive(Clone, PartialEq, Debug)]
pub struct Prediction {
    /// The task.
    pub instance_id: String,
    /// Who made the patch; empty where the row does not say.
    pub model_name_or_path: String,
    /// The patch. `None` where the model gave none (`null`).
    pub model_patch: Option<String>,
    /// Fields that are not ours.
    pub rest: Row,
}

impl Prediction {
    /// Reads a row.
    ///
    /// # Errors
    /// What is missing or of another type, in words.
    pub fn from_row(mut row: Row) -> Result<Self, String> {
        let instance_id = string(&row, "instance_id")?;
        if instance_id.is_empty() {
            return Err("`instance_id` is empty".to_owned());
        }
        let model_name_or_path = optional_string(&row, "model_name_or_path")?.unwrap_or_default();
        // SWE-smith's runs call it `patch`.
        let key = if row.contains_key("model_patch") {
            "model_patch"
        } else if row.contains_key("patch") {
            "patch"
        } else {
            return Err("`model_patch` is missing".to_owned());
        };
        let model_patch = optional_string(&row, key)?;
        for known in ["instance_id", "model_name_or_path", key] {
            row.shift_remove(known);
        }
        Ok(Self {
            instance_id,
            model_name_or_path,
            model_patch,
            rest: row,
        })
    }

    /// The row that says the same.
    pub fn to_row(&self) -> Row {
        let mut row = Row::new();
        let patch = self.model_patch.clone().map_or(Value::Null, Value::String);
        row.insert("instance_id".into(), self.instance_id.clone().into());
        row.insert(
            "model_name_or_path".into(),
            self.model_name_or_path.clone().into(),
        );
        row.insert("model_patch".into(), patch);
        row.extend(self.rest.clone());
        row
    }

    /// Whether nothing was handed in. Such a prediction is not run.
    pub fn is_empty(&self) -> bool {
        self.model_patch.as_deref().is_none_or(str::is_empty)
    }

    /// All predictions of a text (JSON lines, a list, or a map by instance). Of several for
    /// one task the last counts, as it does officially: somebody tried again.
    pub fn read_all(text: &[u8]) -> Rows<Self> {
        Self::collect(objects(text))
    }

    /// All predictions of rows that were read elsewhere, such as from a table.
    pub fn from_rows(rows: impl IntoIterator<Item = Row>) -> Rows<Self> {
        let rows = rows.into_iter().enumerate();
        Self::collect(rows.map(|(index, row)| (Place::Row(index + 1), Ok(row))))
    }

    fn collect(rows: impl IntoIterator<Item = Placed<Row>>) -> Rows<Self> {
        Self::used(
            rows.into_iter()
                .map(|(place, row)| (place, row.and_then(Self::from_row))),
        )
    }

    /// Of rows that were read apart, those that are used.
    pub fn used(rows: impl IntoIterator<Item = Placed<Self>>) -> Rows<Self> {
        collect(rows, Keep::Last, |p| &p.instance_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_maps_and_lines_say_the_same() {
        let row =
            r#"{"instance_id": "a", "model_name_or_path": "m", "model_patch": "p", "cost": 3}"#;
        let list = Prediction::read_all(format!("[{row}]").as_bytes());
        let map = Prediction::read_all(format!("{{\"a\": {row}}}").as_bytes());
        let lines = Prediction::read_all(format!("{row}\n").as_bytes());
        assert_eq!(list, map);
        assert_eq!(list, lines);
        let p = &list.rows[0];
        assert_eq!(p.model_patch.as_deref(), Some("p"));
        assert_eq!(Prediction::from_row(p.to_row()).as_ref(), Ok(p));
        assert_eq!(p.to_row()["cost"], 3);
    }

    #[test]
    fn a_missing_patch_is_a_problem_and_null_is_none() {
        let read = |text: &str| Prediction::read_all(text.as_bytes());
        let none = read(r#"{"instance_id": "a", "model_patch": null}"#);
        assert_eq!(none.rows[0].model_patch, None);
        assert!(none.rows[0].is_empty());
        assert!(!read(r#"{"instance_id": "a", "patch": "x"}"#).rows[0].is_empty());
        for bad in [
            r#"{"instance_id": "a"}"#,
            r#"{"instance_id": "", "model_patch": "p"}"#,
            r#"{"instance_id": "a", "model_patch": 3}"#,
            r#"{"instance_id": "a", "model_patch": "p", "model_name_or_path": []}"#,
        ] {
            assert_eq!(read(bad).rows, [], "{bad}");
            assert_eq!(read(bad).problems.len(), 1, "{bad}");
        }
    }
}
