//! One coupling step: a small conv net on the first channels moves the others.

use candle_core::{Device, Tensor, Var};
use rand::RngExt;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::{Coupling, FlowConfig};
use crate::Result;
use crate::kernels::FeatureShape;
use crate::kernels::conv::{conv2d, conv2d_backward, conv2d_fused};
use crate::kernels::coupling::{self, Affine, LogDetGradient, Permutation};

/// A step's trainable tensors (or their gradients).
#[derive(Debug, Clone)]
pub(super) struct Parameters<T> {
    /// `[hidden, C - C/2, k, k]`, `[hidden]`.
    pub(super) conv1_weight: T,
    pub(super) conv1_bias: T,
    /// `[2 (C/2), hidden, k, k]`, `[2 (C/2)]`; half the outputs where the coupling is additive.
    pub(super) conv2_weight: T,
    pub(super) conv2_bias: T,
    /// `g [C]`: the scale is `0.1 softplus(g)` with beta 0.5.
    pub(super) global_scale: T,
    /// `[C]`.
    pub(super) global_offset: T,
}

impl<T> Parameters<T> {
    /// With their names in an artifact.
    pub(super) fn named(self) -> [(&'static str, T); 6] {
        [
            ("conv1.bias", self.conv1_bias),
            ("conv1.weight", self.conv1_weight),
            ("conv2.bias", self.conv2_bias),
            ("conv2.weight", self.conv2_weight),
            ("global_offset", self.global_offset),
            ("global_scale", self.global_scale),
        ]
    }

    /// Builds every tensor from its name.
    pub(super) fn try_from_names(mut make: impl FnMut(&'static str) -> Result<T>) -> Result<Self> {
        Ok(Self {
            conv1_weight: make("conv1.weight")?,
            conv1_bias: make("conv1.bias")?,
            conv2_weight: make("conv2.weight")?,
            conv2_bias: make("conv2.bias")?,
            global_scale: make("global_scale")?,
            global_offset: make("global_offset")?,
        })
    }

    pub(super) fn map<U>(&self, f: impl Fn(&T) -> U) -> Parameters<U> {
        Parameters {
            conv1_weight: f(&self.conv1_weight),
            conv1_bias: f(&self.conv1_bias),
            conv2_weight: f(&self.conv2_weight),
            conv2_bias: f(&self.conv2_bias),
            global_scale: f(&self.global_scale),
            global_offset: f(&self.global_offset),
        }
    }
}

/// The sizes that decide a step's tensors.
#[derive(Debug, Clone, Copy)]
pub(super) struct StepShape {
    pub(super) channels: usize,
    pub(super) hidden: usize,
    pub(super) kernel: usize,
    pub(super) coupling: Coupling,
}

impl StepShape {
    /// Of step `step` over feature map `scale`.
    pub(super) fn of(config: &FlowConfig, scale: usize, shape: &FeatureShape, step: usize) -> Self {
        Self {
            channels: shape.channels,
            hidden: config.hidden[scale],
            kernel: config.kernels.size(step),
            coupling: config.coupling,
        }
    }

    /// Dimensions of the tensor called `name` by [`Parameters`].
    pub(super) fn dims(&self, name: &str) -> Vec<usize> {
        let active = self.channels / 2;
        match name {
            "conv1.weight" => vec![
                self.hidden,
                self.channels - active,
                self.kernel,
                self.kernel,
            ],
            "conv1.bias" => vec![self.hidden],
            "conv2.weight" => vec![
                self.coupling.outputs(active),
                self.hidden,
                self.kernel,
                self.kernel,
            ],
            "conv2.bias" => vec![self.coupling.outputs(active)],
            _ => vec![self.channels],
        }
    }
}

/// One coupling step.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) parameters: Parameters<Var>,
    pub(super) permutation: Permutation,
    padding: usize,
    clamp: f32,
    coupling: Coupling,
}

/// What the reverse pass needs of the forward one.
pub(super) struct Kept {
    pub(super) input: Tensor,
    /// The subnet's activation after its ReLU.
    hidden: Tensor,
    /// The subnet's output.
    subnet: Tensor,
}

/// The global scale starts at 1 here: 0.1 softplus(g) = 1.
fn initial_scale() -> f32 {
    (2.0 * (5f64.exp() - 1.0).ln()) as f32
}

impl Step {
    pub(super) fn new(
        parameters: Parameters<Var>,
        permutation: Permutation,
        shape: StepShape,
        clamp: f32,
    ) -> Self {
        Self {
            parameters,
            permutation,
            padding: shape.kernel / 2,
            clamp,
            coupling: shape.coupling,
        }
    }

