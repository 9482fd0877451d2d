//! Subjects of the values of a topic.

use std::fmt;
use std::sync::Arc;

use crate::error::{SchemaError, SchemaErrorKind};

/// Function from topic and record name to the subject.
pub type SubjectFn = dyn Fn(&str, Option<&str>) -> String + Send + Sync;

/// The subject under which a schema is registered, from topic and record name. A record name is the
/// full name of an Avro record or Protobuf message, or the `title` of a JSON Schema.
///
/// ```
/// use ailurus_schema::codec::SubjectStrategy;
///
/// let of = |strategy: SubjectStrategy| strategy.subject("orders", Some("shop.OrderPaid"));
/// assert_eq!(of(SubjectStrategy::Topic)?, "orders-value");
/// assert_eq!(of(SubjectStrategy::Record)?, "shop.OrderPaid");
/// assert_eq!(of(SubjectStrategy::TopicRecord)?, "orders-shop.OrderPaid");
/// assert_eq!(of(SubjectStrategy::function(|topic, _| format!("prod-{topic}")))?, "prod-orders");
/// # Ok::<(), ailurus_schema::SchemaError>(())
/// ```
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum SubjectStrategy {
    /// `orders-value`: a topic has one type of events, or a union of them. The default of each client.
    #[default]
    Topic,
    /// `shop.OrderPaid`: an event type has the same schema in each topic.
    Record,
    /// `orders-shop.OrderPaid`: a topic has several types of events.
    TopicRecord,
    /// A function of topic and record name.
    Function(Arc<SubjectFn>),
}

impl SubjectStrategy {
    /// Creates a strategy from a function of topic and record name.
    pub fn function(subject: impl Fn(&str, Option<&str>) -> String + Send + Sync + 'static) -> Self {
        Self::Function(Arc::new(subject))
    }

    /// Returns the subject.
    ///
    /// # Errors
    /// [`SchemaErrorKind::Config`] if the strategy needs a record name, and the schema has none.
    pub fn subject(&self, topic: &str, record: Option<&str>) -> Result<String, SchemaError> {
        let named = || {
            record.ok_or_else(|| {
                let what = "the schema has no record name (an Avro record, a Protobuf message, or the title of a JSON \
                            Schema), which the subject strategy needs: name it, or use SubjectStrategy::Topic";
                SchemaError::new(SchemaErrorKind::Config, what)
            })
        };
        Ok(match self {
            Self::Topic => format!("{topic}-value"),
            Self::Record => named()?.to_owned(),
            Self::TopicRecord => format!("{topic}-{}", named()?),
            Self::Function(subject) => subject(topic, record),
        })
    }

    /// Returns whether the record name decides, too.
    pub(super) fn needs_record(&self) -> bool {
        !matches!(self, Self::Topic)
    }
}

impl fmt::Debug for SubjectStrategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Topic => "Topic",
            Self::Record => "Record",
            Self::TopicRecord => "TopicRecord",
            Self::Function(_) => "Function",
        })
    }
}
