//! Rotary position embedding in Hugging Face's layout (the two halves of a head rotate
//! against one another).

use crate::config::{ModelConfig, RopeScaling};
use crate::error::ModelError;
use tch::{Device, Kind, Tensor};

/// Cosines and sines of all positions of the context.
#[derive(Debug)]
pub struct Rope {
    /// `[positions, head_dim]`.
    cos: Tensor,
    /// `[positions, head_dim]`, the first half negated: with the halves of `x` swapped,
    /// rotation is `x * cos + swapped * sin`.
    sin: Tensor,
}

/// Cosines and sines of the tokens of one batch, ready to be multiplied with heads.
#[derive(Debug)]
pub struct RopeRows {
    /// `[tokens, 1, head_dim]`.
    pub cos: Tensor,
    /// `[tokens, 1, head_dim]`, first half negated.
    pub sin: Tensor,
}

impl Rope {
    /// Tables for a model.
    ///
    /// # Errors
    /// When libtorch refuses.
    pub fn new(config: &ModelConfig, device: Device, kind: Kind) -> Result<Self, ModelError> {
        let half = config.head_dim / 2;
        let inverse: Vec<f32> = (0..half)
            .map(|i| inverse_frequency(config, i) as f32)
            .collect();
        // f32 products as in transformers, so that long positions round alike.
        let inverse = Tensor::f_from_slice(&inverse)?.f_unsqueeze(0)?;
        let positions = Tensor::f_arange(config.max_positions as i64, (Kind::Float, Device::Cpu))?
            .f_unsqueeze(1)?;
        let angles = positions.f_mul(&inverse)?;
        let cos = angles.f_cos()?;
        let sin = angles.f_sin()?;
        let cos = Tensor::f_cat(&[&cos, &cos], 1)?;
        let sin = Tensor::f_cat(&[&sin.f_neg()?, &sin], 1)?;
        Ok(Self {
            cos: cos.f_to_device(device)?.f_to_kind(kind)?,
            sin: sin.f_to_device(device)?.f_to_kind(kind)?,
        })
    }

    /// The rows of these positions (`[tokens]`, i64, on the model's device).
    ///
    /// # Errors
    /// When libtorch refuses.
    pub fn rows(&self, positions: &Tensor) -> Result<RopeRows, ModelError> {
        Ok(RopeRows {
            cos: self.cos.f_index_select(0, positions)?.f_unsqueeze(1)?,
            sin: self.sin.f_index_select(0, positions)?.f_unsqueeze(1)?,
        })
    }
}

impl RopeRows {
    /// Rotates `[tokens, heads, head_dim]`.
    ///
    /// # Errors
    /// When libtorch refuses.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor, ModelError> {
        let dim = x.size().last().copied().unwrap_or(0);
        let half = dim / 2;
        let swapped = Tensor::f_cat(&[x.f_narrow(-1, half, half)?, x.f_narrow(-1, 0, half)?], -1)?;
        Ok(x.f_mul(&self.cos)?.f_addcmul(&swapped, &self.sin)?)
    }
}

/// Radians per position of the i-th pair.
fn inverse_frequency(config: &ModelConfig, i: i64) -> f64 {
    let plain = config
        .rope_theta
        .powf(-(2 * i) as f64 / config.head_dim as f64);
    match config.rope_scaling {
        RopeScaling::None => plain,
        RopeScaling::Linear { factor } => plain / factor,
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_positions,
        } => {
            let wavelength = 2.0 * std::f64::consts::PI / plain;
            if wavelength < original_max_positions / high_freq_factor {
                plain
            } else if wavelength > original_max_positions / low_freq_factor {
                plain / factor
            } else {
                let smooth = (original_max_positions / wavelength - low_freq_factor)
                    / (high_freq_factor - low_freq_factor);
                (1.0 - smooth) * plain / factor + smooth * plain
            }
        }
    }
}
