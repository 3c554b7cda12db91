//! `gametape dataset …`: datasets are rebuilt from the tape whenever they are asked for.

use super::{Pipe, existing, print_json, put};
use crate::cli::{DatasetAction, DatasetForm, RunDir};
use crate::config::Paths;
use crate::datasets::{self, Found, export, make, show};
use crate::system::now_micros;
use crate::trajectories::export::{atomic, unwritable};
use crate::trajectories::paint::harmless;
use gametape_schemas::recipe::Options;
use gametape_schemas::recipe::diff::{Rows, diff};
use gametape_schemas::{Digest, Failure, FailureKind};
use gametape_tape::{Prefix, SledTape};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

/// Rows of a difference that people are shown, of each sort.
const SHOWN: usize = 20;

/// The outcome for one dataset.
#[derive(Debug, serde::Serialize)]
pub struct Check {
    /// Its name.
    pub name: String,
    /// Rows on the tape's word.
    pub rows: u64,
    /// Digest on the tape's word.
    pub recorded: Digest,
    /// Digest of what the recipe gives now.
    pub rebuilt: Digest,
    /// All that the tape says of it and that does not fit, in words.
    pub differs: Vec<String>,
}

impl Check {
    /// Whether they agree.
    pub fn agrees(&self) -> bool {
        self.differs.is_empty()
    }
}

