//! SPADE (Cohen and Hoshen 2020): the nearest normal photos, then the nearest positions in them.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Grid, Metric, Precision};
use crate::estimators::{
    ClosedMethod, Estimator, EstimatorConfig, FeatureSource, FitWith, Fitting, ImageScore,
    MethodConfig, NativeMaps, Paper, Scoring, embedding, expect_features, method::expect,
    tensors::Source,
};
use crate::kernels::{FeatureShape, nearest::Memory};
use crate::{Error, Result};

/// SPADE (Cohen and Hoshen 2020, arXiv 2005.02357).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpadeConfig {
    /// Nearest normal photos (section 3.2: K = 50): their mean distance is the image score, and a position is looked
    /// for in them. Where there are fewer photos, all.
    pub photos: usize,
    /// How positions lie in the file.
    pub precision: Precision,
}

impl Default for SpadeConfig {
    fn default() -> Self {
        Self {
            photos: 50,
            precision: Precision::F16,
        }
    }
}

/// The most that all positions of all photos may take in memory, as f32: 8 GB.
const MOST_VALUES: usize = 2_000_000_000;

impl MethodConfig for SpadeConfig {
    fn title(&self) -> &'static str {
        "SPADE"
    }

    fn paper(&self) -> Paper {
        Paper {
            url: "https://arxiv.org/abs/2005.02357",
            bibtex: "@article{cohen2020sub,
  title   = {Sub-Image Anomaly Detection with Deep Pyramid Correspondences},
  author  = {Cohen, Niv and Hoshen, Yedid},
  journal = {arXiv preprint arXiv:2005.02357},
  year    = {2020}
}",
        }
    }

    fn in_words(&self) -> Vec<(&'static str, String)> {
        let photos = self.photos;
        vec![
            ("Photos", format!("the {photos} nearest of all good ones")),
            ("Positions", "all of every photo are remembered".into()),
        ]
    }

    fn validate(&self, shapes: &[FeatureShape]) -> Result<()> {
        let check = |ok, must: &str| expect(self.title(), ok, must);
        check(!shapes.is_empty(), "needs feature maps")?;
        check(
            (1..=1000).contains(&self.photos),
            "neighbours (nearest photos) must be 1 to 1000",
        )?;
        check(
            embedding::channels(shapes) <= 1 << 16,
            "more than 65536 channels",
        )
    }

    fn has_own_score(&self) -> bool {
        true
    }

    /// Section 3.2's score, and a map smoothed with a deviation of 4 pixels (section 4.1).
    fn scoring(&self) -> Scoring {
        Scoring {
            image_score: ImageScore::Own,
            smoothing: Some(4.0),
            ..Scoring::of_distances()
        }
    }

    fn load(
        &self,
        shapes: &[FeatureShape],
        tensors: BTreeMap<String, Tensor>,
        device: &Device,
    ) -> Result<Box<dyn Estimator>> {
        Ok(Box::new(Spade::from_tensors(
            self, shapes, tensors, device,
        )?))
    }

    fn fitting(&self) -> Fitting<'_> {
        Fitting::Closed(self)
    }
}

impl ClosedMethod for SpadeConfig {
    fn fit(
        &self,
        features: &dyn FeatureSource,
        with: &mut FitWith<'_>,
    ) -> Result<Box<dyn Estimator>> {
        let shapes = features.shapes();
        self.validate(shapes)?;
        if features.is_empty() {
            return Err(Error::Training(
                "SPADE needs at least one normal image to remember".into(),
            ));
        }
        let parent = with.parent.map(Estimator::tensors).transpose()?;
        let layout = Layout::of(shapes);
        let known = match &parent {
            Some(tensors) => tensors.get(PHOTOS).map_or(Ok(0), |t| t.dim(0))?,
            None => 0,
        };
        layout.expect_room(known + features.len())?;
        let (mut photos, mut positions) = (Vec::new(), Vec::new());
        for record in 0..features.len() {
            let maps = features.batch(&[record], &Device::Cpu)?;
            photos.push(pooled(&maps)?);
            positions.push(self.stored(&joined(&maps)?)?);
            with.tell(record + 1, features.len())?;
        }
        let mut tensors = BTreeMap::new();
        for (name, own) in [(PHOTOS, photos), (POSITIONS, positions)] {
            let earlier = parent.as_ref().and_then(|tensors| tensors.get(name));
            let all: Vec<Tensor> = earlier.cloned().into_iter().chain(own).collect();
            tensors.insert(name.to_string(), Tensor::cat(&all, 0)?);
        }
        self.load(shapes, tensors, with.device)
    }
}

impl SpadeConfig {
    /// As it lies in the file.
    fn stored(&self, positions: &Tensor) -> Result<Tensor> {
        match self.precision {
            Precision::F32 => Ok(positions.clone()),
            Precision::F16 => Ok(positions.to_dtype(DType::F16)?),
        }
    }
}

/// `[N, D]`: each photo's mean over the coarsest map.
const PHOTOS: &str = "photos";
/// `[N * P, C]`: each photo's positions, photo by photo.
const POSITIONS: &str = "positions";

/// What sizes follow from the feature maps.
struct Layout {
    rows: usize,
    columns: usize,
    /// Channels of a position.
    channels: usize,
    /// Channels of a photo.
    pooled: usize,
}

impl Layout {
    fn of(shapes: &[FeatureShape]) -> Self {
        let (rows, columns) = embedding::grid(shapes, Grid::Finest);
        Self {
            rows,
            columns,
            channels: embedding::channels(shapes),
            pooled: shapes.last().map_or(0, |shape| shape.channels),
        }
    }

    fn positions(&self) -> usize {
        self.rows * self.columns
    }

