//! Linear layers of frozen networks, with what follows them done while the result is still in cache.

use candle_core::{Device, Tensor};

use super::{
    elementary::erf,
    gemm::{MatRef, PackedRows, pack_panels, panels_len},
    parallel::{self, SharedMut, written},
    shape::expect_f32,
    simd::simd_fn,
    view::Host,
};
use crate::{Error, Result};

/// Outputs that one task computes for a block of tokens; whole panels. Fixed, and a task never spans two images:
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

/// A frozen linear layer; its weights are kept once, in the order in which the products read them.
#[derive(Debug)]
pub struct PreparedLinear {
    inputs: usize,
    weight: Weight,
    /// `[O]`
    bias: Tensor,
}

#[derive(Debug)]
enum Weight {
    /// As panels, for this crate's products.
    Panels(Vec<f32>),
    /// `[O, K]`, for candle's operations on other devices.
    Plain(Tensor),
}

impl PreparedLinear {
    /// A layer from its weight `[O, K]`, row by row, and its bias `[O]`.
    ///
    /// # Errors
    /// When their lengths do not fit, or the device refuses.
    pub fn new(weight: Vec<f32>, bias: Vec<f32>, device: &Device) -> Result<Self> {
        let outputs = bias.len();
        if outputs == 0 || !weight.len().is_multiple_of(outputs) {
            return Err(Error::Shape {
                what: "linear weight".into(),
                expected: format!("rows for {outputs} outputs"),
                found: format!("{} values", weight.len()),
            });
        }
        let inputs = weight.len() / outputs;
        let weight = if device.is_cpu() {
            let mut panels = vec![0f32; panels_len(inputs, outputs)];
            let columns = MatRef::rows(&weight, inputs).transposed();
            pack_panels(columns, (inputs, outputs), &mut panels);
            Weight::Panels(panels)
        } else {
            Weight::Plain(Tensor::from_vec(weight, (outputs, inputs), device)?)
        };
        Ok(Self {
            inputs,
            weight,
            bias: Tensor::from_vec(bias, outputs, device)?,
        })
    }

    /// `x w^T + b` of `x [B, N, K]`, f32, on the layer's device, then `then`; no gradients.
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn forward(&self, x: &Tensor, then: Then) -> Result<Tensor> {
        let (batch, tokens, inputs) = x.dims3()?;
        let outputs = self.bias.dim(0)?;
        expect_f32("linear input", x, &[batch, tokens, self.inputs])?;
        let shape = (batch, tokens, outputs);
        if let Then::Add(residual) = then {
            expect_f32("residual", residual, &[batch, tokens, outputs])?;
        }
        let panels = match &self.weight {
            Weight::Panels(panels) => panels,
            Weight::Plain(weight) => return plain(x, weight, &self.bias, then),
        };
        let (x, residual) = (x.contiguous()?, contiguous(then)?);
        let (host_x, host_b) = (Host::open(&x), Host::open(&self.bias));
        let host_residual = residual.as_ref().map(Host::open);
        let images = host_x.values()?.chunks_exact((tokens * inputs).max(1));
        let layer = Layer {
            tokens,
            inputs,
            outputs,
            x: images
                .map(|x| PackedRows::pack(x, (tokens, inputs), inputs))
                .collect(),
            panels,
            bias: host_b.values()?,
            residual: host_residual.as_ref().map(Host::values).transpose()?,
            gelu: matches!(then, Then::Gelu),
        };
        Ok(Tensor::from_vec(layer.run(), shape, x.device())?)
    }
}

fn contiguous(then: Then) -> Result<Option<Tensor>> {
    Ok(match then {
        Then::Add(residual) => Some(residual.contiguous()?),
        _ => None,
    })
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
    panels: &'a [f32],
    bias: &'a [f32],
    residual: Option<&'a [f32]>,
    gelu: bool,
}

