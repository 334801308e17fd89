//! Self-attention of frozen transformers: q, k and v are read where the linear layer left them, scores
//! live in a small buffer a block of queries at a time, and the softmax is done in it. No gradients.

use candle_core::{D, DType, Tensor};

use super::{
    elementary::exp,
    gemm::{MatRef, PANEL, gemm_panels, pack_panels, panels_len},
    parallel::{self, SharedMut, with_scratch, written},
    shape::expect_f32,
    simd::{LANES, lane_sum, simd_fn},
    view::Host,
};
use crate::{Error, Result};

/// Queries that a task attends with at once: fixed, so that results do not depend on the machine.
const QUERIES: usize = 64;
/// The same for talking heads, whose buffer holds the scores of every head. With more, they would leave the second
/// cache; with fewer, keys and values would be read from the third too often.
const MIXED_QUERIES: usize = 12;

/// Maps across heads before and after the softmax (Shazeer et al. 2020, talking-heads attention).
///
/// The bias before the softmax is not here: a constant added to a head's scores changes nothing.
#[derive(Debug, Clone)]
pub struct HeadMixing {
    /// `[H, H]`, of the scores.
    pub scores: Tensor,
    /// `[H, H]`, of the softmax's weights.
    pub weights: Tensor,
    /// `[H]`, added to the mixed weights.
    pub bias: Tensor,
}

/// `softmax(q k^T / sqrt(d)) v` for each of `heads` heads of `qkv [B, N, 3 D]` (q, k, v after one another,
/// heads of `d = D / heads` inside each), giving `[B, N, D]`. With `mixing`, scores and weights are mapped
/// across heads. Tensors that are not f32 on the CPU go through candle's own operations.
///
/// # Errors
/// When shapes do not fit.
pub fn attention(qkv: &Tensor, heads: usize, mixing: Option<&HeadMixing>) -> Result<Tensor> {
    let (batch, tokens, triple) = qkv.dims3()?;
    if heads == 0 || !triple.is_multiple_of(3 * heads) {
        return Err(Error::Shape {
            what: "attention input".into(),
            expected: format!("[batch, tokens, 3 * {heads} heads * width]"),
            found: format!("{:?}", qkv.dims()),
        });
    }
    if let Some(mixing) = mixing {
        expect_f32("mixing of scores", &mixing.scores, &[heads, heads])?;
        expect_f32("mixing of weights", &mixing.weights, &[heads, heads])?;
        expect_f32("bias of the mixing", &mixing.bias, &[heads])?;
    }
    if !qkv.device().is_cpu() || qkv.dtype() != DType::F32 {
        return plain(qkv, heads, mixing);
    }
    let qkv = qkv.contiguous()?;
    let host = Host::open(&qkv);
    let width = triple / (3 * heads);
    let problem = Problem::new(host.values()?, (batch, tokens), (heads, width));
    let mut out = vec![0f32; batch * tokens * heads * width];
    match mixing {
        None => problem.attend(batch, &SharedMut::new(&mut out)),
        Some(mixing) => {
            let mixer = Mixer::new(mixing, problem.scale)?;
            problem.attend_mixed(batch, &mixer, &SharedMut::new(&mut out));
        }
    }
    Ok(Tensor::from_vec(
        out,
        (batch, tokens, heads * width),
        qkv.device(),
    )?)
}

fn plain(qkv: &Tensor, heads: usize, mixing: Option<&HeadMixing>) -> Result<Tensor> {
    let (batch, tokens, triple) = qkv.dims3()?;
    let width = triple / (3 * heads);
    let part = |index: usize| {
        qkv.narrow(2, index * heads * width, heads * width)?
            .reshape((batch, tokens, heads, width))?
            .transpose(1, 2)?
            .contiguous()
    };
    let mix = |scores: &Tensor, by: &Tensor| {
        let flat = scores.reshape((batch, heads, tokens * tokens))?;
        by.broadcast_matmul(&flat)?.reshape(scores.shape())
    };
    let mut scores = (part(0)?.matmul(&part(1)?.t()?)? / (width as f64).sqrt())?;
    if let Some(mixing) = mixing {
        scores = mix(&scores, &mixing.scores)?;
    }
    let mut weights = softmax(&scores)?;
    if let Some(mixing) = mixing {
        let bias = mixing.bias.reshape((1, heads, 1, 1))?;
        weights = mix(&weights, &mixing.weights)?.broadcast_add(&bias)?;
    }
    let out = weights.matmul(&part(2)?)?.transpose(1, 2)?;
    Ok(out.reshape((batch, tokens, heads * width))?)
}