    /// torch's defaults: weights and biases uniform within 1 / sqrt(fan in), for the last convolution too.
    pub(super) fn init(
        shape: StepShape,
        clamp: f32,
        rng: &mut ChaCha8Rng,
        device: &Device,
    ) -> Result<Self> {
        let mut indices: Vec<u32> = (0..shape.channels as u32).collect();
        indices.shuffle(rng);
        let parameters = Parameters::try_from_names(|name| {
            let dims = shape.dims(name);
            let values = match name {
                "global_scale" => vec![initial_scale(); shape.channels],
                "global_offset" => vec![0.0; shape.channels],
                _ => {
                    let weight = shape.dims(&name.replace("bias", "weight"));
                    let fan_in: usize = weight.iter().skip(1).product();
                    let bound = 1.0 / (fan_in as f32).sqrt();
                    let len = dims.iter().product();
                    (0..len).map(|_| rng.random_range(-bound..=bound)).collect()
                }
            };
            Ok(Var::from_vec(values, dims, device)?)
        })?;
        let permutation = Permutation::new(indices)?;
        Ok(Self::new(parameters, permutation, shape, clamp))
    }

    /// The parameters as plain tensors, through which candle tracks no gradients.
    fn frozen(&self) -> Parameters<Tensor> {
        self.parameters.map(Var::as_detached_tensor)
    }

    /// `x [B, C, H, W]` -> output, its log-det `[B, H, W]` without the global scale's part, and what the
    /// reverse pass needs. `affine` is the step's of [`super::scales::Scales`], here and below.
    pub(super) fn forward(&self, x: &Tensor, affine: &Affine) -> Result<(Tensor, Tensor, Kept)> {
        let parameters = self.frozen();
        let (hidden, subnet) = self.subnet(&parameters, x)?;
        let (y, log_det) = coupling::forward(x, &subnet, affine, &self.permutation, self.clamp)?;
        let kept = Kept {
            input: x.clone(),
            hidden,
            subnet,
        };
        Ok((y, log_det, kept))
    }

    pub(super) fn inverse(&self, y: &Tensor, affine: &Affine) -> Result<Tensor> {
        Ok(self.rebuild(y, affine)?.input)
    }

    /// What [`Self::forward`] keeps, from its output: the step is undone, running the subnet once more.
    pub(super) fn rebuild(&self, y: &Tensor, affine: &Affine) -> Result<Kept> {
        let parameters = self.frozen();
        let u = coupling::undo_affine(y, affine, &self.permutation)?;
        let (hidden, subnet) = self.subnet(&parameters, &u)?;
        Ok(Kept {
            input: coupling::uncouple(&u, &subnet, self.clamp)?,
            hidden,
            subnet,
        })
    }

    /// The subnet's hidden activation, and its output as the coupling takes it: where it is additive, zeros
    /// stand for the scales' half, which makes every scale 1 and every log-scale 0.
    fn subnet(&self, parameters: &Parameters<Tensor>, x: &Tensor) -> Result<(Tensor, Tensor)> {
        let channels = x.dim(1)?;
        let passive = x.narrow(1, 0, channels - channels / 2)?;
        let (w1, b1) = (&parameters.conv1_weight, &parameters.conv1_bias);
        let hidden = conv2d_fused(&passive, w1, Some(b1), 1, self.padding, None, true)?;
        let (w2, b2) = (&parameters.conv2_weight, &parameters.conv2_bias);
        let subnet = conv2d(&hidden, w2, Some(b2), 1, self.padding)?;
        let subnet = match self.coupling {
            Coupling::Affine => subnet,
            Coupling::Additive => Tensor::cat(&[&subnet.zeros_like()?, &subnet], 1)?,
        };
        Ok((hidden, subnet))
    }

