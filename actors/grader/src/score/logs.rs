//! Where stored logs lie: in a directory (the official harness' layouts), or in a file of
//! JSON lines.
//!
//! Memory: a log in a file of its own is read in pieces, however large it is. A row of
//! JSON lines is in memory as a whole, one for each thread.

use super::failed;
use super::input::{GZIP, open_text};
use super::lines::Input;
use super::names::Names;
use flate2::read::MultiGzDecoder;
use gametape_schemas::Failure;
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result};
use std::path::{Path, PathBuf};

/// A log that can be read more than once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// In memory.
    Text(Vec<u8>),
    /// In a file, as it is or compressed with gzip.
    File {
        /// The log of the tests.
        path: PathBuf,
        /// What the harness itself wrote beside it; searched for signs of failure only.
        beside: Option<PathBuf>,
    },
}

impl Source {
    /// The log, in memory if it is no longer than [`SMALL`]: a log may have to be read
    /// more than once.
    ///
    /// # Errors
    /// What reading says.
    pub fn load(&self) -> Result<Loaded<'_>> {
        let text = match self {
            Self::Text(text) => Some(Cow::Borrowed(text.as_slice())),
            Self::File { path, .. } => small(path)?.map(Cow::Owned),
        };
        Ok(Loaded { source: self, text })
    }

    /// The log from its beginning.
    ///
    /// # Errors
    /// What opening says.
    pub fn open(&self) -> Result<Input<'_>> {
        match self {
            Self::Text(text) => Ok(Input::Bytes(text)),
            Self::File { path, .. } => {
                regular(path)?;
                Ok(Input::Stream(open_text(path)?))
            }
        }
    }

    /// The log beside it, if there is one.
    ///
    /// # Errors
    /// What opening says.
    pub fn open_beside(&self) -> Result<Option<Input<'static>>> {
        match self {
            Self::File {
                beside: Some(path), ..
            } if path.is_file() => Ok(Some(Input::Stream(Box::new(File::open(path)?)))),
            _ => Ok(None),
        }
    }
}

/// Files up to this length are read whole.
pub const SMALL: usize = 4 << 20;

/// A log that is in memory if it is small.
pub struct Loaded<'a> {
    source: &'a Source,
    text: Option<Cow<'a, [u8]>>,
}

impl Loaded<'_> {
    /// The log from its beginning.
    ///
    /// # Errors
    /// What opening says.
    pub fn open(&self) -> Result<Input<'_>> {
        match &self.text {
            Some(text) => Ok(Input::Bytes(text)),
            None => self.source.open(),
        }
    }
}

/// The whole text of a file; `None` if it is longer than [`SMALL`].
fn small(path: &Path) -> Result<Option<Vec<u8>>> {
    let length = regular(path)?;
    if length > SMALL as u64 {
        return Ok(None);
    }
    let read = |source: &mut dyn Read, room: u64| -> Result<Option<Vec<u8>>> {
        let mut text = Vec::with_capacity(usize::try_from(room).unwrap_or(0) + 1);
        source.take(SMALL as u64 + 1).read_to_end(&mut text)?;
        Ok((text.len() <= SMALL).then_some(text))
    };
    match read(&mut File::open(path)?, length)? {
        Some(text) if text.starts_with(&GZIP) => {
            read(&mut MultiGzDecoder::new(text.as_slice()), length * 4)
        }
        text => Ok(text),
    }
}

/// The length of a file. A pipe or a device that is named like a log is refused: reading
/// it might never end.
fn regular(path: &Path) -> Result<u64> {
    let about = std::fs::metadata(path)?;
    if !about.is_file() {
        let kind = if about.is_dir() {
            "a directory"
        } else {
            "no ordinary file"
        };
        return Err(Error::new(ErrorKind::InvalidInput, format!("it is {kind}")));
    }
    Ok(about.len())
}

/// A log found in a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Found {
    /// What its name says of the task: the task's name, or one that begins with it.
    name: String,
    path: PathBuf,
    beside: Option<PathBuf>,
}

/// Logs of a directory, by what their names begin with.
#[derive(Debug, Default)]
pub struct LogDirectory {
    found: Vec<Found>,
    /// What could not be looked at, and why. The rest is used.
    pub unreadable: Vec<(PathBuf, String)>,
}

/// What the official harness calls a log.
const TEST_OUTPUT: &str = "test_output.txt";

/// Directories in directories are followed so far.
const MAX_DEPTH: usize = 12;

impl LogDirectory {
    /// Looks for logs: `INSTANCE/test_output.txt`, and `INSTANCE.log` or
    /// `INSTANCE.MODEL.eval.log`, at any depth. Links to directories are not followed. A
    /// directory in it that cannot be read is told, and the others are looked at.
    ///
    /// # Errors
    /// `GT-SCORE-FILE` if the directory itself cannot be read.
    pub fn find(root: &Path) -> std::result::Result<Self, Failure> {
        let mut out = Self::default();
        out.look(root, 0).map_err(|e| failed(root, &e))?;
        let found = &mut out.found;
        found.sort_by(|a, b| (&a.name, &a.path).cmp(&(&b.name, &b.path)));
        out.unreadable.sort();
        Ok(out)
    }

