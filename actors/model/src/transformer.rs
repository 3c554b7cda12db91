//! The decoder-only Transformer of the Llama and Qwen families.
//!
//! A batch is a flat concatenation of rows without padding: linear layers see
//! `[tokens of all rows, width]`, attention runs row by row. Ragged batches therefore
//! cost no padding. Gradients flow wherever the caller sets `requires_grad`.

use crate::config::ModelConfig;
use crate::error::ModelError;
use crate::rope::{Rope, RopeRows, Span};
use crate::weights::{Weights, expected_tensors, has_output_bias};
use tch::{Device, Kind, Tensor};

/// A low-rank addition to a linear layer.
#[derive(Debug)]
pub struct LoraPair {
    /// `[rank, in]`.
    pub a: Tensor,
    /// `[out, rank]`.
    pub b: Tensor,
    /// alpha / rank.
    pub scale: f64,
}

/// `y = x Wᵀ + bias + scale · (x Aᵀ) Bᵀ`.
#[derive(Debug)]
pub struct Linear {
    /// `[out, in]`.
    pub weight: Tensor,
    /// `[out]`.
    pub bias: Option<Tensor>,
    /// Adapter, where there is one.
    pub lora: Option<LoraPair>,
}

impl Linear {
    /// Applies the layer to `[…, in]`.
    ///
    /// # Errors
    /// When libtorch refuses.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, ModelError> {
        let y = x.f_linear(&self.weight, self.bias.as_ref())?;
        match &self.lora {
            None => Ok(y),
            Some(pair) => {
                let low = x.f_linear::<&Tensor>(&pair.a, None)?;
                let add = low.f_linear::<&Tensor>(&pair.b, None)?;
                Ok(y.f_add(&add.f_mul_scalar(pair.scale)?)?)
            }
        }
    }
}

/// One block: attention and feed-forward, each behind a norm and added to the stream.
#[derive(Debug)]
pub struct Layer {
    /// Norm before attention, `[hidden]`.
    pub attn_norm: Tensor,
    /// Queries.
    pub q_proj: Linear,
    /// Keys.
    pub k_proj: Linear,
    /// Values.
    pub v_proj: Linear,
    /// Attention output.
    pub o_proj: Linear,
    /// Norm on each query head (Qwen3), `[head_dim]`.
    pub q_norm: Option<Tensor>,
    /// Norm on each key head (Qwen3), `[head_dim]`.
    pub k_norm: Option<Tensor>,
    /// Norm before the feed-forward part, `[hidden]`.
    pub mlp_norm: Tensor,
    /// Gate of the feed-forward part.
    pub gate_proj: Linear,
    /// Input of the feed-forward part.
    pub up_proj: Linear,
    /// Output of the feed-forward part.
    pub down_proj: Linear,
}

/// Names of the seven projections within a layer, in [`Layer::projections`]'s order.
pub const PROJECTIONS: [&str; 7] = [
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
];

impl Layer {
    /// The seven projections, in the order of [`PROJECTIONS`].
    pub fn projections(&self) -> [&Linear; 7] {
        [
            &self.q_proj,
            &self.k_proj,
            &self.v_proj,
            &self.o_proj,
            &self.gate_proj,
            &self.up_proj,
            &self.down_proj,
        ]
    }

    /// The seven projections, to be changed.
    pub fn projections_mut(&mut self) -> [&mut Linear; 7] {
        [
            &mut self.q_proj,
            &mut self.k_proj,
            &mut self.v_proj,
            &mut self.o_proj,
            &mut self.gate_proj,
            &mut self.up_proj,
            &mut self.down_proj,
        ]
    }

