//! A Gaussian at each position, and how far vectors are from it.
//!
//! PaDiM (Defard et al. 2021, section III-C) scores a position by the Mahalanobis distance
//! `sqrt((x - mean)^T C^-1 (x - mean))`; with `C = L L^T` that is `|L^-1 (x - mean)|`, which needs half of
//! a matrix and cannot be negative.

use candle_core::{Device, Tensor};

use super::{
    lanes::{Kernel, LANES, Lanes, dispatch},
    parallel::{self, SharedMut, with_scratch, written},
    shape::expect_f32,
    view::Host,
};
use crate::{Error, Result};

/// Images whose sums are in registers while a position's factor passes once.
const IMAGES: usize = 8;
/// Positions of a task.
const SPAN: usize = 16;

/// The packed rows of `L^-1` for one covariance `L L^T`: row r has r + 1 numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Factorised {
    /// `D (D + 1) / 2` numbers.
    pub rows: Vec<f32>,
}

impl Factorised {
    /// Of `covariance [D, D]`, row by row, symmetric (its lower half is read), at `position` (for the error).
    ///
    /// # Errors
    /// When it is not square, or not positive definite.
    pub fn of(covariance: &[f64], position: usize) -> Result<Self> {
        let size = covariance.len().isqrt();
        if size == 0 || size * size != covariance.len() {
            return Err(Error::Shape {
                what: format!("covariance at position {position}"),
                expected: "[D, D]".into(),
                found: format!("{} values", covariance.len()),
            });
        }
        let mut factor = vec![0f64; size * (size + 1) / 2];
        for row in 0..size {
            let (above, own) = factor.split_at_mut(start(row));
            for col in 0..=row {
                let other = if col < row {
                    &above[start(col)..][..col + 1]
                } else {
                    &own[..col + 1]
                };
                let known: f64 = own[..col].iter().zip(other).map(|(a, b)| a * b).sum();
                let rest = covariance[row * size + col] - known;
                own[col] = if col < row {
                    rest / other[col]
                } else if rest > 0.0 && rest.is_finite() {
                    rest.sqrt()
                } else {
                    return Err(Error::Invalid(format!(
                        "the covariance at position {position} is not positive definite (pivot {row} is {rest:e}): add a \
                         multiple of the identity to it, or give more images than channels"
                    )));
                };
            }
        }
        Ok(Self {
            rows: inverse(&factor, size).iter().map(|x| *x as f32).collect(),
        })
    }
}

/// Where row `row` of a packed lower triangle begins.
fn start(row: usize) -> usize {
    row * (row + 1) / 2
}

/// Of a packed lower triangle, row by row: `X[r] = (e_r - sum_(k < r) L[r, k] X[k]) / L[r, r]`.
fn inverse(factor: &[f64], size: usize) -> Vec<f64> {
    let mut result = vec![0f64; factor.len()];
    for row in 0..size {
        let (above, own) = result.split_at_mut(start(row));
        let factor = &factor[start(row)..][..row + 1];
        own[row] = 1.0;
        for (k, weight) in factor[..row].iter().enumerate() {
            let known = &above[start(k)..][..k + 1];
            own.iter_mut()
                .zip(known)
                .for_each(|(x, y)| *x -= weight * y);
        }
        own[..=row].iter_mut().for_each(|x| *x /= factor[row]);
    }
    result
}

/// Gaussians at P positions over D channels.
#[derive(Debug)]
pub struct Gaussians {
    positions: usize,
    channels: usize,
    /// `[P, D]`
    means: Tensor,
    factors: Factors,
}

#[derive(Debug)]
enum Factors {
    /// A position's rows of `L^-1` in blocks of [`LANES`], each block column by column: a block's sums are lanes.
    Blocks(Vec<f32>),
    /// `[P, D, D]`, for candle's operations on other devices.
    Plain(Tensor),
}

impl Gaussians {
    /// From `means [P, D]` and the [`Factorised`] rows of all positions, `factors [P, D (D + 1) / 2]`; f32, both on the
    /// device that shall compute.
    ///
    /// # Errors
    /// When shapes or types do not fit, or there is nothing.
    pub fn new(means: &Tensor, factors: &Tensor) -> Result<Self> {
        let (positions, channels) = means.dims2()?;
        if positions == 0 || channels == 0 {
            return Err(Error::Invalid(format!(
                "Gaussians need positions and channels; the means are {:?}",
                means.dims()
            )));
        }
        expect_f32("means", means, &[positions, channels])?;
        expect_f32("factors", factors, &[positions, start(channels)])?;
        let factors = if means.device().is_cpu() {
            let factors = factors.contiguous()?;
            Factors::Blocks(blocks(Host::open(&factors).values()?, channels))
        } else {
            Factors::Plain(square(factors, channels)?)
        };
        let means = means.contiguous()?;
        Ok(Self {
            positions,
            channels,
            means,
            factors,
        })
    }

