//! Whether products of f32 on a GPU may go through TF32 tensor cores, for the whole process.

#[cfg(feature = "cuda")]
use std::sync::atomic::{AtomicBool, Ordering};

#[cfg(feature = "cuda")]
static ALLOWED: AtomicBool = AtomicBool::new(false);

/// Lets products of f32 on a GPU go through TF32 tensor cores (10 bits of mantissa) from now on, or not.
pub fn set_tf32(allowed: bool) {
    #[cfg(feature = "cuda")]
    {
        ALLOWED.store(allowed, Ordering::Relaxed);
        candle_core::cuda::set_gemm_reduced_precision_f32(allowed);
    }
    #[cfg(not(feature = "cuda"))]
    let _ = allowed;
}

/// What [`set_tf32`] said last; not allowed at first.
#[cfg(feature = "cudnn")]
pub(crate) fn tf32() -> bool {
    ALLOWED.load(Ordering::Relaxed)
}
