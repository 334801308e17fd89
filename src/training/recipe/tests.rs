#![allow(clippy::unwrap_used)]
use super::*;

fn resolved(settings: Settings) -> TrainConfig {
    settings.resolve("resnet18.tv_in1k", 0).unwrap()
}

#[test]
fn the_whitened_preset_is_whole_and_scores_by_the_size_of_the_input() {
    let whitened = |size| {
        resolved(Settings {
            preset: Some(Preset::Whitened),
            size,
            ..Settings::default()
        })
    };
    let config = whitened(None);
    assert_eq!(config.scoring.image_score, ImageScore::TopK(100));
    assert_eq!(config.scoring.image_weights, Some(vec![0.0, 1.0, 1.0]));
    assert_eq!(config.scoring.image_map, MapKind::Exp);
    assert_eq!((config.epochs, config.batch), (16, 4));
    let flow = config.estimator.as_flow().unwrap();
    assert_eq!(flow.norm, FeatureNorm::Whiten);
    let large = whitened(Some(InputSize::Side(384))).scoring;
    assert_eq!(large.image_score, ImageScore::TopK(225));
    let tokens = Settings {
        preset: Some(Preset::Whitened),
        ..Settings::default()
    };
    let tokens = tokens.resolve("deit_tiny_patch16_224", 0).unwrap();
    assert_eq!(tokens.scoring.image_weights, None);
}

#[test]
fn a_method_has_its_own_taps_and_scores() {
    let patchcore = Settings {
        method: Some(Method::PatchCore),
        ..Settings::default()
    };
    let taps = |backbone| patchcore.backbone_taps(backbone).unwrap();
    assert_eq!(taps("resnet18").unwrap().as_slice(), [2, 3]);
    assert_eq!(taps("wavelet"), None);
    let config = resolved(patchcore.clone());
    assert_eq!(config.scoring.image_map, MapKind::Distance);
    let own = Settings {
        taps: Some("1,2,3".parse().unwrap()),
        ..patchcore
    };
    assert_eq!(own.backbone_taps("resnet18").unwrap(), None);
}

#[test]
fn settings_of_another_method_are_refused() {
    let error = |settings: Settings| {
        let error = settings.resolve("resnet18", 0).unwrap_err();
        error.to_string()
    };
    let found = error(Settings {
        method: Some(Method::PatchCore),
        epochs: Some(3),
        ..Settings::default()
    });
    assert!(
        found.contains("patchcore") && found.contains("epochs"),
        "{found}"
    );
    let found = error(Settings {
        method: Some(Method::FastFlow),
        memory: Some(10),
        ..Settings::default()
    });
    assert!(
        found.contains("fastflow") && found.contains("memory"),
        "{found}"
    );
    let found = error(Settings {
        method: Some(Method::PatchCore),
        map: Some(MapKind::Nll),
        ..Settings::default()
    });
    assert!(found.contains("PatchCore has no map `nll`"), "{found}");
}

#[test]
fn the_default_recipe_takes_the_photos_shape_at_three_sizes() {
    let recipe = Settings {
        aspect: Some(0.4),
        ..Settings::default()
    };
    let config = resolved(recipe);
    let input = &config.preprocessing;
    assert_eq!((input.height, input.width), (608, 240));
    assert_eq!(input.pyramid, [(400, 160), (304, 128)]);
    let EstimatorConfig::PatchCore(patchcore) = &config.estimator else {
        panic!("{:?}", config.estimator);
    };
    assert_eq!((patchcore.inputs, patchcore.memory), (3, 5000));
    assert_eq!(config.scoring.image_score, ImageScore::TopK(1459));
    let smaller = Settings {
        size: Some(InputSize::Side(256)),
        ..Settings::default()
    };
    let input = resolved(smaller).preprocessing;
    assert_eq!((input.height, input.width), (256, 256));
    assert_eq!(input.pyramid, [(176, 176), (128, 128)]);
}

#[test]
fn what_only_a_flow_has_chooses_it() {
    let epochs = Settings {
        epochs: Some(3),
        ..Settings::default()
    };
    assert_eq!(epochs.chosen_method(), Some(Method::FastFlow));
    assert_eq!(resolved(epochs).scoring.image_map, MapKind::Prob);
    assert_eq!(Settings::default().chosen_method(), None);
}

#[test]
fn cflow_has_an_optimiser_and_stages_of_its_own() {
    let cflow = Settings {
        method: Some(Method::CFlow),
        steps: Some(5),
        weight_decay: Some(0.0),
        ..Settings::default()
    };
    let taps = cflow.backbone_taps("resnet18").unwrap().unwrap();
    assert_eq!(taps.as_slice(), [2, 3]);
    let config = resolved(cflow.clone());
    assert_eq!(config.epochs, OptimiserDefaults::CFLOW.epochs);
    assert_eq!(config.scoring.image_map, MapKind::Nll);
    let EstimatorConfig::CFlow(flow) = &config.estimator else {
        panic!("{:?}", config.estimator);
    };
    assert_eq!(flow.steps, 5);
    let foreign = Settings {
        clamp: Some(2.0),
        ..cflow
    };
    let error = foreign.resolve("resnet18", 0).unwrap_err().to_string();
    assert!(
        error.contains("cflow") && error.contains("clamp"),
        "{error}"
    );
}
