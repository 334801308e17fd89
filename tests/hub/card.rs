//! Model cards say what the artifact records, and nothing else.

use std::collections::BTreeSet;

use candle_fastflow::{
    detector::{DetectorConfig, read_config},
    hub::{CardFacts, DatasetFacts, render_card},
};
use serde_json::Value;

use crate::setup::Trained;

fn front_matter(card: &str) -> Value {
    let mut parts = card.splitn(3, "---\n");
    assert_eq!(parts.next(), Some(""));
    serde_yaml_ng::from_str(parts.next().unwrap()).unwrap()
}

fn card(config: &DetectorConfig, dataset: &str) -> String {
    let facts = CardFacts {
        reference: Some("cloth@wavelet".into()),
        dataset: Some(DatasetFacts::named(dataset)),
        licence: None,
    };
    render_card(config, &facts).unwrap()
}

/// Every number of a text, as it is written.
fn numbers(text: &str) -> BTreeSet<String> {
    let text = text.replace("SHA-256", "SHA");
    let parts = text.split(|c: char| !c.is_ascii_digit() && c != '.');
    let trimmed = parts.map(|part| part.trim_matches('.').to_string());
    trimmed
        .filter(|part| part.chars().any(|c| c.is_ascii_digit()))
        .collect()
}

#[test]
fn front_matter_is_what_the_hub_wants() {
    let trained = Trained::new();
    let config = read_config(&trained.folder).unwrap();
    let front = front_matter(&card(&config, "mvtec-ad"));
    assert_eq!(front["license"], "cc-by-nc-sa-4.0");
    assert_eq!(front["library_name"], "candle-fastflow");
    assert_eq!(front["pipeline_tag"], "image-classification");
    for tag in ["anomaly-detection", "fastflow", "candle", "mvtec-ad"] {
        assert!(
            front["tags"]
                .as_array()
                .unwrap()
                .iter()
                .any(|found| found == tag),
            "{tag}"
        );
    }
    let results = front["model-index"][0]["results"].as_array().unwrap();
    let tasks: Vec<_> = results
        .iter()
        .map(|result| result["task"]["type"].as_str().unwrap())
        .collect();
    assert_eq!(tasks, ["image-classification", "image-segmentation"]);
    for result in results {
        assert_eq!(result["dataset"]["type"], "mvtec-ad");
        assert_eq!(result["dataset"]["name"], "MVTec AD");
        assert_eq!(result["dataset"]["config"], "cloth");
        assert_eq!(result["dataset"]["split"], "test");
    }
    let metric = &results[0]["metrics"][0];
    assert_eq!(
        (&metric["type"], &metric["name"]),
        (&"roc_auc".into(), &"Image AUROC".into())
    );
    assert_eq!(
        metric["value"].as_f64(),
        Some(config.metrics["image_auroc"])
    );
}

#[test]
fn a_card_shows_no_number_that_the_artifact_does_not_carry() {
    let trained = Trained::new();
    let config = read_config(&trained.folder).unwrap();
    let full = card(&config, "cloth");
    // The same detector without any record: what numbers are left are the template's own words.
    let bare = DetectorConfig {
        training: None,
        calibration: None,
        metrics: Default::default(),
        ..config.clone()
    };
    let template = numbers(&card(&bare, "cloth"));
    let mut carried = numbers(&serde_json::to_string(&config).unwrap());
    let rounded = config.metrics.values().map(|value| format!("{value:.4}"));
    carried
        .extend(rounded.map(|text| text.trim_end_matches('0').trim_end_matches('.').to_string()));
    let calibration = config.calibration.as_ref().unwrap();
    carried.insert(calibration.normal_scores.len().to_string());
    carried.insert((100.0 * calibration.false_alarm_rate).to_string());
    let invented: Vec<_> = numbers(&full)
        .into_iter()
        .filter(|number| !carried.contains(number) && !template.contains(number))
        .collect();
    assert!(invented.is_empty(), "{invented:?}");
}

#[test]
fn what_was_not_measured_is_not_shown() {
    let trained = Trained::new();
    let config = read_config(&trained.folder).unwrap();
    let bare = DetectorConfig {
        metrics: Default::default(),
        calibration: None,
        ..config.clone()
    };
    let text = card(&bare, "cloth");
    assert!(front_matter(&text).get("model-index").is_none());
    assert!(
        !text.contains("AUROC") && text.contains("not calibrated"),
        "{text}"
    );
    let some = [("image_auroc".to_string(), 0.75)].into();
    let text = card(
        &DetectorConfig {
            metrics: some,
            ..config
        },
        "cloth",
    );
    assert!(
        text.contains("Image AUROC | 0.75 |") && !text.contains("Pixel AUROC"),
        "{text}"
    );
    assert!(front_matter(&text).get("license").is_none());
}

#[test]
fn odd_names_do_not_break_the_front_matter() {
    let trained = Trained::new();
    let config = read_config(&trained.folder).unwrap();
    let name = "nut: \"M8\" # 'x' [<b>] {{ 7 }} \\ ä";
    let front = front_matter(&card(
        &DetectorConfig {
            name: name.into(),
            ..config.clone()
        },
        name,
    ));
    assert_eq!(
        front["model-index"][0]["results"][0]["dataset"]["config"],
        name
    );
    let broken = DetectorConfig {
        name: "a\n---\nlicense: mit".into(),
        ..config
    };
    assert!(render_card(&broken, &CardFacts::default()).is_err());
}

#[test]
fn a_backbone_with_weights_is_named_with_its_pin() {
    let trained = Trained::new();
    let mut config = read_config(&trained.folder).unwrap();
    config.backbone.id = "resnet18.tv_in1k".into();
    config.backbone.repo = Some("timm/resnet18.tv_in1k".into());
    config.backbone.revision = Some("0123456789".into());
    let text = card(&config, "visa");
    assert_eq!(front_matter(&text)["base_model"], "timm/resnet18.tv_in1k");
    assert!(
        text.contains("pinned to commit `0123456789`") && text.contains("bsd-3-clause")
            || text.contains("BSD-3-Clause"),
        "{text}"
    );
}
