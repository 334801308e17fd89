//! The program and the script, as users run them: in processes of their own, settings from the environment.

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
    time::Duration,
};

use candle_fastflow::detector::read_config;

use crate::{
    setup::{REPO, Setup, Trained, scores, weights},
    support::{
        content::sha256,
        faults::{Fault, Kind},
        server::{TOKEN, TestHub, USER},
    },
};

const DETECTOR: &str = "zoo/fastflow-wavelet-cloth";

fn fastflow(setup: &Setup, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fastflow"));
    command.args(arguments);
    surround(&mut command, setup);
    command
}

fn surround(command: &mut Command, setup: &Setup) {
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", setup.cache.path())
        .env("HF_HOME", setup.cache.path())
        .env("HF_ENDPOINT", setup.server.url())
        .env("FASTFLOW_NAMESPACE", "zoo")
        .stdin(Stdio::null());
}

fn succeeded(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn failed(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", told(&output));
    String::from_utf8(output.stderr).unwrap()
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn infer_by_name_downloads_and_scores_as_the_folder_does() {
    let setup = Setup::new();
    let trained = Trained::new();
    trained.put(&setup.server, DETECTOR);
    let photo = trained.test_photos().remove(0);
    let photo_text = photo.to_str().unwrap();
    let infer = |name: &str| succeeded(fastflow(&setup, &["infer", name, photo_text, "--json"]));
    let by_name = infer("cloth@wavelet");
    assert_eq!(by_name, infer(trained.folder.to_str().unwrap()));
    let score = serde_json::from_str::<serde_json::Value>(&by_name).unwrap()["score"]
        .as_f64()
        .unwrap();
    assert_eq!(
        (score as f32).to_bits(),
        scores(&trained.folder, std::slice::from_ref(&photo))[0].0
    );

    let mut offline = fastflow(&setup, &["infer", "cloth@wavelet", photo_text, "--json"]);
    offline
        .env("HF_HUB_OFFLINE", "1")
        .env("HF_ENDPOINT", "http://127.0.0.1:9");
    assert_eq!(succeeded(offline), by_name);

    let error = failed(fastflow(&setup, &["infer", "clot@wavelet", photo_text]));
    assert!(error.contains("did you mean cloth@wavelet"), "{error}");
    assert_eq!(error.trim().lines().count(), 1, "{error}");
}

#[test]
fn pull_and_list() {
    let setup = Setup::new();
    let trained = Trained::new();
    trained.put(&setup.server, DETECTOR);
    let told = succeeded(fastflow(&setup, &["pull", "cloth@wavelet", "--json"]));
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    let folder = Path::new(told["folder"].as_str().unwrap()).to_path_buf();
    assert!(
        folder.starts_with(setup.cache.path().join("hub")),
        "{}",
        folder.display()
    );

    let listed = succeeded(fastflow(&setup, &["list", "--json"]));
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let names: Vec<_> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["bottle", "cloth@wavelet"]);
    assert_eq!(listed[1]["cached"], true);
    assert!(
        listed[1].get("image_auroc").is_none(),
        "the card on the server holds no figures"
    );
    let table = succeeded(fastflow(&setup, &["list"]));
    assert!(
        table.contains("cloth@wavelet") && table.contains("bottle"),
        "{table}"
    );
    let backbones = succeeded(fastflow(&setup, &["list", "--backbones", "--json"]));
    let backbones: serde_json::Value = serde_json::from_str(&backbones).unwrap();
    let cached = |id: &str| {
        backbones
            .as_array()
            .unwrap()
            .iter()
            .find(|row| row["id"] == id)
            .unwrap()["cached"]
            .clone()
    };
    assert_eq!(
        (cached("wavelet"), cached("resnet18.tv_in1k")),
        (true.into(), false.into())
    );
}

#[test]
fn pull_to_makes_a_folder_for_a_machine_without_network() {
    let setup = Setup::new();
    let trained = Trained::new();
    trained.edit(|config| config["backbone"]["id"] = "resnet18.tv_in1k".into());
    trained.put(&setup.server, "zoo/fastflow-resnet18-cloth");
    let files: [(&str, &[u8]); 1] = [("model.safetensors", &weights())];
    let pin = setup.server.put("timm/resnet18.tv_in1k", &files);
    let to = setup.cache.path().join("carried");
    let to_text = to.to_str().unwrap();
    succeeded(fastflow(&setup, &["pull", "cloth", "--to", to_text]));
    for (file, content) in [
        (
            "model.safetensors",
            fs::read(trained.folder.join("model.safetensors")).unwrap(),
        ),
        ("backbones/resnet18.tv_in1k/model.safetensors", weights()),
    ] {
        assert_eq!(fs::read(to.join(file)).unwrap(), content, "{file}");
        assert!(
            !to.join(file).is_symlink(),
            "{file} must not need the cache"
        );
    }
    // The detector did not say which weights it needs; the folder does.
    let mut expected = read_config(&trained.folder).unwrap();
    expected.backbone.repo = Some("timm/resnet18.tv_in1k".into());
    expected.backbone.revision = Some(pin);
    expected.backbone.sha256 = Some(sha256(&weights()));
    assert_eq!(read_config(&to).unwrap(), expected);

    setup.server.seen();
    let error = failed(fastflow(&setup, &["pull", "cloth", "--to", to_text]));
    assert!(error.contains("carried"), "{error}");
    assert!(setup.server.seen().is_empty(), "downloads for nothing");

    let own = setup.cache.path().join("own.safetensors");
    let own_text = own.to_str().unwrap();
    let other = setup.cache.path().join("other");
    let arguments = |to: &'static str| {
        let to = setup.cache.path().join(to).display().to_string();
        let words = ["pull", "cloth", "--to", &to, "--backbone-weights", own_text];
        words.map(String::from)
    };
    let pull = |to| {
        let arguments = arguments(to);
        fastflow(&setup, &arguments.each_ref().map(String::as_str))
    };
    let error = failed(pull("other"));
    assert!(error.contains("own.safetensors"), "{error}");
    fs::write(&own, "no weights").unwrap();
    let error = failed(pull("other"));
    assert!(
        error.contains("own.safetensors: not a whole safetensors"),
        "{error}"
    );
    assert!(!other.exists());
    fs::copy(trained.folder.join("model.safetensors"), &own).unwrap();
    succeeded(pull("other"));
    let carried = other.join("backbones/resnet18.tv_in1k/model.safetensors");
    assert_eq!(fs::read(carried).unwrap(), fs::read(&own).unwrap());
    let record = read_config(&other).unwrap().backbone;
    let expected = sha256(&fs::read(&own).unwrap());
    assert_eq!((record.repo, record.sha256), (None, Some(expected)));
}

