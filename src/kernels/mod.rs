//! What candle does slowly or not at all on the CPU, each a candle CustomOp with a backward.

mod shape;

pub use shape::FeatureShape;
