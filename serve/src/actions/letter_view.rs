//! Dead letters as HTML.

use ailurus::processor::Truncation;
use ailurus::{Timestamp, TopicPartition};
use maud::{Markup, html};

use super::context::Context;
use super::letters::{Choice, MAX_LETTERS, list_path};
use super::payload::{Encoding, MAX_EDITED, shown};
use crate::dead_letters::{DeadLetterRecord, State, left_out};
use crate::text::{line, or_dash, thousands};

/// Maximum length of a key or an error in a list.
const MAX_CELL: usize = 200;

pub(super) fn topics(context: &Context, topics: &[(String, Option<u64>)], suffix: &str) -> Markup {
    html! {
        @if topics.is_empty() { p.soft { "There is no topic whose name ends in " (suffix) "." } } @else {
            table {
                thead { tr { th.name scope="col" { "Topic" } th.n scope="col" { "Records" } } }
                tbody { @for (topic, records) in topics { tr {
                    th scope="row" { a href={ (context.base()) (list_path(topic)) } { (topic) } }
                    td.n { (or_dash(records.map(thousands))) }
                } } }
            }
        }
    }
}

pub(super) fn list(
    context: &Context,
    topic: &str,
    choice: &Choice,
    found: &[DeadLetterRecord],
    missing: &[(TopicPartition, String)],
) -> Markup {
    let path = format!("{}{}", context.base(), list_path(topic));
    html! {
        @if !missing.is_empty() {
            ul.problems aria-label="Partitions that can't be read" {
                @for (partition, why) in missing.iter().take(5) { li { (partition) " can't be read: " (why) } }
                @if missing.len() > 5 { li { "and " (missing.len() - 5) " more" } }
            }
        }
        form.row method="get" action=(path) {
            label { "Error has " input type="search" name="error" value=[choice.error.as_deref()]; }
            label { "Key " input type="search" name="key" value=[choice.key.as_deref()]; }
            label.check { input type="checkbox" name="by-key" checked[choice.by_key]; "Keys together" }
            label.check { input type="checkbox" name="all" checked[choice.all]; "Replayed and discarded ones, too" }
            button.plain { "Show" }
        }
        @if found.is_empty() { p.soft { "No dead letter matches." } } @else {
            form method="post" action={ (path) "/replay" } {
                (context.csrf())
                table.letters {
                    thead { tr {
                        td.pick {} th scope="col" { "Position" } th.fill scope="col" { "Error" }
                        th.wide scope="col" { "Last failure" } th.n.wide scope="col" { "Attempts" }
                    } }
                    @let is_same = |a: &DeadLetterRecord, b: &DeadLetterRecord| !choice.by_key || a.record.key == b.record.key;
                    @for letters in found.chunk_by(is_same) { tbody {
                        @if let Some(first) = letters.first().filter(|_| choice.by_key) {
                            tr.group {
                                th scope="rowgroup" colspan="3" { "Key " (cell(first.record.key.as_deref())) }
                                td.wide colspan="2" {}
                            }
                        }
                        @for letter in letters { (row(&path, letter, !choice.by_key)) }
                    } }
                }
                @if found.len() == MAX_LETTERS { p.soft { "These are the last " (MAX_LETTERS) " that match." } }
                p.actions {
                    button { "Replay the chosen" }
                    button.plain formaction={ (path) "/discard" } { "Discard the chosen" }
                }
                p.soft { "A discarded dead letter stays in its log, and is not replayed any more." }
            }
        }
    }
}

fn row(path: &str, letter: &DeadLetterRecord, has_key: bool) -> Markup {
    let DeadLetterRecord { partition, record, info, state } = letter;
    let place = format!("{partition}/{}", record.offset);
    html! {
        tr {
            td.pick { @if *state == State::Open {
                input type="checkbox" name="at" value=(place) aria-label={ "Choose " (partition) "@" (record.offset) };
            } }
            th scope="row" { a href={ (path) "/" (place) } { (partition) "@" (record.offset) } }
            td {
                (cell(Some(info.error.as_bytes())))
                small {
                    @if has_key { "key " (cell(record.key.as_deref())) ", " }
                    "from " (info.origin.topic) "/" (info.origin.partition) "@" (info.origin.offset)
                    @if *state != State::Open { ", " (state.name()) }
                }
            }
            td.wide { (time(info.last_failure)) }
            td.n.wide { (info.attempts) }
        }
    }
}

/// Returns bytes in a line of a list.
fn cell(bytes: Option<&[u8]>) -> String {
    let text = line(bytes);
    match text.char_indices().nth(MAX_CELL) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text,
    }
}

/// Returns a time to the second, or a dash.
fn time(at: Option<Timestamp>) -> Markup {
    html! { @match at {
        Some(at) => time datetime=(at) { (format!("{at:.0}").replace('T', " ").trim_end_matches('Z')) " UTC" },
        None => "-",
    } }
}

