//! Named tensors of a frozen network, from a safetensors file or (for speed measurements) from a seed.

use std::{
    fmt::Display,
    path::{Path, PathBuf},
    sync::Arc,
};

use candle_core::{Device, Tensor};
use rand::{RngExt, SeedableRng};

use crate::{Error, Result, tensors::TensorFile};

/// A network's weights, or with [`Weights::pp`] the part of them below a name.
#[derive(Clone, Debug)]
pub struct Weights {
    source: Arc<Source>,
    prefix: String,
    device: Device,
}

#[derive(Debug)]
enum Source {
    File(TensorFile),
    Random { seed: u64 },
}

impl Weights {
    /// Opens a safetensors file and checks its header; no tensor is read yet. Tensors go to `device`.
    ///
    /// # Errors
    /// When the file is missing, truncated or not a safetensors file.
    pub fn open(path: &Path, device: &Device) -> Result<Self> {
        Ok(Self::new(Source::File(TensorFile::open(path)?), device))
    }

    /// Seeded random weights of a sane magnitude, for measuring speed without a download.
    pub fn random(seed: u64, device: &Device) -> Self {
        Self::new(Source::Random { seed }, device)
    }

    fn new(source: Source, device: &Device) -> Self {
        Self {
            source: Arc::new(source),
            prefix: String::new(),
            device: device.clone(),
        }
    }

    /// The weights below `name`, as candle's `VarBuilder::pp`.
    pub fn pp(&self, name: impl Display) -> Self {
        Self {
            prefix: self.full_name(name),
            ..self.clone()
        }
    }

    /// The device that tensors go to.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Whether the file holds a tensor of this name; random weights hold every one.
    pub fn contains(&self, name: &str) -> bool {
        match &*self.source {
            Source::File(file) => file.shape(&self.full_name(name)).is_some(),
            Source::Random { .. } => true,
        }
    }

    /// The shape a tensor has in the file; none when it is absent or the weights are random.
    pub fn shape(&self, name: &str) -> Option<Vec<usize>> {
        match &*self.source {
            Source::File(file) => Some(file.shape(&self.full_name(name))?.to_vec()),
            Source::Random { .. } => None,
        }
    }

    /// A tensor's values as f32, row-major (f32, f16 or bf16 in the file).
    ///
    /// # Errors
    /// [`Error::Tensor`] when it is missing, has another shape or an unsupported type.
    pub fn values(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let name = self.full_name(name);
        match &*self.source {
            Source::File(file) => file.values(&name, shape),
            Source::Random { seed } => Ok(random_values(*seed, &name, shape)),
        }
    }

    /// A tensor as f32 on the device.
    ///
    /// # Errors
    /// As [`Weights::values`].
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        Ok(Tensor::from_vec(
            self.values(name, shape)?,
            shape,
            &self.device,
        )?)
    }

    /// The error for a tensor that the file lacks, with what to do.
    pub(super) fn missing(&self, name: &str, reason: impl Into<String>) -> Error {
        let path = match &*self.source {
            Source::File(file) => file.path().to_path_buf(),
            Source::Random { .. } => PathBuf::new(),
        };
        Error::Tensor {
            path,
            tensor: self.full_name(name),
            reason: reason.into(),
        }
    }

    fn full_name(&self, name: impl Display) -> String {
        if self.prefix.is_empty() {
            name.to_string()
        } else {
            format!("{}.{name}", self.prefix)
        }
    }
}

/// Uniform weights of variance 1 / fan-in for matrices and kernels, 1 for scales and variances, 0 for the rest.
fn random_values(seed: u64, name: &str, shape: &[usize]) -> Vec<f32> {
    let count = shape.iter().product();
    if shape.len() < 2 {
        let is_scale = ["weight", "running_var"]
            .iter()
            .any(|end| name.ends_with(end));
        return vec![if is_scale { 1.0 } else { 0.0 }; count];
    }
    let fan_in: usize = shape[1..].iter().product();
    let bound = (3.0 / fan_in as f32).sqrt();
    // FNV-1a of the name: every tensor has its own stream, whatever the order of loading.
    let stream = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed ^ stream);
    (0..count)
        .map(|_| rng.random_range(-bound..bound))
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::HashMap;

    use candle_core::DType;

    use super::*;

    fn saved(dir: &Path, dtype: DType) -> PathBuf {
        let path = dir.join(format!("{dtype:?}.safetensors"));
        let tensor = Tensor::from_vec(vec![1f32, -2.5, 0.125, 6.0], (2, 2), &Device::Cpu)
            .unwrap()
            .to_dtype(dtype)
            .unwrap();
        candle_core::safetensors::save(&HashMap::from([("a.weight", tensor)]), &path).unwrap();
        path
    }

    #[test]
    fn reads_every_float_type_as_f32() {
        let dir = tempfile::tempdir().unwrap();
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let weights = Weights::open(&saved(dir.path(), dtype), &Device::Cpu).unwrap();
            let values = weights.pp("a").values("weight", &[2, 2]).unwrap();
            assert_eq!(values, [1.0, -2.5, 0.125, 6.0], "{dtype:?}");
        }
    }

    #[test]
    fn a_missing_misshapen_or_mistyped_tensor_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = saved(dir.path(), DType::F32);
        let weights = Weights::open(&path, &Device::Cpu).unwrap();
        let missing = weights.values("b.weight", &[2, 2]).unwrap_err().to_string();
        assert!(missing.contains("F32.safetensors") && missing.contains("`b.weight`: missing"));
        let shape = weights.values("a.weight", &[4]).unwrap_err().to_string();
        assert!(
            shape.contains("`a.weight`: expected shape [4], found [2, 2]"),
            "{shape}"
        );
        let wide = Weights::open(&saved(dir.path(), DType::F64), &Device::Cpu).unwrap();
        let dtype = wide.values("a.weight", &[2, 2]).unwrap_err().to_string();
        assert!(dtype.contains("F64"), "{dtype}");
    }

    #[test]
    fn truncated_and_foreign_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let whole = std::fs::read(saved(dir.path(), DType::F32)).unwrap();
        let path = dir.path().join("broken.safetensors");
        let foreign = b"PK\x03\x04 this is a zip archive, as torch.save writes".to_vec();
        let cut = "not a whole safetensors";
        for (bytes, what) in [
            (whole[..whole.len() - 1].to_vec(), cut),
            (whole[..20].to_vec(), cut),
            (Vec::new(), cut),
            (foreign, "a pickle of PyTorch"),
        ] {
            std::fs::write(&path, &bytes).unwrap();
            let error = Weights::open(&path, &Device::Cpu).unwrap_err().to_string();
            assert!(
                error.contains(&format!("broken.safetensors: {what}")),
                "{error}"
            );
        }
    }

    #[test]
    fn random_weights_depend_on_seed_and_name_only() {
        let draw = |seed, name| {
            Weights::random(seed, &Device::Cpu)
                .values(name, &[4, 8])
                .unwrap()
        };
        assert_eq!(draw(1, "a"), draw(1, "a"));
        assert_ne!(draw(1, "a"), draw(1, "b"));
        assert_ne!(draw(1, "a"), draw(2, "a"));
    }
}