    /// Rotated queries and keys, and values, of normalised input `[tokens, hidden]`:
    /// `[tokens, heads or kv_heads, head_dim]` each.
    ///
    /// # Errors
    /// When libtorch refuses.
    pub fn queries_keys_values(
        &self,
        x: &Tensor,
        rope: &RopeRows,
        config: &ModelConfig,
    ) -> Result<(Tensor, Tensor, Tensor), ModelError> {
        let d = config.head_dim;
        let q = self.q_proj.forward(x)?.f_view([-1, config.heads, d])?;
        let k = self.k_proj.forward(x)?.f_view([-1, config.kv_heads, d])?;
        let v = self.v_proj.forward(x)?.f_view([-1, config.kv_heads, d])?;
        let q = match &self.q_norm {
            Some(w) => rms_norm(&q, w, config.norm_eps)?,
            None => q,
        };
        let k = match &self.k_norm {
            Some(w) => rms_norm(&k, w, config.norm_eps)?,
            None => k,
        };
        Ok((rope.apply(&q)?, rope.apply(&k)?, v))
    }

    /// The feed-forward part on normalised input.
    ///
    /// # Errors
    /// When libtorch refuses.
    pub fn feed_forward(&self, x: &Tensor) -> Result<Tensor, ModelError> {
        let gate = self.gate_proj.forward(x)?.f_silu()?;
        let up = self.up_proj.forward(x)?;
        self.down_proj.forward(&gate.f_mul(&up)?)
    }
}

/// What the layers need to know about a batch of rows: made once, used by every layer.
#[derive(Debug)]
pub struct RowPlan {
    /// Tokens of each row, in order.
    pub lengths: Vec<i64>,
    /// Rotation of every token; each row begins at position 0.
    pub rope: RopeRows,
}

/// A model in memory.
#[derive(Debug)]
pub struct Transformer {
    /// Its shape.
    pub config: ModelConfig,
    /// Where it is.
    pub device: Device,
    /// Number format of weights and activations.
    pub kind: Kind,
    /// `[vocab, hidden]`.
    pub embed_tokens: Tensor,
    /// The blocks.
    pub layers: Vec<Layer>,
    /// Final norm, `[hidden]`.
    pub norm: Tensor,
    /// `[vocab, hidden]`; `None` when the embedding is used.
    pub lm_head: Option<Tensor>,
    /// Rotary tables.
    pub rope: Rope,
}

impl Transformer {
    /// Builds a model from named tensors, which are used up.
    ///
    /// # Errors
    /// When a tensor is absent or has the wrong shape, or libtorch refuses.
    pub fn from_weights(
        config: &ModelConfig,
        mut weights: Weights,
        device: Device,
        kind: Kind,
    ) -> Result<Self, ModelError> {
        let _no_grad = tch::no_grad_guard();
        let shapes: std::collections::BTreeMap<String, Vec<i64>> =
            expected_tensors(config).into_iter().collect();
        let mut take = |name: &str| -> Result<Tensor, ModelError> {
            let shape = shapes.get(name).ok_or_else(|| {
                ModelError::Request(format!("a {} model has no `{name}`", config.family.name()))
            })?;
            weights.take(name, shape, device, kind)
        };
        let embed_tokens = take("model.embed_tokens.weight")?;
        let mut layers = Vec::with_capacity(config.layers);
        for i in 0..config.layers {
            let p = format!("model.layers.{i}");
            let mut linear = |name: &str, bias: bool| -> Result<Linear, ModelError> {
                Ok(Linear {
                    weight: take(&format!("{p}.{name}.weight"))?,
                    bias: match bias {
                        true => Some(take(&format!("{p}.{name}.bias"))?),
                        false => None,
                    },
                    lora: None,
                })
            };
            let bias = config.attention_bias;
            let q_proj = linear("self_attn.q_proj", bias)?;
            let k_proj = linear("self_attn.k_proj", bias)?;
            let v_proj = linear("self_attn.v_proj", bias)?;
            let o_proj = linear("self_attn.o_proj", has_output_bias(config))?;
            let gate_proj = linear("mlp.gate_proj", false)?;
            let up_proj = linear("mlp.up_proj", false)?;
            let down_proj = linear("mlp.down_proj", false)?;
            let (q_norm, k_norm) = match config.qk_norm {
                true => (
                    Some(take(&format!("{p}.self_attn.q_norm.weight"))?),
                    Some(take(&format!("{p}.self_attn.k_norm.weight"))?),
                ),
                false => (None, None),
            };
            layers.push(Layer {
                attn_norm: take(&format!("{p}.input_layernorm.weight"))?,
                q_proj,
                k_proj,
                v_proj,
                o_proj,
                q_norm,
                k_norm,
                mlp_norm: take(&format!("{p}.post_attention_layernorm.weight"))?,
                gate_proj,
                up_proj,
                down_proj,
            });
        }
        let norm = take("model.norm.weight")?;
        let lm_head = match config.tie_embeddings {
            true => None,
            false => Some(take("lm_head.weight")?),
        };
        Ok(Self {
            rope: Rope::new(config, device, kind)?,
            config: config.clone(),
            device,
            kind,
            embed_tokens,
            layers,
            norm,
            lm_head,
        })
    }

