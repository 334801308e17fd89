//! A share of a data set, for sets that are too large for the machine.

use serde::Deserialize;

use super::{Dataset, MIN_NORMALS, Sample};
use crate::{Error, Result};

/// Most images of a data set to use; all where nothing is said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limit {
    /// Normal images to train on.
    pub train: Option<usize>,
    /// Test images.
    pub test: Option<usize>,
}

impl Limit {
    /// # Errors
    /// When too few images would be left to train or to test on.
    pub fn check(self) -> Result<()> {
        let few = |name: &str, least: usize| {
            Err(Error::Invalid(format!(
                "limit.{name}: must be at least {least}"
            )))
        };
        match self {
            Self { train: Some(n), .. } if n < MIN_NORMALS => few("train", MIN_NORMALS),
            Self { test: Some(n), .. } if n < 2 => few("test", 2),
            _ => Ok(()),
        }
    }
}

impl Dataset {
    /// Leaves at most so many images, evenly spread over the data set's order: where the images of a class follow each
    /// other, every class keeps its share.
    pub fn limit(&mut self, limit: Limit) {
        thin(&mut self.train, limit.train);
        thin(&mut self.test, limit.test);
    }
}

fn thin(samples: &mut Vec<Sample>, most: Option<usize>) {
    let (all, most) = (samples.len(), most.unwrap_or(usize::MAX));
    if all <= most {
        return;
    }
    // The i-th of all is kept where the share of those kept steps over a whole number.
    let mut index = 0;
    samples.retain(|_| {
        let step = |i: usize| i * most / all;
        index += 1;
        step(index) > step(index - 1)
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_keeps_its_share() {
        let sample = |class: usize| Sample::defective("x.png".into(), &class.to_string(), None);
        let mut samples: Vec<Sample> = (0..100).map(|i| sample(i / 10)).collect();
        thin(&mut samples, Some(200));
        assert_eq!(samples.len(), 100);
        thin(&mut samples, Some(20));
        let of = |class: usize| samples.iter().filter(|s| **s == sample(class)).count();
        assert!((0..10).all(|class| of(class) == 2));
        thin(&mut samples, Some(7));
        assert_eq!(samples.len(), 7);
    }
}
