//! `fastflow card`: the model card of a detector.

use std::path::PathBuf;

use anyhow::{Context, bail};
use candle_fastflow::{
    detector::{CONFIG_FILE, DatasetRecord, DetectorConfig, read_config},
    files,
    hub::{CardFacts, DatasetFacts, render_card},
};

use super::{Outcome, common};

#[derive(clap::Args)]
#[command(
    after_help = "Example: fastflow card my-detector --dataset mvtec-ad -o my-detector/README.md"
)]
pub struct Args {
    /// The detector's folder
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// What users type to get it: bottle@cait, bottle@resnet18-patchcore or org/repo
    #[arg(long, value_name = "NAME")]
    reference: Option<String>,
    #[command(flatten)]
    card: CardArgs,
    /// Keep --dataset, --licence and --notes in the detector, for this card and later ones
    #[arg(long)]
    record: bool,
    /// With --record: Markdown to show in the card
    #[arg(long, value_name = "FILE", requires = "record")]
    notes: Option<PathBuf>,
    /// Write it here instead of printing it
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// What a card says where a detector does not record it.
#[derive(clap::Args)]
pub struct CardArgs {
    #[command(flatten)]
    dataset: DatasetArgs,
    /// SPDX id of the detector's licence; by default the data set's where that demands it
    #[arg(long, visible_alias = "license", value_name = "ID")]
    pub licence: Option<String>,
}

/// The data set by name.
#[derive(clap::Args)]
pub struct DatasetArgs {
    /// Data set of training and test: mvtec-ad, btad, visa, cifar10, or any name
    #[arg(long, value_name = "NAME")]
    dataset: Option<String>,
    /// SPDX id of the data set's licence, where the program does not know it
    #[arg(long, value_name = "ID", requires = "dataset")]
    dataset_licence: Option<String>,
}

impl DatasetArgs {
    /// What was said on the command line, if anything.
    pub fn facts(&self) -> Option<DatasetFacts> {
        let named = DatasetFacts::named(self.dataset.as_deref()?);
        Some(named.under(self.dataset_licence.as_deref()))
    }

    /// The same for a detector's record.
    pub fn record(&self) -> Option<DatasetRecord> {
        self.facts().map(|facts| DatasetRecord {
            name: facts.name,
            licence: facts.licence,
        })
    }
}

impl CardArgs {
    pub fn dataset(&self) -> Option<DatasetFacts> {
        self.dataset.facts()
    }
}

pub fn run(args: Args) -> anyhow::Result<Outcome> {
    common::keep_others("--out", args.out.as_deref())?;
    let mut config = read_config(&args.dir)?;
    if args.record {
        record(&args, &mut config)?;
    }
    let facts = CardFacts {
        reference: args.reference.clone(),
        dataset: args.card.dataset(),
        licence: args.card.licence.clone(),
    };
    let card = render_card(&config, &facts)?;
    match &args.out {
        Some(path) => files::write_bytes(path, card.as_bytes())?,
        None => common::print(&card)?,
    }
    Ok(Outcome::Done)
}

/// Keeps what was said in the detector's config.
fn record(args: &Args, config: &mut DetectorConfig) -> anyhow::Result<()> {
    let path = args.dir.join(CONFIG_FILE);
    if let Some(dataset) = args.card.dataset.record() {
        let Some(training) = &mut config.training else {
            bail!(
                "{}: has no training record to keep --dataset in",
                path.display()
            );
        };
        training.dataset = Some(dataset);
    }
    if let Some(licence) = &args.card.licence {
        config.licence = Some(licence.clone());
    }
    if let Some(notes) = &args.notes {
        let text = std::fs::read_to_string(notes).with_context(|| notes.display().to_string())?;
        config.notes = Some(text);
    }
    config.validate(&path)?;
    Ok(files::write_json(&path, config)?)
}
