//! Linear layers of frozen networks, with what follows them done while the result is still in cache.

use candle_core::{DType, Tensor};

use super::{
    elementary::erf,
    gemm::{MatRef, PackedRows},
    parallel::{self, SharedMut},
    shape::expect_f32,
    simd::simd_fn,
    view::Host,
};
use crate::Result;

/// Outputs that one task computes for all tokens of an image. Fixed, and a task never spans two images:
/// results do not depend on the number of threads or on the batch.
const SPAN: usize = 96;

/// What follows a linear layer.
#[derive(Debug, Clone, Copy)]
pub enum Then<'a> {
    /// Nothing.
    Stop,
    /// The exact (erf) GELU.
    Gelu,
    /// Adding a tensor of the output's shape.
    Add(&'a Tensor),
}

/// `x w^T + b` of `x [B, N, K]`, `w [O, K]` and `b [O]`, then `then`; no gradients. Tensors that are not f32
/// on the CPU go through candle's own operations.
///
/// # Errors
/// When shapes do not fit.
pub fn linear(x: &Tensor, w: &Tensor, b: &Tensor, then: Then) -> Result<Tensor> {
    let (batch, tokens, inputs) = x.dims3()?;
    let outputs = w.dim(0)?;
    expect_f32("linear weight", w, &[outputs, inputs])?;
    expect_f32("linear bias", b, &[outputs])?;
    let shape = (batch, tokens, outputs);
    if let Then::Add(residual) = then {
        expect_f32("residual", residual, &[batch, tokens, outputs])?;
    }
    if !x.device().is_cpu() || x.dtype() != DType::F32 {
        return plain(x, w, b, then);
    }
    let (x, w, b) = (x.contiguous()?, w.contiguous()?, b.contiguous()?);
    let (host_x, host_w, host_b) = (Host::open(&x), Host::open(&w), Host::open(&b));
    let residual = match then {
        Then::Add(residual) => Some(residual.contiguous()?),
        _ => None,
    };
    let host_residual = residual.as_ref().map(Host::open);
    let images = host_x.values()?.chunks_exact((tokens * inputs).max(1));
    let layer = Layer {
        tokens,
        inputs,
        outputs,
        x: images
            .map(|x| PackedRows::pack(x, (tokens, inputs), inputs))
            .collect(),
        w: host_w.values()?,
        b: host_b.values()?,
        residual: host_residual.as_ref().map(Host::values).transpose()?,
        gelu: matches!(then, Then::Gelu),
    };
    let mut y = vec![0f32; batch * tokens * outputs];
    let shared = SharedMut::new(&mut y);
    let spans = outputs.div_ceil(SPAN);
    parallel::for_each(batch * spans, |task| {
        layer.run(task / spans, task % spans * SPAN, &shared);
    });
    Ok(Tensor::from_vec(y, shape, x.device())?)
}

fn plain(x: &Tensor, w: &Tensor, b: &Tensor, then: Then) -> Result<Tensor> {
    let y = x.broadcast_matmul(&w.t()?)?.broadcast_add(b)?;
    Ok(match then {
        Then::Stop => y,
        Then::Gelu => y.gelu_erf()?,
        Then::Add(residual) => (y + residual)?,
    })
}

struct Layer<'a> {
    tokens: usize,
    inputs: usize,
    outputs: usize,
    /// Of each image.
    x: Vec<PackedRows>,
    w: &'a [f32],
    b: &'a [f32],
    residual: Option<&'a [f32]>,
    gelu: bool,
}

impl Layer<'_> {
    /// Outputs `first..first + SPAN` of image `image`.
    fn run(&self, image: usize, first: usize, y: &SharedMut) {
        let span = SPAN.min(self.outputs - first);
        let start = image * self.tokens * self.outputs + first;
        let row = |token: usize| start + token * self.outputs..start + token * self.outputs + span;
        let bias = &self.b[first..first + span];
        for token in 0..self.tokens {
            // SAFETY: this task alone writes its outputs of its image, one row at a time.
            let y = unsafe { y.slice(row(token)) };
            y.copy_from_slice(bias);
            if let Some(residual) = self.residual {
                y.iter_mut()
                    .zip(&residual[row(token)])
                    .for_each(|(y, residual)| *y += residual);
            }
        }
        let w = MatRef::rows(&self.w[first * self.inputs..], self.inputs).transposed();
        // SAFETY: the task's own rows, as above; all of them lie inside the buffer.
        unsafe { self.x[image].times(w, span, y.at(start), self.outputs, true) };
        if self.gelu {
            for token in 0..self.tokens {
                // SAFETY: as above.
                gelu(unsafe { y.slice(row(token)) });
            }
        }
    }
}

simd_fn! {
    /// `x (1 + erf(x / sqrt 2)) / 2` in place.
    fn gelu(values: &mut [f32]) {
        for value in values {
            let x = *value;
            *value = 0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use candle_core::Device;

    use super::*;

    fn wave(shape: &[usize], step: f32) -> Tensor {
        let count = shape.iter().product::<usize>();
        let values: Vec<f32> = (0..count).map(|i| (i as f32 * step).sin()).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    }

    #[test]
    fn every_ending_equals_candles_own_operations() {
        let (x, w) = (wave(&[2, 5, 7], 0.3), wave(&[130, 7], 0.7));
        let (b, residual) = (wave(&[130], 1.1), wave(&[2, 5, 130], 0.9));
        for then in [Then::Stop, Then::Gelu, Then::Add(&residual)] {
            let ours = linear(&x, &w, &b, then).unwrap();
            let theirs = plain(&x, &w, &b, then).unwrap();
            let gap = (ours - theirs)
                .unwrap()
                .abs()
                .unwrap()
                .flatten_all()
                .unwrap();
            let gap = gap.max(0).unwrap().to_scalar::<f32>().unwrap();
            assert!(gap < 2e-6, "{then:?}: {gap}");
        }
    }

    #[test]
    fn an_image_does_not_depend_on_its_batch() {
        let (x, w, b) = (wave(&[3, 5, 7], 0.3), wave(&[10, 7], 0.7), wave(&[10], 1.1));
        let all = linear(&x, &w, &b, Then::Gelu).unwrap();
        let one = linear(&x.narrow(0, 1, 1).unwrap(), &w, &b, Then::Gelu).unwrap();
        let all: Vec<f32> = all
            .get(1)
            .unwrap()
            .flatten_all()
            .unwrap()
            .to_vec1()
            .unwrap();
        assert_eq!(all, one.flatten_all().unwrap().to_vec1::<f32>().unwrap());
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        let (x, w, b) = (wave(&[1, 5, 7], 0.3), wave(&[10, 6], 0.7), wave(&[10], 1.1));
        assert!(linear(&x, &w, &b, Then::Stop).is_err());
    }
}
