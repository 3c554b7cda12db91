//! GGUF files: metadata, tensor directory, and the way back from llama.cpp's names and
//! row order to Hugging Face's.

use crate::config::{Family, ModelConfig, RopeScaling};
use crate::dequantize::{Format, dequantize};
use crate::error::ModelError;
use crate::weights::Weights;
use std::collections::BTreeMap;
use std::path::Path;
use tch::Tensor;

/// A metadata value.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// Any integer kind.
    Integer(i64),
    /// Any floating-point kind.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Value>),
}

/// Where a tensor lies in the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TensorInfo {
    /// Sizes, slowest dimension first (PyTorch's order; the file has the reverse).
    pub shape: Vec<i64>,
    /// Number format.
    pub format: Format,
    /// First byte, from the start of the file.
    pub offset: usize,
    /// Bytes.
    pub bytes: usize,
}

/// The directory of a GGUF file.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Gguf {
    /// Metadata by key.
    pub metadata: BTreeMap<String, Value>,
    /// Tensors by llama.cpp name.
    pub tensors: BTreeMap<String, TensorInfo>,
}

/// A reader that never goes past the end.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], String> {
        let end = self.at.checked_add(n).filter(|e| *e <= self.bytes.len());
        let part = end.and_then(|end| self.bytes.get(self.at..end));
        match part {
            Some(part) => {
                self.at += n;
                Ok(part)
            }
            None => Err(format!(
                "the file is truncated: {n} bytes wanted at offset {}, {} there",
                self.at,
                self.bytes.len().saturating_sub(self.at)
            )),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, String> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A length that must fit in what is left of the file.
    fn length(&mut self) -> Result<usize, String> {
        let n = self.u64()?;
        match usize::try_from(n) {
            Ok(n) if n <= self.bytes.len() => Ok(n),
            _ => Err(format!("a length of {n} at offset {}", self.at - 8)),
        }
    }

    fn text(&mut self) -> Result<String, String> {
        let n = self.length()?;
        Ok(String::from_utf8_lossy(self.take(n)?).into_owned())
    }

    fn value(&mut self, kind: u32, depth: u32) -> Result<Value, String> {
        Ok(match kind {
            0 => Value::Integer(i64::from(u8::from_le_bytes(self.array()?))),
            1 => Value::Integer(i64::from(i8::from_le_bytes(self.array()?))),
            2 => Value::Integer(i64::from(u16::from_le_bytes(self.array()?))),
            3 => Value::Integer(i64::from(i16::from_le_bytes(self.array()?))),
            4 => Value::Integer(i64::from(self.u32()?)),
            5 => Value::Integer(i64::from(i32::from_le_bytes(self.array()?))),
            6 => Value::Float(f64::from(f32::from_le_bytes(self.array()?))),
            7 => Value::Bool(u8::from_le_bytes(self.array()?) != 0),
            8 => Value::Text(self.text()?),
            9 if depth < 4 => {
                let inner = self.u32()?;
                let n = self.length()?;
                let mut list = Vec::with_capacity(n.min(1 << 20));
                for _ in 0..n {
                    list.push(self.value(inner, depth + 1)?);
                }
                Value::List(list)
            }
            10 => Value::Integer(self.u64()? as i64),
            11 => Value::Integer(i64::from_le_bytes(self.array()?)),
            12 => Value::Float(f64::from_le_bytes(self.array()?)),
            other => return Err(format!("metadata of unknown kind {other}")),
        })
    }
}

