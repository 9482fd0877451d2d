//! The state of the registry, without HTTP: contexts, their schemas by id, and versions by subject.

mod delete;
mod register;
mod settings;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::definition::{Definition, Reference};
use super::error::ApiError;
use super::subject::Subject;

pub(super) use register::Registration;
pub(super) use settings::Settings;

/// Schemas, versions and settings.
#[derive(Debug, Default)]
pub(super) struct Store {
    contexts: BTreeMap<String, Context>,
    settings: BTreeMap<Subject, Settings>,
}

#[derive(Debug, Default)]
struct Context {
    /// Highest id that was assigned.
    last_id: u32,
    schemas: BTreeMap<u32, Arc<Definition>>,
    subjects: BTreeMap<String, BTreeMap<u32, Version>>,
}

/// A version of a subject.
#[derive(Clone, Debug)]
struct Version {
    id: u32,
    definition: Arc<Definition>,
    is_deleted: bool,
}

/// A version of a subject, as the API shows it.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub subject: Subject,
    pub version: u32,
    pub id: u32,
    pub definition: Arc<Definition>,
}

/// Selection of versions by whether they are deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deleted {
    Without,
    With,
    Only,
}

impl Deleted {
    pub fn includes(self, is_deleted: bool) -> bool {
        match self {
            Self::Without => !is_deleted,
            Self::With => true,
            Self::Only => is_deleted,
        }
    }
}

/// The version that a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VersionSpec {
    Latest,
    Number(u32),
}

impl VersionSpec {
    pub fn parse(text: &str) -> Result<Self, ApiError> {
        match text.parse::<i32>() {
            Ok(-1) => Ok(Self::Latest),
            Ok(number) if number > 0 => Ok(Self::Number(number.unsigned_abs())),
            Err(_) if text == "latest" => Ok(Self::Latest),
            _ => Err(ApiError::invalid_version(text)),
        }
    }
}

impl Store {
    /// Returns the names of all contexts; the default one is always there.
    pub fn contexts(&self) -> Vec<String> {
        let others = self.contexts.keys().filter(|name| !name.is_empty());
        std::iter::once(".".to_owned()).chain(others.map(|name| format!(".{name}"))).collect()
    }

    /// Returns all versions in order of context, subject and version.
    pub fn versions(&self, deleted: Deleted) -> impl Iterator<Item = Found> {
        let of_context = move |(context, state): (&String, &Context)| {
            let context = context.clone();
            let of_subject = move |(name, versions): (&String, &BTreeMap<u32, Version>)| {
                let subject = Subject { context: context.clone(), name: name.clone() };
                found(&subject, versions, deleted)
            };
            state.subjects.iter().flat_map(of_subject).collect::<Vec<_>>()
        };
        self.contexts.iter().flat_map(of_context)
    }

    /// Returns the versions of a subject, in ascending order.
    ///
    /// # Errors
    ///
    /// 40401 if there is none.
    pub fn versions_of(&self, subject: &Subject, deleted: Deleted) -> Result<Vec<Found>, ApiError> {
        let versions = self.subject(subject).map(|versions| found(subject, versions, deleted)).unwrap_or_default();
        if versions.is_empty() { Err(ApiError::subject_not_found(subject)) } else { Ok(versions) }
    }

    /// Returns one version of a subject.
    ///
    /// # Errors
    ///
    /// 40401 or 40402.
    pub fn version(&self, subject: &Subject, spec: VersionSpec, deleted: Deleted) -> Result<Found, ApiError> {
        let mut versions = self.versions_of(subject, deleted)?;
        match spec {
            VersionSpec::Latest => versions.pop().ok_or_else(|| ApiError::version_not_found("latest")),
            VersionSpec::Number(number) => versions
                .into_iter()
                .find(|found| found.version == number)
                .ok_or_else(|| ApiError::version_not_found(number)),
        }
    }

    /// Returns a schema by id. An id is one of the context of `subject`; of a subject without a context, it may also be one of
    /// another context that has such a subject with this id.
    ///
    /// # Errors
    ///
    /// 40403.
    pub fn schema(&self, id: u32, subject: &Subject) -> Result<(Subject, Arc<Definition>), ApiError> {
        let in_context = |name: &str| {
            let schema = self.contexts.get(name)?.schemas.get(&id)?;
            Some((Subject { context: name.to_owned(), name: String::new() }, schema.clone()))
        };
        let uses = |name: &&String| {
            let versions = self.contexts.get(*name).and_then(|context| context.subjects.get(&subject.name));
            versions.is_some_and(|versions| versions.values().any(|version| version.id == id))
        };
        if subject.context.is_empty() && !subject.is_whole_context() {
            if let Some(name) = self.contexts.keys().find(uses) {
                return in_context(name).ok_or_else(|| ApiError::schema_id_not_found(id));
            }
        }
        in_context(&subject.context).ok_or_else(|| ApiError::schema_id_not_found(id))
    }

    /// Returns the ids of the schema with a GUID, by context.
    pub fn ids_of_guid(&self, guid: &str) -> Vec<(String, u32, Arc<Definition>)> {
        let mut ids = Vec::new();
        for (name, context) in &self.contexts {
            let has_guid = |definition: &Definition| definition.guid().to_string().eq_ignore_ascii_case(guid);
            let of_context = context.schemas.iter().filter(|(_, definition)| has_guid(definition));
            ids.extend(of_context.map(|(id, definition)| (format!(".{name}"), *id, definition.clone())));
        }
        ids
    }

    /// Returns the versions whose schema refers to a version of a subject.
    pub fn references_to(&self, subject: &Subject, version: u32, deleted: Deleted) -> Vec<Found> {
        let is_it =
            |context: &str, r: &Reference| r.version == version && Subject::parse_in(context, &r.subject) == *subject;
        let refers = |found: &Found| found.definition.references.iter().any(|r| is_it(&found.subject.context, r));
        self.versions(deleted).filter(refers).collect()
    }

    fn subject(&self, subject: &Subject) -> Option<&BTreeMap<u32, Version>> {
        self.contexts.get(&subject.context)?.subjects.get(&subject.name)
    }
}

fn found(subject: &Subject, versions: &BTreeMap<u32, Version>, deleted: Deleted) -> Vec<Found> {
    let counted = versions.iter().filter(|(_, version)| deleted.includes(version.is_deleted));
    counted
        .map(|(number, version)| Found {
            subject: subject.clone(),
            version: *number,
            id: version.id,
            definition: version.definition.clone(),
        })
        .collect()
}
