//! Which map and which image score: arguments of `train` and `eval`.

use candle_fastflow::estimators::{MapKind, Scoring, ScoringChanges};

#[derive(clap::Args)]
#[command(next_help_heading = "Scoring")]
pub struct ScoringArgs {
    /// Map for score and localisation: nll, exp or prob; the preset's (or the detector's) by default
    #[arg(long, value_enum)]
    map: Option<MapArg>,
    /// Map behind the image score only
    #[arg(long, value_enum, value_name = "MAP", hide_possible_values = true)]
    image_map: Option<MapArg>,
    /// Map for localisation only
    #[arg(long, value_enum, value_name = "MAP", hide_possible_values = true)]
    pixel_map: Option<MapArg>,
    /// Image score: the mean of the K largest values instead of the largest
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Weights of the scales in the image score, finest first, for example 0,1,1
    #[arg(long, value_name = "W,W,...", value_delimiter = ',')]
    image_weights: Option<Vec<f32>>,
    /// Smooth the maps with a Gaussian of this deviation, in pixels of the network's input
    #[arg(long, value_name = "PIXELS")]
    smoothing: Option<f32>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum MapArg {
    Nll,
    Exp,
    Prob,
}

impl From<MapArg> for MapKind {
    fn from(map: MapArg) -> Self {
        match map {
            MapArg::Nll => MapKind::Nll,
            MapArg::Exp => MapKind::Exp,
            MapArg::Prob => MapKind::Prob,
        }
    }
}

impl ScoringArgs {
    /// `scoring` with what was given in its place.
    pub fn apply(&self, scoring: &Scoring) -> Scoring {
        let changes = ScoringChanges {
            map: self.map.map(MapKind::from),
            image_map: self.image_map.map(MapKind::from),
            pixel_map: self.pixel_map.map(MapKind::from),
            top_k: self.top_k,
            image_weights: self.image_weights.clone(),
            smoothing: self.smoothing,
        };
        changes.apply(scoring)
    }
}
