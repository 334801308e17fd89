//! `fastflow data`: data sets.

use std::path::PathBuf;

use candle_fastflow::datasets::{
    self,
    generated::{GenerateOptions, GeneratedProduct},
};

use super::{Outcome, common};

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Say what a folder is recognised as and how many images it holds
    Check(CheckArgs),
    /// Generate photos of a product with and without defects, masks included, to try things on
    Generate(GenerateArgs),
}

#[derive(clap::Args)]
#[command(after_help = "Example: fastflow data check photos/")]
struct CheckArgs {
    /// The folder
    dir: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
#[command(after_help = "Example: fastflow data generate --out fabric --train 200 --seed 1")]
struct GenerateArgs {
    /// Where it goes, in MVTec AD's layout
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Good images to train on
    #[arg(long, value_name = "N", default_value_t = 200)]
    train: usize,
    /// Good images to test on
    #[arg(long, value_name = "N", default_value_t = 60)]
    good: usize,
    /// Defective images to test on
    #[arg(long, value_name = "N", default_value_t = 105)]
    defective: usize,
    /// Pixels a side
    #[arg(long, value_name = "PIXELS", default_value_t = 256)]
    size: u32,
    /// The seed
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Only write the few JPEG samples that the program comes with, flat
    #[arg(long, conflicts_with_all = ["train", "good", "defective", "size", "seed"])]
    samples: bool,
}

pub fn run(args: Args) -> anyhow::Result<Outcome> {
    match args.action {
        Action::Check(args) => check(args)?,
        Action::Generate(args) => generate(args)?,
    }
    Ok(Outcome::Done)
}

fn check(args: CheckArgs) -> anyhow::Result<()> {
    let dataset = datasets::open(&args.dir)?;
    let defective = dataset.test.iter().filter(|s| s.defect.is_some()).count();
    let masks = dataset.test.iter().filter(|s| s.mask.is_some()).count();
    let (train, good) = (dataset.train.len(), dataset.test.len() - defective);
    if args.json {
        return common::print_line(serde_json::json!({
            "name": dataset.name, "train": train, "test_good": good,
            "test_defective": defective, "masks": masks, "hash": dataset.hash()?,
        }));
    }
    common::print_line(format!(
        "{}: {train} normal images to train on; to test on {good} good, {defective} defective ({masks} with a mask)",
        dataset.name
    ))
}

fn generate(args: GenerateArgs) -> anyhow::Result<()> {
    let options = GenerateOptions {
        seed: args.seed,
        train: args.train,
        good: args.good,
        defective: args.defective,
        size: args.size,
    };
    if args.samples {
        GeneratedProduct::write_samples(&args.out)?;
    } else {
        GeneratedProduct::write(&args.out, &options)?;
    }
    common::print_line(format!("written to {}", args.out.display()))
}
