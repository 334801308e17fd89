//! The detector that comes with the crate does what its card says.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use candle_fastflow::{
    datasets::{
        self,
        generated::{GenerateOptions, GeneratedProduct},
    },
    detector::{BackboneRecord, Detector, LoadOptions, Verdict},
    evaluation::{Options, evaluate},
    imaging,
};

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

fn detector() -> Detector {
    Detector::load(&examples().join("fabric-detector"), &LoadOptions::default()).unwrap()
}

#[test]
fn it_finds_the_defects_in_the_bundled_photos() {
    let detector = detector();
    detector.verify().unwrap();
    let photos = imaging::list_images(&examples().join("images")).unwrap();
    assert!(photos.len() >= 6);
    for path in photos {
        let good = path
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .starts_with("good");
        let prediction = detector.predict(&imaging::decode(&path).unwrap()).unwrap();
        let expected = if good {
            Verdict::Ok
        } else {
            Verdict::Defective
        };
        assert_eq!(
            prediction.verdict,
            Some(expected),
            "{} scores {}",
            path.display(),
            prediction.score
        );
    }
}

#[test]
fn its_setters_keep_what_a_config_must_be() {
    let mut detector = detector();
    let calibrated = detector.config().clone();
    let score = calibrated.calibration.as_ref().unwrap().threshold + 1.0;
    assert_eq!(detector.verdict(score), Some(Verdict::Defective));
    detector.set_threshold(score).unwrap();
    assert_eq!(detector.verdict(score), Some(Verdict::Ok));
    assert_eq!(detector.verdict(score + 1.0), Some(Verdict::Defective));
    assert!(detector.set_threshold(f32::NAN).is_err());
    assert_eq!(detector.config(), &calibrated);

    let other = BackboneRecord::embedded("resnet18.tv_in1k");
    let error = detector.set_backbone_record(other).unwrap_err().to_string();
    assert!(
        error.contains("resnet18.tv_in1k") && error.contains("wavelet"),
        "{error}"
    );
    assert_eq!(detector.config(), &calibrated);
    detector
        .set_backbone_record(calibrated.backbone.clone())
        .unwrap();

    detector.set_metrics([("recall".to_string(), 0.5)].into());
    assert_eq!(detector.config().metrics["recall"], 0.5);
    assert_eq!(detector.config().metrics.len(), 1);
}

/// Its card is compared with what it records in `tests/hub/card.rs`.
#[test]
fn it_records_good_figures_and_is_small() {
    let metrics = detector().config().metrics.clone();
    for name in ["image_auroc", "pixel_auroc"] {
        assert!(metrics[name] >= 0.95, "{name} {}", metrics[name]);
    }
    let weights = examples().join("fabric-detector/model.safetensors");
    let bytes = std::fs::metadata(weights).unwrap().len();
    assert!(bytes < 3 << 20, "{bytes} bytes");
}

/// Cloth from another seed than any that was used to make it.
#[test]
fn it_keeps_its_figures_on_new_cloth() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("cloth");
    let options = GenerateOptions {
        seed: 77,
        train: 4,
        good: 14,
        defective: 14,
        size: 256,
    };
    GeneratedProduct::write(&data, &options).unwrap();
    let dataset = datasets::open(&data).unwrap();
    let evaluation = evaluate(&detector(), &dataset, Options::default(), &mut |_, _| {}).unwrap();
    assert!(
        evaluation.metrics.image_auroc >= 0.95,
        "{}",
        evaluation.metrics.image_auroc
    );
    assert!(evaluation.metrics.pixel_auroc.unwrap() >= 0.95);
}
