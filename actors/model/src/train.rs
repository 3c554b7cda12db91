//! Fine-tuning: one optimiser step at a time, on rows of tokens held in memory.
//!
//! - [`TrainingRow`]: tokens and which of them carry loss
//! - [`LearnerOptions`], [`Precision`]: what is trained and how
//! - [`Learner`]: model, rows, optimiser; [`Learner::step`], [`Learner::save_state`],
//!   [`Learner::load_state`], [`Learner::into_weights`]
//!
//! Which rows make up a step, the learning rate, files and messages are the caller's:
//! a learner is a function of the calls made to it. Between two steps its state is the
//! trained tensors, the optimiser's moments and its step count, nothing else.
//!
//! **What the lower, frozen layers cost.** Their output for a row never changes, so it
//! is computed once, without a graph, and kept ([`LearnerOptions::cache_bytes`]). It is
//! computed in groups that the caller fixes, because a matrix product may round
//! differently in another batch, and a resumed training must see the same bits.

use crate::chat::ChatTokenizer;
use crate::error::ModelError;
use crate::lora;
use crate::optimizer::{AdamW, AdamWOptions, Parameter, clip_scale, global_norm};
use crate::packed::{self, Fused, Layout, Selection};
pub use crate::precision::Precision;
pub use crate::train_error::TrainError;
use crate::train_setup::{check_rows, own_parameters, shared_prefix};
use crate::transformer::{Transformer, rms_norm};
use crate::weights::Weights;
use std::path::Path;
use tch::{Device, Kind, Reduction, Tensor};

/// A conversation as the model reads it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TrainingRow {
    /// Token ids.
    pub tokens: Vec<i64>,
    /// For each token, whether predicting it counts.
    pub loss: Vec<bool>,
}

impl TrainingRow {
    /// Tokens whose prediction counts (the first of a row is never predicted).
    pub fn loss_tokens(&self) -> usize {
        self.loss.iter().skip(1).filter(|l| **l).count()
    }
}

/// What is trained and how.
#[derive(Clone, PartialEq, Debug)]
pub struct LearnerOptions {
    /// Lowest layers that are not trained; above 0 the embedding is frozen too (and
    /// with it a tied output matrix).
    pub frozen_layers: usize,
    /// 0 = full fine-tuning, otherwise LoRA of this rank.
    pub lora_rank: usize,
    /// LoRA's scale numerator.
    pub lora_alpha: f64,
    /// Seed of LoRA's initial numbers.
    pub seed: u64,
    /// Decoupled decay on matrices.
    pub weight_decay: f64,
    /// Limit of the global gradient norm; 0 or less does not clip.
    pub max_grad_norm: f64,
    /// Number format of products.
    pub precision: Precision,
    /// Most bytes spent on remembered outputs of the frozen layers; when all rows do
    /// not fit, nothing is remembered.
    pub cache_bytes: usize,
}

/// What a step did.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct StepReport {
    /// Mean loss over the step's loss tokens, nats.
    pub loss: f64,
    /// Global gradient norm before clipping.
    pub grad_norm: f64,
    /// Tokens of the step's rows (a shared prefix is counted with every row).
    pub tokens: u64,
    /// Tokens with loss.
    pub loss_tokens: u64,
}

/// Reads a model (GGUF or Hugging Face directory) for training on the CPU in f32, with
/// its tokenizer.
///
/// # Errors
/// When it cannot be read or does not fit its own configuration.
pub fn load_for_training(path: &Path) -> Result<(Transformer, ChatTokenizer), ModelError> {
    let loaded = crate::load::load(path)?;
    let model =
        Transformer::from_weights(&loaded.config, loaded.weights, Device::Cpu, Kind::Float)?;
    Ok((model, loaded.tokenizer))
}

/// Threads that libtorch uses for work asked for by the calling thread; 0 means as many
/// as this process may use. Returns the number set. Sums are split by thread, so other
/// numbers may give other last bits.
pub fn set_threads(threads: usize) -> usize {
    let threads = match threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        n => n,
    };
    tch::set_num_threads(i32::try_from(threads).unwrap_or(1));
    threads
}

