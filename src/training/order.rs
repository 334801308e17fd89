//! Which record is seen when: a pure function of seed and epoch, so that resuming needs no generator state.

use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

/// Streams of the one seed, so that no two uses share numbers.
#[derive(Debug, Clone, Copy)]
pub enum Stream {
    /// Which views of the images are cached.
    Views,
    /// Which photos each of a few fits leaves out.
    Folds,
    /// The order within one epoch.
    Epoch(usize),
}

/// The generator of one use of the seed.
pub fn generator(seed: u64, stream: Stream) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(match stream {
        Stream::Views => 1,
        Stream::Folds => 2,
        Stream::Epoch(epoch) => (1 << 32) + epoch as u64,
    });
    rng
}

/// Which of `folds` every image belongs to: at random, as many to each as can be.
pub fn folds(seed: u64, images: usize, folds: usize) -> Vec<usize> {
    let mut fold_of: Vec<usize> = (0..images).map(|image| image % folds).collect();
    if folds < images {
        fold_of.shuffle(&mut generator(seed, Stream::Folds));
    }
    fold_of
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
    fn folds_are_of_one_size_and_drawn_by_the_seed() {
        let of = folds(3, 23, 5);
        let sizes: Vec<usize> = (0..5)
            .map(|f| of.iter().filter(|&&x| x == f).count())
            .collect();
        assert_eq!(sizes, [5, 5, 5, 4, 4]);
        assert_eq!(of, folds(3, 23, 5));
        assert_ne!(of, folds(4, 23, 5));
        // A fold for each needs no draw.
        assert_eq!(folds(3, 3, 3), [0, 1, 2]);
    }

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
