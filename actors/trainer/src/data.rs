//! Rows as tokens: what is trained on, what is measured, what is left out.

use gametape_model::ChatTokenizer;
use gametape_model::train::TrainingRow;
use gametape_schemas::message::{EvalUnit, Hyperparameters};
use gametape_schemas::{DatasetRow, Failure, FailureKind};

/// Rows as tokens, and what was left out.
pub struct Prepared {
    /// Those that are trained on, then those that are measured.
    pub rows: Vec<TrainingRow>,
    /// How many are trained on.
    pub trained: usize,
    /// The attempt of each row, for messages.
    pub sources: Vec<String>,
    /// Rows longer than the limit.
    pub too_long: usize,
    /// Tokens of the shortest and of the longest of them.
    pub too_long_tokens: Option<(usize, usize)>,
    /// Rows without a token that is learnt.
    pub without_loss: usize,
}

/// Whether a row is measured instead of trained on: by a hash of what it belongs to, so that
/// all rows of a task (or repository) are on the same side in every dataset.
pub fn is_measured(row: &DatasetRow, hyper: &Hyperparameters) -> bool {
    if hyper.eval_share <= 0.0 {
        return false;
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"gametape held-out rows 1");
    hasher.update(match hyper.eval_by {
        EvalUnit::Task => row.task.as_str().as_bytes(),
        EvalUnit::Repo => row.repo.as_bytes(),
    });
    let bytes = hasher.finalize();
    let number = bytes
        .as_bytes()
        .iter()
        .take(6)
        .fold(0u64, |n, b| n << 8 | u64::from(*b));
    (number as f64) < hyper.eval_share * (1u64 << 48) as f64
}

/// Tokens that a row may have: what the training allows, and what the model can read.
pub fn limit(hyper: &Hyperparameters, context: usize) -> usize {
    hyper.max_tokens.min(context)
}

/// Tokenises rows and sorts them into those that are trained on and those that are measured;
/// the order of each kind is kept. `context` is the longest row that the model can read.
///
/// # Errors
/// `GT-TRAIN-EMPTY` when nothing is left to train on, or what the tokenizer says.
pub fn prepare(
    rows: &[DatasetRow],
    tokenizer: &ChatTokenizer,
    hyper: &Hyperparameters,
    context: usize,
) -> Result<Prepared, Failure> {
    let most = limit(hyper, context);
    let mut out = Prepared {
        rows: Vec::with_capacity(rows.len()),
        trained: 0,
        sources: Vec::with_capacity(rows.len()),
        too_long: 0,
        too_long_tokens: None,
        without_loss: 0,
    };
    let mut measured = Vec::new();
    for row in rows {
        let rendered = tokenizer
            .render(&row.messages, false)
            .map_err(Failure::from)?;
        let training = TrainingRow {
            tokens: rendered.tokens.iter().map(|t| i64::from(*t)).collect(),
            loss: rendered.loss,
        };
        let length = training.tokens.len();
        if length > most {
            let (low, high) = out.too_long_tokens.unwrap_or((length, length));
            out.too_long_tokens = Some((low.min(length), high.max(length)));
            out.too_long += 1;
        } else if training.loss_tokens() == 0 {
            out.without_loss += 1;
        } else if is_measured(row, hyper) {
            measured.push((training, row.attempt.to_string()));
        } else {
            out.rows.push(training);
            out.sources.push(row.attempt.to_string());
        }
    }
    out.trained = out.rows.len();
    if out.rows.is_empty() {
        return Err(nothing(rows.len(), &out, measured.len(), hyper, context));
    }
    for (row, source) in measured {
        out.rows.push(row);
        out.sources.push(source);
    }
    Ok(out)
}

