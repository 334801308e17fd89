//! From feature maps to one vector a view, and back from a gradient on vectors to maps.

use candle_core::Tensor;

use super::DifferNetConfig;
use crate::{Result, kernels::map::quarter_turned};

/// Of every photo and turn the means of its maps at all sizes, `[B * turns, D]`: photo by photo, turn by turn.
pub(super) fn pooled(config: &DifferNetConfig, features: &[Tensor]) -> Result<Tensor> {
    let view = |turn| {
        let mean = |input| {
            let map = &features[config.pooled(features.len(), input, turn)];
            Ok(map.flatten_from(2)?.mean(2)?)
        };
        let means = (0..config.inputs).map(mean).collect::<Result<Vec<_>>>()?;
        Ok(Tensor::cat(&means, 1)?)
    };
    let views = (0..config.turns).map(view).collect::<Result<Vec<_>>>()?;
    Ok(Tensor::stack(&views, 1)?.flatten(0, 1)?)
}

/// What each position adds to a quantity whose gradient on the pooled vectors is `gradient [B * turns, D]`, to first
/// order: `gradient . (feature - mean)`, the mean over the turns, each turned back upright. `[B, h, w]` a size;
/// `mean [D]`.
pub(super) fn parts(
    config: &DifferNetConfig,
    features: &[Tensor],
    gradient: &Tensor,
    mean: &Tensor,
) -> Result<Vec<Tensor>> {
    let (views, channels) = gradient.dims2()?;
    let batch = views / config.turns;
    let gradient = gradient.reshape((batch, config.turns, channels))?;
    let mut first = 0;
    let of_input = |input| {
        let maps = (0..config.turns).map(|turn| {
            let map = &features[config.pooled(features.len(), input, turn)];
            let (_, own, height, width) = map.dims4()?;
            let centre = mean.narrow(0, first, own)?.reshape((1, own, 1, 1))?;
            let flat = map.broadcast_sub(&centre)?.flatten_from(2)?;
            let gradient = gradient.narrow(1, turn, 1)?.narrow(2, first, own)?;
            let parts = gradient.contiguous()?.matmul(&flat.contiguous()?)?;
            quarter_turned(&parts.reshape((batch, height, width))?, (4 - turn) % 4)
        });
        let maps = maps.collect::<Result<Vec<_>>>()?;
        first += features[config.pooled(features.len(), input, 0)].dim(1)?;
        Ok(Tensor::stack(&maps, 0)?.mean(0)?)
    };
    (0..config.inputs).map(of_input).collect()
}
