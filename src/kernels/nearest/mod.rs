//! Exact Euclidean nearest neighbours in a bank of vectors, as PatchCore (Roth et al. 2021, equation 6) and SPADE
//! (Cohen and Hoshen 2020) ask for them.
//!
//! Never a matrix of all distances: a filter computes bounds of them and keeps the least of each small group of rows;
//! the few groups that may hold a neighbour are then measured by direct differences. The result is therefore that of
//! direct differences in f32, whatever the filter.

mod exact;
mod plain;
mod products;
#[cfg(test)]
mod tests;

use candle_core::Tensor;

use self::{exact::Search, products::Products};
use super::{shape::expect_f32, view::Host};
use crate::{Error, Result};

/// Vectors among which neighbours are sought.
#[derive(Debug)]
pub struct Memory {
    /// `[N, C]`
    rows: Tensor,
    kept: Kept,
}

#[derive(Debug)]
enum Kept {
    /// What the filter reads.
    Filter(Products),
    /// Squared norms `[N]`, for candle's operations on other devices.
    Norms(Tensor),
}

/// Squared norms above this might overflow in a distance.
const LARGEST: f64 = f32::MAX as f64 / 8.0;

impl Memory {
    /// A bank of `rows [N, C]`, f32, on the device that shall search.
    ///
    /// # Errors
    /// When it is empty, of another type, or a row is not finite.
    pub fn new(rows: &Tensor) -> Result<Self> {
        let (len, channels) = rows.dims2()?;
        expect_f32("memory", rows, &[len, channels])?;
        if len == 0 || channels == 0 || u32::try_from(len).is_err() {
            return Err(Error::Invalid(format!(
                "a memory of {len} rows of {channels} channels: give at least one of each, and fewer than 2^32 rows"
            )));
        }
        let rows = rows.contiguous()?;
        let norms = rows.sqr()?.sum(1)?;
        let large = |norm: &f32| f64::from(*norm) >= LARGEST || norm.is_nan();
        if let Some(row) = norms.to_vec1::<f32>()?.iter().position(large) {
            return Err(Error::Invalid(format!(
                "row {row} of the memory is not finite, or too large"
            )));
        }
        let kept = if rows.device().is_cpu() {
            Kept::Filter(Products::new(Host::open(&rows).values()?, channels))
        } else {
            Kept::Norms(norms)
        };
        Ok(Self { rows, kept })
    }

    /// Rows, N.
    #[allow(clippy::len_without_is_empty)] // it never is
    pub fn len(&self) -> usize {
        self.rows.dims()[0]
    }

    /// Channels of a row, C.
    pub fn channels(&self) -> usize {
        self.rows.dims()[1]
    }

    /// The rows `[N, C]`.
    pub fn rows(&self) -> &Tensor {
        &self.rows
    }

    /// The nearest row of each of `queries [Q, C]`, f32, on the memory's device: squared distances and rows, Q each.
    /// Of equally near ones it is the first. A query that is not finite is NaN away.
    ///
    /// # Errors
    /// When there is no query, or its shape or type does not fit.
    pub fn nearest(&self, queries: &Tensor) -> Result<(Vec<f32>, Vec<u32>)> {
        self.k_nearest(queries, 1)
    }

    /// As [`Memory::nearest`] the `k` nearest rows of each query, ascending: `[Q, k]` each, row by row.
    ///
    /// # Errors
    /// As there, and when `k` is 0 or more than the memory has.
    pub fn k_nearest(&self, queries: &Tensor, k: usize) -> Result<(Vec<f32>, Vec<u32>)> {
        let (count, channels) = queries.dims2()?;
        expect_f32("queries", queries, &[count, self.channels()])?;
        if count == 0 {
            return Err(Error::Invalid("no queries to find neighbours of".into()));
        }
        if k == 0 || k > self.len() {
            return Err(Error::Invalid(format!(
                "{k} neighbours of a memory of {} rows: ask for 1 to {0}",
                self.len()
            )));
        }
        let filter = match &self.kept {
            Kept::Filter(filter) => filter,
            Kept::Norms(norms) => return plain::k_nearest(&self.rows, norms, queries, k),
        };
        let queries = queries.contiguous()?;
        let (host_rows, host_queries) = (Host::open(&self.rows), Host::open(&queries));
        let search = Search {
            filter,
            rows: host_rows.values()?,
            channels,
            k,
        };
        Ok(search.run(host_queries.values()?))
    }
}