/// Asked between layers and micro-batches: true ends the step without a change.
pub type StopFlag<'a> = &'a dyn Fn() -> bool;

/// A model being trained.
#[derive(Debug)]
pub struct Learner {
    model: Transformer,
    options: LearnerOptions,
    compute: Kind,
    rows: Vec<TrainingRow>,
    /// Tokens that all rows begin with and that are computed once a batch.
    prefix: usize,
    /// Rows of the group in which a row's frozen part is computed.
    groups: Vec<Vec<usize>>,
    group_of: Vec<usize>,
    /// Frozen output of the prefix and of each row's own tokens, when remembered.
    remember: bool,
    frozen_prefix: Option<Tensor>,
    frozen_rows: Vec<Option<Tensor>>,
    /// Matrices that do not change, cast once. `None`: trained, cast every time.
    fused: Vec<Option<Fused>>,
    /// Output matrix in compute precision, when it does not change.
    head: Option<Tensor>,
    parameters: Vec<Parameter>,
    adam: AdamW,
}

impl Learner {
    /// Prepares a model for training on rows. `groups` is a partition of the rows'
    /// indices: the batches in which the frozen layers are computed when their output
    /// is remembered.
    ///
    /// # Errors
    /// When nothing would be trained, a row is malformed or longer than the context, or
    /// libtorch refuses.
    pub fn new(
        mut model: Transformer,
        rows: Vec<TrainingRow>,
        groups: Vec<Vec<usize>>,
        options: LearnerOptions,
    ) -> Result<Self, ModelError> {
        let frozen = options.frozen_layers;
        if frozen >= model.layers.len() {
            return Err(ModelError::Request(format!(
                "frozen_layers = {frozen} leaves nothing to train in a model of {} layers",
                model.layers.len()
            )));
        }
        let group_of = check_rows(&rows, &groups, model.config.max_positions)?;
        let compute = options.precision.kind(model.kind);
        if options.lora_rank > 0 {
            lora::attach(
                &mut model,
                frozen,
                options.lora_rank,
                options.lora_alpha,
                options.seed,
            )?;
        }
        let mut parameters = own_parameters(&mut model, frozen, options.lora_rank > 0)?;
        for parameter in &mut parameters {
            parameter.tensor = parameter.tensor.f_set_requires_grad(true)?;
        }
        let head_is_trained = parameters.iter().any(|p| {
            p.name == "lm_head.weight"
                || (model.lm_head.is_none() && p.name == "model.embed_tokens.weight")
        });
        let fused = {
            let _guard = tch::no_grad_guard();
            let mut fused = Vec::with_capacity(model.layers.len());
            for (index, layer) in model.layers.iter().enumerate() {
                let fixed = index < frozen || options.lora_rank > 0;
                fused.push(match fixed {
                    true => Some(Fused::new(layer, compute)?),
                    false => None,
                });
            }
            fused
        };
        let head = match head_is_trained {
            true => None,
            false => Some(
                model
                    .lm_head
                    .as_ref()
                    .unwrap_or(&model.embed_tokens)
                    .f_detach()?
                    .f_to_kind(compute)?,
            ),
        };
        // Keys of a prefix serve all rows only where their frequencies are the same.
        let longest = rows.iter().map(|r| r.tokens.len()).max().unwrap_or(0);
        let prefix = match model.rope.shareable() {
            Some(limit) if longest > limit => 0,
            _ => shared_prefix(&rows),
        };
        let own: usize = rows.iter().map(|r| r.tokens.len() - prefix).sum();
        let bytes = (own + prefix) * model.config.hidden as usize * 4;
        let remember = frozen > 0 && bytes <= options.cache_bytes;
        let adam = AdamW::new(&parameters, AdamWOptions::with_decay(options.weight_decay));
        Ok(Self {
            compute,
            prefix,
            groups,
            group_of,
            remember,
            frozen_prefix: None,
            frozen_rows: rows.iter().map(|_| None).collect(),
            fused,
            head,
            parameters,
            adam,
            model,
            options,
            rows,
        })
    }

    /// Trained numbers.
    pub fn trained_numbers(&self) -> u64 {
        self.parameters
            .iter()
            .map(|p| p.tensor.numel() as u64)
            .sum()
    }

