//! Greedy k-centre selection. `benches/coreset.py` runs this beside anomalib's loop.
//!
//!     cargo bench --bench coreset -- ROWS.bin DIMENSIONS COUNT
//!
//! The file holds f32, row by row. Prints the seconds. Without a file: a few clusters.

use std::time::Instant;

use candle_core::{Device, Tensor};
use candle_fastflow::kernels::coreset::greedy_k_centre;

fn floats(path: &str) -> Vec<f32> {
    let bytes = std::fs::read(path).expect("a file of f32");
    let four = |bytes: &[u8]| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    bytes.chunks_exact(4).map(four).collect()
}

fn measure(values: Vec<f32>, dims: usize, count: usize) {
    let len = values.len() / dims;
    let rows = Tensor::from_vec(values, (len, dims), &Device::Cpu).expect("whole rows");
    let start = Instant::now();
    let found = greedy_k_centre(&rows, count, 0).expect("enough rows");
    let seconds = start.elapsed().as_secs_f64();
    let sum: u64 = found.iter().map(|row| u64::from(*row)).sum();
    println!("{count} of {len} x {dims}: {seconds:.3} s, sum of rows {sum}");
}

fn main() {
    let arguments: Vec<String> = std::env::args().filter(|a| a != "--bench").collect();
    if let [_, rows, dims, count] = &arguments[..] {
        let number = |text: &str| text.parse().expect("a number");
        measure(floats(rows), number(dims), number(count));
        return;
    }
    let value = |i: usize| {
        let (row, dim) = (i / 128, i % 128);
        let place = ((row % 301 * 31 + dim * 7) as f32 * 0.61).sin() * 8.0 / (1.0 + dim as f32);
        place + 0.1 * ((row * (dim + 3) % 100_003) as f32 * 0.37).sin()
    };
    measure((0..50_000 * 128).map(value).collect(), 128, 1000);
}
