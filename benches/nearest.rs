//! PatchCore's search and coreset on this machine, best of some rounds: `cargo bench --bench nearest`. The peers are
//! in nearest.py; run both in turns.

use std::time::Instant;

use candle_core::{Device, Tensor};
use candle_fastflow::kernels::{coreset::greedy_k_centre, nearest::Memory};

const QUERIES: usize = 1024;
const CHANNELS: usize = 384;

fn values(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let draw = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    std::iter::repeat_with(draw).take(count).collect()
}

fn main() {
    let threads = std::env::var("THREADS").ok().and_then(|t| t.parse().ok());
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.unwrap_or(2));
    pool.build_global().expect("the pool was not built yet");
    let tensor = |rows: usize, seed| {
        Tensor::from_vec(
            values(rows * CHANNELS, seed),
            (rows, CHANNELS),
            &Device::Cpu,
        )
        .expect("as many values as the shape says")
    };
    let queries = tensor(QUERIES, 1);
    for rows in [1000, 8000, 10_000, 100_000] {
        let memory = Memory::new(&tensor(rows, 2)).expect("a memory");
        let mut best = f64::INFINITY;
        for _ in 0..7 {
            let started = Instant::now();
            std::hint::black_box(memory.nearest(&queries).expect("a search"));
            best = best.min(started.elapsed().as_secs_f64());
        }
        println!(
            "nearest {QUERIES} x {rows} x {CHANNELS}: {:.1} ms",
            best * 1e3
        );
    }
    // Vectors that somebody exported (f32, row by row, 128 values each), or random ones.
    let rows: Vec<f32> = match std::env::var_os("VECTORS") {
        Some(file) => {
            let bytes = std::fs::read(file).expect("the file of VECTORS");
            bytes
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect()
        }
        None => values(65_536 * 128, 3),
    };
    let count = std::env::var("COUNT").ok().and_then(|c| c.parse().ok());
    let (len, count) = (rows.len() / 128, count.unwrap_or(2000));
    let rows = Tensor::from_vec(rows, (len, 128), &Device::Cpu).expect("whole vectors");
    let started = Instant::now();
    let chosen = greedy_k_centre(&rows, count, 0);
    std::hint::black_box(chosen.expect("a choice"));
    let seconds = started.elapsed().as_secs_f64();
    println!("coreset {count} of {len} x 128: {seconds:.2} s");
}
