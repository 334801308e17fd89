//! The page of an explanation: one row of pictures a scale.

use image::{Rgb, RgbImage};
use serde::Serialize;

use super::{item, number, page};
use crate::{
    Result,
    detector::{Noise, Prediction, ScaleExplanation},
    estimators::AnomalyMap,
};

/// Longest side of a map's picture.
const SIDE: u32 = 256;

#[derive(Serialize)]
struct Page<'a> {
    title: &'a str,
    score: String,
    photo: String,
    heat: String,
    deviation: f32,
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    title: String,
    untypical: String,
    cells: Vec<Cell>,
}

#[derive(Serialize)]
struct Cell {
    title: &'static str,
    picture: String,
    low: String,
    high: String,
}

/// A self-contained page about one photo.
///
/// # Errors
/// When a picture cannot be encoded.
pub fn explanation_page(
    title: &str,
    (photo, heat): (&RgbImage, &RgbImage),
    prediction: &Prediction,
    noise: &Noise,
    scales: &[ScaleExplanation],
) -> Result<String> {
    page(
        include_str!("explained.html"),
        Page {
            title,
            score: number(prediction.score),
            photo: item::jpeg_uri(&item::thumbnail(photo))?,
            heat: item::jpeg_uri(&item::thumbnail(heat))?,
            deviation: noise.deviation,
            rows: scales.iter().enumerate().map(row).collect::<Result<_>>()?,
        },
    )
}

fn row((index, scale): (usize, &ScaleExplanation)) -> Result<Row> {
    let maps = [
        ("features", &scale.features),
        ("latents z", &scale.latents),
        ("-log likelihood", &scale.likelihood),
        ("evidence: z pulled back", &scale.residual),
        ("noise in z", &scale.disturbed),
    ];
    Ok(Row {
        title: format!(
            "scale {}: {} x {}",
            index + 1,
            scale.features.width,
            scale.features.height
        ),
        untypical: format!("{:.1} %", 100.0 * scale.untypical),
        cells: maps
            .into_iter()
            .map(|(title, map)| cell(title, map))
            .collect::<Result<_>>()?,
    })
}

fn cell(title: &'static str, map: &AnomalyMap) -> Result<Cell> {
    let low = map.values.iter().copied().fold(f32::INFINITY, f32::min);
    let high = map.values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    Ok(Cell {
        title,
        picture: item::png_uri(&picture(map, low, high).into())?,
        low: number(low),
        high: number(high),
    })
}

/// The map's own cells, enlarged without smoothing: what the flow sees, not more.
fn picture(map: &AnomalyMap, low: f32, high: f32) -> RgbImage {
    let times = (SIDE / map.width.max(map.height).max(1) as u32).max(1);
    let (width, height) = (map.width as u32 * times, map.height as u32 * times);
    RgbImage::from_fn(width, height, |x, y| {
        let value = map.values[(y / times) as usize * map.width + (x / times) as usize];
        let place = (value - low) / (high - low).max(f32::MIN_POSITIVE);
        Rgb(colorous::VIRIDIS
            .eval_continuous(f64::from(place))
            .into_array())
    })
}
