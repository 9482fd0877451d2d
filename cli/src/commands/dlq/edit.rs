//! Changes to a dead letter's record before it is replayed.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use ailurus::Headers;
use ailurus::processor::Truncation;
use bytes::Bytes;
use clap::Args;
use serde_json::{Value, json};

use super::log::DeadLetterRecord;
use super::show::line;
use crate::commands::consume::format;
use crate::exit::Usage;
use crate::options::pair;

#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Options that change the record before it is replayed (a dry run shows the difference)")]
pub struct Edit {
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
    /// The value to replay instead, once it is read.
    #[arg(skip)]
    pub value: Option<Bytes>,
}

/// Record before and after an edit.
#[derive(Debug)]
pub struct Change {
    before: (Option<Bytes>, Headers),
    after: (Option<Bytes>, Headers),
}

impl Edit {
    /// Reads the new value, unless it is to be edited.
    pub fn read_value(&mut self) -> anyhow::Result<()> {
        if let Some(file) = &self.set_value_file {
            let read = fs::read(file).map_err(|e| Usage(format!("--set-value-file {}: {e}", file.display())))?;
            self.value = Some(read.into());
        }
        if let Some(text) = self.set_value.take() {
            self.value = Some(text.into());
        }
        Ok(())
    }

    /// Changes a record; returns what it changed, if anything.
    pub fn apply(&self, dead_letter: &mut DeadLetterRecord) -> Option<Change> {
        let DeadLetterRecord { record, info, .. } = dead_letter;
        let before = (record.value.clone(), info.headers.clone());
        if let Some(value) = &self.value {
            record.value = Some(value.clone());
            if info.truncation == Truncation::Value {
                info.truncation = Truncation::Nothing; // nothing else is missing
            }
        }
        let is_replaced = |name: &[u8]| {
            self.remove_headers.iter().any(|n| n.as_bytes() == name)
                || self.set_headers.iter().any(|(n, _)| n.as_bytes() == name)
        };
        let kept: Headers = info.headers.iter().filter(|h| !is_replaced(h.key_bytes())).collect();
        info.headers = self.set_headers.iter().fold(kept, |headers, (name, value)| headers.with(name, value));
        let after = (record.value.clone(), info.headers.clone());
        (before != after).then_some(Change { before, after })
    }
}

impl Change {
    /// Returns the difference as lines of text.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let (old, new) = (self.before.0.as_deref(), self.after.0.as_deref());
        if old != new {
            lines.extend(difference(old, new).into_iter().map(|(sign, text)| format!("  value   {sign} {text}")));
        }
        let texts = |headers: &Headers| -> Vec<_> {
            headers
                .iter()
                .map(|h| format!("{} = {}", line(h.key_bytes()), h.value().map_or("(null)".into(), line)))
                .collect()
        };
        let (old, new) = (texts(&self.before.1), texts(&self.after.1));
        let only = |here: &[String], there: &[String]| -> Vec<_> {
            here.iter().filter(|text| !there.contains(text)).cloned().collect()
        };
        lines.extend(only(&old, &new).into_iter().map(|text| format!("  header  - {text}")));
        lines.extend(only(&new, &old).into_iter().map(|text| format!("  header  + {text}")));
        lines
    }

    /// Returns the difference as an object.
    pub fn json(&self) -> Value {
        let of = |(value, headers): &(Option<Bytes>, Headers)| {
            let (value, encoding) = format::encode(value.as_deref());
            json!({ "value": value, "valueEncoding": encoding, "headers": format::headers(headers) })
        };
        json!({ "before": of(&self.before), "after": of(&self.after) })
    }
}

/// Returns the lines of which two values differ, without those that they begin and end with.
fn difference(old: Option<&[u8]>, new: Option<&[u8]>) -> Vec<(char, String)> {
    let split = |bytes: Option<&'_ [u8]>| match bytes {
        None => vec![line_or_null(None)],
        Some(bytes) => bytes.split(|b| *b == b'\n').map(|l| line_or_null(Some(l))).collect::<Vec<_>>(),
    };
    let (old, new) = (split(old), split(new));
    let same_start = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let rest = old.len().min(new.len()) - same_start;
    let same_end = old.iter().rev().zip(new.iter().rev()).take(rest).take_while(|(a, b)| a == b).count();
    let changed = |all: &[String]| all[same_start..all.len() - same_end].to_vec();
    let removed = changed(&old).into_iter().map(|text| ('-', text));
    removed.chain(changed(&new).into_iter().map(|text| ('+', text))).collect()
}

fn line_or_null(bytes: Option<&[u8]>) -> String {
    bytes.map_or_else(|| "(null)".to_owned(), line)
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
