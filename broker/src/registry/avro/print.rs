//! The text by which the registry recognises a schema that it has: one order of attributes, no spaces, names as short as their
//! namespace allows, and the definition of a name at its first use.

use std::collections::BTreeSet;
use std::fmt::Write;

use serde_json::{Map, Value};

use super::{AvroSchema, Body, Field, Kind, Named, Node, full_name, split_name};

impl AvroSchema {
    /// Returns the canonical text. It leaves out types that `referenced` schemas define.
    pub fn canonical(&self, referenced: &[&AvroSchema]) -> String {
        let known = referenced.iter().flat_map(|schema| schema.named.keys().cloned()).collect();
        let mut printer = Printer { schema: self, known, text: String::new() };
        printer.node(&self.root, "");
        printer.text
    }
}

struct Printer<'a> {
    schema: &'a AvroSchema,
    /// Names whose definition is printed, or not this schema's.
    known: BTreeSet<String>,
    text: String,
}

impl Printer<'_> {
    fn node(&mut self, node: &Node, namespace: &str) {
        match &node.kind {
            Kind::Primitive(primitive) if node.attributes.is_empty() => self.string(primitive.name()),
            Kind::Primitive(primitive) => {
                self.text.push_str("{\"type\":");
                self.string(primitive.name());
                self.attributes(&node.attributes);
                self.text.push('}');
            }
            Kind::Array(items) => self.container(node, "array", "items", items, namespace),
            Kind::Map(values) => self.container(node, "map", "values", values, namespace),
            Kind::Union(branches) => {
                self.text.push('[');
                for (i, branch) in branches.iter().enumerate() {
                    self.comma(i > 0);
                    self.node(branch, namespace);
                }
                self.text.push(']');
            }
            Kind::Named(name) => self.named(name, namespace),
        }
    }

    fn container(&mut self, node: &Node, kind: &str, part: &str, inner: &Node, namespace: &str) {
        _ = write!(self.text, "{{\"type\":\"{kind}\",\"{part}\":");
        self.node(inner, namespace);
        self.attributes(&node.attributes);
        self.text.push('}');
    }

    fn named(&mut self, full: &str, outer: &str) {
        match self.schema.named.get(full) {
            Some(named) if self.known.insert(full.to_owned()) => self.definition(named, outer),
            _ => {
                let (namespace, name) = split_name(full);
                // A name without a namespace, inside of one, is found by its simple name.
                self.string(if namespace == outer { name } else { full });
            }
        }
    }

    fn definition(&mut self, named: &Named, outer: &str) {
        let kind = match &named.body {
            Body::Record { is_error: true, .. } => "error",
            Body::Record { .. } => "record",
            Body::Enum { .. } => "enum",
            Body::Fixed { .. } => "fixed",
        };
        self.text.push_str("{\"type\":");
        self.string(kind);
        self.pair("name", &named.name);
        if named.namespace != outer {
            self.pair("namespace", &named.namespace);
        }
        if let Some(doc) = &named.doc {
            self.pair("doc", doc);
        }
        match &named.body {
            Body::Record { fields, .. } => {
                self.text.push_str(",\"fields\":[");
                for (i, field) in fields.iter().enumerate() {
                    self.comma(i > 0);
                    self.field(field, &named.namespace);
                }
                self.text.push(']');
            }
            Body::Enum { symbols, default } => {
                self.strings("symbols", symbols);
                if let Some(default) = default {
                    self.pair("default", default);
                }
            }
            Body::Fixed { size } => _ = write!(self.text, ",\"size\":{size}"),
        }
        self.attributes(&named.attributes);
        if !named.aliases.is_empty() {
            let relative = |alias: &String| match split_name(alias) {
                (namespace, name) if namespace == named.namespace => name.to_owned(),
                _ => full_name(alias, ""),
            };
            self.strings("aliases", &named.aliases.iter().map(relative).collect::<Vec<_>>());
        }
        self.text.push('}');
    }

    fn field(&mut self, field: &Field, namespace: &str) {
        self.text.push_str("{\"name\":");
        self.string(&field.name);
        self.text.push_str(",\"type\":");
        self.node(&field.node, namespace);
        if let Some(doc) = &field.doc {
            self.pair("doc", doc);
        }
        if let Some(default) = &field.default {
            _ = write!(self.text, ",\"default\":{}", sorted(default));
        }
        if let Some(order) = &field.order {
            self.pair("order", order);
        }
        if !field.aliases.is_empty() {
            self.strings("aliases", &field.aliases);
        }
        self.attributes(&field.attributes);
        self.text.push('}');
    }

    fn comma(&mut self, is_needed: bool) {
        if is_needed {
            self.text.push(',');
        }
    }

    fn string(&mut self, text: &str) {
        _ = write!(self.text, "{}", Value::from(text));
    }

    fn pair(&mut self, name: &str, value: &str) {
        _ = write!(self.text, ",\"{name}\":");
        self.string(value);
    }

    fn strings(&mut self, name: &str, values: &[String]) {
        _ = write!(self.text, ",\"{name}\":{}", Value::from(values));
    }

    fn attributes(&mut self, attributes: &Map<String, Value>) {
        let mut sorted_by_name: Vec<_> = attributes.iter().collect();
        sorted_by_name.sort_by_key(|(name, _)| *name);
        for (name, value) in sorted_by_name {
            _ = write!(self.text, ",{}:{}", Value::from(name.as_str()), sorted(value));
        }
    }
}

