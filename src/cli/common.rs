//! Arguments that several verbs share, and how they become things.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use candle_core::Device;
use candle_fastflow::{
    backbones::{self, Backbone},
    detector::{BackboneRecord, Detector, LoadOptions, hash_file, locate},
};

/// Where to compute.
#[derive(clap::Args)]
pub struct Compute {
    /// auto, cpu or cuda:N
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    device: String,
    /// Worker threads; all cores by default
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
}

impl Compute {
    /// Starts the worker threads and opens the device.
    pub fn start(&self) -> anyhow::Result<Device> {
        if let Some(threads) = self.threads {
            rayon::ThreadPoolBuilder::new()
                .num_threads(usize::from(threads))
                .build_global()
                .context("--threads")?;
        }
        match self.device.as_str() {
            "auto" | "cpu" => Ok(Device::Cpu),
            cuda if cuda.starts_with("cuda") => {
                bail!("--device {cuda}: this program computes on the CPU only; use --device cpu")
            }
            other => bail!("--device {other}: use auto, cpu or cuda:N"),
        }
    }
}

/// Which detector, and the weights of its backbone.
#[derive(clap::Args)]
pub struct DetectorArgs {
    /// A detector's folder
    #[arg(value_name = "DETECTOR")]
    name: String,
    /// The backbone's weights, where they are not to be looked for
    #[arg(long, value_name = "FILE")]
    backbone_weights: Option<PathBuf>,
}

impl DetectorArgs {
    /// Loads it.
    pub fn load(&self, device: &Device) -> anyhow::Result<Detector> {
        load_detector(&self.name, self.backbone_weights.clone(), device)
    }
}

fn detector_folder(name: &str) -> anyhow::Result<PathBuf> {
    let folder = Path::new(name);
    if !folder.is_dir() {
        bail!("{name}: no such folder; give the folder that `fastflow train --out` made");
    }
    Ok(folder.to_path_buf())
}

/// Loads a detector by the name the user gave.
pub fn load_detector(
    name: &str,
    backbone_weights: Option<PathBuf>,
    device: &Device,
) -> anyhow::Result<Detector> {
    let folder = detector_folder(name)?;
    let options = LoadOptions {
        backbone_weights,
        device: device.clone(),
    };
    Ok(Detector::load(&folder, &options)?)
}

/// Opens a backbone by its id, weights from `weights` or where [`locate`] finds them.
pub fn open_backbone(
    id: &str,
    weights: Option<&Path>,
    device: &Device,
) -> anyhow::Result<(Box<dyn Backbone>, BackboneRecord)> {
    let id = backbones::resolve_id(id)?;
    if !backbones::needs_weights(&id) {
        let backbone = backbones::load(&id, None, device)?;
        return Ok((backbone, BackboneRecord::embedded(&id)));
    }
    let Some(path) = weights.map(Path::to_path_buf).or_else(|| locate(&id)) else {
        bail!(
            "backbone {id} needs its weights: give --backbone-weights FILE (timm/{id}, model.safetensors), \
             or use --backbone wavelet, which needs none"
        );
    };
    let backbone = backbones::load(&id, Some(&path), device)?;
    let sha256 = Some(hash_file(&path)?);
    Ok((
        backbone,
        BackboneRecord {
            id,
            repo: None,
            revision: None,
            sha256,
        },
    ))
}

/// Prints to standard output; a reader that went away (`| head`) is no error.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Prints one line.
pub fn print_line(text: impl std::fmt::Display) -> anyhow::Result<()> {
    print(&format!("{text}\n"))
}
