//! Which map and which image score: arguments of `train` and `eval`.

use candle_fastflow::estimators::{MapKind, Scoring, ScoringChanges};

#[derive(clap::Args)]
#[command(next_help_heading = "Scoring")]
pub struct ScoringArgs {
    /// Map for score and localisation: nll, exp or prob of a flow; the preset's (or the detector's) by default
    #[arg(long, value_enum, hide_possible_values = true)]
    map: Option<MapKind>,
    /// Map behind the image score only
    #[arg(long, value_enum, value_name = "MAP", hide_possible_values = true)]
    image_map: Option<MapKind>,
    /// Map for localisation only
    #[arg(long, value_enum, value_name = "MAP", hide_possible_values = true)]
    pixel_map: Option<MapKind>,
    /// Image score: the mean of the K largest values instead of the largest
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Weights of the scales in the image score, finest first, for example 0,1,1
    #[arg(long, value_name = "W,W,...", value_delimiter = ',')]
    image_weights: Option<Vec<f32>>,
    /// Smooth the maps with a Gaussian of this deviation, in pixels of the network's input; 0
    /// for not at all
    #[arg(long, value_name = "PIXELS")]
    smoothing: Option<f32>,
}

impl ScoringArgs {
    /// What was given.
    pub fn changes(&self) -> ScoringChanges {
        ScoringChanges {
            map: self.map,
            image_map: self.image_map,
            pixel_map: self.pixel_map,
            top_k: self.top_k,
            image_weights: self.image_weights.clone(),
            smoothing: self.smoothing,
        }
    }

    /// `scoring` with what was given in its place.
    pub fn apply(&self, scoring: &Scoring) -> Scoring {
        self.changes().apply(scoring)
    }
}
