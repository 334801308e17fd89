//! Where a position lies, as numbers that a network can tell apart.

/// The 2-D sinusoidal encoding of every position of a map: `[height * width, length]`, row by row. The first half of a
/// position's numbers are sines and cosines of its column at falling frequencies (1 to about 1e-4), in turns; the second
/// half those of its row. `length` must be a multiple of 4.
pub fn encoding(length: usize, height: usize, width: usize) -> Vec<f32> {
    let columns: Vec<Vec<f32>> = (0..width).map(|x| waves(length / 2, x)).collect();
    let rows: Vec<Vec<f32>> = (0..height).map(|y| waves(length / 2, y)).collect();
    let mut all = Vec::with_capacity(height * width * length);
    for row in &rows {
        for column in &columns {
            all.extend_from_slice(column);
            all.extend_from_slice(row);
        }
    }
    all
}

/// Sine and cosine of `at` at `length / 2` frequencies, in turns.
fn waves(length: usize, at: usize) -> Vec<f32> {
    let frequency = |i: usize| (-(1e4f64.ln()) * (2 * i) as f64 / length as f64).exp();
    let pair = |i: usize| {
        let (sine, cosine) = (at as f64 * frequency(i)).sin_cos();
        [sine as f32, cosine as f32]
    };
    (0..length / 2).flat_map(pair).collect()
}
