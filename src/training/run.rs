//! The run folder: events as JSON lines, the checkpoint.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    detector::{Calibration, MODEL_FILE},
    files, mark,
};

/// The run's folder inside the detector's.
pub const RUN_FOLDER: &str = "run";
/// One JSON object a line: `start`, `resume`, `epoch`, `checkpoint`, `end`.
pub const EVENTS_FILE: &str = "events.jsonl";
/// The last good state.
pub const CHECKPOINT_FILE: &str = "checkpoint.safetensors";

/// What the fit without the held-out images found, for a final fit on all images to keep.
const HELD_OUT_FILE: &str = "held-out.json";
/// What a plan's run is made from, on record before it begins.
pub const INPUTS_FILE: &str = "inputs.json";
/// The loss by epochs, as a picture.
pub const CURVE_FILE: &str = "curve.svg";

/// Checks that a run in `out` would replace no file but those of an earlier run.
///
/// # Errors
/// Naming the file.
pub fn require_place(out: &Path) -> Result<()> {
    let run = out.join(RUN_FOLDER);
    if is_ours(&run) {
        return Ok(());
    }
    let own = [EVENTS_FILE, CHECKPOINT_FILE, HELD_OUT_FILE, CURVE_FILE].map(|name| run.join(name));
    let model = out.join(MODEL_FILE);
    mark::require_free([&model].into_iter().chain(&own).map(PathBuf::as_path))
}

/// Whether a folder is of a run: its events say so, or it has none and nothing that is not of a run either (methods
/// without gradients leave it empty).
fn is_ours(run: &Path) -> bool {
    let names = [HELD_OUT_FILE, INPUTS_FILE];
    match (std::fs::read(run.join(EVENTS_FILE)), run.read_dir()) {
        (Ok(events), _) => events.starts_with(b"{\"event\":\"start\""),
        (Err(_), Ok(mut entries)) => entries.all(|entry| {
            entry.is_ok_and(|entry| names.iter().any(|name| entry.file_name() == *name))
        }),
        (Err(_), Err(_)) => false,
    }
}

/// The use of the held-out images.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct HeldOutFit {
    /// Thresholds from images that the flow has not seen.
    pub calibration: Calibration,
    /// Their mean negative log-likelihood a feature value.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub held_out_nll: Option<f64>,
}

/// A run's files.
pub(super) struct RunFolder {
    path: PathBuf,
}

#[derive(Serialize)]
struct Event<'a, T: Serialize> {
    event: &'a str,
    #[serde(flatten)]
    data: &'a T,
}

impl RunFolder {
    /// Makes the folder inside `out`.
    pub(super) fn create(out: &Path) -> Result<Self> {
        let path = out.join(RUN_FOLDER);
        std::fs::create_dir_all(&path).map_err(Error::io(&path))?;
        Ok(Self { path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn checkpoint(&self) -> PathBuf {
        self.path.join(CHECKPOINT_FILE)
    }

    /// Forgets an earlier run.
    pub(super) fn clear(&self) -> Result<()> {
        for file in [self.path.join(EVENTS_FILE), self.checkpoint()] {
            match std::fs::remove_file(&file) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io(file)(e));
                }
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) fn write_held_out_fit(&self, fit: &HeldOutFit) -> Result<()> {
        files::write_json(self.path.join(HELD_OUT_FILE), fit)
    }

    pub(super) fn read_held_out_fit(&self) -> Result<HeldOutFit> {
        let path = self.path.join(HELD_OUT_FILE);
        let text = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
        serde_json::from_str(&text).map_err(|e| Error::Config {
            path,
            reason: e.to_string(),
        })
    }

    /// Appends one line; a line is written with one call, so that a killed run leaves whole lines.
    pub(super) fn event(&self, event: &str, data: &impl Serialize) -> Result<()> {
        let path = self.path.join(EVENTS_FILE);
        let mut line = serde_json::to_string(&Event { event, data })
            .map_err(|e| Error::Training(format!("event `{event}`: {e}")))?;
        line.push('\n');
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(Error::io(&path))?;
        file.write_all(line.as_bytes()).map_err(Error::io(&path))
    }
}
