//! Calls of people who look after a registry: lists, rules, modes and deletions.

use hyper::Method;
use hyper::body::Bytes;
use serde::Deserialize;

use super::http::Call;
use super::options::{Compatibility, CompatibilityLevel, Deleted, Deletion, Mode, SubjectFilter, SubjectVersion};
use super::{SchemaRegistry, encoded, get, json};
use crate::error::SchemaError;
use crate::schema::{Schema, Version};

/// The field has two names: of a request, and of a response.
#[derive(Deserialize)]
struct Config {
    #[serde(alias = "compatibility", rename = "compatibilityLevel")]
    level: CompatibilityLevel,
}

#[derive(Deserialize)]
struct ModeBody {
    mode: Mode,
}

/// # Lists
impl SchemaRegistry {
    /// Returns the subjects that match, sorted. Those of a context begin with it: `:.staging:orders`.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn subjects(&self, filter: &SubjectFilter) -> Result<Vec<String>, SchemaError> {
        let prefix = self.qualified(filter.prefix.as_deref().unwrap_or_default());
        let mut queries: Vec<String> = filter.deleted.query().map(str::to_owned).into_iter().collect();
        if !prefix.is_empty() {
            queries.push(format!("subjectPrefix={}", encoded(&prefix)));
        }
        let path = format!("/subjects{}{}", if queries.is_empty() { "" } else { "?" }, queries.join("&"));
        let mut subjects: Vec<String> = self.call(get(path), "listing subjects").await?;
        // Not each registry knows the parameter.
        subjects.retain(|subject| subject.starts_with(&prefix));
        subjects.sort_unstable();
        Ok(subjects)
    }

    /// Returns the versions of a subject, from the first one.
    ///
    /// # Errors
    /// [`SchemaErrorKind::NotFound`](crate::SchemaErrorKind::NotFound) if the subject does not exist; and those of any
    /// call.
    pub async fn versions(&self, subject: &str, deleted: Deleted) -> Result<Vec<i32>, SchemaError> {
        let path = format!("{}{}", self.versions_path(subject), query(deleted.query()));
        let mut versions: Vec<i32> = self.call(get(path), &format!("listing the versions of {subject}")).await?;
        versions.sort_unstable();
        Ok(versions)
    }

    /// Returns the subjects, with their versions, that have the schema with this id.
    ///
    /// # Errors
    /// [`SchemaErrorKind::NotFound`](crate::SchemaErrorKind::NotFound) if there is no such schema; and those of any call.
    pub async fn versions_of_id(&self, id: u32, deleted: Deleted) -> Result<Vec<SubjectVersion>, SchemaError> {
        let path = self.path_of_id(id, "versions", deleted);
        self.call(get(path), &format!("listing the versions with schema id {id}")).await
    }

    /// Returns the subjects that have the schema with this id.
    ///
    /// # Errors
    /// [`SchemaErrorKind::NotFound`](crate::SchemaErrorKind::NotFound) if there is no such schema; and those of any call.
    pub async fn subjects_of_id(&self, id: u32, deleted: Deleted) -> Result<Vec<String>, SchemaError> {
        let path = self.path_of_id(id, "subjects", deleted);
        self.call(get(path), &format!("listing the subjects with schema id {id}")).await
    }

    /// Returns the ids of the schemas that reference this version.
    ///
    /// # Errors
    /// [`SchemaErrorKind::NotFound`](crate::SchemaErrorKind::NotFound) if the version does not exist; and those of any
    /// call.
    pub async fn referenced_by(&self, subject: &str, version: Version) -> Result<Vec<u32>, SchemaError> {
        let path = format!("{}/{version}/referencedby", self.versions_path(subject));
        self.call(get(path), &format!("listing what references version {version} of {subject}")).await
    }

    /// Returns the languages of schemas that the registry knows, by its names.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn schema_types(&self) -> Result<Vec<String>, SchemaError> {
        self.call(get("/schemas/types".into()), "listing the types of schemas").await
    }

    /// Returns the contexts; `.` is the default one.
    ///
    /// # Errors
    /// [`SchemaErrorKind::Protocol`](crate::SchemaErrorKind::Protocol) at a registry without contexts; and those of any
    /// call.
    pub async fn contexts(&self) -> Result<Vec<String>, SchemaError> {
        self.call(get("/contexts".into()), "listing contexts").await
    }

    fn path_of_id(&self, id: u32, what: &str, deleted: Deleted) -> String {
        let queries = query(deleted.query());
        let context = self.context_query(if queries.is_empty() { '?' } else { '&' });
        format!("/schemas/ids/{id}/{what}{queries}{context}")
    }
}

/// # Rules
impl SchemaRegistry {
    /// Checks a schema against a version of a subject, by the subject's compatibility level. Nothing is
    /// registered.
    ///
    /// # Errors
    /// [`SchemaErrorKind::NotFound`](crate::SchemaErrorKind::NotFound) if the version does not exist,
    /// [`SchemaErrorKind::InvalidSchema`](crate::SchemaErrorKind::InvalidSchema); and those of any call.
    pub async fn check(&self, subject: &str, version: Version, schema: &Schema) -> Result<Compatibility, SchemaError> {
        self.check_at(subject, &format!("/{version}"), schema).await
    }

    /// Checks a schema against the versions of a subject that its compatibility level names: the last one,
    /// or each. A subject without versions is compatible with any schema.
    ///
    /// # Errors
    /// [`SchemaErrorKind::InvalidSchema`](crate::SchemaErrorKind::InvalidSchema); and those of any call.
    pub async fn check_all(&self, subject: &str, schema: &Schema) -> Result<Compatibility, SchemaError> {
        self.check_at(subject, "", schema).await
    }

