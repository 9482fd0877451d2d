//! `/schemas`: by id, by GUID, and all of them.

use serde_json::{Map, Value, json};

use super::subjects::matcher;
use super::{Call, Reply, described, version};
use crate::registry::definition::SchemaType;
use crate::registry::error::ApiError;
use crate::registry::store::{Found, Store};
use crate::registry::subject::Subject;

pub(super) fn handle(store: &Store, call: &Call<'_>, path: &[&str]) -> Result<Reply, ApiError> {
    if call.request.method != "GET" {
        return Err(ApiError::method_not_allowed());
    }
    let hint = call.subject(call.parameter("subject").unwrap_or(""));
    match *path {
        [] => list(store, call),
        ["types"] => Ok(Reply::Json(SchemaType::ALL.iter().map(|t| Value::from(t.name())).collect())),
        ["ids", id] => {
            let (_, definition) = store.schema(number(id)?, &hint)?;
            Ok(Reply::Json(Value::Object(described(&definition, Map::new()))))
        }
        ["ids", id, "schema"] => Ok(Reply::Text(store.schema(number(id)?, &hint)?.1.text.clone())),
        ["ids", id, "subjects"] => {
            let mut subjects: Vec<_> =
                users(store, call, number(id)?, &hint)?.iter().map(|found| found.subject.to_string()).collect();
            subjects.dedup();
            Ok(Reply::Json(call.page(subjects)?.into()))
        }
        ["ids", id, "versions"] => {
            let pair = |f: &Found| json!({"subject": f.subject.to_string(), "version": f.version});
            let versions: Vec<_> = users(store, call, number(id)?, &hint)?.iter().map(pair).collect();
            Ok(Reply::Json(call.page(versions)?.into()))
        }
        ["guids", guid] => {
            let ids = store.ids_of_guid(guid);
            let (_, _, definition) = ids.first().ok_or_else(|| ApiError::schema_id_not_found(guid))?;
            Ok(Reply::Json(Value::Object(described(definition, Map::new()))))
        }
        ["guids", guid, "ids"] => {
            let of = |(context, id, _): &(String, u32, _)| json!({"context": context, "id": id});
            Ok(Reply::Json(store.ids_of_guid(guid).iter().map(of).collect()))
        }
        _ => Err(ApiError::unknown_path()),
    }
}

fn number(id: &str) -> Result<u32, ApiError> {
    // An id that is none has no path, as in Confluent's registry.
    id.parse().map_err(|_| ApiError::unknown_path())
}

fn users(store: &Store, call: &Call<'_>, id: u32, hint: &Subject) -> Result<Vec<Found>, ApiError> {
    let (context, _) = store.schema(id, hint)?;
    let uses = |found: &Found| found.id == id && found.subject.context == context.context;
    Ok(store.versions(call.deleted()?).filter(uses).collect())
}

fn list(store: &Store, call: &Call<'_>) -> Result<Reply, ApiError> {
    let is_listed = matcher(call, call.parameter("subjectPrefix").unwrap_or(""));
    let mut all: Vec<_> = store.versions(call.deleted()?).filter(|found| is_listed(&found.subject)).collect();
    if call.flag("latestOnly")? {
        // The last of each subject: versions are in ascending order.
        all.reverse();
        all.dedup_by(|a, b| a.subject == b.subject);
        all.reverse();
    }
    Ok(Reply::Json(call.page(all)?.iter().map(version).collect()))
}