pub(super) fn one(context: &Context, topic: &str, letter: &DeadLetterRecord, is_incomplete: bool) -> Markup {
    let DeadLetterRecord { partition, record, info, state } = letter;
    let (origin, value) = (&info.origin, shown(record.value.as_deref()));
    let path = format!("{}{}", context.base(), list_path(topic));
    html! {
        p.error { (line(Some(info.error.as_bytes()))) }
        dl.facts {
            div { dt { "State" } dd { (state.name()) } }
            div { dt { "Origin" } dd { (origin.topic) "/" (origin.partition) "@" (origin.offset) } }
            @if let Some(group) = &origin.group { div { dt { "Group" } dd { (group) } } }
            div { dt { "Attempts" } dd { (info.attempts) } }
            div { dt { "First failure" } dd { (time(info.first_failure)) } }
            div { dt { "Last failure" } dd { (time(info.last_failure)) } }
            div { dt { "Written" } dd { (time(origin.timestamp)) } }
            div { dt { "Replays" } dd { (info.replays()) } }
            div { dt { "Key" } dd { (line(record.key.as_deref())) } }
        }
        p { a href={ (path) "?by-key&all&key=" (query(record.key.as_deref())) } { "All of this key" } }
        @if is_incomplete {
            p.alert { "It was too large to be written whole, and its record no longer exists: without "
                (left_out(info.truncation).join(", ")) ". It can't be replayed." }
        }
        h2 #value { "Value " small { (value.kind) ", " (thousands(record.value.as_ref().map_or(0, |v| v.len()) as u64)) " bytes" } }
        @if !value.text.is_empty() { pre tabindex="0" aria-labelledby="value" { (value.text) } }
        @if value.left_out > 0 { p.soft { "and " (thousands(value.left_out as u64)) " bytes more" } }
        h2 #headers { "Headers " small { (info.headers.len()) } }
        @if !info.headers.is_empty() {
            table aria-labelledby="headers" {
                thead { tr { th.name scope="col" { "Name" } th scope="col" { "Value" } } }
                tbody { @for header in info.headers.iter() { tr {
                    th scope="row" { (line(Some(header.key_bytes()))) }
                    td.why { (line(header.value())) }
                } } }
            }
        }
        @if *state == State::Open {
            (edit(context, letter, &path))
            form method="post" action={ (path) "/discard" } {
                (context.csrf())
                input type="hidden" name="at" value={ (partition) "/" (record.offset) };
                p.actions { button.plain { "Discard" } }
                p.soft { "It stays in its log, and is not replayed any more." }
            }
        }
    }
}

/// Returns the form that replays a dead letter, with changes or without.
fn edit(context: &Context, letter: &DeadLetterRecord, path: &str) -> Markup {
    let DeadLetterRecord { partition, record, info, .. } = letter;
    let value = record.value.as_deref();
    let encoding = Encoding::of(value);
    let is_whole = info.truncation == Truncation::Nothing;
    html! {
        h2 #replay { "Replay" }
        form.stack method="post" action={ (path) "/replay" } aria-labelledby="replay" {
            (context.csrf())
            input type="hidden" name="at" value={ (partition) "/" (record.offset) };
            @if is_whole && value.is_none_or(|value| value.len() <= MAX_EDITED) {
                details {
                    summary { "Edit it first" }
                    label for="edited" { "Value" }
                    // The first line break of a textarea is not part of its text.
                    textarea #edited name="value" rows="10" spellcheck="false" autocomplete="off" {
                        "\n" (encoding.encode(value.unwrap_or_default()))
                    }
                    label for="encoding" { "The value is" }
                    select #encoding name="encoding" { @for (one, name, what) in Encoding::ALL {
                        option value=(name) selected[one == encoding] { (what) }
                    } }
                    @let names = info.headers.iter().filter_map(|h| std::str::from_utf8(h.key_bytes()).ok());
                    @let names: std::collections::BTreeSet<_> = names.collect();
                    @if !names.is_empty() {
                        fieldset { legend { "Headers to leave out" }
                            @for name in names { label.check {
                                input type="checkbox" name="remove" value=(name); (line(Some(name.as_bytes())))
                            } }
                        }
                    }
                    fieldset { legend { "A header to set" }
                        label { "Name " input name="header-name" autocomplete="off"; }
                        label { "Value " input name="header-value" autocomplete="off"; }
                    }
                }
            } @else if is_whole {
                p.soft { "Its value is too large to be edited here: ailurus dlq replay --at … --edit does it." }
            }
            p.actions { button { "Replay to " (info.origin.topic) } }
        }
    }
}

/// Returns a key as a part of a URL.
fn query(key: Option<&[u8]>) -> String {
    percent_encoding::percent_encode(key.unwrap_or_default(), percent_encoding::NON_ALPHANUMERIC).to_string()
}