    /// Gradients of the negative log-likelihood, given that of the step's output; the input's is skipped
    /// (None) unless wanted. In the place of the global scale's parameter stands the gradient of the scale itself.
    pub(super) fn backward(
        &self,
        kept: &Kept,
        affine: &Affine,
        dy: &Tensor,
        want_input: bool,
    ) -> Result<(Option<Tensor>, Parameters<Tensor>)> {
        let parameters = self.frozen();
        let (x, a) = (&kept.input, &kept.subnet);
        let log_det = LogDetGradient::Constant(-1.0);
        let gradients =
            coupling::backward(x, a, affine, &self.permutation, self.clamp, dy, log_det)?;
        let channels = x.dim(1)?;
        let (active, passive) = (channels / 2, channels - channels / 2);
        let da = match self.coupling {
            Coupling::Affine => gradients.a.clone(),
            Coupling::Additive => gradients.a.narrow(1, active, active)?,
        };
        let w2 = &parameters.conv2_weight;
        let conv2 = conv2d_backward(&kept.hidden, w2, &da, 1, self.padding, None, true)?;
        let dhidden = conv2.input.expect("asked for");
        let conv1 = conv2d_backward(
            &x.narrow(1, 0, passive)?,
            &parameters.conv1_weight,
            &dhidden,
            1,
            self.padding,
            Some(&kept.hidden),
            want_input,
        )?;
        let dx = match conv1.input {
            Some(dx1) => Some(gradients.add_to_passive(&dx1)?),
            None => None,
        };
        let gradients = Parameters {
            conv1_weight: conv1.weight,
            conv1_bias: conv1.bias,
            conv2_weight: conv2.weight,
            conv2_bias: conv2.bias,
            global_scale: gradients.scale,
            global_offset: gradients.offset,
        };
        Ok((dx, gradients))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use candle_core::{Device, Tensor};
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::super::scales::Scales;
    use super::{Coupling, Step, StepShape};

    #[test]
    fn an_additive_step_shifts_only() {
        let shape = StepShape {
            channels: 7,
            hidden: 5,
            kernel: 3,
            coupling: Coupling::Additive,
        };
        assert_eq!(shape.dims("conv2.weight"), [3, 5, 3, 3]);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let step = Step::init(shape, 2.0, &mut rng, &Device::Cpu).unwrap();
        let values = (0..2 * 7 * 30).map(|i| (i as f32 * 78.233).sin() * 2.0);
        let x = Tensor::from_iter(values, &Device::Cpu).unwrap();
        let x = x.reshape((2, 7, 6, 5)).unwrap();
        let scales = Scales::of(std::slice::from_ref(&step)).unwrap();
        let affine = scales.affine(0).unwrap();
        let (y, log_det, _) = step.forward(&x, &affine).unwrap();
        let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(flat(&log_det).iter().all(|v| *v == 0.0));
        let difference = |a: &Tensor, b: &Tensor| {
            let pairs = flat(a).into_iter().zip(flat(b));
            pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
        };
        assert!(difference(&step.inverse(&y, &affine).unwrap(), &x) < 1e-5);
        // The first channels pass (the global scale is 1 at the start), the others have moved.
        let indices = step.permutation.indices();
        for (output, &input) in indices.iter().enumerate() {
            let moved = difference(
                &y.narrow(1, output, 1).unwrap(),
                &x.narrow(1, input as usize, 1).unwrap(),
            );
            assert_eq!(moved > 1e-3, input >= 4, "channel {input}: {moved}");
        }
    }
}