    fn expect_room(&self, photos: usize) -> Result<()> {
        let values = photos * self.positions() * self.channels;
        if values <= MOST_VALUES {
            return Ok(());
        }
        Err(Error::Training(format!(
            "SPADE remembers every position of every photo: {photos} photos would take {:.0} GB; take fewer photos, \
             a smaller input, or PatchCore, which thins them",
            values as f64 * 4e-9
        )))
    }
}

/// Means over the coarsest map, `[B, D]`.
fn pooled(features: &[Tensor]) -> Result<Tensor> {
    let last = features.last();
    let last = last.ok_or_else(|| Error::Invalid("no feature map to pool".into()))?;
    Ok(last.flatten_from(2)?.mean(2)?)
}

/// Vectors of all positions, `[B * P, C]`, as they are (section 3.4: concatenated).
fn joined(features: &[Tensor]) -> Result<Tensor> {
    embedding::embed(features, 1, Grid::Finest, Metric::Euclidean)
}

/// All photos, and all positions of each.
#[derive(Debug)]
pub struct Spade {
    config: SpadeConfig,
    shapes: Vec<FeatureShape>,
    photos: Memory,
    /// As they lie in the file, on the CPU.
    positions: Tensor,
    /// Each photo's positions, made ready when it is a neighbour for the first time.
    galleries: Vec<OnceLock<Memory>>,
    device: Device,
}

impl Spade {
    /// From the tensors of [`Estimator::tensors`].
    ///
    /// # Errors
    /// When the settings are out of range, or a tensor is missing, unexpected, of another backbone or not finite.
    pub fn from_tensors(
        config: &SpadeConfig,
        shapes: &[FeatureShape],
        tensors: BTreeMap<String, Tensor>,
        device: &Device,
    ) -> Result<Self> {
        config.validate(shapes)?;
        let layout = Layout::of(shapes);
        let mut source = Source::new(tensors, device);
        let photos = source.take_values(PHOTOS, 1..=usize::MAX, layout.pooled)?;
        let count = photos.dim(0)?;
        let rows = count * layout.positions();
        let positions = source.take_rows(POSITIONS, rows..=rows, layout.channels)?;
        source.finish()?;
        Ok(Self {
            config: config.clone(),
            shapes: shapes.to_vec(),
            photos: Memory::new(&photos)?,
            positions,
            galleries: (0..count).map(|_| OnceLock::new()).collect(),
            device: device.clone(),
        })
    }

    /// The positions of one remembered photo.
    fn gallery(&self, photo: usize) -> Result<&Memory> {
        let slot = &self.galleries[photo];
        if let Some(memory) = slot.get() {
            return Ok(memory);
        }
        let each = Layout::of(&self.shapes).positions();
        let rows = self.positions.narrow(0, photo * each, each)?;
        let rows = rows.to_dtype(DType::F32)?.to_device(&self.device)?;
        let memory = Memory::new(&rows)?;
        Ok(slot.get_or_init(|| memory))
    }

    /// Squared distances of `vectors [P, C]` to the nearest position of any of these photos.
    fn nearest_in(&self, photos: &[u32], vectors: &Tensor) -> Result<Vec<f32>> {
        let found = photos.par_iter().map(|&photo| {
            let (squares, _) = self.gallery(photo as usize)?.nearest(vectors)?;
            Ok::<_, Error>(squares)
        });
        let found = found.collect::<Result<Vec<_>>>()?;
        let mut least = vec![f32::INFINITY; vectors.dim(0)?];
        for squares in found {
            for (least, square) in least.iter_mut().zip(squares) {
                // NaN stays: such a photo has no score.
                *least = if square < *least || square.is_nan() {
                    square
                } else {
                    *least
                };
            }
        }
        Ok(least)
    }
}

impl Estimator for Spade {
    fn config(&self) -> EstimatorConfig {
        EstimatorConfig::Spade(self.config.clone())
    }

    fn shapes(&self) -> &[FeatureShape] {
        &self.shapes
    }

    fn device(&self) -> Device {
        self.device.clone()
    }

    fn tensors(&self) -> Result<BTreeMap<String, Tensor>> {
        Ok(BTreeMap::from([
            (PHOTOS.to_string(), self.photos.rows().clone()),
            (POSITIONS.to_string(), self.positions.clone()),
        ]))
    }

    /// Of a photo the mean squared distance to its nearest photos (equation 1), and of a position the squared distance
    /// to the nearest position of those photos (equation 2 with one neighbour, the paper's choice).
    fn native_maps(&self, features: &[Tensor], _: &Scoring) -> Result<NativeMaps> {
        expect_features(features, &self.shapes)?;
        let layout = Layout::of(&self.shapes);
        let (pooled, vectors) = (pooled(features)?, joined(features)?);
        let batch = pooled.dim(0)?;
        let near = self.config.photos.min(self.photos.len());
        let (squares, photos) = self.photos.k_nearest(&pooled, near)?;
        let mean = |squares: &[f32]| squares.iter().sum::<f32>() / near as f32;
        let scores: Vec<f32> = squares.chunks_exact(near).map(mean).collect();
        let mut map = Vec::with_capacity(batch * layout.positions());
        for (image, photos) in photos.chunks_exact(near).enumerate() {
            let own = vectors.narrow(0, image * layout.positions(), layout.positions())?;
            map.extend(self.nearest_in(photos, &own)?);
        }
        let dims = (batch, layout.rows, layout.columns);
        let map = Tensor::from_vec(map, dims, &Device::Cpu)?;
        Ok(NativeMaps {
            image: vec![map.clone()],
            pixel: vec![map],
            scores: Some(Tensor::from_vec(scores, batch, &Device::Cpu)?),
        })
    }
}
