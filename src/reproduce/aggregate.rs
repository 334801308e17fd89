//! Many results as one figure: mean over categories, spread over seeds.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use super::{
    cells::Cell,
    plan::Plan,
    result::{CellResult, Scored},
    run::finished,
};

/// A figure of ours.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Measured {
    /// Mean over the seeds of the mean over the categories.
    pub mean: f64,
    /// Sample standard deviation over the seeds; none of a single one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub std: Option<f64>,
    /// Seeds behind it.
    pub seeds: usize,
    /// Categories behind it.
    pub categories: usize,
    /// Categories that there should be: the plan's, or the published ones where those are more.
    pub of: usize,
}

/// One detector scored one way.
pub(super) struct Sample<'a> {
    pub cell: &'a Cell,
    /// What the variant changes in the plan's settings.
    pub changes: &'a [String],
    pub variant: &'a str,
    pub result: &'a CellResult,
    pub scored: &'a Scored,
}

/// The results that are there, with their cells.
pub(super) fn results(plan: &Plan, out: &Path) -> Vec<(Cell, CellResult)> {
    let cells = plan.cells().into_iter();
    cells
        .filter_map(|cell| finished(plan, out, &cell).map(|result| (cell, result)))
        .collect()
}

/// Each result in each of its ways of scoring.
pub(super) fn samples<'a>(plan: &'a Plan, results: &'a [(Cell, CellResult)]) -> Vec<Sample<'a>> {
    let ways = |(cell, result): &'a (Cell, CellResult)| {
        let way = move |(name, scored): (&String, &'a Scored)| {
            let variant = plan.variant(name)?;
            Some(Sample {
                cell,
                changes: &variant.changes,
                variant: &variant.name,
                result,
                scored,
            })
        };
        result.scores.iter().filter_map(way)
    };
    results.iter().flat_map(ways).collect()
}

impl Sample<'_> {
    /// Whether nothing but these settings differs from the plan's.
    pub fn changes_only(&self, names: &[&str]) -> bool {
        self.changes
            .iter()
            .all(|name| names.contains(&name.as_str()))
    }

    /// A metric in percent.
    pub fn percent(&self, metric: &str) -> Option<f64> {
        self.scored.metrics.get(metric).map(|value| 100.0 * value)
    }
}

/// The figure of samples of one kind; `of` categories there should be. Only seeds with the same categories
/// count, for a mean over other categories is another figure.
pub(super) fn measured<'a>(
    samples: impl Iterator<Item = &'a Sample<'a>>,
    value: impl Fn(&Sample) -> Option<f64>,
    of: usize,
) -> Option<Measured> {
    let mut seeds: BTreeMap<u64, BTreeMap<&str, f64>> = BTreeMap::new();
    for sample in samples {
        if let Some(value) = value(sample) {
            let seed = seeds.entry(sample.cell.seed).or_default();
            seed.insert(&sample.cell.category, value);
        }
    }
    // The first of the seeds with most categories says which ones count.
    let most = seeds.values().map(BTreeMap::len).max()?;
    let widest = seeds.values().find(|seed| seed.len() == most)?;
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let complete = seeds.values().filter(|seed| seed.keys().eq(widest.keys()));
    let each: Vec<f64> = complete
        .map(|seed| mean(&seed.values().copied().collect::<Vec<_>>()))
        .collect();
    let centre = mean(&each);
    let squares: f64 = each.iter().map(|v| (v - centre).powi(2)).sum();
    Some(Measured {
        mean: centre,
        std: (each.len() > 1).then(|| (squares / (each.len() - 1) as f64).sqrt()),
        seeds: each.len(),
        categories: most,
        of,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn seeds_of_other_categories_do_not_mix() {
        let scored = Scored {
            settings: Default::default(),
            metrics: BTreeMap::new(),
        };
        let result = crate::reproduce::result::tests::result();
        let cell = |category: &str, seed| Cell {
            category: category.into(),
            backbone: "wavelet".into(),
            variant: "base".into(),
            seed,
        };
        let cells = [
            cell("a", 0),
            cell("b", 0),
            cell("a", 1),
            cell("b", 1),
            cell("a", 2),
        ];
        let samples: Vec<Sample> = cells
            .iter()
            .map(|cell| Sample {
                cell,
                changes: &[],
                variant: "base",
                result: &result,
                scored: &scored,
            })
            .collect();
        let value = |sample: &Sample| {
            let category = f64::from(u8::from(sample.cell.category == "b"));
            Some(sample.cell.seed as f64 + category)
        };
        let found = measured(samples.iter(), value, 3).unwrap();
        // Seed 0: mean of 0 and 1; seed 1: of 1 and 2; seed 2 lacks b.
        assert_eq!((found.mean, found.seeds), (1.0, 2));
        assert!((found.std.unwrap() - 0.5f64.sqrt()).abs() < 1e-12);
        assert_eq!((found.categories, found.of), (2, 3));
        let one = measured(samples[4..].iter(), value, 3).unwrap();
        assert_eq!((one.mean, one.std), (2.0, None));
        assert!(measured(samples.iter(), |_| None, 3).is_none());
    }
}
