//! From windows of planes to values at Winograd's points.

use std::ops::Range;

use super::tiles::Patchwork;
use super::transform::{self, POINTS, TILE};
use crate::kernels::lanes::{Kernel, LANES, Lanes};
use crate::kernels::parallel::SharedMut;
use crate::kernels::view::Images;

/// Values at the points, `[36][panels][channels][width]` with `width` tiles a panel, shared by tasks
/// that own channels.
#[derive(Clone, Copy)]
pub(super) struct Points {
    pub(super) start: *mut f32,
    /// Distance of two points' matrices.
    pub(super) stride: usize,
    pub(super) channels: usize,
    /// A multiple of [`LANES`].
    pub(super) width: usize,
}

impl Points {
    /// Writes six values of one group of tiles: points `first`, `first + 6`, ..
    ///
    /// # Safety
    /// The row of `channel` must lie inside the buffer and be this task's own.
    #[inline(always)]
    unsafe fn store<L: Lanes>(&self, l: L, v: [L::V; 6], first: usize, channel: usize, at: usize) {
        let row = at / self.width * self.channels + channel;
        let start = row * self.width + at % self.width;
        for (i, v) in v.into_iter().enumerate() {
            let place = (first + i * POINTS) * self.stride + start;
            // SAFETY: inside this task's row, by this function's contract.
            unsafe { l.store(self.start.add(place), v) };
        }
    }
}

/// Planes to be read: `[batch][channels][plane]`, zero where `mask` is not positive.
#[derive(Clone, Copy)]
pub(super) struct Planes<'a> {
    pub(super) images: Images<'a>,
    pub(super) mask: Option<Images<'a>>,
    pub(super) plane: usize,
}

/// The transform of some channels of a block: 6x6 windows, or 4x4 ones as kernels of four taps.
pub(super) struct Transform<'a> {
    pub(super) planes: Planes<'a>,
    pub(super) channels: Range<usize>,
    pub(super) patchwork: &'a Patchwork,
    /// The padded copy, `patchwork.len` zeros.
    pub(super) copy: &'a mut [f32],
    pub(super) points: Points,
    pub(super) window: Window<'a>,
}

/// What the windows are.
#[derive(Clone, Copy)]
pub(super) enum Window<'a> {
    /// 6x6 data.
    Data,
    /// 4x4 kernels, which hold each pixel once; their channels' sums are added to what is given.
    Kernel(&'a SharedMut<'a>),
}

impl Kernel for Transform<'_> {
    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let Self {
            planes,
            channels,
            patchwork,
            copy,
            points,
            window,
        } = self;
        assert!(patchwork.tiles().is_multiple_of(points.width) && copy.len() == patchwork.len);
        for channel in channels {
            fill(l, &planes, channel, patchwork, copy);
            let (copy, stride) = (copy.as_ptr(), patchwork.stride);
            let mut sums = l.splat(0.0);
            for (index, group) in patchwork.groups.iter().enumerate() {
                let (offsets, at) = (&group.offsets, index * LANES);
                let rows = Rows {
                    start: copy,
                    stride,
                    offsets,
                };
                // SAFETY: the patchwork's windows lie inside `copy`, and the channel's rows of
                // `points` are this task's own.
                unsafe {
                    match (window, group.paired) {
                        (Window::Data, true) => tile6::<L, true>(l, rows, &points, channel, at),
                        (Window::Data, false) => tile6::<L, false>(l, rows, &points, channel, at),
                        (Window::Kernel(_), true) => {
                            let sum = tile4::<L, true>(l, rows, &points, channel, at);
                            sums = l.add(sums, sum);
                        }
                        (Window::Kernel(_), false) => {
                            let sum = tile4::<L, false>(l, rows, &points, channel, at);
                            sums = l.add(sums, sum);
                        }
                    }
                }
            }
            if let Window::Kernel(totals) = window {
                let mut lanes = [0f32; LANES];
                // SAFETY: eight floats; the channel's total is this task's own.
                unsafe {
                    l.store(lanes.as_mut_ptr(), sums);
                    *totals.at(channel) += lanes.iter().sum::<f32>();
                }
            }
        }
    }
}

/// Copies one channel's rows into their padded places, masked; the zeros between stay.
#[inline(always)]
pub(super) fn fill<L: Lanes>(
    l: L,
    planes: &Planes,
    channel: usize,
    patchwork: &Patchwork,
    copy: &mut [f32],
) {
    let width = patchwork.width;
    for strip in &patchwork.strips {
        let part = channel * planes.plane + strip.rows.start * width
            ..channel * planes.plane + strip.rows.end * width;
        let source = planes.images.image(strip.image)[part.clone()].chunks_exact(width);
        let targets = copy[strip.start..].chunks_mut(patchwork.stride);
        match planes.mask {
            None => {
                for (source, target) in source.zip(targets) {
                    copy_row(l, &mut target[..width], source);
                }
            }
            Some(mask) => {
                let mask = mask.image(strip.image)[part].chunks_exact(width);
                for ((source, mask), target) in source.zip(mask).zip(targets) {
                    copy_row_masked(l, &mut target[..width], source, mask);
                }
            }
        }
    }
}

