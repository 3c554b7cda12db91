//! Hyperparameters from a preset, a file and flags, each over the one before.

use gametape_schemas::message::Hyperparameters;
use gametape_schemas::{Failure, FailureKind};
use gametape_trainer::{plan_file, presets};

/// Hyperparameters, and the preset that they began with.
#[derive(Clone, PartialEq, Debug)]
pub struct Knobs {
    /// The preset, where there was one.
    pub preset: Option<String>,
    /// All values.
    pub hyper: Hyperparameters,
}

/// Puts them together. `file` is the name and the text of a TOML file, `sets` are
/// `key=value`.
///
/// # Errors
/// `GT-TRAIN-OPTIONS`: what is not known, of another type or out of range.
pub fn knobs(
    preset: Option<&str>,
    file: Option<(&str, &str)>,
    sets: &[String],
) -> Result<Knobs, Failure> {
    let begin = match preset {
        Some(name) => {
            let found = presets::named(name);
            found.ok_or_else(|| unknown_preset(name))?.hyper
        }
        None => Hyperparameters::default(),
    };
    let internal = |e: toml::ser::Error| wrong(format!("the preset cannot be written: {e}"));
    let mut table = toml::Table::try_from(&begin).map_err(internal)?;
    if let Some((name, text)) = file {
        let found: toml::Table = text
            .parse()
            .map_err(|e: toml::de::Error| wrong(format!("{name}: {e}")))?;
        table.extend(found);
    }
    for set in sets {
        let (key, value) = set
            .split_once('=')
            .ok_or_else(|| wrong(format!("`--set {set}` is no KEY=VALUE")))?;
        table.insert(key.trim().to_owned(), value_of(value.trim()));
    }
    let hyper: Hyperparameters = table.try_into().map_err(|e: toml::de::Error| {
        let message = e.message().trim();
        wrong(format!("these hyperparameters cannot be used: {message}"))
    })?;
    plan_file::check(&hyper)?;
    if hyper.learning_rate >= 1.0 {
        let rate = hyper.learning_rate;
        return Err(wrong(format!(
            "learning_rate must be below 1, and is {rate}"
        )));
    }
    Ok(Knobs {
        preset: preset.map(str::to_owned),
        hyper,
    })
}

/// A value as TOML has it; what is none is a text: `schedule=linear` needs no quotes.
fn value_of(text: &str) -> toml::Value {
    let read = format!("value = {text}").parse::<toml::Table>();
    let read = read.ok().and_then(|mut table| match table.len() {
        1 => table.remove("value"),
        _ => None,
    });
    read.unwrap_or_else(|| toml::Value::String(text.to_owned()))
}

fn wrong(message: String) -> Failure {
    Failure::new(FailureKind::Input, "GT-TRAIN-OPTIONS", message).with_help(
        "docs/training.md lists the hyperparameters; `gametape train presets` shows all of them",
    )
}

fn unknown_preset(name: &str) -> Failure {
    let names: Vec<&str> = presets::all().iter().map(|p| p.name).collect();
    wrong(format!(
        "there is no preset `{name}`: there are {}",
        names.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gametape_schemas::message::{RateSchedule, SaveForm};

    fn of(preset: Option<&str>, file: Option<&str>, sets: &[&str]) -> Result<Knobs, Failure> {
        let sets: Vec<String> = sets.iter().map(|s| (*s).to_owned()).collect();
        knobs(preset, file.map(|text| ("mine.toml", text)), &sets)
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_the_preset() {
        let made = of(
            Some("swegym-policy"),
            Some("epochs = 2\nlearning_rate = 1e-3\n# a comment\nsave = \"merged\"\n"),
            &[
                "learning_rate=2e-4",
                "lora_rank = 16",
                "schedule=linear",
                "lora_targets=[\"q_proj\"]",
            ],
        )
        .unwrap();
        assert_eq!(made.preset.as_deref(), Some("swegym-policy"));
        let h = made.hyper;
        assert_eq!((h.epochs, h.learning_rate, h.lora_rank), (2, 2e-4, 16));
        assert_eq!(
            (h.schedule, h.save),
            (RateSchedule::Linear, SaveForm::Merged)
        );
        assert_eq!(h.lora_targets, ["q_proj"]);
        // The rest is the preset's.
        assert_eq!(
            (h.max_tokens, h.warmup_steps, h.seed),
            (32_768, Some(5), 42)
        );
        let plain = of(None, None, &[]).unwrap();
        assert_eq!(
            (plain.hyper, plain.preset),
            (Hyperparameters::default(), None)
        );
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        for (preset, file, set, word) in [
            (Some("swegym"), None, None, "swegym-policy"),
            (None, Some("epoch = 2"), None, "epoch"),
            (None, Some("epochs = ["), None, "mine.toml"),
            (None, None, Some("epochs"), "KEY=VALUE"),
            (None, None, Some("epochs=two"), "u32"),
            (None, None, Some("learning_rat=1"), "learning_rat"),
            (None, None, Some("learning_rate=-1"), "learning_rate"),
            (None, None, Some("learning_rate=3"), "below 1"),
            (None, None, Some("schedule=steep"), "steep"),
            (None, None, Some("patience=2"), "eval_share"),
        ] {
            let sets: Vec<&str> = set.into_iter().collect();
            let failure = of(preset, file, &sets).unwrap_err();
            assert_eq!(failure.code, "GT-TRAIN-OPTIONS");
            assert!(failure.message.contains(word), "{word}: {failure}");
        }
    }

    #[test]
    fn every_preset_comes_through_as_it_is() {
        for preset in presets::all() {
            assert_eq!(
                of(Some(preset.name), None, &[]).unwrap().hyper,
                preset.hyper
            );
        }
    }
}
