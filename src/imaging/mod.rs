//! From a file on disk to a normalised tensor: decode with limits, resize as PIL does, augment.

mod augment;
mod decode;
mod encode;
mod files;
mod mask;
mod preprocessing;
mod product;
mod quality;
mod resize;
mod synthetic;
mod warp;

pub use augment::{Augmentation, View};
pub use decode::{MAX_PIXELS, MAX_SIDE, MIN_SIDE, decode, decode_mask, dimensions};
pub use encode::{encode_jpeg, encode_png, save};
pub use files::{is_image_file, list_images};
pub use mask::Mask;
pub use preprocessing::{Interpolation, Preprocessing};
pub use quality::{Quality, QualityRange};
pub use resize::resize;
pub use synthetic::SyntheticDefect;
pub use warp::Affine;
