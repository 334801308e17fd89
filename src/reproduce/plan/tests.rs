//! Plans that are read, and plans that are refused.
#![allow(clippy::unwrap_used)]
use super::*;
use crate::estimators::flow::{FeatureNorm, Kernels, Preset};
use crate::training::TrainConfig;

fn read(text: &str) -> Result<Plan> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plan.toml");
    std::fs::write(&path, text).unwrap();
    Plan::read(&path, None)
}

const PLAN: &str = r#"
dataset = "MVTec AD"
data = "mvtec"
categories = ["bottle", "transistor"]
backbones = ["resnet18", "wavelet"]
seeds = [0, 1]
[settings]
epochs = 5
views = 4
[category.transistor]
rotation = 5
rotation_probability = 0.0
views = 2
[variant.three]
kernels = "3-3"
backbones = ["resnet18"]
[variant.plain]
views = 1
[variant.exp]
map = "exp"
top_k = 100
"#;

#[test]
fn settings_merge_plan_then_category_then_variant() {
    let plan = read(PLAN).unwrap();
    assert_eq!(plan.dataset, "mvtec-ad");
    assert_eq!(plan.backbones, ["resnet18.tv_in1k", "wavelet"]);
    let names: Vec<&str> = plan.variants.iter().map(|v| v.name.as_str()).collect();
    assert_eq!(names, ["base", "three", "plain", "exp"]);
    let settings = |variant: &str, category: &str| {
        let variant = plan.variant(variant).unwrap();
        plan.settings(variant, category).unwrap()
    };
    let three = settings("three", "bottle");
    assert_eq!((three.kernels, three.views), (Some(Kernels::Three), 4));
    assert_eq!(plan.variant("three").unwrap().backbones.len(), 1);
    let turned = settings("base", "transistor");
    assert_eq!((turned.rotation_probability, turned.views), (0.0, 2));
    let views = |settings: Settings| {
        let config = settings.resolve("wavelet", 0).unwrap();
        config.augmentation.unwrap().views
    };
    // Degrees, as `train --rotation`; the paper's probability unless said otherwise.
    assert_eq!(
        (views(turned.clone()).degrees, views(turned).rotation),
        (5.0, 0.0)
    );
    let usual = views(settings("base", "bottle"));
    assert_eq!((usual.degrees, usual.rotation), (15.0, 0.7));
    assert_eq!(settings("plain", "transistor").views, 1);
    let scoring: Vec<bool> = plan.variants.iter().map(|v| v.scoring_only).collect();
    assert_eq!(scoring, [false, false, false, true]);
}

#[test]
fn detectors_that_standardise_are_trained_for_every_way_of_scoring() {
    let only_scoring = |plan: &str| {
        let plan = read(plan).unwrap();
        plan.variant("exp").unwrap().scoring_only
    };
    assert!(only_scoring(PLAN));
    for table in ["[settings]", "[category.transistor]"] {
        let own = format!("{table}\nstandardise_scales = true");
        assert!(!only_scoring(&PLAN.replace(table, &own)), "{table}");
    }
}

#[test]
fn norms_are_spelled_as_on_the_command_line() {
    for name in ["layer-norm-affine", "layer_norm_affine"] {
        let norm = format!("[settings]\nnorm = \"{name}\"");
        let plan = read(&PLAN.replace("[settings]", &norm)).unwrap();
        let settings = plan.settings(&plan.variants[0], "bottle").unwrap();
        assert_eq!(settings.norm, Some(FeatureNorm::LayerNormAffine));
    }
}

