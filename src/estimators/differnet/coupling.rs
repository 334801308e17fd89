//! One block: a permutation, then each half scaled and shifted by what a fully connected network makes of the other
//! (Rudolph et al. 2021, section 4.2; FrEIA's `GLOWCouplingBlock`).

use candle_core::{Device, Tensor, Var};
use rand::{RngExt, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use crate::Result;

/// Layers of a subnet: three hidden ones and the last.
const LAYERS: usize = 4;

/// A coupling block of vectors `[N, D]`.
#[derive(Debug)]
pub(super) struct Block {
    /// Where each channel comes from, u32 `[D]`.
    pub(super) permutation: Tensor,
    /// Of the changed first half: scales and shifts of the second.
    first: Subnet,
    /// Of the second half: scales and shifts of the first.
    second: Subnet,
    clamp: f64,
    /// Channels of the first half.
    half: usize,
}

/// Sizes of a block.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub(super) channels: usize,
    pub(super) hidden: usize,
    pub(super) clamp: f32,
}

impl Sizes {
    fn half(&self) -> usize {
        self.channels / 2
    }

    /// Inputs and outputs of the layers of the subnet that changes `changed` channels.
    fn layers(&self, changed: usize) -> [(usize, usize); LAYERS] {
        let hidden = self.hidden;
        [
            (self.channels - changed, hidden),
            (hidden, hidden),
            (hidden, hidden),
            (hidden, 2 * changed),
        ]
    }

    /// How many weights a block trains.
    pub(super) fn parameter_count(&self) -> usize {
        let halves = [self.half(), self.channels - self.half()];
        let layers = halves.iter().flat_map(|&changed| self.layers(changed));
        layers.map(|(from, to)| to * (from + 1)).sum()
    }
}

impl Block {
    /// With torch's initialisation of linear layers.
    pub(super) fn init(sizes: Sizes, rng: &mut ChaCha8Rng, device: &Device) -> Result<Self> {
        let mut order: Vec<u32> = (0..sizes.channels as u32).collect();
        order.shuffle(rng);
        let permutation = Tensor::from_vec(order, sizes.channels, device)?;
        let mut make = |_: String, (from, to): (usize, usize)| {
            let bound = 1.0 / (from as f32).sqrt();
            let mut draw = |count| -> Vec<f32> {
                (0..count)
                    .map(|_| rng.random_range(-bound..bound))
                    .collect()
            };
            let weight = Tensor::from_vec(draw(from * to), (to, from), device)?;
            Ok((weight, Tensor::from_vec(draw(to), to, device)?))
        };
        Self::new(sizes, permutation, &mut make)
    }

    /// Of weights `[to, from]` and biases `[to]` that `make` gives by the layer's name and sizes.
    pub(super) fn new(
        sizes: Sizes,
        permutation: Tensor,
        make: &mut dyn FnMut(String, (usize, usize)) -> Result<(Tensor, Tensor)>,
    ) -> Result<Self> {
        let half = sizes.half();
        Ok(Self {
            permutation,
            first: Subnet::new("subnet1", sizes.layers(sizes.channels - half), make)?,
            second: Subnet::new("subnet2", sizes.layers(half), make)?,
            clamp: f64::from(sizes.clamp),
            half,
        })
    }

    /// Latents `[N, D]` and log-determinants `[N]`.
    pub(super) fn forward(&self, x: &Tensor) -> Result<(Tensor, Tensor)> {
        let x = x.index_select(&self.permutation, 1)?;
        let rest = x.dim(1)? - self.half;
        let (x1, x2) = (x.narrow(1, 0, self.half)?, x.narrow(1, self.half, rest)?);
        let (y1, det1) = self.changed(&x1, &self.second.forward(&x2)?)?;
        let (y2, det2) = self.changed(&x2, &self.first.forward(&y1)?)?;
        Ok((Tensor::cat(&[y1, y2], 1)?, (det1 + det2)?))
    }

    /// `x e^s + t` with `s` bounded, and the sum of `s`.
    fn changed(&self, x: &Tensor, by: &Tensor) -> Result<(Tensor, Tensor)> {
        let channels = x.dim(1)?;
        let (s, t) = (
            by.narrow(1, 0, channels)?,
            by.narrow(1, channels, channels)?,
        );
        let s = (arctan(&s)? * (0.636 * self.clamp))?;
        Ok((((x * s.exp()?)? + t)?, s.sum(1)?))
    }

