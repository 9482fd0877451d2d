//! Requests of Confluent's API, from path and body to response, without HTTP.

mod schemas;
mod subjects;

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};

use super::definition::{Draft, Reference, SchemaType};
use super::error::ApiError;
use super::level::Mode;
use super::store::{Deleted, Found, Store};
use super::subject::Subject;

/// A request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'a> {
    pub method: &'a str,
    pub path: &'a str,
    pub query: &'a str,
    pub body: &'a [u8],
}

/// The body of a successful response.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Reply {
    Json(Value),
    /// Sent as it is: a schema, of which JSON may have lost the order of names.
    Text(String),
}

/// A request with what all paths need of it.
struct Call<'a> {
    request: Request<'a>,
    /// Context of the prefix `/contexts/NAME` of the path; empty without one.
    context: String,
    parameters: Vec<(String, String)>,
}

/// Serves a request.
///
/// # Errors
///
/// The error response. The store is unchanged then.
pub(super) fn handle(store: &mut Store, request: Request<'_>) -> Result<Reply, ApiError> {
    let decoded = |segment: &str| percent_decode_str(segment).decode_utf8_lossy().into_owned();
    let all: Vec<_> = request.path.split('/').filter(|segment| !segment.is_empty()).map(decoded).collect();
    let mut segments: Vec<_> = all.iter().map(String::as_str).collect();
    let mut context = String::new();
    if let ["contexts", name, _, ..] = segments[..] {
        context = Subject::parse(&format!(":.{}", name.trim_start_matches([':', '.']))).context;
        segments.drain(..2);
    }
    let call = Call { request, context, parameters: parameters(request.query) };
    match &segments[..] {
        [] => call.get(|| Ok(json!({}))),
        ["contexts"] => call.get(|| Ok(store.contexts().into())),
        ["schemas", rest @ ..] => schemas::handle(store, &call, rest),
        ["subjects", rest @ ..] => subjects::handle(store, &call, rest),
        ["compatibility", "subjects", subject, "versions", rest @ ..] => {
            subjects::check(store, &call, &call.subject(subject), rest)
        }
        ["config"] => config(store, &call, &call.subject("")),
        ["config", subject] => config(store, &call, &call.subject(subject)),
        ["mode"] => mode(store, &call, &call.subject("")),
        ["mode", subject] => mode(store, &call, &call.subject(subject)),
        _ => Err(ApiError::unknown_path()),
    }
}

fn config(store: &mut Store, call: &Call<'_>, subject: &Subject) -> Result<Reply, ApiError> {
    let config = match call.request.method {
        "GET" => store.config(subject, call.flag("defaultToGlobal")?)?,
        "PUT" => store.set_config(subject, &call.body()?)?,
        "DELETE" => store.delete_config(subject)?,
        _ => return Err(ApiError::method_not_allowed()),
    };
    Ok(Reply::Json(config))
}

fn mode(store: &mut Store, call: &Call<'_>, subject: &Subject) -> Result<Reply, ApiError> {
    let mode = match call.request.method {
        "GET" => store.mode(subject, call.flag("defaultToGlobal")?)?,
        "PUT" => {
            let body = call.body()?;
            let mode =
                body.get("mode").and_then(Value::as_str).and_then(Mode::parse).ok_or_else(ApiError::invalid_mode)?;
            store.set_mode(subject, mode, call.flag("force")?)?;
            mode
        }
        "DELETE" => store.delete_mode(subject)?,
        _ => return Err(ApiError::method_not_allowed()),
    };
    Ok(Reply::Json(json!({"mode": mode.name()})))
}

