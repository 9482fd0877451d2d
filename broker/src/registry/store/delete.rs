//! Deletes: soft, after which a schema is still found by its id, and hard.

use super::{Deleted, Store, VersionSpec};
use crate::registry::error::ApiError;
use crate::registry::level::Mode;
use crate::registry::subject::Subject;

impl Store {
    /// Deletes all versions of a subject; returns their numbers.
    ///
    /// # Errors
    ///
    /// 40401, 40404, 40405, 42205 or 42206; nothing is changed then.
    pub fn delete_subject(&mut self, subject: &Subject, is_permanent: bool) -> Result<Vec<u32>, ApiError> {
        self.check_writable(subject)?;
        let all = self.versions_of(subject, Deleted::With)?;
        let current = self.versions_of(subject, Deleted::Without).unwrap_or_default();
        if is_permanent && !current.is_empty() {
            return Err(ApiError::subject_not_soft_deleted(subject));
        }
        if !is_permanent && current.is_empty() {
            return Err(ApiError::subject_soft_deleted(subject));
        }
        let deleted = if is_permanent { all } else { current };
        let counted = if is_permanent { Deleted::With } else { Deleted::Without };
        for found in &deleted {
            // Those of the subject itself go too.
            if self.references_to(subject, found.version, counted).iter().any(|r| r.subject != *subject) {
                return Err(ApiError::reference_exists(subject, found.version));
            }
        }
        for found in &deleted {
            self.remove(subject, found.version, is_permanent);
        }
        Ok(deleted.iter().map(|found| found.version).collect())
    }

    /// Deletes one version of a subject; returns its number.
    ///
    /// # Errors
    ///
    /// 40401, 40402, 40406, 40407, 42205 or 42206; nothing is changed then.
    pub fn delete_version(
        &mut self,
        subject: &Subject,
        spec: VersionSpec,
        is_permanent: bool,
    ) -> Result<u32, ApiError> {
        let latest = if is_permanent { Deleted::With } else { Deleted::Without };
        let counted = if spec == VersionSpec::Latest { latest } else { Deleted::With };
        let version = self.version(subject, spec, counted)?.version;
        let is_current = self.version(subject, VersionSpec::Number(version), Deleted::Without).is_ok();
        if !is_permanent && !is_current {
            return Err(ApiError::version_soft_deleted(subject, version));
        }
        self.check_writable(subject)?;
        if !self.references_to(subject, version, latest).is_empty() {
            return Err(ApiError::reference_exists(subject, version));
        }
        if is_permanent && is_current {
            return Err(ApiError::version_not_soft_deleted(subject, version));
        }
        self.remove(subject, version, is_permanent);
        Ok(version)
    }

    fn check_writable(&self, subject: &Subject) -> Result<(), ApiError> {
        match self.mode_in_scope(subject) {
            Mode::ReadOnly => Err(self.not_permitted(subject, "read-only mode")),
            Mode::ReadWrite | Mode::Import => Ok(()),
        }
    }

    fn remove(&mut self, subject: &Subject, version: u32, is_permanent: bool) {
        let Some(context) = self.contexts.get_mut(&subject.context) else { return };
        let Some(versions) = context.subjects.get_mut(&subject.name) else { return };
        if !is_permanent {
            if let Some(version) = versions.get_mut(&version) {
                version.is_deleted = true;
            }
            return;
        }
        let removed = versions.remove(&version);
        if versions.is_empty() {
            context.subjects.remove(&subject.name);
            self.settings.remove(subject);
        }
        if let Some(removed) = removed {
            let is_used = context.subjects.values().flat_map(|v| v.values()).any(|v| v.id == removed.id);
            if !is_used {
                context.schemas.remove(&removed.id);
            }
        }
    }
}
