//! Export and import: all versions as lines of JSON.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use ailurus_schema::registry::{Deleted, RegisterOptions, SubjectFilter};
use ailurus_schema::{RegisteredSchema, SchemaRegistry, Version};
use anyhow::Context;

use super::source;
use crate::exit::{Exit, Usage};
use crate::output::{self, Table, note};

/// Depth to which references are followed.
const MAX_DEPTH: usize = 64;

/// Writes the versions of the subjects, and those that they refer to with all before them.
pub async fn export(registry: &SchemaRegistry, prefix: Option<String>, out: Option<&Path>) -> anyhow::Result<()> {
    let filter = prefix.map_or_else(SubjectFilter::default, SubjectFilter::prefix);
    let mut export = Export { registry, versions: BTreeMap::new(), known: BTreeSet::new(), sorted: Vec::new() };
    for subject in registry.subjects(&filter).await? {
        for version in export.versions_of(&subject).await? {
            export.add(&subject, version, 0).await?;
        }
    }
    let lines = |out: &mut dyn Write| -> anyhow::Result<()> {
        for found in &export.sorted {
            serde_json::to_writer(&mut *out, found)?;
            writeln!(out)?;
        }
        Ok(out.flush()?)
    };
    match out {
        Some(path) => {
            let file =
                File::create_new(path).map_err(|e| Usage(format!("{} can't be created: {e}", path.display())))?;
            lines(&mut io::BufWriter::new(file)).with_context(|| format!("{} can't be written", path.display()))?;
        }
        None => lines(&mut io::stdout().lock())?,
    }
    note(format_args!("exported {} versions", export.sorted.len()));
    Ok(())
}

struct Export<'a> {
    registry: &'a SchemaRegistry,
    /// Versions of the subjects that were listed.
    versions: BTreeMap<String, Vec<i32>>,
    known: BTreeSet<(String, i32)>,
    /// Referenced versions, and earlier ones of the same subject, before those that need them: a registry that chooses versions
    /// then chooses the same order.
    sorted: Vec<RegisteredSchema>,
}

impl Export<'_> {
    /// Returns the versions of a subject that are not deleted.
    async fn versions_of(&mut self, subject: &str) -> anyhow::Result<Vec<i32>> {
        if let Some(versions) = self.versions.get(subject) {
            return Ok(versions.clone());
        }
        let versions = match self.registry.versions(subject, Deleted::Exclude).await {
            // What is referred to may be deleted softly as a whole.
            Err(error) if error.is_not_found() => Vec::new(),
            versions => versions?,
        };
        self.versions.insert(subject.to_owned(), versions.clone());
        Ok(versions)
    }

    async fn add(&mut self, subject: &str, version: i32, depth: usize) -> anyhow::Result<()> {
        if depth > MAX_DEPTH {
            return Err(anyhow::anyhow!("references of {subject} are nested deeper than {MAX_DEPTH}"));
        }
        if !self.known.insert((subject.to_owned(), version)) {
            return Ok(());
        }
        for earlier in self.versions_of(subject).await?.into_iter().take_while(|earlier| *earlier < version) {
            Box::pin(self.add(subject, earlier, depth + 1)).await?;
        }
        let found = self.registry.version_or_deleted(subject, version.into()).await?;
        for reference in &found.schema.references {
            Box::pin(self.add(&reference.subject, reference.version, depth + 1)).await?;
        }
        self.sorted.push(found);
        Ok(())
    }
}

/// Registers exported versions, in the order of the file.
pub async fn import(registry: &SchemaRegistry, file: &Path, new_ids: bool, yes: bool) -> anyhow::Result<Exit> {
    let all = parse(&source::read(file)?)?;
    if !yes {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        all.iter().for_each(|found| *counts.entry(found.subject.as_str()).or_default() += 1);
        let mut table = Table::new(["SUBJECT", "VERSIONS", "HAS ALREADY"]);
        for (subject, count) in counts {
            let there = registry.versions(subject, Deleted::Exclude).await;
            let there = match there {
                Err(error) if error.is_not_found() => Vec::new(),
                versions => versions?,
            };
            table.row([subject.to_owned(), count.to_string(), there.len().to_string()]);
        }
        output::print(table)?;
        note(format_args!("nothing was registered; --yes does it"));
        return Ok(Exit::Success);
    }
    // Versions that the registry has chosen, for references to them.
    let mut versions: BTreeMap<(String, i32), i32> = BTreeMap::new();
    for (at, found) in all.iter().enumerate() {
        let mut schema = found.schema.clone();
        let mut options = RegisterOptions::new();
        if new_ids {
            for reference in &mut schema.references {
                let chosen = versions.get(&(reference.subject.clone(), reference.version));
                reference.version = chosen.copied().unwrap_or(reference.version);
            }
        } else {
            options = options.import(found.id, found.version);
        }
        let registered = registry.register(&found.subject, &schema, options).await.with_context(|| {
            format!("version {} of {} (line {}; {at} were registered)", found.version, found.subject, at + 1)
        })?;
        if new_ids {
            let version = match registered.version {
                Some(version) => version,
                None => registry.look_up(&found.subject, &schema, false).await?.version,
            };
            versions.insert((found.subject.clone(), found.version), version);
        }
    }
    output::print(format_args!("registered {} versions\n", all.len()))?;
    Ok(Exit::Success)
}

fn parse(text: &str) -> anyhow::Result<Vec<RegisteredSchema>> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let parsed = lines.map(|(at, line)| {
        let found: RegisteredSchema = serde_json::from_str(line)
            .map_err(|error| Usage(format!("line {} is not an exported version: {error}", at + 1)))?;
        if matches!(Version::from(found.version), Version::Number(number) if number < 1) {
            return Err(Usage(format!("line {} has version {}, which is none", at + 1, found.version)).into());
        }
        Ok(found)
    });
    parsed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_no_version_is_named() {
        let line = r#"{"subject":"a","version":1,"id":7,"schema":"\"int\""}"#;
        assert_eq!(parse(&format!("{line}\n\n{line}\n")).map(|all| all.len()).ok(), Some(2));
        let error = parse(&format!("{line}\nx\n")).map(drop).map_err(|e| e.to_string());
        assert!(error.is_err_and(|e| e.starts_with("line 2 ")));
        assert!(parse(&line.replace(":1", ":0")).is_err());
    }
}