    /// Looks through a directory. Of those in it one is open at a time.
    fn look(&mut self, directory: &Path, depth: usize) -> Result<()> {
        let mut inner = Vec::new();
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            if !entry.file_type()?.is_dir() {
                self.found.extend(log(entry.path()));
            } else if entry.file_name() == TEST_OUTPUT {
                let why = "a directory stands where a log should be".to_owned();
                self.unreadable.push((entry.path(), why));
            } else if depth < MAX_DEPTH {
                inner.push(entry.path());
            }
        }
        for path in inner {
            if let Err(e) = self.look(&path, depth + 1) {
                self.unreadable.push((path, e.to_string()));
            }
        }
        Ok(())
    }

    /// How many logs there are.
    pub fn len(&self) -> usize {
        self.found.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Hands each log to the task that it is named after. Of several for one task the one
    /// in a directory (or with a name) of the prediction's model is taken.
    ///
    /// `wanted`: task → model. The second part: what could not be decided, in words, by
    /// task; the third: logs of nobody.
    pub fn assign(self, wanted: &BTreeMap<&str, &str>) -> Assigned {
        let mut candidates: BTreeMap<&str, Vec<Found>> = BTreeMap::new();
        let mut out = Assigned::default();
        let names: Names = wanted.keys().copied().collect();
        for found in self.found {
            match owner(&found.name, &names) {
                Some(task) => candidates.entry(task).or_default().push(found),
                None => out.unknown.push(found.name),
            }
        }
        for (task, mut logs) in candidates {
            if logs.len() > 1 {
                let model = wanted.get(task).copied().unwrap_or_default();
                let model = model.replace('/', "__");
                let of_model = |log: &Found| {
                    let directory = log.path.iter().any(|part| part == model.as_str());
                    directory
                        || log
                            .name
                            .eq_ignore_ascii_case(&format!("{task}.{model}.eval"))
                };
                let named: Vec<Found> = logs.iter().filter(|log| of_model(log)).cloned().collect();
                if named.len() == 1 {
                    logs = named;
                }
            }
            match <[Found; 1]>::try_from(logs) {
                Ok([Found { path, beside, .. }]) => {
                    out.logs
                        .insert(task.to_owned(), Source::File { path, beside });
                }
                Err(logs) => {
                    let paths: Vec<String> = logs
                        .iter()
                        .map(|log| log.path.display().to_string())
                        .collect();
                    let message = format!("several logs: {}", paths.join(", "));
                    out.undecided.insert(task.to_owned(), message);
                }
            }
        }
        out
    }
}

/// Logs of a directory, by task.
#[derive(Debug, Default)]
pub struct Assigned {
    /// The log of each task.
    pub logs: BTreeMap<String, Source>,
    /// Tasks with several logs, and which.
    pub undecided: BTreeMap<String, String>,
    /// Names of logs of no task that is wanted.
    pub unknown: Vec<String>,
}

/// The file as a log, if it is one by its name.
fn log(path: PathBuf) -> Option<Found> {
    let file = path.file_name()?.to_str()?;
    if file.strip_suffix(".gz").unwrap_or(file) == TEST_OUTPUT {
        let directory = path.parent()?;
        let name = directory.file_name()?.to_str()?.to_owned();
        let beside = Some(directory.join("run_instance.log"));
        return Some(Found { name, path, beside });
    }
    let stem = file
        .strip_suffix(".gz")
        .unwrap_or(file)
        .strip_suffix(".log")?;
    (stem != "run_instance" && !stem.is_empty()).then(|| Found {
        name: stem.to_owned(),
        path: path.clone(),
        beside: None,
    })
}

/// The wanted task that a log's name is, or begins with before a dot. Names of tasks may
/// hold dots themselves: the longest counts.
fn owner<'a>(name: &str, tasks: &Names<'a>) -> Option<&'a str> {
    let mut head = name;
    loop {
        if let Some(task) = tasks.find(head) {
            return Some(task);
        }
        head = head.get(..head.rfind('.')?)?;
    }
}

/// A row of a file of logs.
#[derive(Deserialize)]
struct LogRow<'a> {
    #[serde(borrow)]
    instance_id: Cow<'a, str>,
    // As bytes: JSON texts of other programs hold halves of surrogate pairs.
    #[serde(borrow, with = "serde_bytes")]
    log: Cow<'a, [u8]>,
}

/// Rows of logs up to this length are read. A longer log belongs into a file of its own,
/// which is read in pieces.
pub const MAX_ROW: usize = 256 << 20;

/// A file of logs as JSON lines, read row by row.
pub struct LogLines {
    reader: BufReader<Box<dyn Read + Send>>,
    line: usize,
    max_row: usize,
    too_long: Vec<usize>,
}

impl LogLines {
    /// Opens the file, through gzip if it is compressed.
    ///
    /// # Errors
    /// `GT-SCORE-FILE` if it cannot be opened.
    pub fn open(path: &Path) -> std::result::Result<Self, Failure> {
        let reader = open_text(path).map_err(|e| failed(path, &e))?;
        Ok(Self {
            reader: BufReader::with_capacity(1 << 18, reader),
            line: 0,
            max_row: MAX_ROW,
            too_long: Vec::new(),
        })
    }

