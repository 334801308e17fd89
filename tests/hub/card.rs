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
    let nll = config
        .training
        .as_ref()
        .unwrap()
        .optimisation
        .as_ref()
        .unwrap()
        .held_out_nll;
    let rounded = config.metrics.values().chain([&nll]);
    let rounded = rounded.map(|value| format!("{value:.4}"));
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

/// The cards in `model-cards` are links into the detectors' own folders.
#[test]
fn the_projects_cards_are_rendered_from_their_artifacts() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut count = 0;
    for entry in std::fs::read_dir(root.join("model-cards")).unwrap() {
        let path = entry.unwrap().path();
        let is_card = path.extension().is_some_and(|extension| extension == "md");
        if !is_card || path.ends_with("template.md") {
            continue;
        }
        let card = path.canonicalize().unwrap();
        let folder = card.parent().unwrap();
        let root = root.canonicalize().unwrap();
        let facts = CardFacts {
            reference: Some(folder.strip_prefix(&root).unwrap().display().to_string()),
            ..Default::default()
        };
        let rendered = render_card(&read_config(folder).unwrap(), &facts).unwrap();
        assert!(
            std::fs::read_to_string(&card).unwrap() == rendered,
            "{}: run `fastflow card DIR --reference DIR -o DIR/README.md` in the repository",
            path.display()
        );
        count += 1;
    }
    assert!(count > 0);
}

#[test]
fn what_the_artifact_records_needs_no_flags() {
    let trained = Trained::new();
    trained.edit(|config| {
        config["training"]["dataset"] =
            serde_json::json!({"name": "MVTec AD", "licence": "CC-BY-NC-SA-4.0"});
        config["notes"] = "Trained by **hand**.".into();
    });
    let config = read_config(&trained.folder).unwrap();
    let text = render_card(&config, &CardFacts::default()).unwrap();
    let front = front_matter(&text);
    assert_eq!(front["license"], "cc-by-nc-sa-4.0");
    assert_eq!(
        front["model-index"][0]["results"][0]["dataset"]["type"],
        "mvtec-ad"
    );
    assert!(
        text.contains("## Notes\n\nTrained by **hand**.\n\n## Limits"),
        "{text}"
    );
    assert!(text.contains("may not be used commercially"), "{text}");

    let own = DetectorConfig {
        licence: Some("MIT".into()),
        ..config.clone()
    };
    let text = render_card(&own, &CardFacts::default()).unwrap();
    assert_eq!(front_matter(&text)["license"], "mit");
    // What is said now goes before what was recorded.
    let text = card(&config, "visa");
    assert_eq!(
        front_matter(&text)["model-index"][0]["results"][0]["dataset"]["name"],
        "VisA"
    );
    assert!(text.contains("CC-BY-4.0") && !text.contains("may not be used commercially"));
    for (field, value) in [
        ("licence", "MIT\n---\n"),
        ("name", "a\nb"),
        ("notes", "a\u{1b}[2J"),
    ] {
        let broken = Trained::new();
        broken.edit(|config| config[field] = value.into());
        let error = read_config(&broken.folder).unwrap_err().to_string();
        assert!(error.contains(field), "{error}");
    }
}

#[test]
fn the_card_verb_records_what_it_is_told() {
    let trained = Trained::new();
    let folder = trained.folder.to_str().unwrap();
    let notes = trained.folder.join("notes.md");
    std::fs::write(&notes, "It is a test.\n").unwrap();
    let fastflow = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_fastflow"));
        let output = command
            .arg("card")
            .arg(folder)
            .args(arguments)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    };
    let flags = [
        "--dataset",
        "Our cloth",
        "--dataset-licence",
        "CC0-1.0",
        "--licence",
        "MIT",
    ];
    let shown = fastflow(&flags);
    assert!(
        shown.contains("Our cloth") && shown.contains("CC0-1.0"),
        "{shown}"
    );
    assert!(!fastflow(&[]).contains("Our cloth"));
    let more = ["--record", "--notes", notes.to_str().unwrap()];
    let recorded = fastflow(&[&flags[..], &more].concat());
    assert!(recorded.contains("It is a test."), "{recorded}");
    assert_eq!(fastflow(&[]), recorded);
}
