//! From JSON to a schema, with the checks of Avro's specification.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::{AvroSchema, Body, Field, Kind, Named, Node, Primitive, default_value, full_name};

/// Attributes that have a meaning, by where they stand.
const OF_TYPES: [&str; 1] = ["type"];
const OF_ARRAYS: [&str; 2] = ["type", "items"];
const OF_MAPS: [&str; 2] = ["type", "values"];
const OF_NAMED: [&str; 9] = ["type", "name", "namespace", "doc", "aliases", "fields", "symbols", "size", "default"];
const OF_FIELDS: [&str; 6] = ["name", "type", "doc", "default", "order", "aliases"];

/// Parses a schema; `referenced` are those that it may name types of.
///
/// # Errors
///
/// A sentence that names the place of the error.
pub(in crate::registry) fn parse(text: &str, referenced: &[&AvroSchema]) -> Result<AvroSchema, String> {
    let value = serde_json::from_str(text).or_else(|error| {
        // A primitive type may stand without quotes, as Avro's own tools accept it.
        if Primitive::parse(text.trim()).is_some() { Ok(Value::String(text.trim().to_owned())) } else { Err(error) }
    });
    let value = value.map_err(|error| format!("the schema is not JSON: {error}"))?;
    let mut parser = Parser { named: BTreeMap::new(), complete: BTreeSet::new() };
    for schema in referenced {
        for (name, definition) in &schema.named {
            parser.named.insert(name.clone(), definition.clone());
        }
    }
    let mut own = Parser { complete: parser.named.keys().cloned().collect(), ..parser };
    let root = own.node(&value, "")?;
    let schema = AvroSchema { root, named: own.named };
    default_value::check(&schema)?;
    Ok(schema)
}

struct Parser {
    /// Definitions so far; those that are being parsed are without fields.
    named: BTreeMap<String, Named>,
    /// Names that a referenced schema defines: a schema that repeats one means its own.
    complete: BTreeSet<String>,
}

impl Parser {
    fn node(&mut self, value: &Value, namespace: &str) -> Result<Node, String> {
        match value {
            Value::String(name) => self.by_name(name, namespace),
            Value::Array(branches) => self.union(branches, namespace),
            Value::Object(object) => self.object(object, namespace),
            other => Err(format!("a type is a name, an object or an array, not {other}")),
        }
    }

    fn by_name(&self, name: &str, namespace: &str) -> Result<Node, String> {
        if let Some(primitive) = Primitive::parse(name) {
            return Ok(plain(Kind::Primitive(primitive)));
        }
        let full = full_name(name, namespace);
        // A simple name may also be one without a namespace.
        let found = [full.as_str(), name].into_iter().find(|n| self.named.contains_key(*n));
        found.map(|n| plain(Kind::Named(n.to_owned()))).ok_or_else(|| format!("\"{full}\" is not a defined name"))
    }

    fn union(&mut self, branches: &[Value], namespace: &str) -> Result<Node, String> {
        let mut nodes = Vec::new();
        let mut seen = BTreeSet::new();
        for branch in branches {
            let node = self.node(branch, namespace)?;
            let name = match &node.kind {
                Kind::Union(_) => return Err("a union may not immediately contain a union".to_owned()),
                Kind::Primitive(primitive) => primitive.name().to_owned(),
                Kind::Array(_) => "array".to_owned(),
                Kind::Map(_) => "map".to_owned(),
                Kind::Named(name) => name.clone(),
            };
            if !seen.insert(name.clone()) {
                return Err(format!("duplicate in union: {name}"));
            }
            nodes.push(node);
        }
        Ok(plain(Kind::Union(nodes)))
    }

    fn object(&mut self, object: &Map<String, Value>, namespace: &str) -> Result<Node, String> {
        let Some(kind) = object.get("type") else { return Err("a type has no \"type\"".to_owned()) };
        let Value::String(name) = kind else {
            let mut node = self.node(kind, namespace)?;
            node.attributes.extend(others(object, &OF_TYPES));
            return Ok(node);
        };
        match name.as_str() {
            "array" | "map" => {
                let (part, known) = if name == "array" { ("items", &OF_ARRAYS[..]) } else { ("values", &OF_MAPS[..]) };
                let inner = object.get(part).ok_or_else(|| format!("a type \"{name}\" has no \"{part}\""))?;
                let inner = Box::new(self.node(inner, namespace)?);
                let kind = if name == "array" { Kind::Array(inner) } else { Kind::Map(inner) };
                Ok(Node { kind, attributes: others(object, known) })
            }
            "record" | "error" | "enum" | "fixed" => self.definition(name, object, namespace),
            _ => {
                let mut node = self.by_name(name, namespace)?;
                node.attributes = others(object, &OF_TYPES);
                Ok(node)
            }
        }
    }

