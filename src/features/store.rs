//! Feature maps of many images: in memory up to a stated limit, in a mapped temporary file above it.

use std::io::Write;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use tempfile::NamedTempFile;

use crate::flow::{ChannelCovariance, ChannelStatistics, FastFlow, FeatureNorm};
use crate::kernels::{FeatureShape, conv::conv2d_backward};
use crate::{Error, Result, mapped::Mapped};

/// Where the numbers are.
enum Storage {
    Memory(Vec<f32>),
    /// The file lives as long as its map.
    Disk {
        map: Mapped,
        _file: NamedTempFile,
    },
}

/// Feature maps of `len` images, read-only, every image the same shapes.
pub struct FeatureStore {
    shapes: Vec<FeatureShape>,
    len: usize,
    storage: Storage,
}

/// Values of one image, all scales one behind the other.
fn record_len(shapes: &[FeatureShape]) -> usize {
    shapes.iter().map(FeatureShape::values).sum()
}

impl FeatureStore {
    /// Number of images (views counted one by one).
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Shapes of one image's maps, finest first.
    pub fn shapes(&self) -> &[FeatureShape] {
        &self.shapes
    }

    /// Bytes of all maps.
    pub fn bytes(&self) -> u64 {
        size_of_val(self.values()) as u64
    }

    /// Whether the maps were too large for the memory limit.
    pub fn is_on_disk(&self) -> bool {
        matches!(self.storage, Storage::Disk { .. })
    }

    fn values(&self) -> &[f32] {
        match &self.storage {
            Storage::Memory(values) => values,
            Storage::Disk { map, .. } => bytemuck::cast_slice(map),
        }
    }

    /// The maps of the named images as one `[B, C, H, W]` tensor a scale.
    ///
    /// # Errors
    /// When an index is out of range or the device is out of memory.
    pub fn batch(&self, indices: &[usize], device: &Device) -> Result<Vec<Tensor>> {
        if let Some(bad) = indices.iter().find(|&&i| i >= self.len) {
            return Err(Error::Invalid(format!(
                "feature record {bad} of {}",
                self.len
            )));
        }
        let record = record_len(&self.shapes);
        let mut start = 0;
        let mut batch = Vec::with_capacity(self.shapes.len());
        for shape in &self.shapes {
            let mut values = Vec::with_capacity(indices.len() * shape.values());
            for &index in indices {
                let from = index * record + start;
                values.extend_from_slice(&self.values()[from..from + shape.values()]);
            }
            let dims = (indices.len(), shape.channels, shape.height, shape.width);
            batch.push(Tensor::from_vec(values, dims, device)?);
            start += shape.values();
        }
        Ok(batch)
    }

    /// All maps on `device`, one `[N, C, H, W]` tensor a scale, in the order of the records.
    ///
    /// # Errors
    /// When the device is out of memory.
    pub fn on_device(&self, device: &Device) -> Result<Vec<Tensor>> {
        /// Records that are copied at a time: the host holds each only once more.
        const CHUNK: usize = 64;
        let records: Vec<usize> = (0..self.len).collect();
        let empty = |shape: &FeatureShape| {
            let dims = (self.len, shape.channels, shape.height, shape.width);
            Ok(Tensor::zeros(dims, DType::F32, device)?)
        };
        let all: Vec<Tensor> = self.shapes.iter().map(empty).collect::<Result<_>>()?;
        for (chunk, records) in records.chunks(CHUNK).enumerate() {
            for (maps, part) in all.iter().zip(self.batch(records, device)?) {
                maps.slice_set(&part, 0, chunk * CHUNK)?;
            }
        }
        Ok(all)
    }