/// `exp(x - max x) / sum exp(x - max x)` over the last axis.
fn softmax(scores: &Tensor) -> Result<Tensor> {
    let peaks = scores.max_keepdim(D::Minus1)?;
    let powers = scores.broadcast_sub(&peaks)?.exp()?;
    Ok(powers.broadcast_div(&powers.sum_keepdim(D::Minus1)?)?)
}

struct Problem<'a> {
    qkv: &'a [f32],
    tokens: usize,
    heads: usize,
    width: usize,
    scale: f32,
    /// Keys (transposed), then values, of each head of each image, as panels: every block of queries reads them.
    panels: Vec<f32>,
}

/// [`HeadMixing`] in host memory.
struct Mixer {
    /// `[H, H]`, the scores' scale folded in.
    scores: Vec<f32>,
    /// `[H, H + 1]`: in the last column the bias.
    weights: Vec<f32>,
}

impl Mixer {
    fn new(mixing: &HeadMixing, scale: f32) -> Result<Self> {
        let values = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f32>();
        let (scores, bias) = (values(&mixing.scores)?, values(&mixing.bias)?);
        let weights = values(&mixing.weights)?;
        let rows = weights.chunks_exact(bias.len()).zip(&bias);
        Ok(Self {
            scores: scores.into_iter().map(|value| value * scale).collect(),
            weights: rows
                .flat_map(|(row, bias)| [row, &[*bias]].concat())
                .collect(),
        })
    }
}

impl<'a> Problem<'a> {
    fn new(
        qkv: &'a [f32],
        (batch, tokens): (usize, usize),
        (heads, width): (usize, usize),
    ) -> Self {
        let mut problem = Self {
            qkv,
            tokens,
            heads,
            width,
            scale: 1.0 / (width as f32).sqrt(),
            panels: Vec::new(),
        };
        let (keys, values) = problem.panel_sizes();
        // SAFETY: every head's part is written, keys and values.
        problem.panels = unsafe {
            written(batch * heads * (keys + values), |to| {
                parallel::for_each(batch * heads, |task| {
                    let (image, head) = (task / heads, task % heads);
                    let start = task * (keys + values);
                    // SAFETY: this head's part is this task's alone.
                    let to = to.slice(start..start + keys + values);
                    let (to_keys, to_values) = to.split_at_mut(keys);
                    let k = problem.part(image, 1, head, 0).transposed();
                    pack_panels(k, (width, tokens), to_keys);
                    pack_panels(problem.part(image, 2, head, 0), (tokens, width), to_values);
                });
            })
        };
        problem
    }
}

