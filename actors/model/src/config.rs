//! The shape of a model: read from a Hugging Face `config.json` or GGUF metadata.

use crate::error::ModelError;
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::Path;

/// Which decoder family a model belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// Llama 2/3, SmolLM2 and what copies them.
    Llama,
    /// Qwen2 and Qwen2.5: bias on q, k and v.
    Qwen2,
    /// Qwen3: RMSNorm on each query and key head.
    Qwen3,
}

impl Family {
    /// Names of all, for messages.
    pub const SUPPORTED: &'static str = "llama, qwen2, qwen3";

    /// `model_type` of Hugging Face, `general.architecture` of GGUF.
    pub fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
        }
    }

    /// The class that transformers loads.
    pub fn architecture(self) -> &'static str {
        match self {
            Self::Llama => "LlamaForCausalLM",
            Self::Qwen2 => "Qwen2ForCausalLM",
            Self::Qwen3 => "Qwen3ForCausalLM",
        }
    }

    /// The family with this name.
    ///
    /// # Errors
    /// When the family is not implemented.
    pub fn parse(name: &str) -> Result<Self, ModelError> {
        match name {
            "llama" => Ok(Self::Llama),
            "qwen2" => Ok(Self::Qwen2),
            "qwen3" => Ok(Self::Qwen3),
            other => Err(ModelError::Unsupported {
                what: format!("the architecture `{other}`"),
                supported: Self::SUPPORTED.to_owned(),
            }),
        }
    }
}

/// How rotary frequencies are stretched for contexts longer than in pre-training.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum RopeScaling {
    /// As they are.
    None,
    /// All frequencies divided by a factor.
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// Dynamic NTK: the base grows with the row once the row is longer than pre-training's
    /// context, so every row has frequencies of its own.
    Dynamic {
        /// How many times longer the context becomes.
        factor: f64,
        /// Context of pre-training.
        original_max_positions: f64,
    },
    /// YaRN: fast pairs are kept, slow ones divided, a ramp in between; rotated heads
    /// are stretched by a constant.
    Yarn {
        /// The divisor of slow pairs.
        factor: f64,
        /// Context of pre-training.
        original_max_positions: f64,
        /// Pairs that turn more often than this within that context are kept.
        beta_fast: f64,
        /// Pairs that turn less often than this are divided.
        beta_slow: f64,
        /// What cosines and sines are multiplied with.
        attention_factor: f64,
        /// Whether the ends of the ramp are rounded to whole pairs.
        truncate: bool,
    },
    /// Llama 3.1's smooth blend: low frequencies divided, high ones kept.
    Llama3 {
        /// The divisor of low frequencies.
        factor: f64,
        /// Wavelengths above original/low are divided.
        low_freq_factor: f64,
        /// Wavelengths below original/high are kept.
        high_freq_factor: f64,
        /// Context of pre-training.
        original_max_positions: f64,
    },
}

/// The shape of a decoder-only Transformer.
#[derive(Clone, PartialEq, Debug)]
pub struct ModelConfig {
    /// Family.
    pub family: Family,
    /// Width of the residual stream.
    pub hidden: i64,
    /// Number of layers.
    pub layers: usize,
    /// Query heads.
    pub heads: i64,
    /// Key/value heads; divides `heads`.
    pub kv_heads: i64,
    /// Width of a head.
    pub head_dim: i64,
    /// Width of the feed-forward part.
    pub ffn: i64,
    /// Rows of the embedding.
    pub vocab: i64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Stretching of the rotary frequencies.
    pub rope_scaling: RopeScaling,
    /// Epsilon of RMSNorm.
    pub norm_eps: f64,
    /// Whether the output matrix is the embedding.
    pub tie_embeddings: bool,
    /// Whether q, k and v have a bias.
    pub attention_bias: bool,
    /// Whether query and key heads are normalised (Qwen3).
    pub qk_norm: bool,
    /// Longest context in tokens.
    pub max_positions: usize,
    /// Token that begins a text, where the model has one.
    pub bos_token_id: Option<u32>,
    /// Tokens that end a turn or a text.
    pub eos_token_ids: Vec<u32>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(u32),
    Many(Vec<u32>),
}