impl Gguf {
    /// Reads the directory of a file that is in memory (or memory-mapped). Every
    /// tensor is known to lie within the file afterwards.
    ///
    /// # Errors
    /// When the file is truncated or not GGUF 2 or 3, or uses a number format that is
    /// not supported.
    pub fn parse(bytes: &[u8], path: &Path) -> Result<Self, ModelError> {
        let bad = |reason: String| ModelError::format(path, reason);
        let mut c = Cursor { bytes, at: 0 };
        if c.take(4).map_err(bad)? != b"GGUF" {
            return Err(bad("not a GGUF file".to_owned()));
        }
        let version = c.u32().map_err(bad)?;
        if !(2..=3).contains(&version) {
            return Err(bad(format!(
                "GGUF version {version}; 2 and 3 are supported"
            )));
        }
        let tensor_count = c.length().map_err(bad)?;
        let key_count = c.length().map_err(bad)?;
        let mut out = Self::default();
        for _ in 0..key_count {
            let key = c.text().map_err(bad)?;
            let kind = c.u32().map_err(bad)?;
            let value = c.value(kind, 0).map_err(bad)?;
            out.metadata.insert(key, value);
        }
        let mut infos = Vec::new();
        for _ in 0..tensor_count {
            let name = c.text().map_err(bad)?;
            let dimensions = c.u32().map_err(bad)?;
            if dimensions > 4 {
                return Err(bad(format!("`{name}` has {dimensions} dimensions")));
            }
            let mut shape = Vec::new();
            for _ in 0..dimensions {
                let n = c.u64().map_err(bad)?;
                shape.push(i64::try_from(n).map_err(|_| bad(format!("`{name}` has a size {n}")))?);
            }
            shape.reverse();
            let format = Format::from_id(c.u32().map_err(bad)?, &name)?;
            let offset = c.u64().map_err(bad)?;
            infos.push((name, shape, format, offset));
        }
        let alignment = out
            .integer("general.alignment")
            .unwrap_or(32)
            .clamp(1, 4096) as usize;
        let data = c.at.next_multiple_of(alignment);
        for (name, shape, format, offset) in infos {
            let row = shape.last().copied().unwrap_or(1) as usize;
            let size = shape
                .iter()
                .try_fold(1usize, |n, d| n.checked_mul(*d as usize))
                .and_then(|n| format.bytes(n))
                .filter(|_| row.is_multiple_of(format.block()))
                .ok_or_else(|| bad(format!("`{name}` of shape {shape:?} cannot be {format:?}")))?;
            let start = usize::try_from(offset)
                .ok()
                .and_then(|o| o.checked_add(data))
                .filter(|s| s.checked_add(size).is_some_and(|e| e <= bytes.len()))
                .ok_or_else(|| {
                    bad(format!(
                        "the file is truncated: `{name}` needs {size} bytes at {offset}"
                    ))
                })?;
            let info = TensorInfo {
                shape,
                format,
                offset: start,
                bytes: size,
            };
            out.tensors.insert(name, info);
        }
        Ok(out)
    }

    /// An integer of the metadata.
    pub fn integer(&self, key: &str) -> Option<i64> {
        match self.metadata.get(key)? {
            Value::Integer(n) => Some(*n),
            _ => None,
        }
    }

    /// A number of the metadata.
    pub fn number(&self, key: &str) -> Option<f64> {
        match self.metadata.get(key)? {
            Value::Integer(n) => Some(*n as f64),
            Value::Float(n) => Some(*n),
            _ => None,
        }
    }

    /// A text of the metadata.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.metadata.get(key)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A list of the metadata.
    pub fn list(&self, key: &str) -> Option<&[Value]> {
        match self.metadata.get(key)? {
            Value::List(list) => Some(list),
            _ => None,
        }
    }

