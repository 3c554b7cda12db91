//! The resumable state of a training as one safetensors file: `p.NAME` (trained
//! tensor), `m.NAME` and `v.NAME` (moments).

use crate::optimizer::{AdamW, Parameter};
use crate::train::TrainError;
use safetensors::tensor::{Dtype, SafeTensors, TensorView, View};
use std::borrow::Cow;
use std::path::Path;
use tch::{Kind, Tensor};

/// A tensor that is copied out of libtorch only while it is written.
struct Lazy<'a> {
    tensor: &'a Tensor,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: usize,
}

impl<'a> Lazy<'a> {
    fn new(tensor: &'a Tensor) -> Result<Self, TrainError> {
        let (dtype, size) = match tensor.kind() {
            Kind::Float => (Dtype::F32, 4),
            Kind::Double => (Dtype::F64, 8),
            other => return Err(TrainError::State(format!("tensors of kind {other:?}"))),
        };
        Ok(Self {
            tensor,
            dtype,
            shape: tensor.size().iter().map(|d| *d as usize).collect(),
            bytes: tensor.numel() * size,
        })
    }

    fn bytes(&self) -> Result<Vec<u8>, tch::TchError> {
        let mut out = vec![0u8; self.bytes];
        self.tensor
            .f_detach()?
            .f_to_device(tch::Device::Cpu)?
            .f_contiguous()?
            .f_copy_data_u8(&mut out, self.tensor.numel())?;
        Ok(out)
    }
}

impl View for &Lazy<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        // The trait cannot fail. A short buffer makes the file unreadable, and the
        // caller reads sizes back before it trusts a checkpoint.
        Cow::Owned(self.bytes().unwrap_or_default())
    }
    fn data_len(&self) -> usize {
        self.bytes
    }
}

/// Writes the state; returns the digest of the trained tensors' names and bytes.
pub(crate) fn save(
    path: &Path,
    parameters: &[Parameter],
    adam: &AdamW,
) -> Result<blake3::Hash, TrainError> {
    let mut tensors: Vec<(String, Lazy<'_>)> = Vec::new();
    let mut hasher = blake3::Hasher::new();
    for (parameter, (m, v)) in parameters.iter().zip(adam.moments()) {
        let trained = Lazy::new(&parameter.tensor)?;
        hasher.update(parameter.name.as_bytes());
        hasher.update(&trained.bytes()?);
        tensors.push((format!("p.{}", parameter.name), trained));
        tensors.push((format!("m.{}", parameter.name), Lazy::new(m)?));
        tensors.push((format!("v.{}", parameter.name), Lazy::new(v)?));
    }
    let expected: usize = tensors.iter().map(|(_, t)| t.bytes).sum();
    safetensors::serialize_to_file(tensors.iter().map(|(n, t)| (n, t)), None, path)
        .map_err(from_safetensors)?;
    let written = std::fs::metadata(path).map_err(TrainError::Io)?.len();
    if written < expected as u64 {
        return Err(TrainError::State(format!(
            "{written} bytes written of more than {expected}"
        )));
    }
    Ok(hasher.finalize())
}

/// Reads the state into parameters and optimiser, after checking all of it.
pub(crate) fn load(
    path: &Path,
    step: u64,
    parameters: &mut [Parameter],
    adam: &mut AdamW,
) -> Result<(), TrainError> {
    let bytes = std::fs::read(path).map_err(TrainError::Io)?;
    let file = SafeTensors::deserialize(&bytes).map_err(from_safetensors)?;
    let mut trained = Vec::with_capacity(parameters.len());
    let mut moments = Vec::with_capacity(parameters.len());
    for parameter in parameters.iter() {
        let get = |part: &str| -> Result<Tensor, TrainError> {
            let name = format!("{part}.{}", parameter.name);
            let view = file
                .tensor(&name)
                .map_err(|_| TrainError::State(format!("`{name}` is missing")))?;
            to_tensor(&name, &view, &parameter.tensor)
        };
        trained.push(get("p")?);
        moments.push((get("m")?, get("v")?));
    }
    adam.restore(step, &moments)?;
    let _guard = tch::no_grad_guard();
    for (parameter, saved) in parameters.iter_mut().zip(&trained) {
        // Through a detached alias: the leaf stays the same tensor.
        parameter.tensor.f_detach()?.f_copy_(saved)?;
    }
    Ok(())
}

fn to_tensor(name: &str, view: &TensorView<'_>, like: &Tensor) -> Result<Tensor, TrainError> {
    let kind = match view.dtype() {
        Dtype::F32 => Kind::Float,
        Dtype::F64 => Kind::Double,
        other => return Err(TrainError::State(format!("`{name}` is {other:?}"))),
    };
    let shape: Vec<i64> = view.shape().iter().map(|d| *d as i64).collect();
    if shape != like.size() || kind != like.kind() {
        return Err(TrainError::State(format!(
            "`{name}` is {kind:?} {shape:?}, expected {:?} {:?}",
            like.kind(),
            like.size()
        )));
    }
    Ok(Tensor::f_from_data_size(view.data(), &shape, kind)?)
}

fn from_safetensors(error: safetensors::SafeTensorError) -> TrainError {
    match error {
        safetensors::SafeTensorError::IoError(e) => TrainError::Io(e),
        other => TrainError::State(other.to_string()),
    }
}