/// The keys of `config.json` that matter; the rest is ignored, as transformers does.
#[derive(Deserialize)]
struct HfConfig {
    model_type: String,
    hidden_size: i64,
    num_hidden_layers: usize,
    num_attention_heads: i64,
    num_key_value_heads: Option<i64>,
    head_dim: Option<i64>,
    intermediate_size: i64,
    vocab_size: i64,
    rope_theta: Option<f64>,
    rope_scaling: Option<Value>,
    rope_parameters: Option<Value>,
    rms_norm_eps: Option<f64>,
    tie_word_embeddings: Option<bool>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    hidden_act: Option<String>,
    max_position_embeddings: Option<usize>,
    use_sliding_window: Option<bool>,
    bos_token_id: Option<u32>,
    eos_token_id: Option<OneOrMany>,
}

impl ModelConfig {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// When the text is not a configuration, or of a model that is not supported.
    pub fn from_hf_json(text: &str, path: &Path) -> Result<Self, ModelError> {
        // The name first, so that an unknown architecture is named even when its
        // other keys are called differently.
        let value: Value =
            serde_json::from_str(text).map_err(|e| ModelError::format(path, e.to_string()))?;
        let name = value
            .get("model_type")
            .and_then(Value::as_str)
            .ok_or_else(|| ModelError::format(path, "no `model_type`"))?;
        let family = Family::parse(name)?;
        let raw: HfConfig =
            serde_json::from_value(value).map_err(|e| ModelError::format(path, e.to_string()))?;
        debug_assert_eq!(raw.model_type, family.name());
        if let Some(act) = raw.hidden_act.as_deref()
            && act != "silu"
        {
            return Err(ModelError::Unsupported {
                what: format!("the activation `{act}`"),
                supported: "silu".to_owned(),
            });
        }
        if raw.mlp_bias == Some(true) {
            return Err(ModelError::Unsupported {
                what: "a bias in the feed-forward part".to_owned(),
                supported: "mlp_bias = false".to_owned(),
            });
        }
        if raw.use_sliding_window == Some(true) {
            return Err(ModelError::Unsupported {
                what: "sliding-window attention".to_owned(),
                supported: "full attention".to_owned(),
            });
        }
        // transformers 5 moved theta and scaling into `rope_parameters`.
        let rope = raw.rope_parameters.as_ref().or(raw.rope_scaling.as_ref());
        let rope_theta = raw
            .rope_theta
            .or_else(|| rope?.get("rope_theta")?.as_f64())
            .unwrap_or(10_000.0);
        let heads = raw.num_attention_heads;
        let positions = raw.max_position_embeddings.unwrap_or(2048);
        let rope_scaling = parse_rope_scaling(rope, positions, path)?;
        let config = Self {
            family,
            hidden: raw.hidden_size,
            layers: raw.num_hidden_layers,
            heads,
            kv_heads: raw.num_key_value_heads.unwrap_or(heads),
            head_dim: raw.head_dim.unwrap_or(match family {
                Family::Qwen3 => 128,
                _ => raw.hidden_size / heads.max(1),
            }),
            ffn: raw.intermediate_size,
            vocab: raw.vocab_size,
            rope_theta,
            rope_scaling,
            norm_eps: raw.rms_norm_eps.unwrap_or(1e-6),
            tie_embeddings: raw.tie_word_embeddings.unwrap_or(false),
            attention_bias: raw.attention_bias.unwrap_or(family == Family::Qwen2),
            qk_norm: family == Family::Qwen3,
            max_positions: rope_scaling.context(positions),
            bos_token_id: raw.bos_token_id,
            eos_token_ids: match raw.eos_token_id {
                Some(OneOrMany::One(id)) => vec![id],
                Some(OneOrMany::Many(ids)) => ids,
                None => Vec::new(),
            },
        };
        config.check(path)?;
        Ok(config)
    }

