//! What a plan makes: one cell for each detector to train.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::plan::{BASE, Plan};
use crate::Error;

/// The folder of the figures, in the folder of a plan's results.
pub const RESULTS: &str = "results";

/// One detector to train and measure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// The category's folder.
    pub category: String,
    /// Full id.
    pub backbone: String,
    /// The plan's variant.
    pub variant: String,
    /// The seed.
    pub seed: u64,
}

/// A share of the cells: every `of`-th, beginning with the `index`-th (from 0).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// From 0.
    pub index: usize,
    /// Into how many shares the cells are divided.
    pub of: usize,
}

impl Share {
    /// All cells.
    pub const ALL: Self = Self { index: 0, of: 1 };
}

impl FromStr for Share {
    type Err = Error;

    /// Reads `I/N`.
    fn from_str(text: &str) -> Result<Self, Error> {
        let parts = text.split_once('/');
        let share = parts.and_then(|(index, of)| {
            Some(Self {
                index: index.parse().ok()?,
                of: of.parse().ok()?,
            })
        });
        share.filter(|share| share.index < share.of).ok_or_else(|| {
            Error::Invalid(format!(
                "`{text}` is no share of cells; give I/N with I from 0 to N - 1, for example 0/4"
            ))
        })
    }
}

impl Plan {
    /// The cells, a seed after the other, the base before the variants: what matters most is there first.
    pub fn cells(&self) -> Vec<Cell> {
        let mut cells = Vec::new();
        for &seed in &self.seeds {
            for variant in self.variants.iter().filter(|v| !v.scoring_only) {
                for backbone in &variant.backbones {
                    cells.extend(self.categories.iter().map(|category| Cell {
                        category: category.clone(),
                        backbone: backbone.clone(),
                        variant: variant.name.clone(),
                        seed,
                    }));
                }
            }
        }
        cells
    }

    /// The variants that a cell's detector is measured as: its own, and those of the base that only score.
    pub(super) fn scorings(&self, cell: &Cell) -> Vec<&super::plan::Variant> {
        let own = |name: &str| name == cell.variant;
        let rescored = |v: &super::plan::Variant| {
            v.scoring_only && cell.variant == BASE && v.backbones.contains(&cell.backbone)
        };
        let variants = self.variants.iter();
        variants.filter(|v| own(&v.name) || rescored(v)).collect()
    }
}

impl Cell {
    /// In a folder of a plan's outputs: the detector. All of one variant and seed are below one folder, each
    /// with a repository name of its own, which is what hub-upload.sh takes.
    pub fn detector(&self, out: &Path) -> PathBuf {
        out.join(format!("{}-seed{}", self.variant, self.seed))
            .join(&self.backbone)
            .join(&self.category)
    }

    /// In a folder of a plan's outputs: the result.
    pub fn result(&self, out: &Path) -> PathBuf {
        let Self {
            category,
            variant,
            seed,
            ..
        } = self;
        let name = format!("{category}.{}.{variant}.seed{seed}.json", self.backbone);
        out.join(RESULTS).join(name)
    }
}

impl std::fmt::Display for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            category,
            backbone,
            variant,
            seed,
        } = self;
        write!(f, "{category}, {backbone}, {variant}, seed {seed}")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::Share;

    #[test]
    fn a_share_is_read_as_i_of_n() {
        let share: Share = "2/5".parse().unwrap();
        assert_eq!(share, Share { index: 2, of: 5 });
        for bad in ["5/5", "1", "-1/2", "a/b", "0/0", "1/2/3"] {
            assert!(bad.parse::<Share>().is_err(), "{bad}");
        }
    }
}
