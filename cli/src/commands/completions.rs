//! `ailurus completions`: what a shell needs to complete our command lines.

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::args::Cli;
use crate::exit::Exit;
use crate::output;

/// Print a shell's completions of this command.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ailurus completions bash > ~/.local/share/bash-completion/completions/ailurus
  ailurus completions zsh > /usr/local/share/zsh/site-functions/_ailurus
  ailurus completions fish > ~/.config/fish/completions/ailurus.fish")]
pub struct Completions {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

pub fn run(args: &Completions) -> anyhow::Result<Exit> {
    let mut script = Vec::new(); // what is generated expects a writer that can't fail
    clap_complete::generate(args.shell, &mut Cli::command(), "ailurus", &mut script);
    output::print(String::from_utf8_lossy(&script))?;
    Ok(Exit::Success)
}
