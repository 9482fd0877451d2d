//! `ailurus completions`: completions of a shell.

use clap::{Args, Command};
use clap_complete::Shell;

use crate::exit::Exit;
use crate::output;

/// Print the completions of this command for a shell.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ailurus completions bash > ~/.local/share/bash-completion/completions/ailurus
  ailurus completions zsh > /usr/local/share/zsh/site-functions/_ailurus
  ailurus completions fish > ~/.config/fish/completions/ailurus.fish")]
pub struct Completions {
    /// Name of the shell.
    #[arg(value_enum)]
    shell: Shell,
}

pub fn run(mut command: Command, args: &Completions) -> anyhow::Result<Exit> {
    let mut script = Vec::new(); // the generator expects a writer that can't fail
    clap_complete::generate(args.shell, &mut command, "ailurus", &mut script);
    output::print(String::from_utf8_lossy(&script))?;
    Ok(Exit::Success)
}
