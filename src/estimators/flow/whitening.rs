//! Whitening: the matrix that makes the channels of a feature map uncorrelated and of unit variance.

use nalgebra::DMatrix;

use crate::estimators::ChannelCovariance;
use crate::{Error, Result};

/// Added to every variance, as a share of their mean: directions in which the training images hardly
/// vary are not blown up without limit, and a constant channel stays usable.
const FLOOR: f64 = 1e-4;

impl ChannelCovariance {
    /// `W = (covariance + floor I)^(-1/2) [C, C]`, symmetric (ZCA, Bell and Sejnowski 1997): of all whitenings the
    /// one that changes the features least, so a channel stays recognisable.
    ///
    /// # Errors
    /// When the sizes do not fit, a value is not finite, or the features do not vary at all.
    pub(super) fn whitening(&self) -> Result<Vec<f32>> {
        let channels = self.mean.len();
        if self.covariance.len() != channels * channels {
            return Err(Error::Shape {
                what: "feature covariance".into(),
                expected: format!("{channels} x {channels}"),
                found: format!("{} values", self.covariance.len()),
            });
        }
        let covariance = DMatrix::from_row_slice(channels, channels, &self.covariance);
        let mean_variance = covariance.trace() / channels as f64;
        let finite = self.mean.iter().all(|value| value.is_finite())
            && self.covariance.iter().all(|value| value.is_finite());
        if !(finite && mean_variance > 0.0) {
            return Err(Error::Invalid(format!(
                "features with a mean variance of {mean_variance} cannot be whitened (are all training images alike?)"
            )));
        }
        let eigen = covariance.symmetric_eigen();
        let scales = eigen
            .eigenvalues
            .map(|variance| (variance.max(0.0) + FLOOR * mean_variance).powf(-0.5));
        let vectors = &eigen.eigenvectors;
        let whitening = vectors * DMatrix::from_diagonal(&scales) * vectors.transpose();
        // Symmetric, so its columns are its rows.
        Ok(whitening.iter().map(|&value| value as f32).collect())
    }
}

/// The inverse of a whitening matrix `[C, C]`.
///
/// # Errors
/// When it has none.
pub(super) fn inverse(matrix: &[f32], channels: usize) -> Result<Vec<f32>> {
    let wide = matrix.iter().map(|&value| f64::from(value));
    let matrix = DMatrix::from_row_iterator(channels, channels, wide);
    let inverse = matrix.try_inverse().ok_or_else(|| {
        Error::Invalid("the flow's whitening matrix has no inverse; the artifact is damaged".into())
    })?;
    Ok(inverse
        .transpose()
        .iter()
        .map(|&value| value as f32)
        .collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{ChannelCovariance, inverse};

    /// `[[5, 4], [4, 5]]` has the eigenvalues 9 and 1 along (1, 1) and (1, -1).
    fn known() -> ChannelCovariance {
        ChannelCovariance {
            mean: vec![1.0, 2.0],
            covariance: vec![5.0, 4.0, 4.0, 5.0],
        }
    }

    #[test]
    fn is_the_inverse_square_root_of_the_covariance() {
        let found = known().whitening().unwrap();
        // (1/3 + 1) / 2 and (1/3 - 1) / 2, but for the floor of 5e-4.
        for (found, expected) in found
            .iter()
            .zip([2.0 / 3.0, -1.0 / 3.0, -1.0 / 3.0, 2.0 / 3.0])
        {
            assert!((found - expected).abs() < 3e-4, "{found} {expected}");
        }
        let back = inverse(&found, 2).unwrap();
        for (found, expected) in back.iter().zip([2.0, 1.0, 1.0, 2.0]) {
            assert!((found - expected).abs() < 2e-3, "{found} {expected}");
        }
    }

    #[test]
    fn bears_constant_channels_and_refuses_constant_features() {
        let constant = |covariance| ChannelCovariance {
            covariance,
            ..known()
        };
        let found = constant(vec![4.0, 0.0, 0.0, 0.0]).whitening().unwrap();
        assert!(
            found
                .iter()
                .all(|value| value.is_finite() && *value < 100.0),
            "{found:?}"
        );
        for bad in [vec![0.0; 4], vec![f64::NAN; 4], vec![1.0; 3]] {
            assert!(constant(bad).whitening().is_err());
        }
        assert!(inverse(&[1.0, 1.0, 1.0, 1.0], 2).is_err());
    }
}
