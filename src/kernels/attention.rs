//! Self-attention of frozen transformers: q, k and v are read where the linear layer left them, scores
//! live in a small buffer a block of queries at a time, and the softmax is done in it. No gradients.

use candle_core::{D, DType, Tensor};

use super::{
    elementary::exp,
    gemm::{MatRef, gemm_into},
    parallel::{self, SharedMut, with_scratch},
    shape::expect_f32,
    simd::{LANES, lane_sum, simd_fn},
    view::Host,
};
use crate::{Error, Result};

/// Queries that a task attends with at once: fixed, so that results do not depend on the machine.
const QUERIES: usize = 64;
/// The same for talking heads, whose buffer holds the scores of every head twice.
const MIXED_QUERIES: usize = 16;

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
    let problem = Problem {
        qkv: host.values()?,
        tokens,
        heads,
        width,
        scale: 1.0 / (width as f32).sqrt(),
    };
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
    let mut weights = candle_nn::ops::softmax(&scores, D::Minus1)?;
    if let Some(mixing) = mixing {
        let bias = mixing.bias.reshape((1, heads, 1, 1))?;
        weights = mix(&weights, &mixing.weights)?.broadcast_add(&bias)?;
    }
    let out = weights.matmul(&part(2)?)?.transpose(1, 2)?;
    Ok(out.reshape((batch, tokens, heads * width))?)
}

struct Problem<'a> {
    qkv: &'a [f32],
    tokens: usize,
    heads: usize,
    width: usize,
    scale: f32,
}

/// [`HeadMixing`] in host memory, the scores' scale folded in.
struct Mixer {
    scores: Vec<f32>,
    weights: Vec<f32>,
    bias: Vec<f32>,
}

impl Mixer {
    fn new(mixing: &HeadMixing, scale: f32) -> Result<Self> {
        let values = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f32>();
        let scores = values(&mixing.scores)?;
        Ok(Self {
            scores: scores.into_iter().map(|value| value * scale).collect(),
            weights: values(&mixing.weights)?,
            bias: values(&mixing.bias)?,
        })
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
            with_scratch(2 * self.heads * plane, |buffer| {
                let (raw, mixed) = buffer.split_at_mut(self.heads * plane);
                for (head, scores) in raw.chunks_exact_mut(plane).enumerate() {
                    self.score(image, head, first, queries, scores);
                }
                mixed.fill(0.0);
                mix(&mixer.scores, raw, mixed, self.heads);
                for row in mixed.chunks_exact_mut(self.tokens) {
                    let share = 1.0 / exponentials(row, 1.0);
                    row.iter_mut().for_each(|value| *value *= share);
                }
                for (plane, bias) in raw.chunks_exact_mut(plane).zip(&mixer.bias) {
                    plane.fill(*bias);
                }
                mix(&mixer.weights, mixed, raw, self.heads);
                for (head, weights) in raw.chunks_exact(plane).enumerate() {
                    self.gather(image, head, first, weights, out);
                }
            });
        });
    }

    /// `q k^T` of a block of queries, `[queries, tokens]`.
    fn score(&self, image: usize, head: usize, first: usize, queries: usize, scores: &mut [f32]) {
        let q = self.part(image, 0, head, first);
        let k = self.part(image, 1, head, 0).transposed();
        let sizes = (queries, self.tokens, self.width);
        assert_eq!(scores.len(), queries * self.tokens);
        // SAFETY: `scores` holds exactly that many elements and is borrowed alone.
        unsafe { gemm_into(sizes, scores.as_mut_ptr(), self.tokens, false, q, k) };
    }

    /// `weights v` into the head's outputs of the block.
    fn gather(&self, image: usize, head: usize, first: usize, weights: &[f32], out: &SharedMut) {
        let queries = weights.len() / self.tokens;
        let v = self.part(image, 2, head, 0);
        let sizes = (queries, self.width, self.tokens);
        let start = out.at(self.out(image, first, head));
        let weights = MatRef::rows(weights, self.tokens);
        // SAFETY: the rows of these queries and this head are inside the buffer and this task's alone.
        unsafe { gemm_into(sizes, start, self.heads * self.width, false, weights, v) };
    }
}

/// `to += by from`, of heads x (queries x tokens).
fn mix(by: &[f32], from: &[f32], to: &mut [f32], heads: usize) {
    let columns = from.len() / heads;
    let (by, from) = (MatRef::rows(by, heads), MatRef::rows(from, columns));
    assert_eq!(to.len(), heads * columns);
    // SAFETY: `to` holds exactly that many elements and is borrowed alone.
    unsafe {
        gemm_into(
            (heads, columns, heads),
            to.as_mut_ptr(),
            columns,
            true,
            by,
            from,
        )
    };
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
    fn widths_that_do_not_fit_are_refused() {
        let error = attention(&noise(&[1, 4, 16], 7), 2, None).unwrap_err();
        assert!(error.to_string().contains("3 * 2 heads"), "{error}");
    }
}
