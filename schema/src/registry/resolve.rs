//! The schemas that a schema references, directly or not.

use std::collections::HashSet;

use super::SchemaRegistry;
use crate::error::{SchemaError, SchemaErrorKind};
use crate::schema::{ResolvedReference, ResolvedSchema, Schema, SchemaReference, Version};

/// Maximum depth of references.
const MAX_DEPTH: usize = 64;
/// Maximum number of referenced schemas.
const MAX_REFERENCES: usize = 1000;
/// Maximum size of a schema with what it references, in bytes.
const MAX_BYTES: usize = 16 << 20;

/// A step of the walk.
enum Step {
    /// Reads the schema, then those that it references.
    Enter(SchemaReference, usize),
    /// Adds the schema behind those that it references.
    Leave(ResolvedReference, (String, i32)),
}

impl SchemaRegistry {
    /// Returns the schema with each schema that it references, directly or not. A referenced version may
    /// be deleted softly.
    ///
    /// # Errors
    /// [`SchemaErrorKind::NotFound`] if a version does not exist, [`SchemaErrorKind::Protocol`] if
    /// references are recursive, deeper than 64, or more than 1,000 schemas or 16 MiB; and those of any call.
    pub async fn resolve(&self, schema: Schema) -> Result<ResolvedSchema, SchemaError> {
        let limit = |what: String| Err(SchemaError::new(SchemaErrorKind::Protocol, what));
        let (mut references, mut bytes) = (Vec::new(), schema.text.len());
        // Names of the schemas that are resolved; versions that are resolved, and being resolved.
        let (mut done, mut open) = (HashSet::new(), HashSet::new());
        let mut steps: Vec<Step> =
            schema.references.iter().rev().map(|reference| Step::Enter(reference.clone(), 1)).collect();
        while let Some(step) = steps.pop() {
            let (reference, depth) = match step {
                Step::Leave(resolved, key) => {
                    open.remove(&key);
                    references.push(resolved);
                    continue;
                }
                Step::Enter(reference, depth) => (reference, depth),
            };
            let SchemaReference { name, subject, version } = reference;
            let key = (subject, version);
            if open.contains(&key) {
                return limit(format!("version {version} of {} references itself: register it without", key.0));
            }
            // The same schema may have several names.
            if !done.insert((name.clone(), key.clone())) {
                continue;
            }
            if depth > MAX_DEPTH || done.len() > MAX_REFERENCES {
                return limit(format!(
                    "the schema references {} schemas, {depth} deep: at most {MAX_REFERENCES}, {MAX_DEPTH} deep, are read",
                    done.len()
                ));
            }
            let found = self.version_or_deleted(&key.0, Version::Number(version)).await;
            let found = found.map_err(|e| e.context(format!("resolving the reference {name:?}")))?;
            bytes += found.schema.text.len();
            if bytes > MAX_BYTES {
                return limit(format!("the schema with those that it references exceeds {MAX_BYTES} bytes"));
            }
            let nested = found.schema.references.clone();
            open.insert(key.clone());
            steps.push(Step::Leave(ResolvedReference { name, schema: found.schema }, key));
            steps.extend(nested.into_iter().rev().map(|reference| Step::Enter(reference, depth + 1)));
        }
        Ok(ResolvedSchema { schema, references })
    }
}