    /// All tensors by Hugging Face name, sharing memory with the model. Adapters are
    /// not merged and not included.
    pub fn to_weights(&self) -> Weights {
        let mut out = Weights::default();
        for (name, tensor) in self.named_tensors() {
            out.tensors.insert(name, tensor.detach());
        }
        out
    }

    /// Every tensor of the model with its Hugging Face name, in the order of
    /// computation (not sorted). Adapters are not included.
    pub fn named_tensors(&self) -> Vec<(String, &Tensor)> {
        let mut out = vec![("model.embed_tokens.weight".to_owned(), &self.embed_tokens)];
        for (i, layer) in self.layers.iter().enumerate() {
            let p = format!("model.layers.{i}");
            out.push((format!("{p}.input_layernorm.weight"), &layer.attn_norm));
            for (name, linear) in PROJECTIONS.iter().zip(layer.projections()) {
                out.push((format!("{p}.{name}.weight"), &linear.weight));
                if let Some(bias) = &linear.bias {
                    out.push((format!("{p}.{name}.bias"), bias));
                }
            }
            if let Some(w) = &layer.q_norm {
                out.push((format!("{p}.self_attn.q_norm.weight"), w));
            }
            if let Some(w) = &layer.k_norm {
                out.push((format!("{p}.self_attn.k_norm.weight"), w));
            }
            out.push((
                format!("{p}.post_attention_layernorm.weight"),
                &layer.mlp_norm,
            ));
        }
        out.push(("model.norm.weight".to_owned(), &self.norm));
        if let Some(head) = &self.lm_head {
            out.push(("lm_head.weight".to_owned(), head));
        }
        out
    }

    /// Rows of the embedding for `[tokens]` (i64): `[tokens, hidden]`.
    ///
    /// # Errors
    /// When libtorch refuses (a token outside the vocabulary).
    pub fn embed(&self, tokens: &Tensor) -> Result<Tensor, ModelError> {
        Ok(Tensor::f_embedding(
            &self.embed_tokens,
            tokens,
            -1,
            false,
            false,
        )?)
    }

    /// What every layer needs to know about rows of these lengths.
    ///
    /// # Errors
    /// When a row is empty or longer than the context.
    pub fn plan(&self, lengths: &[i64]) -> Result<RowPlan, ModelError> {
        let mut spans = Vec::with_capacity(lengths.len());
        for &length in lengths {
            if length <= 0 {
                return Err(ModelError::Request("a row without tokens".to_owned()));
            }
            if length as usize > self.config.max_positions {
                return Err(ModelError::Context {
                    tokens: length as usize,
                    limit: self.config.max_positions,
                });
            }
            spans.push(Span::whole(length));
        }
        Ok(RowPlan {
            lengths: lengths.to_vec(),
            rope: self.rope.rows(&spans)?,
        })
    }

