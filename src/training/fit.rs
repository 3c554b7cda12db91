//! Whether a tokenizer is that of a dataset. Rows are words, and any model can learn any
//! words; but a dataset of a model's own attempts, or one whose lengths were measured with a
//! tokenizer, means that one. What the tape knows of it is held against the tokenizer that
//! will train.

use super::chronicle::Chronicle;
use gametape_model::ChatTokenizer;
use gametape_schemas::{
    AttemptId, CheckpointId, Completion, DatasetRow, Event, Failure, FailureKind, PolicyRef,
    StreamId,
};
use gametape_tape::SledTape;
use std::collections::{BTreeMap, BTreeSet};

/// Attempts of a checkpoint that are looked at: a tokenizer is one for all of them.
const LOOKED_AT: usize = 16;
/// A length may be off by this share, for a turn's ends that one counts and another does not.
const SLACK: f64 = 0.02;
/// And by so many tokens.
const SLACK_TOKENS: u64 = 16;
/// Share of the measured attempts whose length may be another one.
const ODD_SHARE: f64 = 0.1;

/// Whether recorded token ids are, with this tokenizer, what was said. A text that was cut at
/// a stop text is the beginning of what its tokens say.
pub fn says_the_same(tokenizer: &ChatTokenizer, completion: &Completion) -> bool {
    match tokenizer.decode_completion(&completion.tokens) {
        Ok(text) => match completion.text.is_empty() {
            true => text.is_empty(),
            false => text.starts_with(&completion.text),
        },
        Err(_) => false,
    }
}

/// Holds the tokenizer against the token ids of those attempts that models in this process
/// made; others have none.
///
/// # Errors
/// `GT-TRAIN-TOKENIZER`, and the tape's.
pub fn check_tokens(
    tape: &SledTape,
    chronicle: &Chronicle,
    rows: &[DatasetRow],
    tokenizer: &ChatTokenizer,
) -> Result<(), Failure> {
    let mut by_model: BTreeMap<&CheckpointId, BTreeSet<&AttemptId>> = BTreeMap::new();
    for row in rows {
        if let Some(author) = chronicle.attempts.get(&row.attempt)
            && let PolicyRef::Model { checkpoint } = &author.policy
        {
            by_model.entry(checkpoint).or_default().insert(&row.attempt);
        }
    }
    for (checkpoint, attempts) in by_model {
        let (mut turns, mut other, mut example) = (0_u64, 0_u64, None);
        for attempt in attempts.into_iter().take(LOOKED_AT) {
            let records = tape.read_stream(&StreamId::attempt(attempt), 0, usize::MAX)?;
            for record in &records {
                let Event::StepTaken(body) = &record.event else {
                    continue;
                };
                let completion = &body.step.completion;
                if completion.tokens.is_empty() {
                    continue;
                }
                turns += 1;
                if !says_the_same(tokenizer, completion) {
                    other += 1;
                    example.get_or_insert((attempt.clone(), body.step.index));
                }
            }
        }
        if let Some((attempt, step)) = example {
            return Err(other_one(format!(
                "the rows are of attempts of the model {}, and its tokens are not the base's: \
                 with the base's tokenizer {other} of {turns} recorded turns say something else \
                 than what was said (first in step {step} of the attempt {attempt})",
                checkpoint
            )));
        }
    }
    Ok(())
}

/// Holds lengths that the recipe was given against those that rows have here.
///
/// # Errors
/// `GT-TRAIN-TOKENIZER`.
pub fn check_lengths(
    measured: &BTreeMap<AttemptId, u64>,
    here: &BTreeMap<AttemptId, u64>,
) -> Result<(), Failure> {
    let both: Vec<(&AttemptId, u64, u64)> = here
        .iter()
        .filter_map(|(attempt, here)| Some((attempt, *measured.get(attempt)?, *here)))
        .collect();
    let differs = |told: u64, here: u64| {
        let slack = (told as f64 * SLACK) as u64 + SLACK_TOKENS;
        told.abs_diff(here) > slack
    };
    let odd: Vec<_> = both
        .iter()
        .filter(|(_, told, is)| differs(*told, *is))
        .collect();
    if odd.len() as f64 <= both.len() as f64 * ODD_SHARE {
        return Ok(());
    }
    let example = odd.first().map_or(String::new(), |(attempt, told, is)| {
        format!(": the attempt {attempt} has {is} tokens here and {told} there")
    });
    Err(other_one(format!(
        "the recipe's lengths were measured with another tokenizer than the base's: {} of {} \
         differ{example}",
        odd.len(),
        both.len()
    )))
}

