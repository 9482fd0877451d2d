//! Schemas as tables and text.

use std::io;

use ailurus_schema::{RegisteredSchema, Schema, SchemaReference, SchemaType};
use serde_json::{Value, json};

use crate::output::{self, Table};

pub fn subjects(subjects: &[String], is_json: bool) -> io::Result<()> {
    if is_json {
        return output::json(&subjects);
    }
    let mut table = Table::new(["SUBJECT"]);
    subjects.iter().for_each(|subject| table.row([subject.clone()]));
    output::print(table)
}

pub fn registered<'a>(schemas: impl Iterator<Item = &'a RegisteredSchema>, is_json: bool) -> io::Result<()> {
    if is_json {
        return output::json(&schemas.collect::<Vec<_>>());
    }
    let mut table = Table::new(["SUBJECT", "VERSION", "ID", "TYPE", "REFERENCES"]);
    for found in schemas {
        table.row([
            found.subject.clone(),
            found.version.to_string(),
            found.id.to_string(),
            found.schema.schema_type.to_string(),
            output::list(found.schema.references.iter().map(reference)),
        ]);
    }
    output::print(table)
}

pub fn setting(subject: Option<&str>, name: &str, value: &str, is_json: bool) -> io::Result<()> {
    if is_json {
        return output::json(&json!({"subject": subject, name: value}));
    }
    output::print(format_args!("{value}\n"))
}

/// Returns type and references of a schema.
pub fn described(schema: &Schema) -> String {
    let references: Vec<_> = schema.references.iter().map(reference).collect();
    if references.is_empty() {
        schema.schema_type.to_string()
    } else {
        format!("{}, refers to {}", schema.schema_type, references.join(", "))
    }
}

fn reference(reference: &SchemaReference) -> String {
    format!("{}={}:{}", reference.name, reference.subject, reference.version)
}

/// Returns the text for people: JSON over several lines, with the names of objects in the order that they have.
pub fn text(schema: &Schema) -> String {
    let text = match schema.schema_type {
        SchemaType::Protobuf => None,
        _ => serde_json::from_str::<Value>(&schema.text).is_ok().then(|| indented(&schema.text)),
    };
    let mut text = text.unwrap_or_else(|| schema.text.clone());
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// Indents valid JSON. An object or array without inner ones stays in its line, so that a field of Avro is one.
fn indented(json: &str) -> String {
    let mut compact = String::with_capacity(json.len());
    let (mut is_string, mut is_escaped) = (false, false);
    for c in json.chars() {
        if is_string {
            is_string = is_escaped || c != '"';
            is_escaped = !is_escaped && c == '\\';
            compact.push(c);
        } else if !c.is_ascii_whitespace() {
            is_string = c == '"';
            compact.push(c);
        }
    }
    let mut out = String::with_capacity(compact.len() * 2);
    let mut open: Vec<bool> = Vec::new(); // whether each open bracket is over several lines
    let mut chars = compact.char_indices();
    while let Some((at, c)) = chars.next() {
        let is_flat = open.last() == Some(&false);
        match c {
            '"' => {
                let end = end_of_string(&compact[at..]);
                out.push_str(&compact[at..at + end]);
                // The quote itself was taken.
                while chars.offset() < at + end {
                    chars.next();
                }
            }
            '{' | '[' => {
                let is_nested = !is_flat && has_inner(&compact[at..]);
                open.push(is_nested);
                out.push(c);
                if is_nested {
                    new_line(&mut out, open.len());
                }
            }
            '}' | ']' => {
                if open.pop() == Some(true) {
                    new_line(&mut out, open.len());
                }
                out.push(c);
            }
            ',' if is_flat => out.push_str(", "),
            ',' => {
                out.push(c);
                new_line(&mut out, open.len());
            }
            ':' => out.push_str(": "),
            c => out.push(c),
        }
    }
    out
}

fn new_line(out: &mut String, depth: usize) {
    out.push('\n');
    out.extend(std::iter::repeat_n("  ", depth));
}

/// Returns the length of the string at the beginning.
fn end_of_string(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if c == '"' && !is_escaped {
            return at + 1;
        }
        is_escaped = !is_escaped && c == '\\';
    }
    text.len()
}

/// Returns whether the object or array at the beginning has one inside.
fn has_inner(text: &str) -> bool {
    let mut at = 1;
    while let Some(c) = text[at..].chars().next() {
        match c {
            '"' => at += end_of_string(&text[at..]),
            '{' | '[' => return true,
            '}' | ']' => return false,
            c => at += c.len_utf8(),
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_a_line() {
        let schema = Schema::avro(
            r#"{"type":"record","name":"A","doc":"a \" {b","fields":[{"name":"x","type":"int"},{"name":"é","type":["null","int"],"default":null}]}"#,
        );
        let expected = r#"{
  "type": "record",
  "name": "A",
  "doc": "a \" {b",
  "fields": [
    {"name": "x", "type": "int"},
    {
      "name": "é",
      "type": ["null", "int"],
      "default": null
    }
  ]
}
"#;
        assert_eq!(text(&schema), expected);
        assert_eq!(text(&Schema::avro(expected)), expected);
        assert_eq!(text(&Schema::avro("\"int\"")), "\"int\"\n");
        assert_eq!(text(&Schema::protobuf("syntax = \"proto3\";\n")), "syntax = \"proto3\";\n");
    }
}
