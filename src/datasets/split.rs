//! Normal images that are kept out of training.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::{Dataset, MIN_NORMALS, Sample};

impl Dataset {
    /// Splits the training images into those to train on and those held out for the threshold: a
    /// tenth, at least 4, but never more than half of them, and none of fewer than [`MIN_NORMALS`]. Both keep the
    /// data set's order.
    pub fn split_held_out(&self, seed: u64) -> (Vec<Sample>, Vec<Sample>) {
        let count = self.train.len();
        if count < MIN_NORMALS {
            return (self.train.clone(), Vec::new());
        }
        let held = count.div_ceil(10).max(MIN_NORMALS).min(count / 2);
        let mut order: Vec<usize> = (0..count).collect();
        order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        let mut is_held = vec![false; count];
        order[..held].iter().for_each(|&i| is_held[i] = true);
        let pick = |held: bool| {
            let chosen = self.train.iter().zip(&is_held).filter(|(_, h)| **h == held);
            chosen.map(|(sample, _)| sample.clone()).collect()
        };
        (pick(false), pick(true))
    }
}
