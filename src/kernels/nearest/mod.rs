//! Exact Euclidean nearest neighbours in a bank of vectors, as PatchCore (Roth et al. 2021, equation 6) and SPADE
//! (Cohen and Hoshen 2020) ask for them.
//!
//! Never a matrix of all distances: a filter computes bounds of them and keeps the least of each small group of rows;
//! the few groups that may hold a neighbour are then measured by direct differences. The result is therefore that of
//! direct differences in f32, whatever the filter.

#[cfg(target_arch = "x86_64")]
mod bytes;
mod exact;
mod filter;
mod plain;
mod products;
#[cfg(test)]
mod tests;

use candle_core::Tensor;

#[cfg(target_arch = "x86_64")]
use self::bytes::Bytes;
use self::{exact::Search, filter::Filter, products::Products};
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
    /// The filter in bytes.
    #[cfg(target_arch = "x86_64")]
    Bytes(Bytes),
    /// The filter in f32.
    Products(Products),
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
            filter(Host::open(&rows).values()?, channels)
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
        let (count, _) = queries.dims2()?;
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
        let queries = queries.contiguous()?;
        match &self.kept {
            #[cfg(target_arch = "x86_64")]
            Kept::Bytes(filter) => self.search(filter, &queries, k),
            Kept::Products(filter) => self.search(filter, &queries, k),
            Kept::Norms(norms) => plain::k_nearest(&self.rows, norms, &queries, k),
        }
    }

    fn search(
        &self,
        filter: &impl Filter,
        queries: &Tensor,
        k: usize,
    ) -> Result<(Vec<f32>, Vec<u32>)> {
        let (rows, queries) = (Host::open(&self.rows), Host::open(queries));
        let search = Search {
            filter,
            rows: rows.values()?,
            channels: self.channels(),
            k,
        };
        Ok(search.run(queries.values()?))
    }
}

/// The best filter that this processor has, of `rows [N, C]`.
fn filter(rows: &[f32], channels: usize) -> Kept {
    #[cfg(target_arch = "x86_64")]
    if let Some(bytes) = Bytes::new(rows, channels) {
        return Kept::Bytes(bytes);
    }
    Kept::Products(Products::new(rows, channels))
}
