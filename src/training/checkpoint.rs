//! The whole state of a run in one safetensors file: model, optimizer, and where in the epoch it stands.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::{EpochRecord, early_stopping::Best, guard::Guard};
use crate::{Error, Result, estimators::Estimator, tensors};

const METADATA_KEY: &str = "fastflow.training";
const MODEL_PREFIX: &str = "model.";
const BEST_PREFIX: &str = "best.";
const SOUND_PREFIX: &str = "sound.";

/// Where a run stands; the tensors aside.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Position {
    /// Settings and images, hashed: a checkpoint of another run is refused.
    pub fingerprint: String,
    /// Whether this is the second run, on all images.
    pub final_fit: bool,
    /// Epochs completed.
    pub epoch: usize,
    /// Steps completed in the running epoch.
    pub step: usize,
    /// Steps the optimizer took.
    pub optimizer_steps: u64,
    /// Sums over the steps of the running epoch.
    pub loss: f64,
    pub gradient_norm: f64,
    pub seconds: f64,
    /// The epochs so far.
    pub history: Vec<EpochRecord>,
    /// The best of them by the stopping rule.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub best: Option<Best>,
    /// Returns to an earlier state.
    #[serde(skip_serializing_if = "Guard::is_new", default)]
    pub guard: Guard,
}

/// Earlier states of the model's tensors.
#[derive(Default)]
pub(super) struct Kept {
    /// After the epoch `position.best`; empty without a stopping rule.
    pub best: BTreeMap<String, Tensor>,
    /// Before the running epoch; empty before the first.
    pub sound: BTreeMap<String, Tensor>,
}

/// `moments` are the optimizer's.
pub(super) fn save(
    path: &Path,
    position: &Position,
    model: &dyn Estimator,
    kept: &Kept,
    moments: BTreeMap<String, Tensor>,
) -> Result<()> {
    let mut tensors = moments;
    for (prefix, of) in [(BEST_PREFIX, &kept.best), (SOUND_PREFIX, &kept.sound)] {
        for (name, tensor) in of {
            tensors.insert(format!("{prefix}{name}"), tensor.clone());
        }
    }
    for (name, tensor) in model.tensors()? {
        tensors.insert(format!("{MODEL_PREFIX}{name}"), tensor);
    }
    let text =
        serde_json::to_string(position).map_err(|e| Error::Training(format!("checkpoint: {e}")))?;
    tensors::write(
        path,
        &tensors,
        Some(HashMap::from([(METADATA_KEY.to_string(), text)])),
    )
}

/// A checkpoint as read from disk.
pub(super) struct Checkpoint {
    pub position: Position,
    /// The model's tensors by their names in an artifact.
    pub model: BTreeMap<String, Tensor>,
    /// Earlier ones.
    pub kept: Kept,
    /// The optimizer's.
    pub adam: BTreeMap<String, Tensor>,
}

pub(super) fn load(path: &Path) -> Result<Checkpoint> {
    let fail = |reason: String| Error::Config {
        path: path.to_path_buf(),
        reason,
    };
    let (tensors, metadata) = tensors::read(path)?;
    let text = metadata
        .get(METADATA_KEY)
        .ok_or_else(|| fail("a safetensors file, but not a training checkpoint".into()))?;
    let position = serde_json::from_str(text).map_err(|e| fail(e.to_string()))?;
    let [mut model, mut adam] = [const { BTreeMap::new() }; 2];
    let mut kept = Kept::default();
    for (name, tensor) in tensors {
        if let Some(inner) = name.strip_prefix(MODEL_PREFIX) {
            model.insert(inner.to_string(), tensor);
        } else if let Some(inner) = name.strip_prefix(BEST_PREFIX) {
            kept.best.insert(inner.to_string(), tensor);
        } else if let Some(inner) = name.strip_prefix(SOUND_PREFIX) {
            kept.sound.insert(inner.to_string(), tensor);
        } else {
            adam.insert(name, tensor);
        }
    }
    Ok(Checkpoint {
        position,
        model,
        kept,
        adam,
    })
}
