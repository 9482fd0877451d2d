//! `ailurus man`: the manual pages, from the same text as `--help`.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Command};

use crate::exit::Exit;
use crate::output;

/// Write the manual pages of this command, one for each of its commands.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  ailurus man --out ~/.local/share/man/man1 && man ailurus-produce")]
pub struct Man {
    /// Directory of the pages, created if it does not exist.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

pub fn run(command: Command, args: &Man) -> anyhow::Result<Exit> {
    let shown = args.out.display();
    std::fs::create_dir_all(&args.out).with_context(|| format!("{shown} could not be created"))?;
    clap_mangen::generate_to(command, &args.out).with_context(|| format!("{shown} could not be written to"))?;
    output::print(format_args!("{shown}/ailurus.1 and a page for each command\n"))?;
    Ok(Exit::Success)
}
