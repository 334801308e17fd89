//! A detector's scoring that differs from what it was: flags of `train` and `eval`, lines of a plan.

use super::{ImageScore, MapKind, Scoring};

/// What is changed in a [`Scoring`]; nothing where none.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ScoringChanges {
    /// Map for score and localisation.
    pub map: Option<MapKind>,
    /// Map behind the image score, whatever `map` says.
    pub image_map: Option<MapKind>,
    /// Map for localisation, whatever `map` says.
    pub pixel_map: Option<MapKind>,
    /// Image score: the mean of this many largest values.
    pub top_k: Option<usize>,
    /// Weights of the scales in the image score, finest first.
    pub image_weights: Option<Vec<f32>>,
    /// Smoothing of the maps, in pixels of the input; 0 for none.
    pub smoothing: Option<f32>,
}

impl ScoringChanges {
    /// `scoring` with these in its place.
    pub fn apply(&self, scoring: &Scoring) -> Scoring {
        let kind = |own: Option<MapKind>, before| own.or(self.map).unwrap_or(before);
        let weights = self.image_weights.as_ref();
        Scoring {
            image_map: kind(self.image_map, scoring.image_map),
            pixel_map: kind(self.pixel_map, scoring.pixel_map),
            image_score: self.top_k.map_or(scoring.image_score, ImageScore::TopK),
            standardise_scales: scoring.standardise_scales,
            image_weights: weights.or(scoring.image_weights.as_ref()).cloned(),
            smoothing: match self.smoothing {
                Some(0.0) => None,
                other => other.or(scoring.smoothing),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_what_is_named_and_nothing_else() {
        let before = Scoring {
            image_map: MapKind::Prob,
            pixel_map: MapKind::Prob,
            image_score: ImageScore::TopK(3),
            standardise_scales: true,
            image_weights: Some(vec![0.0, 1.0]),
            smoothing: None,
        };
        assert_eq!(ScoringChanges::default().apply(&before), before);
        let changes = ScoringChanges {
            map: Some(MapKind::Exp),
            pixel_map: Some(MapKind::Nll),
            top_k: Some(10),
            smoothing: Some(2.0),
            ..ScoringChanges::default()
        };
        let expected = Scoring {
            image_map: MapKind::Exp,
            pixel_map: MapKind::Nll,
            image_score: ImageScore::TopK(10),
            smoothing: Some(2.0),
            ..before.clone()
        };
        assert_eq!(changes.apply(&before), expected);
    }
}
