//! Compatibility level, normalization and mode: of a subject, else of its context, else the default.

use serde_json::{Map, Value};

use super::{Deleted, Store};
use crate::registry::error::ApiError;
use crate::registry::level::{Level, Mode};
use crate::registry::subject::Subject;

/// Settings of a subject, or of a context.
#[derive(Clone, Debug, Default)]
pub(in crate::registry) struct Settings {
    level: Option<Level>,
    /// Attributes of the configuration other than the level, as they were set.
    others: Map<String, Value>,
    mode: Option<Mode>,
}

impl Settings {
    fn has_config(&self) -> bool {
        self.level.is_some() || !self.others.is_empty()
    }

    /// Returns the configuration as the API shows it.
    fn config(&self, level: Option<Level>) -> Value {
        let mut config = self.others.clone();
        if let Some(level) = self.level.or(level) {
            config.insert("compatibilityLevel".to_owned(), level.name().into());
        }
        Value::Object(config)
    }
}

impl Store {
    pub fn level_in_scope(&self, subject: &Subject) -> Level {
        self.in_scope(subject, |settings| settings.level).unwrap_or(Level::DEFAULT)
    }

    pub fn mode_in_scope(&self, subject: &Subject) -> Mode {
        self.in_scope(subject, |settings| settings.mode).unwrap_or(Mode::ReadWrite)
    }

    pub fn normalizes_in_scope(&self, subject: &Subject) -> bool {
        self.in_scope(subject, |settings| settings.others.get("normalize")?.as_bool()).unwrap_or(false)
    }

    fn in_scope<T>(&self, subject: &Subject, of: impl Fn(&Settings) -> Option<T>) -> Option<T> {
        [subject, &subject.whole_context()].into_iter().find_map(|scope| of(self.settings.get(scope)?))
    }

    /// Returns the configuration of a subject or context; the global one is never missing.
    ///
    /// # Errors
    ///
    /// 40408.
    pub fn config(&self, subject: &Subject, defaults: bool) -> Result<Value, ApiError> {
        let own = self.settings.get(subject).filter(|settings| settings.has_config());
        if defaults || *subject == Subject::global() {
            return Ok(own.cloned().unwrap_or_default().config(Some(self.level_in_scope(subject))));
        }
        own.map(|settings| settings.config(None)).ok_or_else(|| ApiError::compatibility_not_configured(subject))
    }

    /// Sets what the request names of a configuration; returns the request.
    ///
    /// # Errors
    ///
    /// 400 or 42203.
    pub fn set_config(&mut self, subject: &Subject, request: &Map<String, Value>) -> Result<Value, ApiError> {
        let level = match request.get("compatibility") {
            None | Some(Value::Null) => None,
            Some(level) => Some(level.as_str().and_then(Level::parse).ok_or_else(ApiError::invalid_compatibility)?),
        };
        if request.get("normalize").is_some_and(|value| !value.is_boolean() && !value.is_null()) {
            return Err(ApiError::bad_request("normalize is true or false"));
        }
        let settings = self.settings.entry(subject.clone()).or_default();
        settings.level = level.or(settings.level);
        let others = request.iter().filter(|(name, value)| *name != "compatibility" && !value.is_null());
        settings.others.extend(others.map(|(name, value)| (name.clone(), value.clone())));
        Ok(Value::Object(request.clone()))
    }

    /// Removes a configuration; returns it.
    ///
    /// # Errors
    ///
    /// 40401 for a subject without one.
    pub fn delete_config(&mut self, subject: &Subject) -> Result<Value, ApiError> {
        let old = self.config(subject, false).map_err(|_| ApiError::subject_not_found(subject))?;
        if let Some(settings) = self.settings.get_mut(subject) {
            *settings = Settings { mode: settings.mode, ..Settings::default() };
        }
        Ok(old)
    }

    /// Returns the mode of a subject or context; the global one is never missing.
    ///
    /// # Errors
    ///
    /// 40409.
    pub fn mode(&self, subject: &Subject, defaults: bool) -> Result<Mode, ApiError> {
        if defaults || *subject == Subject::global() {
            return Ok(self.mode_in_scope(subject));
        }
        let own = self.settings.get(subject).and_then(|settings| settings.mode);
        own.ok_or_else(|| ApiError::mode_not_configured(subject))
    }

    /// Sets a mode. IMPORT needs a subject or context without schemas, or `force`; what was deleted softly is deleted hard.
    ///
    /// # Errors
    ///
    /// 42205 or 42206.
    pub fn set_mode(&mut self, subject: &Subject, mode: Mode, force: bool) -> Result<(), ApiError> {
        if mode == Mode::Import && self.mode_in_scope(subject) != Mode::Import && !force {
            let is_of = |found: &Subject| {
                if subject.is_whole_context() { found.context == subject.context } else { found == subject }
            };
            if self.versions(Deleted::Without).any(|found| is_of(&found.subject)) {
                return Err(ApiError::not_permitted("Cannot import since found existing subjects"));
            }
            let mut subjects: Vec<_> =
                self.versions(Deleted::With).map(|found| found.subject).filter(|s| is_of(s)).collect();
            subjects.dedup();
            for subject in subjects {
                self.delete_subject(&subject, true)?;
            }
        }
        self.settings.entry(subject.clone()).or_default().mode = Some(mode);
        Ok(())
    }

    /// Removes a mode; returns it.
    ///
    /// # Errors
    ///
    /// 40401 for a subject without one.
    pub fn delete_mode(&mut self, subject: &Subject) -> Result<Mode, ApiError> {
        let old = self.mode(subject, false).map_err(|_| ApiError::subject_not_found(subject))?;
        if let Some(settings) = self.settings.get_mut(subject) {
            settings.mode = None;
        }
        Ok(old)
    }

    pub(super) fn not_permitted(&self, subject: &Subject, why: &str) -> ApiError {
        ApiError::not_permitted(format!("Subject {subject} in context {} is in {why}", subject.context_name()))
    }
}
