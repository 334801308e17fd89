//! Safetensors files: all tensors at once, one tensor at a time, and written whole or not at all.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use candle_core::{Device, Tensor, safetensors::Load};
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use safetensors::{
    Dtype, SafeTensors,
    tensor::{Metadata, TensorView},
};

use crate::{Error, Result, files, mapped};

/// All tensors of a file, on the CPU and of the file's types, and its metadata.
///
/// # Errors
/// [`Error::Config`] for a missing, truncated or foreign file, [`Error::Tensor`] for a type that candle lacks.
pub fn read(path: &Path) -> Result<(BTreeMap<String, Tensor>, HashMap<String, String>)> {
    let bytes = mapped::map(path)?;
    let (data, header) = read_header(path, &bytes)?;
    let mut tensors = BTreeMap::new();
    for (name, info) in header.tensors() {
        let fail = |reason: String| Error::Tensor {
            path: path.to_path_buf(),
            tensor: name.clone(),
            reason,
        };
        // The header was checked against the file's length.
        let (start, end) = info.data_offsets;
        let bytes = &bytes[data + start..data + end];
        let view = TensorView::new(info.dtype, info.shape.clone(), bytes);
        let view = view.map_err(|e| fail(e.to_string()))?;
        let tensor = view.load(&Device::Cpu).map_err(|e| fail(e.to_string()))?;
        tensors.insert(name, tensor);
    }
    Ok((tensors, header.metadata().clone().unwrap_or_default()))
}

/// Writes a file whole or not at all, tensors in name order.
///
/// # Errors
/// When the file cannot be written.
pub fn write(
    path: &Path,
    tensors: &BTreeMap<String, Tensor>,
    metadata: Option<HashMap<String, String>>,
) -> Result<()> {
    let bytes = safetensors::serialize(tensors, metadata).map_err(|e| Error::Config {
        path: path.to_path_buf(),
        reason: e.to_string(),
    })?;
    files::write_bytes(path, &bytes)
}

/// An open file of which tensors are read one by one.
///
/// The header is checked through the memory map, the tensors are read with plain reads straight into
/// their final buffers: what is loaded is in memory once, and pages of the file never count on top.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    header: Metadata,
    /// Where the tensors' data start in the file.
    data: u64,
    file: Mutex<File>,
}

impl TensorFile {
    /// Opens a file and checks its header; no tensor is read yet.
    ///
    /// # Errors
    /// When the file is missing, truncated or not a safetensors file.
    pub fn open(path: &Path) -> Result<Self> {
        let (data, header) = read_header(path, &mapped::map(path)?)?;
        Ok(Self {
            path: path.to_path_buf(),
            header,
            data: data as u64,
            file: Mutex::new(File::open(path).map_err(Error::io(path))?),
        })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A tensor's shape; none when it is absent.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        Some(&self.header.info(name)?.shape)
    }

    /// A tensor's values as f32, row-major (f32, f16 or bf16 in the file).
    ///
    /// # Errors
    /// [`Error::Tensor`] when it is missing, has another shape or an unsupported type.
    pub fn values(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let fail = |reason: String| Error::Tensor {
            path: self.path.clone(),
            tensor: name.to_owned(),
            reason,
        };
        let info = self.header.info(name).ok_or_else(|| {
            fail("missing; is this the weight file of another architecture?".into())
        })?;
        if info.shape != shape {
            return Err(fail(format!(
                "expected shape {shape:?}, found {:?}",
                info.shape
            )));
        }
        let count = shape.iter().product();
        let start = self.data + info.data_offsets.0 as u64;
        match info.dtype {
            Dtype::F32 => {
                let mut values = vec![0f32; count];
                self.read_bytes(start, bytemuck::cast_slice_mut(&mut values))?;
                Ok(values)
            }
            Dtype::F16 => {
                let bits = self.read_bits(start, count)?;
                Ok(bits.reinterpret_cast::<half::f16>().to_f32_vec())
            }
            Dtype::BF16 => {
                let bits = self.read_bits(start, count)?;
                Ok(bits.reinterpret_cast::<half::bf16>().to_f32_vec())
            }
            other => Err(fail(format!(
                "type {other} is not supported; f32, f16 and bf16 are"
            ))),
        }
    }

    fn read_bits(&self, start: u64, count: usize) -> Result<Vec<u16>> {
        let mut bits = vec![0u16; count];
        self.read_bytes(start, bytemuck::cast_slice_mut(&mut bits))?;
        Ok(bits)
    }

