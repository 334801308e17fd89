//! Connected regions of a mask. Our own: imageproc 0.27 labels them too, but its union-find asserts in builds with debug
//! assertions on masks with more provisional labels than it made room for.

/// Pixel indices of each 8-connected region of a mask that is `width` pixels wide, row by row. Regions
/// come in the order of their first pixels; memory grows with the number of marked pixels.
pub fn regions(mask: &[bool], width: usize) -> Vec<Vec<usize>> {
    let mut left = mask.to_vec();
    let mut found = Vec::new();
    for start in 0..mask.len() {
        if !left[start] {
            continue;
        }
        left[start] = false;
        let mut region = vec![start];
        let mut next = 0;
        while let Some(&pixel) = region.get(next) {
            next += 1;
            for neighbour in neighbours(pixel, width, mask.len()) {
                if std::mem::take(&mut left[neighbour]) {
                    region.push(neighbour);
                }
            }
        }
        found.push(region);
    }
    found
}

/// The up to eight pixels around one, and itself.
fn neighbours(pixel: usize, width: usize, len: usize) -> impl Iterator<Item = usize> {
    let (x, y) = (pixel % width, pixel / width);
    let columns = x.saturating_sub(1)..=(x + 1).min(width - 1);
    let rows = y.saturating_sub(1)..=(y + 1).min(len / width - 1);
    rows.flat_map(move |row| columns.clone().map(move |column| row * width + column))
}
