//! FastFlow anomaly detectors on candle: train on photos of good products, find the bad ones.
//!
//! The modules stand on floors; each imports only from floors below its own, and [`error`] is open to
//! all. `tests/architecture.rs` reads this table and keeps it:
//!
//! | floor | modules |
//! |---|---|
//! | 0 | [`error`], [`files`], [`mark`], `mapped`, [`digest`], `spelling` |
//! | 1 | [`tensors`], [`kernels`], [`metrics`], [`imaging`] |
//! | 2 | [`backbones`], [`estimators`], [`datasets`] |
//! | 3 | [`features`], [`detector`] |
//! | 4 | [`training`], [`evaluation`] |
//! | 5 | [`hub`], [`report`], [`speed`] |
//! | 6 | [`reproduce`] |
//! | 7 | `cli` (the program) |

pub mod backbones;
pub mod datasets;
pub mod detector;
pub mod digest;
pub mod error;
pub mod estimators;
pub mod evaluation;
pub mod features;
pub mod files;
pub mod hub;
pub mod imaging;
pub mod kernels;
mod mapped;
pub mod mark;
pub mod metrics;
pub mod report;
pub mod reproduce;
pub mod speed;
mod spelling;
pub mod tensors;
pub mod training;

pub use error::{Advice, Error, Result, RoleOf};
