//! Block formats of GGUF to f32.
//!
//! A block holds 32 weights (256 for the K kinds) as small integers with a scale:
//! Q8_0 `d·q`; Q4_0 `d·(q−8)`; Q4_1 `d·q + m`; Q5_0 and Q5_1 the same with a fifth bit
//! kept apart; Q4_K, Q5_K and Q6_K have scales for sub-blocks that are themselves
//! quantised.

use crate::error::ModelError;
use half::{bf16, f16};

/// A number format of GGUF.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// Brain floats.
    BF16,
    /// 8 bits, one scale.
    Q8_0,
    /// 4 bits, one scale.
    Q4_0,
    /// 4 bits, scale and minimum.
    Q4_1,
    /// 5 bits, one scale.
    Q5_0,
    /// 5 bits, scale and minimum.
    Q5_1,
    /// 4 bits in 8 sub-blocks of 32.
    Q4K,
    /// 5 bits in 8 sub-blocks of 32.
    Q5K,
    /// 6 bits in 16 sub-blocks of 16.
    Q6K,
}

impl Format {
    /// The format with this id in a GGUF tensor directory.
    ///
    /// # Errors
    /// When it is not supported.
    pub fn from_id(id: u32, tensor: &str) -> Result<Self, ModelError> {
        Ok(match id {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q8_0,
            12 => Self::Q4K,
            13 => Self::Q5K,
            14 => Self::Q6K,
            30 => Self::BF16,
            other => {
                return Err(ModelError::Unsupported {
                    what: format!("the GGUF number format {other} of `{tensor}`"),
                    supported: "F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K"
                        .to_owned(),
                });
            }
        })
    }

    /// Numbers in a block.
    pub fn block(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            Self::Q8_0 | Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 => 32,
            Self::Q4K | Self::Q5K | Self::Q6K => 256,
        }
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Q8_0 => 34,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }

    /// Bytes of `n` numbers; `None` when they are no whole number of blocks.
    pub fn bytes(self, n: usize) -> Option<usize> {
        if !n.is_multiple_of(self.block()) {
            return None;
        }
        (n / self.block()).checked_mul(self.block_bytes())
    }
}

fn half_at(block: &[u8], at: usize) -> f32 {
    match block.get(at..at + 2) {
        Some(&[a, b]) => f16::from_le_bytes([a, b]).to_f32(),
        _ => 0.0,
    }
}

/// Unpacks whole blocks; a rest that is no whole block is ignored (the tensor
/// directory has been checked against [`Format::bytes`]).
pub fn dequantize(format: Format, raw: &[u8]) -> Vec<f32> {
    let blocks = raw.chunks_exact(format.block_bytes());
    let mut out = Vec::with_capacity(blocks.len() * format.block());
    for block in blocks {
        match format {
            Format::F32 => {
                let mut b = [0; 4];
                b.copy_from_slice(block);
                out.push(f32::from_le_bytes(b));
            }
            Format::F16 => out.push(half_at(block, 0)),
            Format::BF16 => {
                let mut b = [0; 2];
                b.copy_from_slice(block);
                out.push(bf16::from_le_bytes(b).to_f32());
            }
            Format::Q8_0 => {
                let d = half_at(block, 0);
                out.extend(block.iter().skip(2).map(|q| d * f32::from(*q as i8)));
            }
            Format::Q4_0 => {
                let d = half_at(block, 0);
                let q = block.get(2..).unwrap_or_default();
                out.extend(q.iter().map(|b| d * (f32::from(b & 15) - 8.0)));
                out.extend(q.iter().map(|b| d * (f32::from(b >> 4) - 8.0)));
            }
            Format::Q4_1 => {
                let (d, m) = (half_at(block, 0), half_at(block, 2));
                let q = block.get(4..).unwrap_or_default();
                out.extend(q.iter().map(|b| d * f32::from(b & 15) + m));
                out.extend(q.iter().map(|b| d * f32::from(b >> 4) + m));
            }
            Format::Q5_0 => {
                let d = half_at(block, 0);
                let q = five_bits(block, 2);
                out.extend(q.iter().map(|q| d * (f32::from(*q) - 16.0)));
            }
            Format::Q5_1 => {
                let (d, m) = (half_at(block, 0), half_at(block, 2));
                let q = five_bits(block, 4);
                out.extend(q.iter().map(|q| d * f32::from(*q) + m));
            }
            Format::Q4K => q4_k(block, &mut out),
            Format::Q5K => q5_k(block, &mut out),
            Format::Q6K => q6_k(block, &mut out),
        }
    }
    out
}

