//! Fitting an estimator to normal images, on features that are extracted once: by Adam (the paper's section 3), with
//! checkpoints that resume to the same bits, or in closed form; then a threshold from images held out.

mod adam;
mod calibration;
mod checkpoint;
mod config;
mod device;
mod early_stopping;
mod few;
mod fit;
mod gradients;
mod guard;
mod learner;
mod look;
mod optimise;
mod order;
mod outliers;
mod photos;
mod progress;
mod recalibrate;
mod recipe;
mod run;
mod setback;
mod trainer;

pub use adam::{Adam, AdamConfig};
pub use calibration::calibrate;
pub use config::{Stop, TrainConfig};
pub use device::{DeviceAdam, DeviceFeatures, Progressed, device_step};
pub use gradients::{Gradients, batch_gradients, mean_nll};
pub use progress::{EpochRecord, Progress, Silent};
pub use recalibrate::{outliers_note, photos_for, recalibrate};
pub use recipe::{InputSize, OptimiserDefaults, Settings, Shape, StopOn};
pub use run::{CHECKPOINT_FILE, CURVE_FILE, EVENTS_FILE, INPUTS_FILE, RUN_FOLDER, require_place};
pub use trainer::{Origin, Trained, Trainer};
