//! Local averages before the norm.

use super::*;
use crate::estimators::source::tests::Fixed;

#[test]
fn a_neighbourhood_averages_before_all_else() {
    let shapes = [shape(4, 5, 6)];
    let plain = config(2, &[3], FeatureNorm::Whiten);
    let wide = FlowConfig {
        neighbourhood: 3,
        ..plain.clone()
    };
    let records: Vec<_> = (0..5).map(|i| vec![values(120, i as f64)]).collect();
    let source = Fixed {
        shapes: shapes.to_vec(),
        records: records.clone(),
    };
    let averaged = |record: &Vec<Vec<f32>>| {
        let map = Tensor::from_slice(&record[0], (1, 4, 5, 6), &Device::Cpu).unwrap();
        crate::kernels::map::local_average(&map, 3).unwrap()
    };
    let flat = |map: &Tensor| map.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let means = Fixed {
        shapes: shapes.to_vec(),
        records: records.iter().map(|r| vec![flat(&averaged(r))]).collect(),
    };
    let mut one = FastFlow::init(&plain, &shapes, 1, &Device::Cpu).unwrap();
    one.fit_norm(&means).unwrap();
    let mut other = FastFlow::init(&wide, &shapes, 1, &Device::Cpu).unwrap();
    other.fit_norm(&source).unwrap();
    let given = Tensor::from_slice(&records[2][0], (1, 4, 5, 6), &Device::Cpu).unwrap();
    let expected = one.forward(&[averaged(&records[2])]).unwrap();
    let found = other.forward(std::slice::from_ref(&given)).unwrap();
    assert_eq!(flat(&found[0].z), flat(&expected[0].z));
    assert_ne!(
        flat(&found[0].z),
        flat(&one.forward(&[given]).unwrap()[0].z)
    );
}
