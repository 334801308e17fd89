//! Which record is seen when: a pure function of seed and epoch, so that resuming needs no generator state.

use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

/// Streams of the one seed, so that no two uses share numbers.
#[derive(Debug, Clone, Copy)]
pub enum Stream {
    /// Which views of the images are cached.
    Views,
    /// The order within one epoch.
    Epoch(usize),
}

/// The generator of one use of the seed.
pub fn generator(seed: u64, stream: Stream) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(match stream {
        Stream::Views => 1,
        Stream::Epoch(epoch) => (1 << 32) + epoch as u64,
    });
    rng
}

/// Records of one epoch: every image once, in a random order, each through one of its `views` cached views
/// (the records of image `i` are `i * views ..`).
pub fn epoch_order(seed: u64, epoch: usize, images: usize, views: usize) -> Vec<usize> {
    let mut rng = generator(seed, Stream::Epoch(epoch));
    let mut order: Vec<usize> = (0..images).collect();
    order.shuffle(&mut rng);
    order
        .iter()
        .map(|image| image * views + rng.random_range(0..views))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_image_once_an_epoch_and_every_epoch_another_order() {
        let first = epoch_order(7, 0, 50, 3);
        let mut images: Vec<usize> = first.iter().map(|record| record / 3).collect();
        images.sort_unstable();
        assert_eq!(images, (0..50).collect::<Vec<_>>());
        assert!((0..3).all(|view| first.iter().any(|record| record % 3 == view)));
        assert_eq!(first, epoch_order(7, 0, 50, 3));
        assert_ne!(first, epoch_order(7, 1, 50, 3));
        assert_ne!(first, epoch_order(8, 0, 50, 3));
    }
}