    /// Mahalanobis distances of `x [B, P, D]`, f32, on the device of the means: `[B, P]`.
    ///
    /// # Errors
    /// When shapes or types do not fit.
    pub fn distances(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, ..) = x.dims3()?;
        if batch == 0 {
            return Err(Error::Invalid("no vectors to measure".into()));
        }
        expect_f32("vectors", x, &[batch, self.positions, self.channels])?;
        let blocks = match &self.factors {
            Factors::Blocks(blocks) => blocks,
            Factors::Plain(factors) => return plain(x, &self.means, factors),
        };
        let x = x.contiguous()?;
        let (host_x, host_means) = (Host::open(&x), Host::open(&self.means));
        let pass = Pass {
            batch,
            positions: self.positions,
            channels: self.channels,
            x: host_x.values()?,
            means: host_means.values()?,
            blocks,
        };
        Ok(Tensor::from_vec(
            pass.run(),
            (batch, self.positions),
            &Device::Cpu,
        )?)
    }
}

/// Numbers of a position's blocks: block k of [`LANES`] rows has columns `0..LANES * (k + 1)`.
fn blocks_len(channels: usize) -> usize {
    let count = channels.div_ceil(LANES);
    LANES * LANES * count * (count + 1) / 2
}

/// Packed rows to blocks; what lies above the diagonal or past the last row is zero.
fn blocks(rows: &[f32], channels: usize) -> Vec<f32> {
    let (from, to) = (start(channels), blocks_len(channels));
    let mut all = vec![0f32; rows.len() / from * to];
    let shared = SharedMut::new(&mut all);
    parallel::for_each(rows.len() / from, |position| {
        let rows = &rows[position * from..][..from];
        // SAFETY: this position's blocks are this task's alone.
        let to = unsafe { shared.slice(position * to..(position + 1) * to) };
        for row in 0..channels {
            let block = row / LANES;
            let to = &mut to[LANES * LANES * start(block) + row % LANES..];
            let values = &rows[start(row)..][..row + 1];
            to.iter_mut()
                .step_by(LANES)
                .zip(values)
                .for_each(|(to, x)| *to = *x);
        }
    });
    all
}

/// Packed rows `[P, D (D + 1) / 2]` to `[P, D, D]` with zeros above the diagonal.
fn square(factors: &Tensor, channels: usize) -> Result<Tensor> {
    let positions = factors.dim(0)?;
    let zero = factors.elem_count() / positions; // the column appended below
    let index: Vec<u32> = (0..channels * channels)
        .map(|i| (i / channels, i % channels))
        .map(|(row, col)| if col <= row { start(row) + col } else { zero } as u32)
        .collect();
    let index = Tensor::new(index, factors.device())?;
    let factors = factors.pad_with_zeros(1, 0, 1)?.index_select(&index, 1)?;
    Ok(factors.reshape((positions, channels, channels))?)
}

fn plain(x: &Tensor, means: &Tensor, factors: &Tensor) -> Result<Tensor> {
    let centred = x.broadcast_sub(means)?.permute((1, 2, 0))?.contiguous()?;
    let whitened = factors.matmul(&centred)?; // [P, D, B]
    Ok(whitened.sqr()?.sum(1)?.sqrt()?.t()?.contiguous()?)
}

struct Pass<'a> {
    batch: usize,
    positions: usize,
    channels: usize,
    x: &'a [f32],
    means: &'a [f32],
    blocks: &'a [f32],
}

impl Pass<'_> {
    fn run(&self) -> Vec<f32> {
        // SAFETY: the spans cover all positions, each with all images.
        unsafe {
            written(self.batch * self.positions, |to| {
                parallel::for_each(self.positions.div_ceil(SPAN), |span| {
                    for position in span * SPAN..self.positions.min((span + 1) * SPAN) {
                        self.position(position, to);
                    }
                });
            })
        }
    }

    /// All images at one position, a few at a time.
    fn position(&self, position: usize, to: &SharedMut) {
        let (channels, padded) = (self.channels, self.channels.next_multiple_of(LANES));
        let size = blocks_len(channels);
        let mean = &self.means[position * channels..][..channels];
        with_scratch(IMAGES * padded, |centred| {
            for first in (0..self.batch).step_by(IMAGES) {
                let count = IMAGES.min(self.batch - first);
                for (i, centred) in centred.chunks_exact_mut(padded).take(count).enumerate() {
                    let x = &self.x[((first + i) * self.positions + position) * channels..];
                    let values = x.iter().zip(mean).map(|(x, mean)| x - mean);
                    centred.iter_mut().zip(values).for_each(|(to, x)| *to = x);
                    centred[channels..].fill(0.0);
                }
                let mut norms = [0f32; IMAGES];
                dispatch(Whiten {
                    blocks: &self.blocks[position * size..][..size],
                    centred: &centred[..count * padded],
                    norms: &mut norms[..count],
                });
                for (i, norm) in norms[..count].iter().enumerate() {
                    let at = (first + i) * self.positions + position;
                    // SAFETY: this position of this image is written here only.
                    unsafe { to.slice(at..at + 1)[0] = norm.sqrt() };
                }
            }
        });
    }
}

