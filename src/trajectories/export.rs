//! Attempts of a tape into files: a line an attempt, or a file an attempt.

use super::attempts::{self, Whole};
use super::unusable;
use crate::files;
use crate::tasks::{Place, Problems};
use flate2::Compression;
use flate2::write::GzEncoder;
use gametape_schemas::formats::Prediction;
use gametape_schemas::formats::rows::Row;
use gametape_schemas::formats::trajectories::{
    Told, TrajectoryFormat, to_atif, to_chat, to_openhands,
};
use gametape_schemas::{Failure, FailureKind};
use gametape_tape::SledTape;
use serde_json::Value;
use std::io::{BufWriter, Write};
use std::path::Path;

/// What attempts are written as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// Harbor's trajectory format.
    Atif,
    /// Chat messages, calls in the text.
    Messages,
    /// Chat messages with native calls.
    MessagesTools,
    /// OpenHands' `output.jsonl`.
    OpenHands,
    /// SWE-bench's predictions.
    Predictions,
    /// What was imported, word for word.
    Own,
}

/// Which attempts, and as what.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// As what.
    pub form: Form,
    /// The attempt whose name begins so; without it, all.
    pub attempt: Option<String>,
    /// Only those whose hidden tests passed, by whatever rules.
    pub resolved: bool,
}

/// What came of an export.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct Written {
    /// Attempts that were written.
    pub written: u64,
    /// Attempts without what this form needs: nothing was imported, nothing was handed in.
    pub left_out: u64,
    /// Attempts that cannot be told.
    #[serde(flatten)]
    pub problems: Problems,
}

/// Writes attempts to `out`: `-` is standard output, a directory gets a file an attempt, a
/// name in `.gz` is compressed. A file is whole or as it was before.
///
/// # Errors
/// `GT-ATTEMPT-UNKNOWN`, `GT-TRAJECTORY-FILE`, `GT-RUN-UNWRITABLE`, and the tape's own.
pub fn export(
    tape: &SledTape,
    options: &Options,
    out: &Path,
    mut stdout: impl Write,
) -> Result<Written, Failure> {
    let mut ids = attempts::all(tape)?;
    if let Some(name) = &options.attempt {
        ids = vec![attempts::one(&ids, name)?];
    }
    let mut done = Written::default();
    if out == Path::new("-") {
        let mut write = |_: &Told, text: &str| lines(&mut stdout, text);
        each(tape, options, &ids, &mut done, |told, text| {
            write(told, text).map_err(|e| unwritable(out, &e))
        })?;
        stdout.flush().map_err(|e| unwritable(out, &e))?;
        return Ok(done);
    }
    if out.is_dir() || out.as_os_str().to_string_lossy().ends_with('/') {
        std::fs::create_dir_all(out).map_err(|e| unwritable(out, &e))?;
        each(tape, options, &ids, &mut done, |told, text| {
            let path = out.join(file_name(told, options.form));
            atomic(&path, |file| {
                file.write_all(text.as_bytes())
                    .and_then(|()| file.write_all(b"\n"))
            })
        })?;
        return Ok(done);
    }
    let mut failed = None;
    let is_gz = out.extension().is_some_and(|e| e == "gz");
    let mut all = |sink: &mut dyn Write| -> std::io::Result<()> {
        let mut broken = None;
        let told = each(tape, options, &ids, &mut done, |_, text| {
            lines(sink, text).map_err(|e| {
                let failure = unwritable(out, &e);
                broken = Some(e);
                failure
            })
        });
        match (broken, told) {
            (Some(error), _) => Err(error),
            (None, Ok(())) => Ok(()),
            (None, Err(failure)) => {
                failed = Some(failure);
                Err(std::io::Error::other("the tape cannot be read"))
            }
        }
    };
    let written = atomic(out, |file| {
        if !is_gz {
            return all(file);
        }
        let mut packed = GzEncoder::new(file, Compression::default());
        all(&mut packed)?;
        packed.finish().map(drop)
    });
    written.map_err(|failure| failed.unwrap_or(failure))?;
    Ok(done)
}

