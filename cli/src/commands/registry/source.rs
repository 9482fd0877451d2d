//! A schema of a file, to be registered, checked or compared.

use std::io::Read;
use std::path::{Path, PathBuf};

use ailurus_schema::{Schema, SchemaType, Version};
use anyhow::Context;
use clap::Args;

use super::subject::SubjectVersion;
use crate::exit::Usage;

/// Options that name a schema.
#[derive(Debug, Args)]
pub struct Source {
    /// File with the schema; - is stdin.
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
    /// Type: AVRO, JSON or PROTOBUF [default: by the name of the file: .avsc, .json, .proto; else AVRO].
    #[arg(long = "type", value_name = "TYPE", value_parser = super::parsed::<SchemaType>)]
    schema_type: Option<SchemaType>,
    /// Schema that the text refers to, under the name that it has there: an Avro full name, the path of an import, the URI of a
    /// $ref. Name each referenced schema after those that it refers to itself.
    #[arg(long, value_name = "NAME=SUBJECT:VERSION")]
    reference: Vec<String>,
}

impl Source {
    /// Returns a file with a schema of this type, without references.
    pub fn of_type(file: PathBuf, schema_type: SchemaType) -> Self {
        Self { file, schema_type: Some(schema_type), reference: Vec::new() }
    }

    pub fn read(&self) -> anyhow::Result<Schema> {
        let text = read(&self.file)?;
        let mut schema = Schema::new(self.schema_type.unwrap_or_else(|| type_of(&self.file)), text);
        for reference in &self.reference {
            let (name, subject, version) = parsed(reference).ok_or_else(|| {
                Usage(format!("--reference {reference}: allowed is NAME=SUBJECT:VERSION, such as shop.Money=money:1"))
            })?;
            schema = schema.reference(name, subject, version);
        }
        Ok(schema)
    }
}

/// Reads a file, or stdin.
pub fn read(file: &Path) -> anyhow::Result<String> {
    if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("stdin can't be read as UTF-8")?;
        return Ok(text);
    }
    std::fs::read_to_string(file).map_err(|error| Usage(format!("{} can't be read: {error}", file.display())).into())
}

fn type_of(file: &Path) -> SchemaType {
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("proto") => SchemaType::Protobuf,
        Some("json") => SchemaType::Json,
        _ => SchemaType::Avro,
    }
}

/// Returns name, subject and version of a reference.
fn parsed(text: &str) -> Option<(String, String, i32)> {
    let (name, target) = text.split_once('=')?;
    let target: SubjectVersion = target.parse().ok()?;
    match target.version {
        Some(Version::Number(version)) if !name.is_empty() => Some((name.to_owned(), target.subject, version)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_has_name_subject_and_version() {
        assert_eq!(parsed("shop.Money=money:1"), Some(("shop.Money".into(), "money".into(), 1)));
        assert_eq!(parsed("m.proto=:.a:money:12"), Some(("m.proto".into(), ":.a:money".into(), 12)));
        for bad in ["", "money:1", "=money:1", "a=money", "a=money:latest", "a=money:0"] {
            assert_eq!(parsed(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_type_follows_from_the_name_of_the_file() {
        let of = |name: &str| type_of(Path::new(name));
        assert_eq!(of("order.avsc"), SchemaType::Avro);
        assert_eq!(of("order.proto"), SchemaType::Protobuf);
        assert_eq!(of("order.json"), SchemaType::Json);
        assert_eq!(of("-"), SchemaType::Avro);
    }
}
