//! `fastflow reproduce` on generated cloth: what a plan leaves, what is run again, and what shares add up to.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

#[path = "support/program.rs"]
mod program;
use program::{fastflow, generate, parsed, run, succeed, text, told};
#[path = "reproduce/training.rs"]
mod training;

const PLAN: &str = r#"
dataset = "generated"
data = "data"
categories = ["linen", "denim"]
backbones = ["wavelet"]
[settings]
size = 64
epochs = 1
batch = 4
steps = 2
[variant.additive]
coupling = "additive"
[variant.exp]
map = "exp"
top_k = 10
"#;

fn json(args: &[&str]) -> Value {
    parsed(&succeed(&[args, &["--json"]].concat()))
}

/// Two cloths, generated once.
fn data() -> &'static Path {
    static DATA: OnceLock<TempDir> = OnceLock::new();
    let folder = DATA.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        generate(&folder.path().join("linen"), "1");
        generate(&folder.path().join("denim"), "2");
        folder
    });
    folder.path()
}

/// A folder with a plan, and what the plan makes.
struct Desk {
    folder: TempDir,
}

impl Desk {
    fn new() -> Self {
        let desk = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        desk.write(PLAN);
        desk
    }

    fn write(&self, plan: &str) {
        fs::write(self.plan(), plan).unwrap();
    }

    fn plan(&self) -> PathBuf {
        self.folder.path().join("plan.toml")
    }

