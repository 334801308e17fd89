//! `fastflow completions SHELL`.

use clap::CommandFactory;

use super::{Cli, Outcome};

#[derive(clap::Args)]
#[command(
    after_help = "Example: fastflow completions bash > ~/.local/share/bash-completion/completions/fastflow"
)]
pub struct Args {
    /// bash, zsh, fish, elvish or powershell
    shell: clap_complete::Shell,
}

pub fn run(args: Args) -> anyhow::Result<Outcome> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "fastflow", &mut script);
    super::common::print(&String::from_utf8(script)?)?;
    Ok(Outcome::Done)
}