/// Does what `gametape dataset` is asked for.
///
/// # Errors
/// `GT-DATASET-…`, `GT-RUN-CONFIG`, `GT-RUN-UNWRITABLE`, and the tape's own.
pub fn run(action: &DatasetAction, json: bool) -> Result<ExitCode, Failure> {
    match action {
        DatasetAction::Build {
            recipe,
            name,
            prefix,
            dry_run,
            run,
        } => {
            let tape = open(run)?;
            let prefix = Prefix::new(&tape, *prefix);
            let (given, problems) = make::given(recipe, &prefix)?;
            problems.print();
            let made = make::make(&tape, &prefix, &given, name.as_deref(), !dry_run)?;
            if json {
                print_json(&made.summary)?;
            } else {
                put(&made.summary.text())?;
                put(match (dry_run, made.known) {
                    (_, true) => "\nthe very same was on the tape already\n",
                    (true, false) => "\nnothing was written (--dry-run)\n",
                    (false, false) => "\nit is on the tape\n",
                })?;
            }
            Ok(ExitCode::SUCCESS)
        }
        DatasetAction::Verify { run } => verify(&open(run)?, json),
        DatasetAction::Show { name, run } => {
            let tape = open(run)?;
            let found = datasets::named(&tape, name)?;
            let mut tally = show::Tally::default();
            let built = found.each(&tape, Options::default(), &mut |row, _| {
                tally.add(&row);
                Ok::<(), Failure>(())
            })?;
            let summary = show::Summary::of(&found.event, &built, tally);
            if json {
                print_json(&summary)?;
            } else {
                put(&summary.text())?;
            }
            Ok(ExitCode::SUCCESS)
        }
        DatasetAction::Diff { a, b, run } => {
            let tape = open(run)?;
            let (a, b) = (datasets::named(&tape, a)?, datasets::named(&tape, b)?);
            let rows = |found: &Found| {
                let mut rows = Rows::default();
                let built = found.each(&tape, Options::default(), &mut |row, line| {
                    rows.add(&row.row, line);
                    Ok::<(), Failure>(())
                })?;
                Ok::<_, Failure>((rows, built.fates))
            };
            let (left, right) = (rows(&a)?, rows(&b)?);
            let (from, end) = (a.event.prefix_end, b.event.prefix_end);
            let between = datasets::between(&tape, from.min(end), from.max(end))?;
            let found = diff(
                (&a.given(), &left.0, &left.1),
                (&b.given(), &right.0, &right.1),
                &between,
            );
            if json {
                print_json(&found)?;
            } else {
                put(&show::diff_text(&found, SHOWN))?;
            }
            Ok(ExitCode::SUCCESS)
        }
        DatasetAction::Export {
            name,
            format,
            out,
            run,
        } => {
            let tape = open(run)?;
            let form = form_of(*format);
            let options = Options {
                native: form == export::Form::MessagesTools,
                ..Options::default()
            };
            let found = datasets::named(&tape, name)?;
            let written = write(out, form, |writer| {
                found
                    .each(&tape, options, &mut |row, line| writer.push(&row, line))
                    .map(drop)
            })?;
            if out != Path::new("-") {
                if json {
                    print_json(&serde_json::json!({ "written": written, "out": out }))?;
                } else {
                    put(&format!("{written} rows written to {}\n", out.display()))?;
                }
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Rebuilds every dataset; the table comes whatever is found.
fn verify(tape: &SledTape, json: bool) -> Result<ExitCode, Failure> {
    let mut checks = Vec::new();
    for found in datasets::all(tape)? {
        let rebuilt = found.each(tape, Options::default(), &mut |_, _| Ok::<(), Failure>(()))?;
        checks.push(Check {
            name: found.event.name.clone(),
            rows: found.event.rows,
            differs: found.differs(&rebuilt),
            recorded: found.event.digest,
            rebuilt: rebuilt.sum.digest,
        });
    }
    if checks.is_empty() {
        return Err(datasets::none("no dataset has been built on this tape yet"));
    }
    if json {
        print_json(&checks)?;
    } else {
        let width = checks.iter().map(|check| check.name.chars().count()).max();
        for check in &checks {
            put(&format!(
                "{:<width$} {:>6} rows  recorded {}  rebuilt {}  {}\n",
                harmless(&check.name),
                check.rows,
                check.recorded.short(),
                check.rebuilt.short(),
                if check.agrees() { "equal" } else { "DIFFERENT" },
                width = width.unwrap_or(0).max(10),
            ))?;
        }
    }
    let wrong: Vec<String> = checks
        .iter()
        .filter(|check| !check.agrees())
        .map(|check| format!("`{}`: {}", harmless(&check.name), check.differs.join("; ")))
        .collect();
    if wrong.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    Err(Failure::new(
        FailureKind::Tape,
        "GT-DATASET-DIGEST",
        format!(
            "{} of {} datasets are not what the tape says: {}",
            wrong.len(),
            checks.len(),
            wrong.join(". ")
        ),
    )
    .with_help("if another version of gametape wrote the tape, use that one; else events or recipes on it were changed: go back to a copy"))
}

/// Writes a file, which is whole or as it was before; `-` is standard output.
fn write(
    out: &Path,
    form: export::Form,
    rows: impl FnOnce(&mut export::Writer) -> Result<(), export::Error>,
) -> Result<u64, Failure> {
    let all = |to: &mut (dyn Write + Send)| {
        let mut writer = export::Writer::new(form, to)?;
        rows(&mut writer)?;
        writer.finish()
    };
    if out == Path::new("-") {
        return all(&mut std::io::BufWriter::new(Pipe)).map_err(|error| told(out, error));
    }
    let mut result = Ok(0);
    let done = atomic(out, |file| {
        result = all(file).map_err(|error| told(out, error));
        match &result {
            Ok(_) => Ok(()),
            Err(_) => Err(std::io::Error::other("nothing was written")),
        }
    });
    let written = result?;
    done.map(|()| written)
}

fn told(out: &Path, error: export::Error) -> Failure {
    match error {
        export::Error::Failure(failure) => failure,
        export::Error::Output(error) => unwritable(out, &error),
        export::Error::Words(message) => unwritable(out, &std::io::Error::other(message)),
    }
}

fn form_of(form: DatasetForm) -> export::Form {
    match form {
        DatasetForm::Rows => export::Form::Rows,
        DatasetForm::Messages => export::Form::Messages,
        DatasetForm::MessagesTools => export::Form::MessagesTools,
        DatasetForm::Parquet => export::Form::Parquet,
        DatasetForm::Preference => export::Form::Preference,
    }
}

fn open(run: &RunDir) -> Result<SledTape, Failure> {
    let paths = Paths::new(run.run.clone())?;
    Ok(SledTape::open(&existing(&paths)?, Arc::new(now_micros))?)
}