    /// Gives the flow's norm what it has to know of these features, where it is one that does.
    ///
    /// # Errors
    /// When the shapes do not fit or the features do not vary.
    pub fn fit_norm(&self, flow: &mut FastFlow) -> Result<()> {
        match flow.config().norm {
            FeatureNorm::Standardise => flow.set_statistics(self.channel_statistics()),
            FeatureNorm::Whiten => flow.set_covariances(&self.channel_covariances()?),
            FeatureNorm::None | FeatureNorm::LayerNorm | FeatureNorm::LayerNormAffine => Ok(()),
        }
    }

    /// Mean and standard deviation of every channel of every scale, over images and positions.
    fn channel_statistics(&self) -> Vec<ChannelStatistics> {
        let record = record_len(&self.shapes);
        let mut start = 0;
        let mut all = Vec::with_capacity(self.shapes.len());
        for shape in &self.shapes {
            let area = shape.height * shape.width;
            let moments = (0..shape.channels).map(|channel| {
                let (mut sum, mut squares) = (0f64, 0f64);
                for image in 0..self.len {
                    let from = image * record + start + channel * area;
                    for &value in &self.values()[from..from + area] {
                        sum += f64::from(value);
                        squares += f64::from(value) * f64::from(value);
                    }
                }
                let count = (self.len * area).max(1) as f64;
                let mean = sum / count;
                (
                    mean as f32,
                    (squares / count - mean * mean).max(0.0).sqrt() as f32,
                )
            });
            let (mean, std) = moments.unzip();
            all.push(ChannelStatistics { mean, std });
            start += shape.values();
        }
        all
    }

    /// Mean and covariance of the channels of every scale, over images and positions.
    fn channel_covariances(&self) -> Result<Vec<ChannelCovariance>> {
        let statistics = self.channel_statistics().into_iter();
        let mut sums: Vec<ChannelCovariance> = statistics
            .map(|ChannelStatistics { mean, .. }| ChannelCovariance {
                covariance: vec![0.0; mean.len() * mean.len()],
                mean,
            })
            .collect();
        let records: Vec<usize> = (0..self.len).collect();
        for records in records.chunks(COVARIANCE_BATCH) {
            for (map, sum) in self.batch(records, &Device::Cpu)?.iter().zip(&mut sums) {
                for (sum, product) in sum.covariance.iter_mut().zip(products(map, &sum.mean)?) {
                    *sum += f64::from(product);
                }
            }
        }
        for (shape, sum) in self.shapes.iter().zip(&mut sums) {
            let count = (self.len * shape.height * shape.width).max(1) as f64;
            sum.covariance.iter_mut().for_each(|value| *value /= count);
        }
        Ok(sums)
    }
}

/// Images whose products are summed in f32 before they go into an f64.
const COVARIANCE_BATCH: usize = 8;

/// The sum over images and positions of `(x - mean)(x - mean)^T [C, C]`, row by row, of `x [B, C, H, W]`: the weight's
/// gradient of a 1x1 convolution whose output has its input as gradient.
fn products(x: &Tensor, mean: &[f32]) -> Result<Vec<f32>> {
    let channels = mean.len();
    let mean = Tensor::from_slice(mean, (1, channels, 1, 1), x.device())?;
    let centred = x.broadcast_sub(&mean)?;
    let weight = Tensor::zeros((channels, channels, 1, 1), DType::F32, x.device())?;
    let gradients = conv2d_backward(&centred, &weight, &centred, 1, 0, None, false)?;
    Ok(gradients.weight.flatten_all()?.to_vec1()?)
}

/// Fills a [`FeatureStore`] image by image.
pub struct FeatureWriter {
    shapes: Vec<FeatureShape>,
    len: usize,
    sink: Sink,
}

enum Sink {
    Memory(Vec<f32>),
    Disk {
        file: std::io::BufWriter<NamedTempFile>,
        path: PathBuf,
    },
}

