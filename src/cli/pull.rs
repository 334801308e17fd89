//! `fastflow pull`: a detector and its backbone's weights onto this machine.

use std::path::PathBuf;

use candle_fastflow::{backbones, detector::read_config, hub::Hub};
use serde_json::json;

use super::{Outcome, common, transfer::Transfer};

#[derive(clap::Args)]
#[command(after_help = "Example: fastflow pull bottle\n\
    For a machine without network: fastflow pull bottle --to bottle-detector, and carry the folder there")]
pub struct Args {
    /// bottle, bottle@cait, bottle@resnet18-patchcore, org/repo or org/repo@revision
    #[arg(value_name = "NAME")]
    name: String,
    /// Also make a folder that holds all a machine without network needs
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// With --to: put these weights of the backbone there instead of the recorded ones
    #[arg(long, value_name = "FILE", requires = "to")]
    backbone_weights: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> anyhow::Result<Outcome> {
    let transfer = Transfer::new(args.json);
    let progress = |event: candle_fastflow::hub::Event<'_>| transfer.show(event);
    let hub = Hub::from_environment()?;
    if let Some(folder) = &args.to {
        hub.pull_to(
            &args.name,
            folder,
            args.backbone_weights.as_deref(),
            &progress,
        )?;
        return show(&args, folder.clone());
    }
    let folder = hub.fetch_detector(&args.name, &progress)?;
    let record = read_config(&folder)?.backbone;
    if backbones::needs_weights(&record.id) {
        hub.fetch_backbone(&record, &progress)?;
    }
    show(&args, folder)
}

fn show(args: &Args, folder: PathBuf) -> anyhow::Result<Outcome> {
    let config = read_config(&folder)?;
    if args.json {
        let mut object = json!({
            "name": args.name, "category": config.name, "backbone": config.backbone.id,
        });
        common::put_path(&mut object, "folder", &folder);
        common::print_line(object)?;
    } else {
        let name = args
            .to
            .as_ref()
            .map_or(args.name.clone(), |to| to.display().to_string());
        common::print_line(format!(
            "{}\ninspect: fastflow infer {name} PHOTOS",
            folder.display()
        ))?;
    }
    Ok(Outcome::Done)
}
