//! `gametape verifier …`: train one, score with it, measure it.

use super::{output, print_json, put, unwritable};
use crate::verifier::args::VerifierAction;
use crate::verifier::{adapt, evaluate, figure, score, text, train};
use gametape_schemas::Failure;
use std::path::Path;
use std::process::ExitCode;

/// Does what `gametape verifier` is asked for.
///
/// # Errors
/// `GT-VERIFIER-…`, `GT-DATASET-RECIPE`, `GT-MODEL-…`, `GT-TRAIN-…`, and the tape's own.
pub fn run(action: &VerifierAction, json: bool) -> Result<ExitCode, Failure> {
    match action {
        VerifierAction::Train(args) => {
            let done = train::run(args)?;
            tell(&done, || text::trained(&done), json)?;
        }
        VerifierAction::Score(args) => {
            let done = score::run(args)?;
            tell(&done, || text::scored(&done), json)?;
        }
        VerifierAction::Adapt(args) => {
            let done = adapt::run(args)?;
            tell(&done, || text::adapted(&done), json)?;
        }
        VerifierAction::Evaluate(args) => {
            let done = evaluate::run(args)?;
            if let Some(out) = &args.out {
                write(&done, out)?;
            }
            tell(&done, || text::evaluated(&done), json)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn tell(
    done: &impl serde::Serialize,
    text: impl FnOnce() -> String,
    json: bool,
) -> Result<(), Failure> {
    match json {
        true => print_json(done),
        false => put(&text()),
    }
}

/// Each file appears whole or not at all.
fn write(done: &evaluate::Done, out: &Path) -> Result<(), Failure> {
    let json = serde_json::to_vec_pretty(done).map_err(output)?;
    let svg = figure::reliability(&done.report)?;
    std::fs::create_dir_all(out).map_err(|e| unwritable(out, &e))?;
    for (name, bytes) in [
        ("verifier.json", json.as_slice()),
        ("verifier.txt", text::evaluated(done).as_bytes()),
        ("reliability.svg", svg.as_bytes()),
    ] {
        let part = out.join(format!(".{name}.part"));
        std::fs::write(&part, bytes)
            .and_then(|()| std::fs::rename(&part, out.join(name)))
            .map_err(|e| unwritable(out, &e))?;
    }
    Ok(())
}
