//! Python's huggingface_hub as an independent second client of the same server and the same cache.
//!
//! Runs where `FASTFLOW_TEST_PYTHON` names a Python that has it; says so where not.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use candle_fastflow::hub::{DatasetFacts, Hub, PublishOptions};
use serde_json::Value;

use crate::{
    setup::{REPO, Setup, Trained, isolated, weights},
    support::server::TOKEN,
};

const DETECTOR: &str = "zoo/fastflow-wavelet-cloth";

/// The interpreter, if there is one that knows the Hub.
fn python() -> Option<String> {
    let python = std::env::var("FASTFLOW_TEST_PYTHON").ok()?;
    let knows = Command::new(&python)
        .args(["-c", "import huggingface_hub"])
        .stderr(Stdio::null())
        .status();
    knows.is_ok_and(|status| status.success()).then_some(python)
}

fn skipped() {
    println!("skipped: FASTFLOW_TEST_PYTHON names no Python with huggingface_hub");
}

/// Runs a script with the setup's server and cache; its last line is JSON.
fn run(python: &str, setup: &Setup, script: &str, more: &[(&str, &str)]) -> Value {
    let mut command = Command::new(python);
    command
        .args(["-c", script])
        .env("HF_HOME", setup.cache.path())
        .env("HF_ENDPOINT", setup.server.url())
        .env("HF_HUB_DISABLE_TELEMETRY", "1")
        .env("HF_HUB_DISABLE_UPDATE_CHECK", "1")
        .env_remove("HF_HUB_CACHE")
        .env_remove("FASTFLOW_TEST_ISOLATED")
        .envs(more.iter().copied());
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_str(text.trim().lines().last().unwrap()).unwrap()
}

#[test]
fn python_downloads_what_we_published() {
    let Some(python) = python() else {
        return skipped();
    };
    isolated("python::python_downloads_what_we_published", || {
        let setup = Setup::new();
        let trained = Trained::new();
        let options = PublishOptions {
            dataset: Some(DatasetFacts::named("mvtec-ad")),
            tag: Some("v1".into()),
            ..Default::default()
        };
        let staged = setup
            .author()
            .stage(&trained.folder, &options, &|_| ())
            .unwrap();
        setup.author().upload(&staged, &options, &|_| ()).unwrap();
        let script = format!(
            "import json, huggingface_hub as hub\n\
             print(json.dumps([hub.snapshot_download('{DETECTOR}'), hub.snapshot_download('{DETECTOR}', revision='v1')]))"
        );
        let folders = run(&python, &setup, &script, &[]);
        for folder in folders.as_array().unwrap() {
            for file in &staged.files {
                let found = fs::read(Path::new(folder.as_str().unwrap()).join(&file.name)).unwrap();
                assert_eq!(
                    found,
                    fs::read(staged.folder().join(&file.name)).unwrap(),
                    "{}",
                    file.name
                );
            }
        }
    });
}

#[test]
fn each_finds_what_the_other_cached() {
    let Some(python) = python() else {
        return skipped();
    };
    let setup = Setup::new();
    let ours = setup.pull().unwrap();
    let offline = [("HF_HUB_OFFLINE", "1")];
    let script = format!(
        "import json, huggingface_hub as hub\n\
         print(json.dumps([hub.hf_hub_download('{REPO}', name) for name in ('config.json', 'model.safetensors', 'README.md')]))"
    );
    let found = run(&python, &setup, &script, &offline);
    for (path, name) in
        found
            .as_array()
            .unwrap()
            .iter()
            .zip(["config.json", "model.safetensors", "README.md"])
    {
        assert_eq!(Path::new(path.as_str().unwrap()), ours.join(name));
    }

    let fresh = Setup::new();
    let script = format!(
        "import json, huggingface_hub as hub\nprint(json.dumps(hub.snapshot_download('{REPO}')))"
    );
    let theirs = run(&python, &fresh, &script, &[]);
    let mut options = fresh.options();
    options.offline = true;
    let found = Hub::new(options)
        .unwrap()
        .fetch_detector("bottle", &|_| ())
        .unwrap();
    assert_eq!(found, Path::new(theirs.as_str().unwrap()));
    assert_eq!(
        fs::read(found.join("model.safetensors")).unwrap(),
        weights()
    );
    fresh.assert_sound();
}

