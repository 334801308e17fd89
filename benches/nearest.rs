//! Nearest neighbours in memory banks. `benches/nearest.py` runs this beside faiss and PyTorch.
//!
//!     cargo bench --bench nearest -- ROWS.bin QUERIES.bin CHANNELS SECONDS
//!
//! The files hold f32, row by row. Prints the least time in ms of finding the neighbours of all queries, of the first
//! one, and of making the bank. Without files: random numbers.

use std::time::Instant;

use candle_core::{Device, Tensor};
use candle_fastflow::kernels::nearest::Memory;

fn floats(path: &str) -> Vec<f32> {
    let bytes = std::fs::read(path).expect("a file of f32");
    let four = |bytes: &[u8]| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    bytes.chunks_exact(4).map(four).collect()
}

/// The least of many times of a call in ms (other programs only ever add time).
fn least(seconds: f64, mut call: impl FnMut()) -> f64 {
    let (begin, mut least) = (Instant::now(), f64::INFINITY);
    while begin.elapsed().as_secs_f64() < seconds {
        let start = Instant::now();
        call();
        least = least.min(start.elapsed().as_secs_f64() * 1e3);
    }
    least
}

fn measure(rows: &Tensor, queries: &Tensor, seconds: f64) {
    let mut memory = None;
    let make = least(0.0001, || {
        memory = Some(Memory::new(rows).expect("a bank"));
    });
    let memory = memory.expect("made once");
    let one = queries.narrow(0, 0, 1).expect("a query");
    let all = least(seconds, || {
        memory.nearest(queries).expect("neighbours");
    });
    let one = least(seconds / 4.0, || {
        memory.nearest(&one).expect("a neighbour");
    });
    println!(
        "{} rows, {} queries: all {all:.3} ms, one {one:.3} ms, bank {make:.1} ms",
        memory.len(),
        queries.dims()[0]
    );
}

fn main() {
    let arguments: Vec<String> = std::env::args().filter(|a| a != "--bench").collect();
    if let [_, rows, queries, channels, seconds] = &arguments[..] {
        let channels: usize = channels.parse().expect("channels");
        let read = |path: &str| {
            let values = floats(path);
            let shape = (values.len() / channels, channels);
            Tensor::from_vec(values, shape, &Device::Cpu).expect("whole rows")
        };
        let seconds = seconds.parse().expect("seconds");
        measure(&read(rows), &read(queries), seconds);
        return;
    }
    for len in [1_000, 8_000, 100_000] {
        let random = |len: usize| Tensor::rand(0f32, 1f32, (len, 384), &Device::Cpu);
        let (rows, queries) = (random(len), random(1024));
        measure(&rows.expect("rows"), &queries.expect("queries"), 1.0);
    }
}