impl Call<'_> {
    /// Responds to GET only.
    fn get(&self, response: impl FnOnce() -> Result<Value, ApiError>) -> Result<Reply, ApiError> {
        if self.request.method == "GET" { response().map(Reply::Json) } else { Err(ApiError::method_not_allowed()) }
    }

    fn subject(&self, text: &str) -> Subject {
        Subject::parse_in(&self.context, text)
    }

    fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Returns a parameter that is true or false; without a value it is true.
    fn flag(&self, name: &str) -> Result<bool, ApiError> {
        match self.parameter(name) {
            None => Ok(false),
            Some("") => Ok(true),
            Some(text) if text.eq_ignore_ascii_case("true") => Ok(true),
            Some(text) if text.eq_ignore_ascii_case("false") => Ok(false),
            Some(_) => Err(ApiError::bad_request(format!("the parameter {name} is true or false"))),
        }
    }

    fn deleted(&self) -> Result<Deleted, ApiError> {
        Ok(match (self.flag("deletedOnly")?, self.flag("deleted")?) {
            (true, _) => Deleted::Only,
            (false, true) => Deleted::With,
            (false, false) => Deleted::Without,
        })
    }

    /// Returns the page that `offset` and `limit` name.
    fn page<T>(&self, items: Vec<T>) -> Result<Vec<T>, ApiError> {
        let number = |name: &str| match self.parameter(name) {
            None => Ok(None),
            Some(text) => match text.parse::<i64>() {
                Ok(value) => Ok(usize::try_from(value).ok()),
                Err(_) => Err(ApiError::bad_request(format!("the parameter {name} is a number"))),
            },
        };
        let (offset, limit) = (number("offset")?.unwrap_or(0), number("limit")?.unwrap_or(usize::MAX));
        Ok(items.into_iter().skip(offset).take(limit).collect())
    }

    fn body(&self) -> Result<Map<String, Value>, ApiError> {
        match serde_json::from_slice(self.request.body) {
            Ok(Value::Object(object)) => Ok(object),
            Ok(_) => Err(ApiError::bad_request("the body is not a JSON object")),
            Err(error) => Err(ApiError::bad_request(format!("the body is not JSON: {error}"))),
        }
    }

    /// Returns the schema of a body.
    fn draft(&self, body: &Map<String, Value>) -> Result<Draft, ApiError> {
        let text = match body.get("schema") {
            Some(Value::String(text)) => text.clone(),
            None | Some(Value::Null) => return Err(ApiError::invalid_schema("Empty schema")),
            Some(_) => return Err(ApiError::bad_request("\"schema\" is a string: a schema in JSON is quoted")),
        };
        let schema_type = match body.get("schemaType") {
            None | Some(Value::Null) => SchemaType::Avro,
            Some(name) => {
                let known = name.as_str().and_then(SchemaType::parse);
                known.ok_or_else(|| ApiError::invalid_schema(format!("Invalid schema type {name}")))?
            }
        };
        let references = match body.get("references") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(values)) => values.iter().map(reference).collect::<Result<_, _>>()?,
            Some(_) => return Err(ApiError::bad_request("\"references\" is an array")),
        };
        let other = |name: &str| body.get(name).filter(|value| !value.is_null()).cloned();
        Ok(Draft { schema_type, text, references, metadata: other("metadata"), rule_set: other("ruleSet") })
    }
}

fn reference(value: &Value) -> Result<Reference, ApiError> {
    let wrong = || ApiError::bad_request("a reference has a name, a subject and a version");
    let text = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned).ok_or_else(wrong);
    let version = value.get("version").and_then(Value::as_u64).and_then(|v| u32::try_from(v).ok());
    Ok(Reference { name: text("name")?, subject: text("subject")?, version: version.ok_or_else(wrong)? })
}

fn parameters(query: &str) -> Vec<(String, String)> {
    let decoded = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    let pair = |text: &str| {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        (decoded(name), decoded(value))
    };
    query.split('&').filter(|text| !text.is_empty()).map(pair).collect()
}

/// Returns type, references and metadata of a schema; the type of an Avro schema is left out, as it is the default.
fn described(definition: &super::definition::Definition, mut object: Map<String, Value>) -> Map<String, Value> {
    if definition.schema_type != SchemaType::Avro {
        object.insert("schemaType".to_owned(), definition.schema_type.name().into());
    }
    if !definition.references.is_empty() {
        let of = |r: &Reference| json!({"name": r.name, "subject": r.subject, "version": r.version});
        object.insert("references".to_owned(), definition.references.iter().map(of).collect());
    }
    for (name, value) in [("metadata", &definition.metadata), ("ruleSet", &definition.rule_set)] {
        if let Some(value) = value {
            object.insert(name.to_owned(), value.clone());
        }
    }
    object.insert("guid".to_owned(), definition.guid().to_string().into());
    object.insert("schema".to_owned(), definition.text.as_str().into());
    object
}

/// Returns a version as the API shows it.
fn version(found: &Found) -> Value {
    let own = json!({"subject": found.subject.to_string(), "version": found.version, "id": found.id});
    let own = own.as_object().cloned().unwrap_or_default();
    Value::Object(described(&found.definition, own))
}
