//! Adam as `torch.optim.Adam` computes it, with the L2 term in the gradient and state that saves.

use std::collections::BTreeMap;

use candle_core::{Tensor, Var};
use rayon::prelude::*;

use crate::{Error, Result};

/// Step size and decay rates.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamConfig {
    /// Step size.
    pub learning_rate: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the denominator.
    pub epsilon: f64,
    /// `weight_decay * parameter` is added to the gradient (not AdamW's decoupled decay).
    pub weight_decay: f64,
}

impl Default for AdamConfig {
    /// The paper's: lr 1e-3, weight decay 1e-5; betas and epsilon are torch's.
    fn default() -> Self {
        Self {
            learning_rate: 1e-3,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 1e-5,
        }
    }
}

/// The optimizer: one slot a parameter, in the order the parameters were given.
pub struct Adam {
    config: AdamConfig,
    slots: Vec<Slot>,
    step: u64,
}

struct Slot {
    name: String,
    parameter: Var,
    /// The parameter's values, kept here so that a step reads them from memory once.
    values: Vec<f32>,
    first: Vec<f32>,
    second: Vec<f32>,
}

impl Adam {
    /// A fresh optimizer of named parameters.
    ///
    /// # Errors
    /// When a parameter cannot be read.
    pub fn new(parameters: Vec<(String, Var)>, config: AdamConfig) -> Result<Self> {
        let slots = parameters.into_iter().map(|(name, parameter)| {
            let values = parameter.as_tensor().flatten_all()?.to_vec1::<f32>()?;
            let zeros = vec![0.0; values.len()];
            Ok(Slot {
                name,
                parameter,
                first: zeros.clone(),
                second: zeros,
                values,
            })
        });
        Ok(Self {
            config,
            slots: slots.collect::<Result<_>>()?,
            step: 0,
        })
    }

    /// Steps taken so far.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// The step size from the next step on.
    pub fn set_learning_rate(&mut self, rate: f64) {
        self.config.learning_rate = rate;
    }

    /// One step along `gradients` (flat, one a parameter), each multiplied by `factor` first.
    ///
    /// # Errors
    /// When a parameter cannot be written.
    pub fn step(&mut self, gradients: &[Vec<f32>], factor: f32) -> Result<()> {
        self.step += 1;
        let c = self.config;
        let exponent = self.step as f64;
        let correction1 = 1.0 - c.beta1.powf(exponent);
        let correction2 = (1.0 - c.beta2.powf(exponent)).sqrt();
        let rate = (c.learning_rate / correction1) as f32;
        let inverse2 = (1.0 / correction2) as f32;
        let (beta1, beta2) = (c.beta1 as f32, c.beta2 as f32);
        let (decay, epsilon) = (c.weight_decay as f32, c.epsilon as f32);
        self.slots
            .par_iter_mut()
            .zip(gradients)
            .try_for_each(|(slot, gradient)| {
                let moments = slot.first.iter_mut().zip(&mut slot.second);
                for ((value, (first, second)), &gradient) in
                    slot.values.iter_mut().zip(moments).zip(gradient)
                {
                    let g = gradient * factor + decay * *value;
                    *first = beta1 * *first + (1.0 - beta1) * g;
                    *second = beta2 * *second + (1.0 - beta2) * g * g;
                    *value -= rate * *first / (second.sqrt() * inverse2 + epsilon);
                }
                slot.publish()
            })
    }

    /// Moments by name, for a checkpoint.
    ///
    /// # Errors
    /// When a tensor cannot be made.
    pub fn state(&self) -> Result<BTreeMap<String, Tensor>> {
        let mut state = BTreeMap::new();
        for slot in &self.slots {
            for (kind, values) in [("first", &slot.first), ("second", &slot.second)] {
                let tensor = Tensor::from_slice(values, values.len(), &candle_core::Device::Cpu)?;
                state.insert(format!("adam.{kind}.{}", slot.name), tensor);
            }
        }
        Ok(state)
    }

    /// Takes up where `state` was saved.
    ///
    /// # Errors
    /// When a moment is missing or of another size.
    pub fn restore(&mut self, state: &BTreeMap<String, Tensor>, step: u64) -> Result<()> {
        for slot in &mut self.slots {
            for (kind, values) in [("first", &mut slot.first), ("second", &mut slot.second)] {
                let name = format!("adam.{kind}.{}", slot.name);
                let saved = state
                    .get(&name)
                    .ok_or_else(|| Error::Training(format!("the checkpoint lacks `{name}`")))?
                    .to_vec1::<f32>()?;
                if saved.len() != values.len() {
                    return Err(Error::Shape {
                        what: format!("checkpoint tensor `{name}`"),
                        expected: format!("[{}]", values.len()),
                        found: format!("[{}]", saved.len()),
                    });
                }
                *values = saved;
            }
        }
        self.step = step;
        Ok(())
    }
}

impl Slot {
    fn publish(&self) -> Result<()> {
        let parameter = self.parameter.as_tensor();
        let new = Tensor::from_slice(&self.values, parameter.shape(), parameter.device())?;
        Ok(self.parameter.set(&new)?)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use candle_core::Device;

    /// torch 2.15:
    /// ```python
    /// p = torch.nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))
    /// o = torch.optim.Adam([p], lr=1e-2, weight_decay=1e-1)
    /// for g in ([.1, -.2, .3], [.3, .1, -.4], [0., 0., 2.]): p.grad = torch.tensor(g); o.step()
    /// ```
    #[test]
    fn three_steps_equal_torch() {
        let p = Var::from_vec(vec![1f32, -2.0, 0.5], 3, &Device::Cpu).unwrap();
        let config = AdamConfig {
            learning_rate: 1e-2,
            weight_decay: 1e-1,
            ..Default::default()
        };
        let mut adam = Adam::new(vec![("p".into(), p.clone())], config).unwrap();
        for g in [[0.1, -0.2, 0.3], [0.3, 0.1, -0.4], [0.0, 0.0, 2.0f32]] {
            // The factor divides a sum of gradients by the batch.
            adam.step(&[g.map(|v| v * 4.0).to_vec()], 0.25).unwrap();
        }
        let found = p.as_tensor().to_vec1::<f32>().unwrap();
        for (found, expected) in found.iter().zip(TORCH) {
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
    }

    const TORCH: [f32; 3] = [0.971_685_3, -1.973_160_5, 0.484_429_48];

    #[test]
    fn restored_state_continues_to_the_same_bits() {
        let gradient = |i: i32| vec![(i as f32).sin(), (i as f32).cos()];
        let make = || Var::from_vec(vec![0.3f32, -0.7], 2, &Device::Cpu).unwrap();
        let adam = |p: &Var| Adam::new(vec![("p".into(), p.clone())], AdamConfig::default());
        let unbroken = make();
        let mut whole = adam(&unbroken).unwrap();
        (0..6).for_each(|i| whole.step(&[gradient(i)], 1.0).unwrap());

        let first = make();
        let mut before = adam(&first).unwrap();
        (0..3).for_each(|i| before.step(&[gradient(i)], 1.0).unwrap());
        let mut after = adam(&first).unwrap();
        after
            .restore(&before.state().unwrap(), before.steps())
            .unwrap();
        (3..6).for_each(|i| after.step(&[gradient(i)], 1.0).unwrap());
        assert_eq!(
            first.as_tensor().to_vec1::<f32>().unwrap(),
            unbroken.as_tensor().to_vec1::<f32>().unwrap()
        );
    }
}