#[test]
fn model_card_loads_every_card() {
    let Some(python) = python() else {
        return skipped();
    };
    let setup = Setup::new();
    let trained = Trained::new();
    let options = PublishOptions {
        dataset: Some(DatasetFacts::named("mvtec-ad")),
        ..Default::default()
    };
    let staged = setup
        .author()
        .stage(&trained.folder, &options, &|_| ())
        .unwrap();
    let metrics = candle_fastflow::detector::read_config(&trained.folder)
        .unwrap()
        .metrics;
    let script = "import json, sys, os, huggingface_hub as hub\n\
        card = hub.ModelCard.load(os.environ['CARD']).data\n\
        results = [[r.task_type, r.metric_type, r.metric_name, r.metric_value, r.dataset_type, r.dataset_name, r.dataset_config] for r in card.eval_results or []]\n\
        print(json.dumps({'tags': card.tags, 'license': card.license, 'library': card.library_name, 'base': card.base_model, 'results': results}))";
    let load = |card: &Path| run(&python, &setup, script, &[("CARD", card.to_str().unwrap())]);

    let card = load(&staged.folder().join("README.md"));
    assert_eq!(card["license"], "cc-by-nc-sa-4.0");
    let results = card["results"].as_array().unwrap();
    let value = |name: &str| {
        results.iter().find(|result| result[2] == name).unwrap()[3]
            .as_f64()
            .unwrap()
    };
    assert_eq!(value("Image AUROC"), metrics["image_auroc"]);
    assert_eq!(value("Pixel AUROC"), metrics["pixel_auroc"]);
    assert!(
        results.iter().all(|result| result[4] == "mvtec-ad"
            && result[5] == "MVTec AD"
            && result[6] == "cloth")
    );

    // The cards of the detectors that the project has trained itself.
    let cards = fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/model-cards")).unwrap();
    for path in cards.map(|entry| entry.unwrap().path()) {
        let is_card = path.extension().is_some_and(|extension| extension == "md")
            && path.file_stem() != Some("template".as_ref());
        if is_card {
            let card = load(&path);
            assert!(
                card["tags"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .any(|tag| tag == "fastflow"),
                "{}",
                path.display()
            );
        }
    }
}

#[test]
fn hf_upload_of_the_staged_folder_makes_the_same_tree() {
    let Some(python) = python() else {
        return skipped();
    };
    isolated(
        "python::hf_upload_of_the_staged_folder_makes_the_same_tree",
        || {
            let setup = Setup::new();
            let trained = Trained::new();
            let options = PublishOptions::default();
            let staged = setup
                .author()
                .stage(&trained.folder, &options, &|_| ())
                .unwrap();
            setup.author().upload(&staged, &options, &|_| ()).unwrap();
            let script = "import json, os, sys\n\
            sys.argv = ['hf', 'upload', 'zoo/by-python', os.environ['STAGED'], '.']\n\
            from huggingface_hub.cli.hf import main\n\
            try:\n    main()\n\
            except SystemExit as end:\n    assert not end.code, end.code\n\
            print(json.dumps('done'))";
            let staged_text = staged.folder().to_str().unwrap();
            // Its own server: nothing of the content may be there before.
            let other = Setup::new();
            let more = [("HF_TOKEN", TOKEN), ("STAGED", staged_text)];
            run(&python, &other, script, &more);
            let tree = |setup: &Setup, id: &str| -> Vec<(String, String, bool)> {
                let repos = setup.server.repos();
                let files = repos[id].head().tree.iter();
                files
                    .map(|(path, entry)| (path.clone(), entry.etag(), entry.large))
                    .collect()
            };
            assert_eq!(tree(&other, "zoo/by-python"), tree(&setup, DETECTOR));
        },
    );
}