/// Why nothing is left, with the lengths that decide.
fn nothing(
    rows: usize,
    left_out: &Prepared,
    measured: usize,
    hyper: &Hyperparameters,
    context: usize,
) -> Failure {
    let lengths = match left_out.too_long_tokens {
        Some((low, high)) if low < high => format!(" (from {low} to {high} tokens)"),
        Some((low, _)) => format!(" ({low} tokens)"),
        None => String::new(),
    };
    let (most, name) = match hyper.max_tokens <= context {
        true => (hyper.max_tokens, "max_tokens"),
        false => (context, "the model's context"),
    };
    let help = match left_out.too_long_tokens {
        Some((low, _)) if low > context => format!(
            "rows are never cut: train a model with a context of at least {low} tokens, or build \
             a dataset of shorter rows (the filter `length`)"
        ),
        Some((low, _)) => format!(
            "rows are never cut: set max_tokens to at least {low}, or build a dataset of shorter \
             rows (the filter `length`)"
        ),
        None => "collect more attempts, or hold less out (eval_share)".to_owned(),
    };
    Failure::new(
        FailureKind::Input,
        "GT-TRAIN-EMPTY",
        format!(
            "nothing to train on: of {rows} rows, {} are longer than {name} = {most}{lengths}, \
             {} have no token with loss and {measured} are held out by eval_share",
            left_out.too_long, left_out.without_loss,
        ),
    )
    .with_help(help)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gametape_schemas::{AttemptId, TaskId};

    fn row(task: usize, attempt: usize) -> DatasetRow {
        DatasetRow {
            attempt: AttemptId::new(format!("a{attempt}")),
            task: TaskId::new(format!("t{task}")),
            repo: format!("r{}", task % 20),
            resolved: true,
            off_policy: false,
            events: Vec::new(),
            messages: Vec::new(),
        }
    }

    #[test]
    fn tasks_and_repositories_are_held_out_whole_and_by_their_share() {
        let hyper = |eval_share, eval_by| Hyperparameters {
            eval_share,
            eval_by,
            ..Hyperparameters::default()
        };
        let task = hyper(0.25, EvalUnit::Task);
        let out = (0..2000)
            .filter(|t| is_measured(&row(*t, 0), &task))
            .count();
        assert!((420..580).contains(&out), "{out} of 2000");
        for t in 0..50 {
            let first = is_measured(&row(t, 0), &task);
            assert!((1..4).all(|a| is_measured(&row(t, a), &task) == first));
            // A larger share holds out what a smaller one does, and more.
            assert!(!first || is_measured(&row(t, 0), &hyper(0.5, EvalUnit::Task)));
            let repo = hyper(0.5, EvalUnit::Repo);
            let same = is_measured(&row(t + 20, 9), &repo);
            assert_eq!(is_measured(&row(t, 0), &repo), same);
            assert!(!is_measured(&row(t, 0), &hyper(0.0, EvalUnit::Task)));
        }
    }

    #[test]
    fn rows_beyond_the_context_are_left_out_and_a_set_of_them_is_refused_with_its_lengths() {
        use gametape_model::tiny;
        use gametape_schemas::{ChatMessage, Role};
        let tokenizer = ChatTokenizer::new(tiny::tokenizer_parts(), &[2]).unwrap();
        let told = |attempt: usize, letters: usize| DatasetRow {
            messages: vec![
                ChatMessage::new(Role::User, "x".repeat(letters)),
                ChatMessage::trained("y"),
            ],
            ..row(attempt, attempt)
        };
        let hyper = |max_tokens| Hyperparameters {
            max_tokens,
            ..Hyperparameters::default()
        };
        let rows = [told(0, 10), told(1, 300), told(2, 500)];
        let some = prepare(&rows, &tokenizer, &hyper(10_000), 200).unwrap();
        assert_eq!((some.trained, some.too_long), (1, 2));
        let (low, high) = some.too_long_tokens.unwrap();
        assert!(low > 300 && high > 500 && high - low == 200);
        for (max_tokens, context, name, advice) in [
            (
                10_000,
                200,
                "the model's context = 200",
                "with a context of at least",
            ),
            (
                150,
                10_000,
                "max_tokens = 150",
                "set max_tokens to at least",
            ),
        ] {
            let failure = prepare(&rows[1..], &tokenizer, &hyper(max_tokens), context);
            let failure = failure.map(|_| ()).unwrap_err();
            assert_eq!(failure.code, "GT-TRAIN-EMPTY");
            let lengths = format!("from {low} to {high} tokens");
            assert!(failure.message.contains(&lengths), "{failure}");
            assert!(failure.message.contains(name), "{failure}");
            assert!(failure.help.contains(advice), "{failure}");
            assert!(failure.help.contains(&low.to_string()), "{failure}");
        }
    }
}
