//! Arguments of `train` that a method or its optimiser has.

use candle_fastflow::{
    detector::Schedule,
    estimators::{
        flow::{Coupling, FeatureNorm, Kernels, Preset},
        memory::{Metric, Precision},
    },
    training::{AdamConfig, OptimiserDefaults, Settings},
};

use super::common;

/// Of a flow.
#[derive(clap::Args)]
#[command(next_help_heading = "Flow (the preset's by default)")]
pub struct FlowArgs {
    /// What is done to the features before the first step; whiten (channels uncorrelated and of unit variance)
    /// learns fastest
    #[arg(long, value_parser = common::names::<FeatureNorm>(), conflicts_with = "from")]
    pub norm: Option<FeatureNorm>,
    /// Kernel sizes of the steps' subnets: 3-1 (alternating) or 3-3
    #[arg(long, value_parser = common::names::<Kernels>(), conflicts_with = "from")]
    pub kernels: Option<Kernels>,
    /// Coupling steps a scale (method cflow too)
    #[arg(long, value_name = "N", conflicts_with = "from")]
    pub steps: Option<usize>,
    /// Hidden width of the subnets, as a multiple of the preset's
    #[arg(long, value_name = "X", conflicts_with = "from")]
    pub hidden: Option<f64>,
    /// Bound of each step's log-scale
    #[arg(long, value_name = "X", conflicts_with = "from")]
    pub clamp: Option<f32>,
    /// affine, or additive (steps shift only: the Jacobian's determinant is the same for every photo)
    #[arg(long, value_parser = common::names::<Coupling>(), conflicts_with = "from")]
    pub coupling: Option<Coupling>,
}

/// Of methods that remember features.
#[derive(clap::Args)]
#[command(next_help_heading = "Memory (methods patchcore and spade)")]
pub struct MemoryArgs {
    /// Features that are remembered at most
    #[arg(long, value_name = "N", conflicts_with = "from")]
    pub memory: Option<usize>,
    /// Side of the square of positions that a feature is averaged over; odd (a FastFlow has it too)
    #[arg(long, value_name = "N", conflicts_with = "from")]
    pub neighbourhood: Option<usize>,
    /// Neighbours in the memory that weigh the image score (patchcore) [default: 9], or nearest photos (spade)
    /// [default: 50]
    #[arg(long, value_name = "N", conflicts_with = "from")]
    pub neighbours: Option<usize>,
    /// What is near: euclidean, or cosine (the default on vision transformers)
    #[arg(long, value_enum, hide_possible_values = true, conflicts_with = "from")]
    pub metric: Option<Metric>,
    /// How the memory lies in the file: f32, or f16 at half the size (spade's default)
    #[arg(long, value_enum, hide_possible_values = true, conflicts_with = "from")]
    pub precision: Option<Precision>,
}

/// Of methods that are trained.
#[derive(clap::Args)]
#[command(next_help_heading = "Optimiser")]
pub struct OptimiserArgs {
    #[arg(long, value_name = "N", help = help("Photos a step", |d| d.batch.to_string()))]
    pub batch: Option<usize>,
    #[arg(long, value_name = "X", help = learning_rate_help())]
    pub learning_rate: Option<f64>,
    #[arg(long, value_enum, hide_possible_values = true, help = schedule_help())]
    pub schedule: Option<Schedule>,
    #[arg(long, value_name = "X", help = format!("L2 term [default: {}]", AdamConfig::default().weight_decay))]
    pub weight_decay: Option<f64>,
    /// Limit the gradient's norm
    #[arg(long, value_name = "X")]
    pub gradient_clip: Option<f64>,
    /// Gigabytes of features kept in memory before they go to a mapped file
    #[arg(long, value_name = "GB", default_value_t = 4.0)]
    pub feature_memory: f64,
    /// Rebuild activations in the reverse pass by the flow's inverse instead of keeping them: less memory, more time
    #[arg(long)]
    pub rebuild_activations: bool,
    /// Seconds between checkpoints
    #[arg(long, value_name = "S", default_value_t = 120.0)]
    pub checkpoint_every: f64,
}

/// Views of photos.
#[derive(clap::Args)]
#[command(next_help_heading = "Augmentation")]
pub struct AugmentArgs {
    /// Cache N views of every photo: itself and N - 1 augmented ones (the paper's flips and rotation)
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub views: usize,
    /// No horizontal flip (probability .5)
    #[arg(long)]
    pub no_horizontal_flip: bool,
    /// No vertical flip (probability .3)
    #[arg(long)]
    pub no_vertical_flip: bool,
    /// No rotation (probability .7): for products that always lie the same way
    #[arg(long)]
    pub no_rotation: bool,
    /// Largest rotation
    #[arg(long, value_name = "DEGREES", default_value_t = 15.0)]
    pub rotation: f64,
    /// Quarter turns too
    #[arg(long)]
    pub quarter_turns: bool,
}

/// A flag's help with what holds where it is not given.
pub fn help(what: &str, of: fn(OptimiserDefaults) -> String) -> String {
    let [paper, whitened] = [Preset::Paper, Preset::Whitened].map(|p| of(OptimiserDefaults::of(p)));
    let [cflow, differnet] = [OptimiserDefaults::CFLOW, OptimiserDefaults::DIFFERNET].map(of);
    format!(
        "{what} [default: {paper}, of preset whitened {whitened}, of cflow {cflow}, of differnet {differnet}]"
    )
}

fn learning_rate_help() -> String {
    let help = help("Adam's step size", |d| d.learning_rate.to_string());
    let help = help.trim_end_matches(']');
    format!("{help}, with --from {}]", Settings::FINE_TUNING_RATE)
}

fn schedule_help() -> String {
    let name = |d: OptimiserDefaults| {
        let value = clap::ValueEnum::to_possible_value(&d.schedule);
        value.map_or_else(String::new, |value| value.get_name().to_string())
    };
    help(
        "Step size over the run: constant, cosine (falls to nothing at the end), or warm-cosine (rises first, which \
         rates far above 0.001 need)",
        name,
    )
}
