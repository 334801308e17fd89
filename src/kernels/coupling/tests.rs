#![allow(clippy::unwrap_used)]

use candle_core::{Device, Tensor, Var};

use super::{Affine, LogDetGradient, Permutation, backward, forward, uncouple, undo_affine};

const CLAMP: f32 = 2.0;

fn var(dims: &[usize], phase: f64, size: f64) -> Var {
    let len: usize = dims.iter().product();
    let value = |i| (size * (f64::from(i) * 78.233 + phase).sin()) as f32;
    Var::from_vec((0..len as u32).map(value).collect(), dims, &Device::Cpu).unwrap()
}

/// The inputs of one coupling over more positions than one span.
struct Case {
    x: Var,
    a: Var,
    scale: Var,
    offset: Var,
    permutation: Permutation,
}

fn case(channels: usize) -> Case {
    let (batch, height, width) = (2, 33, 35);
    let scale = (var(&[channels], 0.5, 0.4).as_tensor() + 1.0).unwrap();
    let indices = (0..channels as u32).map(|i| (i * 2 + 1) % channels as u32);
    let even = (0..channels as u32).rev();
    let indices = if channels % 2 == 1 {
        indices.collect()
    } else {
        even.collect()
    };
    Case {
        x: var(&[batch, channels, height, width], 0.1, 2.0),
        a: var(&[batch, channels / 2 * 2, height, width], 0.2, 15.0),
        scale: Var::from_tensor(&scale).unwrap(),
        offset: var(&[channels], 0.7, 0.5),
        permutation: Permutation::new(indices).unwrap(),
    }
}

impl Case {
    fn affine(&self) -> Affine {
        Affine::new(&self.scale, &self.offset).unwrap()
    }

    fn fused(&self) -> (Tensor, Tensor) {
        forward(&self.x, &self.a, &self.affine(), &self.permutation, CLAMP).unwrap()
    }

    /// The module's formula in plain candle.
    fn plain(&self) -> (Tensor, Tensor) {
        let channels = self.x.dim(1).unwrap();
        let active = channels / 2;
        let halves = (self.a.as_tensor() * 0.1).unwrap();
        let log_s = halves.narrow(1, 0, active).unwrap().tanh().unwrap();
        let log_s = (log_s * f64::from(CLAMP)).unwrap();
        let t = halves.narrow(1, active, active).unwrap();
        let x1 = self.x.narrow(1, 0, channels - active).unwrap();
        let x2 = self.x.narrow(1, channels - active, active).unwrap();
        let x2 = ((x2 * log_s.exp().unwrap()).unwrap() + t).unwrap();
        let u = Tensor::cat(&[x1, x2], 1).unwrap();
        let per_channel = |v: &Var| v.reshape((1, channels, 1, 1)).unwrap();
        let u = u.broadcast_mul(&per_channel(&self.scale)).unwrap();
        let u = u.broadcast_add(&per_channel(&self.offset)).unwrap();
        let indices = self.permutation.indices();
        let indices = Tensor::from_slice(indices, channels, &Device::Cpu).unwrap();
        (u.index_select(&indices, 1).unwrap(), log_s.sum(1).unwrap())
    }
}

fn close(what: &str, found: &Tensor, expected: &Tensor) {
    assert_eq!(found.dims(), expected.dims(), "{what}");
    let largest = |t: &Tensor| {
        t.abs()
            .unwrap()
            .flatten_all()
            .unwrap()
            .max(0)
            .unwrap()
            .to_scalar::<f32>()
            .unwrap()
    };
    let (error, size) = (largest(&(found - expected).unwrap()), largest(expected));
    assert!(
        size > 0.1 && error < 1e-5 * size,
        "{what}: {error} beside {size}"
    );
}

#[test]
fn forward_is_the_formula() {
    for channels in [2, 5, 8] {
        let case = case(channels);
        let ((y, log_det), (plain_y, plain_log_det)) = (case.fused(), case.plain());
        close("y", &y, &plain_y);
        close("log_det", &log_det, &plain_log_det);
    }
}

