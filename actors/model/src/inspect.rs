//! What a model on disk is, read from its headers alone: nothing is loaded.

use crate::config::ModelConfig;
use crate::error::ModelError;
use crate::gguf::Gguf;
use crate::load::{load_tokenizer, map_file, read_directory_head, safetensors_files};
use crate::weights::expected_tensors;
use safetensors::SafeTensors;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// Tokens of a micro-batch that the estimate of activations assumes, in rows of [`TOKENS`].
const MICRO_BATCH: u64 = 2048;
/// One in how many of them carries loss.
const LOSS_SHARE: u64 = 4;
/// Conversations and their length that the estimates assume.
const ROWS: u64 = 32;
/// Tokens of each.
const TOKENS: u64 = 1024;

/// A description for people and machines.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Description {
    /// `llama`, `qwen2` or `qwen3`.
    pub family: String,
    /// `gguf` or `safetensors`, or that of its base with `PEFT adapter on` before it.
    pub format: String,
    /// Numbers in the model.
    pub parameters: u64,
    /// Layers.
    pub layers: usize,
    /// Width.
    pub hidden: i64,
    /// Query heads and key/value heads.
    pub heads: (i64, i64),
    /// Rows of the embedding.
    pub vocabulary: i64,
    /// Longest context, tokens.
    pub context: usize,
    /// Whether conversations are rendered as ChatML directly.
    pub chatml: bool,
    /// Bytes on disk of the weights.
    pub disk_bytes: u64,
    /// Estimated bytes to sample in f32 on the CPU: weights, and keys and values of 32
    /// conversations of 1024 tokens.
    pub sample_bytes_cpu: u64,
    /// The same in bf16 on CUDA.
    pub sample_bytes_cuda: u64,
    /// Estimated bytes for full fine-tuning in f32: weights, gradients, two moments, and
    /// the stacked projections. Activations come on top.
    pub train_full_bytes: u64,
    /// Estimated bytes for LoRA of rank 16 in f32, without activations.
    pub train_lora_bytes: u64,
    /// Estimated bytes of activations in either mode, for a micro-batch of two rows of
    /// 1024 tokens with loss on a quarter of them and no frozen layer.
    pub train_activation_bytes: u64,
}

/// Describes a Hugging Face directory or a GGUF file, and checks that every tensor is
/// there in its shape.
///
/// # Errors
/// When something is missing, truncated, of the wrong shape or not supported.
pub fn inspect(path: &Path) -> Result<Description, ModelError> {
    if crate::adapter::is_adapter(path) {
        let base = crate::adapter::base_of(path)?;
        let mut description = inspect(&base)?;
        let (config, _) = load_tokenizer(&base)?;
        description.disk_bytes += crate::adapter::check(path, &config)?;
        description.format = format!("PEFT adapter on {}", description.format);
        return Ok(description);
    }
    let mut found: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    let mut disk_bytes = 0;
    let format = if path.is_dir() {
        read_directory_head(path)?;
        for file in safetensors_files(path)? {
            let map = map_file(&file)?;
            disk_bytes += map.len() as u64;
            let tensors = SafeTensors::deserialize(&map)
                .map_err(|e| ModelError::format(&file, e.to_string()))?;
            for (name, view) in tensors.iter() {
                let shape = view.shape().iter().map(|n| *n as i64).collect();
                found.insert(name.to_owned(), shape);
            }
        }
        "safetensors"
    } else {
        let map = map_file(path)?;
        disk_bytes = map.len() as u64;
        for (name, info) in Gguf::parse(&map, path)?.tensors {
            if let Some(name) = crate::gguf::hugging_face_name(&name) {
                found.insert(name, info.shape);
            }
        }
        "gguf"
    };
    let (config, tokenizer) = load_tokenizer(path)?;
    for (name, shape) in expected_tensors(&config) {
        let there = found.get(&name);
        if there != Some(&shape) {
            return Err(ModelError::Shape {
                tensor: name,
                expected: format!("{shape:?}"),
                found: there.map_or("nothing".to_owned(), |s| format!("{s:?}")),
            });
        }
    }
    let n = config.parameters();
    let lora: u64 = expected_tensors(&config)
        .iter()
        .filter(|(name, _)| name.contains("_proj.weight"))
        .map(|(_, shape)| 16 * shape.iter().sum::<i64>() as u64)
        .sum();
    Ok(Description {
        family: config.family.name().to_owned(),
        format: format.to_owned(),
        parameters: n,
        layers: config.layers,
        hidden: config.hidden,
        heads: (config.heads, config.kv_heads),
        vocabulary: config.vocab,
        context: config.max_positions,
        chatml: tokenizer.is_chatml(),
        disk_bytes,
        sample_bytes_cpu: 4 * n + ROWS * TOKENS * config.kv_bytes_per_token(4),
        sample_bytes_cuda: 2 * n + ROWS * TOKENS * config.kv_bytes_per_token(2),
        train_full_bytes: 16 * n + stacked_bytes(&config),
        train_lora_bytes: 4 * n + 16 * lora + stacked_bytes(&config),
        train_activation_bytes: activation_bytes(&config, MICRO_BATCH, TOKENS),
    })
}

/// Training multiplies with q, k and v as one matrix and with gate and up as another:
/// copies beside the weights.
fn stacked_bytes(c: &ModelConfig) -> u64 {
    let heads = (c.heads + 2 * c.kv_heads) * c.head_dim;
    4 * c.layers as u64 * (c.hidden * (heads + 2 * c.ffn)) as u64
}

/// What a backward pass needs of a forward pass in f32, for `tokens` in rows of `row`.
/// The multiples were fitted to `examples/train_memory.rs` (docs/models.md has the
/// comparison): streams and norms, heads, feed-forward, attention weights; and five
/// times the scores of every token with loss.
fn activation_bytes(c: &ModelConfig, tokens: u64, row: u64) -> u64 {
    let heads = 3 * (c.heads + c.kv_heads) * c.head_dim;
    let layer = (8 * c.hidden + heads + 5 * c.ffn) as u64 + c.heads as u64 * row;
    let scores = 5 * c.vocab as u64 * (tokens / LOSS_SHARE);
    4 * (tokens * layer * c.layers as u64 + scores)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Family;

    #[test]
    fn estimates_are_near_what_was_measured() {
        // SmolLM2-135M, one row of 512 tokens with loss on a quarter: see docs/models.md.
        let config = ModelConfig {
            hidden: 576,
            layers: 30,
            heads: 9,
            kv_heads: 3,
            head_dim: 64,
            ffn: 1536,
            vocab: 49152,
            ..crate::tiny::config(Family::Llama)
        };
        assert_eq!(config.parameters(), 134_515_008);
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let full = 16 * config.parameters() + stacked_bytes(&config);
        let full = mib(full + activation_bytes(&config, 512, 512));
        let measured = 3403.0;
        assert!((full / measured - 1.0).abs() < 0.2, "{full:.0} MiB");
    }
}