/// Hands the text of every wanted attempt on.
fn each(
    tape: &SledTape,
    options: &Options,
    ids: &[gametape_schemas::AttemptId],
    done: &mut Written,
    mut take: impl FnMut(&Told, &str) -> Result<(), Failure>,
) -> Result<(), Failure> {
    for id in ids {
        let whole = match attempts::whole(tape, id)? {
            Ok(whole) => whole,
            Err(message) => {
                let place = Place {
                    file: format!("attempt {id}").into(),
                    at: String::new(),
                };
                done.problems.add(&place, message);
                continue;
            }
        };
        if options.resolved && whole.told.resolved() != Some(true) {
            continue;
        }
        match text(&whole, options.form) {
            Some(text) => {
                take(&whole.told, &text)?;
                done.written += 1;
            }
            None => done.left_out += 1,
        }
    }
    Ok(())
}

/// An attempt in a form; `None` where it has nothing to say in it. What was imported in the
/// very format that is asked for is what was imported, word for word.
fn text(whole: &Whole, form: Form) -> Option<String> {
    let told = &whole.told;
    let own = |format| {
        let origin = told.origin.as_ref()?;
        (origin.format == format).then(|| origin.record.clone())
    };
    let json = |row: Row| Some(Value::Object(row).to_string());
    match form {
        Form::Own => told.origin.as_ref().map(|origin| origin.record.clone()),
        Form::Atif => own(TrajectoryFormat::Atif).or_else(|| json(to_atif::document(told))),
        Form::OpenHands => own(TrajectoryFormat::OpenHands)
            .or_else(|| json(to_openhands::row(told, whole.task.as_ref()))),
        Form::Messages => json(to_chat::row(told, to_chat::Flavour::Text)),
        Form::MessagesTools => json(to_chat::row(told, to_chat::Flavour::Tools)),
        Form::Predictions => {
            told.trajectory.end.as_ref()?;
            let prediction = Prediction {
                instance_id: told.instance_id().to_owned(),
                model_name_or_path: told.policy(),
                model_patch: told.trajectory.patch().map(str::to_owned),
                rest: Row::new(),
            };
            json(prediction.to_row())
        }
    }
}

/// A record as one line. Line ends of JSON stand between its words alone: inside of them
/// they are escaped.
fn lines(out: &mut (impl Write + ?Sized), text: &str) -> std::io::Result<()> {
    if text.contains(['\n', '\r']) {
        out.write_all(text.replace(['\n', '\r'], " ").as_bytes())?;
    } else {
        out.write_all(text.as_bytes())?;
    }
    out.write_all(b"\n")
}

/// Names of tasks come from others: what is no letter, digit, `.`, `_` or `-` is no part of
/// a file's name.
fn file_name(told: &Told, form: Form) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let task = told.instance_id().chars().take(100);
    let task: String = task.map(|c| if is_plain(c) { c } else { '_' }).collect();
    let id: String = told.trajectory.attempt.as_str().chars().take(12).collect();
    let ending = match (form, &told.origin) {
        (Form::Own, Some(origin)) if origin.format == TrajectoryFormat::SweAgent => "traj",
        (Form::Own, Some(origin)) if origin.format == TrajectoryFormat::MiniSweAgent => "traj.json",
        _ => "json",
    };
    format!("{}.{id}.{ending}", task.trim_start_matches('.'))
}

/// Writes a file whole, or leaves what was there.
pub(crate) fn atomic(
    path: &Path,
    write: impl FnOnce(&mut (dyn Write + Send)) -> std::io::Result<()>,
) -> Result<(), Failure> {
    let folder = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    if !folder.is_dir() {
        return Err(unusable(path, "its directory is not there"));
    }
    let file = files::beside(path).map_err(|e| unwritable(path, &e))?;
    let mut buffered = BufWriter::new(file);
    let written = write(&mut buffered).and_then(|()| buffered.flush());
    written.map_err(|e| unwritable(path, &e))?;
    let file = buffered
        .into_inner()
        .map_err(|e| unwritable(path, e.error()))?;
    file.as_file()
        .sync_all()
        .map_err(|e| unwritable(path, &e))?;
    files::appear(file, path).map_err(|e| unwritable(path, &e))?;
    Ok(())
}

pub(crate) fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    let kind = match error.raw_os_error() {
        Some(libc::ENOSPC) => FailureKind::Disk,
        _ => FailureKind::Input,
    };
    let message = format!("{} cannot be written: {error}", path.display());
    Failure::new(kind, "GT-RUN-UNWRITABLE", message)
        .with_help("check the directory, its permissions and its space, or name another one")
}
