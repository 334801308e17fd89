//! A covariance from few samples: shrunk towards a multiple of the identity (Ledoit and Wolf 2004).

use rayon::prelude::*;

/// Mean and shrunk covariance `[D, D]` of samples of D values each, as scikit-learn's `LedoitWolf` finds them.
pub(super) fn ledoit_wolf(samples: &[Vec<f64>]) -> (Vec<f64>, Vec<f64>) {
    let (count, size) = (samples.len() as f64, samples.first().map_or(0, Vec::len));
    let mean: Vec<f64> = (0..size)
        .map(|i| samples.iter().map(|sample| sample[i]).sum::<f64>() / count)
        .collect();
    let centred: Vec<Vec<f64>> = samples
        .iter()
        .map(|sample| sample.iter().zip(&mean).map(|(x, m)| x - m).collect())
        .collect();
    // Of each pair of values the sum of products and of squared products.
    let rows: Vec<(Vec<f64>, f64)> = (0..size)
        .into_par_iter()
        .map(|row| {
            let (mut covariance, mut squares) = (vec![0.0; size], 0.0);
            for sample in &centred {
                let own = sample[row];
                for (sum, other) in covariance.iter_mut().zip(sample) {
                    *sum += own * other;
                    squares += (own * other).powi(2);
                }
            }
            covariance.iter_mut().for_each(|sum| *sum /= count);
            (covariance, squares / count)
        })
        .collect();
    let trace: f64 = rows.iter().enumerate().map(|(i, (row, _))| row[i]).sum();
    let target = trace / size.max(1) as f64;
    let squared = |(row, _): &(Vec<f64>, f64)| row.iter().map(|v| v * v).sum::<f64>();
    let norm: f64 = rows.iter().map(squared).sum();
    let fourth: f64 = rows.iter().map(|(_, squares)| squares).sum();
    // beta and delta of the paper's lemma 3.2 to 3.4, both over D.
    let delta = (norm - 2.0 * target * trace + size as f64 * target * target) / size as f64;
    let beta = ((fourth - norm) / count / size as f64).min(delta);
    let shrinkage = if beta == 0.0 { 0.0 } else { beta / delta };
    let mut covariance = Vec::with_capacity(size * size);
    for (i, (row, _)) in rows.into_iter().enumerate() {
        let kept = row.into_iter().enumerate().map(|(j, value)| {
            let pulled = (1.0 - shrinkage) * value;
            if i == j {
                pulled + shrinkage * target
            } else {
                pulled
            }
        });
        covariance.extend(kept);
    }
    (mean, covariance)
}

#[cfg(test)]
mod tests {
    use super::ledoit_wolf;

    /// `LedoitWolf().fit(x).covariance_` of scikit-learn 1.9.1, x[i][j] = sin(7 i + 3 j) + 0.1 i j for 5 samples of 3 values.
    #[test]
    fn the_covariance_is_scikit_learns() {
        let value =
            |i: usize, j: usize| (7.0 * i as f64 + 3.0 * j as f64).sin() + 0.1 * (i * j) as f64;
        let samples: Vec<Vec<f64>> = (0..5)
            .map(|i| (0..3).map(|j| value(i, j)).collect())
            .collect();
        let (mean, covariance) = ledoit_wolf(&samples);
        for (found, expected) in mean
            .iter()
            .zip(MEAN)
            .chain(covariance.iter().zip(COVARIANCE))
        {
            assert!((found - expected).abs() < 1e-9, "{found} {expected}");
        }
    }

    const MEAN: [f64; 3] = [0.5510310762515169, -0.3347829204077496, 0.9078310807759739];
    const COVARIANCE: [f64; 9] = [
        0.1860751800600749,
        -0.06097299320089139,
        0.08393029923075611,
        -0.06097299320089139,
        0.17979749477983487,
        -0.07172946578241449,
        0.08393029923075611,
        -0.07172946578241449,
        0.33928047308480613,
    ];
}
