//! Ground-truth masks.

use crate::{Error, Result};

/// Which pixels of an image are defective, row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask {
    width: usize,
    height: usize,
    pixels: Vec<bool>,
}

impl Mask {
    /// A mask of `width * height` pixels, row by row.
    ///
    /// # Errors
    /// [`Error::Shape`] when the number of pixels differs.
    pub fn new(width: usize, height: usize, pixels: Vec<bool>) -> Result<Self> {
        if width.checked_mul(height) != Some(pixels.len()) {
            return Err(Error::Shape {
                what: "mask".into(),
                expected: format!("{width}x{height} pixels"),
                found: format!("{} pixels", pixels.len()),
            });
        }
        Ok(Self {
            width,
            height,
            pixels,
        })
    }

    /// A mask without a defect.
    pub fn empty(width: usize, height: usize) -> Self {
        Self {
            width,
            height,
            pixels: vec![false; width * height],
        }
    }

    /// Columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// All pixels, row by row.
    pub fn pixels(&self) -> &[bool] {
        &self.pixels
    }

    /// Whether the pixel in column `x` of row `y` is defective; outside the mask none is.
    pub fn get(&self, x: usize, y: usize) -> bool {
        x < self.width && y < self.height && self.pixels[y * self.width + x]
    }

    /// Marks a pixel inside the mask; outside it does nothing.
    pub fn set(&mut self, x: usize, y: usize, defective: bool) {
        if x < self.width && y < self.height {
            self.pixels[y * self.width + x] = defective;
        }
    }

    /// Number of defective pixels.
    pub fn area(&self) -> usize {
        self.pixels.iter().filter(|&&p| p).count()
    }

    /// The mask at another size, each pixel taken from the nearest one (PIL's `NEAREST`).
    pub fn resized(&self, width: usize, height: usize) -> Self {
        // The centre of output pixel i lies at (i + 1/2) * from / to of the source.
        let source =
            |i: usize, from: usize, to: usize| ((2 * i + 1) * from / (2 * to)).min(from - 1);
        let mut out = Self::empty(width, height);
        if self.pixels.is_empty() {
            return out;
        }
        for y in 0..height {
            let row = source(y, self.height, height) * self.width;
            for x in 0..width {
                out.pixels[y * width + x] = self.pixels[row + source(x, self.width, width)];
            }
        }
        out
    }
}
