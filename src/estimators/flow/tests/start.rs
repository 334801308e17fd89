//! What a fresh flow holds.

use super::*;

#[test]
fn the_seed_decides_everything() {
    let shapes = [shape(6, 5, 4), shape(8, 3, 2)];
    let config = config(3, &[5, 7], FeatureNorm::LayerNorm);
    let dump = |seed| {
        let flow = FastFlow::init(&config, &shapes, seed, &Device::Cpu).unwrap();
        let tensors = flow.tensors().unwrap();
        tensors
            .into_iter()
            .map(|(name, tensor)| (name, format!("{tensor}")))
            .collect::<Vec<_>>()
    };
    assert_eq!(dump(3), dump(3));
    assert_ne!(dump(3), dump(4));
    let flow = FastFlow::init(&config, &shapes, 3, &Device::Cpu).unwrap();
    for (name, var) in flow.parameters() {
        let largest = flat(&var).into_iter().map(f32::abs).fold(0.0, f32::max);
        let bound = match name.as_str() {
            name if name.contains("global_offset") => 0.0,
            name if name.contains("global_scale") => 9.99,
            name if name.contains("0.steps.0.conv1") => 1.0 / 27f32.sqrt(),
            _ => 1.0 / 3f32.sqrt(),
        };
        assert!(largest <= bound, "{name}: {largest}");
    }
}