#[test]
fn two_processes_at_once_move_the_content_once() {
    let setup = Setup::new();
    let trained = Trained::new();
    trained.put(&setup.server, DETECTOR);
    setup.server.fail(Fault::new(
        "GET",
        "/storage/",
        Kind::Slow(Duration::from_millis(150)),
    ));
    let running = [(); 3].map(|()| {
        fastflow(&setup, &["pull", "cloth@wavelet"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    });
    for mut process in running {
        assert!(process.wait().unwrap().success());
    }
    let transfers = setup
        .server
        .seen()
        .iter()
        .filter(|seen| seen.at_storage)
        .count();
    assert_eq!(transfers, 1);
    setup.assert_sound();
}

#[test]
fn a_killed_download_goes_on() {
    let setup = Setup::new();
    let trained = Trained::new();
    trained.put(&setup.server, DETECTOR);
    setup.server.fail(Fault::new(
        "GET",
        "/storage/",
        Kind::Slow(Duration::from_millis(300)),
    ));
    let mut process = fastflow(&setup, &["pull", "cloth@wavelet"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let blobs = setup
        .cache
        .path()
        .join(format!("hub/models--{}/blobs", DETECTOR.replace('/', "--")));
    let model = sha256(&fs::read(trained.folder.join("model.safetensors")).unwrap());
    let incomplete = blobs.join(format!("{model}.incomplete"));
    while fs::metadata(&incomplete).map_or(0, |found| found.len()) == 0 {
        assert!(
            process.try_wait().unwrap().is_none(),
            "it was over before it could be killed"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    process.kill().unwrap();
    process.wait().unwrap();
    assert!(!blobs.join(&model).exists());
    setup.server.seen();
    succeeded(fastflow(&setup, &["pull", "cloth@wavelet"]));
    let seen = setup.server.seen();
    let range = seen
        .iter()
        .find(|seen| seen.at_storage)
        .unwrap()
        .range
        .as_ref();
    assert!(
        range.is_some_and(|range| !range.contains("=0-")),
        "{range:?}"
    );
}

#[test]
fn a_proxy_is_used() {
    let setup = Setup::new();
    let trained = Trained::new();
    trained.put(&setup.server, DETECTOR);
    let mut command = fastflow(&setup, &["pull", "cloth@wavelet"]);
    command
        .env("HF_ENDPOINT", "http://hub.invalid")
        .env("HTTP_PROXY", setup.server.url())
        .env("NO_PROXY", "127.0.0.1");
    succeeded(command);
    assert!(
        setup
            .server
            .seen()
            .iter()
            .any(|seen| seen.path.starts_with(&format!("/{DETECTOR}/resolve")))
    );
}

/// The program with all it can log switched on, through everything that handles the token.
#[test]
fn the_token_shows_nowhere() {
    let setup = Setup::new();
    let trained = Trained::new();
    let folder = trained.folder.to_str().unwrap();
    let echo = Kind::Status(403, Some(("x-error-message", TOKEN)));
    let runs: [(&[&str], Option<Fault>); 6] = [
        (&["publish", folder, "--yes", "--tag", "v1"], None),
        (
            &["publish", folder, "--yes", "--repo", "zoo/other"],
            Some(Fault::new("POST", "commit", echo.clone())),
        ),
        (&["publish", folder, "--dry-run"], None),
        (&["pull", "cloth@wavelet"], None),
        (
            &["pull", "bottle"],
            Some(Fault::new("HEAD", "config.json", echo)),
        ),
        (&["list"], None),
    ];
    for (arguments, fault) in runs {
        setup.server.forgive();
        fault.into_iter().for_each(|fault| setup.server.fail(fault));
        for log in ["trace", "warn"] {
            let mut command = fastflow(&setup, arguments);
            command
                .env("HF_TOKEN", TOKEN)
                .env("RUST_LOG", log)
                .env("HF_XET_LOG_LEVEL", "trace");
            let told = told(&command.output().unwrap());
            assert!(!told.contains(TOKEN), "{arguments:?} shows the token");
            assert!(
                !told.contains("secret-of-the-link") || log == "trace",
                "{arguments:?} shows a signed link"
            );
        }
    }
    for entry in walkdir::WalkDir::new(setup.cache.path())
        .into_iter()
        .flatten()
        .filter(|entry| entry.file_type().is_file())
    {
        let bytes = fs::read(entry.path()).unwrap();
        let found = bytes
            .windows(TOKEN.len())
            .any(|window| window == TOKEN.as_bytes());
        assert!(!found, "{} holds the token", entry.path().display());
    }
    let options = setup.author().options().clone();
    assert!(!format!("{options:?} {options:#?}").contains(TOKEN));
}

#[test]
fn the_script_publishes_all_or_says_which_failed() {
    let setup = Setup::new();
    let runs = tempfile::tempdir().unwrap();
    let trained = Trained::new();
    for category in ["bolt", "cap", "dish"] {
        let folder = runs.path().join(category);
        fs::create_dir(&folder).unwrap();
        trained.edit(|config| config["name"] = category.into());
        for file in ["config.json", "model.safetensors"] {
            fs::copy(trained.folder.join(file), folder.join(file)).unwrap();
        }
    }
    let script = |more: &[&str]| {
        let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/hub-upload.sh"));
        surround(&mut command, &setup);
        command.arg(runs.path()).args(more);
        command
            .env("FASTFLOW", env!("CARGO_BIN_EXE_fastflow"))
            .env("HF_TOKEN", TOKEN);
        command.output().unwrap()
    };
    let ours = |server: &TestHub| {
        server
            .repos()
            .keys()
            .filter(|id| id.contains("wavelet"))
            .count()
    };

    let looked = script(&["--dataset", "mvtec-ad"]);
    assert_eq!(looked.status.code(), Some(0), "{}", told(&looked));
    assert!(
        told(&looked).contains("3 of 3") && told(&looked).contains("--yes"),
        "{}",
        told(&looked)
    );
    assert_eq!(ours(&setup.server), 0);

    setup.server.fail(Fault::new(
        "POST",
        "wavelet-cap/commit",
        Kind::Status(403, None),
    ));
    let partly = script(&["--dataset", "mvtec-ad", "--yes"]);
    assert_eq!(partly.status.code(), Some(1), "{}", told(&partly));
    assert!(
        told(&partly).contains("2 of 3") && told(&partly).contains("FAILED"),
        "{}",
        told(&partly)
    );
    assert_eq!(ours(&setup.server), 2);

    let again = script(&["--dataset", "mvtec-ad", "--yes"]);
    assert_eq!(again.status.code(), Some(0), "{}", told(&again));
    assert_eq!(ours(&setup.server), 3);
    let card = setup.server.repos()["zoo/fastflow-wavelet-cap"].head().tree["README.md"]
        .bytes
        .clone();
    assert!(String::from_utf8(card).unwrap().contains("MVTec AD"));

    let twin = runs.path().join("dish-again");
    fs::create_dir(&twin).unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(runs.path().join("dish").join(file), twin.join(file)).unwrap();
    }
    let twice = script(&[]);
    assert_eq!(twice.status.code(), Some(1));
    assert!(told(&twice).contains("fastflow-wavelet-dish too"));
    fs::remove_dir_all(twin).unwrap();

    fs::write(runs.path().join("cap/model.safetensors"), "damaged").unwrap();
    setup.server.seen();
    let refused = script(&["--yes"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        told(&refused).contains("Nothing was uploaded"),
        "{}",
        told(&refused)
    );
    assert!(setup.server.seen().is_empty());
}

#[test]
fn publish_asks_before_it_uploads() {
    let setup = Setup::new();
    let trained = Trained::new();
    let mut command = fastflow(&setup, &["publish", trained.folder.to_str().unwrap()]);
    command.env("HF_TOKEN", TOKEN);
    assert!(failed(command).contains("--yes"));
    assert_eq!(setup.server.repos().keys().collect::<Vec<_>>(), [REPO]);
}

#[test]
fn without_a_namespace_the_tokens_owner_publishes() {
    let setup = Setup::new();
    let trained = Trained::new();
    let folder = trained.folder.to_str().unwrap();
    let publish = |more: &[&str], token: &str| {
        let mut command = fastflow(&setup, &[&["publish", folder], more].concat());
        command
            .env_remove("FASTFLOW_NAMESPACE")
            .env("HF_TOKEN", token);
        command
    };
    let repo = format!("{USER}/fastflow-wavelet-cloth");
    let shown = succeeded(publish(&["--dry-run"], TOKEN));
    assert!(
        shown.contains(&format!("-> {repo} (branch main)")),
        "{shown}"
    );
    succeeded(publish(&["--yes"], TOKEN));
    let card = setup.server.repos()[&repo].head().tree["README.md"]
        .bytes
        .clone();
    let card = String::from_utf8(card).unwrap();
    assert!(card.contains(&format!("fastflow infer {repo} ")), "{card}");

    let error = failed(publish(&["--dry-run"], "hf_of_nobody"));
    assert!(
        error.contains("HF_TOKEN") && error.contains("401") && !error.contains("hf_of_nobody"),
        "{error}"
    );
}

/// What people get wrong: one line that says what to do, and exit code 2.
#[test]
fn wrong_inputs_are_told_in_one_line() {
    let trained = Trained::new();
    let folder = trained.folder.to_str().unwrap();
    let file = trained.folder.join("config.json");
    let under_a_file = file.join("hub").display().to_string();
    let no_folder = file.join("x.md").display().to_string();
    let status = |code| Kind::Status(code, None);
    type Case<'a> = (
        &'a [&'a str],
        &'a [(&'a str, &'a str)],
        Option<Fault>,
        &'a str,
    );
    let away = ("HF_ENDPOINT", "http://127.0.0.1:9");
    let token = ("HF_TOKEN", TOKEN);
    let cases: [Case; 18] = [
        (&["pull", "bot tle"], &[], None, "not a detector's name"),
        (&["pull", "org/repo@../x"], &[], None, "not a revision"),
        (&["pull", "./nowhere"], &[], None, "nowhere"),
        (&["pull", "botle"], &[], None, "did you mean bottle?"),
        (
            &["pull", "zoo/fastflow-resnet18-bottle@v9"],
            &[],
            None,
            "no such revision",
        ),
        (
            &["pull", "bottle"],
            &[("HF_ENDPOINT", "huggingface.co")],
            None,
            "HF_ENDPOINT: must start",
        ),
        (
            &["pull", "bottle"],
            &[("FASTFLOW_NAMESPACE", "a/b")],
            None,
            "FASTFLOW_NAMESPACE",
        ),
        (
            &["pull", "bottle"],
            &[away],
            None,
            "cannot connect to http://127.0.0.1:9 (Connection refused",
        ),
        (
            &["pull", "botle"],
            &[("HF_HUB_OFFLINE", "1")],
            None,
            "HF_HUB_OFFLINE",
        ),
        (
            &["pull", "bottle"],
            &[token],
            Some(Fault::new("HEAD", "config.json", status(401))),
            "401",
        ),
        (
            &["pull", "bottle"],
            &[],
            Some(Fault::new("GET", "/storage/", status(404))),
            "404",
        ),
        (
            &["pull", "bottle"],
            &[],
            Some(Fault::new("GET", "/storage/", Kind::Cut(0))),
            "cut",
        ),
        (
            &["pull", "bottle"],
            &[],
            Some(Fault::new("GET", "/storage/", Kind::WrongBody)),
            "hash",
        ),
        (
            &["pull", "bottle"],
            &[("HF_HUB_CACHE", &under_a_file)],
            None,
            "config.json/hub",
        ),
        (&["publish", folder, "--yes"], &[], None, "HF_TOKEN"),
        (
            &["publish", folder, "--repo", "a b", "--yes"],
            &[token],
            None,
            "`a b` is not a repository",
        ),
        (
            &["card", "./nowhere"],
            &[],
            None,
            "./nowhere: not a detector's folder",
        ),
        (&["card", folder, "-o", &no_folder], &[], None, "x.md"),
    ];
    std::thread::scope(|scope| {
        for (arguments, variables, fault, word) in cases {
            scope.spawn(move || {
                let setup = Setup::new();
                fault
                    .into_iter()
                    .for_each(|fault| setup.server.fail(fault.times(99)));
                let mut command = fastflow(&setup, arguments);
                command.envs(variables.iter().copied());
                let output = command.output().unwrap();
                assert_eq!(
                    output.status.code(),
                    Some(2),
                    "{arguments:?} {}",
                    told(&output)
                );
                let text = String::from_utf8(output.stderr).unwrap();
                let (errors, others): (Vec<_>, Vec<_>) =
                    text.lines().partition(|line| line.starts_with("error: "));
                // Beside the error only what it is doing: what it checks, why it waits.
                let is_notice = |line: &&str| {
                    ["trying again", "checking", "promised hash"]
                        .iter()
                        .any(|word| line.contains(word))
                };
                assert!(others.iter().all(is_notice), "{arguments:?}: {text}");
                let [error] = errors[..] else {
                    panic!("{arguments:?}: {text}")
                };
                assert!(
                    error.contains(word) && error.len() < 400,
                    "{arguments:?}: {error}"
                );
                setup.assert_sound();
            });
        }
    });
}

/// A config from the network names the backbone, its repository and revision: none leads out.
#[test]
fn a_config_from_elsewhere_writes_nothing_outside() {
    for (field, value) in [
        ("id", "resnet18.../../../../escaped"),
        ("id", "../escaped"),
        ("id", "/tmp/escaped"),
        ("repo", "../../escaped/x"),
        ("revision", "../../escaped"),
        ("sha256", "../../escaped"),
    ] {
        let setup = Setup::new();
        let trained = Trained::new();
        trained.edit(|config| {
            let record = &mut config["backbone"];
            record["id"] = "resnet18.tv_in1k".into();
            record["repo"] = "timm/resnet18.tv_in1k".into();
            record[field] = value.into();
        });
        trained.put(&setup.server, "zoo/fastflow-resnet18-evil");
        let files: [(&str, &[u8]); 1] = [("model.safetensors", &weights())];
        setup.server.put("timm/resnet18.tv_in1k", &files);
        let to = setup.cache.path().join("a/b/c/carried");
        let error = failed(fastflow(
            &setup,
            &["pull", "evil", "--to", to.to_str().unwrap()],
        ));
        assert_eq!(error.lines().count(), 1, "{field}: {error}");
        assert!(error.contains("escaped"), "{field}: {error}");
        for entry in walkdir::WalkDir::new(setup.cache.path()) {
            let path = entry.unwrap().into_path();
            let inside = path.starts_with(setup.cache.path().join("hub"));
            assert!(inside || !path.display().to_string().contains("escaped"));
            assert!(
                inside || !path.is_file() || path.starts_with(setup.cache.path().join("xet")),
                "{}",
                path.display()
            );
        }
    }
}

/// Trained with weights from the Hub: their commit and hash are recorded, and fetched again. Trained
/// with a file: its hash is, and another file is used with a warning.
#[test]
fn training_records_its_backbone() {
    let shared = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../shared/weights/resnet18.tv_in1k/model.safetensors"
    );
    let Ok(bytes) = fs::read(shared) else {
        println!("skipped: no {shared}");
        return;
    };
    let setup = Setup::new();
    let files: [(&str, &[u8]); 1] = [("model.safetensors", &bytes)];
    let commit = setup.server.put("timm/resnet18.tv_in1k", &files);
    let photos = Trained::photos();
    let train = |out: &Path, more: &[&str]| {
        let words = [
            "train",
            "--data",
            photos.to_str().unwrap(),
            "--size",
            "64",
            "--epochs",
            "1",
            "--no-eval",
            "--name",
            "cloth",
            "--out",
            out.to_str().unwrap(),
        ];
        succeeded(fastflow(&setup, &[&words, more].concat()));
        read_config(out).unwrap()
    };
    let out = setup.cache.path().join("from-hub");
    let config = train(&out, &[]);
    assert_eq!(
        config.backbone.repo.as_deref(),
        Some("timm/resnet18.tv_in1k")
    );
    assert_eq!(config.backbone.revision, Some(commit));
    assert_eq!(config.backbone.sha256, Some(sha256(&bytes)));
    let dataset = config.training.unwrap().dataset.unwrap();
    assert_eq!(dataset.name, "fastflow data generate");

    let own = setup.cache.path().join("own.safetensors");
    fs::write(&own, &bytes).unwrap();
    let own_text = own.to_str().unwrap();
    let local = setup.cache.path().join("local");
    let named = ["--backbone-weights", own_text, "--dataset", "mvtec-ad"];
    let config = train(&local, &named);
    assert_eq!(
        (config.backbone.repo, config.backbone.revision),
        (None, None)
    );
    assert_eq!(config.backbone.sha256, Some(sha256(&bytes)));
    let dataset = config.training.unwrap().dataset.unwrap();
    assert_eq!(dataset.licence.as_deref(), Some("CC-BY-NC-SA-4.0"));

    // Another file: one weight changed.
    let mut other = bytes;
    *other.last_mut().unwrap() ^= 1;
    fs::write(&own, other).unwrap();
    let photo = Trained::new().test_photos().remove(0);
    let words = [
        "infer",
        local.to_str().unwrap(),
        photo.to_str().unwrap(),
        "--json",
        "--backbone-weights",
        own_text,
    ];
    let output = fastflow(&setup, &words).output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
    assert!(
        told(&output).contains("SHA-256 differs"),
        "{}",
        told(&output)
    );
}

/// Not a test: a Hub for trying the program by hand, until Enter is pressed.
/// `cargo test --test hub a_hub_to_try -- --ignored --nocapture`
#[test]
#[ignore = "waits for a key"]
fn a_hub_to_try() {
    let setup = Setup::new();
    Trained::new().put(&setup.server, DETECTOR);
    println!(
        "export HF_ENDPOINT={} FASTFLOW_NAMESPACE=zoo HF_TOKEN={TOKEN}",
        setup.server.url()
    );
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

/// The default recipe is a PatchCore; FastFlow's detector of the same category is another repository.
#[test]
fn a_detector_of_another_method_is_published_listed_and_found_by_its_short_name() {
    let setup = Setup::new();
    let trained = Trained::new();
    trained.put(&setup.server, DETECTOR);
    let out = setup.cache.path().join("patchcore");
    let (data, folder) = (Trained::photos(), out.to_str().unwrap());
    let small = ["--backbone", "wavelet", "--size", "64"];
    let train = ["train", "--data", data.to_str().unwrap(), "--out", folder];
    succeeded(fastflow(&setup, &[&train[..], &small].concat()));
    let mut publish = fastflow(&setup, &["publish", folder, "--yes"]);
    publish.env("HF_TOKEN", TOKEN);
    let told = succeeded(publish);
    let repo = "zoo/fastflow-wavelet-patchcore-cloth";
    assert!(told.contains(repo), "{told}");
    let card = setup.server.repos()[repo].head().tree["README.md"].clone();
    let card = String::from_utf8(card.bytes).unwrap();
    assert!(
        card.contains("- patchcore\n") && card.contains("infer cloth@wavelet-patchcore photo.png"),
        "{card}"
    );

    let photo = trained.test_photos().remove(0);
    let infer = |name: &str| {
        let words = ["infer", name, photo.to_str().unwrap(), "--json"];
        succeeded(fastflow(&setup, &words))
    };
    let by_name = infer("cloth@wavelet-patchcore");
    assert_eq!(by_name, infer(folder));
    assert_ne!(by_name, infer("cloth@wavelet"));

    // From the card where the Hub is asked, from the config where it is not.
    for offline in ["0", "1"] {
        let mut list = fastflow(&setup, &["list", "--json"]);
        list.env("HF_HUB_OFFLINE", offline);
        let listed: serde_json::Value = serde_json::from_str(&succeeded(list)).unwrap();
        let method = |name: &str| {
            let mut all = listed.as_array().unwrap().iter();
            all.find(|entry| entry["name"] == name).unwrap()["method"].clone()
        };
        assert_eq!(method("cloth@wavelet-patchcore"), "patchcore");
        assert_eq!(method("cloth@wavelet"), "fastflow");
    }
    let table = succeeded(fastflow(&setup, &["list"]));
    assert!(table.contains("patchcore"), "{table}");

    for (name, hint) in [
        (
            "clot@wavelet-patchcore",
            "did you mean cloth@wavelet-patchcore",
        ),
        ("cloth@wavelet-patchcor", "did you mean patchcore?"),
        ("cloth@wavelet-padim", "did you mean cloth@wavelet"),
    ] {
        let words = ["infer", name, photo.to_str().unwrap()];
        let error = failed(fastflow(&setup, &words));
        assert!(error.contains(hint), "{error}");
        assert_eq!(error.trim().lines().count(), 1, "{error}");
    }
}