/// Scale and minimum (6 bits each) of sub-block `j`, out of 12 packed bytes: the first
/// four pairs lie in the low six bits, the upper bits of the last four in what is left.
fn scale_and_minimum(packed: &[u8; 12], j: usize) -> (f32, f32) {
    let at = |i: usize| packed.get(i).copied().unwrap_or(0);
    let (scale, minimum) = if j < 4 {
        (at(j) & 63, at(j + 4) & 63)
    } else {
        (
            (at(j + 4) & 15) | ((at(j - 4) >> 6) << 4),
            (at(j + 4) >> 4) | ((at(j) >> 6) << 4),
        )
    };
    (f32::from(scale), f32::from(minimum))
}

/// 144 bytes: d, dmin (f16), 12 bytes of scales, 128 bytes of nibbles. Sub-blocks 2i
/// and 2i+1 share 32 bytes: low nibbles, then high nibbles.
fn q4_k(block: &[u8], out: &mut Vec<f32>) {
    let (d, dmin) = (half_at(block, 0), half_at(block, 2));
    let mut packed = [0; 12];
    packed.copy_from_slice(block.get(4..16).unwrap_or(&[0; 12]));
    for (i, q) in block
        .get(16..)
        .unwrap_or_default()
        .chunks_exact(32)
        .enumerate()
    {
        let (s, m) = scale_and_minimum(&packed, 2 * i);
        out.extend(q.iter().map(|b| d * s * f32::from(b & 15) - dmin * m));
        let (s, m) = scale_and_minimum(&packed, 2 * i + 1);
        out.extend(q.iter().map(|b| d * s * f32::from(b >> 4) - dmin * m));
    }
}

/// 32 numbers of five bits: 4 bytes of fifth bits from `at`, then 16 bytes of nibbles
/// (numbers 0–15 low, 16–31 high).
fn five_bits(block: &[u8], at: usize) -> [u8; 32] {
    let mut fifth = [0; 4];
    fifth.copy_from_slice(block.get(at..at + 4).unwrap_or(&[0; 4]));
    let fifth = u32::from_le_bytes(fifth);
    let mut out = [0; 32];
    for (i, q) in out.iter_mut().enumerate() {
        let byte = block.get(at + 4 + i % 16).copied().unwrap_or(0);
        let low = if i < 16 { byte & 15 } else { byte >> 4 };
        *q = low | ((((fifth >> i) & 1) as u8) << 4);
    }
    out
}

/// 176 bytes: as Q4_K, with 32 bytes of fifth bits before the nibbles; bit `j` of byte
/// `l` belongs to number `l` of sub-block `j`.
fn q5_k(block: &[u8], out: &mut Vec<f32>) {
    let (d, dmin) = (half_at(block, 0), half_at(block, 2));
    let mut packed = [0; 12];
    packed.copy_from_slice(block.get(4..16).unwrap_or(&[0; 12]));
    let high = block.get(16..48).unwrap_or(&[0; 32]);
    let low = block.get(48..).unwrap_or_default();
    for (i, nibbles) in low.chunks_exact(32).enumerate() {
        for j in [2 * i, 2 * i + 1] {
            let (s, m) = scale_and_minimum(&packed, j);
            out.extend(nibbles.iter().zip(high).map(|(b, h)| {
                let four = if j % 2 == 0 { b & 15 } else { b >> 4 };
                let q = four | (((h >> j) & 1) << 4);
                d * s * f32::from(q) - dmin * m
            }));
        }
    }
}

