//! Registration, lookup and compatibility checks.

use std::sync::Arc;

use super::{Deleted, Found, Store, Version, VersionSpec};
use crate::registry::definition::{Definition, Draft};
use crate::registry::error::ApiError;
use crate::registry::level::{Level, Mode};
use crate::registry::subject::Subject;

/// Depth to which references of references are followed.
const MAX_REFERENCE_DEPTH: usize = 64;

/// A schema to register.
#[derive(Debug)]
pub(in crate::registry) struct Registration {
    pub draft: Draft,
    /// Id and version that it had elsewhere, in mode IMPORT.
    pub id: Option<u32>,
    pub version: Option<u32>,
    pub normalize: bool,
}

impl Store {
    /// Registers a schema, or returns the version that has it.
    ///
    /// # Errors
    ///
    /// 409, 42201, 42205 or 42208; nothing is changed then.
    pub fn register(&mut self, subject: &Subject, new: Registration) -> Result<Found, ApiError> {
        if !subject.is_valid() {
            return Err(ApiError::invalid_subject(subject));
        }
        let mode = self.mode_in_scope(subject);
        match (mode, new.id) {
            (Mode::ReadOnly, _) => return Err(self.not_permitted(subject, "read-only mode")),
            (Mode::Import, None) => return Err(self.not_permitted(subject, "import mode: a schema needs an id")),
            (Mode::ReadWrite, Some(_)) => {
                return Err(self.not_permitted(subject, "read-write mode: a schema may have no id"));
            }
            _ => {}
        }
        let definition = Arc::new(self.parse(subject, new.draft, new.normalize)?);
        let existing = self.id_of(subject, &definition);
        let id = new.id.or(existing);
        if new.version.is_none() {
            let current = self.versions_of(subject, Deleted::Without).unwrap_or_default();
            if let Some(same) =
                current.into_iter().find(|found| Some(found.id) == id && found.definition.is_same(&definition))
            {
                return Ok(same);
            }
        }
        if let Some(id) = new.id {
            self.check_id(subject, id, &definition)?;
        }
        if mode != Mode::Import {
            let messages = self.incompatibilities(subject, &definition, None)?;
            if !messages.is_empty() {
                return Err(ApiError::incompatible(&messages));
            }
        }
        let versions = self.subject(subject);
        let next = versions.and_then(|v| v.last_key_value()).map_or(1, |(last, _)| last.saturating_add(1));
        let version = match new.version {
            Some(version) if version != next && mode != Mode::Import => {
                return Err(ApiError::invalid_schema(format!(
                    "Version {version} is not the next one, which is {next}"
                )));
            }
            version => version.unwrap_or(next),
        };
        Ok(self.insert(subject, version, id, definition))
    }

    fn insert(&mut self, subject: &Subject, version: u32, id: Option<u32>, definition: Arc<Definition>) -> Found {
        let context = self.contexts.entry(subject.context.clone()).or_default();
        let id = id.unwrap_or_else(|| context.last_id.saturating_add(1));
        context.last_id = context.last_id.max(id);
        let definition = context.schemas.entry(id).or_insert(definition).clone();
        let versions = context.subjects.entry(subject.name.clone()).or_default();
        // A deleted version of the same schema comes back as the new one.
        versions.retain(|number, v| !(v.is_deleted && v.id == id && *number < version));
        versions.insert(version, Version { id, definition: definition.clone(), is_deleted: false });
        Found { subject: subject.clone(), version, id, definition }
    }

    /// Returns the version of a subject that has this schema.
    ///
    /// # Errors
    ///
    /// 40401, 40403 or 42201.
    pub fn look_up(
        &self,
        subject: &Subject,
        draft: Draft,
        normalize: bool,
        deleted: Deleted,
    ) -> Result<Found, ApiError> {
        let versions = self.versions_of(subject, deleted)?;
        let definition = self.parse(subject, draft, normalize)?;
        let same = versions.into_iter().rev().find(|found| found.definition.is_same(&definition));
        same.ok_or_else(ApiError::schema_not_found)
    }

