//! What the parity tests share: the Rust twin of data/common.py, recorded fixtures, and a
//! writer of small GGUF files.
#![allow(dead_code, clippy::unwrap_used)]

pub mod gguf;

use gametape_model::weights::expected_tensors;
use gametape_model::{ModelConfig, Transformer, Weights};
use safetensors::SafeTensors;
use serde_json::Value;
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};

/// A file of tests/data.
pub fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

pub fn json(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(data(name)).unwrap()).unwrap()
}

/// A recorded file of tensors.
pub struct Recorded(Vec<u8>);

impl Recorded {
    pub fn open(name: &str) -> Self {
        Self(std::fs::read(data(name)).unwrap())
    }

    pub fn names(&self) -> Vec<String> {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        file.names().into_iter().map(str::to_owned).collect()
    }

    pub fn bytes(&self, name: &str) -> Vec<u8> {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        file.tensor(name).unwrap().data().to_vec()
    }

    pub fn floats(&self, name: &str) -> Vec<f32> {
        let parts = self.bytes(name);
        let parts = parts.chunks_exact(4);
        parts
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
            .collect()
    }

    pub fn tokens(&self, name: &str) -> Vec<u32> {
        let parts = self.bytes(name);
        let parts = parts.chunks_exact(2);
        parts
            .map(|b| u32::from(u16::from_le_bytes(b.try_into().unwrap())))
            .collect()
    }

    /// A tensor of tokens, row by row.
    pub fn token_rows(&self, name: &str) -> Vec<Vec<u32>> {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let width = file.tensor(name).unwrap().shape()[1];
        self.tokens(name)
            .chunks(width)
            .map(<[u32]>::to_vec)
            .collect()
    }
}

fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xCBF2_9CE4_8422_2325, |value, byte| {
        (value ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3)
    })
}

/// `count` numbers in [-1, 1), multiples of 2⁻²³.
pub fn units(name: &str, count: usize) -> Vec<f32> {
    let seed = fnv(name);
    (1..=count as u64)
        .map(|i| {
            let mut z = seed.wrapping_add(i.wrapping_mul(0x9E37_79B9_7F4A_7C15));
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^= z >> 31;
            (z >> 40) as f32 / (1u32 << 23) as f32 - 1.0
        })
        .collect()
}

/// A tensor as Python makes it.
pub fn weight(name: &str, shape: &[i64]) -> Tensor {
    let mut numbers = units(name, shape.iter().product::<i64>() as usize);
    for u in &mut numbers {
        if let [_, inputs] = shape {
            *u *= (3.0 / *inputs as f64).sqrt() as f32;
        } else if name.ends_with("norm.weight") {
            *u *= 0.25;
            *u += 1.0;
        } else {
            *u *= 0.25;
        }
    }
    Tensor::from_slice(&numbers).view(shape)
}

pub fn weights(config: &ModelConfig) -> Weights {
    let mut out = Weights::default();
    for (name, shape) in expected_tensors(config) {
        let tensor = weight(&name, &shape);
        out.tensors.insert(name, tensor);
    }
    out
}

/// `count` tokens of the tiny vocabulary, none of the special ones.
pub fn tokens(name: &str, count: usize) -> Vec<i64> {
    let u = units(&format!("tokens {name}"), count);
    u.iter().map(|x| 3 + ((x + 1.0) * 128.0) as i64).collect()
}

/// The shape of a variant, by way of its `config.json`.
pub fn variant(name: &str) -> ModelConfig {
    let text = json("models.json")["variants"][name].to_string();
    ModelConfig::from_hf_json(&text, Path::new(name)).unwrap()
}

pub fn variants() -> Vec<String> {
    let all = json("models.json");
    all["variants"]
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect()
}

pub fn model(config: &ModelConfig) -> Transformer {
    // Tests run beside one another: more threads each would only wait for one another.
    tch::set_num_threads(1);
    Transformer::from_weights(config, weights(config), Device::Cpu, Kind::Float).unwrap()
}

/// Logits of every token of one row, `[tokens, vocab]`.
pub fn logits(model: &Transformer, tokens: &[i64]) -> Tensor {
    tch::no_grad(|| {
        let flat = Tensor::from_slice(tokens);
        let hidden = model.hidden_rows(&flat, &[tokens.len() as i64]).unwrap();
        model.logits(&hidden).unwrap()
    })
}

pub fn floats(tensor: &Tensor) -> Vec<f32> {
    let flat = tensor.detach().to_kind(Kind::Float).contiguous().view(-1);
    Vec::<f32>::try_from(&flat).unwrap()
}

/// The largest difference; the lengths must be the same.
pub fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let pairs = a.iter().zip(b);
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// `GAMETAPE_SMOLLM2`, or the file of that name below the cache's models.
pub fn smollm2() -> Option<PathBuf> {
    const NAME: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
    if let Some(path) = std::env::var_os("GAMETAPE_SMOLLM2") {
        return Some(PathBuf::from(path));
    }
    let models = cache()?.join("models");
    let mut files = std::fs::read_dir(models)
        .ok()?
        .flatten()
        .map(|d| d.path().join(NAME));
    files.find(|f| f.is_file())
}

/// The virtual environment of data/record.py, where it is complete.
pub fn python() -> Option<PathBuf> {
    let hash = std::process::Command::new("sha256sum")
        .arg(data("requirements.txt"))
        .output()
        .ok()?;
    let hash = String::from_utf8(hash.stdout).ok()?;
    let place = cache()?.join("parity").join(hash.get(..16)?);
    let complete = place.join("complete").is_file();
    complete.then(|| place.join("bin/python"))
}

/// A call of data/record.py in its environment.
pub fn record(python: &Path, verb: &str) -> std::process::Command {
    let mut command = std::process::Command::new(python);
    command.arg(data("record.py")).arg(verb);
    command.env("GAMETAPE_PARITY_INSIDE", "1");
    command.env("CUDA_VISIBLE_DEVICES", "");
    command
}

/// The user's cache.
pub fn cache() -> Option<PathBuf> {
    let home = |name: &str, rest: &str| Some(PathBuf::from(std::env::var_os(name)?).join(rest));
    home("GAMETAPE_CACHE", "")
        .or_else(|| home("XDG_CACHE_HOME", "gametape"))
        .or_else(|| home("HOME", ".cache/gametape"))
}