    /// The numbers of rows that were left out because they are longer than [`MAX_ROW`],
    /// since this was last asked.
    pub fn too_long(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.too_long)
    }

    /// The number of the line read last.
    pub fn line(&self) -> usize {
        self.line
    }

    /// The next line that is not blank and not too long, and its number.
    ///
    /// # Errors
    /// What reading says.
    pub fn next_line(&mut self) -> Result<Option<(usize, Vec<u8>)>> {
        loop {
            let mut line = Vec::new();
            let mut room = (&mut self.reader).take(self.max_row as u64 + 1);
            if room.read_until(b'\n', &mut line)? == 0 {
                return Ok(None);
            }
            self.line += 1;
            if line.len() > self.max_row && line.last() != Some(&b'\n') {
                drop(line);
                self.reader.skip_until(b'\n')?;
                self.too_long.push(self.line);
            } else if !line.trim_ascii().is_empty() {
                return Ok(Some((self.line, line)));
            }
        }
    }
}

/// The task and the log of a line.
///
/// # Errors
/// In words, what is wrong with the line.
pub fn log_row(line: &[u8]) -> std::result::Result<(String, Source), String> {
    let row: LogRow = serde_json::from_slice(line).map_err(|e| {
        let cut = if e.is_eof() {
            "is cut off"
        } else {
            "is no log"
        };
        format!("the row {cut}: {e}")
    })?;
    Ok((
        row.instance_id.into_owned(),
        Source::Text(row.log.into_owned()),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_find_their_tasks_in_every_layout() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str| {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, name).unwrap();
        };
        for name in [
            "a__a-1.model.eval.log",
            "o__Chart.js-2.log",
            "run/m__x/b__b-3/test_output.txt",
            "run/m__y/b__b-3/test_output.txt",
            "run/m__x/b__b-3/run_instance.log",
            "c__c-4.log",
            "deep/c__c-4.log",
            "z__z-9.log",
            "a__a-1/patch.diff",
            "run/m/D__d-5/test_output.txt",
            "run/m/e_1776_e-6/test_output.txt",
        ] {
            write(name);
        }
        let wanted = BTreeMap::from([
            ("a__a-1", "model"),
            ("o__Chart.js-2", ""),
            ("b__b-3", "m/y"),
            ("c__c-4", ""),
            ("d__d-5", ""),
            ("e__e-6", ""),
        ]);
        let all = LogDirectory::find(root.path()).unwrap();
        assert_eq!(all.len(), 9);
        let assigned = all.assign(&wanted);
        let read = |task: &str| {
            let mut text = String::new();
            assigned.logs[task]
                .open()
                .unwrap()
                .read_to_string(&mut text)
                .unwrap();
            text
        };
        assert_eq!(read("a__a-1"), "a__a-1.model.eval.log");
        assert_eq!(read("o__Chart.js-2"), "o__Chart.js-2.log");
        assert_eq!(read("b__b-3"), "run/m__y/b__b-3/test_output.txt");
        assert_eq!(read("d__d-5"), "run/m/D__d-5/test_output.txt");
        assert_eq!(read("e__e-6"), "run/m/e_1776_e-6/test_output.txt");
        assert!(assigned.undecided["c__c-4"].starts_with("several logs: "));
        assert_eq!(assigned.unknown, ["z__z-9"]);
        assert!(assigned.logs["b__b-3"].open_beside().unwrap().is_none());
    }

    #[test]
    fn a_row_that_is_too_long_is_left_out_and_the_others_are_read() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("logs.jsonl");
        std::fs::write(
            &path,
            format!("short\n{}\n\n12345678\nend", "x".repeat(100)),
        )
        .unwrap();
        let mut lines = LogLines::open(&path).unwrap();
        lines.max_row = 8;
        let mut read = Vec::new();
        while let Some((number, line)) = lines.next_line().unwrap() {
            assert!(line.capacity() <= 64);
            read.push((number, String::from_utf8(line).unwrap()));
        }
        let row = |number, line: &str| (number, line.to_owned());
        assert_eq!(
            read,
            [row(1, "short\n"), row(4, "12345678\n"), row(5, "end")]
        );
        assert_eq!(lines.too_long(), [2]);
        assert_eq!(lines.too_long(), [0usize; 0]);
    }

    #[test]
    fn rows_of_logs_are_read_or_refused() {
        let (task, log) =
            log_row(br#"{"instance_id": "a", "model": 1, "log": "x\n\u001b\ud800y"}"#).unwrap();
        assert_eq!(task, "a");
        let Source::Text(text) = log else {
            panic!("a text")
        };
        assert!(text.starts_with(b"x\n\x1b") && text.ends_with(b"y"));
        assert!(
            log_row(br#"{"instance_id": "a", "log": "x"#)
                .unwrap_err()
                .contains("cut off")
        );
        assert!(log_row(br#"{"instance_id": "a"}"#).is_err());
        assert!(log_row(b"\xff").is_err());
    }
}
