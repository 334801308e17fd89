//! Tables of results that nobody computed: which sample stands where.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use super::*;
use crate::reproduce::result::{Scored, tests::result};

/// The tables of a plan in which every cell of a backbone scored `score` of its id.
fn made(plan: &str, score: impl Fn(&str) -> f64) -> Tables {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plan.toml");
    std::fs::write(&path, plan).unwrap();
    let plan = Plan::read(&path, Some(folder.path())).unwrap();
    for cell in plan.cells() {
        let mut result = result();
        let settings = plan.settings(plan.variant(&cell.variant).unwrap(), &cell.category);
        result.inputs.dataset = plan.dataset.clone();
        result.inputs.settings = settings.unwrap();
        let names = ["image_auroc", "pixel_auroc"].map(String::from);
        let metrics: BTreeMap<String, f64> = names.map(|name| (name, score(&cell.backbone))).into();
        let scored = Scored {
            settings: result.inputs.settings.clone(),
            metrics,
        };
        result.scores.insert(cell.variant.clone(), scored);
        result.write(&cell.result(folder.path())).unwrap();
    }
    tables(&plan, folder.path()).unwrap()
}

fn numbered(tables: &Tables, number: u8) -> &Table {
    let mut all = tables.tables.iter();
    all.find(|table| table.number == Some(number)).unwrap()
}

/// The rows that begin with a text, without it.
fn rows<'a>(table: &'a Table, name: &str) -> Vec<&'a [Entry]> {
    let name = Entry::Text(name.into());
    let rows = table.rows.iter().filter(|row| row[0] == name);
    rows.map(|row| &row[1..]).collect()
}

fn mean(entry: &Entry) -> (f64, usize, usize) {
    match entry {
        Entry::Measured(figure) => (figure.mean, figure.categories, figure.of),
        other => unreachable!("{other:?}"),
    }
}

const TWO_TAGS: &str = r#"
dataset = "mvtec-ad"
categories = ["bottle"]
backbones = ["resnet18", "resnet18.a1_in1k", "wavelet"]
[variant.kernels]
kernels = "3-1"
"#;

#[test]
fn tags_of_one_architecture_do_not_mix() {
    let score = |id: &str| match id {
        "resnet18.tv_in1k" => 0.9,
        "resnet18.a1_in1k" => 0.5,
        _ => 0.25,
    };
    let tables = made(TWO_TAGS, score);
    let both = [("resnet18.tv_in1k", 90.0), ("resnet18.a1_in1k", 50.0)];
    for (id, auroc) in both {
        let own = rows(numbered(&tables, 1), id);
        assert_eq!(own.len(), 1, "{id}");
        assert_eq!(mean(&own[0][4]), (auroc, 1, 15));
        // A row of ours for each published row of the architecture.
        let kernels = rows(numbered(&tables, 5), id);
        assert_eq!(kernels.len(), 2, "{id}");
        assert!(
            kernels
                .iter()
                .all(|row| row[4] == Entry::Published(97.3) || row[4] == Entry::Published(97.9))
        );
        let head = format!("ours, default recipe (PatchCore), {id}: image");
        let table = numbered(&tables, 2);
        let column = table.columns.iter().position(|c| *c == head).unwrap();
        assert_eq!(mean(&table.rows[0][column]), (auroc, 1, 1));
    }
    // One that is there once keeps its short name, and the published rows stay.
    assert_eq!(
        mean(&rows(numbered(&tables, 1), "wavelet")[0][4]),
        (25.0, 1, 15)
    );
    assert_eq!(rows(numbered(&tables, 1), "ResNet18").len(), 4);
}

