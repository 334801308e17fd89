//! Nearest neighbours (to be replaced by the fused kernel).
use crate::{Error, Result};
use candle_core::{Device, Tensor};
use rayon::prelude::*;
/// Rows to search.
#[derive(Debug)]
pub struct Memory {
    rows: Tensor,
    norms: Vec<f32>,
    len: usize,
}
impl Memory {
    /// Of `rows [N, C]`.
    pub fn new(rows: &Tensor) -> Result<Self> {
        let norms = rows.to_device(&Device::Cpu)?.sqr()?.sum(1)?.to_vec1()?;
        Ok(Self {
            rows: rows.clone(),
            norms,
            len: rows.dim(0)?,
        })
    }
    /// Rows.
    pub fn len(&self) -> usize {
        self.len
    }
    /// None.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// The rows.
    pub fn rows(&self) -> &Tensor {
        &self.rows
    }
    /// Nearest.
    pub fn nearest(&self, queries: &Tensor) -> Result<(Vec<f32>, Vec<u32>)> {
        self.k_nearest(queries, 1)
    }
    /// k nearest.
    pub fn k_nearest(&self, queries: &Tensor, k: usize) -> Result<(Vec<f32>, Vec<u32>)> {
        if k > self.len {
            return Err(Error::Invalid("k".into()));
        }
        let q = queries.dim(0)?;
        let rows_t = self.rows.t()?;
        let parts: Vec<Result<(Vec<f32>, Vec<u32>)>> = (0..q.div_ceil(128))
            .into_par_iter()
            .map(|part| {
                let from = part * 128;
                let n = 128.min(q - from);
                let queries = queries.narrow(0, from, n)?;
                let qn: Vec<f32> = queries.sqr()?.sum(1)?.to_vec1()?;
                let product: Vec<Vec<f32>> = queries.matmul(&rows_t)?.to_vec2()?;
                let (mut d, mut at) = (Vec::new(), Vec::new());
                for (row, qn) in product.iter().zip(qn) {
                    let mut all: Vec<(f32, u32)> = row
                        .iter()
                        .zip(&self.norms)
                        .enumerate()
                        .map(|(i, (p, m))| ((qn + m - 2.0 * p).max(0.0), i as u32))
                        .collect();
                    if k == 1 {
                        let best = all
                            .iter()
                            .copied()
                            .min_by(|a, b| a.0.total_cmp(&b.0))
                            .unwrap_or((f32::NAN, 0));
                        d.push(best.0);
                        at.push(best.1);
                        continue;
                    }
                    all.sort_by(|a, b| a.0.total_cmp(&b.0));
                    for &(a, b) in &all[..k] {
                        d.push(a);
                        at.push(b);
                    }
                }
                Ok((d, at))
            })
            .collect();
        let (mut d, mut at) = (Vec::new(), Vec::new());
        for part in parts {
            let (a, b) = part?;
            d.extend(a);
            at.extend(b);
        }
        Ok((d, at))
    }
}
