//! CFLOW-AD (Gudovskiy et al. 2021, arXiv 2107.12571): of each feature map a flow over the vectors of its positions, `[C]`,
//! that is told where in the photo each lies.
//!
//! The blocks' arithmetic is that of FrEIA 0.2's AllInOneBlock as CFLOW-AD's authors use it (clamp 1.9, global affine SOFTPLUS,
//! random rotations of the channels), the encoding of positions theirs. Three things are not the paper's:
//!
//! - Features are standardised by channel on the training photos, so that a fresh flow starts near its goal whatever the backbone.
//! - A step of the optimiser sees all positions of its photos, at all scales, not 256 of one; and what it lowers is the
//!   plain negative log-likelihood (the paper's equation 7), where the authors' program takes a log-sigmoid of it.
//! - Likelihoods are not divided by the largest of the test set, which a detector that sees one photo does not know.

mod block;
mod config;
mod estimator;
mod positions;
mod scale;
#[cfg(test)]
mod tests;

pub use config::CFlowConfig;
pub use estimator::CFlow;
pub use positions::encoding;