impl Layer<'_> {
    fn run(&self) -> Vec<f32> {
        let blocks = self.x.first().map(PackedRows::blocks).unwrap_or_default();
        let spans = self.outputs.div_ceil(SPAN);
        // SAFETY: the tasks cover all images, outputs and tokens, and none reads before it writes.
        unsafe {
            written(self.x.len() * self.tokens * self.outputs, |y| {
                // A span's panels stay in the second cache while the blocks of tokens pass.
                parallel::for_each(self.x.len() * spans * blocks.len(), |task| {
                    let (rest, block) = (task / blocks.len(), &blocks[task % blocks.len()]);
                    self.task(rest / spans, rest % spans * SPAN, block.clone(), y);
                });
            })
        }
    }

    /// Outputs `first..first + SPAN` of a block of an image's tokens.
    fn task(&self, image: usize, first: usize, block: std::ops::Range<usize>, y: &SharedMut) {
        let span = SPAN.min(self.outputs - first);
        let start = |token: usize| (image * self.tokens + token) * self.outputs + first;
        let panels = &self.panels[first * self.inputs..];
        // SAFETY: this task alone writes these outputs of these tokens; all of them lie inside the buffer.
        unsafe {
            let to = y.at(start(block.start));
            self.x[image].times(block.clone(), (panels, span), to, self.outputs);
        }
        let bias = &self.bias[first..first + span];
        for token in block {
            let row = start(token)..start(token) + span;
            // SAFETY: as above, one row at a time.
            let y = unsafe { y.slice(row.clone()) };
            match self.residual {
                Some(residual) => add(y, bias, &residual[row]),
                None if self.gelu => gelu(y, bias),
                None => y.iter_mut().zip(bias).for_each(|(y, b)| *y += b),
            }
        }
    }
}

/// `y + bias + residual` in place.
fn add(y: &mut [f32], bias: &[f32], residual: &[f32]) {
    let added = bias.iter().zip(residual);
    y.iter_mut().zip(added).for_each(|(y, (b, r))| *y += b + r);
}

simd_fn! {
    /// `x (1 + erf(x / sqrt 2)) / 2` of `x = values + bias`, in place.
    fn gelu(values: &mut [f32], bias: &[f32]) {
        for (value, bias) in values.iter_mut().zip(bias) {
            let x = *value + *bias;
            *value = 0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn layer(w: &Tensor, b: &Tensor) -> PreparedLinear {
        let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        PreparedLinear::new(values(w), values(b), &Device::Cpu).unwrap()
    }

    fn wave(shape: &[usize], step: f32) -> Tensor {
        let count = shape.iter().product::<usize>();
        let values: Vec<f32> = (0..count).map(|i| (i as f32 * step).sin()).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    }

    #[test]
    fn every_ending_equals_candles_own_operations() {
        // More tokens than a block, more outputs than a span, more inputs than a cut.
        let (x, w) = (wave(&[2, 111, 260], 0.3), wave(&[130, 260], 0.7));
        let (b, residual) = (wave(&[130], 1.1), wave(&[2, 111, 130], 0.9));
        for then in [Then::Stop, Then::Gelu, Then::Add(&residual)] {
            let ours = layer(&w, &b).forward(&x, then).unwrap();
            let theirs = plain(&x, &w, &b, then).unwrap();
            let gap = (ours - theirs)
                .unwrap()
                .abs()
                .unwrap()
                .flatten_all()
                .unwrap();
            let gap = gap.max(0).unwrap().to_scalar::<f32>().unwrap();
            assert!(gap < 2e-5, "{then:?}: {gap}");
        }
    }

    #[test]
    fn an_image_does_not_depend_on_its_batch() {
        let (x, w, b) = (wave(&[3, 5, 7], 0.3), wave(&[10, 7], 0.7), wave(&[10], 1.1));
        let all = layer(&w, &b).forward(&x, Then::Gelu).unwrap();
        let one = layer(&w, &b)
            .forward(&x.narrow(0, 1, 1).unwrap(), Then::Gelu)
            .unwrap();
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
        assert!(layer(&w, &b).forward(&x, Then::Stop).is_err());
        assert!(PreparedLinear::new(vec![0.0; 7], vec![0.0; 3], &Device::Cpu).is_err());
    }
}
