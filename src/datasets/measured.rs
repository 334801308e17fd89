//! What the files of the training photos are like: their depth, the grey levels they use, their shape.

use rayon::prelude::*;

use super::{Dataset, Sample};
use crate::{
    Result,
    imaging::{self, Depth, PixelRange, Preprocessing, Quality, Reading},
};

/// What was seen of the training photos' files.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// Training photos.
    pub photos: usize,
    /// Grey levels of those of more than 8 bits; none where there are no such.
    pub range: Option<PixelRange>,
    /// How many those are.
    pub deep: usize,
    /// Files with several pages, and the most pages of one.
    pub several_pages: (usize, usize),
    /// Smallest and largest width over height.
    pub aspects: [f64; 2],
}

/// What was seen of one.
struct Look {
    depth: Depth,
    extent: Option<[f32; 2]>,
    pages: usize,
    aspect: f64,
}

impl Dataset {
    /// Reads the headers of the training photos, and of those of more than 8 bits the grey levels too.
    ///
    /// # Errors
    /// When photos cannot be read, all in one.
    pub fn measured(&self) -> Result<Measured> {
        let looks: Vec<Look> = self.of_photos(look)?;
        let deep = || looks.iter().filter(|look| look.depth != Depth::U8);
        let extents: Vec<[f32; 2]> = deep().filter_map(|look| look.extent).collect();
        let beside_eight_bits = deep().count() < looks.len();
        let depth = deep().next().map_or(Depth::U8, |look| look.depth);
        let pages = || looks.iter().map(|look| look.pages);
        let aspects = || looks.iter().map(|look| look.aspect);
        Ok(Measured {
            photos: looks.len(),
            range: PixelRange::of(&extents, depth, beside_eight_bits),
            deep: deep().count(),
            several_pages: (
                pages().filter(|pages| *pages > 1).count(),
                pages().max().unwrap_or(1),
            ),
            aspects: [
                aspects().fold(f64::MAX, f64::min),
                aspects().fold(0.0, f64::max),
            ]
            .map(rounded),
        })
    }

    /// What training photos are like as pictures: of at most a hundred of them, evenly spread.
    ///
    /// # Errors
    /// When photos cannot be read, all in one.
    pub fn qualities(&self) -> Result<Vec<Quality>> {
        const LOOKED_AT: usize = 100;
        let step = self.train.len().div_ceil(LOOKED_AT).max(1);
        let some: Vec<&Sample> = self.train.iter().step_by(step).collect();
        let quality = |sample: &&Sample| Ok(Quality::of(&sample.read()?));
        let found: Result<Vec<Quality>> = some.par_iter().map(quality).collect();
        found.map_err(|first| self.damage_check().err().unwrap_or(first))
    }

    /// The same data set, its photos' files read as `reading` says.
    pub fn read_as(mut self, reading: Reading) -> Self {
        for sample in self.train.iter_mut().chain(&mut self.test) {
            sample.reading = reading;
        }
        self
    }

    /// The same data set with the page and the range of a detector's input; the limit of size stays.
    pub fn seen_by(mut self, input: &Preprocessing) -> Self {
        for sample in self.train.iter_mut().chain(&mut self.test) {
            sample.reading = input.reading(sample.reading);
        }
        self
    }
}

fn look(sample: &Sample) -> Result<Look> {
    if sample.record.is_some() {
        // CIFAR-10's are square.
        return Ok(Look {
            depth: Depth::U8,
            extent: None,
            pages: 1,
            aspect: 1.0,
        });
    }
    let header = imaging::header(&sample.image, &sample.reading)?;
    let extent = match header.depth {
        Depth::U8 => None,
        _ => imaging::photo(&sample.image, &sample.reading)?.extent(),
    };
    Ok(Look {
        depth: header.depth,
        extent,
        pages: header.pages,
        aspect: f64::from(header.width) / f64::from(header.height.max(1)),
    })
}

/// To four digits, so that a file is read by people.
fn rounded(aspect: f64) -> f64 {
    (aspect * 1e4).round() / 1e4
}

impl Measured {
    /// What a person should know about how the photos are read, a line each: nothing of photos of 8 bits with one
    /// page.
    pub fn notes(&self, page: usize) -> Vec<String> {
        let mut notes = Vec::new();
        if let Some(range) = &self.range {
            notes.push(format!(
                "{} photos use {}: scaled by that",
                range.depth.words(),
                range.words()
            ));
        }
        let eight = self.photos - self.deep;
        if self.deep > 0 && eight > 0 {
            notes.push(format!(
                "photos of mixed depth: {eight} of 8 bits are taken as they are, {} of more are scaled by their own \
                 range; one depth for all is safer",
                self.deep
            ));
        }
        if let (files @ 1.., most) = self.several_pages {
            let files = if files == 1 {
                "1 file has".into()
            } else {
                format!("{files} files have")
            };
            notes.push(format!(
                "{files} several pages (up to {most}): page {page} is taken"
            ));
        }
        notes
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use image::{ImageBuffer, Luma};

    use super::*;

    fn dataset(folder: &std::path::Path, names: &[&str]) -> Dataset {
        let sample = |name: &&str| Sample::normal(folder.join(name));
        Dataset {
            root: folder.into(),
            name: "some".into(),
            train: names.iter().map(sample).collect(),
            test: Vec::new(),
        }
    }

    #[test]
    fn the_range_is_that_of_all_photos_without_hot_pixels() {
        let folder = tempfile::tempdir().unwrap();
        for (name, low) in [("a.png", 200), ("b.png", 230)] {
            let mut photo =
                ImageBuffer::from_fn(100, 50, |x, y| Luma([low + ((x * 7 + y) % 270) as u16]));
            // A dead and a hot pixel.
            photo.put_pixel(3, 3, Luma([0]));
            photo.put_pixel(9, 3, Luma([65535]));
            photo.save(folder.path().join(name)).unwrap();
        }
        let measured = dataset(folder.path(), &["a.png", "b.png"])
            .measured()
            .unwrap();
        let range = measured.range.unwrap();
        assert!((200.0..203.0).contains(&range.low), "{range:?}");
        assert!((496.0..500.0).contains(&range.high), "{range:?}");
        assert_eq!((range.depth, range.beside_eight_bits), (Depth::U16, false));
        assert_eq!(measured.aspects, [2.0, 2.0]);
        let notes = measured.notes(1);
        assert_eq!(notes.len(), 1);
        assert!(
            notes[0].starts_with("16-bit photos use 20")
                && notes[0].ends_with("of 65535: scaled by that")
        );
    }

    #[test]
    fn photos_of_eight_bits_have_no_range_and_mixed_ones_are_told_of() {
        let folder = tempfile::tempdir().unwrap();
        image::GrayImage::from_pixel(30, 40, Luma([9]))
            .save(folder.path().join("a.png"))
            .unwrap();
        let eight = dataset(folder.path(), &["a.png"]).measured().unwrap();
        assert_eq!(
            (eight.range, eight.deep, eight.aspects),
            (None, 0, [0.75, 0.75])
        );
        assert!(eight.notes(1).is_empty());
        ImageBuffer::from_pixel(40, 40, Luma([900u16]))
            .save(folder.path().join("b.png"))
            .unwrap();
        let mixed = dataset(folder.path(), &["a.png", "b.png"])
            .measured()
            .unwrap();
        assert!(mixed.range.unwrap().beside_eight_bits);
        assert_eq!(mixed.aspects, [0.75, 1.0]);
        assert!(
            mixed.notes(1)[1].contains("mixed depth: 1 of 8 bits"),
            "{:?}",
            mixed.notes(1)
        );
    }
}
