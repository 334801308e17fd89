//! The kernels' formulas in plain candle, in the type of their inputs and differentiable: f64 shows the kernels' own
//! errors. tests/cuda.rs holds the GPU's side against them too.

use candle_core::{Device, Tensor};

/// `(x - mean) / sqrt(var + eps)` over channels and positions.
pub fn layer_norm(x: &Tensor, eps: f64) -> Tensor {
    let flat = x.flatten_from(1).unwrap();
    let away = flat.broadcast_sub(&flat.mean_keepdim(1).unwrap()).unwrap();
    let variance = away.sqr().unwrap().mean_keepdim(1).unwrap();
    let deviation = (variance + eps).unwrap().sqrt().unwrap();
    away.broadcast_div(&deviation)
        .unwrap()
        .reshape(x.shape())
        .unwrap()
}

/// [`layer_norm`], then `weight` and `bias` `[C, H, W]`.
pub fn layer_norm_affine(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Tensor {
    let scaled = layer_norm(x, eps).broadcast_mul(weight).unwrap();
    scaled.broadcast_add(bias).unwrap()
}

/// A value a channel, beside `[B, C, H, W]`.
pub fn per_channel(values: &Tensor) -> Tensor {
    values.reshape((1, (), 1, 1)).unwrap()
}

/// `(x - mean) / std`, channel by channel.
pub fn standardise(x: &Tensor, mean: &Tensor, std: &Tensor) -> Tensor {
    let away = x.broadcast_sub(&per_channel(mean)).unwrap();
    away.broadcast_div(&per_channel(std)).unwrap()
}

fn energy(z: &Tensor) -> Tensor {
    (z.sqr().unwrap() * 0.5).unwrap()
}

/// `0.5 mean_c z^2`.
pub fn negative_log_likelihood(z: &Tensor) -> Tensor {
    energy(z).mean(1).unwrap()
}

/// `-exp(-0.5 mean_c z^2)`.
pub fn exponential(z: &Tensor) -> Tensor {
    let nll = negative_log_likelihood(z);
    nll.neg().unwrap().exp().unwrap().neg().unwrap()
}

/// `-mean_c exp(-0.5 z_c^2)`.
pub fn probability(z: &Tensor) -> Tensor {
    let densities = energy(z).neg().unwrap().exp().unwrap();
    densities.mean(1).unwrap().neg().unwrap()
}

/// f64 `maps [B, h, w]`, bilinearly resampled.
pub fn upsample(maps: &Tensor, height: usize, width: usize) -> Tensor {
    let (_, from_height, from_width) = maps.dims3().unwrap();
    let rows = interpolation(from_height, height);
    let columns = interpolation(from_width, width).t().unwrap();
    let down = rows.broadcast_matmul(maps).unwrap();
    down.broadcast_matmul(&columns).unwrap()
}

/// Linear interpolation between centres of `from` cells, at the centres of `to`: `[to, from]`.
fn interpolation(from: usize, to: usize) -> Tensor {
    let mut matrix = vec![0f64; to * from];
    for row in 0..to {
        let place = (row as f64 + 0.5) * from as f64 / to as f64 - 0.5;
        let place = place.clamp(0.0, from as f64 - 1.0);
        let (low, share) = (place.floor() as usize, place.fract());
        matrix[row * from + low] += 1.0 - share;
        matrix[row * from + (low + 1).min(from - 1)] += share;
    }
    Tensor::from_vec(matrix, (to, from), &Device::Cpu).unwrap()
}

/// Output and log-determinant of the coupling of `[x, a, scale, offset]`.
pub fn coupling(inputs: [&Tensor; 4], permutation: &[u32], clamp: f32) -> (Tensor, Tensor) {
    let [x, a, scale, offset] = inputs;
    let a = (a * 0.1).unwrap();
    let channels = x.dim(1).unwrap();
    let active = channels / 2;
    let log_s = a.narrow(1, 0, active).unwrap().tanh().unwrap();
    let log_s = (log_s * f64::from(clamp)).unwrap();
    let x1 = x.narrow(1, 0, channels - active).unwrap();
    let x2 = x.narrow(1, channels - active, active).unwrap();
    let moved = (x2 * log_s.exp().unwrap()).unwrap();
    let moved = (moved + a.narrow(1, active, active).unwrap()).unwrap();
    let u = Tensor::cat(&[x1, moved], 1).unwrap();
    let u = u.broadcast_mul(&per_channel(scale)).unwrap();
    let u = u.broadcast_add(&per_channel(offset)).unwrap();
    let indices = Tensor::from_slice(permutation, channels, &Device::Cpu).unwrap();
    (u.index_select(&indices, 1).unwrap(), log_s.sum(1).unwrap())
}
