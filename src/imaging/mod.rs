//! From a file on disk to a normalised tensor: decode with limits, resize as PIL does, augment.

mod preprocessing;

pub use preprocessing::{Interpolation, Preprocessing};
