//! Feature maps of many images: in memory up to a stated limit, in a mapped temporary file above it.

use std::io::Write;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use tempfile::NamedTempFile;

use crate::estimators::FeatureSource;
use crate::kernels::FeatureShape;
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

impl FeatureSource for FeatureStore {
    fn len(&self) -> usize {
        self.len
    }

    fn shapes(&self) -> &[FeatureShape] {
        &self.shapes
    }

    fn map(&self, record: usize, scale: usize) -> &[f32] {
        let before: usize = self.shapes[..scale].iter().map(FeatureShape::values).sum();
        let from = record * record_len(&self.shapes) + before;
        &self.values()[from..from + self.shapes[scale].values()]
    }
}

impl FeatureStore {
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
