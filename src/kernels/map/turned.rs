//! Maps turned by quarters.

use candle_core::Tensor;

use crate::Result;

/// `[.., h, w]` turned clockwise by this many quarters: `[.., w, h]` for an odd number.
///
/// # Errors
/// For fewer than two dimensions.
pub fn quarter_turned(map: &Tensor, quarters: usize) -> Result<Tensor> {
    let (rows, columns) = (map.rank().saturating_sub(2), map.rank().saturating_sub(1));
    let flipped = |map: &Tensor, dim: usize| -> Result<Tensor> {
        let size = map.dim(dim)? as u32;
        let order = Tensor::from_iter((0..size).rev(), map.device())?;
        Ok(map.contiguous()?.index_select(&order, dim)?)
    };
    match quarters % 4 {
        0 => Ok(map.clone()),
        1 => flipped(&map.transpose(rows, columns)?, columns),
        2 => flipped(&flipped(map, rows)?, columns),
        _ => flipped(&map.transpose(rows, columns)?, rows),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use candle_core::Device;

    use super::*;

    #[test]
    fn a_turn_is_clockwise_and_four_are_none() {
        let map = Tensor::new(&[[[1f32, 2.0, 3.0], [4.0, 5.0, 6.0]]], &Device::Cpu).unwrap();
        let rows = |map: &Tensor| map.to_vec3::<f32>().unwrap();
        let once = quarter_turned(&map, 1).unwrap();
        assert_eq!(rows(&once), [[[4.0, 1.0], [5.0, 2.0], [6.0, 3.0]]]);
        for quarters in 0..4 {
            let there = quarter_turned(&map, quarters).unwrap();
            let mut step = map.clone();
            for _ in 0..quarters {
                step = quarter_turned(&step, 1).unwrap();
            }
            assert_eq!(rows(&there), rows(&step));
            let back = quarter_turned(&there, 4 - quarters).unwrap();
            assert_eq!(rows(&back), rows(&map));
        }
    }
}