/// `|L^-1 x|^2` of as many padded vectors as there are norms.
struct Whiten<'a> {
    blocks: &'a [f32],
    centred: &'a [f32],
    norms: &'a mut [f32],
}

impl Kernel for Whiten<'_> {
    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let padded = self.centred.len() / self.norms.len();
        assert!(
            padded.is_multiple_of(LANES) && self.blocks.len() == blocks_len(padded),
            "a factor of another size"
        );
        let vectors = self.centred.chunks_exact(padded);
        // An image's sums are the same whichever of these computes them.
        match self.norms.len() {
            8 => whiten::<L, 8>(l, self.blocks, self.centred, padded, self.norms),
            4 => whiten::<L, 4>(l, self.blocks, self.centred, padded, self.norms),
            _ => {
                for (vector, norm) in vectors.zip(self.norms) {
                    whiten::<L, 1>(l, self.blocks, vector, padded, std::slice::from_mut(norm));
                }
            }
        }
    }
}

/// `N` vectors of `padded` numbers; `blocks` has that many rows.
#[inline(always)]
fn whiten<L: Lanes, const N: usize>(
    l: L,
    blocks: &[f32],
    vectors: &[f32],
    padded: usize,
    norms: &mut [f32],
) {
    let mut squares = [l.splat(0.0); N];
    let mut rest = blocks;
    for columns in (LANES..=padded).step_by(LANES) {
        let (block, after) = rest.split_at(columns * LANES);
        rest = after;
        let mut sums = [l.splat(0.0); N];
        for (c, column) in block.as_chunks::<LANES>().0.iter().enumerate() {
            // SAFETY: a column has LANES numbers.
            let column = unsafe { l.load(column.as_ptr()) };
            let mut i = 0;
            while i < N {
                sums[i] = l.mul_add(column, l.splat(vectors[i * padded + c]), sums[i]);
                i += 1;
            }
        }
        let mut i = 0;
        while i < N {
            squares[i] = l.mul_add(sums[i], sums[i], squares[i]);
            i += 1;
        }
    }
    for (norm, squares) in norms.iter_mut().zip(squares) {
        let mut lanes = [0f32; LANES];
        // SAFETY: LANES numbers.
        unsafe { l.store(lanes.as_mut_ptr(), squares) };
        *norm = lanes.iter().sum();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn wave(count: usize, step: f64) -> Vec<f64> {
        (0..count)
            .map(|i| ((i * i) as f64 * step).sin() + 0.2)
            .collect()
    }

    /// `A A^T + I / 2` of a wave, another one at each position.
    fn covariance(size: usize, position: usize) -> Vec<f64> {
        let a = wave(size * size, 0.37 + position as f64 * 0.11);
        let product = |r: usize, c: usize| -> f64 {
            let dot: f64 = (0..size).map(|k| a[r * size + k] * a[c * size + k]).sum();
            dot + if r == c { 0.5 } else { 0.0 }
        };
        (0..size * size)
            .map(|i| product(i / size, i % size))
            .collect()
    }

    /// `sqrt(x^T C^-1 x)` by elimination without a factor.
    fn mahalanobis(covariance: &[f64], x: &[f64]) -> f64 {
        let size = x.len();
        let matrix = nalgebra::DMatrix::from_row_slice(size, size, covariance);
        let x = nalgebra::DVector::from_column_slice(x);
        x.dot(&matrix.lu().solve(&x).unwrap()).sqrt()
    }

    /// Gaussians, images and the distances by formula.
    fn example(batch: usize, positions: usize, channels: usize) -> (Gaussians, Tensor, Vec<f64>) {
        let covariances: Vec<Vec<f64>> = (0..positions).map(|p| covariance(channels, p)).collect();
        let factors = covariances
            .iter()
            .enumerate()
            .flat_map(|(p, c)| Factorised::of(c, p).unwrap().rows)
            .collect::<Vec<f32>>();
        let tensor = |values: &[f64], shape: &[usize]| {
            let values: Vec<f32> = values.iter().map(|x| *x as f32).collect();
            Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
        };
        let means = wave(positions * channels, 0.71);
        let x = wave(batch * positions * channels, 0.29);
        let expected = (0..batch * positions)
            .map(|i| {
                let (x, mean) = (&x[i * channels..], &means[i % positions * channels..]);
                let centred: Vec<f64> = (0..channels).map(|c| x[c] - mean[c]).collect();
                mahalanobis(&covariances[i % positions], &centred)
            })
            .collect();
        let factors = Tensor::from_vec(factors, (positions, start(channels)), &Device::Cpu);
        let means = tensor(&means, &[positions, channels]);
        let gaussians = Gaussians::new(&means, &factors.unwrap()).unwrap();
        (
            gaussians,
            tensor(&x, &[batch, positions, channels]),
            expected,
        )
    }

    fn values(tensor: &Tensor) -> Vec<f32> {
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn distances_equal_the_formula() {
        for (batch, positions, channels) in [(1, 3, 1), (3, 5, 7), (12, 18, 8), (9, 2, 29)] {
            let (gaussians, x, expected) = example(batch, positions, channels);
            let found = gaussians.distances(&x).unwrap();
            assert_eq!(found.dims(), [batch, positions]);
            for (found, expected) in values(&found).iter().zip(&expected) {
                let gap = (f64::from(*found) - expected).abs();
                assert!(
                    gap <= 1e-3 * expected,
                    "{channels} channels: {found}, not {expected}"
                );
            }
        }
    }

    #[test]
    fn an_image_does_not_depend_on_its_batch_or_the_threads() {
        let (gaussians, x, _) = example(13, 40, 21);
        let all = values(&gaussians.distances(&x).unwrap());
        for image in 0..13 {
            let one = gaussians
                .distances(&x.narrow(0, image, 1).unwrap())
                .unwrap();
            assert_eq!(values(&one), all[image * 40..][..40]);
        }
        let alone = rayon::scope(|_| values(&gaussians.distances(&x).unwrap()));
        assert_eq!(alone, all);
    }

    #[test]
    fn candles_operations_agree() {
        let (gaussians, x, _) = example(3, 5, 7);
        let rows: Vec<f32> = (0..5)
            .flat_map(|p| Factorised::of(&covariance(7, p), p).unwrap().rows)
            .collect();
        let factors = Tensor::from_vec(rows, (5, 28), &Device::Cpu).unwrap();
        let other = plain(&x, &gaussians.means, &square(&factors, 7).unwrap()).unwrap();
        for (a, b) in values(&gaussians.distances(&x).unwrap())
            .iter()
            .zip(values(&other))
        {
            assert!((a - b).abs() < 1e-4 * b, "{a}, {b}");
        }
    }

    #[test]
    fn what_is_no_number_stays_none() {
        let (gaussians, x, _) = example(1, 3, 7);
        let mut spoilt = values(&x);
        spoilt[8] = f32::NAN;
        let spoilt = Tensor::from_vec(spoilt, (1, 3, 7), &Device::Cpu).unwrap();
        let found = values(&gaussians.distances(&spoilt).unwrap());
        assert_eq!(
            found.iter().map(|x| x.is_nan()).collect::<Vec<_>>(),
            [false, true, false]
        );
    }

    #[test]
    fn a_singular_covariance_names_its_position() {
        let flat = vec![1.0; 9];
        let error = Factorised::of(&flat, 17).unwrap_err().to_string();
        assert!(
            error.contains("position 17") && error.contains("not positive definite"),
            "{error}"
        );
        assert!(Factorised::of(&[f64::NAN], 0).is_err());
        assert!(Factorised::of(&[1.0, 2.0, 3.0], 0).is_err() && Factorised::of(&[], 0).is_err());
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        let zeros =
            |shape: &[usize]| Tensor::zeros(shape, candle_core::DType::F32, &Device::Cpu).unwrap();
        assert!(Gaussians::new(&zeros(&[2, 3]), &zeros(&[2, 5])).is_err());
        assert!(Gaussians::new(&zeros(&[0, 3]), &zeros(&[0, 6])).is_err());
        let gaussians = Gaussians::new(&zeros(&[2, 3]), &zeros(&[2, 6])).unwrap();
        assert!(gaussians.distances(&zeros(&[1, 3, 3])).is_err());
        assert!(gaussians.distances(&zeros(&[0, 2, 3])).is_err());
    }
}
