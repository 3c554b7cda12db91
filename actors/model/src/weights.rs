//! Named tensors, with the names that Hugging Face gives them.

use crate::config::{Family, ModelConfig};
use crate::error::ModelError;
use std::collections::BTreeMap;
use tch::{Device, Kind, Tensor};

/// All tensors of a model by Hugging Face name (`model.layers.0.self_attn.q_proj.weight`).
#[derive(Debug, Default)]
pub struct Weights {
    /// The tensors; ordered, so that files written from them are the same every time.
    pub tensors: BTreeMap<String, Tensor>,
}

impl Weights {
    /// Removes a tensor, checking its shape and bringing it to a device and kind.
    ///
    /// # Errors
    /// When it is absent, of another shape, or libtorch refuses.
    pub fn take(
        &mut self,
        name: &str,
        shape: &[i64],
        device: Device,
        kind: Kind,
    ) -> Result<Tensor, ModelError> {
        let Some(tensor) = self.tensors.remove(name) else {
            return Err(ModelError::Shape {
                tensor: name.to_owned(),
                expected: format!("{shape:?}"),
                found: "nothing".to_owned(),
            });
        };
        if tensor.size() != shape {
            return Err(ModelError::Shape {
                tensor: name.to_owned(),
                expected: format!("{shape:?}"),
                found: format!("{:?}", tensor.size()),
            });
        }
        Ok(tensor
            .f_to_device(device)?
            .f_to_kind(kind)?
            .f_contiguous()?)
    }

    /// Numbers in all tensors.
    pub fn parameters(&self) -> u64 {
        self.tensors.values().map(|t| t.numel() as u64).sum()
    }
}

/// Every tensor that a model of this shape must have, with its shape.
pub fn expected_tensors(config: &ModelConfig) -> Vec<(String, Vec<i64>)> {
    let (h, f, d) = (config.hidden, config.ffn, config.head_dim);
    let q = config.heads * d;
    let kv = config.kv_heads * d;
    let mut out = vec![
        (
            "model.embed_tokens.weight".to_owned(),
            vec![config.vocab, h],
        ),
        ("model.norm.weight".to_owned(), vec![h]),
    ];
    if !config.tie_embeddings {
        out.push(("lm_head.weight".to_owned(), vec![config.vocab, h]));
    }
    for i in 0..config.layers {
        let p = format!("model.layers.{i}");
        let mut add = |name: &str, shape: Vec<i64>| out.push((format!("{p}.{name}"), shape));
        add("input_layernorm.weight", vec![h]);
        add("post_attention_layernorm.weight", vec![h]);
        add("self_attn.q_proj.weight", vec![q, h]);
        add("self_attn.k_proj.weight", vec![kv, h]);
        add("self_attn.v_proj.weight", vec![kv, h]);
        add("self_attn.o_proj.weight", vec![h, q]);
        if config.attention_bias {
            add("self_attn.q_proj.bias", vec![q]);
            add("self_attn.k_proj.bias", vec![kv]);
            add("self_attn.v_proj.bias", vec![kv]);
            if has_output_bias(config) {
                add("self_attn.o_proj.bias", vec![h]);
            }
        }
        if config.qk_norm {
            add("self_attn.q_norm.weight", vec![d]);
            add("self_attn.k_norm.weight", vec![d]);
        }
        add("mlp.gate_proj.weight", vec![f, h]);
        add("mlp.up_proj.weight", vec![f, h]);
        add("mlp.down_proj.weight", vec![h, f]);
    }
    out
}

/// Whether the attention's output projection has a bias too: `attention_bias` means
/// four biases everywhere but in Qwen2, which has three.
pub fn has_output_bias(config: &ModelConfig) -> bool {
    config.attention_bias && config.family != Family::Qwen2
}
