//! Rows of a file, one at a time, whatever it is written in. Parquet and gzip are known
//! by their first bytes. JSON lines and tables are never held as a whole; a JSON list or
//! map is.

use super::{table, unusable};
use gametape_grader::score::input;
use gametape_schemas::Failure;
use gametape_schemas::formats::Place;
use gametape_schemas::formats::rows::{Placed, Row, lines, objects};
use std::io::{BufRead, BufReader};
use std::path::Path;

/// Bytes that are taken from the disk at a time.
const BUFFER: usize = 1 << 18;
const BOM: &[u8] = b"\xef\xbb\xbf";

/// Rows with their places.
pub type PlacedRows = Box<dyn Iterator<Item = Placed<Row>>>;

/// The rows of a file. What breaks on the way (a gzip that is cut off) is a problem at
/// its place, and the end.
///
/// # Errors
/// `GT-TASKS-FILE` if it cannot be read at all.
pub fn rows(path: &Path) -> Result<PlacedRows, Failure> {
    if let Some(rows) = table::rows(path)? {
        return Ok(rows);
    }
    let text = input::open_text(path).map_err(|e| unusable(path, e))?;
    text_rows(BufReader::with_capacity(BUFFER, text)).map_err(|e| unusable(path, e))
}

/// The rows of a text. The first two lines tell lines from a list or map.
fn text_rows(mut text: impl BufRead + 'static) -> std::io::Result<PlacedRows> {
    let mut number = 0;
    let first = next_line(&mut text, &mut number)?;
    let first_number = number;
    let first = first.strip_prefix(BOM).unwrap_or(&first).to_vec();
    if first.trim_ascii().is_empty() {
        return Ok(Box::new(std::iter::empty()));
    }
    let second = next_line(&mut text, &mut number)?;
    // The beginning of a list or map is cut off at the end of its line. Such a file is
    // looked at as a whole, as is a single line; the blank lines are put back, so that
    // places are right.
    if second.is_empty() || !(is_row(&first) || (is_row(&second) && !is_begun(&first))) {
        let mut whole = vec![b'\n'; first_number.saturating_sub(1)];
        whole.extend(first);
        let read = number - first_number;
        let blank = read.saturating_sub(usize::from(!second.is_empty()));
        whole.resize(whole.len() + blank, b'\n');
        whole.extend(second);
        text.read_to_end(&mut whole)?;
        return Ok(Box::new(objects(&whole).into_iter()));
    }
    let head = [(first_number, first), (number, second)];
    let head = head.into_iter().flat_map(|(n, line)| row_of(&line, n));
    Ok(Box::new(head.chain(Lines {
        text,
        number,
        ended: false,
    })))
}

fn parsed(line: &[u8]) -> serde_json::Result<serde::de::IgnoredAny> {
    serde_json::from_slice(line)
}

fn is_row(line: &[u8]) -> bool {
    line.trim_ascii().starts_with(b"{") && parsed(line).is_ok()
}

fn is_begun(line: &[u8]) -> bool {
    parsed(line).is_err_and(|e| e.is_eof())
}

/// The next line that is not blank, with its end; empty at the end of the text. `number`
/// becomes its number.
fn next_line(text: &mut impl BufRead, number: &mut usize) -> std::io::Result<Vec<u8>> {
    let mut line = Vec::new();
    loop {
        line.clear();
        if text.read_until(b'\n', &mut line)? == 0 {
            return Ok(line);
        }
        *number += 1;
        if !line.trim_ascii().is_empty() {
            return Ok(line);
        }
    }
}

fn row_of(line: &[u8], number: usize) -> Option<Placed<Row>> {
    if let Err(e) = std::str::from_utf8(line) {
        let message = format!("the row is no UTF-8 from byte {} on", e.valid_up_to() + 1);
        return Some((Place::Line(number), Err(message)));
    }
    lines(line, number).into_iter().next()
}

struct Lines<R> {
    text: R,
    number: usize,
    ended: bool,
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = Placed<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        match next_line(&mut self.text, &mut self.number) {
            Ok(line) if line.is_empty() => None,
            Ok(line) => row_of(&line, self.number),
            Err(e) => {
                self.ended = true;
                let message = format!("the file cannot be read from here on: {e}");
                Some((Place::Line(self.number + 1), Err(message)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Cursor;

    fn read(text: &[u8]) -> Vec<Placed<Row>> {
        text_rows(Cursor::new(text.to_vec())).unwrap().collect()
    }

    #[test]
    fn bytes_that_are_no_text_are_a_problem_of_their_row() {
        let found = read(b"{\"a\": 1}\n{\"a\": \"\xff\"}\n{\"a\": 3}\n{\"a\": ");
        let places: Vec<Place> = found.iter().map(|(place, _)| *place).collect();
        assert_eq!(places, (1..5).map(Place::Line).collect::<Vec<_>>());
        assert_eq!(
            found[1].1.as_ref().unwrap_err(),
            "the row is no UTF-8 from byte 8 on"
        );
        assert!(found[2].1.is_ok());
        assert!(
            found[3]
                .1
                .as_ref()
                .unwrap_err()
                .starts_with("the row is cut off")
        );
    }

    proptest! {
        // What is read line by line is what is read as a whole.
        #[test]
        fn streamed_and_whole_are_the_same(
            lines in prop::collection::vec(prop_oneof!["", "x", r#"\{"instance_id": "[a-z]"\}"#, r"\[", r"\{"], 0..6),
            end in "\n?",
        ) {
            let text = lines.join("\n") + &end;
            let whole = objects(text.as_bytes());
            let streamed = read(text.as_bytes());
            // A document that is cut off is one problem as a whole, and a line is one each.
            if whole.len() == streamed.len() {
                prop_assert_eq!(streamed, whole);
            } else {
                prop_assert!(whole.iter().any(|(_, row)| row.is_err()));
            }
        }
    }
}
