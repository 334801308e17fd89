//! The grid of a plain weave, which the cloth and its defects share.

/// Distance between neighbouring yarns, in pixels of a 256-pixel image.
pub(super) const PITCH: f32 = 7.8;

/// The two directions of yarns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// Ends, along `v`.
    Warp,
    /// Picks, along `u`.
    Weft,
}
