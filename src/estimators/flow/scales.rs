//! The global affines of all steps of a chain at once: on a GPU every operation is a launch, however few its values.

use candle_core::{Tensor, Var};

use super::step::Step;
use crate::Result;
use crate::kernels::coupling::Affine;

/// The scales and what they were made from, both `[steps, C]`.
pub(super) struct Scales {
    parameters: Tensor,
    scales: Tensor,
    /// Scales and offsets, `[steps, 2 C]`.
    affines: Tensor,
}

impl Scales {
    pub(super) fn of(steps: &[Step]) -> Result<Self> {
        let stack = |of: fn(&Step) -> &Var| {
            let all: Vec<Tensor> = steps.iter().map(|s| of(s).as_detached_tensor()).collect();
            Tensor::stack(&all, 0)
        };
        let parameters = stack(|step| &step.parameters.global_scale)?;
        let offsets = stack(|step| &step.parameters.global_offset)?;
        let scales = softplus_scale(&parameters)?;
        Ok(Self {
            affines: Tensor::cat(&[&scales, &offsets], 1)?,
            parameters,
            scales,
        })
    }

    /// One step's global affine.
    pub(super) fn affine(&self, index: usize) -> Result<Affine> {
        Ok(Affine::packed(self.affines.get(index)?))
    }

    /// Their part of the log-det, the same at every position: a scalar.
    pub(super) fn log_det(&self) -> Result<Tensor> {
        Ok(self.scales.log()?.sum(1)?.sum_all()?)
    }

    /// The gradients of the parameters, from the couplings' gradients of the scales in the order of the steps, and
    /// from the log-det's `ln scale` at each of `positions`.
    pub(super) fn gradients(&self, of_scales: &[Tensor], positions: usize) -> Result<Vec<Tensor>> {
        let from_log_det = (self.scales.recip()? * positions as f64)?;
        // d scale / d g = 0.1 sigmoid(g / 2), where sigmoid(x) = (1 + tanh(x / 2)) / 2 does not overflow.
        let slope = (((&self.parameters * 0.25)?.tanh()? + 1.0)? * 0.05)?;
        let all = ((Tensor::stack(of_scales, 0)? - from_log_det)? * slope)?;
        let step = |index| Ok(all.get(index)?);
        (0..of_scales.len()).map(step).collect()
    }
}

/// `0.1 softplus(g)` with beta 0.5, that is `0.2 ln(1 + exp(g / 2))`, without overflow.
fn softplus_scale(g: &Tensor) -> Result<Tensor> {
    let half = (g * 0.5)?;
    let softplus = (half.relu()? + (half.abs()?.neg()?.exp()? + 1.0)?.log()?)?;
    Ok((softplus * 0.2)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use candle_core::{Device, Tensor};
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::super::Coupling;
    use super::super::step::{Step, StepShape};
    use super::Scales;

    #[test]
    fn all_at_once_gives_the_bits_of_one_by_one() {
        let shape = StepShape {
            channels: 37,
            hidden: 3,
            kernel: 1,
            coupling: Coupling::Affine,
        };
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let steps: Vec<Step> = (0..3)
            .map(|index| {
                let step = Step::init(shape, 2.0, &mut rng, &Device::Cpu).unwrap();
                let values = (0..37).map(|i| (i as f32 * 7.7 + index as f32).sin() * 9.0);
                let values = Tensor::from_iter(values, &Device::Cpu).unwrap();
                step.parameters.global_scale.set(&values).unwrap();
                step
            })
            .collect();
        let all = Scales::of(&steps).unwrap();
        let given = |index: usize| (all.scales.get(index).unwrap() * 3.0).unwrap();
        let given: Vec<Tensor> = (0..3).map(given).collect();
        let gradients = all.gradients(&given, 12).unwrap();
        let bits = |t: &Tensor| t.to_vec1::<f32>().unwrap();
        let mut log_dets = Vec::new();
        for (index, step) in steps.iter().enumerate() {
            let one = Scales::of(std::slice::from_ref(step)).unwrap();
            let row = |scales: &Scales, index: usize| bits(&scales.affines.get(index).unwrap());
            assert_eq!(row(&all, index), row(&one, 0));
            let gradient = one.gradients(&given[index..=index], 12).unwrap();
            assert_eq!(bits(&gradients[index]), bits(&gradient[0]));
            log_dets.push(one.log_det().unwrap());
        }
        let sum = Tensor::stack(&log_dets, 0).unwrap().sum_all().unwrap();
        let scalar = |t: Tensor| t.to_scalar::<f32>().unwrap();
        assert_eq!(scalar(sum), scalar(all.log_det().unwrap()));
    }
}