    /// The shape of the model.
    ///
    /// # Errors
    /// When the architecture is not supported or a key is missing.
    pub fn config(&self, path: &Path) -> Result<ModelConfig, ModelError> {
        let bad = |reason: String| ModelError::format(path, reason);
        let name = self
            .text("general.architecture")
            .ok_or_else(|| bad("no `general.architecture`".to_owned()))?;
        let family = Family::parse(name)?;
        let optional = |key: &str| self.integer(&format!("{name}.{key}"));
        let required = |key: &str| {
            optional(key).ok_or_else(|| bad(format!("no `{name}.{key}` in the metadata")))
        };
        let heads = required("attention.head_count")?;
        let hidden = required("embedding_length")?;
        let vocab = match self.tensors.get("token_embd.weight") {
            Some(info) => info.shape.first().copied().unwrap_or(0),
            None => return Err(bad("no `token_embd.weight`".to_owned())),
        };
        let id = |key: &str| self.integer(key).and_then(|n| u32::try_from(n).ok());
        let config = ModelConfig {
            family,
            hidden,
            layers: required("block_count")?.clamp(0, 1 << 20) as usize,
            heads,
            kv_heads: optional("attention.head_count_kv").unwrap_or(heads),
            head_dim: optional("attention.key_length").unwrap_or(hidden / heads.max(1)),
            ffn: required("feed_forward_length")?,
            vocab,
            rope_theta: self
                .number(&format!("{name}.rope.freq_base"))
                .unwrap_or(10_000.0),
            rope_scaling: self.rope_scaling(name)?,
            // The file has an f32: print it shortest and read it back, 1e-5 stays 1e-5.
            norm_eps: self
                .number(&format!("{name}.attention.layer_norm_rms_epsilon"))
                .and_then(|n| format!("{}", n as f32).parse().ok())
                .unwrap_or(1e-6),
            tie_embeddings: !self.tensors.contains_key("output.weight"),
            attention_bias: self.tensors.contains_key("blk.0.attn_q.bias"),
            qk_norm: family == Family::Qwen3,
            max_positions: required("context_length")?.clamp(0, 1 << 28) as usize,
            bos_token_id: id("tokenizer.ggml.bos_token_id"),
            eos_token_ids: id("tokenizer.ggml.eos_token_id").into_iter().collect(),
        };
        config.check(path)?;
        Ok(config)
    }

    /// What the metadata says about stretching rotary frequencies. Llama 3's frequency
    /// factors are a tensor and not metadata: [`Self::config_with`] reads them.
    fn rope_scaling(&self, name: &str) -> Result<RopeScaling, ModelError> {
        let number = |key: &str| {
            self.number(&format!("{name}.rope.scaling.{key}"))
                .filter(|n| *n > 0.0 && n.is_finite())
        };
        let factor = number("factor").unwrap_or(1.0);
        let kind = self.text(&format!("{name}.rope.scaling.type"));
        match kind.unwrap_or("linear") {
            "none" => Ok(RopeScaling::None),
            "linear" if factor == 1.0 => Ok(RopeScaling::None),
            "linear" => Ok(RopeScaling::Linear { factor }),
            "yarn" => Ok(RopeScaling::Yarn {
                factor,
                original_max_positions: number("original_context_length")
                    .or_else(|| self.number(&format!("{name}.context_length")))
                    .unwrap_or(2048.0),
                beta_fast: number("yarn_beta_fast").unwrap_or(32.0),
                beta_slow: number("yarn_beta_slow").unwrap_or(1.0),
                attention_factor: number("attn_factor").unwrap_or(1.0)
                    * crate::config::yarn_stretch(factor, 1.0),
                truncate: true,
            }),
            other => Err(ModelError::Unsupported {
                what: format!("the RoPE scaling `{other}` in GGUF"),
                supported: "none, linear, yarn, and Llama 3's frequency factors".to_owned(),
            }),
        }
    }

    /// The shape of the model with Llama 3's frequency factors, where the file has them.
    ///
    /// # Errors
    /// As [`Self::config`], and when the factors are of no known kind.
    pub fn config_with(&self, bytes: &[u8], path: &Path) -> Result<ModelConfig, ModelError> {
        let mut config = self.config(path)?;
        if let Some(info) = self.tensors.get("rope_freqs.weight") {
            let raw = bytes.get(info.offset..info.offset + info.bytes);
            let factors = dequantize(info.format, raw.unwrap_or_default());
            config.rope_scaling = frequency_factors(&factors, &config)?;
        }
        Ok(config)
    }

    /// The tensors as f32 under their Hugging Face names and in Hugging Face's row order.
    ///
    /// # Errors
    /// When a block is malformed or libtorch refuses.
    pub fn weights(
        &self,
        bytes: &[u8],
        config: &ModelConfig,
        path: &Path,
    ) -> Result<Weights, ModelError> {
        let mut out = Weights::default();
        for (name, info) in &self.tensors {
            let Some(hf) = hugging_face_name(name) else {
                tracing::debug!(tensor = %name, "left out: no Hugging Face name");
                continue;
            };
            let raw = bytes
                .get(info.offset..info.offset + info.bytes)
                .ok_or_else(|| ModelError::format(path, format!("`{name}` is cut off")))?;
            let numbers = dequantize(info.format, raw);
            let tensor = Tensor::f_from_slice(&numbers)?.f_view(info.shape.as_slice())?;
            let tensor = match rotated_heads(name, config) {
                Some(heads) => undo_permutation(&tensor, heads)?,
                None => tensor,
            };
            out.tensors.insert(hf, tensor);
        }
        Ok(out)
    }
}

