//! What the tests of this folder share.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
    time::Duration,
};

use candle_core::Device;
use candle_fastflow::{
    Error, backbones,
    datasets::{
        self,
        generated::{GenerateOptions, GeneratedProduct},
    },
    detector::{BackboneRecord, Detector, LoadOptions},
    evaluation,
    hub::{Hub, HubOptions, Token},
    imaging,
    training::{Origin, Settings, Silent, Trainer},
};
use tempfile::TempDir;

use crate::support::{
    content::{git_blob, sha256},
    server::{TOKEN, TestHub},
};

pub const REPO: &str = "zoo/fastflow-resnet18-bottle";
pub const CONFIG: &[u8] = b"{\"schema_version\": 1}\n";
pub const CARD: &[u8] = b"---\ntags: [candle-fastflow, fastflow]\n---\n# bottle\n";

/// Not compressible to anything, so that offsets cannot be right by chance.
pub fn weights() -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 56) as u8
    };
    (0..300_000).map(|_| next()).collect()
}

/// A Hub with one detector, and a client with an empty cache.
pub struct Setup {
    pub server: TestHub,
    pub cache: TempDir,
}

impl Setup {
    pub fn new() -> Self {
        let server = TestHub::start();
        let files = [
            ("config.json", CONFIG),
            ("model.safetensors", &weights()),
            ("README.md", CARD),
        ];
        server.put(REPO, &files);
        Self {
            server,
            cache: tempfile::tempdir().unwrap(),
        }
    }

    pub fn options(&self) -> HubOptions {
        let endpoint = self.server.url();
        let cache = self.cache.path().join("hub").display().to_string();
        let home = self.cache.path().display().to_string();
        let mut options = HubOptions::from_variables(|name| match name {
            "HF_ENDPOINT" => Some(endpoint.clone()),
            "HF_HUB_CACHE" => Some(cache.clone()),
            "HF_HOME" => Some(home.clone()),
            "FASTFLOW_NAMESPACE" => Some("zoo".into()),
            _ => None,
        })
        .unwrap();
        options.backoff = Duration::from_millis(5);
        options.silence_timeout = Duration::from_millis(400);
        options
    }

    pub fn hub(&self) -> Hub {
        Hub::new(self.options()).unwrap()
    }

    /// A client that may write.
    pub fn author(&self) -> Hub {
        let mut options = self.options();
        options.token = Token::new(TOKEN);
        Hub::new(options).unwrap()
    }

    pub fn pull(&self) -> Result<PathBuf, Error> {
        self.hub().fetch_detector("bottle", &|_| ())
    }

    /// Every blob in the cache has the hash that its name says, and no detector is half there.
    pub fn assert_sound(&self) {
        let repos = fs::read_dir(self.cache.path().join("hub"))
            .into_iter()
            .flatten();
        for repo in repos.map(|entry| entry.unwrap().path()) {
            for blob in fs::read_dir(repo.join("blobs")).into_iter().flatten() {
                let blob = blob.unwrap().path();
                let name = blob.file_name().unwrap().to_str().unwrap().to_string();
                let bytes = fs::read(&blob).unwrap();
                let whole = [sha256(&bytes), git_blob(&bytes)].contains(&name);
                let beginning = name.ends_with(".incomplete") && weights().starts_with(&bytes);
                assert!(whole || beginning, "a bad file stayed in the cache: {name}");
            }
        }
    }
}

/// Runs a test in a process of its own, with an empty `HF_HOME`: xet keeps logs and caches there
/// whatever else it is told.
pub fn isolated(name: &str, test: impl FnOnce()) {
    const MARK: &str = "FASTFLOW_TEST_ISOLATED";
    if std::env::var_os(MARK).is_some() {
        return test();
    }
    let home = tempfile::tempdir().unwrap();
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child
        .args(["--exact", name, "--nocapture"])
        .env(MARK, "1")
        .env(BASE, base())
        .env("HF_HOME", home.path());
    for variable in [
        "HF_TOKEN",
        "HF_ENDPOINT",
        "HF_HUB_CACHE",
        "HF_HUB_OFFLINE",
        "HTTP_PROXY",
        "http_proxy",
    ] {
        child.env_remove(variable);
    }
    let output = child.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        text.contains("1 passed"),
        "no test is called {name}: {text}"
    );
}