/// What would otherwise stop the plan at the cell that it concerns, hours later.
#[test]
fn mistakes_of_every_cell_are_told_with_their_table() {
    let added = |table: &str, line: &str| {
        let text = PLAN.replacen(table, &format!("{table}\n{line}"), 1);
        let message = read(&text).unwrap_err().to_string();
        assert!(message.contains("plan.toml: "), "{message}");
        assert!(!message.contains('\n'), "{message}");
        message
    };
    for (table, line, place, what) in [
        (
            "[settings]",
            "hidden = -1.0",
            "[settings], backbone resnet18.tv_in1k",
            "hidden",
        ),
        (
            "[settings]",
            "size = 100",
            "[settings], backbone wavelet",
            "16",
        ),
        ("[variant.plain]", "steps = 0", "[variant.plain]", "steps"),
        ("[variant.three]", "clamp = 99", "[variant.three]", "clamp"),
        (
            "[variant.exp]",
            "image_weights = [1, 2]",
            "[variant.exp]",
            "3 scales",
        ),
        (
            "[variant.exp]",
            "pixel_size = 0",
            "[variant.exp]",
            "pixel_size",
        ),
        (
            "[category.transistor]",
            "batch = 0",
            "[category.transistor]",
            "batch",
        ),
        (
            "[category.transistor]",
            "horizontal_flip = 2",
            "[category.transistor]",
            "horizontal_flip",
        ),
        (
            "[category.transistor]",
            "seed = 1",
            "[category.transistor]",
            "seed",
        ),
        (
            "[variant.plain]",
            "epochs = \"5\"",
            "[variant.plain]",
            "epochs",
        ),
        (
            "[variant.plain]",
            "backbones = [\"resnet81\"]",
            "variant.plain.backbones",
            "resnet81",
        ),
        (
            "[variant.plain]",
            "backbones = []",
            "variant.plain.backbones",
            "at least one",
        ),
    ] {
        let message = added(table, line);
        assert!(
            message.contains(place) && message.contains(what),
            "{line}: {message}"
        );
    }
    // In both the category's and the variant's table, and right in each.
    let both = PLAN
        .replace("views = 2", "views = 2\nfinal = true")
        .replace("kernels =", "stop_on = \"synthetic\"\nkernels =");
    let message = read(&both).unwrap_err().to_string();
    assert!(
        message.contains("[variant.three] with [category.transistor]"),
        "{message}"
    );
    // Of another number of scales than the other backbone.
    let scales = PLAN.replace("\"wavelet\"", "\"cait_m48_448\"");
    let message = read(&scales.replace("top_k =", "image_weights = [0, 1, 1]\ntop_k ="));
    let message = message.unwrap_err().to_string();
    assert!(
        message.contains("[variant.exp], backbone cait_m48_448.fb_dist_in1k"),
        "{message}"
    );
}

#[test]
fn mistakes_are_told_in_one_line() {
    for (good, bad, word) in [
        ("epochs = 5", "epoch = 5", "epoch"),
        ("epochs = 5", "epochs = 0", "epochs must be"),
        ("epochs = 5", "epochs = ", "line 8"),
        ("dataset =", "data_set =", "data_set"),
        ("\"wavelet\"", "\"resnet18\"", "twice"),
        ("\"wavelet\"", "\"resnet81\"", "resnet81"),
        ("\"wavelet\"", "\"resnet81\"", "plan.toml: backbones: "),
        ("\"bottle\"", "\"../bottle\"", "names consist"),
        ("\"bottle\"", "\"\"", "categories: ``: names consist"),
        (
            "variant.plain",
            "variant.\"\"",
            "variant: ``: names consist",
        ),
        ("variant.exp", "variant.base", "another name"),
        ("category.transistor", "category.grid", "category.grid"),
        ("data = \"mvtec\"", "", "`data`"),
        ("kernels = \"3-3\"", "kernels = \"5-5\"", "5-5"),
        (
            "[\"resnet18\"]\n[variant.plain",
            "[\"cait_m48_448\"]\n[variant.plain",
            "not one of",
        ),
    ] {
        assert!(PLAN.contains(good), "{good}");
        let message = read(&PLAN.replacen(good, bad, 1)).unwrap_err().to_string();
        assert!(
            message.contains(word) && !message.contains('\n'),
            "{bad}: {message}"
        );
    }
}

/// What docs/accuracy.md says of the plan behind its figures.
#[test]
fn the_screw_plan_is_the_settings_that_were_measured() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/plans/screw.toml");
    let text = std::fs::read_to_string(file).unwrap();
    let written_out = r#"
norm = "whiten"
batch = 4
epochs = 16
learning_rate = 0.004
schedule = "warm-cosine"
map = "exp"
top_k = 225
image_weights = [0, 1, 1]
"#;
    let config = |text: &str| {
        let plan = read(&format!("data = \"mvtec\"\n{text}")).unwrap();
        let settings = plan.settings(plan.variant("base").unwrap(), "screw");
        let config = settings.unwrap().resolve("resnet18.tv_in1k", 1);
        TrainConfig {
            preset: Preset::Paper,
            // The preset's alone, since then.
            adaptive_clip: false,
            ..config.unwrap()
        }
    };
    let preset = "preset = \"whitened\"\n";
    assert!(text.contains(preset));
    assert_eq!(config(&text), config(&text.replace(preset, written_out)));
}
