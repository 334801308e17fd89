//! From a file on disk to a normalised tensor: decode with limits, resize as PIL does, augment.

mod augment;
mod decode;
mod encode;
mod files;
mod mask;
mod mask_file;
mod photo;
mod preprocessing;
mod product;
mod quality;
mod range;
mod reading;
mod resize;
mod synthetic;
mod tiff;
mod unread;
mod walk;
mod warp;

pub use augment::{Augmentation, View};
pub(crate) use decode::decode_plainly;
pub use decode::{Header, decode, decode_as, dimensions, header, photo};
pub use encode::{encode_jpeg, encode_png, is_overlay, save, save_overlay};
pub use files::{is_image_file, list_images, survey};
pub use mask::Mask;
pub use mask_file::{decode_mask, decode_mask_as};
pub use photo::{Photo, Seen};
pub use preprocessing::{Interpolation, Preprocessing};
pub use quality::{Quality, QualityRange};
pub use range::{Depth, PixelRange, RangeDoubt};
pub use reading::{MAX_PIXELS, MAX_SIDE, MIN_SIDE, Reading};
pub use resize::resize;
pub use synthetic::SyntheticDefect;
pub use unread::Unread;
pub use warp::Affine;