    async fn check_at(&self, subject: &str, version: &str, schema: &Schema) -> Result<Compatibility, SchemaError> {
        let path = format!("/compatibility{}{version}?verbose=true", self.versions_path(subject));
        let call = Call { method: Method::POST, path, body: json(schema)? };
        self.call(call, &format!("checking a schema against {subject}")).await
    }

    /// Returns the compatibility level of a subject, which is the registry's unless it has its own; or
    /// that of the registry.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn compatibility_level(&self, subject: Option<&str>) -> Result<CompatibilityLevel, SchemaError> {
        let query = query(subject.map(|_| "defaultToGlobal=true"));
        let call = get(format!("{}{query}", self.path_of("/config", subject)));
        let config: Config = self.call(call, &format!("reading the compatibility level of {}", named(subject))).await?;
        Ok(config.level)
    }

    /// Sets the compatibility level of a subject, or of the registry.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn set_compatibility_level(
        &self,
        subject: Option<&str>,
        level: CompatibilityLevel,
    ) -> Result<(), SchemaError> {
        let body = json(&serde_json::json!({ "compatibility": level }))?;
        let call = Call { method: Method::PUT, path: self.path_of("/config", subject), body };
        let what = format!("setting the compatibility level of {}", named(subject));
        self.call::<Config>(call, &what).await.map(drop)
    }

    /// Removes the compatibility level of a subject, for which the registry's then applies.
    ///
    /// # Errors
    /// [`SchemaErrorKind::NotFound`](crate::SchemaErrorKind::NotFound) if it has none; and those of any call.
    pub async fn delete_compatibility_level(&self, subject: &str) -> Result<(), SchemaError> {
        let call = delete(self.path_of("/config", Some(subject)));
        let what = format!("removing the compatibility level of {subject}");
        self.call::<serde_json::Value>(call, &what).await.map(drop)
    }

    /// Returns the mode of a subject, which is the registry's unless it has its own; or that of the
    /// registry.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn mode(&self, subject: Option<&str>) -> Result<Mode, SchemaError> {
        let query = query(subject.map(|_| "defaultToGlobal=true"));
        let call = get(format!("{}{query}", self.path_of("/mode", subject)));
        let body: ModeBody = self.call(call, &format!("reading the mode of {}", named(subject))).await?;
        Ok(body.mode)
    }

    /// Sets the mode of a subject, or of the registry. `force` allows [`Mode::Import`] where there are
    /// schemas already.
    ///
    /// # Errors
    /// [`SchemaErrorKind::Rejected`](crate::SchemaErrorKind::Rejected) if the registry does not allow it; and those of any
    /// call.
    pub async fn set_mode(&self, subject: Option<&str>, mode: Mode, force: bool) -> Result<(), SchemaError> {
        let path = format!("{}{}", self.path_of("/mode", subject), query(force.then_some("force=true")));
        let call = Call { method: Method::PUT, path, body: json(&serde_json::json!({ "mode": mode }))? };
        self.call::<ModeBody>(call, &format!("setting the mode of {}", named(subject))).await.map(drop)
    }

    /// Removes the mode of a subject, for which the registry's then applies.
    ///
    /// # Errors
    /// [`SchemaErrorKind::NotFound`](crate::SchemaErrorKind::NotFound) if it has none; and those of any call.
    pub async fn delete_mode(&self, subject: &str) -> Result<(), SchemaError> {
        let call = delete(self.path_of("/mode", Some(subject)));
        self.call::<serde_json::Value>(call, &format!("removing the mode of {subject}")).await.map(drop)
    }

    /// Returns the path of a setting of a subject, of the context, or of the registry.
    fn path_of(&self, setting: &str, subject: Option<&str>) -> String {
        match (subject, self.qualified("")) {
            (Some(subject), _) => format!("{setting}/{}", encoded(&self.qualified(subject))),
            (None, context) if !context.is_empty() => format!("{setting}/{}", encoded(&context)),
            (None, _) => setting.to_owned(),
        }
    }
}

/// # Deletions
///
/// They are sent again only if the registry did not get them, or responded that it did nothing: a
/// version that is deleted twice is not found.
impl SchemaRegistry {
    /// Deletes a subject, and returns the versions that it had.
    ///
    /// # Errors
    /// [`SchemaErrorKind::NotFound`](crate::SchemaErrorKind::NotFound) if it does not exist, is deleted softly already, or
    /// not yet, and [`SchemaErrorKind::Rejected`](crate::SchemaErrorKind::Rejected) if other schemas
    /// reference it; and those of any call.
    pub async fn delete_subject(&self, subject: &str, deletion: Deletion) -> Result<Vec<i32>, SchemaError> {
        let call = delete(format!("{}{}", self.subject_path(subject), permanent(deletion)));
        let result = self.call(call, &format!("deleting {subject}")).await;
        self.forget_subject(subject);
        result
    }

    /// Deletes a version of a subject, and returns its number.
    ///
    /// # Errors
    /// Those of [`delete_subject`](Self::delete_subject).
    pub async fn delete_version(
        &self,
        subject: &str,
        version: Version,
        deletion: Deletion,
    ) -> Result<i32, SchemaError> {
        let call = delete(format!("{}/{version}{}", self.versions_path(subject), permanent(deletion)));
        let result = self.call(call, &format!("deleting version {version} of {subject}")).await;
        self.forget_subject(subject);
        result
    }
}

fn delete(path: String) -> Call {
    Call { method: Method::DELETE, path, body: Bytes::new() }
}

fn permanent(deletion: Deletion) -> String {
    query((deletion == Deletion::Hard).then_some("permanent=true"))
}

fn query(query: Option<&str>) -> String {
    query.map(|query| format!("?{query}")).unwrap_or_default()
}

fn named(subject: Option<&str>) -> &str {
    subject.unwrap_or("the registry")
}