/// Copies a row in whole vectors, the last one overlapping; a call to memcpy costs more.
#[inline(always)]
fn copy_row<L: Lanes>(l: L, to: &mut [f32], from: &[f32]) {
    let len = to.len().min(from.len());
    if len < LANES {
        to[..len].copy_from_slice(&from[..len]);
        return;
    }
    let mut at = 0;
    while at < len {
        let start = at.min(len - LANES);
        // SAFETY: start + LANES <= len, which both slices have.
        unsafe { l.store(to.as_mut_ptr().add(start), l.load(from.as_ptr().add(start))) };
        at += LANES;
    }
}

/// Copies a row where `mask` is positive, else zeros.
#[inline(always)]
fn copy_row_masked<L: Lanes>(l: L, to: &mut [f32], from: &[f32], mask: &[f32]) {
    let len = to.len().min(from.len()).min(mask.len());
    if len < LANES {
        for (to, (from, mask)) in to.iter_mut().zip(from.iter().zip(mask)) {
            *to = if *mask > 0.0 { *from } else { 0.0 };
        }
        return;
    }
    let mut at = 0;
    while at < len {
        let start = at.min(len - LANES);
        // SAFETY: start + LANES <= len, which all three slices have.
        unsafe {
            let (from, mask) = (
                l.load(from.as_ptr().add(start)),
                l.load(mask.as_ptr().add(start)),
            );
            l.store(to.as_mut_ptr().add(start), l.where_positive(from, mask));
        }
        at += LANES;
    }
}

/// Rows of eight windows in a padded copy.
#[derive(Clone, Copy)]
struct Rows<'a> {
    start: *const f32,
    stride: usize,
    offsets: &'a [usize; LANES],
}

impl Rows<'_> {
    /// Row `i`'s first four values of each window.
    ///
    /// # Safety
    /// The windows must lie inside the copy, side by side as [`Lanes::load_pairs4`] says if `PAIRED`.
    #[inline(always)]
    unsafe fn four<L: Lanes, const PAIRED: bool>(self, l: L, i: usize) -> [L::V; TILE] {
        // SAFETY: by this function's contract.
        unsafe {
            let row = self.start.add(i * self.stride);
            if PAIRED {
                l.load_pairs4(row, self.offsets)
            } else {
                l.load_columns4(row, self.offsets)
            }
        }
    }

    /// Row `i` of each window at the points.
    ///
    /// # Safety
    /// As [`Rows::four`].
    #[inline(always)]
    unsafe fn six<L: Lanes, const PAIRED: bool>(self, l: L, i: usize) -> [L::V; POINTS] {
        // SAFETY: by this function's contract.
        unsafe {
            let [a, b, c, d] = self.four::<L, PAIRED>(l, i);
            let row = self.start.add(i * self.stride + TILE);
            let [e, f] = if PAIRED {
                l.load_pairs2(row, self.offsets)
            } else {
                l.load_columns2(row, self.offsets)
            };
            transform::data(l, [a, b, c, d, e, f])
        }
    }
}

/// The values of eight 6x6 windows at the points.
///
/// # Safety
/// As [`Rows::four`]; for `points` see [`Points::store`].
#[inline(always)]
unsafe fn tile6<L: Lanes, const PAIRED: bool>(
    l: L,
    rows: Rows,
    points: &Points,
    channel: usize,
    at: usize,
) {
    // SAFETY: by this function's contract.
    unsafe {
        // Written out, because an array filled in a loop is first cleared in memory.
        let [a, b, c, d, e, f] = [
            rows.six::<L, PAIRED>(l, 0),
            rows.six::<L, PAIRED>(l, 1),
            rows.six::<L, PAIRED>(l, 2),
            rows.six::<L, PAIRED>(l, 3),
            rows.six::<L, PAIRED>(l, 4),
            rows.six::<L, PAIRED>(l, 5),
        ];
        for j in 0..POINTS {
            let column = transform::data(l, [a[j], b[j], c[j], d[j], e[j], f[j]]);
            points.store(l, column, j, channel, at);
        }
    }
}

/// The values of eight 4x4 windows, as kernels, at the points; returns the windows' sums.
///
/// # Safety
/// As [`tile6`].
#[inline(always)]
unsafe fn tile4<L: Lanes, const PAIRED: bool>(
    l: L,
    rows: Rows,
    points: &Points,
    channel: usize,
    at: usize,
) -> L::V {
    // SAFETY: by this function's contract.
    unsafe {
        let a = rows.four::<L, PAIRED>(l, 0);
        let b = rows.four::<L, PAIRED>(l, 1);
        let c = rows.four::<L, PAIRED>(l, 2);
        let d = rows.four::<L, PAIRED>(l, 3);
        let sum = l.add(l.add(sum4(l, a), sum4(l, b)), l.add(sum4(l, c), sum4(l, d)));
        let [a, b, c, d] = [
            transform::kernel4(l, a),
            transform::kernel4(l, b),
            transform::kernel4(l, c),
            transform::kernel4(l, d),
        ];
        for j in 0..POINTS {
            let column = transform::kernel4(l, [a[j], b[j], c[j], d[j]]);
            points.store(l, column, j, channel, at);
        }
        sum
    }
}

/// The sum of four vectors.
#[inline(always)]
fn sum4<L: Lanes>(l: L, [a, b, c, d]: [L::V; 4]) -> L::V {
    l.add(l.add(a, b), l.add(c, d))
}