    /// Tokens that all rows share and that a batch computes once.
    pub fn prefix_tokens(&self) -> usize {
        self.prefix
    }

    /// Updates done.
    pub fn steps_done(&self) -> u64 {
        self.adam.step_count()
    }

    /// The model as it is (adapters not merged).
    pub fn model(&self) -> &Transformer {
        &self.model
    }

    /// One optimiser step on micro-batches of rows (their gradients add up). The loss
    /// is the mean over all loss tokens of the step.
    ///
    /// # Errors
    /// When the loss or gradient is not finite, the stop flag is up, or libtorch
    /// refuses; the weights are unchanged then.
    pub fn step(
        &mut self,
        micro_batches: &[Vec<usize>],
        rate: f64,
        stop: StopFlag<'_>,
    ) -> Result<StepReport, TrainError> {
        let (report, gradients) = self.gradients(micro_batches, stop)?;
        let scale = clip_scale(report.grad_norm, self.options.max_grad_norm);
        self.adam
            .update(&mut self.parameters, &gradients, scale, rate)?;
        Ok(report)
    }

    /// Loss and gradients of a step without the update, in the order of the trained
    /// tensors.
    ///
    /// # Errors
    /// As [`Self::step`].
    pub fn gradients(
        &mut self,
        micro_batches: &[Vec<usize>],
        stop: StopFlag<'_>,
    ) -> Result<(StepReport, Vec<Tensor>), TrainError> {
        let count = |f: fn(&TrainingRow) -> usize| -> u64 {
            micro_batches
                .iter()
                .flatten()
                .filter_map(|r| self.rows.get(*r))
                .map(|r| f(r) as u64)
                .sum()
        };
        let tokens = count(|r| r.tokens.len());
        let loss_tokens = count(TrainingRow::loss_tokens);
        if loss_tokens == 0 {
            return Err(ModelError::Request("a step without loss tokens".to_owned()).into());
        }
        let mut loss = 0.0;
        let mut gradients: Vec<Tensor> = Vec::new();
        for micro_batch in micro_batches {
            let part = self.loss_sum(micro_batch, stop)? / loss_tokens as f64;
            let value = part.f_double_value(&[])?;
            if !value.is_finite() {
                return Err(TrainError::NotFinite {
                    what: "loss",
                    value,
                });
            }
            if stop() {
                return Err(TrainError::Stopped);
            }
            loss += value;
            let inputs: Vec<&Tensor> = self.parameters.iter().map(|p| &p.tensor).collect();
            let new = Tensor::f_run_backward(&[&part], &inputs, false, false)?;
            if gradients.is_empty() {
                gradients = new;
            } else {
                let _guard = tch::no_grad_guard();
                for (sum, new) in gradients.iter_mut().zip(new) {
                    match (sum.defined(), new.defined()) {
                        (true, true) => {
                            let _ = sum.f_add_(&new)?;
                        }
                        (false, true) => *sum = new,
                        _ => {}
                    }
                }
            }
        }
        let grad_norm = global_norm(&gradients)?;
        if !grad_norm.is_finite() {
            return Err(TrainError::NotFinite {
                what: "gradient norm",
                value: grad_norm,
            });
        }
        let report = StepReport {
            loss,
            grad_norm,
            tokens,
            loss_tokens,
        };
        Ok((report, gradients))
    }

    /// Mean loss over rows, without gradients.
    ///
    /// # Errors
    /// When libtorch refuses or the stop flag is up.
    pub fn evaluate(
        &mut self,
        micro_batches: &[Vec<usize>],
        stop: StopFlag<'_>,
    ) -> Result<f64, TrainError> {
        let _guard = tch::no_grad_guard();
        let mut sum = 0.0;
        let mut count = 0usize;
        for rows in micro_batches {
            sum += self.loss_sum(rows, stop)?.f_double_value(&[])?;
            count += rows
                .iter()
                .filter_map(|r| self.rows.get(*r))
                .map(TrainingRow::loss_tokens)
                .sum::<usize>();
        }
        Ok(sum / count.max(1) as f64)
    }

