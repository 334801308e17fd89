//! `fastflow features`: what the flow gets to see, for parity checks and other uses.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use candle_fastflow::{backbones::Taps, imaging, mark, tensors};

use super::{Outcome, common};

#[derive(clap::Args)]
#[command(
    after_help = "Example: fastflow features --backbone resnet18 --backbone-weights model.safetensors part.png -o maps.safetensors"
)]
pub struct Args {
    /// The image
    image: PathBuf,
    /// Backbone id (timm's arch.tag)
    #[arg(long, value_name = "ID")]
    backbone: String,
    /// The backbone's weights
    #[arg(long, value_name = "FILE")]
    backbone_weights: Option<PathBuf>,
    /// Where to take features, one map each: stages of a ResNet (from 1) or blocks of a transformer (from 0), as 2,3;
    /// by default the backbone's own places
    #[arg(long, value_name = "LIST")]
    taps: Option<Taps>,
    /// Where to write tensors `input` (the preprocessed batch), `map.0`, `map.1`, ...
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Print shapes as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    compute: common::Compute,
}

pub fn run(args: Args) -> anyhow::Result<Outcome> {
    common::keep_others("--output", [args.output.as_path()])?;
    let device = args.compute.start()?;
    let (backbone, _) = common::open_backbone(
        &args.backbone,
        args.taps.as_ref(),
        args.backbone_weights.as_deref(),
        &device,
    )?;
    let image = imaging::decode(&args.image)?;
    let input = backbone.info().preprocessing.to_tensor(&image, &device)?;
    let mut tensors = BTreeMap::new();
    for (i, map) in backbone.features(&input)?.into_iter().enumerate() {
        tensors.insert(format!("map.{i}"), map);
    }
    tensors.insert("input".to_string(), input);
    let ours = HashMap::from([(mark::KEYWORD.into(), mark::PROGRAM.into())]);
    tensors::write(&args.output, &tensors, Some(ours))?;
    if args.json {
        let shapes: BTreeMap<_, _> = tensors.iter().map(|(n, t)| (n, t.dims())).collect();
        let mut object = serde_json::json!({ "shapes": shapes });
        common::put_path(&mut object, "output", &args.output);
        common::print_line(object)?;
    } else {
        for (name, tensor) in &tensors {
            common::print_line(format!("{name}  {:?}", tensor.dims()))?;
        }
        common::print_line(format!("written to {}", args.output.display()))?;
    }
    Ok(Outcome::Done)
}