    fn read_bytes(&self, start: u64, bytes: &mut [u8]) -> Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(start))
            .and_then(|_| file.read_exact(bytes))
            .map_err(Error::io(&self.path))
    }
}

/// Where the tensors' data start, and what the header says; a file of another length than its header's is refused.
fn read_header(path: &Path, bytes: &[u8]) -> Result<(usize, Metadata)> {
    let (length, header) = SafeTensors::read_metadata(bytes).map_err(|error| Error::Config {
        path: path.to_path_buf(),
        reason: match other_format(bytes) {
            Some(what) => what.to_owned(),
            None => {
                format!("not a whole safetensors file ({error}); download or make it again")
            }
        },
    })?;
    Ok((size_of::<u64>() + length, header))
}

/// What a file is that is often given in place of safetensors, and what to do.
fn other_format(bytes: &[u8]) -> Option<&'static str> {
    const PICKLE: &str = "a pickle of PyTorch (.pt, .pth, .ckpt, .bin), which is not read: opening one can run any program in \
         it. Take model.safetensors of the same model, or convert it where you trust it: python -c \
         \"import torch, safetensors.torch as s; s.save_file(torch.load('IN', weights_only=True), 'OUT.safetensors')\"";
    match bytes {
        // Cut short: after the header's length the header begins.
        _ if bytes.get(8) == Some(&b'{') => None,
        // torch.save since 1.6 writes a ZIP archive, before it wrote the pickle itself (protocols 2 to 5).
        [b'P', b'K', 3, 4, ..] | [0x80, 2..=5, ..] => Some(PICKLE),
        _ if bytes.starts_with(b"version https://git-lfs") => Some(
            "a pointer of Git LFS, not the file itself; `git lfs pull` fetches it, or download it anew",
        ),
        _ if bytes.starts_with(b"\x89HDF\r\n") => {
            Some("an HDF5 file (Keras, .h5), not safetensors; take model.safetensors of the model")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_pickle_is_called_that() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.bin");
        let message = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            TensorFile::open(&path).unwrap_err().to_string()
        };
        for bytes in [
            &b"PK\x03\x04\0\0\x08\x08archive/data.pkl"[..],
            b"\x80\x02\x8a\nl\xfc",
        ] {
            let found = message(bytes);
            assert!(found.contains("model.bin: a pickle of PyTorch"), "{found}");
            assert!(found.contains("save_file"), "{found}");
        }
        let pointer = message(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n");
        assert!(pointer.contains("git lfs pull"), "{pointer}");
        // A length of 640 begins as a pickle does.
        let cut = b"\x80\x02\0\0\0\0\0\0{\"weight\":{\"dtype\"";
        for bytes in [&b"short"[..], cut] {
            assert!(message(bytes).contains("not a whole safetensors file"));
        }
    }

    #[test]
    fn what_is_written_is_read_at_once_and_singly() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let a = Tensor::new(&[[1f32, -2.5], [0.125, 6.0]], &Device::Cpu).unwrap();
        let b = Tensor::new(&[7u32, 9], &Device::Cpu).unwrap();
        let tensors = BTreeMap::from([("a".to_string(), a), ("b".to_string(), b)]);
        let metadata = HashMap::from([("key".to_string(), "value".to_string())]);
        write(&path, &tensors, Some(metadata.clone())).unwrap();

        let (found, found_metadata) = read(&path).unwrap();
        assert_eq!(found_metadata, metadata);
        assert_eq!(found.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(
            found["a"].to_vec2::<f32>().unwrap(),
            [[1.0, -2.5], [0.125, 6.0]]
        );
        assert_eq!(found["b"].to_vec1::<u32>().unwrap(), [7, 9]);

        let file = TensorFile::open(&path).unwrap();
        assert_eq!((file.shape("b"), file.shape("c")), (Some(&[2][..]), None));
        let values = file.values("a", &[2, 2]).unwrap();
        assert_eq!(values, [1.0, -2.5, 0.125, 6.0]);
        assert!(file.values("b", &[2]).is_err());
    }

    #[test]
    fn a_cut_off_file_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cut.safetensors");
        let one = Tensor::new(&[1f32, 2.0], &Device::Cpu).unwrap();
        write(&path, &BTreeMap::from([("a".to_string(), one)]), None).unwrap();
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        for error in [
            read(&path).unwrap_err(),
            TensorFile::open(&path).unwrap_err(),
        ] {
            let error = error.to_string();
            assert!(
                error.contains("cut.safetensors: not a whole safetensors file"),
                "{error}"
            );
        }
    }
}
