//! Connected regions of a mask.

use std::ops::RangeInclusive;

use image::{GrayImage, Luma};
use imageproc::region_labelling::{Connectivity, connected_components};

use crate::{Error, Result};

/// Pixel indices of each 8-connected region of a mask that is `width` pixels wide, each region's ascending, row by
/// row. Regions come in the order of their first pixels; memory grows with the box around the marked pixels.
///
/// # Errors
/// [`Error::Metric`] for a box of 2^32 pixels or more.
pub fn regions(mask: &[bool], width: usize) -> Result<Vec<Vec<usize>>> {
    let Some((columns, rows)) = bounds(mask, width) else {
        return Ok(Vec::new());
    };
    let (left, top) = (*columns.start(), *rows.start());
    // One empty column more: imageproc 0.27 has no room for the label of a box that is a single pixel.
    let (box_width, box_height) = (columns.count() + 1, rows.count());
    if box_width.saturating_mul(box_height) > u32::MAX as usize {
        return Err(Error::Metric {
            metric: "regions",
            reason: format!("a mask of {box_width} x {box_height} pixels is too large"),
        });
    }
    let marked = GrayImage::from_fn(box_width as u32, box_height as u32, |x, y| {
        let (column, row) = (left + x as usize, top + y as usize);
        let inside = (x as usize) < box_width - 1;
        Luma([u8::from(inside && mask[row * width + column])])
    });
    // Labels count from 1 in the order of the regions' first pixels; 0 is not marked.
    let labels = connected_components(&marked, Connectivity::Eight, Luma([0]));
    let mut found: Vec<Vec<usize>> = Vec::new();
    for (x, y, Luma([label])) in labels.enumerate_pixels() {
        let Some(region) = (*label as usize).checked_sub(1) else {
            continue;
        };
        if region >= found.len() {
            found.resize_with(region + 1, Vec::new);
        }
        found[region].push((top + y as usize) * width + left + x as usize);
    }
    Ok(found)
}

/// Columns and rows of the box around the marked pixels, if there are any.
fn bounds(mask: &[bool], width: usize) -> Option<(RangeInclusive<usize>, RangeInclusive<usize>)> {
    let mut marked = (0..mask.len()).filter(|&pixel| mask[pixel]);
    let first = marked.next()?;
    let (mut left, mut right, mut last) = (first % width, first % width, first);
    for pixel in marked {
        left = left.min(pixel % width);
        right = right.max(pixel % width);
        last = pixel;
    }
    Some((left..=right, first / width..=last / width))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use rand::{RngExt, SeedableRng};

    use super::regions;

    /// By definition: the smallest marked pixel that is reached over marked neighbours, found by repeated passes.
    fn representatives(mask: &[bool], width: usize) -> Vec<Option<usize>> {
        let mut least: Vec<_> = (0..mask.len()).map(|p| mask[p].then_some(p)).collect();
        loop {
            let before = least.clone();
            for a in 0..mask.len() {
                for b in 0..mask.len() {
                    let touch =
                        (a % width).abs_diff(b % width) < 2 && (a / width).abs_diff(b / width) < 2;
                    if touch && mask[a] && mask[b] {
                        least[a] = least[a].min(least[b]);
                    }
                }
            }
            if least == before {
                return least;
            }
        }
    }

    #[test]
    fn agree_with_their_definition_on_random_masks() {
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(5);
        for (width, height, share) in [(9, 7, 0.3), (12, 12, 0.45), (1, 20, 0.5), (20, 1, 0.5)] {
            let mask: Vec<bool> = (0..width * height)
                .map(|_| rng.random_bool(share))
                .collect();
            let least = representatives(&mask, width);
            let firsts = (0..mask.len()).filter(|&p| least[p] == Some(p));
            let expected: Vec<Vec<usize>> = firsts
                .map(|first| {
                    (0..mask.len())
                        .filter(|&p| least[p] == Some(first))
                        .collect()
                })
                .collect();
            assert!(expected.len() > 2, "{expected:?}");
            assert_eq!(regions(&mask, width).unwrap(), expected);
        }
    }

    #[test]
    fn a_single_pixel_is_a_region() {
        let mut mask = [false; 12];
        mask[11] = true;
        assert_eq!(regions(&mask, 4).unwrap(), [[11]]);
        assert_eq!(regions(&[true], 1).unwrap(), [[0]]);
    }

    #[test]
    fn a_mask_without_a_mark_has_none() {
        assert!(regions(&[false; 12], 4).unwrap().is_empty());
        assert!(regions(&[], 5).unwrap().is_empty());
    }
}
