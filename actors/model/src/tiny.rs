//! A tiny random model: for tests and the smoke profile. Made in milliseconds, nothing
//! is downloaded, the same seed gives the same bytes everywhere.

use crate::chat::ChatTokenizer;
use crate::config::{Family, ModelConfig, RopeScaling};
use crate::error::ModelError;
use crate::load::save_directory;
use crate::tokenizer::TokenizerParts;
use crate::weights::{Weights, expected_tensors};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use std::path::Path;
use tch::Tensor;

/// Special tokens, ids from 0; the 256 bytes follow.
const SPECIAL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];

/// Plain ChatML without a default system turn.
const TEMPLATE: &str = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/// The shape of the tiny model.
pub fn config(family: Family) -> ModelConfig {
    ModelConfig {
        family,
        hidden: 64,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 16,
        ffn: 128,
        vocab: 256 + SPECIAL.len() as i64,
        rope_theta: 10_000.0,
        rope_scaling: RopeScaling::None,
        norm_eps: 1e-5,
        tie_embeddings: family != Family::Qwen2,
        attention_bias: family == Family::Qwen2,
        qk_norm: family == Family::Qwen3,
        max_positions: 8192,
        bos_token_id: Some(1),
        eos_token_ids: vec![2],
    }
}

/// A byte-level tokenizer: one token a byte, and the special tokens.
pub fn tokenizer_parts() -> TokenizerParts {
    let mut vocab = serde_json::Map::new();
    let mut added = Vec::new();
    for (id, name) in SPECIAL.iter().enumerate() {
        vocab.insert((*name).to_owned(), json!(id));
        added.push(
            json!({"id": id, "content": name, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true}),
        );
    }
    for byte in 0..=255u8 {
        let id = usize::from(byte) + SPECIAL.len();
        vocab.insert(byte_character(byte).to_string(), json!(id));
    }
    let bytes = |regex: bool| {
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
            "use_regex": regex})
    };
    let no_merges: [[&str; 2]; 0] = [];
    let json = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": null, "pre_tokenizer": bytes(true), "post_processor": null,
        "decoder": bytes(true),
        "model": {"type": "BPE", "dropout": null, "unk_token": null,
            "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
            "byte_fallback": false, "ignore_merges": false, "vocab": vocab, "merges": no_merges},
    });
    TokenizerParts {
        json: json.to_string(),
        template: Some(TEMPLATE.to_owned()),
        bos: Some("<|im_start|>".to_owned()),
        eos: Some("<|im_end|>".to_owned()),
    }
}

/// The character that byte-level BPE writes for a byte: printable ones stand for
/// themselves, the others are counted up from U+0100.
fn byte_character(byte: u8) -> char {
    let printable = |b: u8| matches!(b, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    if printable(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|b| !printable(*b)).count() as u32;
    char::from_u32(256 + before).unwrap_or('?')
}

/// Random weights of a shape: norms are one, matrices have the deviation that keeps
/// the stream's size, biases a tenth of that.
///
/// # Errors
/// When libtorch refuses.
pub fn weights(config: &ModelConfig, seed: u64) -> Result<Weights, ModelError> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut out = Weights::default();
    for (name, shape) in expected_tensors(config) {
        let n: i64 = shape.iter().product();
        let scale = match shape.as_slice() {
            [_, inputs] => 1.0 / (*inputs as f32).sqrt(),
            _ => 0.1,
        };
        let norm = name.ends_with("norm.weight");
        let mut numbers = Vec::with_capacity(n as usize + 1);
        while numbers.len() < n as usize {
            // Box and Muller: two uniform numbers to two normal ones.
            let radius = (-2.0 * (1.0 - random.random::<f32>()).ln()).sqrt();
            let angle = 2.0 * std::f32::consts::PI * random.random::<f32>();
            numbers.push(radius * angle.cos() * scale + f32::from(norm));
            numbers.push(radius * angle.sin() * scale + f32::from(norm));
        }
        numbers.truncate(n as usize);
        let tensor = Tensor::f_from_slice(&numbers)?.f_view(shape.as_slice())?;
        out.tensors.insert(name, tensor);
    }
    Ok(out)
}

/// Writes a tiny Llama with random weights as a Hugging Face directory.
///
/// # Errors
/// When the disk refuses.
pub fn write(directory: &Path, seed: u64) -> Result<(), ModelError> {
    write_family(directory, seed, Family::Llama)
}

/// As [`fn@write`], for any family.
///
/// # Errors
/// When the disk refuses.
pub fn write_family(directory: &Path, seed: u64, family: Family) -> Result<(), ModelError> {
    let config = config(family);
    let tokenizer = ChatTokenizer::new(tokenizer_parts(), &config.eos_token_ids)?;
    save_directory(directory, &config, &weights(&config, seed)?, &tokenizer)
}