    /// Sum of the losses of a micro-batch, with a graph.
    fn loss_sum(&mut self, rows: &[usize], stop: StopFlag<'_>) -> Result<Tensor, TrainError> {
        let (layout, selection, targets) = self.layout(rows)?;
        let mut x = self.input(rows, &layout, stop)?;
        let last = self.model.layers.len() - 1;
        for index in self.options.frozen_layers..=last {
            if stop() {
                return Err(TrainError::Stopped);
            }
            let wanted = (index == last).then_some(&selection);
            x = self.run_layer(index, &x, &layout, wanted)?;
        }
        let config = &self.model.config;
        let hidden = rms_norm(&x, &self.model.norm, config.norm_eps)?.f_to_kind(self.compute)?;
        let logits = match &self.head {
            Some(head) => hidden.f_linear::<&Tensor>(head, None)?,
            None => {
                let head = self
                    .model
                    .lm_head
                    .as_ref()
                    .unwrap_or(&self.model.embed_tokens);
                hidden.f_linear::<&Tensor>(&head.f_to_kind(self.compute)?, None)?
            }
        };
        Ok(logits
            .f_to_kind(self.model.kind)?
            .f_cross_entropy_loss::<&Tensor>(&targets, None, Reduction::Sum, -100, 0.0)?)
    }

    fn run_layer(
        &self,
        index: usize,
        x: &Tensor,
        layout: &Layout,
        selection: Option<&Selection>,
    ) -> Result<Tensor, ModelError> {
        let layer = self
            .model
            .layers
            .get(index)
            .ok_or_else(|| ModelError::Request(format!("no layer {index}")))?;
        let config = &self.model.config;
        match self.fused.get(index) {
            Some(Some(fused)) => packed::layer(config, layer, fused, x, layout, selection),
            _ => {
                let fused = Fused::new(layer, self.compute)?;
                packed::layer(config, layer, &fused, x, layout, selection)
            }
        }
    }

    /// Layout of a micro-batch, the positions that predict, and what they must predict.
    fn layout(&self, rows: &[usize]) -> Result<(Layout, Selection, Tensor), ModelError> {
        let mut lengths = Vec::with_capacity(rows.len());
        let mut positions = Vec::with_capacity(rows.len());
        let mut targets: Vec<i64> = Vec::new();
        for &row in rows {
            let row = self.row(row)?;
            lengths.push((row.tokens.len() - self.prefix) as i64);
            let mut wanted = Vec::new();
            for (at, (token, loss)) in row.tokens.iter().zip(&row.loss).enumerate().skip(1) {
                if *loss {
                    wanted.push((at - 1 - self.prefix) as i64);
                    targets.push(*token);
                }
            }
            positions.push(wanted);
        }
        let layout = Layout::new(&self.model, self.prefix as i64, &lengths, self.compute)?;
        let selection = layout.select(&positions)?;
        let targets = Tensor::f_from_slice(&targets)?.f_to_device(self.model.device)?;
        Ok((layout, selection, targets))
    }

    fn row(&self, index: usize) -> Result<&TrainingRow, ModelError> {
        self.rows
            .get(index)
            .ok_or_else(|| ModelError::Request(format!("no row {index}")))
    }

    /// What enters the first trained layer.
    fn input(
        &mut self,
        rows: &[usize],
        layout: &Layout,
        stop: StopFlag<'_>,
    ) -> Result<Tensor, TrainError> {
        if self.options.frozen_layers == 0 {
            return Ok(self.model.embed(&self.token_tensor(rows)?)?);
        }
        let _guard = tch::no_grad_guard();
        if !self.remember {
            return self.frozen_output(rows, layout, stop);
        }
        for &row in rows {
            let known = self.frozen_rows.get(row).is_some_and(Option::is_some);
            if !known {
                self.fill_group(row, stop)?;
            }
        }
        let mut parts: Vec<&Tensor> = Vec::with_capacity(rows.len() + 1);
        if self.prefix > 0 {
            parts.extend(self.frozen_prefix.as_ref());
        }
        for &row in rows {
            parts.extend(self.frozen_rows.get(row).and_then(Option::as_ref));
        }
        Ok(Tensor::f_cat(&parts, 0)?)
    }