    /// Refuses numbers that no model has, before anything divides by them.
    ///
    /// # Errors
    /// When a size is zero or the heads do not divide.
    pub fn check(&self, path: &Path) -> Result<(), ModelError> {
        let sizes = [
            ("hidden size", self.hidden),
            ("heads", self.heads),
            ("key/value heads", self.kv_heads),
            ("head width", self.head_dim),
            ("feed-forward width", self.ffn),
            ("vocabulary", self.vocab),
            ("layers", self.layers as i64),
            ("context", self.max_positions as i64),
        ];
        for (name, size) in sizes {
            if size <= 0 || size > 1 << 28 {
                return Err(ModelError::format(path, format!("{name} is {size}")));
            }
        }
        if self.heads % self.kv_heads != 0 {
            return Err(ModelError::format(
                path,
                format!(
                    "{} heads are not a multiple of {} key/value heads",
                    self.heads, self.kv_heads
                ),
            ));
        }
        if self.head_dim % 2 != 0 {
            return Err(ModelError::format(
                path,
                format!("odd head width {}", self.head_dim),
            ));
        }
        Ok(())
    }

    /// The `config.json` that transformers loads.
    pub fn to_hf_json(&self) -> Value {
        let mut value = json!({
            "architectures": [self.family.architecture()],
            "model_type": self.family.name(),
            "hidden_act": "silu",
            "hidden_size": self.hidden,
            "intermediate_size": self.ffn,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "vocab_size": self.vocab,
            "max_position_embeddings": match self.rope_scaling {
                // Hugging Face keeps the context of pre-training here.
                RopeScaling::Dynamic { original_max_positions, .. } => original_max_positions as usize,
                _ => self.max_positions,
            },
            "rms_norm_eps": self.norm_eps,
            "rope_theta": self.rope_theta,
            "rope_scaling": match self.rope_scaling {
                RopeScaling::None => Value::Null,
                RopeScaling::Linear { factor } => json!({"rope_type": "linear", "factor": factor}),
                RopeScaling::Dynamic { factor, .. } => json!({"rope_type": "dynamic", "factor": factor}),
                RopeScaling::Yarn { factor, original_max_positions, beta_fast, beta_slow, attention_factor, truncate } => json!({
                    "rope_type": "yarn", "factor": factor, "beta_fast": beta_fast, "beta_slow": beta_slow,
                    "attention_factor": attention_factor, "truncate": truncate,
                    "original_max_position_embeddings": original_max_positions as i64,
                }),
                RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_positions } => json!({
                    "rope_type": "llama3", "factor": factor, "low_freq_factor": low_freq_factor,
                    "high_freq_factor": high_freq_factor,
                    "original_max_position_embeddings": original_max_positions as i64,
                }),
            },
            "tie_word_embeddings": self.tie_embeddings,
            "attention_bias": self.attention_bias,
            "attention_dropout": 0.0,
            "initializer_range": 0.02,
            "torch_dtype": "float32",
            "use_cache": true,
        });
        if let Some(map) = value.as_object_mut() {
            if let Some(bos) = self.bos_token_id {
                map.insert("bos_token_id".to_owned(), json!(bos));
            }
            match self.eos_token_ids.as_slice() {
                [] => {}
                [one] => {
                    map.insert("eos_token_id".to_owned(), json!(one));
                }
                many => {
                    map.insert("eos_token_id".to_owned(), json!(many));
                }
            }
        }
        value
    }

    /// Parameters by the shape alone.
    pub fn parameters(&self) -> u64 {
        let (h, f, d) = (self.hidden, self.ffn, self.head_dim);
        let q = self.heads * d;
        let kv = self.kv_heads * d;
        let mut layer = h * q + 2 * h * kv + q * h + 3 * h * f + 2 * h;
        if self.attention_bias {
            layer += q + 2 * kv;
        }
        if self.qk_norm {
            layer += 2 * d;
        }
        let head = if self.tie_embeddings {
            0
        } else {
            self.vocab * h
        };
        (self.vocab * h + layer * self.layers as i64 + h + head) as u64
    }

    /// Bytes of keys and values that one token of context takes (`element` bytes a number).
    pub fn kv_bytes_per_token(&self, element: u64) -> u64 {
        2 * self.layers as u64 * (self.kv_heads * self.head_dim) as u64 * element
    }
}

impl RopeScaling {
    /// The longest context of a model whose `config.json` says `positions`. Only dynamic
    /// NTK goes beyond: there the number is pre-training's context, and the factor says
    /// how much longer rows may be.
    fn context(&self, positions: usize) -> usize {
        match self {
            Self::Dynamic { factor, .. } => (positions as f64 * factor.clamp(1.0, 1e6)) as usize,
            _ => positions,
        }
    }
}

