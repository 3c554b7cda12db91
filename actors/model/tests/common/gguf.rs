//! Writes small GGUF files, for tests.

use gametape_model::config::Family;
use gametape_model::{ModelConfig, Weights};
use tch::Tensor;

/// Metadata values that tests need.
pub enum Meta<'a> {
    U32(u32),
    F32(f32),
    Text(&'a str),
    Texts(Vec<String>),
    F32s(Vec<f32>),
    I32s(Vec<i32>),
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn list(out: &mut Vec<u8>, kind: u32, count: usize) {
    out.extend(9u32.to_le_bytes());
    out.extend(kind.to_le_bytes());
    out.extend((count as u64).to_le_bytes());
}

impl Meta<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::U32(n) => {
                out.extend(4u32.to_le_bytes());
                out.extend(n.to_le_bytes());
            }
            Self::F32(n) => {
                out.extend(6u32.to_le_bytes());
                out.extend(n.to_le_bytes());
            }
            Self::Text(t) => {
                out.extend(8u32.to_le_bytes());
                text(out, t);
            }
            Self::Texts(all) => {
                list(out, 8, all.len());
                all.iter().for_each(|t| text(out, t));
            }
            Self::F32s(all) => {
                list(out, 6, all.len());
                all.iter().for_each(|n| out.extend(n.to_le_bytes()));
            }
            Self::I32s(all) => {
                list(out, 5, all.len());
                all.iter().for_each(|n| out.extend(n.to_le_bytes()));
            }
        }
    }
}

/// A GGUF file with these metadata and f32 tensors.
pub fn file(metadata: &[(&str, Meta)], tensors: &[(String, Tensor)]) -> Vec<u8> {
    let mut out = b"GGUF\x03\0\0\0".to_vec();
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata {
        text(&mut out, key);
        value.write(&mut out);
    }
    let mut data = Vec::new();
    for (name, tensor) in tensors {
        text(&mut out, name);
        let mut shape = tensor.size();
        shape.reverse();
        out.extend((shape.len() as u32).to_le_bytes());
        shape
            .iter()
            .for_each(|n| out.extend((*n as u64).to_le_bytes()));
        out.extend(0u32.to_le_bytes());
        out.extend((data.len() as u64).to_le_bytes());
        super::floats(tensor)
            .iter()
            .for_each(|n| data.extend(n.to_le_bytes()));
        data.resize(data.len().next_multiple_of(32), 0);
    }
    out.resize(out.len().next_multiple_of(32), 0);
    out.extend(data);
    out
}

/// Metadata of a model's shape.
pub fn shape(config: &ModelConfig) -> Vec<(&'static str, Meta<'static>)> {
    let mut out = vec![("general.architecture", Meta::Text(config.family.name()))];
    let n = |n: i64| Meta::U32(n as u32);
    let parts = [
        ("embedding_length", n(config.hidden)),
        ("block_count", n(config.layers as i64)),
        ("attention.head_count", n(config.heads)),
        ("attention.head_count_kv", n(config.kv_heads)),
        ("attention.key_length", n(config.head_dim)),
        ("feed_forward_length", n(config.ffn)),
        ("context_length", n(config.max_positions as i64)),
        ("rope.freq_base", Meta::F32(config.rope_theta as f32)),
        (
            "attention.layer_norm_rms_epsilon",
            Meta::F32(config.norm_eps as f32),
        ),
    ];
    for (key, value) in parts {
        // A test's few names may live as long as the program.
        let key = format!("{}.{key}", config.family.name());
        out.push((Box::leak(key.into_boxed_str()), value));
    }
    out
}

/// The tensors under llama.cpp's names and in its order of rows.
pub fn tensors(config: &ModelConfig, weights: &Weights) -> Vec<(String, Tensor)> {
    let names = [
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
        ("model.layers", "blk"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("self_attn.q_norm", "attn_q_norm"),
        ("self_attn.k_norm", "attn_k_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ];
    let all = weights.tensors.iter().map(|(name, tensor)| {
        let heads = match (
            config.family,
            name.contains("q_proj"),
            name.contains("k_proj"),
        ) {
            (Family::Llama, true, _) => Some(config.heads),
            (Family::Llama, _, true) => Some(config.kv_heads),
            _ => None,
        };
        // Pairs that rotate together come to lie side by side.
        let tensor = match heads {
            Some(h) => {
                let size = tensor.size();
                let rest: i64 = size.iter().skip(1).product();
                tensor
                    .view([h, 2, size[0] / h / 2, rest])
                    .transpose(1, 2)
                    .reshape(&size)
            }
            None => tensor.shallow_clone(),
        };
        let name = names
            .iter()
            .fold(name.clone(), |name, (a, b)| name.replace(a, b));
        (name, tensor)
    });
    all.collect()
}