    fn definition(&mut self, kind: &str, object: &Map<String, Value>, outer: &str) -> Result<Node, String> {
        let name = string(object, "name")?.ok_or_else(|| format!("a type \"{kind}\" has no \"name\""))?;
        let namespace = string(object, "namespace")?.unwrap_or_else(|| outer.to_owned());
        let full = full_name(&name, &namespace);
        let (namespace, name) = super::split_name(&full);
        check_name(&full)?;
        if Primitive::parse(&full).is_some() {
            return Err(format!("the name {full} is that of a primitive type"));
        }
        if self.named.contains_key(&full) && !self.complete.remove(&full) {
            return Err(format!("can't redefine: {full}"));
        }
        let aliases = names(object, "aliases")?.iter().map(|alias| full_name(alias, namespace)).collect();
        let body = match kind {
            "enum" => enumeration(object, &full)?,
            "fixed" => {
                let size = object.get("size").and_then(Value::as_u64);
                Body::Fixed { size: size.ok_or_else(|| format!("fixed {full} has no valid \"size\""))? }
            }
            _ => Body::Record { fields: Vec::new(), is_error: kind == "error" },
        };
        let attributes = others(object, &OF_NAMED);
        let doc = string(object, "doc")?;
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        let is_record = matches!(body, Body::Record { .. });
        let definition = Named { namespace: namespace.clone(), name, doc, aliases, attributes, body };
        self.named.insert(full.clone(), definition);
        if is_record {
            let fields = self.fields(object, &full, &namespace)?;
            if let Some(Named { body: Body::Record { fields: of_record, .. }, .. }) = self.named.get_mut(&full) {
                *of_record = fields;
            }
        }
        Ok(plain(Kind::Named(full)))
    }

    fn fields(&mut self, object: &Map<String, Value>, record: &str, namespace: &str) -> Result<Vec<Field>, String> {
        let Some(Value::Array(values)) = object.get("fields") else {
            return Err(format!("record {record} has no array \"fields\""));
        };
        let mut fields: Vec<Field> = Vec::new();
        for value in values {
            let Value::Object(object) = value else {
                return Err(format!("a field of record {record} is not an object: {value}"));
            };
            let name = string(object, "name")?.ok_or_else(|| format!("a field of record {record} has no name"))?;
            let at = |error: String| format!("field {name} of record {record}: {error}");
            check_simple_name(&name).map_err(at)?;
            if fields.iter().any(|f| f.name == name) {
                return Err(format!("duplicate field {name} in record {record}"));
            }
            let kind = object.get("type").ok_or_else(|| at("it has no \"type\"".to_owned()))?;
            let node = self.node(kind, namespace).map_err(at)?;
            let order = string(object, "order").map_err(at)?;
            if order.as_deref().is_some_and(|o| !["ascending", "descending", "ignore"].contains(&o)) {
                return Err(at("\"order\" is ascending, descending or ignore".to_owned()));
            }
            fields.push(Field {
                node,
                order: order.filter(|o| o != "ascending"),
                doc: string(object, "doc").map_err(at)?,
                default: object.get("default").cloned(),
                aliases: names(object, "aliases").map_err(at)?,
                attributes: others(object, &OF_FIELDS),
                name,
            });
        }
        Ok(fields)
    }
}

fn enumeration(object: &Map<String, Value>, full: &str) -> Result<Body, String> {
    let symbols = names(object, "symbols")?;
    if !object.contains_key("symbols") {
        return Err(format!("enum {full} has no \"symbols\""));
    }
    let mut seen = BTreeSet::new();
    for symbol in &symbols {
        check_simple_name(symbol).map_err(|error| format!("enum {full}: {error}"))?;
        if !seen.insert(symbol) {
            return Err(format!("duplicate symbol {symbol} in enum {full}"));
        }
    }
    let default = string(object, "default")?;
    match default {
        Some(symbol) if !symbols.contains(&symbol) => {
            Err(format!("the default {symbol} of enum {full} is not one of its symbols"))
        }
        default => Ok(Body::Enum { symbols, default }),
    }
}