#[test]
fn gradients_are_autograds() {
    for channels in [2, 5, 8] {
        let case = case(channels);
        // Not centred, or the sums over positions would cancel.
        let weights = (var(case.x.dims(), 0.9, 1.0).as_tensor() + 0.5).unwrap();
        let map = var(&[2, 33, 35], 0.4, 1.0);
        let loss = |(y, log_det): (Tensor, Tensor)| {
            let y = (y * &weights).unwrap().sum_all().unwrap();
            let log_det = (log_det * map.as_tensor()).unwrap().sum_all().unwrap();
            (y + log_det).unwrap()
        };
        let plain = loss(case.plain()).backward().unwrap();
        let fused = loss(case.fused()).backward().unwrap();
        let direct = backward(
            &case.x,
            &case.a,
            &case.affine(),
            &case.permutation,
            CLAMP,
            &weights,
            LogDetGradient::Map(&map),
        )
        .unwrap();
        for (name, var, gradient) in [
            ("x", &case.x, &direct.x),
            ("a", &case.a, &direct.a),
            ("scale", &case.scale, &direct.scale),
            ("offset", &case.offset, &direct.offset),
        ] {
            close(name, gradient, plain.get(var).unwrap());
            close(name, fused.get(var).unwrap(), plain.get(var).unwrap());
        }
    }
}

#[test]
fn a_constant_log_det_gradient_is_a_constant_map() {
    let case = case(6);
    let zero = case.x.zeros_like().unwrap();
    let map = Tensor::full(-1f32, (2, 33, 35), &Device::Cpu).unwrap();
    let run = |log_det| {
        let affine = case.affine();
        backward(
            &case.x,
            &case.a,
            &affine,
            &case.permutation,
            CLAMP,
            &zero,
            log_det,
        )
        .unwrap()
    };
    close(
        "a",
        &run(LogDetGradient::Constant(-1.0)).a,
        &run(LogDetGradient::Map(&map)).a,
    );
}

#[test]
fn the_two_stages_invert() {
    let case = case(7);
    let (y, _) = case.fused();
    let u = undo_affine(&y, &case.affine(), &case.permutation).unwrap();
    close("x", &uncouple(&u, &case.a, CLAMP).unwrap(), &case.x);
}

#[test]
fn channel_ranges_of_a_larger_batch_give_the_same_bits() {
    let (wide, case) = (var(&[2, 11, 33, 35], 0.1, 2.0), case(5));
    let narrow = wide.narrow(1, 3, 5).unwrap();
    let run = |x: &Tensor| {
        let (y, _) = forward(x, &case.a, &case.affine(), &case.permutation, CLAMP).unwrap();
        y.flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    assert_eq!(run(&narrow), run(&narrow.contiguous().unwrap()));
}

#[test]
fn gradients_add_into_the_first_channels() {
    let case = case(5);
    let affine = case.affine();
    let (y, _) = case.fused();
    let constant = LogDetGradient::Constant(-1.0);
    let gradients = backward(
        &case.x,
        &case.a,
        &affine,
        &case.permutation,
        CLAMP,
        &y,
        constant,
    )
    .unwrap();
    let before = gradients.x.copy().unwrap();
    let term = var(&[2, 3, 33, 35], 0.3, 1.0);
    let sum = gradients.add_to_passive(&term).unwrap();
    let expected = (before.narrow(1, 0, 3).unwrap() + term.as_tensor()).unwrap();
    close("passive", &sum.narrow(1, 0, 3).unwrap(), &expected);
    close(
        "active",
        &sum.narrow(1, 3, 2).unwrap(),
        &before.narrow(1, 3, 2).unwrap(),
    );
}

#[test]
fn misfits_are_errors() {
    let (five, six) = (case(5), case(6));
    let try_forward = |x: &Tensor, a: &Tensor, p: &Permutation| {
        forward(x, a, &five.affine(), p, CLAMP)
            .unwrap_err()
            .to_string()
    };
    assert!(try_forward(&six.x, &six.a, &five.permutation).contains("coupling input"));
    assert!(try_forward(&five.x, &six.a, &five.permutation).contains("subnet output"));
    assert!(try_forward(&six.x, &six.a, &six.permutation).contains("scales and offsets"));
}