    /// Trainable tensors by their names in the block.
    pub(super) fn variables(&self) -> impl Iterator<Item = (String, &Var)> {
        let subnets = [("subnet1", &self.first), ("subnet2", &self.second)];
        subnets.into_iter().flat_map(|(name, subnet)| {
            let layers = subnet.layers.iter().enumerate();
            layers.flat_map(move |(index, layer)| {
                [("weight", &layer.weight), ("bias", &layer.bias)]
                    .map(|(part, var)| (format!("{name}.{index}.{part}"), var))
            })
        })
    }
}

/// `atan x`, which candle has no operation for, to 4e-7, of operations that have gradients.
fn arctan(x: &Tensor) -> Result<Tensor> {
    // atan x = 4 atan y with y = h(h(x)), h(x) = x / (1 + sqrt(1 + x^2)): half the angle, twice; |y| < tan(pi / 8) = 0.414.
    let halved = |x: &Tensor| -> Result<Tensor> {
        let root = (x.sqr()? + 1.0)?.sqrt()?;
        Ok((x / (root + 1.0)?)?)
    };
    let y = halved(&halved(x)?)?;
    let square = y.sqr()?;
    // The series y - y^3/3 + y^5/5 - ... by Horner.
    let mut sum = (square.zeros_like()? + 1.0 / 21.0)?;
    for (index, power) in (1..=19).rev().step_by(2).enumerate() {
        let sign = if index % 2 == 0 { -1.0 } else { 1.0 };
        sum = ((&sum * &square)? + sign / f64::from(power))?;
    }
    Ok(((y * sum)? * 4.0)?)
}

/// Linear layers with ReLU between them.
#[derive(Debug)]
struct Subnet {
    layers: Vec<Layer>,
}

#[derive(Debug)]
struct Layer {
    /// `[to, from]`.
    weight: Var,
    /// `[to]`.
    bias: Var,
}

impl Subnet {
    fn new(
        name: &str,
        sizes: [(usize, usize); LAYERS],
        make: &mut dyn FnMut(String, (usize, usize)) -> Result<(Tensor, Tensor)>,
    ) -> Result<Self> {
        let layers = sizes.into_iter().enumerate().map(|(index, sizes)| {
            let (weight, bias) = make(format!("{name}.{index}"), sizes)?;
            Ok(Layer {
                weight: Var::from_tensor(&weight)?,
                bias: Var::from_tensor(&bias)?,
            })
        });
        Ok(Self {
            layers: layers.collect::<Result<_>>()?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut x = x.clone();
        for (index, layer) in self.layers.iter().enumerate() {
            if index > 0 {
                x = x.relu()?;
            }
            let weight = layer.weight.as_tensor().t()?;
            x = x
                .contiguous()?
                .matmul(&weight)?
                .broadcast_add(layer.bias.as_tensor())?;
        }
        Ok(x)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use rand::SeedableRng;

    use super::*;

    fn block() -> Block {
        let sizes = Sizes {
            channels: 5,
            hidden: 7,
            clamp: 3.0,
        };
        Block::init(sizes, &mut ChaCha8Rng::seed_from_u64(3), &Device::Cpu).unwrap()
    }

    #[test]
    fn arctan_is_the_inverse_of_the_tangent() {
        for x in [0f32, 1e-3, -0.4, 1.0, -3.0, 40.0, 1e6] {
            let found = arctan(&Tensor::new(&[x], &Device::Cpu).unwrap()).unwrap();
            let found = found.to_vec1::<f32>().unwrap()[0];
            assert!((found - x.atan()).abs() < 4e-7, "{x}: {found}");
        }
    }

    /// Against the determinant of the numerical Jacobian.
    #[test]
    fn the_log_determinant_is_the_jacobians() {
        let block = block();
        let x: Vec<f32> = vec![0.3, -0.8, 1.1, 0.2, -0.5];
        let z = |x: &[f32]| {
            let x = Tensor::from_slice(x, (1, 5), &Device::Cpu).unwrap();
            let (z, log_det) = block.forward(&x).unwrap();
            let log_det = log_det.to_vec1::<f32>().unwrap()[0];
            (z.flatten_all().unwrap().to_vec1::<f32>().unwrap(), log_det)
        };
        let step = 1e-2;
        let mut jacobian = nalgebra::DMatrix::<f64>::zeros(5, 5);
        for column in 0..5 {
            let (mut up, mut down) = (x.clone(), x.clone());
            up[column] += step;
            down[column] -= step;
            let (up, down) = (z(&up).0, z(&down).0);
            for row in 0..5 {
                jacobian[(row, column)] = f64::from(up[row] - down[row]) / f64::from(2.0 * step);
            }
        }
        let expected = jacobian.determinant().abs().ln();
        let found = f64::from(z(&x).1);
        assert!((found - expected).abs() < 2e-3, "{found} {expected}");
    }
}
