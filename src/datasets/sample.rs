//! One image of a data set and its ground truth.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use image::RgbImage;

use super::{Edit, cifar10, layout};
use crate::imaging::{self, Mask, Reading, Seen};
use crate::{Result, files};

/// One image of a data set. [`Sample::read`] and [`Sample::read_mask`] lead to the pixels; the paths alone
/// do not, where a file holds many images or an [`Edit`] follows.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The image file.
    pub image: PathBuf,
    /// The record inside the file, where it is a batch of CIFAR-10.
    pub record: Option<usize>,
    /// Ground-truth masks: what any of them marks is defective. None for most normal images (an empty one may be there) and
    /// where masks are not known.
    pub masks: Vec<PathBuf>,
    /// The defect's class; none when the image is normal.
    pub defect: Option<String>,
    /// What is done to the image after reading it.
    pub edit: Option<Edit>,
    /// How its file is read.
    pub reading: Reading,
}

impl Sample {
    /// A normal image.
    pub fn normal(image: PathBuf) -> Self {
        Self {
            image,
            record: None,
            masks: Vec::new(),
            defect: None,
            edit: None,
            reading: Reading::default(),
        }
    }

    /// An image with a defect of a class, and its masks where there are any.
    pub fn defective(
        image: PathBuf,
        class: &str,
        masks: impl IntoIterator<Item = PathBuf>,
    ) -> Self {
        Self {
            masks: masks.into_iter().collect(),
            defect: Some(class.to_string()),
            ..Self::normal(image)
        }
    }

    /// The same image with an edit, in place of any that it had.
    pub fn edited(&self, edit: Edit) -> Self {
        Self {
            edit: Some(edit),
            ..self.clone()
        }
    }

    /// Whether the image shows a defect.
    pub fn is_defective(&self) -> bool {
        self.defect.is_some()
    }

    /// Whether it is known which pixels of a defect are defective: somebody drew it, or it was put in here.
    pub fn has_mask(&self) -> bool {
        !self.masks.is_empty() || matches!(self.edit, Some(Edit::Defect(..)))
    }

    /// A name for tables and file names, unlike those of all other samples of the data set: the path
    /// inside `root` with `/` between folders, then the record and the edit where there are such.
    pub fn name(&self, root: &Path) -> String {
        let mut name = layout::relative(root, &self.image);
        if let Some(record) = self.record {
            name += &format!("#{record}");
        }
        if let Some(edit) = &self.edit {
            name += &format!(" {edit}");
        }
        name
    }

    /// The bytes of the file's part of [`Sample::name`], where that is no UTF-8: see [`files::raw_bytes`].
    pub fn name_bytes(&self, root: &Path) -> Option<String> {
        files::raw_bytes(layout::inside(root, &self.image))
    }

    /// The image's pixels.
    ///
    /// # Errors
    /// As [`imaging::decode`].
    pub fn read(&self) -> Result<RgbImage> {
        let image = self.original()?;
        match &self.edit {
            Some(edit) => edit.apply(&image),
            None => Ok(image),
        }
    }

    /// [`Self::read`] with what is odd about the file's grey levels.
    ///
    /// # Errors
    /// As there.
    pub fn seen(&self) -> Result<Seen> {
        let seen = match self.record {
            Some(_) => Seen {
                image: self.original()?,
                doubt: None,
            },
            None => imaging::decode_as(&self.image, &self.reading)?,
        };
        match &self.edit {
            Some(edit) => Ok(Seen {
                image: edit.apply(&seen.image)?,
                ..seen
            }),
            None => Ok(seen),
        }
    }

    /// Columns and rows of the image as it is in its file, and a hash of all its bits.
    ///
    /// # Errors
    /// As [`imaging::photo`].
    pub(super) fn fingerprint(&self) -> Result<((u32, u32), u64)> {
        let mut hasher = DefaultHasher::new();
        let size = match self.record {
            Some(record) => {
                let image = cifar10::read(&self.image, record)?;
                image.as_raw().hash(&mut hasher);
                image.dimensions()
            }
            None => {
                let photo = imaging::photo(&self.image, &self.reading)?;
                photo.hash_into(&mut hasher);
                photo.dimensions()
            }
        };
        size.hash(&mut hasher);
        Ok((size, hasher.finish()))
    }

    /// Columns and rows of [`Self::read`]'s image; of a plain file its header tells.
    ///
    /// # Errors
    /// As [`imaging::decode`].
    pub fn dimensions(&self) -> Result<(u32, u32)> {
        match (&self.record, &self.edit) {
            (None, None) => {
                let header = imaging::header(&self.image, &self.reading)?;
                Ok((header.width, header.height))
            }
            _ => Ok(self.read()?.dimensions()),
        }
    }

    fn original(&self) -> Result<RgbImage> {
        match self.record {
            Some(record) => cifar10::read(&self.image, record),
            None => imaging::decode_plainly(&self.image, &self.reading),
        }
    }

    /// Which pixels of the image, of `width` x `height`, are defective: none of a normal image;
    /// `None` when the image is defective but nobody drew where.
    ///
    /// # Errors
    /// As [`imaging::decode_mask`], or [`crate::Error::Dataset`] when the mask has another size than its image.
    pub fn read_mask(&self, width: u32, height: u32) -> Result<Option<Mask>> {
        if let Some(edit @ Edit::Defect(..)) = &self.edit {
            return Ok(edit.defect(&self.original()?).map(|(_, mask)| mask));
        }
        let Some(mask) = self.drawn_mask()? else {
            let empty = || Mask::empty(width as usize, height as usize);
            return Ok((!self.is_defective()).then(empty));
        };
        let found = (mask.width() as u32, mask.height() as u32);
        self.expect_size(&self.masks[0], found, (width, height))?;
        Ok(Some(match &self.edit {
            Some(edit) => edit.apply_mask(mask),
            None => mask,
        }))
    }

    /// All masks in one, as they were drawn; none where nobody drew any.
    ///
    /// # Errors
    /// As [`imaging::decode_mask`], or [`crate::Error::Dataset`] when two of them differ in size.
    pub(super) fn drawn_mask(&self) -> Result<Option<Mask>> {
        let Some((first, more)) = self.masks.split_first() else {
            return Ok(None);
        };
        let mut united = imaging::decode_mask_as(first, &self.reading)?;
        for path in more {
            let mask = imaging::decode_mask_as(path, &self.reading)?;
            if (mask.width(), mask.height()) != (united.width(), united.height()) {
                let first = first.display();
                let reason = format!("the mask has another size than {first} of the same image");
                return Err(layout::fault(path, reason));
            }
            let marked = united.pixels().iter().zip(mask.pixels());
            let pixels = marked.map(|(one, other)| *one || *other).collect();
            united = Mask::new(mask.width(), mask.height(), pixels)?;
        }
        Ok(Some(united))
    }

    pub(super) fn expect_size(
        &self,
        mask: &Path,
        found: (u32, u32),
        image: (u32, u32),
    ) -> Result<()> {
        if found == image {
            return Ok(());
        }
        let size = |(width, height)| format!("{width}x{height}");
        let (found, expected) = (size(found), size(image));
        let image = self.image.display();
        let reason = format!("the mask has {found} pixels, its image {image} has {expected}");
        Err(layout::fault(mask, reason))
    }
}