#[test]
fn a_mean_of_some_categories_says_so_beside_the_papers() {
    let last = |tables: &Tables, number| {
        let table = numbered(tables, number);
        let row = table.rows.last().unwrap();
        assert_eq!(row[0], Entry::Text("mean".into()));
        row.iter()
            .find(|entry| matches!(entry, Entry::Measured(_)))
            .map(mean)
    };
    let plan = |dataset: &str, categories: &str| {
        let plan = TWO_TAGS.replace("mvtec-ad", dataset);
        plan.replace("[\"bottle\"]", categories)
    };
    let half = |_: &str| 0.5;
    let some = made(&plan("mvtec-ad", "[\"bottle\", \"screw\"]"), half);
    assert_eq!(last(&some, 2), Some((50.0, 2, 15)));
    let some = made(&plan("btad", "[\"01\"]"), half);
    assert_eq!(last(&some, 3), Some((50.0, 1, 3)));
    // More than the paper has.
    let more = made(&plan("btad", "[\"01\", \"02\", \"03\", \"04\"]"), half);
    assert_eq!(last(&more, 3), Some((50.0, 4, 4)));
    let some = made(
        &plan("cifar10", "[\"cat\", \"not-cat\", \"not-dog\"]"),
        half,
    );
    assert_eq!(mean(&numbered(&some, 4).rows[0][1]), (50.0, 1, 10));
    let complexity = some
        .tables
        .iter()
        .find(|table| table.number.is_none())
        .unwrap();
    assert_eq!(mean(&complexity.rows[0][5]), (50.0, 1, 10));
}

const METHODS: &str = r#"
dataset = "mvtec-ad"
categories = ["bottle"]
backbones = ["resnet18", "wavelet"]
[settings]
preset = "paper"
epochs = 500
[category.bottle]
vertical_flip = 0.0
[variant.patchcore]
method = "patchcore"
[variant.padim]
method = "padim"
backbones = ["resnet18"]
[variant.padim-12]
method = "padim"
channels = 12
backbones = ["resnet18"]
[variant.larger]
method = "padim"
size = 384
[variant.additive]
coupling = "additive"
"#;

#[test]
fn a_variant_that_changes_only_the_method_stands_beside_the_papers() {
    let tables = made(METHODS, |id| if id == "wavelet" { 0.25 } else { 0.9 });
    let complexity = numbered(&tables, 1);
    let methods = |name: &str| -> Vec<&Entry> {
        let rows = rows(complexity, name);
        rows.iter().map(|row| &row[0]).collect()
    };
    let text = |method: &str| Entry::Text(method.into());
    assert_eq!(
        methods("wavelet"),
        [&text("FastFlow, ours"), &text("PatchCore, ours")]
    );
    let all = methods("ResNet18");
    assert_eq!(
        all[..5],
        [
            &text("FastFlow, ours"),
            &text("PatchCore, ours"),
            &text("PaDiM, ours"),
            &text("PaDiM (padim-12), ours"),
            &text("SPADE")
        ]
    );
    let table = numbered(&tables, 2);
    let ours: Vec<&str> = table
        .columns
        .iter()
        .filter_map(|column| column.strip_prefix("ours, ")?.strip_suffix(": image"))
        .collect();
    assert_eq!(
        ours,
        [
            "FastFlow, resnet18",
            "PatchCore, resnet18",
            "PaDiM, resnet18",
            "PaDiM (padim-12), resnet18",
            "FastFlow, wavelet",
            "PatchCore, wavelet"
        ]
    );
    assert!(
        table
            .rows
            .iter()
            .all(|row| row.len() == table.columns.len())
    );
}

#[test]
fn speed_is_measured_without_training_and_says_that_its_weights_are_random() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plan.toml");
    let small = METHODS.replace("epochs = 500", "epochs = 500\nsize = 64");
    std::fs::write(&path, small).unwrap();
    let plan = Plan::read(&path, Some(folder.path())).unwrap();
    let device = candle_core::Device::Cpu;
    let mut told = Vec::new();
    let measure = |told: &mut Vec<String>| {
        let mut tell = |what: &str| told.push(what.to_string());
        crate::reproduce::measure_speeds(&plan, folder.path(), &device, &mut tell).unwrap();
    };
    measure(&mut told);
    assert_eq!(told.len(), 6, "{told:?}");
    // What is there is kept.
    measure(&mut told);
    assert_eq!(told.len(), 6, "{told:?}");
    let tables = tables(&plan, folder.path()).unwrap();
    let complexity = numbered(&tables, 1);
    let own = rows(complexity, "ResNet18");
    assert_eq!(
        own[1][0],
        Entry::Text("PatchCore, ours (speed with random weights)".into())
    );
    assert!(mean(&own[1][1]).0 > 0.0);
    assert_eq!(mean(&own[1][3]).0, 0.0);
    assert!(mean(&own[0][3]).0 > 4.0);
    assert_eq!(own[1][4], Entry::Empty);
    assert_eq!(
        rows(complexity, "wavelet")[1][0],
        Entry::Text("PatchCore, ours".into())
    );
}
