//! Arguments that several verbs share, and how they become things.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use candle_core::Device;
use candle_fastflow::{
    Error,
    backbones::{self, Backbone, Taps},
    detector::{BackboneRecord, Detector, LoadOptions},
    files::raw_bytes,
    hub,
    imaging::{self, MAX_PIXELS, Reading, Unread},
    kernels::device::{DeviceChoice, set_tf32},
    mark,
};
use clap::{
    ValueEnum,
    builder::{PossibleValuesParser, TypedValueParser},
};
use comfy_table::{LineStyle, Table, presets::UTF8_HORIZONTAL_ONLY};

use super::{advice::said, transfer::Transfer};

/// Where to compute.
#[derive(clap::Args)]
pub struct Compute {
    /// auto, cpu or cuda:N
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    device: String,
    /// Worker threads; all cores by default
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// On a GPU: multiply through TF32 tensor cores, faster and with 10 bits of mantissa
    #[arg(long)]
    tf32: bool,
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
        let opened = self.device.parse().and_then(DeviceChoice::open);
        let (device, why) = opened.map_err(|error| anyhow!("--device {}", said(&error)))?;
        if let Some(why) = why {
            eprintln!("{why}");
        }
        if self.tf32 && device.is_cpu() {
            bail!(
                "--tf32 is for GPUs, and this runs on the CPU; leave it out or name one with --device cuda:N"
            );
        }
        set_tf32(self.tf32);
        Ok(device)
    }
}

/// How the files of photos are read.
#[derive(clap::Args)]
pub struct PhotoArgs {
    /// Page of files with several (multi-page TIFF), from 1; kept with a detector
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..), help_heading = "Photos")]
    page: Option<u16>,
    /// Largest photo that is read, in millions of pixels; sides up to 64000
    #[arg(long, value_name = "N", default_value_t = MAX_PIXELS / 1_000_000, value_parser = clap::value_parser!(u64).range(1..=4096), help_heading = "Photos")]
    max_megapixels: u64,
}

impl PhotoArgs {
    /// The page, where it was given.
    pub fn page(&self) -> Option<usize> {
        self.page.map(usize::from)
    }

    /// How to read photos before a detector says more.
    pub fn reading(&self) -> Reading {
        Reading {
            page: self.page().unwrap_or(1),
            max_pixels: 1_000_000 * self.max_megapixels,
            range: None,
        }
    }

    /// Has a detector look at the page that was given instead of its own.
    pub fn turn(&self, detector: &mut Detector) -> anyhow::Result<()> {
        match self.page() {
            Some(page) => Ok(detector.set_page(page)?),
            None => Ok(()),
        }
    }
}

/// Says what a person should know, a line each.
pub fn tell(notes: Vec<String>) {
    for note in notes {
        eprintln!("note: {note}");
    }
}

/// Says what below these folders is not looked at, once a run.
pub fn tell_unread(folders: &[PathBuf]) {
    let mut unread = Unread::default();
    for folder in folders {
        // A folder that cannot be read at all is an error of its own.
        if let Ok((_, more)) = imaging::survey(folder) {
            unread.add(more);
        }
    }
    tell(unread.notes());
}

/// Which detector, and the weights of its backbone.
#[derive(clap::Args)]
pub struct DetectorArgs {
    /// A detector: its folder, or a name on the Hub (bottle, bottle@cait, bottle@resnet18-patchcore, org/repo, org/repo@revision)
    #[arg(value_name = "DETECTOR")]
    name: String,
    /// The backbone's weights, where they are not to be looked for
    #[arg(long, value_name = "FILE")]
    backbone_weights: Option<PathBuf>,
}

impl DetectorArgs {
    /// As the user called it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Loads it.
    pub fn load(&self, device: &Device) -> anyhow::Result<Detector> {
        load_detector(&self.name, self.backbone_weights.clone(), device)
    }
}

/// Loads a detector by the name the user gave, downloading what is not here.
pub fn load_detector(
    name: &str,
    backbone_weights: Option<PathBuf>,
    device: &Device,
) -> anyhow::Result<Detector> {
    let options = LoadOptions {
        backbone_weights,
        device: device.clone(),
    };
    let transfer = Transfer::new(false);
    Ok(hub::from_pretrained(name, &options, &|event| {
        transfer.show(event);
    })?)
}

/// Opens a backbone by its id, weights from `weights`, this machine or the Hub; the record keeps taps that are not
/// the default ones.
pub fn open_backbone(
    id: &str,
    taps: Option<&Taps>,
    weights: Option<&Path>,
    device: &Device,
) -> anyhow::Result<(Box<dyn Backbone>, BackboneRecord)> {
    // Before anything is downloaded for it.
    let id = backbones::info_with(id, taps)?.id;
    let transfer = Transfer::new(false);
    let found = hub::find_backbone(&id, weights, &|event| transfer.show(event));
    let (path, mut record) = found.with_context(|| {
        format!("backbone {id} needs weights (--backbone-weights FILE gives them, --backbone wavelet needs none)")
    })?;
    let backbone = backbones::load_with(&id, taps, path.as_deref(), device)?;
    record.taps = backbone.info().chosen_taps();
    Ok((backbone, record))
}

/// The names of one of the library's enums as an option's values; what its docs say of them is for programmers.
pub fn names<T: ValueEnum + Send + Sync + 'static>() -> impl TypedValueParser<Value = T> {
    let names = T::value_variants()
        .iter()
        .filter_map(|value| Some(value.to_possible_value()?.help(None::<&'static str>)));
    PossibleValuesParser::new(names).try_map(|name| T::from_str(&name, false))
}

/// An empty table with lines around it and below its header.
pub fn table(header: &[&str]) -> Table {
    let style = UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none());
    let mut table = Table::new();
    table.load_style(style).set_header(header.iter().copied());
    table
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

/// A page that cannot be written, or would replace somebody's file, should be known before the work, not after it.
pub fn make_room(option: &str, page: &Path) -> anyhow::Result<()> {
    if page.is_dir() {
        bail!(
            "{option} {}: is a folder; name the page, for example {}",
            page.display(),
            page.join("report.html").display()
        );
    }
    keep_others(option, [page])?;
    match page.parent() {
        Some(folder) => Ok(std::fs::create_dir_all(folder).map_err(Error::io(folder))?),
        None => Ok(()),
    }
}

/// Refuses to write where somebody else's files are.
pub fn keep_others<'a>(
    option: &str,
    files: impl IntoIterator<Item = &'a Path>,
) -> anyhow::Result<()> {
    mark::require_free(files).map_err(|error| anyhow!("{option} {}", said(&error)))
}

/// Puts a path into a JSON object: as text, and where that is not all of it (a name that is no UTF-8) its bytes beside.
pub fn put_path(object: &mut serde_json::Value, key: &str, path: &Path) {
    object[key] = path.to_string_lossy().into();
    if let Some(bytes) = raw_bytes(path) {
        object[format!("{key}_bytes")] = bytes.into();
    }
}
