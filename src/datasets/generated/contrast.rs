//! How much a defect stands out from the texture that it is in.

use image::GrayImage;

/// The most that a defect may differ from the intact cloth, in deviations of the cloth's own texture.
pub const MAX_CONTRAST: f32 = 2.0;

/// Tiles per side in which the texture's deviation is taken, so that uneven light does not count.
const TILES: usize = 8;

/// Measures the contrast of what differs between two exposures under the mask; where it is more than
/// [`MAX_CONTRAST`], moves `exposed` towards `intact` until it is not. Returns the contrast then.
pub(super) fn limit(intact: &[[f32; 3]], exposed: &mut [[f32; 3]], mask: &GrayImage) -> f32 {
    let deviation = texture_deviation(intact, mask.width() as usize);
    let contrast = change(intact, exposed, mask) / deviation;
    if contrast <= MAX_CONTRAST {
        return contrast;
    }
    let share = MAX_CONTRAST / contrast;
    for (level, before) in exposed.iter_mut().flatten().zip(intact.iter().flatten()) {
        *level = before + share * (*level - before);
    }
    MAX_CONTRAST
}

/// Root mean square difference over the mask and the three channels.
pub(super) fn change(intact: &[[f32; 3]], exposed: &[[f32; 3]], mask: &GrayImage) -> f32 {
    let (mut sum, mut count) = (0.0f64, 0u32);
    for ((before, after), covered) in intact.iter().zip(exposed).zip(mask.pixels()) {
        if covered[0] > 0 {
            sum += (0..3)
                .map(|c| f64::from(after[c] - before[c]).powi(2))
                .sum::<f64>();
            count += 3;
        }
    }
    (sum / f64::from(count.max(1))).sqrt() as f32
}

/// Root of the mean variance within tiles, over the three channels, of an image `size` pixels wide.
pub(super) fn texture_deviation(levels: &[[f32; 3]], size: usize) -> f32 {
    let tile = size / TILES;
    let mut variance = 0.0;
    for at in 0..TILES * TILES {
        let corner = (at / TILES * size + at % TILES) * tile;
        let inside = (0..tile * tile).map(|k| levels[corner + k / tile * size + k % tile]);
        let (mut sum, mut squares) = ([0.0f64; 3], 0.0);
        for pixel in inside {
            for (sum, level) in sum.iter_mut().zip(pixel) {
                *sum += f64::from(level);
                squares += f64::from(level).powi(2);
            }
        }
        let count = (tile * tile) as f64;
        variance += squares / count - sum.iter().map(|sum| (sum / count).powi(2)).sum::<f64>();
    }
    (variance / (3 * TILES * TILES) as f64).sqrt() as f32
}
