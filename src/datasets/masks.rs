//! Masks: how their names follow from their photos', and what they look like.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::layout;
use super::roles::{Label, Said};
use crate::Result;
use crate::imaging;

/// A file's name without its extension.
pub(super) fn stem(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default();
    stem.to_string_lossy().into_owned()
}

/// What is left of a name that says it is a mask's (`003_mask`, `mask-003`, `003.GT`, `mask3`, `003_mask_1`), and whether it
/// says so for certain: [`Label::Mask`] or [`Label::MaybeMask`].
pub(super) fn bare(stem: &str) -> Option<(&str, Label)> {
    let is_letter = |c: char| c.is_alphanumeric();
    let mut parts: Vec<(usize, &str)> = Vec::new();
    for part in stem
        .split(|c: char| !is_letter(c))
        .filter(|p| !p.is_empty())
    {
        parts.push((part.as_ptr() as usize - stem.as_ptr() as usize, part));
    }
    let said = |part: &str| match Said::of(part).label {
        Some(label @ (Label::Mask | Label::MaybeMask)) => Some(label),
        _ => None,
    };
    let before = |at: usize| stem[..at].trim_end_matches(|c| !is_letter(c));
    let is_number = |part: &str| part.chars().all(|c| c.is_ascii_digit());
    match parts.as_slice() {
        // `mask90`: the number is the photo's.
        [(_, one)] => {
            let digits = one.trim_start_matches(|c: char| !c.is_ascii_digit());
            Some((digits, said(one)?)).filter(|_| !digits.is_empty())
        }
        [.., (ground, a), (_, b)]
            if a.eq_ignore_ascii_case("ground") && b.eq_ignore_ascii_case("truth") =>
        {
            Some((before(*ground), Label::Mask)).filter(|(bare, _)| !bare.is_empty())
        }
        [.., (at, last)] if said(last).is_some() => Some((before(*at), said(last)?)),
        [.., (_, _), (at, mask), (_, number)] if is_number(number) && said(mask).is_some() => {
            Some((before(*at), said(mask)?))
        }
        [(_, first), (at, _), ..] => Some((&stem[*at..], said(first)?)),
        _ => None,
    }
}

/// Finds an image's masks by its name: `003.png` has `003_mask.png` or `003.bmp` and the like, or all in a folder `003`.
pub(super) struct Masks {
    named: HashMap<PathBuf, Vec<PathBuf>>,
    below: HashMap<PathBuf, Vec<PathBuf>>,
}

impl Masks {
    /// The masks below a folder, if there is one.
    pub(super) fn below(folder: &Path) -> Result<Self> {
        let files = layout::images_if_any(folder)?.into_iter();
        let placed = files.map(|f| (layout::inside(folder, &f).to_path_buf(), f));
        Ok(Self::new(placed))
    }

    /// Mask files with their places: paths that are compared with those given to [`Masks::of`].
    pub(super) fn new(files: impl IntoIterator<Item = (PathBuf, PathBuf)>) -> Self {
        let mut masks = Self {
            named: HashMap::new(),
            below: HashMap::new(),
        };
        for (place, file) in files {
            let stem = stem(&place);
            let bare = bare(&stem).map_or(stem.as_str(), |(bare, _)| bare);
            let named = masks.named.entry(place.with_file_name(bare)).or_default();
            // One photo's masks lie together; of two folders with the same names the first counts.
            if named
                .first()
                .is_none_or(|first: &PathBuf| first.parent() == file.parent())
            {
                named.push(file.clone());
            }
            if let Some(folder) = place.parent().filter(|p| *p != Path::new("")) {
                masks
                    .below
                    .entry(folder.to_path_buf())
                    .or_default()
                    .push(file);
            }
        }
        masks
    }

    /// The masks of the image at a place.
    pub(super) fn of(&self, place: &Path) -> Vec<PathBuf> {
        let key = place.with_file_name(stem(place));
        let found = self.named.get(&key).or_else(|| self.below.get(&key));
        found.cloned().unwrap_or_default()
    }
}

/// Shade up to which a pixel of a picture with noise counts as black, and from which as white.
const BLACK: usize = 16;
const WHITE: usize = 239;
/// Shades that a mask without noise has at most.
const SHADES: usize = 8;

/// Whether a file looks like a mask: at least half of it black, and but few shades. A file that cannot be read does not.
pub(super) fn looks_like_mask(path: &Path) -> bool {
    let Ok(picture) = imaging::decode(path) else {
        return false;
    };
    let mut counts = [0_usize; 256];
    let mut grey = true;
    for pixel in picture.pixels() {
        let [r, g, b] = pixel.0;
        grey &= r.abs_diff(g) < 24 && g.abs_diff(b) < 24;
        counts[usize::from(r.max(g).max(b))] += 1;
    }
    let all: usize = counts.iter().sum();
    let black: usize = counts[..=BLACK].iter().sum();
    let white: usize = counts[WHITE..].iter().sum();
    let shades = counts.iter().filter(|count| **count > 0).count();
    2 * black >= all && (shades <= SHADES || grey && 200 * (black + white) >= 195 * all)
}

/// Whether any mask of a photo marks a pixel.
///
/// # Errors
/// As [`imaging::decode_mask`].
pub(super) fn marks(masks: &[PathBuf]) -> Result<bool> {
    for mask in masks {
        if imaging::decode_mask(mask)?.area() > 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_masks_name_leads_to_its_photos() {
        for (name, photo) in [
            ("003_mask", "003"),
            ("003-mask", "003"),
            ("003_GT", "003"),
            ("003.Mask", "003"),
            ("mask_003", "003"),
            ("MASK-a_b", "a_b"),
            ("003_mask_1", "003"),
            ("003_mask2", "003"),
            ("mask90", "90"),
            ("003_ground_truth", "003"),
            ("000_regular_mask", "000_regular"),
            ("003_maske", "003"),
        ] {
            assert_eq!(bare(name), Some((photo, Label::Mask)), "{name}");
        }
        assert_eq!(bare("Part0_label"), Some(("Part0", Label::MaybeMask)));
        for name in ["003", "masked_003", "003_bottle", "mask", "a_b"] {
            assert_eq!(bare(name), None, "{name}");
        }
    }
}
