//! What the training photos are like as files and pictures: kept in the detector, so that it reads later ones alike and can
//! tell which are unlike.

use super::Progress;
use crate::{
    Result,
    datasets::Dataset,
    imaging::{Preprocessing, QualityRange},
};

/// The data set as the detector will read it. How the training photos' files are is measured, kept and told; an adapted
/// detector goes on reading as it did, and knows the new photos' qualities beside the old ones'.
pub(super) fn at_files(
    dataset: &Dataset,
    input: &mut Preprocessing,
    adapted: bool,
    progress: &mut dyn Progress,
) -> Result<Dataset> {
    let seen = dataset.clone().seen_by(input);
    if !adapted {
        let measured = seen.measured()?;
        for note in measured.notes(input.page.unwrap_or(1)) {
            progress.note(&note);
        }
        input.range = measured.range;
        input.aspects = Some(measured.aspects);
        if let Some(note) = shape_note(input) {
            progress.note(&note);
        }
    }
    // Once more: with the range.
    let seen = seen.seen_by(input);
    let known = input.quality.filter(|_| adapted);
    let ends = known.into_iter().flat_map(|range| [range.low, range.high]);
    input.quality = QualityRange::of(ends.chain(seen.qualities()?));
    Ok(seen)
}

/// What is to be said where the input is no square, or lies the other way than the photos do.
fn shape_note(input: &Preprocessing) -> Option<String> {
    let (height, width) = (input.height, input.width);
    let [least, most] = input.aspects?;
    let crosswise = least > 1.0 && width < height || most < 1.0 && width > height;
    let say = match (crosswise, width == height) {
        (true, _) => "which lies across the photos' shape: sides are height x width",
        (false, true) => return None,
        (false, false) => "height x width",
    };
    Some(format!("input of {height}x{width} pixels, {say}"))
}
