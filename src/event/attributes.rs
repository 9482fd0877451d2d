//! Attributes of an event in the headers of its record.

use crate::consumer::Message;
use crate::record::Headers;
use crate::timestamp::Timestamp;

const SPEC_VERSION: &str = "1.0";

/// Returns the headers of an event in the binary mode of the CloudEvents Kafka binding.
pub(super) fn headers(id: &str, event_type: &str, source: &str, time: Timestamp, content_type: &str) -> Headers {
    Headers::new()
        .with("ce_specversion", SPEC_VERSION)
        .with("ce_id", id)
        .with("ce_type", event_type)
        .with("ce_source", source)
        .with("ce_time", time.to_string())
        .with("content-type", content_type)
}

/// Returns the id of an event whose producer set none: its position.
fn id_of_position((topic, partition, offset): (&str, i32, i64)) -> String {
    format!("{topic}-{partition}-{offset}")
}

/// Adds id and time of the event in the record at `position`, so that a copy at another position is
/// the same event. Structured events have them in their value.
pub(super) fn preserve_identity(
    mut headers: Headers,
    position: (&str, i32, i64),
    timestamp: Option<Timestamp>,
) -> Headers {
    if structured(&headers).is_some() {
        return headers;
    }
    // One after the year 9999 has no text that could be read again.
    let time = timestamp.map(|at| at.to_string()).filter(|text| text.parse::<Timestamp>().is_ok());
    for (name, value) in [("ce_id", Some(id_of_position(position))), ("ce_time", time)] {
        // An empty one counts as missing.
        if let Some(value) = value.filter(|_| headers.get(name).is_none_or(<[u8]>::is_empty)) {
            headers = headers.iter().filter(|h| h.key_bytes() != name.as_bytes()).collect();
            headers = headers.with(name, value);
        }
    }
    headers
}

/// Returns the content type of a structured event, whose attributes are in the value.
fn structured(headers: &Headers) -> Option<&str> {
    headers.get_str("content-type").filter(|kind| kind.starts_with("application/cloudevents"))
}

/// Attributes of an event, from the headers or else from position and timestamp of the record.
#[derive(Debug, PartialEq)]
pub(super) struct Attributes<'a> {
    pub(super) id: String,
    /// The type, and the header that has it.
    pub(super) event_type: Option<(&'a str, &'static str)>,
    pub(super) source: Option<&'a str>,
    pub(super) time: Timestamp,
}

impl<'a> Attributes<'a> {
    /// Reads the attributes; the error describes an invalid one.
    pub(super) fn read(message: &'a Message) -> Result<Self, String> {
        let headers = &message.headers;
        if let Some(kind) = structured(headers) {
            return Err(format!(
                "content-type is {kind}: the value is a CloudEvent in structured mode; send it in binary mode \
                 (attributes in ce_ headers, the JSON as the value)"
            ));
        }
        if let Some(version) = text(headers, "ce_specversion")?.filter(|version| !version.starts_with("1.")) {
            return Err(format!("ce_specversion is {version:?}, and only 1.0 is supported"));
        }
        let event_type = match text(headers, "ce_type")? {
            Some(found) => Some((found, "ce_type")),
            // These are no CloudEvents headers: if the value is not UTF-8, it is no type.
            None => ["eventType", "type"]
                .into_iter()
                .find_map(|name| Some((headers.get_str(name).filter(|t| !t.is_empty())?, name))),
        };
        let time = match text(headers, "ce_time")? {
            Some(time) => time.parse().map_err(|e| format!("the header ce_time: {e}"))?,
            None => message.timestamp.max(Timestamp::UNIX_EPOCH),
        };
        let id = match text(headers, "ce_id")? {
            Some(id) => id.to_owned(),
            None => id_of_position((&message.topic, message.partition, message.offset)),
        };
        Ok(Self { id, event_type, source: text(headers, "ce_source")?, time })
    }
}

/// Returns the text of a header unless it is empty: CloudEvents allows no empty attributes.
fn text<'a>(headers: &'a Headers, name: &str) -> Result<Option<&'a str>, String> {
    let Some(bytes) = headers.get(name) else { return Ok(None) };
    let found = std::str::from_utf8(bytes).map_err(|_| format!("the header {name} is not UTF-8"))?;
    Ok(Some(found).filter(|found| !found.is_empty()))
}