    /// Returns why a schema is not compatible with a version of a subject, or with all that its level names; nothing if it is.
    ///
    /// # Errors
    ///
    /// 40402 or 42201.
    pub fn check(
        &self,
        subject: &Subject,
        draft: Draft,
        normalize: bool,
        version: Option<VersionSpec>,
    ) -> Result<Vec<String>, ApiError> {
        if let Some(VersionSpec::Number(number)) = version {
            let is_there = self.version(subject, VersionSpec::Number(number), Deleted::Without).is_ok();
            if !is_there {
                return Err(ApiError::version_not_found(number));
            }
        }
        let definition = self.parse(subject, draft, normalize)?;
        self.incompatibilities(subject, &definition, version)
    }

    fn incompatibilities(
        &self,
        subject: &Subject,
        definition: &Definition,
        version: Option<VersionSpec>,
    ) -> Result<Vec<String>, ApiError> {
        let level = self.level_in_scope(subject);
        let mut versions = self.versions_of(subject, Deleted::Without).unwrap_or_default();
        match version {
            Some(VersionSpec::Number(number)) => versions.retain(|found| found.version == number),
            None if level.transitive => {}
            Some(VersionSpec::Latest) | None => {
                versions.drain(..versions.len().saturating_sub(1));
            }
        }
        Ok(versions.iter().rev().flat_map(|found| differences(level, definition, found)).collect())
    }

    /// Checks a schema and what it refers to.
    fn parse(&self, subject: &Subject, draft: Draft, normalize: bool) -> Result<Definition, ApiError> {
        let mut referenced = Vec::new();
        for reference in &draft.references {
            let target = Subject::parse_in(&subject.context, &reference.subject);
            self.collect(&target, reference.version, &mut referenced, 0)?;
        }
        let normalize = normalize || self.normalizes_in_scope(subject);
        Definition::parse(draft, &referenced, normalize).map_err(ApiError::invalid_schema)
    }

    /// Collects a referenced schema, after those that it refers to.
    fn collect(
        &self,
        subject: &Subject,
        version: u32,
        all: &mut Vec<Arc<Definition>>,
        depth: usize,
    ) -> Result<(), ApiError> {
        let missing = || {
            ApiError::invalid_schema(format!(
                "No schema reference found for subject \"{subject}\" and version {version}"
            ))
        };
        // A deleted version may be referred to, as what did so before must stay readable.
        let found = self.version(subject, VersionSpec::Number(version), Deleted::With).map_err(|_| missing())?;
        if all.iter().any(|known| Arc::ptr_eq(known, &found.definition)) {
            return Ok(());
        }
        if depth > MAX_REFERENCE_DEPTH {
            return Err(ApiError::invalid_schema(format!("References are nested deeper than {MAX_REFERENCE_DEPTH}")));
        }
        for reference in &found.definition.references {
            let target = Subject::parse_in(&subject.context, &reference.subject);
            self.collect(&target, reference.version, all, depth + 1)?;
        }
        all.push(found.definition);
        Ok(())
    }

    /// Returns the id that the schema has in the context.
    fn id_of(&self, subject: &Subject, definition: &Definition) -> Option<u32> {
        let context = self.contexts.get(&subject.context)?;
        context.schemas.iter().find(|(_, known)| known.is_same(definition)).map(|(id, _)| *id)
    }

    /// Checks that an id is not another schema's.
    fn check_id(&self, subject: &Subject, id: u32, definition: &Definition) -> Result<(), ApiError> {
        let known = self.contexts.get(&subject.context).and_then(|context| context.schemas.get(&id));
        match known {
            Some(known) if !known.is_same(definition) => Err(ApiError::not_permitted(format!(
                "Overwrite new schema with id {id} in context {} is not permitted.",
                subject.context_name()
            ))),
            _ => Ok(()),
        }
    }
}

/// Returns why a schema is not compatible with an earlier version.
fn differences(level: Level, definition: &Definition, found: &Found) -> Vec<String> {
    let mut messages = Vec::new();
    if level.backward {
        messages.extend(definition.incompatibilities(&found.definition));
    }
    if level.forward {
        messages.extend(found.definition.incompatibilities(definition));
    }
    if !messages.is_empty() {
        messages.push(format!("{{oldSchemaVersion: {}}}", found.version));
        messages.push(format!("{{oldSchema: '{}'}}", found.definition.text));
        messages.push(format!("{{compatibility: '{}'}}", level.name()));
    }
    messages
}
