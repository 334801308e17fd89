//! Photos that all score above the threshold although they are of one kind: the photos have changed, not the products.

/// Fewer photos than this say nothing.
const FEWEST: usize = 10;
/// Share of the scores' variance that lies between the two groups of the best division into two: .64 of a normal
/// distribution, .75 of an even one, near 1 of two groups apart.
const APART: f64 = 0.82;

/// Whether most of the scores are above the threshold and form one group.
pub fn looks_drifted(scores: &[f32], threshold: f32) -> bool {
    let above = scores.iter().filter(|score| **score > threshold).count();
    scores.len() >= FEWEST && 2 * above > scores.len() && separability(scores) < APART
}

/// Largest share of the variance between two groups (Otsu's criterion), 0 where there is no variance.
fn separability(scores: &[f32]) -> f64 {
    let mut sorted: Vec<f64> = scores.iter().map(|&score| f64::from(score)).collect();
    sorted.sort_unstable_by(f64::total_cmp);
    let count = sorted.len() as f64;
    let mean = sorted.iter().sum::<f64>() / count;
    let variance = sorted
        .iter()
        .map(|score| (score - mean).powi(2))
        .sum::<f64>()
        / count;
    if variance == 0.0 {
        return 0.0;
    }
    let mut below = 0.0;
    let between = sorted.iter().enumerate().map(|(index, score)| {
        below += score - mean;
        let share = (index + 1) as f64 / count;
        match share < 1.0 {
            true => (below / count).powi(2) / (share * (1.0 - share)),
            false => 0.0,
        }
    });
    between.fold(0.0, f64::max) / variance
}

#[cfg(test)]
mod tests {
    use super::looks_drifted;

    #[test]
    fn one_group_above_the_threshold_is_drift_and_good_and_bad_are_not() {
        let even: Vec<f32> = (0..18).map(|i| 1.5 + 0.01 * i as f32).collect();
        assert!(looks_drifted(&even, 1.4));
        // The same photos below it are as they should be, and a few photos tell nothing.
        assert!(!looks_drifted(&even, 2.0) && !looks_drifted(&even[..5], 1.4));
        // Good ones and two thirds defects.
        let two: Vec<f32> = (0..30)
            .map(|i| if i % 3 == 0 { 1.0 } else { 3.0 } + 0.01 * i as f32)
            .collect();
        assert!(!looks_drifted(&two, 1.6));
    }
}