impl Problem<'_> {
    /// q, k or v (`part` 0, 1 or 2) of a head, from token `first` on.
    fn part(&self, image: usize, part: usize, head: usize, first: usize) -> MatRef<'_> {
        let row = 3 * self.heads * self.width;
        let start = (image * self.tokens + first) * row + (part * self.heads + head) * self.width;
        let end = (image + 1) * self.tokens * row;
        MatRef::rows(&self.qkv[start..end], row)
    }

    /// Elements of a head's keys and of its values as panels.
    fn panel_sizes(&self) -> (usize, usize) {
        let (tokens, width) = (self.tokens, self.width);
        (panels_len(width, tokens), panels_len(tokens, width))
    }

    /// A head's keys and values.
    fn panels(&self, image: usize, head: usize) -> (&[f32], &[f32]) {
        let (keys, values) = self.panel_sizes();
        let start = (image * self.heads + head) * (keys + values);
        self.panels[start..start + keys + values].split_at(keys)
    }

    /// Where a head's output of a token starts.
    fn out(&self, image: usize, token: usize, head: usize) -> usize {
        ((image * self.tokens + token) * self.heads + head) * self.width
    }

    fn attend(&self, batch: usize, out: &SharedMut) {
        let blocks = self.tokens.div_ceil(QUERIES);
        parallel::for_each(batch * self.heads * blocks, |task| {
            let (image, rest) = (task / (self.heads * blocks), task % (self.heads * blocks));
            let (head, first) = (rest / blocks, rest % blocks * QUERIES);
            let queries = QUERIES.min(self.tokens - first);
            with_scratch(queries * self.tokens, |scores| {
                self.score(image, head, first, queries, scores);
                let mut shares = [0f32; QUERIES];
                for (row, share) in scores.chunks_exact_mut(self.tokens).zip(&mut shares) {
                    *share = 1.0 / exponentials(row, self.scale);
                }
                self.gather(image, head, first, scores, out);
                for (query, share) in shares[..queries].iter().enumerate() {
                    let start = self.out(image, first + query, head);
                    // SAFETY: this task alone writes these queries of its head.
                    let row = unsafe { out.slice(start..start + self.width) };
                    row.iter_mut().for_each(|value| *value *= share);
                }
            });
        });
    }

    fn attend_mixed(&self, batch: usize, mixer: &Mixer, out: &SharedMut) {
        let blocks = self.tokens.div_ceil(MIXED_QUERIES);
        parallel::for_each(batch * blocks, |task| {
            let (image, first) = (task / blocks, task % blocks * MIXED_QUERIES);
            let queries = MIXED_QUERIES.min(self.tokens - first);
            let plane = queries * self.tokens;
            with_scratch(self.heads * plane, |planes| {
                for (head, scores) in planes.chunks_exact_mut(plane).enumerate() {
                    self.score(image, head, first, queries, scores);
                }
                mix(&mixer.scores, planes, self.heads);
                for row in planes.chunks_exact_mut(self.tokens) {
                    let share = 1.0 / exponentials(row, 1.0);
                    row.iter_mut().for_each(|value| *value *= share);
                }
                mix(&mixer.weights, planes, self.heads);
                for (head, weights) in planes.chunks_exact(plane).enumerate() {
                    self.gather(image, head, first, weights, out);
                }
            });
        });
    }

    /// `q k^T` of a block of queries, `[queries, tokens]`.
    fn score(&self, image: usize, head: usize, first: usize, queries: usize, scores: &mut [f32]) {
        let q = self.part(image, 0, head, first);
        let (keys, _) = self.panels(image, head);
        let sizes = (queries, self.tokens, self.width);
        assert_eq!(scores.len(), queries * self.tokens);
        // SAFETY: `scores` holds exactly that many elements and is borrowed alone.
        unsafe { gemm_panels(sizes, scores.as_mut_ptr(), self.tokens, false, q, keys) };
    }

    /// `weights v` into the head's outputs of the block.
    fn gather(&self, image: usize, head: usize, first: usize, weights: &[f32], out: &SharedMut) {
        let queries = weights.len() / self.tokens;
        let (_, values) = self.panels(image, head);
        let sizes = (queries, self.width, self.tokens);
        let start = out.at(self.out(image, first, head));
        let weights = MatRef::rows(weights, self.tokens);
        // SAFETY: the rows of these queries and this head are inside the buffer and this task's alone.
        unsafe {
            gemm_panels(
                sizes,
                start,
                self.heads * self.width,
                false,
                weights,
                values,
            )
        };
    }
}

/// Replaces the heads' planes by their mixtures: `by [heads, inner]` times them, and times a plane of ones where
/// `inner` is one more than the heads. Columns do not meet, so this goes panel by panel in place.
fn mix(by: &[f32], planes: &mut [f32], heads: usize) {
    let (columns, inner) = (planes.len() / heads, by.len() / heads);
    let by = MatRef::rows(by, inner);
    with_scratch(inner * PANEL, |panel| {
        panel[heads * PANEL..].fill(1.0);
        for first in (0..columns).step_by(PANEL) {
            let width = PANEL.min(columns - first);
            for (head, row) in panel.chunks_exact_mut(PANEL).take(heads).enumerate() {
                row[..width].copy_from_slice(&planes[head * columns + first..][..width]);
            }
            // SAFETY: columns `first..first + width` of all heads' planes, borrowed alone.
            unsafe {
                let to = planes.as_mut_ptr().add(first);
                gemm_panels((heads, width, inner), to, columns, false, by, panel);
            }
        }
    });
}