fn plain(kind: Kind) -> Node {
    Node { kind, attributes: Map::new() }
}

/// Returns the attributes that are not in the list.
fn others(object: &Map<String, Value>, known: &[&str]) -> Map<String, Value> {
    let is_other = |name: &String| !known.contains(&name.as_str());
    object.iter().filter(|(name, _)| is_other(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn string(object: &Map<String, Value>, name: &str) -> Result<Option<String>, String> {
    match object.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(other) => Err(format!("\"{name}\" is a string, not {other}")),
    }
}

fn names(object: &Map<String, Value>, name: &str) -> Result<Vec<String>, String> {
    let wrong = || format!("\"{name}\" is an array of strings");
    match object.get(name) {
        None => Ok(Vec::new()),
        Some(Value::Array(values)) => values.iter().map(|v| v.as_str().map(str::to_owned).ok_or_else(wrong)).collect(),
        Some(_) => Err(wrong()),
    }
}

fn check_name(full: &str) -> Result<(), String> {
    full.split('.').try_for_each(check_simple_name)
}

fn check_simple_name(name: &str) -> Result<(), String> {
    let mut chars = name.chars();
    let is_first = chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    if is_first && chars.all(|c| c.is_ascii_alphanumeric() || c == '_') {
        Ok(())
    } else {
        Err(format!("illegal name \"{name}\": a name has letters, digits and _, and does not begin with a digit"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[test]
    fn errors_name_the_place() {
        for (schema, expected) in [
            ("{", "not JSON"),
            ("3", "a type is a name"),
            (r#""nope""#, "\"nope\" is not a defined name"),
            (r#"{"name":"A"}"#, "no \"type\""),
            (r#"{"type":"record","name":"A"}"#, "no array \"fields\""),
            (r#"{"type":"record","name":"1A","fields":[]}"#, "illegal name \"1A\""),
            (r#"{"type":"record","name":"A","fields":[{"name":"x","type":"X"}]}"#, "field x of record A"),
            (
                r#"{"type":"record","name":"A","fields":[{"name":"x","type":"int"},{"name":"x","type":"int"}]}"#,
                "duplicate field x",
            ),
            (r#"["int","int"]"#, "duplicate in union: int"),
            (r#"["int",["string"]]"#, "immediately contain"),
            (r#"{"type":"enum","name":"E","symbols":["A","A"]}"#, "duplicate symbol A"),
            (r#"{"type":"enum","name":"E","symbols":["A"],"default":"B"}"#, "not one of its symbols"),
            (r#"{"type":"enum","name":"E"}"#, "no \"symbols\""),
            (r#"{"type":"fixed","name":"F","size":-1}"#, "no valid \"size\""),
            (r#"{"type":"array"}"#, "no \"items\""),
            (
                r#"{"type":"record","name":"A","fields":[{"name":"x","type":{"type":"record","name":"A","fields":[]}}]}"#,
                "can't redefine: A",
            ),
        ] {
            let error = parse(schema, &[]).expect_err(schema);
            assert!(error.contains(expected), "{schema}: {error}");
        }
    }

    #[test]
    fn recursion_and_references_resolve() {
        let list = r#"{"type":"record","name":"shop.List","fields":[{"name":"next","type":["null","List"]}]}"#;
        let list = parse(list, &[]).expect("a list");
        let user = r#"{"type":"record","name":"User","namespace":"shop","fields":[{"name":"l","type":"List"}]}"#;
        assert!(parse(user, &[]).is_err());
        assert!(parse(user, &[&list]).is_ok());
        assert!(parse("int", &[]).is_ok());
    }

    #[test]
    fn deep_nesting_is_an_error() {
        let deep = format!("{}\"int\"{}", r#"{"type":"array","items":"#.repeat(100_000), "}".repeat(100_000));
        assert!(parse(&deep, &[]).expect_err("too deep").contains("recursion limit"));
    }
}
