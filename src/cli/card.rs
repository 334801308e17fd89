//! `fastflow card`: the model card of a detector.

use std::path::PathBuf;

use candle_fastflow::{
    detector::read_config,
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
    /// What users type to get it: bottle@cait or org/repo
    #[arg(long, value_name = "NAME")]
    reference: Option<String>,
    #[command(flatten)]
    card: CardArgs,
    /// Write it here instead of printing it
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// What a card says and a detector does not record.
#[derive(clap::Args)]
pub struct CardArgs {
    /// Data set of training and test: mvtec-ad, btad, visa, cifar10, or any name
    #[arg(long, value_name = "NAME")]
    dataset: Option<String>,
    /// SPDX id of the detector's licence; by default the data set's where that demands it
    #[arg(long, visible_alias = "license", value_name = "ID")]
    pub licence: Option<String>,
}

impl CardArgs {
    pub fn dataset(&self) -> Option<DatasetFacts> {
        self.dataset.as_deref().map(DatasetFacts::named)
    }
}

pub fn run(args: Args) -> anyhow::Result<Outcome> {
    let facts = CardFacts {
        reference: args.reference.clone(),
        dataset: args.card.dataset(),
        licence: args.card.licence.clone(),
    };
    let card = render_card(&read_config(&args.dir)?, &facts)?;
    match &args.out {
        Some(path) => files::write_bytes(path, card.as_bytes())?,
        None => common::print(&card)?,
    }
    Ok(Outcome::Done)
}
