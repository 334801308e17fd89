//! A quick look before an evaluation: what would stop it after minutes should stop it at once.

use rayon::prelude::*;

use super::{Dataset, Sample};
use crate::{Result, imaging};

impl Dataset {
    /// Reads the headers of all test images and masks. [`super::check()`] decodes them too.
    ///
    /// # Errors
    /// As [`imaging::dimensions`], or [`crate::Error::Dataset`] when a mask has another size than its image;
    /// the first of the test set.
    pub fn glance(&self) -> Result<()> {
        let looks: Vec<Result<()>> = self.test.par_iter().map(look).collect();
        looks.into_iter().collect()
    }
}

fn look(sample: &Sample) -> Result<()> {
    if sample.record.is_some() {
        return Ok(());
    }
    let image = imaging::dimensions(&sample.image)?;
    match &sample.mask {
        Some(mask) => sample.expect_size(mask, imaging::dimensions(mask)?, image),
        None => Ok(()),
    }
}
