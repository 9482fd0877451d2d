//! `/subjects` and `/compatibility`.

use serde_json::{Value, json};

use super::{Call, Reply, version};
use crate::registry::error::ApiError;
use crate::registry::store::{Deleted, Registration, Store, VersionSpec};
use crate::registry::subject::Subject;

pub(super) fn handle(store: &mut Store, call: &Call<'_>, path: &[&str]) -> Result<Reply, ApiError> {
    match *path {
        [] => call.get(|| list(store, call)),
        [subject] => one(store, call, &call.subject(subject)),
        [subject, "versions"] => versions(store, call, &call.subject(subject)),
        [subject, "versions", spec] => of_version(store, call, &call.subject(subject), spec),
        [subject, "versions", spec, "schema"] if call.request.method == "GET" => {
            let found = store.version(&call.subject(subject), VersionSpec::parse(spec)?, call.deleted()?)?;
            Ok(Reply::Text(found.definition.text.clone()))
        }
        [subject, "versions", spec, "referencedby"] => call.get(|| {
            let found = store.version(&call.subject(subject), VersionSpec::parse(spec)?, Deleted::With)?;
            let users = store.references_to(&found.subject, found.version, call.deleted()?);
            let mut ids: Vec<_> = users.iter().map(|user| user.id).collect();
            ids.sort_unstable();
            ids.dedup();
            Ok(call.page(ids)?.into())
        }),
        [_, "versions", _, "schema"] => Err(ApiError::method_not_allowed()),
        _ => Err(ApiError::unknown_path()),
    }
}

fn list(store: &Store, call: &Call<'_>) -> Result<Value, ApiError> {
    let prefix = call.parameter("subjectPrefix").unwrap_or(":*:");
    let is_listed = matcher(call, prefix);
    let mut subjects: Vec<_> = store.versions(call.deleted()?).map(|found| found.subject).filter(is_listed).collect();
    subjects.dedup();
    if call.flag("deletedOnly")? {
        subjects.retain(|subject| store.versions_of(subject, Deleted::Without).is_err());
    }
    Ok(call.page(subjects)?.iter().map(Subject::to_string).collect())
}

/// Returns whether a subject begins with a prefix; `:*:` means every context.
pub(super) fn matcher(call: &Call<'_>, prefix: &str) -> impl Fn(&Subject) -> bool {
    let any = prefix.strip_prefix(":*:").filter(|_| call.context.is_empty()).map(str::to_owned);
    let of_context = call.subject(prefix.strip_prefix(":*:").unwrap_or(prefix));
    move |subject| match &any {
        Some(prefix) => subject.name.starts_with(prefix),
        None => subject.context == of_context.context && subject.name.starts_with(&of_context.name),
    }
}

fn one(store: &mut Store, call: &Call<'_>, subject: &Subject) -> Result<Reply, ApiError> {
    match call.request.method {
        "POST" => {
            let body = call.body()?;
            let draft = call.draft(&body)?;
            let found = store.look_up(subject, draft, call.flag("normalize")?, call.deleted()?)?;
            Ok(Reply::Json(version(&found)))
        }
        "DELETE" => Ok(Reply::Json(store.delete_subject(subject, call.flag("permanent")?)?.into())),
        _ => Err(ApiError::method_not_allowed()),
    }
}

fn versions(store: &mut Store, call: &Call<'_>, subject: &Subject) -> Result<Reply, ApiError> {
    match call.request.method {
        "GET" => {
            let versions = store.versions_of(subject, call.deleted()?)?;
            Ok(Reply::Json(call.page(versions.iter().map(|found| found.version).collect())?.into()))
        }
        "POST" => {
            let body = call.body()?;
            // -1 and 0 mean none, as Confluent's own clients send them.
            let number = |name: &str| body.get(name).and_then(Value::as_i64).and_then(|n| u32::try_from(n).ok());
            let new = Registration {
                draft: call.draft(&body)?,
                id: number("id").filter(|id| *id > 0),
                version: number("version").filter(|version| *version > 0),
                normalize: call.flag("normalize")?,
            };
            let found = store.register(subject, new)?;
            Ok(Reply::Json(json!({
                "id": found.id, "version": found.version, "guid": found.definition.guid().to_string()
            })))
        }
        _ => Err(ApiError::method_not_allowed()),
    }
}

fn of_version(store: &mut Store, call: &Call<'_>, subject: &Subject, spec: &str) -> Result<Reply, ApiError> {
    let parsed = VersionSpec::parse(spec);
    match call.request.method {
        "GET" => Ok(Reply::Json(version(&store.version(subject, parsed?, call.deleted()?)?))),
        "DELETE" => Ok(Reply::Json(store.delete_version(subject, parsed?, call.flag("permanent")?)?.into())),
        _ => Err(ApiError::method_not_allowed()),
    }
}

/// `/compatibility/subjects/NAME/versions[/VERSION]`
pub(super) fn check(store: &Store, call: &Call<'_>, subject: &Subject, path: &[&str]) -> Result<Reply, ApiError> {
    let spec = match *path {
        [] => None,
        [spec] => Some(VersionSpec::parse(spec)?),
        _ => return Err(ApiError::unknown_path()),
    };
    if call.request.method != "POST" {
        return Err(ApiError::method_not_allowed());
    }
    let body = call.body()?;
    let is_verbose = call.flag("verbose")?;
    let messages = match store.check(subject, call.draft(&body)?, call.flag("normalize")?, spec) {
        Err(error) if is_verbose && error.code == 42201 => vec![error.message],
        checked => checked?,
    };
    let mut response = json!({"is_compatible": messages.is_empty()});
    if is_verbose {
        response["messages"] = messages.into();
    }
    Ok(Reply::Json(response))
}
