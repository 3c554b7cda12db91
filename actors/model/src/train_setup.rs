//! What a training starts from: rows that are checked, the prefix that they share, the
//! tensors that are trained.

use crate::error::ModelError;
use crate::optimizer::Parameter;
use crate::train::TrainingRow;
use crate::transformer::{PROJECTIONS, Transformer};
use tch::Tensor;

/// Group of each row; refuses malformed rows, rows longer than the context, and groups
/// that are no partition.
pub(crate) fn check_rows(
    rows: &[TrainingRow],
    groups: &[Vec<usize>],
    context: usize,
) -> Result<Vec<usize>, ModelError> {
    for (index, row) in rows.iter().enumerate() {
        if row.tokens.len() > context {
            return Err(ModelError::Context {
                tokens: row.tokens.len(),
                limit: context,
            });
        }
        if row.tokens.len() != row.loss.len() || row.loss_tokens() == 0 {
            return Err(ModelError::Request(format!(
                "row {index}: {} tokens, {} loss flags, {} tokens with loss",
                row.tokens.len(),
                row.loss.len(),
                row.loss_tokens()
            )));
        }
    }
    let mut group_of = vec![usize::MAX; rows.len()];
    for (group, members) in groups.iter().enumerate() {
        for &row in members {
            match group_of.get_mut(row) {
                Some(slot) if *slot == usize::MAX => *slot = group,
                _ => {
                    return Err(ModelError::Request(format!(
                        "groups are no partition: row {row}"
                    )));
                }
            }
        }
    }
    if group_of.contains(&usize::MAX) {
        return Err(ModelError::Request("groups leave rows out".to_owned()));
    }
    Ok(group_of)
}

/// Tokens that all rows begin with, short enough that every row keeps the positions
/// that predict its loss tokens.
pub(crate) fn shared_prefix(rows: &[TrainingRow]) -> usize {
    let Some(first) = rows.first() else { return 0 };
    if rows.len() < 2 {
        return 0;
    }
    let mut prefix = first.tokens.len();
    for row in rows {
        let same = first
            .tokens
            .iter()
            .zip(&row.tokens)
            .take_while(|(a, b)| a == b)
            .count();
        let predicts = row
            .loss
            .iter()
            .skip(1)
            .position(|l| *l)
            .unwrap_or(row.loss.len());
        prefix = prefix.min(same).min(predicts);
    }
    prefix
}

/// Makes the trained tensors the model's own (nobody else's memory is written to) and
/// lists them in the order of computation.
pub(crate) fn own_parameters(
    model: &mut Transformer,
    frozen: usize,
    lora: bool,
) -> Result<Vec<Parameter>, ModelError> {
    let mut out = Vec::new();
    let mut take = |name: String, tensor: &mut Tensor| -> Result<(), ModelError> {
        *tensor = tensor.f_detach_copy()?.f_detach()?;
        out.push(Parameter {
            decay: tensor.dim() > 1,
            tensor: tensor.shallow_clone(),
            name,
        });
        Ok(())
    };
    if !lora && frozen == 0 {
        take(
            "model.embed_tokens.weight".to_owned(),
            &mut model.embed_tokens,
        )?;
    }
    for (index, layer) in model.layers.iter_mut().enumerate().skip(frozen) {
        let p = format!("model.layers.{index}");
        if lora {
            for (name, linear) in PROJECTIONS.iter().zip(layer.projections_mut()) {
                if let Some(pair) = &mut linear.lora {
                    take(format!("{p}.{name}.lora_a"), &mut pair.a)?;
                    take(format!("{p}.{name}.lora_b"), &mut pair.b)?;
                }
            }
            continue;
        }
        take(format!("{p}.input_layernorm.weight"), &mut layer.attn_norm)?;
        for (name, linear) in PROJECTIONS.iter().zip(layer.projections_mut()) {
            take(format!("{p}.{name}.weight"), &mut linear.weight)?;
            if let Some(bias) = &mut linear.bias {
                take(format!("{p}.{name}.bias"), bias)?;
            }
        }
        if let Some(w) = &mut layer.q_norm {
            take(format!("{p}.self_attn.q_norm.weight"), w)?;
        }
        if let Some(w) = &mut layer.k_norm {
            take(format!("{p}.self_attn.k_norm.weight"), w)?;
        }
        take(
            format!("{p}.post_attention_layernorm.weight"),
            &mut layer.mlp_norm,
        )?;
    }
    if !lora {
        take("model.norm.weight".to_owned(), &mut model.norm)?;
        if let Some(head) = &mut model.lm_head {
            take("lm_head.weight".to_owned(), head)?;
        }
    }
    Ok(out)
}
