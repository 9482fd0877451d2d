//! JSON Schemas: their syntax, and a text without spaces by which they are compared.

use serde_json::Value;

use super::avro::sorted;

const TYPES: [&str; 7] = ["array", "boolean", "integer", "null", "number", "object", "string"];

/// Checks a JSON Schema, and returns it without spaces. Normalized, the names of its objects are in order too.
///
/// # Errors
///
/// A sentence about what is wrong.
pub(super) fn check_schema(text: &str, is_normalized: bool) -> Result<String, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| format!("the schema is not JSON: {error}"))?;
    match &value {
        Value::Bool(_) => {}
        Value::Object(object) => {
            let is_type = |v: &Value| v.as_str().is_some_and(|name| TYPES.contains(&name));
            let is_valid = match object.get("type") {
                None => true,
                Some(Value::Array(types)) => types.iter().all(is_type),
                Some(name) => is_type(name),
            };
            if !is_valid {
                return Err(format!("\"type\" is one of {}, or an array of them", TYPES.join(", ")));
            }
        }
        other => return Err(format!("a schema is an object, true or false, not {other}")),
    }
    Ok(if is_normalized { sorted(&value).to_string() } else { without_spaces(text) })
}

/// Returns valid JSON without the spaces between its tokens.
fn without_spaces(text: &str) -> String {
    let mut is_string = false;
    let mut is_escaped = false;
    let is_kept = |c: &char| {
        if is_string {
            is_string = is_escaped || *c != '"';
            is_escaped = !is_escaped && *c == '\\';
            return true;
        }
        is_string = *c == '"';
        !c.is_ascii_whitespace()
    };
    text.chars().filter(is_kept).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaces_go_outside_of_strings() {
        let text = "{ \"b\" : \"x \\\" y\\\\\" ,\n\t\"a\": [ 1 , 2 ] }";
        assert_eq!(check_schema(text, false).as_deref(), Ok(r#"{"b":"x \" y\\","a":[1,2]}"#));
        assert_eq!(check_schema(text, true).as_deref(), Ok(r#"{"a":[1,2],"b":"x \" y\\"}"#));
    }

    #[test]
    fn schemas_are_objects_or_booleans() {
        for (text, is_valid) in [
            ("true", true),
            (r#"{"type":["null","string"]}"#, true),
            (r#"{"type":"text"}"#, false),
            ("3", false),
            ("{", false),
        ] {
            assert_eq!(check_schema(text, false).is_ok(), is_valid, "{text}");
        }
    }
}