/// Tells a process of its own where the detector is that its parent has trained.
const BASE: &str = "FASTFLOW_TEST_TRAINED";

/// A detector trained for a moment on generated photos of cloth, with measured figures: made once
/// a run of the tests, photos in `cloth`, the detector in `detector`.
fn base() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        if let Some(made) = std::env::var_os(BASE) {
            return made.into();
        }
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hub-trained");
        let _ = fs::remove_dir_all(&folder);
        train(&folder.join("cloth"), &folder.join("detector"));
        folder
    })
}

fn train(photos: &Path, out: &Path) {
    let options = GenerateOptions {
        seed: 3,
        train: 8,
        good: 3,
        defective: 3,
        size: 64,
    };
    GeneratedProduct::write(photos, &options).unwrap();
    let dataset = datasets::open(photos).unwrap();
    let backbone = backbones::load("wavelet", None, &Device::Cpu).unwrap();
    let settings = Settings {
        epochs: Some(1),
        batch: Some(4),
        size: Some("64".parse().unwrap()),
        ..Settings::default()
    };
    let config = settings.resolve("wavelet", 0).unwrap();
    let record = BackboneRecord::embedded("wavelet");
    let trainer = Trainer::new(config, Device::Cpu).unwrap();
    let origin = Origin::Scratch { backbone, record };
    let mut detector = trainer
        .fit(&dataset, origin, out, false, &mut Silent)
        .unwrap()
        .detector;
    let options = evaluation::Options { pixel_size: None };
    let evaluation = evaluation::evaluate(&detector, &dataset, options, &mut |_, _| ()).unwrap();
    detector.set_metrics(evaluation.metrics.to_map());
    detector.save(out).unwrap();
}

/// The trained detector in a folder that a test may change.
pub struct Trained {
    pub folder: PathBuf,
    _guard: TempDir,
}

impl Trained {
    pub fn new() -> Self {
        let guard = tempfile::tempdir().unwrap();
        let folder = guard.path().join("detector");
        fs::create_dir(&folder).unwrap();
        for file in ["config.json", "model.safetensors"] {
            fs::copy(base().join("detector").join(file), folder.join(file)).unwrap();
        }
        Self {
            folder,
            _guard: guard,
        }
    }

    /// The data set it comes from.
    pub fn photos() -> PathBuf {
        base().join("cloth")
    }

    /// Photos it has not seen.
    pub fn test_photos(&self) -> Vec<PathBuf> {
        let dataset = datasets::open(&base().join("cloth")).unwrap();
        dataset
            .test
            .into_iter()
            .map(|sample| sample.image)
            .collect()
    }

    /// Edits a field of its config.
    pub fn edit(&self, edit: impl FnOnce(&mut serde_json::Value)) {
        let path = self.folder.join("config.json");
        let mut config = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        edit(&mut config);
        fs::write(&path, serde_json::to_vec_pretty(&config).unwrap()).unwrap();
    }

    /// Puts it on a Hub without the help of what is to be tested.
    pub fn put(&self, server: &TestHub, repo: &str) {
        let read = |file: &str| fs::read(self.folder.join(file)).unwrap();
        let card = b"---\ntags: [candle-fastflow, fastflow]\n---\n".to_vec();
        let files = [
            ("config.json", read("config.json")),
            ("model.safetensors", read("model.safetensors")),
            ("README.md", card),
        ];
        let files: Vec<(&str, &[u8])> = files
            .iter()
            .map(|(name, bytes)| (*name, bytes.as_slice()))
            .collect();
        server.put(repo, &files);
    }
}

/// Scores and maps of photos, as bits.
pub fn scores(folder: &Path, photos: &[PathBuf]) -> Vec<(u32, Vec<u32>)> {
    let detector = Detector::load(folder, &LoadOptions::default()).unwrap();
    let score = |photo: &PathBuf| {
        let found = detector.predict(&imaging::decode(photo).unwrap()).unwrap();
        let map = found
            .map
            .values
            .iter()
            .map(|value| value.to_bits())
            .collect();
        (found.score.to_bits(), map)
    };
    photos.iter().map(score).collect()
}