simd_fn! {
    /// Replaces `x` by `exp(scale * (x - max x))` and returns their sum; `scale` is positive.
    fn exponentials(row: &mut [f32], scale: f32) -> f32 {
        let mut peaks = [f32::NEG_INFINITY; LANES];
        let (chunks, rest) = row.as_chunks::<LANES>();
        for chunk in chunks {
            for (peak, value) in peaks.iter_mut().zip(chunk) {
                *peak = if *value > *peak { *value } else { *peak };
            }
        }
        let peak = peaks.iter().chain(rest).fold(f32::NEG_INFINITY, |a, b| a.max(*b));
        for value in row.iter_mut() {
            *value = exp((*value - peak) * scale);
        }
        let row = &*row;
        lane_sum(row.len(), |i| row[i])
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use candle_core::Device;

    use super::*;

    fn noise(shape: &[usize], seed: u32) -> Tensor {
        let mut state = seed;
        let draw = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state as f32 / u32::MAX as f32 * 4.0 - 2.0
        };
        let values = (0..shape.iter().product()).map(draw).collect::<Vec<_>>();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    }

    fn gap(a: &Tensor, b: &Tensor) -> f32 {
        let gap = (a - b).unwrap().abs().unwrap().flatten_all().unwrap();
        gap.max(0).unwrap().to_scalar().unwrap()
    }

    #[test]
    fn equals_candles_own_operations() {
        // more tokens than a block of queries, and not a multiple of it
        let qkv = noise(&[2, 77, 3 * 4 * 8], 1);
        let ours = attention(&qkv, 4, None).unwrap();
        assert!(gap(&ours, &plain(&qkv, 4, None).unwrap()) < 2e-6);
    }

    #[test]
    fn talking_heads_equal_candles_own_operations() {
        let qkv = noise(&[2, 37, 3 * 4 * 8], 2);
        let mixing = HeadMixing {
            scores: noise(&[4, 4], 3),
            weights: noise(&[4, 4], 4),
            bias: noise(&[4], 5),
        };
        let ours = attention(&qkv, 4, Some(&mixing)).unwrap();
        let theirs = plain(&qkv, 4, Some(&mixing)).unwrap();
        assert!(gap(&ours, &theirs) < 2e-5);
        assert!(gap(&ours, &plain(&qkv, 4, None).unwrap()) > 0.1);
    }

    #[test]
    fn huge_scores_do_not_overflow() {
        let qkv = (noise(&[1, 9, 3 * 8], 6) * 1e3).unwrap();
        let out = attention(&qkv, 1, None).unwrap().flatten_all().unwrap();
        assert!(out.to_vec1::<f32>().unwrap().iter().all(|v| v.is_finite()));
    }

    #[test]
    fn softmax_is_candle_nns_and_the_formula() {
        let scores = (noise(&[3, 5, 33], 8) * 10.0).unwrap();
        let ours = softmax(&scores).unwrap();
        let theirs = candle_nn::ops::softmax(&scores, D::Minus1).unwrap();
        assert!(gap(&ours, &theirs) < 1e-6);
        let powers = scores.to_dtype(DType::F64).unwrap().exp().unwrap();
        let sums = powers.sum_keepdim(D::Minus1).unwrap();
        let formula = powers.broadcast_div(&sums).unwrap();
        assert!(gap(&ours, &formula.to_dtype(DType::F32).unwrap()) < 1e-6);
    }

    #[test]
    fn widths_that_do_not_fit_are_refused() {
        let error = attention(&noise(&[1, 4, 16], 7), 2, None).unwrap_err();
        assert!(error.to_string().contains("3 * 2 heads"), "{error}");
    }
}
