//! Default values of fields: each must be a value of its field's type.

use serde_json::Value;

use super::{AvroSchema, Body, Kind, Node, Primitive};

/// Levels of a default value that are checked.
const MAX_DEPTH: usize = 128;

/// Checks all defaults of a schema.
pub(super) fn check(schema: &AvroSchema) -> Result<(), String> {
    for (name, named) in &schema.named {
        let Body::Record { fields, .. } = &named.body else { continue };
        for field in fields {
            let Some(default) = &field.default else { continue };
            if !is_valid(schema, &field.node, default, 0) {
                return Err(format!("invalid default for field {} of record {name}: {default}", field.name));
            }
        }
    }
    Ok(())
}

fn is_valid(schema: &AvroSchema, node: &Node, value: &Value, depth: usize) -> bool {
    if depth > MAX_DEPTH {
        return false;
    }
    let is_inner = |node: &Node, value: &Value| is_valid(schema, node, value, depth + 1);
    match &node.kind {
        Kind::Primitive(primitive) => is_primitive(*primitive, value),
        Kind::Array(items) => value.as_array().is_some_and(|v| v.iter().all(|v| is_inner(items, v))),
        Kind::Map(values) => value.as_object().is_some_and(|v| v.values().all(|v| is_inner(values, v))),
        Kind::Union(branches) => branches.iter().any(|branch| is_inner(branch, value)),
        Kind::Named(name) => match schema.named.get(name).map(|named| &named.body) {
            Some(Body::Enum { symbols, .. }) => value.as_str().is_some_and(|v| symbols.iter().any(|s| s == v)),
            Some(Body::Fixed { size }) => value.as_str().is_some_and(|v| v.chars().count() as u64 == *size),
            Some(Body::Record { fields, .. }) => value.as_object().is_some_and(|object| {
                fields.iter().all(|field| match object.get(&field.name).or(field.default.as_ref()) {
                    Some(value) => is_inner(&field.node, value),
                    None => false,
                })
            }),
            None => false,
        },
    }
}

fn is_primitive(primitive: Primitive, value: &Value) -> bool {
    match primitive {
        Primitive::Null => value.is_null(),
        Primitive::Boolean => value.is_boolean(),
        Primitive::Int => value.as_i64().is_some_and(|v| i32::try_from(v).is_ok()),
        Primitive::Long => value.as_i64().is_some(),
        Primitive::Float | Primitive::Double => value.is_number(),
        // Bytes are written as characters of up to 255.
        Primitive::Bytes => value.as_str().is_some_and(|v| v.chars().all(|c| u32::from(c) < 256)),
        Primitive::String => value.is_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;

    fn field(kind: &str, default: &str) -> Result<(), String> {
        let schema =
            format!(r#"{{"type":"record","name":"A","fields":[{{"name":"x","type":{kind},"default":{default}}}]}}"#);
        parse(&schema, &[]).map(drop)
    }

    #[test]
    fn defaults_are_values_of_their_type() {
        for (kind, default, is_valid) in [
            (r#""int""#, "1", true),
            (r#""int""#, "3000000000", false),
            (r#""int""#, "null", false),
            (r#""long""#, "3000000000", true),
            (r#""double""#, "1", true),
            (r#""string""#, "\"a\"", true),
            (r#""bytes""#, "\"\\u00ff\"", true),
            (r#""bytes""#, "\"\\u0100\"", false),
            (r#"["null","int"]"#, "null", true),
            (r#"["null","int"]"#, "7", true),
            (r#"["null","int"]"#, "\"a\"", false),
            (r#"{"type":"array","items":"int"}"#, "[1,2]", true),
            (r#"{"type":"array","items":"int"}"#, "[\"a\"]", false),
            (r#"{"type":"map","values":"int"}"#, r#"{"a":1}"#, true),
            (r#"{"type":"enum","name":"E","symbols":["A"]}"#, "\"A\"", true),
            (r#"{"type":"enum","name":"E","symbols":["A"]}"#, "\"B\"", false),
            (r#"{"type":"fixed","name":"F","size":2}"#, "\"ab\"", true),
            (r#"{"type":"fixed","name":"F","size":2}"#, "\"abc\"", false),
            (r#"{"type":"record","name":"B","fields":[{"name":"y","type":"int"}]}"#, r#"{"y":1}"#, true),
            (r#"{"type":"record","name":"B","fields":[{"name":"y","type":"int"}]}"#, "{}", false),
        ] {
            assert_eq!(field(kind, default).is_ok(), is_valid, "{kind} {default}: {:?}", field(kind, default));
        }
    }
}
