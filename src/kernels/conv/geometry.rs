//! The sizes of one convolution, checked once.

use crate::{Error, Result};

/// Sizes of input `[batch, in_channels, in_h, in_w]`, weight `[out_channels, in_channels, kernel_h,
/// kernel_w]` and output `[batch, out_channels, out_h, out_w]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Geometry {
    pub(crate) batch: usize,
    pub(crate) in_channels: usize,
    pub(crate) in_h: usize,
    pub(crate) in_w: usize,
    pub(crate) out_channels: usize,
    pub(crate) kernel_h: usize,
    pub(crate) kernel_w: usize,
    pub(crate) stride: usize,
    pub(crate) padding: usize,
    pub(crate) out_h: usize,
    pub(crate) out_w: usize,
}

impl Geometry {
    /// Derives the output's size; both shapes must have four dimensions that fit together.
    pub(crate) fn new(x: &[usize], w: &[usize], stride: usize, padding: usize) -> Result<Self> {
        let misfit = |expected: String, found: &[usize]| Error::Shape {
            what: "convolution".into(),
            expected,
            found: format!("{found:?}"),
        };
        let &[batch, in_channels, in_h, in_w] = x else {
            return Err(misfit("[batch, channels, height, width]".into(), x));
        };
        let &[out_channels, weight_channels, kernel_h, kernel_w] = w else {
            return Err(misfit("a weight [out, in, height, width]".into(), w));
        };
        if weight_channels != in_channels {
            return Err(misfit(
                format!("a weight for {in_channels} input channels"),
                w,
            ));
        }
        let (padded_h, padded_w) = (in_h + 2 * padding, in_w + 2 * padding);
        let fits = (1..=padded_h).contains(&kernel_h) && (1..=padded_w).contains(&kernel_w);
        if stride == 0 || !fits {
            return Err(misfit(
                format!("a map of at least the kernel, {kernel_h}x{kernel_w}, and a stride"),
                x,
            ));
        }
        Ok(Self {
            batch,
            in_channels,
            in_h,
            in_w,
            out_channels,
            kernel_h,
            kernel_w,
            stride,
            padding,
            out_h: (padded_h - kernel_h) / stride + 1,
            out_w: (padded_w - kernel_w) / stride + 1,
        })
    }

    /// Elements of one input channel.
    pub(crate) fn in_plane(&self) -> usize {
        self.in_h * self.in_w
    }

    /// Elements of one output channel.
    pub(crate) fn out_plane(&self) -> usize {
        self.out_h * self.out_w
    }

    /// Elements of one kernel.
    pub(crate) fn taps(&self) -> usize {
        self.kernel_h * self.kernel_w
    }

    /// Input elements behind one output element.
    pub(crate) fn patch(&self) -> usize {
        self.in_channels * self.taps()
    }

    /// Elements of one output image.
    pub(crate) fn out_image(&self) -> usize {
        self.out_channels * self.out_plane()
    }

    /// The output's shape.
    pub(crate) fn out_shape(&self) -> (usize, usize, usize, usize) {
        (self.batch, self.out_channels, self.out_h, self.out_w)
    }

    /// Whether the input itself is the patch matrix (1x1, stride 1, no padding).
    pub(crate) fn is_pointwise(&self) -> bool {
        self.taps() == 1 && self.stride == 1 && self.padding == 0
    }
}
