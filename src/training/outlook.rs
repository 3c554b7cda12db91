//! What a training would do and need, before it begins. Pure.

use crate::system::MICRO_TOKENS;
use gametape_model::ModelConfig;
use gametape_model::estimate::{self, MicroBatch, Mode};
use gametape_model::train::Precision;
use gametape_schemas::message::{Hyperparameters, SaveForm};
use gametape_trainer::data::{Prepared, limit};
use gametape_trainer::order::{Plan, micro_batches, sorted_micro_batches};
use serde::Serialize;

/// Figures of a training.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Outlook {
    /// Rows that are trained on.
    pub rows: u64,
    /// Rows that are only measured.
    pub measured: u64,
    /// Rows that are longer than a row may be.
    pub too_long: u64,
    /// Tokens of the shortest and of the longest of these.
    pub too_long_tokens: Option<(usize, usize)>,
    /// Rows in which nothing is learnt.
    pub without_loss: u64,
    /// Tokens that a row may have: `max_tokens`, or the model's context where that is shorter.
    pub most_tokens: usize,
    /// The model's context.
    pub context: usize,
    /// Tokens of the longest row that is used.
    pub longest: usize,
    /// Tokens of an epoch.
    pub tokens: u64,
    /// Those with loss.
    pub loss_tokens: u64,
    /// Optimiser steps of all epochs.
    pub steps: u64,
    /// Bytes of the whole process at most, estimated.
    pub memory_bytes: u64,
    /// Bytes that are free now; nothing where the system does not say.
    pub free_bytes: Option<u64>,
    /// Bytes of the weights and of the checkpoints that would be written.
    pub disk_bytes: u64,
}

impl Outlook {
    /// Of rows that were made ready for a model of this shape.
    pub fn of(prepared: &Prepared, config: &ModelConfig, hyper: &Hyperparameters) -> Self {
        let lengths: Vec<usize> = prepared.rows.iter().map(|r| r.tokens.len()).collect();
        let trained = prepared.rows.iter().take(prepared.trained);
        let loss_tokens = trained.clone().map(|r| r.loss_tokens() as u64).sum::<u64>();
        let tokens = trained.map(|r| r.tokens.len() as u64).sum::<u64>();
        let plan = Plan::new(
            hyper.seed,
            u64::from(hyper.epochs),
            hyper.batch_size,
            prepared.trained,
        );
        let loss_share = tokens.checked_div(loss_tokens).unwrap_or(1).max(1);
        Self {
            rows: prepared.trained as u64,
            measured: (prepared.rows.len() - prepared.trained) as u64,
            too_long: prepared.too_long as u64,
            too_long_tokens: prepared.too_long_tokens,
            without_loss: prepared.without_loss as u64,
            most_tokens: limit(hyper, config.max_positions),
            context: config.max_positions,
            longest: lengths.iter().copied().max().unwrap_or(0),
            tokens,
            loss_tokens,
            steps: plan.steps(),
            memory_bytes: memory(config, hyper, &plan, &lengths, loss_share),
            free_bytes: gametape_model::memory::available(),
            disk_bytes: disk(config, hyper),
        }
    }
}

/// The most that a micro-batch of the first epoch takes.
fn memory(
    config: &ModelConfig,
    hyper: &Hyperparameters,
    plan: &Plan,
    lengths: &[usize],
    loss_share: u64,
) -> u64 {
    let mode = match (hyper.lora_rank, Precision::detect()) {
        (0, Precision::Full) => Mode::FullF32,
        (0, Precision::Bf16) => Mode::FullBf16,
        (rank, _) => Mode::Lora { rank: rank as u64 },
    };
    let groups = plan.first_epoch_groups(|_, rows| match hyper.sort_by_length {
        true => sorted_micro_batches(rows, lengths, MICRO_TOKENS),
        false => micro_batches(rows, lengths, MICRO_TOKENS),
    });
    let of_group = |group: &Vec<usize>| {
        let tokens = group
            .iter()
            .filter_map(|row| lengths.get(*row))
            .sum::<usize>() as u64;
        let rows = group.len().max(1) as u64;
        let batch = MicroBatch {
            rows,
            tokens: tokens.div_ceil(rows),
            loss_share,
        };
        estimate::training(config, mode, batch, hyper.checkpoint_layers)
    };
    estimate::PROCESS + groups.iter().map(of_group).max().unwrap_or(0)
}

/// The result, and the checkpoints on the way: of each what is trained, and two moments of it.
fn disk(config: &ModelConfig, hyper: &Hyperparameters) -> u64 {
    let whole = estimate::weights(config, 4);
    let adapter = estimate::adapter(config, 4, hyper.lora_rank as u64);
    let trained = if hyper.lora_rank > 0 { adapter } else { whole };
    let result = match (hyper.lora_rank, hyper.save) {
        (0, _) | (_, SaveForm::Merged) => whole,
        (_, SaveForm::Both) => whole + adapter,
        (_, SaveForm::Adapter) => adapter,
    };
    // The one that is being written is there beside those that stay.
    let kept = hyper
        .keep_checkpoints
        .unwrap_or(gametape_trainer::checkpoint::KEEP) as u64;
    let checkpoints = match hyper.checkpoint_every {
        0 => 0,
        _ => kept + 1 + u64::from(hyper.keep_best),
    };
    result + 3 * trained * checkpoints
}

#[cfg(test)]
mod tests {
    use super::*;
    use gametape_model::train::TrainingRow;
    use gametape_model::{Family, tiny};

    fn row(tokens: usize, loss: usize) -> TrainingRow {
        TrainingRow {
            tokens: vec![1; tokens],
            loss: (0..tokens).map(|at| at >= tokens - loss).collect(),
        }
    }

    #[test]
    fn figures_are_those_of_the_rows_and_longer_rows_need_more() {
        let config = tiny::config(Family::Llama);
        let hyper = Hyperparameters {
            epochs: 3,
            batch_size: 2,
            ..Hyperparameters::default()
        };
        let of = |lengths: &[usize], hyper: &Hyperparameters| {
            let prepared = Prepared {
                rows: lengths.iter().map(|n| row(*n, 4)).collect(),
                trained: lengths.len() - 1,
                sources: Vec::new(),
                too_long: 1,
                too_long_tokens: Some((9000, 9000)),
                without_loss: 2,
            };
            Outlook::of(&prepared, &config, hyper)
        };
        let one = of(&[10, 20, 30, 40], &hyper);
        assert_eq!(
            (one.rows, one.measured, one.too_long, one.without_loss),
            (3, 1, 1, 2)
        );
        assert_eq!((one.tokens, one.loss_tokens, one.longest), (60, 12, 40));
        assert_eq!(one.steps, 6);
        assert_eq!((one.most_tokens, one.context), (8192, 8192));
        let long = of(&[10, 2000, 30, 40], &hyper);
        assert!(long.memory_bytes > one.memory_bytes);
        let again = Hyperparameters {
            checkpoint_layers: true,
            ..hyper.clone()
        };
        assert!(of(&[10, 2000, 30, 40], &again).memory_bytes < long.memory_bytes);
        let lora = Hyperparameters {
            lora_rank: 4,
            save: SaveForm::Adapter,
            ..hyper
        };
        assert!(of(&[10, 20], &lora).disk_bytes < one.disk_bytes / 10);
    }
}
