//! The optimizer's step on the tensors' own device, with no value read back: whether and how far to step is
//! decided there. Every op has a CPU side, by which the whole is tested without a GPU.

#[cfg(feature = "cuda")]
mod cuda;

use std::cell::RefCell;

use candle_core::{
    CpuStorage, DType, Device, InplaceOp1, InplaceOp2, InplaceOp3, Layout, Result as CandleResult,
    Storage, Tensor,
};

use crate::kernels::shape::expect_f32;
use crate::{Error, Result};

/// Parts of one tensor's sum of squares.
const PARTS: usize = 64;
/// Numbers of [`Decision`]'s tensor, as `Control` of adam.h orders them.
const CONTROLS: usize = 7;

/// What the steps so far were decided by; f64 `[7]` on the device.
#[derive(Debug, Clone)]
pub struct Decision {
    control: Tensor,
    /// f64 `[tensors * PARTS]`.
    squares: Tensor,
}

/// A [`Decision`] as read back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Decided {
    /// Sum over the steps taken of their losses.
    pub loss: f64,
    /// Sum over the steps taken of their gradients' norms.
    pub gradient_norm: f64,
    /// Steps taken.
    pub steps: u64,
    /// Loss and norm of the step that was refused because one is not finite; none was taken after it.
    pub refused: Option<(f64, f64)>,
}

impl Decision {
    /// No step so far, for gradients of `tensors` tensors.
    ///
    /// # Errors
    /// When the device is out of memory.
    pub fn new(tensors: usize, device: &Device) -> Result<Self> {
        Ok(Self {
            control: Tensor::zeros(CONTROLS, DType::F64, device)?,
            squares: Tensor::zeros(tensors.max(1) * PARTS, DType::F64, device)?,
        })
    }

    /// Decides one step from `gradients` and `loss` (an f64 scalar), both sums over `images`: none if the loss or
    /// the gradients' norm is not finite; a norm above `clip` is brought down to it.
    ///
    /// # Errors
    /// When a tensor is on another device or of another type, or there are not as many as the decision is for.
    pub fn decide(
        &self,
        gradients: &[Tensor],
        loss: &Tensor,
        images: usize,
        clip: Option<f64>,
    ) -> Result<()> {
        let tensors = self.squares.elem_count() / PARTS;
        if gradients.len().max(1) != tensors {
            return Err(Error::Shape {
                what: "gradients of a step".into(),
                expected: format!("{tensors} tensors"),
                found: format!("{}", gradients.len()),
            });
        }
        for gradient in gradients {
            expect_f32("gradient", gradient, gradient.dims())?;
        }
        sum_squares(&contiguous(gradients)?, &self.squares)?;
        let op = Decide {
            images: images as f64,
            clip: clip.unwrap_or(0.0),
        };
        let loss = loss.to_dtype(DType::F64)?.reshape(1)?;
        Ok(self.control.inplace_op3(&self.squares, &loss, &op)?)
    }

    /// Waits for the device and reads what was decided.
    ///
    /// # Errors
    /// When the device failed.
    pub fn read(&self) -> Result<Decided> {
        let c = self.control.to_vec1::<f64>()?;
        Ok(Decided {
            loss: c[1],
            gradient_norm: c[2],
            steps: c[3] as u64,
            refused: (c[4] > 0.0).then_some((c[5], c[6])),
        })
    }
}

/// The constants of one step (see `Adam` in the training module for their meaning).
#[repr(C)] // `AdamStep` of adam.h
#[derive(Debug, Clone, Copy)]
pub struct AdamStep {
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// `decay * parameter` is added to the gradient.
    pub decay: f32,
    /// Step size over the first moment's correction.
    pub rate: f32,
    /// 1 over the root of the second moment's correction.
    pub inverse2: f32,
    /// Added to the denominator.
    pub epsilon: f32,
}

/// Takes the decided step of all parameters: `moments` (each `[2, n]`) and `parameters` change in place.
///
/// # Errors
/// When numbers of tensors, shapes, types or devices do not fit.
pub fn adam_step(
    step: AdamStep,
    decision: &Decision,
    gradients: &[Tensor],
    moments: &[Tensor],
    parameters: &[Tensor],
) -> Result<()> {
    if gradients.len() != parameters.len() || moments.len() != parameters.len() {
        return Err(Error::Shape {
            what: "Adam's gradients and moments".into(),
            expected: format!("{} each", parameters.len()),
            found: format!("{} and {}", gradients.len(), moments.len()),
        });
    }
    for ((gradient, moments), parameter) in gradients.iter().zip(moments).zip(parameters) {
        expect_f32("gradient", gradient, parameter.dims())?;
        expect_f32("Adam's moments", moments, &[2, parameter.elem_count()])?;
    }
    let (control, gradients) = (&decision.control, contiguous(gradients)?);
    #[cfg(feature = "cuda")]
    if let Device::Cuda(device) = control.device() {
        return Ok(cuda::update(
            device, step, control, &gradients, moments, parameters,
        )?);
    }
    for ((gradient, moments), parameter) in gradients.iter().zip(moments).zip(parameters) {
        let update = Update {
            step,
            control,
            moments,
        };
        parameter.inplace_op2(gradient, &update)?;
    }
    Ok(())
}

fn contiguous(tensors: &[Tensor]) -> CandleResult<Vec<Tensor>> {
    tensors.iter().map(Tensor::contiguous).collect()
}

