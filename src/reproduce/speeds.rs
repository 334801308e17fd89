//! Speed without training: of every backbone of a plan with every method, for table 1. A backbone whose weights are not on
//! this machine has random ones; its speed is the same.

use std::path::{Path, PathBuf};

use candle_core::Device;
use serde::{Deserialize, Serialize};

use super::plan::{Plan, Variant};
use crate::{
    Error, Result, files,
    hub::locate_weights,
    speed::{Speed, Subject},
    training::Settings,
};

/// Rounds behind each median.
const ROUNDS: usize = 3;

/// One measurement, as it lies in `OUT/speed`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MethodSpeed {
    /// Full id.
    pub backbone: String,
    pub variant: String,
    /// Where the backbone's weights were from: `file`, `embedded` or `random`.
    pub weights: String,
    pub settings: Settings,
    pub speed: Speed,
    /// Version of the program.
    pub program: String,
}

/// Measures what the plan's methods add to its backbones and leaves the figures below `out`; what is there is kept.
/// `tell` hears what is measured next.
///
/// # Errors
/// The first backbone or method that cannot be built or run, or when a file cannot be written.
pub fn measure_speeds(
    plan: &Plan,
    out: &Path,
    device: &Device,
    tell: &mut dyn FnMut(&str),
) -> Result<()> {
    let folder = out.join("speed");
    std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
    for (variant, backbone) in pairs(plan) {
        if read(plan, out, variant, backbone).is_some() {
            continue;
        }
        tell(&format!("speed of {}, {backbone}", variant.name));
        let settings = settings(plan, variant)?;
        let weights = locate_weights(backbone);
        let subject = Subject::new(&settings, backbone, weights.as_deref(), device)?;
        let measured = MethodSpeed {
            backbone: backbone.into(),
            variant: variant.name.clone(),
            weights: subject.weights.into(),
            speed: subject.speed(1, ROUNDS, device)?,
            settings,
            program: program(),
        };
        files::write_json(path(out, variant, backbone), &measured)?;
    }
    Ok(())
}

/// The measurements that are there and of the plan's settings.
pub(super) fn speeds(plan: &Plan, out: &Path) -> Vec<MethodSpeed> {
    let pairs = pairs(plan).into_iter();
    pairs
        .filter_map(|(variant, backbone)| read(plan, out, variant, backbone))
        .collect()
}

fn pairs(plan: &Plan) -> Vec<(&Variant, &str)> {
    let methods = plan.variants.iter().filter(|v| v.is_of_a_method());
    methods
        .flat_map(|v| v.backbones.iter().map(move |id| (v, id.as_str())))
        .collect()
}

/// Of the first category without settings of its own: those of single categories do not change the speed.
fn settings(plan: &Plan, variant: &Variant) -> Result<Settings> {
    let plain = |category: &&String| !plan.exceptions.contains_key(*category);
    let category = plan.categories.iter().find(plain);
    let category = category.or(plan.categories.first());
    plan.settings(variant, category.map_or("", String::as_str))
}

fn read(plan: &Plan, out: &Path, variant: &Variant, backbone: &str) -> Option<MethodSpeed> {
    let text = std::fs::read_to_string(path(out, variant, backbone)).ok()?;
    let found: MethodSpeed = serde_json::from_str(&text).ok()?;
    let current = settings(plan, variant).is_ok_and(|settings| settings == found.settings);
    (current && found.program == program()).then_some(found)
}

fn path(out: &Path, variant: &Variant, backbone: &str) -> PathBuf {
    let name = format!("{backbone}.{}.json", variant.name);
    out.join("speed").join(name)
}

fn program() -> String {
    format!("fastflow {}", env!("CARGO_PKG_VERSION"))
}
