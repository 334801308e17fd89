//! Read access to f32 tensors in host memory.

use std::ops::Deref;

use candle_core::{CpuStorage, Layout, Storage, Tensor};

use crate::{Error, Result};

/// A batch of contiguous images whose distance may be larger than their size.
#[derive(Clone, Copy)]
pub(crate) struct Images<'a> {
    data: &'a [f32],
    batch_stride: usize,
    image_len: usize,
}

impl<'a> Images<'a> {
    /// A densely packed batch.
    pub(crate) fn packed(data: &'a [f32], image_len: usize) -> Self {
        Self {
            data,
            batch_stride: image_len,
            image_len,
        }
    }

    /// Reads a tensor's storage; the layout must satisfy [`is_batch_strided`].
    pub(crate) fn new(storage: &'a CpuStorage, layout: &Layout) -> Result<Self> {
        let CpuStorage::F32(values) = storage else {
            return Err(Error::Invalid(
                "a CPU kernel was given a tensor that is not f32".into(),
            ));
        };
        if !is_batch_strided(layout) {
            return Err(Error::Invalid(
                "a CPU kernel was given scattered images".into(),
            ));
        }
        let dims = layout.dims();
        let image_len = dims.iter().skip(1).product();
        let batch_stride = match dims.first() {
            Some(1) | None => image_len,
            Some(_) => layout.stride()[0],
        };
        Ok(Self {
            data: &values[layout.start_offset()..],
            batch_stride,
            image_len,
        })
    }

    /// The first element of the first image.
    pub(crate) fn start(&self) -> *const f32 {
        self.data.as_ptr()
    }

    /// The distance of images.
    pub(crate) fn batch_stride(&self) -> usize {
        self.batch_stride
    }

    /// The elements of image `index`.
    pub(crate) fn image(&self, index: usize) -> &'a [f32] {
        let start = index * self.batch_stride;
        &self.data[start..start + self.image_len]
    }
}

/// Whether everything but the first dimension is contiguous.
pub(crate) fn is_batch_strided(layout: &Layout) -> bool {
    let mut expected = 1;
    for (&dim, &stride) in layout.dims().iter().zip(layout.stride()).skip(1).rev() {
        if dim > 1 && stride != expected {
            return false;
        }
        expected *= dim;
    }
    true
}

/// The tensor itself where [`is_batch_strided`] holds, else a contiguous copy.
pub(crate) fn batch_strided(tensor: &Tensor) -> Result<Tensor> {
    if is_batch_strided(tensor.layout()) {
        return Ok(tensor.clone());
    }
    Ok(tensor.contiguous()?)
}

/// A CPU tensor held open for reading.
pub(crate) struct Host<'a> {
    /// candle's read guard, whose type it does not name.
    storage: Box<dyn Deref<Target = Storage> + 'a>,
    layout: &'a Layout,
}

impl<'a> Host<'a> {
    /// Opens a tensor.
    pub(crate) fn open(tensor: &'a Tensor) -> Self {
        let (storage, layout) = tensor.storage_and_layout();
        Self {
            storage: Box::new(storage),
            layout,
        }
    }

    /// Its batch; see [`Images::new`].
    pub(crate) fn images(&self) -> Result<Images<'_>> {
        match &**self.storage {
            Storage::Cpu(storage) => Images::new(storage, self.layout),
            _ => Err(Error::Invalid(
                "a CPU kernel was given a tensor of another device".into(),
            )),
        }
    }

    /// All its elements; the tensor must be contiguous.
    pub(crate) fn values(&self) -> Result<&[f32]> {
        let images = self.images()?;
        let batch = self.layout.dims().first().copied().unwrap_or(1);
        if batch > 1 && images.batch_stride != images.image_len {
            return Err(Error::Invalid(
                "a CPU kernel was given a scattered tensor".into(),
            ));
        }
        Ok(&images.data[..self.layout.shape().elem_count()])
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use candle_core::Device;

    #[test]
    fn a_narrowed_batch_is_read_in_place() {
        let x = Tensor::arange(0f32, 48., &Device::Cpu)
            .unwrap()
            .reshape((2, 4, 3, 2))
            .unwrap();
        let half = x.narrow(1, 2, 2).unwrap();
        assert!(is_batch_strided(half.layout()));
        let host = Host::open(&half);
        let images = host.images().unwrap();
        assert_eq!(images.image(0)[0], 12.0);
        assert_eq!(images.image(1)[11], 47.0);
        assert!(host.values().is_err());
        let turned = x.transpose(2, 3).unwrap();
        assert!(!is_batch_strided(turned.layout()));
        assert!(is_batch_strided(batch_strided(&turned).unwrap().layout()));
    }
}