/// Writes each gradient's sum of squares, in [`PARTS`] parts.
fn sum_squares(gradients: &[Tensor], squares: &Tensor) -> CandleResult<()> {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(device) = squares.device() {
        return cuda::sum_squares(device, gradients, squares);
    }
    for (i, gradient) in gradients.iter().enumerate() {
        let parts = squares.narrow(0, i * PARTS, PARTS)?;
        parts.inplace_op2(gradient, &SumSquares)?;
    }
    Ok(())
}

/// The contiguous values of a CPU storage.
macro_rules! slice {
    ($storage:expr, $layout:expr, $type:ident) => {{
        let Some((start, end)) = $layout.contiguous_offsets() else {
            candle_core::bail!("the optimizer was given a scattered tensor");
        };
        let CpuStorage::$type(values) = $storage else {
            candle_core::bail!("the optimizer was given a tensor of another type");
        };
        &values[start..end]
    }};
    (mut $storage:expr, $layout:expr, $type:ident) => {{
        let Some((start, end)) = $layout.contiguous_offsets() else {
            candle_core::bail!("the optimizer was given a scattered tensor");
        };
        let CpuStorage::$type(values) = $storage else {
            candle_core::bail!("the optimizer was given a tensor of another type");
        };
        &mut values[start..end]
    }};
}

/// Parts of the sum of squares.
struct SumSquares;

impl InplaceOp2 for SumSquares {
    fn name(&self) -> &'static str {
        "sum-squares"
    }

    fn cpu_fwd(
        &self,
        parts: &mut CpuStorage,
        parts_layout: &Layout,
        gradient: &CpuStorage,
        layout: &Layout,
    ) -> CandleResult<()> {
        let parts = slice!(mut parts, parts_layout, F64);
        let gradient = slice!(gradient, layout, F32);
        parts.fill(0.0);
        parts[0] = gradient.iter().map(|&g| f64::from(g).powi(2)).sum();
        Ok(())
    }
}

/// Changes the control.
struct Decide {
    images: f64,
    /// 0 for none.
    clip: f64,
}

impl InplaceOp3 for Decide {
    fn name(&self) -> &'static str {
        "decide-step"
    }

    fn cpu_fwd(
        &self,
        control: &mut CpuStorage,
        layout: &Layout,
        squares: &CpuStorage,
        squares_layout: &Layout,
        loss: &CpuStorage,
        loss_layout: &Layout,
    ) -> CandleResult<()> {
        let control = slice!(mut control, layout, F64);
        let norm = slice!(squares, squares_layout, F64)
            .iter()
            .sum::<f64>()
            .sqrt()
            / self.images;
        let loss = slice!(loss, loss_layout, F64)[0];
        if control[4] > 0.0 {
            return Ok(());
        }
        (control[5], control[6]) = (loss, norm);
        if !(loss.is_finite() && norm.is_finite()) {
            (control[0], control[4]) = (f64::NAN, 1.0);
            return Ok(());
        }
        let clipped = self.clip > 0.0 && norm > self.clip;
        control[0] = if clipped { self.clip / norm } else { 1.0 } / self.images;
        control[1] += loss;
        control[2] += norm;
        control[3] += 1.0;
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        control: &mut candle_core::CudaStorage,
        layout: &Layout,
        squares: &candle_core::CudaStorage,
        squares_layout: &Layout,
        loss: &candle_core::CudaStorage,
        loss_layout: &Layout,
    ) -> CandleResult<()> {
        let (squares, loss) = ((squares, squares_layout), (loss, loss_layout));
        cuda::decide(self, (control, layout), squares, loss)
    }
}

/// Moves a parameter and its moments.
struct Update<'a> {
    step: AdamStep,
    control: &'a Tensor,
    moments: &'a Tensor,
}

impl InplaceOp2 for Update<'_> {
    fn name(&self) -> &'static str {
        "adam"
    }

    fn cpu_fwd(
        &self,
        parameter: &mut CpuStorage,
        layout: &Layout,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
    ) -> CandleResult<()> {
        let factor = factor(self.control)?;
        if factor.is_nan() {
            return Ok(());
        }
        self.moments.inplace_op1(&OnHost {
            step: self.step,
            factor: factor as f32,
            parameter: RefCell::new(slice!(mut parameter, layout, F32)),
            gradient: slice!(gradient, gradient_layout, F32),
        })
    }
}

/// The factor on the CPU.
fn factor(control: &Tensor) -> CandleResult<f64> {
    let (storage, layout) = control.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => Ok(slice!(storage, layout, F64)[0]),
        _ => candle_core::bail!("the optimizer's tensors are on different devices"),
    }
}

/// [`Update`] on the CPU, as an op on the moments: candle opens only one tensor for writing at a time.
struct OnHost<'a> {
    step: AdamStep,
    factor: f32,
    parameter: RefCell<&'a mut [f32]>,
    gradient: &'a [f32],
}

impl InplaceOp1 for OnHost<'_> {
    fn name(&self) -> &'static str {
        "adam-moments"
    }

    fn cpu_fwd(&self, moments: &mut CpuStorage, layout: &Layout) -> CandleResult<()> {
        let s = self.step;
        let moments = slice!(mut moments, layout, F32);
        let (first, second) = moments.split_at_mut(moments.len() / 2);
        let moments = first.iter_mut().zip(second);
        let mut parameter = self.parameter.borrow_mut();
        for ((p, &g), (first, second)) in parameter.iter_mut().zip(self.gradient).zip(moments) {
            let g = g * self.factor + s.decay * *p;
            *first = s.beta1 * *first + (1.0 - s.beta1) * g;
            *second = s.beta2 * *second + (1.0 - s.beta2) * g * g;
            *p -= s.rate * *first / (second.sqrt() * s.inverse2 + s.epsilon);
        }
        Ok(())
    }
}