/// The parameters of Llama 3's scaling behind per-pair divisors. llama.cpp keeps only
/// the divisors; what transformers needs is found again by trying what Meta released.
fn frequency_factors(factors: &[f32], config: &ModelConfig) -> Result<RopeScaling, ModelError> {
    let plain = ModelConfig {
        rope_scaling: RopeScaling::None,
        ..config.clone()
    };
    let wanted: Vec<f64> = crate::rope::frequencies(&plain, 1)
        .into_iter()
        .zip(factors)
        .map(|(f, factor)| f / f64::from(*factor))
        .collect();
    for factor in [8.0, 32.0, 16.0, 4.0] {
        let scaling = RopeScaling::Llama3 {
            factor,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_positions: 8192.0,
        };
        let tried = ModelConfig {
            rope_scaling: scaling,
            ..config.clone()
        };
        let same = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-4 * b.abs();
        let frequencies = crate::rope::frequencies(&tried, 1);
        if frequencies.len() == factors.len() && frequencies.iter().zip(&wanted).all(same) {
            return Ok(scaling);
        }
    }
    Err(ModelError::Unsupported {
        what: "RoPE frequency factors in GGUF that are not Llama 3's".to_owned(),
        supported: "the Hugging Face directory of the same model".to_owned(),
    })
}

/// Heads of a tensor whose rows llama.cpp reordered: q and k of the llama family only.
fn rotated_heads(name: &str, config: &ModelConfig) -> Option<i64> {
    if config.family != Family::Llama {
        return None;
    }
    if name.contains(".attn_q.") {
        Some(config.heads)
    } else if name.contains(".attn_k.") {
        Some(config.kv_heads)
    } else {
        None
    }
}

/// llama.cpp stores the pairs that rotate together side by side (row 2i and 2i+1 of a
/// head); Hugging Face keeps them half a head apart (i and i + d/2).
///
/// # Errors
/// When the rows do not divide into heads.
pub fn undo_permutation(tensor: &Tensor, heads: i64) -> Result<Tensor, ModelError> {
    let shape = tensor.size();
    let rows = shape.first().copied().unwrap_or(0);
    let rest: i64 = shape.iter().skip(1).product();
    Ok(tensor
        .f_view([heads, rows / heads / 2, 2, rest])?
        .f_transpose(1, 2)?
        .f_reshape(shape.as_slice())?)
}

/// The Hugging Face name of a llama.cpp tensor.
pub fn hugging_face_name(name: &str) -> Option<String> {
    match name {
        "token_embd.weight" => return Some("model.embed_tokens.weight".to_owned()),
        "output_norm.weight" => return Some("model.norm.weight".to_owned()),
        "output.weight" => return Some("lm_head.weight".to_owned()),
        _ => {}
    }
    let (index, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    let index: usize = index.parse().ok()?;
    let (part, kind) = rest.rsplit_once('.')?;
    let hf = match part {
        "attn_norm" => "input_layernorm",
        "ffn_norm" => "post_attention_layernorm",
        "attn_q" => "self_attn.q_proj",
        "attn_k" => "self_attn.k_proj",
        "attn_v" => "self_attn.v_proj",
        "attn_output" => "self_attn.o_proj",
        "attn_q_norm" => "self_attn.q_norm",
        "attn_k_norm" => "self_attn.k_norm",
        "ffn_gate" => "mlp.gate_proj",
        "ffn_up" => "mlp.up_proj",
        "ffn_down" => "mlp.down_proj",
        _ => return None,
    };
    Some(format!("model.layers.{index}.{hf}.{kind}"))
}