/// Returns the value with the names of its objects in order, whichever order `serde_json` keeps.
pub(in crate::registry) fn sorted(value: &Value) -> Value {
    match value {
        Value::Array(values) => Value::Array(values.iter().map(sorted).collect()),
        Value::Object(object) => {
            let mut pairs: Vec<_> = object.iter().map(|(name, value)| (name.clone(), sorted(value))).collect();
            pairs.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(pairs.into_iter().collect())
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::super::parse;

    fn canonical(schema: &str) -> String {
        parse(schema, &[]).expect(schema).canonical(&[])
    }

    #[test]
    fn spelling_does_not_count() {
        let expected = concat!(
            r#"{"type":"record","name":"Order","namespace":"shop","doc":"An order","fields":["#,
            r#"{"name":"id","type":"string"},"#,
            r#"{"name":"paid","type":{"type":"long","logicalType":"timestamp-millis"},"default":0},"#,
            r#"{"name":"next","type":["null","Order"],"default":null}],"aliases":["Purchase"]}"#
        );
        for schema in [
            r#"{"name":"Order","namespace":"shop","type":"record","doc":"An order","aliases":["shop.Purchase"],
                "fields":[{"type":{"type":"string"},"name":"id"},
                {"default":0,"name":"paid","type":{"logicalType":"timestamp-millis","type":"long"}},
                {"name":"next","type":["null","shop.Order"],"default":null,"order":"ascending"}]}"#,
            expected,
        ] {
            assert_eq!(canonical(schema), expected);
        }
    }

    #[test]
    fn what_is_another_schema_stays_different() {
        let base = r#"{"type":"record","name":"A","fields":[{"name":"x","type":"int"}]}"#;
        for other in [
            r#"{"type":"record","name":"A","doc":"d","fields":[{"name":"x","type":"int"}]}"#,
            r#"{"type":"record","name":"A","fields":[{"name":"x","type":"int","default":1}]}"#,
            r#"{"type":"record","name":"A","namespace":"n","fields":[{"name":"x","type":"int"}]}"#,
            r#"{"type":"record","name":"A","owner":"me","fields":[{"name":"x","type":"int"}]}"#,
        ] {
            assert_ne!(canonical(base), canonical(other));
        }
    }

    #[test]
    fn canonical_text_is_its_own_canonical_text() {
        for schema in [
            r#"["null",{"type":"map","values":{"type":"array","items":{"type":"fixed","name":"a.F","size":16}}}]"#,
            r#"{"type":"enum","name":"E","symbols":["A","B"],"default":"A"}"#,
            r#"{"type":"record","name":"n.A","fields":[{"name":"b","type":{"type":"record","name":"m.B","fields":
                [{"name":"a","type":"n.A"}]}},{"name":"c","type":"m.B"}]}"#,
        ] {
            let text = canonical(schema);
            assert_eq!(canonical(&text), text);
        }
    }

    #[test]
    fn referenced_types_are_named_only() {
        let referenced = parse(r#"{"type":"enum","name":"n.E","symbols":["A"]}"#, &[]).expect("an enum");
        let user = parse(r#"{"type":"array","items":"n.E"}"#, &[&referenced]).expect("an array");
        assert_eq!(user.canonical(&[&referenced]), r#"{"type":"array","items":"n.E"}"#);
    }
}
