//! Photos of "good" products that score far above all others: a threshold that lets them pass lets everything pass.

use crate::detector::Outlier;

/// Fewer scores than this have no quartiles worth the name.
const FEWEST: usize = 12;
/// At most one in so many scores can be an outlier; more of them are another kind of good photo.
const ONE_IN: usize = 20;
/// Spreads between the quartiles above the third one (Tukey 1977, "far out").
const FAR_OUT: f32 = 3.0;

/// Which of the scores are far out, highest first; none where there are too many of them.
pub(super) fn far_out(scores: &[f32]) -> Vec<usize> {
    if scores.len() < FEWEST {
        return Vec::new();
    }
    let mut sorted = scores.to_vec();
    sorted.sort_unstable_by(f32::total_cmp);
    let quartile = |quarter: usize| sorted[quarter * (sorted.len() - 1) / 4];
    let fence = quartile(3) + FAR_OUT * (quartile(3) - quartile(1));
    let mut found: Vec<usize> = (0..scores.len()).filter(|&i| scores[i] > fence).collect();
    found.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    match found.len() <= scores.len().div_ceil(ONE_IN) {
        true => found,
        false => Vec::new(),
    }
}

/// The line that tells of them.
pub(super) fn note(outliers: &[Outlier], photos: usize) -> Option<String> {
    const NAMED: usize = 5;
    let first = outliers.first()?;
    let named: Vec<&str> = outliers
        .iter()
        .take(NAMED)
        .map(|o| o.image.as_str())
        .collect();
    let more = match outliers.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Some(format!(
        "warning: {} of {photos} photos of good products scores far above the others (up to {:.4}) and is left out of the \
         threshold; is it good? {}{more}",
        outliers.len(),
        first.score,
        named.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::far_out;

    #[test]
    fn one_photo_far_above_the_others_is_found_and_a_long_tail_is_not() {
        let mut scores: Vec<f32> = (0..30).map(|i| 1.0 + 0.02 * i as f32).collect();
        assert!(far_out(&scores).is_empty());
        scores.insert(7, 3.0);
        assert_eq!(far_out(&scores), [7]);
        scores[0] = 4.0;
        assert_eq!(far_out(&scores), [0, 7]);
        // Three of 31 are a kind of their own.
        scores[1] = 3.5;
        assert!(far_out(&scores).is_empty());
        // Of a few scores nothing can be said.
        assert!(far_out(&[1.0, 1.1, 1.2, 9.0]).is_empty());
        // Nor where all are alike and one differs by a rounding: it is above the fence, and alone.
        let mut alike = vec![1.0; 20];
        alike[3] = 1.5;
        assert_eq!(far_out(&alike), [3]);
    }
}
