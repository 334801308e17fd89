//! How the file of a photo is read: which page, how large it may be, and which grey levels count.

use super::PixelRange;

/// Smallest side of an accepted image, in pixels: one pixel has no texture to inspect.
pub const MIN_SIDE: u32 = 2;
/// Largest side of an accepted image, in pixels: line-scan cameras make long ones.
pub const MAX_SIDE: u32 = 64_000;
/// Largest accepted image, in pixels, unless [`Reading::max_pixels`] says otherwise.
pub const MAX_PIXELS: u64 = 100_000_000;

/// What is to be known to read a photo's file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    /// Which image of a file that holds several (multi-page TIFF); the first is 1.
    pub page: usize,
    /// Largest accepted image, in pixels.
    pub max_pixels: u64,
    /// Grey levels that photos of more than 8 bits are scaled by; without one those of 16 bits are scaled by all
    /// that 16 bits can hold, and others are not read.
    pub range: Option<PixelRange>,
}

impl Default for Reading {
    fn default() -> Self {
        Self {
            page: 1,
            max_pixels: MAX_PIXELS,
            range: None,
        }
    }
}

impl Reading {
    /// What is accepted, named in every error so that the user knows what to bring instead.
    pub(super) fn accepted(&self) -> String {
        let mega = self.max_pixels as f64 / 1e6;
        format!(
            "accepted are PNG, JPEG, BMP, TIFF, WebP, GIF and PNM, 2 to {MAX_SIDE} pixels a side and at most {mega} \
             megapixels (max_megapixels raises that)"
        )
    }
}
