//! One image of a data set and its ground truth.

use std::path::PathBuf;

use image::RgbImage;

use crate::imaging::{self, Mask};
use crate::{Error, Result};

/// One image of a data set.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The image file.
    pub image: PathBuf,
    /// Ground-truth mask (non-zero is defective); none for normal images or where masks are not known.
    pub mask: Option<PathBuf>,
    /// The defect's class; none when the image is normal.
    pub defect: Option<String>,
}

impl Sample {
    /// A normal image.
    pub fn normal(image: PathBuf) -> Self {
        Self {
            image,
            mask: None,
            defect: None,
        }
    }

    /// An image with a defect of a class, and its mask where there is one.
    pub fn defective(image: PathBuf, class: &str, mask: Option<PathBuf>) -> Self {
        Self {
            image,
            mask,
            defect: Some(class.to_string()),
        }
    }

    /// Whether the image shows a defect.
    pub fn is_defective(&self) -> bool {
        self.defect.is_some()
    }

    /// The image's pixels.
    ///
    /// # Errors
    /// As [`imaging::decode`].
    pub fn read(&self) -> Result<RgbImage> {
        imaging::decode(&self.image)
    }

    /// Which pixels of the image, of `width` x `height`, are defective: none of a normal image;
    /// `None` when the image is defective but nobody drew where.
    ///
    /// # Errors
    /// As [`imaging::decode_mask`], or [`Error::Dataset`] when the mask has another size than its image.
    pub fn read_mask(&self, width: u32, height: u32) -> Result<Option<Mask>> {
        let (width, height) = (width as usize, height as usize);
        let Some(path) = &self.mask else {
            return Ok((!self.is_defective()).then(|| Mask::empty(width, height)));
        };
        let mask = imaging::decode_mask(path)?;
        if (mask.width(), mask.height()) == (width, height) {
            return Ok(Some(mask));
        }
        Err(Error::Dataset {
            path: path.clone(),
            reason: format!(
                "the mask has {}x{} pixels, its image {} has {width}x{height}",
                mask.width(),
                mask.height(),
                self.image.display()
            ),
        })
    }
}