/// 210 bytes: 128 of low nibbles, 64 of upper two bits, 16 signed scales, d (f16).
/// Each half (128 numbers) uses 64 low bytes, 32 high bytes and 8 scales.
fn q6_k(block: &[u8], out: &mut Vec<f32>) {
    let at = |i: usize| block.get(i).copied().unwrap_or(0);
    let d = half_at(block, 208);
    for half in 0..2 {
        for quarter in 0..4 {
            for l in 0..32 {
                let low = at(64 * half + l + 32 * (quarter % 2));
                let low = if quarter < 2 { low & 15 } else { low >> 4 };
                let high = (at(128 + 32 * half + l) >> (2 * quarter)) & 3;
                let q = f32::from(low | (high << 4)) - 32.0;
                let scale = at(192 + 8 * half + 2 * quarter + l / 16) as i8;
                out.push(d * f32::from(scale) * q);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn h(x: f32) -> [u8; 2] {
        f16::from_f32(x).to_le_bytes()
    }

    #[test]
    fn q8_0_by_hand() {
        let mut block = h(0.5).to_vec();
        block.extend((0..32u8).map(|i| i.wrapping_sub(16)));
        let out = dequantize(Format::Q8_0, &block);
        assert_eq!((out.len(), out[0], out[16], out[31]), (32, -8.0, 0.0, 7.5));
    }

    #[test]
    fn q4_0_and_q4_1_by_hand() {
        // Byte i holds number i in the low nibble and number i + 16 in the high one.
        let nibbles = (0..16u8).map(|i| i | ((15 - i) << 4));
        let mut block = h(2.0).to_vec();
        block.extend(nibbles.clone());
        let out = dequantize(Format::Q4_0, &block);
        assert_eq!(
            (out[0], out[15], out[16], out[31]),
            (-16.0, 14.0, 14.0, -16.0)
        );
        let mut block = h(0.25).to_vec();
        block.extend(h(-1.0));
        block.extend(nibbles);
        let out = dequantize(Format::Q4_1, &block);
        assert_eq!((out[0], out[4], out[16], out[31]), (-1.0, 0.0, 2.75, -1.0));
    }

    #[test]
    fn q4_k_by_hand() {
        let mut block = h(0.5).to_vec();
        block.extend(h(0.25));
        // Sub-block 0: scale 3, minimum 4. Sub-block 5: scale 0x21, minimum 0x13: low
        // nibbles in byte 9, upper two bits in bytes 1 (scale) and 5 (minimum).
        let mut scales = [0u8; 12];
        scales[0] = 3;
        scales[4] = 4;
        scales[9] = 0x31;
        scales[1] = 2 << 6;
        scales[5] = 1 << 6;
        block.extend(scales);
        let mut q = [0u8; 128];
        q[0] = 7; // number 0
        q[64] = 9 << 4; // sub-block 5, number 160
        block.extend(q);
        let out = dequantize(Format::Q4K, &block);
        assert_eq!(out.len(), 256);
        assert_eq!(out[0], 0.5 * 3.0 * 7.0 - 0.25 * 4.0);
        assert_eq!(out[1], -1.0);
        assert_eq!(out[160], 0.5 * 33.0 * 9.0 - 0.25 * 19.0);
        assert_eq!(out[255], 0.0);
    }

    #[test]
    fn q6_k_by_hand() {
        let mut block = [0u8; 210];
        // Second half, third quarter, l = 20: number 128 + 64 + 20 = 212.
        block[64 + 20] = 5 << 4;
        block[128 + 32 + 20] = 3 << 4;
        block[192 + 8 + 4 + 1] = (-2i8) as u8;
        block[208..].copy_from_slice(&h(0.5));
        let out = dequantize(Format::Q6K, &block);
        assert_eq!(out.len(), 256);
        assert_eq!(out[212], 0.5 * -2.0 * (5.0 + 48.0 - 32.0));
        // l = 21 has the same scale and q = 0 - 32.
        assert_eq!(out[213], 32.0);
        assert_eq!(out[0], 0.0);
    }

    #[test]
    fn floats() {
        assert_eq!(dequantize(Format::F16, &h(1.5)), [1.5]);
        assert_eq!(
            dequantize(Format::BF16, &bf16::from_f32(-3.0).to_le_bytes()),
            [-3.0]
        );
        assert_eq!(dequantize(Format::F32, &7.0f32.to_le_bytes()), [7.0]);
        assert!(Format::from_id(10, "x").is_err());
    }
}