    /// Computes and remembers the frozen output of the group that a row belongs to.
    fn fill_group(&mut self, row: usize, stop: StopFlag<'_>) -> Result<(), TrainError> {
        if self.prefix > 0 && self.frozen_prefix.is_none() {
            // The prefix by itself: the same bits whatever rows come with it.
            let tokens: Vec<i64> = self
                .rows
                .first()
                .map(|r| r.tokens.iter().take(self.prefix).copied().collect())
                .unwrap_or_default();
            let layout = Layout::new(&self.model, 0, &[self.prefix as i64], self.compute)?;
            let x = self.model.embed(&self.device_tensor(&tokens)?)?;
            self.frozen_prefix = Some(self.through_frozen(x, &layout, stop)?);
        }
        let group = self
            .group_of
            .get(row)
            .and_then(|g| self.groups.get(*g))
            .cloned()
            .unwrap_or_else(|| vec![row]);
        let (layout, _, _) = self.layout(&group)?;
        let output = self.frozen_output(&group, &layout, stop)?;
        let mut start = self.prefix as i64;
        for row in group {
            let own = (self.row(row)?.tokens.len() - self.prefix) as i64;
            // A copy, so that the group's whole output is not kept alive twice over.
            let piece = output.f_narrow(0, start, own)?.f_detach_copy()?;
            start += own;
            if let Some(slot) = self.frozen_rows.get_mut(row) {
                *slot = Some(piece);
            }
        }
        Ok(())
    }

    fn frozen_output(
        &self,
        rows: &[usize],
        layout: &Layout,
        stop: StopFlag<'_>,
    ) -> Result<Tensor, TrainError> {
        let x = self.model.embed(&self.token_tensor(rows)?)?;
        self.through_frozen(x, layout, stop)
    }

    fn through_frozen(
        &self,
        mut x: Tensor,
        layout: &Layout,
        stop: StopFlag<'_>,
    ) -> Result<Tensor, TrainError> {
        for index in 0..self.options.frozen_layers {
            if stop() {
                return Err(TrainError::Stopped);
            }
            x = self.run_layer(index, &x, layout, None)?;
        }
        Ok(x)
    }

    /// Tokens of a micro-batch: the prefix once, then each row's own.
    fn token_tensor(&self, rows: &[usize]) -> Result<Tensor, ModelError> {
        let mut tokens = Vec::new();
        if let Some(first) = rows.first() {
            tokens.extend(self.row(*first)?.tokens.iter().take(self.prefix));
        }
        for &row in rows {
            tokens.extend(self.row(row)?.tokens.iter().skip(self.prefix));
        }
        self.device_tensor(&tokens)
    }

    fn device_tensor(&self, tokens: &[i64]) -> Result<Tensor, ModelError> {
        Ok(Tensor::f_from_slice(tokens)?.f_to_device(self.model.device)?)
    }

    /// Writes trained tensors and moments as one safetensors file (not synced; the
    /// caller owns atomicity). Returns the digest of the trained tensors.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn save_state(&self, path: &Path) -> Result<blake3::Hash, TrainError> {
        crate::train_state::save(path, &self.parameters, &self.adam)
    }

    /// Takes over what [`Self::save_state`] wrote after `step` updates.
    ///
    /// # Errors
    /// When the file cannot be read or does not fit this learner; nothing is changed
    /// unless everything fits.
    pub fn load_state(&mut self, path: &Path, step: u64) -> Result<(), TrainError> {
        crate::train_state::load(path, step, &mut self.parameters, &mut self.adam)
    }

    /// Writes the adapters as they are, as PEFT does; `base` is where Python finds the
    /// model that they belong to.
    ///
    /// # Errors
    /// When nothing but whole tensors is trained, or the disk refuses.
    pub fn save_adapter(&self, directory: &Path, base: &str) -> Result<(), ModelError> {
        crate::adapter::save(directory, &self.model, base)
    }

    /// Ends the training: all tensors by Hugging Face name, adapters merged.
    ///
    /// # Errors
    /// When libtorch refuses.
    pub fn into_weights(mut self) -> Result<Weights, ModelError> {
        lora::merge(&mut self.model)?;
        Ok(self.model.to_weights())
    }
}

#[cfg(test)]
#[path = "train_tests.rs"]
mod tests;
