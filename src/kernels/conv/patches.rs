//! Patch matrices (im2col) of a range of output positions, and their adjoint.

use std::ops::Range;

use super::geometry::Geometry;
use crate::kernels::simd::simd_fn;

/// One row of output positions inside a range: output row, its columns, and where they lie in the range.
struct Segment {
    row: usize,
    cols: Range<usize>,
    at: usize,
}

/// Cuts a range of flat output positions into rows of the output map.
fn segments(geometry: &Geometry, positions: Range<usize>) -> impl Iterator<Item = Segment> {
    let width = geometry.out_w;
    (positions.start / width..positions.end.div_ceil(width)).map(move |row| {
        let first = positions.start.max(row * width);
        let last = positions.end.min((row + 1) * width);
        Segment {
            row,
            cols: first - row * width..last - row * width,
            at: first - positions.start,
        }
    })
}

/// The output columns in `cols` whose input column `col * stride + shift - padding` exists.
fn valid_cols(geometry: &Geometry, cols: &Range<usize>, shift: usize) -> Range<usize> {
    let (stride, padding) = (geometry.stride, geometry.padding);
    let first = padding.saturating_sub(shift).div_ceil(stride);
    let last = (geometry.in_w + padding)
        .saturating_sub(shift)
        .div_ceil(stride);
    let first = first.clamp(cols.start, cols.end);
    first..last.clamp(first, cols.end)
}

/// The input row behind an output row and a kernel row, if it is not padding.
fn input_row(geometry: &Geometry, row: usize, shift: usize) -> Option<usize> {
    let row = (row * geometry.stride + shift).checked_sub(geometry.padding)?;
    (row < geometry.in_h).then_some(row)
}

/// Writes the patches of input channels `channels` at flat output `positions` into `matrix`:
/// row (channel, kernel row, kernel column), one column a position.
pub(crate) fn gather(
    geometry: &Geometry,
    image: &[f32],
    channels: Range<usize>,
    positions: Range<usize>,
    matrix: &mut [f32],
) {
    let (plane, count) = (geometry.in_plane(), positions.len());
    let mut rows = matrix.chunks_exact_mut(count);
    for channel in channels {
        let input = &image[channel * plane..(channel + 1) * plane];
        for kernel_row in 0..geometry.kernel_h {
            for kernel_col in 0..geometry.kernel_w {
                let Some(target) = rows.next() else { return };
                for segment in segments(geometry, positions.clone()) {
                    let target = &mut target[segment.at..segment.at + segment.cols.len()];
                    gather_row(geometry, input, &segment, (kernel_row, kernel_col), target);
                }
            }
        }
    }
}

/// One kernel tap along one segment.
fn gather_row(
    geometry: &Geometry,
    input: &[f32],
    segment: &Segment,
    (kernel_row, kernel_col): (usize, usize),
    target: &mut [f32],
) {
    let Some(row) = input_row(geometry, segment.row, kernel_row) else {
        target.fill(0.0);
        return;
    };
    let valid = valid_cols(geometry, &segment.cols, kernel_col);
    let (lead, end) = (
        valid.start - segment.cols.start,
        valid.end - segment.cols.start,
    );
    target[..lead].fill(0.0);
    target[end..].fill(0.0);
    if valid.is_empty() {
        return;
    }
    let first = row * geometry.in_w + valid.start * geometry.stride + kernel_col - geometry.padding;
    let (target, source) = (&mut target[lead..end], &input[first..]);
    match geometry.stride {
        1 => target.copy_from_slice(&source[..target.len()]),
        2 => every_second(target, source),
        stride => {
            for (value, source) in target.iter_mut().zip(source.iter().step_by(stride)) {
                *value = *source;
            }
        }
    }
}

simd_fn! {
    /// Copies elements 0, 2, 4, ..
    fn every_second(target: &mut [f32], source: &[f32]) {
        let pairs = source.len() / 2;
        for (value, pair) in target.iter_mut().zip(source.chunks_exact(2)) {
            *value = pair[0];
        }
        // A row may end on the element it needs.
        for (value, source) in target.iter_mut().skip(pairs).zip(&source[2 * pairs..]) {
            *value = *source;
        }
    }
}

/// The adjoint of [`gather`] over all positions: adds the matrix's elements to the input planes
/// of its channels (`planes` holds just those).
pub(crate) fn scatter_add(geometry: &Geometry, matrix: &[f32], planes: &mut [f32]) {
    let positions = geometry.out_plane();
    let mut rows = matrix.chunks_exact(positions);
    for plane in planes.chunks_exact_mut(geometry.in_plane()) {
        for kernel_row in 0..geometry.kernel_h {
            for kernel_col in 0..geometry.kernel_w {
                let Some(source) = rows.next() else { return };
                for segment in segments(geometry, 0..positions) {
                    let source = &source[segment.at..segment.at + segment.cols.len()];
                    scatter_row(geometry, source, &segment, (kernel_row, kernel_col), plane);
                }
            }
        }
    }
}

/// One kernel tap along one segment.
fn scatter_row(
    geometry: &Geometry,
    source: &[f32],
    segment: &Segment,
    (kernel_row, kernel_col): (usize, usize),
    plane: &mut [f32],
) {
    let Some(row) = input_row(geometry, segment.row, kernel_row) else {
        return;
    };
    let valid = valid_cols(geometry, &segment.cols, kernel_col);
    if valid.is_empty() {
        return;
    }
    let first = row * geometry.in_w + valid.start * geometry.stride + kernel_col - geometry.padding;
    let source = &source[valid.start - segment.cols.start..valid.end - segment.cols.start];
    for (target, value) in plane[first..]
        .iter_mut()
        .step_by(geometry.stride)
        .zip(source)
    {
        *target += value;
    }
}