impl FeatureWriter {
    /// A store for `images` records; above `memory_limit` bytes it goes to a temporary file in `folder`.
    ///
    /// # Errors
    /// When the temporary file cannot be made.
    pub fn new(
        shapes: Vec<FeatureShape>,
        images: usize,
        memory_limit: u64,
        folder: &Path,
    ) -> Result<Self> {
        let values = record_len(&shapes) * images;
        let sink = if (values * size_of::<f32>()) as u64 <= memory_limit {
            Sink::Memory(Vec::with_capacity(values))
        } else {
            std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
            let file =
                NamedTempFile::with_prefix_in("features-", folder).map_err(Error::io(folder))?;
            let path = file.path().to_path_buf();
            Sink::Disk {
                file: std::io::BufWriter::new(file),
                path,
            }
        };
        Ok(Self {
            shapes,
            len: 0,
            sink,
        })
    }

    /// Appends the maps of one image, each `[1, C, H, W]`.
    ///
    /// # Errors
    /// When a shape differs from the store's, or the disk is full.
    pub fn push(&mut self, maps: &[Tensor]) -> Result<()> {
        for (map, shape) in maps.iter().zip(&self.shapes) {
            if map.dims() != [1, shape.channels, shape.height, shape.width] {
                return Err(Error::Shape {
                    what: "feature map".into(),
                    expected: format!("[1, {}, {}, {}]", shape.channels, shape.height, shape.width),
                    found: format!("{:?}", map.dims()),
                });
            }
            let values = map.flatten_all()?.to_vec1::<f32>()?;
            match &mut self.sink {
                Sink::Memory(all) => all.extend_from_slice(&values),
                Sink::Disk { file, path } => {
                    file.write_all(bytemuck::cast_slice(&values))
                        .map_err(Error::io(path))?;
                }
            }
        }
        self.len += 1;
        Ok(())
    }

    /// The finished store.
    ///
    /// # Errors
    /// When the disk is full or the file cannot be mapped.
    pub fn finish(self) -> Result<FeatureStore> {
        let storage = match self.sink {
            Sink::Memory(values) => Storage::Memory(values),
            Sink::Disk { file, path } => {
                let file = file
                    .into_inner()
                    .map_err(|e| Error::io(&path)(e.into_error()))?;
                Storage::Disk {
                    map: crate::mapped::map(&path)?,
                    _file: file,
                }
            }
        };
        Ok(FeatureStore {
            shapes: self.shapes,
            len: self.len,
            storage,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use candle_core::{Device, Tensor};

    use super::FeatureWriter;
    use crate::kernels::FeatureShape;

    #[test]
    fn covariance_is_that_of_plain_sums() {
        let shape = FeatureShape {
            channels: 3,
            height: 4,
            width: 5,
        };
        let images = 19; // more than two batches of products
        let mut writer =
            FeatureWriter::new(vec![shape], images, u64::MAX, std::path::Path::new(".")).unwrap();
        let value = |index: usize| (index as f32 * 7.31).sin() * 2.0 + 5.0;
        for image in 0..images {
            let values: Vec<f32> = (0..60).map(|i| value(image * 60 + i)).collect();
            let map = Tensor::from_vec(values, (1, 3, 4, 5), &Device::Cpu).unwrap();
            writer.push(&[map]).unwrap();
        }
        let found = &writer.finish().unwrap().channel_covariances().unwrap()[0];
        let channel = |c: usize| {
            let places = (0..images).flat_map(move |image| (0..20).map(move |at| (image, at)));
            places.map(move |(image, at)| f64::from(value(image * 60 + c * 20 + at)))
        };
        let mean = |c: usize| channel(c).sum::<f64>() / (20 * images) as f64;
        for a in 0..3 {
            assert!((f64::from(found.mean[a]) - mean(a)).abs() < 1e-6);
            for b in 0..3 {
                let products = channel(a).zip(channel(b)).map(|(x, y)| x * y).sum::<f64>();
                let expected = products / (20 * images) as f64 - mean(a) * mean(b);
                let found = found.covariance[a * 3 + b];
                assert!((found - expected).abs() < 1e-5, "{found} {expected}");
            }
        }
    }
}
