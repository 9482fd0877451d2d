//! Changes to a dead letter's record before it is replayed.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use ailurus::Headers;
use ailurus_serve::dead_letters::{Change, Edit};
use ailurus_serve::text::line;
use bytes::Bytes;
use clap::Args;
use serde_json::{Value, json};

use crate::commands::consume::format;
use crate::exit::Usage;
use crate::options::pair;

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Options that change the record before it is replayed (a dry run shows the difference)")]
pub struct EditArgs {
    /// Open the value in $VISUAL or $EDITOR; if it is not changed there, nothing is replayed.
    #[arg(long, requires = "at", conflicts_with_all = ["set_value", "set_value_file"])]
    pub edit: bool,
    /// Value to replay instead.
    #[arg(long, value_name = "TEXT", requires = "at", conflicts_with = "set_value_file")]
    pub set_value: Option<String>,
    /// File with the value to replay instead, as it is.
    #[arg(long, value_name = "FILE", requires = "at")]
    pub set_value_file: Option<PathBuf>,
    /// Header to replay with, in place of those of its name; may be given again.
    #[arg(long = "set-header", value_name = "NAME=VALUE", value_parser = pair)]
    pub set_headers: Vec<(String, String)>,
    /// Name of headers to replay without; may be given again.
    #[arg(long = "remove-header", value_name = "NAME")]
    pub remove_headers: Vec<String>,
}

impl EditArgs {
    /// Returns the edit, with the new value, unless it is to be edited.
    pub fn read(&self) -> anyhow::Result<Edit> {
        let (set_headers, remove_headers) = (self.set_headers.clone(), self.remove_headers.clone());
        let mut edit = Edit { value: None, set_headers, remove_headers };
        if let Some(file) = &self.set_value_file {
            let read = fs::read(file).map_err(|e| Usage(format!("--set-value-file {}: {e}", file.display())))?;
            edit.value = Some(Some(read.into()));
        }
        if let Some(text) = &self.set_value {
            edit.value = Some(Some(text.clone().into()));
        }
        Ok(edit)
    }
}

/// Returns a change as lines of text.
pub fn lines(change: &Change) -> Vec<String> {
    let mut lines = Vec::new();
    let (old, new) = (change.before.0.as_deref(), change.after.0.as_deref());
    if old != new {
        lines.extend(difference(old, new).into_iter().map(|(sign, text)| format!("  value   {sign} {text}")));
    }
    let texts = |headers: &Headers| -> Vec<_> {
        headers.iter().map(|h| format!("{} = {}", line(Some(h.key_bytes())), line(h.value()))).collect()
    };
    let (old, new) = (texts(&change.before.1), texts(&change.after.1));
    let only = |here: &[String], there: &[String]| -> Vec<_> {
        here.iter().filter(|text| !there.contains(text)).cloned().collect()
    };
    lines.extend(only(&old, &new).into_iter().map(|text| format!("  header  - {text}")));
    lines.extend(only(&new, &old).into_iter().map(|text| format!("  header  + {text}")));
    lines
}

/// Returns a change as an object.
pub fn json(change: &Change) -> Value {
    let of = |(value, headers): &(Option<Bytes>, Headers)| {
        let (value, encoding) = format::encode(value.as_deref());
        json!({ "value": value, "valueEncoding": encoding, "headers": format::headers(headers) })
    };
    json!({ "before": of(&change.before), "after": of(&change.after) })
}

/// Returns the lines of which two values differ, without those that they begin and end with.
fn difference(old: Option<&[u8]>, new: Option<&[u8]>) -> Vec<(char, String)> {
    let split = |bytes: Option<&'_ [u8]>| match bytes {
        None => vec![line(None)],
        Some(bytes) => bytes.split(|b| *b == b'\n').map(|l| line(Some(l))).collect::<Vec<_>>(),
    };
    let (old, new) = (split(old), split(new));
    let same_start = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let rest = old.len().min(new.len()) - same_start;
    let same_end = old.iter().rev().zip(new.iter().rev()).take(rest).take_while(|(a, b)| a == b).count();
    let changed = |all: &[String]| all[same_start..all.len() - same_end].to_vec();
    let removed = changed(&old).into_iter().map(|text| ('-', text));
    removed.chain(changed(&new).into_iter().map(|text| ('+', text))).collect()
}

/// Opens a value in the editor of the environment. Returns the new value, if it was changed there, and
/// the file with it.
pub async fn in_editor(value: Option<&[u8]>) -> anyhow::Result<Option<(Bytes, PathBuf)>> {
    let variable = |name| std::env::var(name).ok().filter(|v| !v.is_empty());
    let editor = variable("VISUAL").or_else(|| variable("EDITOR"));
    let editor =
        editor.ok_or_else(|| Usage("--edit needs the variable VISUAL or EDITOR; or use --set-value-file".into()))?;
    let before = value.unwrap_or_default().to_vec();
    let path = std::env::temp_dir().join(format!("ailurus-dlq-{}.txt", uuid::Uuid::now_v7()));
    write_private(&path, &before).map_err(|e| anyhow::anyhow!("{} can't be written: {e}", path.display()))?;
    let file = path.clone();
    let edited = tokio::task::spawn_blocking(move || {
        // Through a shell, because the variable may have arguments.
        let status = Command::new("sh").arg("-c").arg(format!("{editor} \"$1\"")).arg("sh").arg(&file).status()?;
        if !status.success() {
            return Err(std::io::Error::other(format!("the editor {editor:?} failed: {status}")));
        }
        fs::read(&file)
    });
    let mut after = match edited.await? {
        Ok(after) => after,
        Err(e) => {
            _ = fs::remove_file(&path);
            return Err(e.into());
        }
    };
    // Editors end the last line.
    if after.last() == Some(&b'\n') && before.last() != Some(&b'\n') {
        after.pop();
        fs::write(&path, &after)?;
    }
    if after == before {
        fs::remove_file(&path)?;
        return Ok(None);
    }
    Ok(Some((after.into(), path)))
}

/// Writes a new file that only this user may read.
fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?.write_all(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_has_the_changed_lines_alone() {
        let of = |old: &str, new: &str| {
            difference(Some(old.as_bytes()), Some(new.as_bytes()))
                .iter()
                .map(|(s, l)| format!("{s}{l}"))
                .collect::<Vec<_>>()
        };
        assert_eq!(of("{\n\"a\": 1,\n\"b\": 2\n}", "{\n\"a\": 7,\n\"b\": 2\n}"), ["-\"a\": 1,", "+\"a\": 7,"]);
        assert_eq!(of("a\na", "a\na\na"), ["+a"]);
        assert_eq!(of("", "x"), ["-", "+x"]);
        assert_eq!(difference(None, Some(b"x")), [('-', "(null)".to_owned()), ('+', "x".to_owned())]);
    }
}