    /// One block on the stream `[total, hidden]` of a batch of whole rows.
    ///
    /// # Errors
    /// When libtorch refuses, or there is no such layer.
    pub fn layer(&self, index: usize, x: &Tensor, plan: &RowPlan) -> Result<Tensor, ModelError> {
        let layer = self
            .layers
            .get(index)
            .ok_or_else(|| ModelError::Request(format!("no layer {index}")))?;
        let config = &self.config;
        let normed = rms_norm(x, &layer.attn_norm, config.norm_eps)?;
        let (q, k, v) = layer.queries_keys_values(&normed, &plan.rope, config)?;
        let mut rows = Vec::with_capacity(plan.lengths.len());
        let mut start = 0;
        for &length in &plan.lengths {
            rows.push(causal_attention(
                &q.f_narrow(0, start, length)?,
                &k.f_narrow(0, start, length)?,
                &v.f_narrow(0, start, length)?,
            )?);
            start += length;
        }
        let context = Tensor::f_cat(&rows, 0)?;
        let x = x.f_add(&layer.o_proj.forward(&context)?)?;
        let normed = rms_norm(&x, &layer.mlp_norm, config.norm_eps)?;
        Ok(x.f_add(&layer.feed_forward(&normed)?)?)
    }

    /// Hidden states after the final norm, `[total, hidden]`, of rows that lie one
    /// after another in `tokens` (`[total]`, i64, on the model's device).
    ///
    /// # Errors
    /// When the lengths do not sum to the tokens, a row exceeds the context, or
    /// libtorch refuses.
    pub fn hidden_rows(&self, tokens: &Tensor, lengths: &[i64]) -> Result<Tensor, ModelError> {
        let total: i64 = lengths.iter().sum();
        if tokens.size() != [total] {
            return Err(ModelError::Request(format!(
                "rows of {total} tokens in all, but tokens of shape {:?}",
                tokens.size()
            )));
        }
        let plan = self.plan(lengths)?;
        let x = self.embed(tokens)?;
        self.finish_rows(x, &plan, 0)
    }

    /// As [`Self::hidden_rows`], from the stream `[total, hidden]` that enters layer
    /// `from_layer` (so that a caller may run frozen layers without a graph first).
    ///
    /// # Errors
    /// When libtorch refuses.
    pub fn finish_rows(
        &self,
        mut x: Tensor,
        plan: &RowPlan,
        from_layer: usize,
    ) -> Result<Tensor, ModelError> {
        for index in from_layer..self.layers.len() {
            x = self.layer(index, &x, plan)?;
        }
        rms_norm(&x, &self.norm, self.config.norm_eps)
    }

    /// Scores of every token of the vocabulary for hidden states `[n, hidden]`: `[n, vocab]`.
    ///
    /// # Errors
    /// When libtorch refuses.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor, ModelError> {
        let head = self.lm_head.as_ref().unwrap_or(&self.embed_tokens);
        Ok(hidden.f_linear::<&Tensor>(head, None)?)
    }
}

/// RMSNorm over the last dimension.
///
/// # Errors
/// When libtorch refuses.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor, ModelError> {
    Ok(x.f_rms_norm(weight.size(), Some(weight), eps)?)
}

/// Causal attention of one row: `q` `[n, heads, d]`, `k` and `v` `[n, kv_heads, d]` →
/// `[n, heads · d]`. Keys are shared by a group of heads through a stride of zero:
/// the key/value heads are the kernel's batch, the heads of a group its heads.
///
/// # Errors
/// When libtorch refuses.
pub fn causal_attention(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor, ModelError> {
    let (n, heads, d) = q.size3()?;
    let (_, kv_heads, _) = k.size3()?;
    let group = heads / kv_heads;
    let q = q.f_view([n, kv_heads, group, d])?.f_permute([1, 2, 0, 3])?;
    let spread = |t: &Tensor| -> Result<Tensor, tch::TchError> {
        t.f_permute([1, 0, 2])?
            .f_unsqueeze(1)?
            .f_expand([kv_heads, group, n, d], true)
    };
    let out = Tensor::f_scaled_dot_product_attention::<&Tensor>(
        &q,
        &spread(k)?,
        &spread(v)?,
        None,
        0.0,
        true,
        None::<f64>,
        false,
    )?;
    Ok(out.f_permute([2, 0, 1, 3])?.f_reshape([n, heads * d])?)
}
