//! The order of defective and normal scores, and the metrics that follow from it.

use crate::{Error, Result};

/// Normal counts around the distinct scores of the defective, which is all that any metric here needs:
/// between two of them neither recall nor overlap changes.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranking {
    groups: Vec<Group>,
    /// Normals at `2 i`: between groups `i - 1` and `i`; at `2 i + 1`: equal to group `i`.
    normals: Vec<u64>,
    defective: u64,
    normal: u64,
}

/// The defective of one score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Group {
    pub score: f64,
    pub count: u32,
    /// Sum of 1 / area of their regions.
    pub overlap: f64,
}

/// The best balance of precision and recall.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct F1 {
    /// `2 TP / (2 TP + FP + FN)`.
    pub value: f64,
    /// The score from which on (inclusive) everything is called defective; the highest such.
    pub threshold: f64,
}

/// What is called defective from one threshold on.
#[derive(Debug, Clone, Copy, Default)]
struct Point {
    threshold: f64,
    true_positives: u64,
    false_positives: u64,
    /// False positives that score exactly the threshold.
    tied: u64,
    /// Sum over regions of their share that is found.
    overlap: f64,
}

impl Ranking {
    /// Ranks single scores, of images for example.
    ///
    /// # Errors
    /// [`Error::Metric`] when the lengths differ, a score is NaN, or all are of one class.
    pub fn new(scores: &[f64], defective: &[bool]) -> Result<Self> {
        const METRIC: &str = "image metrics";
        if scores.len() != defective.len() {
            let reason = format!("{} scores but {} labels", scores.len(), defective.len());
            return Err(Error::Metric {
                metric: METRIC,
                reason,
            });
        }
        if let Some(at) = scores.iter().position(|s| s.is_nan()) {
            let reason = format!("score {at} of {} is not a number", scores.len());
            return Err(Error::Metric {
                metric: METRIC,
                reason,
            });
        }
        let labelled = || scores.iter().zip(defective);
        let groups = group(
            labelled()
                .filter(|(_, d)| **d)
                .map(|(s, _)| (*s, 1.0))
                .collect(),
        );
        let mut normals = vec![0; 2 * groups.len() + 1];
        for (score, _) in labelled().filter(|(_, d)| !**d) {
            normals[slot(&groups, *score)] += 1;
        }
        Self::from_counts(METRIC, groups, normals)
    }

    pub(super) fn from_counts(
        metric: &'static str,
        groups: Vec<Group>,
        normals: Vec<u64>,
    ) -> Result<Self> {
        let ranking = Self {
            defective: groups.iter().map(|g| u64::from(g.count)).sum(),
            normal: normals.iter().sum(),
            groups,
            normals,
        };
        let one_class = |class: &str| {
            let reason = format!("nothing is {class}, and a metric needs both classes");
            Err(Error::Metric { metric, reason })
        };
        match (ranking.defective, ranking.normal) {
            (0, _) => one_class("defective"),
            (_, 0) => one_class("normal"),
            _ => Ok(ranking),
        }
    }

    /// Number of defective scores.
    pub fn defective(&self) -> u64 {
        self.defective
    }

    /// Number of normal scores.
    pub fn normal(&self) -> u64 {
        self.normal
    }

    /// Area under the ROC curve: the probability that a defective score is above a normal one, ties
    /// counting half.
    pub fn auroc(&self) -> f64 {
        // In integers, so that the order of summation cannot matter.
        let twice: u128 = self
            .points()
            .scan(0, |found, point| {
                let count = point.true_positives - *found;
                *found = point.true_positives;
                let below = self.normal - point.false_positives;
                Some(u128::from(count) * u128::from(2 * below + point.tied))
            })
            .sum();
        twice as f64 / 2.0 / self.defective as f64 / self.normal as f64
    }

    /// Average precision: precision at each threshold, weighted by the recall gained there.
    pub fn average_precision(&self) -> f64 {
        let mut found = 0;
        let mut sum = 0.0;
        for point in self.points() {
            let gained = (point.true_positives - found) as f64;
            sum += gained * point.true_positives as f64
                / (point.true_positives + point.false_positives) as f64;
            found = point.true_positives;
        }
        sum / self.defective as f64
    }

    /// The largest F1 over all thresholds.
    pub fn f1_max(&self) -> F1 {
        let mut best = F1 {
            value: -1.0,
            threshold: f64::INFINITY,
        };
        for point in self.points() {
            let called = point.true_positives + point.false_positives;
            let value = 2.0 * point.true_positives as f64 / (called + self.defective) as f64;
            if value > best.value {
                best = F1 {
                    value,
                    threshold: point.threshold,
                };
            }
        }
        best
    }