fn parse_rope_scaling(
    value: Option<&Value>,
    positions: usize,
    path: &Path,
) -> Result<RopeScaling, ModelError> {
    let Some(value) = value.filter(|v| v.is_object()) else {
        return Ok(RopeScaling::None);
    };
    let kind = value
        .get("rope_type")
        .or_else(|| value.get("type"))
        .and_then(Value::as_str)
        .unwrap_or("default");
    // Zero and null mean the default, as in transformers.
    let optional = |key: &str| {
        let number = value.get(key).and_then(Value::as_f64);
        number.filter(|n| *n > 0.0 && n.is_finite())
    };
    let number = |key: &str| {
        optional(key).ok_or_else(|| {
            ModelError::format(path, format!("`rope_scaling` has no usable `{key}`"))
        })
    };
    match kind {
        "default" => Ok(RopeScaling::None),
        "linear" => Ok(RopeScaling::Linear {
            factor: number("factor")?,
        }),
        "dynamic" => Ok(RopeScaling::Dynamic {
            factor: number("factor")?,
            original_max_positions: positions as f64,
        }),
        "yarn" => {
            let factor = number("factor")?;
            let attention_factor =
                optional("attention_factor").unwrap_or_else(|| {
                    match optional("mscale").zip(optional("mscale_all_dim")) {
                        Some((scale, all)) => {
                            yarn_stretch(factor, scale) / yarn_stretch(factor, all)
                        }
                        None => yarn_stretch(factor, 1.0),
                    }
                });
            Ok(RopeScaling::Yarn {
                factor,
                original_max_positions: optional("original_max_position_embeddings")
                    .unwrap_or(positions as f64),
                beta_fast: optional("beta_fast").unwrap_or(32.0),
                beta_slow: optional("beta_slow").unwrap_or(1.0),
                attention_factor,
                truncate: value.get("truncate").and_then(Value::as_bool) != Some(false),
            })
        }
        "llama3" => Ok(RopeScaling::Llama3 {
            factor: number("factor")?,
            low_freq_factor: number("low_freq_factor")?,
            high_freq_factor: number("high_freq_factor")?,
            original_max_positions: number("original_max_position_embeddings")?,
        }),
        other => Err(ModelError::Unsupported {
            what: format!("the RoPE scaling `{other}`"),
            supported: "default, linear, dynamic, yarn, llama3".to_owned(),
        }),
    }
}

/// YaRN's stretch of attention for a factor (its paper, §3.4).
pub(crate) fn yarn_stretch(factor: f64, scale: f64) -> f64 {
    match factor <= 1.0 {
        true => 1.0,
        false => 0.1 * scale * factor.ln() + 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QWEN: &str = r#"{"model_type":"qwen2","hidden_size":896,"num_hidden_layers":24,
      "num_attention_heads":14,"num_key_value_heads":2,"intermediate_size":4864,"vocab_size":151936,
      "rope_theta":1000000.0,"rms_norm_eps":1e-6,"tie_word_embeddings":true,"hidden_act":"silu",
      "max_position_embeddings":32768,"use_sliding_window":false,"eos_token_id":151645}"#;

    #[test]
    fn reads_and_writes_hf_json() {
        let config = ModelConfig::from_hf_json(QWEN, Path::new("config.json")).unwrap();
        assert!(config.attention_bias);
        assert_eq!(config.head_dim, 64);
        assert_eq!(config.parameters(), 494_032_768);
        let again =
            ModelConfig::from_hf_json(&config.to_hf_json().to_string(), Path::new("x")).unwrap();
        assert_eq!(again, config);
    }

    #[test]
    fn unknown_architecture_is_named() {
        let error =
            ModelConfig::from_hf_json(r#"{"model_type":"mamba"}"#, Path::new("x")).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("mamba") && text.contains("qwen3"), "{text}");
    }

    #[test]
    fn zero_heads_are_refused() {
        let text = QWEN.replace("\"num_attention_heads\":14", "\"num_attention_heads\":0");
        assert_eq!(
            ModelConfig::from_hf_json(&text, Path::new("x"))
                .unwrap_err()
                .code(),
            "GT-MODEL-FORMAT"
        );
    }
}
