//! `fastflow publish`: a detector onto the Hub.

use std::{
    io::{IsTerminal, Write},
    path::PathBuf,
};

use anyhow::bail;
use candle_fastflow::hub::{Hub, PublishOptions, RepoId, Staged};
use indicatif::HumanBytes;
use serde_json::json;

use super::{Outcome, card::CardArgs, common, transfer::Transfer};

#[derive(clap::Args)]
#[command(
    after_help = "Example: fastflow publish my-detector --tag v1 --dry-run\n\
    The token comes from HF_TOKEN; `hf upload REPO DIR` can upload the same files"
)]
pub struct Args {
    /// The detector's folder
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Repository; by default fastflow-BACKBONE-CATEGORY (fastflow-BACKBONE-METHOD-CATEGORY of another method) of FASTFLOW_NAMESPACE or the token's owner
    #[arg(long, value_name = "ORG/NAME")]
    repo: Option<String>,
    /// Tag the commit
    #[arg(long, value_name = "T", conflicts_with = "create_pr")]
    tag: Option<String>,
    /// Branch to change, made if there is none
    #[arg(long, value_name = "R")]
    revision: Option<String>,
    /// Open a pull request instead of changing the branch
    #[arg(long)]
    create_pr: bool,
    /// Make a new repository private
    #[arg(long)]
    private: bool,
    /// The commit's message
    #[arg(long, value_name = "TEXT")]
    message: Option<String>,
    #[command(flatten)]
    card: CardArgs,
    /// The backbone's weights, where they are not to be looked for
    #[arg(long, value_name = "FILE")]
    backbone_weights: Option<PathBuf>,
    /// Check and show what would be uploaded, then stop
    #[arg(long, conflicts_with = "yes")]
    dry_run: bool,
    /// Upload without asking
    #[arg(long)]
    yes: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> anyhow::Result<Outcome> {
    let hub = Hub::from_environment()?;
    let transfer = Transfer::new(args.json);
    let progress = |event: candle_fastflow::hub::Event<'_>| transfer.show(event);
    let options = options(&args)?;
    let staged = hub.stage(&args.dir, &options, &progress)?;
    if !args.json {
        show(&args, &staged)?;
    }
    if args.dry_run {
        if args.json {
            common::print_line(json!({"repo": staged.repo.to_string(), "files": staged.files}))?;
        }
        return Ok(Outcome::Done);
    }
    if !args.yes && !confirmed()? {
        bail!("nothing was uploaded");
    }
    let published = hub.upload(&staged, &options, &progress)?;
    if args.json {
        common::print_line(serde_json::to_string(&published)?)?;
    } else {
        let what = if published.unchanged {
            "was there already"
        } else {
            "published and verified"
        };
        common::print_line(format!("{what}: {}", published.url))?;
        if let Some(page) = &published.pull_request {
            common::print_line(format!("pull request: {page}"))?;
        }
    }
    Ok(Outcome::Done)
}

fn options(args: &Args) -> anyhow::Result<PublishOptions> {
    let mut options = PublishOptions {
        repo: args.repo.as_deref().map(RepoId::parse).transpose()?,
        dataset: args.card.dataset(),
        licence: args.card.licence.clone(),
        tag: args.tag.clone(),
        revision: args.revision.clone(),
        create_pr: args.create_pr,
        private: args.private,
        message: args.message.clone(),
        ..Default::default()
    };
    options.load.backbone_weights = args.backbone_weights.clone();
    Ok(options)
}

fn show(args: &Args, staged: &Staged) -> anyhow::Result<()> {
    let place = match (&args.revision, args.create_pr) {
        (_, true) => "a pull request".to_string(),
        (Some(branch), false) => format!("branch {branch}"),
        (None, false) => "branch main".to_string(),
    };
    common::print_line(format!(
        "{} -> {} ({place})",
        args.dir.display(),
        staged.repo
    ))?;
    for file in &staged.files {
        let size = HumanBytes(file.bytes).to_string();
        common::print_line(format!(
            "  {:18} {size:>12}  sha256 {}",
            file.name, file.sha256
        ))?;
    }
    Ok(())
}

fn confirmed() -> anyhow::Result<bool> {
    let input = std::io::stdin();
    if !input.is_terminal() {
        bail!("give --yes to upload, or --dry-run to only look");
    }
    eprint!("upload? [y/N] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    input.read_line(&mut answer)?;
    Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
}
