//! The weights that a training starts from.

use super::chronicle::{Chronicle, Training};
use crate::config::Paths;
use crate::run::learning::last_part;
use crate::system::{self, look_at_base, model_source};
use gametape_model::adapter::is_adapter;
use gametape_model::{ChatTokenizer, ModelConfig, load_tokenizer};
use gametape_schemas::message::ModelSource;
use gametape_schemas::{Failure, FailureKind};
use gametape_trainer::plan_file::weights_digest;
use std::path::{Path, PathBuf};

/// Seed of the tiny random model, where it is made here: that of the built-in profiles.
const TINY_SEED: u64 = 42;

/// Starting weights, looked at and not loaded.
pub struct Base {
    /// What they are and where they lie.
    pub source: ModelSource,
    /// What they are called on the tape.
    pub name: String,
    /// Their shape.
    pub config: ModelConfig,
    /// How they read and write.
    pub tokenizer: ChatTokenizer,
}

/// Finds what a person means. Nothing is written: [`put_in_place`] does.
///
/// # Errors
/// `GT-TRAIN-BASE` for a training that has not ended, or whose weights are gone or are no
/// longer those of the tape; `GT-TRAIN-TOKENIZER` when only its tokenizer is another;
/// `GT-TRAIN-UNKNOWN` for what is neither a training nor a path; what loading says.
pub fn resolve(text: &str, chronicle: &Chronicle, paths: &Paths) -> Result<Base, Failure> {
    if matches!(text, "smollm2" | "tiny-random") {
        let found = look_at_base(text, TINY_SEED, paths)?;
        let (config, tokenizer) = load_tokenizer(&found.files)?;
        return Ok(Base {
            source: found.source,
            name: text.to_owned(),
            config,
            tokenizer,
        });
    }
    // A path is written like one where a training has the same name.
    let unknown = match chronicle.find(text) {
        Ok(training) => return of_training(training, paths),
        Err(failure) => failure,
    };
    let path = Path::new(text);
    if !path.exists() {
        return Err(Failure {
            message: format!("{}; and there is no such path", unknown.message),
            ..unknown
        });
    }
    // Weights that this tape made are themselves, wherever they were copied to.
    let known = match path.is_dir() && !is_adapter(path) && !chronicle.trainings.is_empty() {
        true => weights_digest(path)
            .ok()
            .and_then(|digest| chronicle.maker_of_file(&digest)),
        false => None,
    };
    match known {
        Some(training) => made_by(training, path),
        None => look(model_source(path)?, last_part(text)),
    }
}

/// Makes weights that are made here, where they are not there yet.
///
/// # Errors
/// The disk's; `GT-MODEL-MISSING` when they are others by now.
pub fn put_in_place(base: &Base, paths: &Paths) -> Result<(), Failure> {
    system::put_in_place(&base.source, TINY_SEED, paths)
}

/// Where the weights of a finished training lie.
pub fn place(training: &Training, paths: &Paths) -> Option<PathBuf> {
    let finished = training.finished.as_ref()?;
    // An absolute path stays what it is.
    Some(paths.run.join(&finished.path))
}

fn of_training(training: &Training, paths: &Paths) -> Result<Base, Failure> {
    let name = &training.name;
    let (Some(finished), Some(path)) = (&training.finished, place(training, paths)) else {
        return Err(wrong(format!("the training `{name}` has not ended yet"))
            .with_help("type its command again: it goes on where it was; then name it"));
    };
    let found = weights_digest(&path).map_err(|error| {
        wrong(format!(
            "the weights of the training `{name}` are not at {}: {error}",
            path.display()
        ))
        .with_help(
            "put them back; or type the command of that training again: it makes the same \
             weights anew",
        )
    })?;
    if finished.weights.as_ref().is_some_and(|told| *told != found) {
        return Err(wrong(format!(
            "the weights at {} are not those that the training `{name}` made: their digest is \
             {}, the tape says {}",
            path.display(),
            found.short(),
            finished.weights.as_ref().map_or("", |d| d.short()),
        ))
        .with_help(
            "put the right ones back, or name the path itself as the base: then they are \
             somebody's weights, and not those of this training",
        ));
    }
    made_by(training, &path)
}

/// The weights of a training at a place: they must have its tokenizer.
fn made_by(training: &Training, path: &Path) -> Result<Base, Failure> {
    let checkpoint = training.checkpoint().ok_or_else(|| {
        wrong(format!(
            "the hyperparameters of the training `{}` cannot be read by this version",
            training.name
        ))
    })?;
    let source = ModelSource {
        checkpoint,
        path: path.to_owned(),
    };
    let base = look(source, training.name.clone())?;
    let here = base.tokenizer.digest();
    match training.origin().map(|origin| &origin.setting.tokenizer) {
        Some(told) if *told != here => Err(Failure::new(
            FailureKind::Input,
            "GT-TRAIN-TOKENIZER",
            format!(
                "the weights at {} are those of the training `{}`, but the tokenizer beside them \
                 is another one: its digest is {}, the training had {}",
                path.display(),
                training.name,
                here.short(),
                told.short()
            ),
        )
        .with_help(
            "put the tokenizer of that training back (tokenizer.json, tokenizer_config.json): \
             with another one every token means something else",
        )),
        _ => Ok(base),
    }
}

fn look(source: ModelSource, name: String) -> Result<Base, Failure> {
    let (config, tokenizer) = load_tokenizer(&source.path)?;
    Ok(Base {
        source,
        name,
        config,
        tokenizer,
    })
}

fn wrong(message: String) -> Failure {
    Failure::new(FailureKind::Input, "GT-TRAIN-BASE", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tiny_model_is_looked_at_without_a_trace_and_made_where_it_was_said_to_be() {
        let home = tempfile::tempdir().unwrap();
        let run = home.path().join("run");
        std::fs::create_dir(&run).unwrap();
        let paths = Paths {
            run: run.clone(),
            cache: home.path().join("cache"),
        };
        let nothing = Chronicle::default();
        let looked = resolve("tiny-random", &nothing, &paths).unwrap();
        assert_eq!(std::fs::read_dir(&run).unwrap().count(), 0);
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 1);
        assert_eq!(looked.source.path, run.join("models/tiny-random"));

        put_in_place(&looked, &paths).unwrap();
        assert_eq!(model_source(&looked.source.path).unwrap(), looked.source);
        let again = resolve("tiny-random", &nothing, &paths).unwrap();
        assert_eq!(again.source, looked.source);
        assert_eq!(again.tokenizer.digest(), looked.tokenizer.digest());
        put_in_place(&again, &paths).unwrap();
    }
}