fn other_one(message: String) -> Failure {
    Failure::new(FailureKind::Input, "GT-TRAIN-TOKENIZER", message).with_help(
        "name the base that the dataset was made for, or measure its lengths with this one; \
         --other-tokenizer trains all the same, on the words",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use gametape_model::tiny;

    fn tokenizer() -> ChatTokenizer {
        ChatTokenizer::new(tiny::tokenizer_parts(), &[2]).unwrap()
    }

    /// One whose bytes have other numbers.
    fn shifted() -> ChatTokenizer {
        let mut parts = tiny::tokenizer_parts();
        let mut json: serde_json::Value = serde_json::from_str(&parts.json).unwrap();
        let vocabulary = json["model"]["vocab"].as_object_mut().unwrap();
        for (_, id) in vocabulary
            .iter_mut()
            .filter(|(_, id)| id.as_u64() > Some(2))
        {
            *id = (3 + (id.as_u64().unwrap() - 3 + 1) % 256).into();
        }
        parts.json = json.to_string();
        ChatTokenizer::new(parts, &[2]).unwrap()
    }

    fn said(text: &str, tokens: Vec<u32>) -> Completion {
        Completion {
            text: text.to_owned(),
            tokens,
            ..Completion::default()
        }
    }

    #[test]
    fn tokens_say_what_was_said_with_their_own_tokenizer_and_with_no_other() {
        let (own, other) = (tokenizer(), shifted());
        let mut tokens = own.encode("edit a.py → b").unwrap();
        let whole = said("edit a.py → b", tokens.clone());
        assert!(says_the_same(&own, &whole));
        assert!(!says_the_same(&other, &whole));
        // With the end of its turn, and cut at a stop text.
        tokens.push(2);
        assert!(says_the_same(&own, &said("edit a.py → b", tokens.clone())));
        assert!(says_the_same(&own, &said("edit a", tokens.clone())));
        // Nothing was said; ids beyond the vocabulary.
        assert!(says_the_same(&own, &said("", vec![2])));
        assert!(!says_the_same(&own, &said("", own.encode("x").unwrap())));
        assert!(!says_the_same(&own, &said("x", vec![90_000])));
    }

    #[test]
    fn lengths_of_another_tokenizer_are_refused_and_small_differences_are_not() {
        let of = |lengths: &[u64]| -> BTreeMap<AttemptId, u64> {
            let named = lengths.iter().enumerate();
            named
                .map(|(n, length)| (AttemptId::new(format!("a{n:02}")), *length))
                .collect()
        };
        let here = of(&[1000, 2000, 3000]);
        assert!(check_lengths(&of(&[1000, 2030, 2950]), &here).is_ok());
        assert!(check_lengths(&of(&[]), &here).is_ok());
        let failure = check_lengths(&of(&[700, 1400, 2100]), &here).unwrap_err();
        assert_eq!(failure.code, "GT-TRAIN-TOKENIZER");
        assert!(failure.message.contains("3 of 3"), "{failure}");
        assert!(
            failure
                .message
                .contains("a00 has 1000 tokens here and 700 there")
        );
        // One odd attempt in twenty is that attempt's, and not the tokenizer's.
        let many = of(&[1000; 20]);
        let mut one_odd = many.clone();
        one_odd.insert(AttemptId::new("a03"), 5000);
        assert!(check_lengths(&one_odd, &many).is_ok());
    }
}