    fn out(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn args<'a>(&self, out: &'a Path, rest: &[&'a str]) -> Vec<String> {
        let plan = self.plan();
        let args = [
            "reproduce",
            text(&plan),
            "--data",
            text(data()),
            "--out",
            text(out),
        ];
        args.iter().chain(rest).map(ToString::to_string).collect()
    }

    fn json(&self, out: &Path, rest: &[&str]) -> Value {
        let args = self.args(out, rest);
        json(&args.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn run(&self, out: &Path, rest: &[&str]) -> Output {
        let args = self.args(out, rest);
        run(&args.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

fn counts(summary: &Value) -> (u64, u64) {
    (
        summary["run"].as_u64().unwrap(),
        summary["kept"].as_u64().unwrap(),
    )
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// The tables' figures without those that tell the time.
fn figures(out: &Path) -> Value {
    let mut tables = read(&out.join("tables.json"));
    let all = tables["tables"].as_array_mut().unwrap();
    for table in all.iter_mut() {
        let columns = table["columns"].as_array().unwrap().clone();
        let timed: Vec<bool> = columns
            .iter()
            .map(|c| ["images/s", "additional ms"].contains(&c.as_str().unwrap()))
            .collect();
        for row in table["rows"].as_array_mut().unwrap() {
            for (cell, _) in row
                .as_array_mut()
                .unwrap()
                .iter_mut()
                .zip(&timed)
                .filter(|(_, t)| **t)
            {
                *cell = Value::Null;
            }
        }
    }
    tables["tables"].take()
}

fn table<'a>(tables: &'a Value, title: &str) -> &'a Value {
    let all = tables.as_array().unwrap();
    all.iter().find(|table| table["title"] == title).unwrap()
}

#[test]
fn a_plan_leaves_detectors_results_and_tables_and_runs_again_only_what_changed() {
    let (desk, cells) = (Desk::new(), 4);
    let out = desk.out("runs");
    let listed = desk.json(&out, &["--dry-run"]);
    assert_eq!(listed["cells"].as_array().unwrap().len(), cells);
    assert!(!out.exists());
    assert_eq!(counts(&desk.json(&out, &[])), (4, 0));

    // A detector's folder as publish takes it, and its result.
    let linen = out.join("base-seed0/wavelet/linen");
    let card = fs::read_to_string(linen.join("README.md")).unwrap();
    assert!(
        card.contains("| Image AUROC |") && card.contains("fastflow infer linen@wavelet"),
        "{card}"
    );
    assert!(!linen.join("run/checkpoint.safetensors").exists());
    let config = read(&linen.join("config.json"));
    let path = out.join("results/linen.wavelet.base.seed0.json");
    let result = read(&path);
    let scores = &result["scores"];
    assert_eq!(scores["base"]["metrics"], config["metrics"]);
    assert_ne!(scores["exp"]["metrics"], config["metrics"]);
    assert!(result["speed"]["fps"].as_f64().unwrap() > 0.0);
    let additive = read(&out.join("additive-seed0/wavelet/linen/config.json"));
    assert_eq!(additive["estimator"]["coupling"], "additive");

    // Tables: the mean of the two categories, and fewer parameters where the coupling is additive.
    let tables = figures(&out);
    let auroc = |category: &str| {
        let result = read(&out.join(format!("results/{category}.wavelet.base.seed0.json")));
        100.0
            * result["scores"]["base"]["metrics"]["image_auroc"]
                .as_f64()
                .unwrap()
    };
    let rows = &table(&tables, "Categories")["rows"];
    let mean = rows[2][1]["mean"].as_f64().unwrap();
    assert!(
        (mean - (auroc("linen") + auroc("denim")) / 2.0).abs() < 1e-9,
        "{rows}"
    );
    let rows = table(&tables, "Variants of the plan")["rows"].clone();
    let params = |row: usize| rows[row][2]["mean"].as_f64().unwrap();
    assert_eq!(
        [&rows[0][1], &rows[1][1], &rows[2][1]],
        ["base", "additive", "exp"]
    );
    assert!(params(1) < params(0) && params(2) == params(0));
    for file in ["tables.md", "tables.html"] {
        assert!(
            fs::read_to_string(out.join(file))
                .unwrap()
                .contains("Variants of the plan")
        );
    }

    // Nothing is done twice; a new way of scoring trains nothing; other settings do.
    let model = || {
        fs::metadata(linen.join("model.safetensors"))
            .unwrap()
            .modified()
            .unwrap()
    };
    let trained = model();
    assert_eq!(counts(&desk.json(&out, &[])), (0, 4));
    desk.write(&format!("{PLAN}[variant.nll]\nmap = \"nll\"\n"));
    assert_eq!(counts(&desk.json(&out, &[])), (2, 2));
    assert!(read(&path)["scores"]["nll"]["metrics"]["image_auroc"].is_number());
    assert_eq!(model(), trained);
    let longer = PLAN.replace("coupling =", "epochs = 2\ncoupling =");
    desk.write(&longer);
    let unrun = desk.json(&out, &["--tables"]);
    assert_eq!(unrun["with_result"], 2);
    assert_eq!(counts(&desk.json(&out, &[])), (2, 2));
    assert_eq!(model(), trained);
    // A figure that the plan no longer asks for is in no table.
    let tables = fs::read_to_string(out.join("tables.md")).unwrap();
    assert!(!tables.contains("| nll |") && tables.contains("| exp |"));

    // Another name is no other detector.
    desk.write(&longer.replace("[settings]", "prefix = \"my-\"\n[settings]"));
    assert_eq!(counts(&desk.json(&out, &[])), (0, 4));
    assert_eq!(model(), trained);
    assert_eq!(read(&linen.join("config.json"))["name"], "my-linen");
    assert_eq!(read(&path)["inputs"]["name"], "my-linen");
    let card = fs::read_to_string(linen.join("README.md")).unwrap();
    assert!(card.contains("fastflow infer my-linen@wavelet"), "{card}");
}

#[test]
fn shares_on_other_machines_merge_to_the_same_tables() {
    let desk = Desk::new();
    let (whole, first, second) = (desk.out("whole"), desk.out("first"), desk.out("second"));
    assert_eq!(counts(&desk.json(&whole, &[])), (4, 0));
    assert_eq!(counts(&desk.json(&first, &["--cell", "0/3"])), (2, 0));
    assert!(!first.join("tables.md").exists());
    let mut cells = 2;
    for share in ["1/3", "2/3"] {
        cells += counts(&desk.json(&second, &["--cell", share])).0;
    }
    assert_eq!(cells, 4);
    for file in fs::read_dir(second.join("results")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), first.join("results").join(file.file_name())).unwrap();
    }
    assert_eq!(desk.json(&first, &["--tables"])["with_result"], 4);
    assert_eq!(figures(&first), figures(&whole));
}

#[test]
fn a_broken_category_does_not_stop_the_others() {
    let desk = Desk::new();
    desk.write(&PLAN.replace("\"linen\"", "\"torn\", \"missing\", \"linen\""));
    let torn = desk.out("data/torn");
    generate(&torn, "3");
    for name in ["linen", "denim"] {
        let _ = Command::new("cp")
            .arg("-r")
            .arg(data().join(name))
            .arg(desk.out("data"))
            .status();
    }
    let broken = ["train/good", "test/good"].map(|folder| {
        let mut photos = fs::read_dir(torn.join(folder)).unwrap();
        let photo = photos.next().unwrap().unwrap().path();
        fs::write(&photo, "no photo").unwrap();
        photo
    });
    let plan = desk.plan();
    let out = desk.out("runs");
    let listed = run(&["reproduce", text(&plan), "--out", text(&out), "--dry-run"]);
    let errors = told(&listed);
    assert_eq!(listed.status.code(), Some(2), "{errors}");
    assert!(
        errors.contains("torn cannot be used: ")
            && errors.contains("missing cannot be used: ")
            && errors.contains("error: 2 of the plan's categories"),
        "{errors}"
    );
    assert!(String::from_utf8_lossy(&listed.stdout).contains("8 cells") && !out.exists());
    // The plan's own folder, beside it.
    let output = run(&["reproduce", text(&plan), "--out", text(&out)]);
    let errors = told(&output);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    let first = errors.lines().find(|line| line.contains("failed: torn"));
    let first = first.unwrap();
    assert!(
        first.contains("failed: torn, wavelet, base, seed 0: "),
        "{first}"
    );
    for photo in &broken {
        let name = photo.strip_prefix(&torn).unwrap();
        assert!(first.contains(text(name)), "{first}");
    }
    // Known before the first training.
    let at = |what: &str| errors.find(what).unwrap();
    assert!(at("failed: torn") < at("failed: missing") && at("failed: missing") < at("[1/4"));
    assert!(errors.contains("failed: missing"), "{errors}");
    assert!(errors.contains("error: 4 of 8 cells failed"), "{errors}");
    assert!(out.join("base-seed0/wavelet/linen/README.md").is_file());
    assert!(!out.join("results/torn.wavelet.base.seed0.json").exists());
    let tables = fs::read_to_string(out.join("tables.md")).unwrap();
    assert!(tables.contains("(2/4)"), "{tables}");

    // Mended, only what failed is run.
    fs::remove_dir_all(&torn).unwrap();
    generate(&torn, "3");
    generate(&desk.out("data/missing"), "4");
    let summary = json(&["reproduce", text(&plan), "--out", text(&out)]);
    assert_eq!(counts(&summary), (4, 4));
}

/// Told to end in the middle of a training, the same command goes on to the same bytes.
#[cfg(unix)]
#[test]
fn an_interrupted_plan_goes_on() {
    let desk = Desk::new();
    desk.write(
        &PLAN
            .split("[variant")
            .next()
            .unwrap()
            .replace("epochs = 1", "epochs = 25"),
    );
    let (whole, broken) = (desk.out("whole"), desk.out("broken"));
    desk.json(&whole, &[]);
    let args = desk.args(&broken, &[]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let mut child = fastflow(&args)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let events = broken.join("base-seed0/wavelet/linen/run/events.jsonl");
    let deadline = Instant::now() + Duration::from_secs(120);
    while !fs::read_to_string(&events)
        .unwrap_or_default()
        .contains("epoch")
    {
        assert!(Instant::now() < deadline, "no epoch ended");
        std::thread::sleep(Duration::from_millis(2));
    }
    let kill = Command::new("kill")
        .args(["-TERM", &child.id().to_string()])
        .status();
    assert!(kill.unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(2));
    assert!(
        !broken.join("results").exists(),
        "it was over before it was told"
    );
    assert_eq!(counts(&desk.json(&broken, &[])), (2, 0));
    assert!(
        fs::read_to_string(&events)
            .unwrap()
            .contains("\"event\":\"resume\"")
    );
    let result = read(&broken.join("results/linen.wavelet.base.seed0.json"));
    let seconds = result["seconds"].as_f64().unwrap();
    let epochs = fs::read_to_string(&events).unwrap();
    let epochs = epochs.lines().map(parsed);
    let all: f64 = epochs
        .filter(|e| e["event"] == "epoch")
        .map(|e| e["seconds"].as_f64().unwrap())
        .sum();
    assert!((seconds - all).abs() < 1e-6, "{seconds} of {all} s");
    for file in ["model.safetensors", "config.json"] {
        let read = |out: &Path| fs::read(out.join("base-seed0/wavelet/linen").join(file)).unwrap();
        assert!(read(&whole) == read(&broken), "{file} differs");
    }
}

#[test]
fn mistakes_are_told_before_anything_is_run() {
    let desk = Desk::new();
    let out = desk.out("runs");
    for (plan, rest, word) in [
        (PLAN.replace("steps = 2", "stepps = 2"), vec![], "stepps"),
        (
            PLAN.replace("wavelet", "vgg16"),
            vec![],
            "plan.toml: backbones: unknown backbone `vgg16`",
        ),
        (
            PLAN.replace("coupling =", "hidden = -1.0\ncoupling ="),
            vec![],
            "plan.toml: [variant.additive], backbone wavelet: flow: hidden",
        ),
        (
            PLAN.replace("top_k", "image_weights = [1, 1]\ntop_k"),
            vec![],
            "plan.toml: [variant.exp], backbone wavelet: scoring.image_weights",
        ),
        (
            PLAN.replace(
                "steps = 2",
                "steps = 2\nfinal = true\nstop_on = \"synthetic\"",
            ),
            vec![],
            "stopping rule",
        ),
        (PLAN.into(), vec!["--cell", "3/3"], "0/4"),
        (PLAN.replace("[settings]", "[settings"), vec![], "line 6"),
    ] {
        desk.write(&plan);
        let output = desk.run(&out, &rest);
        let errors = told(&output);
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert!(errors.contains(word), "{word}: {errors}");
        assert!(!out.exists());
    }
}

/// The plans that come with the program.
#[test]
fn the_plans_of_the_repository_are_sound() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/plans");
    let mut found = 0;
    for plan in fs::read_dir(folder).unwrap() {
        let plan = plan.unwrap().path();
        let name = plan.file_stem().unwrap().to_str().unwrap();
        // The others name their categories, which are not here to be looked at.
        let nowhere = data().join("nowhere");
        let data = if name == "cloth" { data() } else { &nowhere };
        let listed = json(&["reproduce", text(&plan), "--data", text(data), "--dry-run"]);
        let cells = listed["cells"].as_array().unwrap().len();
        let expected = match name {
            // FastFlow and five other methods.
            "mvtec-ad" => 15 * 4 * 3 * 6,
            // Base, tables 5, 7 and 8, nine ablations on one backbone.
            "mvtec-ad-ablations" => 15 * 3 * (4 + 4 + 4 + 2 + 9),
            "mvtec-ad-zoo" => 15,
            // FastFlow and six other methods; the default recipe and seven methods.
            "screw" => 7 * 3,
            "real-sets" => 5 * 8 * 3,
            "development-sets" => 5 * 3,
            "cifar10-small" => 10 * 3,
            "btad" => 3 * 4 * 3,
            "cifar10" => 20 * 2 * 3,
            "cloth" => 2 * 2 * 3,
            other => unreachable!("no expectation for {other}"),
        };
        assert_eq!(cells, expected, "{}", plan.display());
        found += 1;
    }
    assert_eq!(found, 10);
}

#[test]
fn the_kubernetes_job_is_whole() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/cluster/kubernetes.yaml");
    let job: Value = serde_yaml_ng::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    let spec = &job["spec"];
    let container = &spec["template"]["spec"]["containers"][0];
    assert_eq!(
        (&job["kind"], &spec["completionMode"]),
        (&"Job".into(), &"Indexed".into())
    );
    let shares = container["env"][0]["value"].as_str().unwrap();
    assert_eq!(spec["completions"].to_string(), shares);
    let args = container["args"][0].as_str().unwrap();
    assert!(
        args.contains("--cell \"$JOB_COMPLETION_INDEX/$SHARES\"") && !args.contains('\n'),
        "{args}"
    );
}