    /// The largest share of the defective found while at most a share `rate` of the normal is called
    /// defective.
    pub fn recall_at_fpr(&self, rate: f64) -> f64 {
        let allowed = rate * self.normal as f64;
        let within = self
            .points()
            .take_while(|p| p.false_positives as f64 <= allowed);
        within
            .last()
            .map_or(0.0, |p| p.true_positives as f64 / self.defective as f64)
    }

    /// Area under the per-region-overlap curve up to a false-positive rate `limit`, divided by
    /// `limit` (Bergmann et al., MVTec AD): each connected region counts the same, whatever its area.
    pub fn aupro(&self, limit: f64) -> f64 {
        let regions: f64 = self.groups.iter().map(|g| g.overlap).sum();
        let end = limit * self.normal as f64;
        let (mut area, mut overlap) = (0.0, 0.0);
        let mut add = |from: f64, to: f64, low: f64, high: f64| {
            if from < end && from < to {
                let part = (end.min(to) - from) / (to - from);
                area += (end.min(to) - from) * (low + part * (high - low) / 2.0);
            }
        };
        let mut passed = 0.0;
        for point in self.points() {
            let (tied, all) = (
                (point.false_positives - point.tied) as f64,
                point.false_positives as f64,
            );
            add(passed, tied, overlap, overlap);
            add(tied, all, overlap, point.overlap);
            (passed, overlap) = (all, point.overlap);
        }
        add(passed, self.normal as f64, overlap, overlap);
        area / end / regions
    }

    /// Corners of the ROC curve from (0, 0) to (1, 1), as false-positive rate and recall. Runs of
    /// corners closer than 1 / `steps` are thinned, for plots.
    pub fn roc(&self, steps: usize) -> Vec<[f64; 2]> {
        let defective = self.defective as f64;
        self.curve(steps, |p| p.true_positives as f64 / defective)
    }

    /// Corners of the curve that [`Ranking::aupro`] integrates, over the whole range of rates.
    pub fn pro(&self, steps: usize) -> Vec<[f64; 2]> {
        let regions: f64 = self.groups.iter().map(|g| g.overlap).sum();
        self.curve(steps, |p| p.overlap / regions)
    }

    fn curve(&self, steps: usize, height: impl Fn(&Point) -> f64) -> Vec<[f64; 2]> {
        let rate = |count: u64| count as f64 / self.normal as f64;
        let mut corners = vec![[0.0, 0.0]];
        let mut last = 0.0;
        for point in self.points() {
            // Before a step up the curve runs level.
            corners.push([rate(point.false_positives - point.tied), last]);
            last = height(&point);
            corners.push([rate(point.false_positives), last]);
        }
        corners.push([1.0, 1.0]);
        thin(corners, 1.0 / steps.max(1) as f64)
    }

    /// From the highest threshold to the lowest, at each distinct score of the defective.
    fn points(&self) -> impl Iterator<Item = Point> + '_ {
        let downwards = self.groups.iter().enumerate().rev();
        downwards.scan(Point::default(), |point, (i, group)| {
            point.threshold = group.score;
            point.true_positives += u64::from(group.count);
            point.tied = self.normals[2 * i + 1];
            point.false_positives += self.normals[2 * i + 2] + point.tied;
            point.overlap += group.overlap;
            Some(*point)
        })
    }
}

/// Keeps the corners that are at least `step` away from the last one kept, and the ends.
fn thin(corners: Vec<[f64; 2]>, step: f64) -> Vec<[f64; 2]> {
    let mut kept: Vec<[f64; 2]> = Vec::new();
    let end = corners.len() - 1;
    for (i, corner) in corners.into_iter().enumerate() {
        let far = |last: &[f64; 2]| (corner[0] - last[0]).max(corner[1] - last[1]) >= step;
        if i == end || kept.last().is_none_or(far) {
            kept.push(corner);
        }
    }
    kept
}

/// Groups scores (with 1 / area of each one's region) by value, lowest first.
pub(super) fn group(mut scores: Vec<(f64, f64)>) -> Vec<Group> {
    // Stable, so that equal scores' overlaps are added in the order of the images on every run.
    scores.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut groups: Vec<Group> = Vec::new();
    for (score, overlap) in scores {
        match groups.last_mut() {
            Some(last) if last.score == score => {
                last.count += 1;
                last.overlap += overlap;
            }
            _ => groups.push(Group {
                score,
                count: 1,
                overlap,
            }),
        }
    }
    groups
}

/// Where a normal score belongs in [`Ranking::normals`].
fn slot(groups: &[Group], score: f64) -> usize {
    let at = groups.partition_point(|g| g.score < score);
    match groups.get(at) {
        Some(group) if group.score == score => 2 * at + 1,
        _ => 2 * at,
    }
}
