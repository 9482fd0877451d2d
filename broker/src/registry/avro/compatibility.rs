//! Compatibility of a reader's schema with a writer's: the schema resolution of Avro's specification, decided as Avro's Java library
//! decides it. Messages have the names that it gives to differences.

use std::collections::BTreeMap;

use super::{AvroSchema, Body, Field, Kind, Named, Node, Primitive};

/// Levels of types that are compared: more than a schema in use has, and less than the stack holds.
const MAX_DEPTH: usize = 256;
/// Reported differences.
const MAX_MESSAGES: usize = 100;

/// Returns why the reader's schema cannot read what the writer's wrote; nothing if it can.
pub(in crate::registry) fn incompatibilities(reader: &AvroSchema, writer: &AvroSchema) -> Vec<String> {
    let mut check = Check { reader, writer, compared: BTreeMap::new(), messages: Vec::new() };
    check.compare(&reader.root, &writer.root, &mut Path::default());
    check.messages.truncate(MAX_MESSAGES);
    check.messages
}

/// A place in the reader's schema, as a JSON pointer.
#[derive(Default)]
struct Path(Vec<String>);

impl Path {
    fn text(&self) -> String {
        if self.0.is_empty() { "/".to_owned() } else { self.0.iter().map(|part| format!("/{part}")).collect() }
    }
}

struct Check<'a> {
    reader: &'a AvroSchema,
    writer: &'a AvroSchema,
    /// Results of the pairs of records that were compared: true if compatible. Those that are being compared count as such, so that
    /// recursion ends.
    compared: BTreeMap<(&'a str, &'a str), bool>,
    messages: Vec<String>,
}

impl<'a> Check<'a> {
    fn compare(&mut self, reader: &'a Node, writer: &'a Node, path: &mut Path) {
        if path.0.len() > MAX_DEPTH {
            self.report("TYPE_MISMATCH", "the types are nested too deeply to be compared", path);
            return;
        }
        match (&reader.kind, &writer.kind) {
            (_, Kind::Union(branches)) => {
                for (i, branch) in branches.iter().enumerate() {
                    self.within(path, &i.to_string(), |check, path| check.compare(reader, branch, path));
                }
            }
            (Kind::Union(branches), _) => {
                if !branches.iter().any(|branch| self.is_compatible(branch, writer, path)) {
                    let kind = self.name_of(self.writer, writer);
                    self.report("MISSING_UNION_BRANCH", &format!("reader union lacking writer type: {kind}"), path);
                }
            }
            (Kind::Array(items), Kind::Array(written)) => {
                self.within(path, "items", |check, path| check.compare(items, written, path));
            }
            (Kind::Map(values), Kind::Map(written)) => {
                self.within(path, "values", |check, path| check.compare(values, written, path));
            }
            (Kind::Primitive(to), Kind::Primitive(from)) if is_promoted(*from, *to) => {}
            (Kind::Named(to), Kind::Named(from)) => self.compare_named(to, from, path),
            _ => {
                let (to, from) = (self.name_of(self.reader, reader), self.name_of(self.writer, writer));
                self.report(
                    "TYPE_MISMATCH",
                    &format!("reader type: {to} not compatible with writer type: {from}"),
                    path,
                );
            }
        }
    }

    fn compare_named(&mut self, to: &'a str, from: &'a str, path: &mut Path) {
        let (Some(reader), Some(writer)) = (self.reader.named.get(to), self.writer.named.get(from)) else { return };
        match (&reader.body, &writer.body) {
            (Body::Record { fields, .. }, Body::Record { fields: written, .. }) => {
                match self.compared.insert((to, from), true) {
                    None => {
                        let before = self.messages.len();
                        self.compare_names(reader, from, writer, path);
                        self.compare_fields(fields, written, path);
                        self.compared.insert((to, from), self.messages.len() == before);
                    }
                    Some(true) => {}
                    Some(false) => {
                        self.compared.insert((to, from), false);
                        let what = format!("reader type: RECORD {to} not compatible with writer type: RECORD {from}");
                        self.report("TYPE_MISMATCH", &what, path);
                    }
                }
            }
            (Body::Enum { symbols, default }, Body::Enum { symbols: written, .. }) => {
                self.compare_names(reader, from, writer, path);
                let missing: Vec<_> = written.iter().filter(|s| !symbols.contains(s)).map(String::as_str).collect();
                if !missing.is_empty() && default.is_none() {
                    let what = format!("the reader lacks the symbols [{}], and has no default", missing.join(", "));
                    self.report("MISSING_ENUM_SYMBOLS", &what, path);
                }
            }
            (Body::Fixed { size }, Body::Fixed { size: written }) => {
                self.compare_names(reader, from, writer, path);
                if size != written {
                    self.report("FIXED_SIZE_MISMATCH", &format!("expected: {written}, found: {size}"), path);
                }
            }
            _ => {
                let what = format!("reader type: {} not compatible with writer type: {}", kind(reader), kind(writer));
                self.report("TYPE_MISMATCH", &what, path);
            }
        }
    }

    /// Namespaces don't count: a class may move.
    fn compare_names(&mut self, reader: &Named, from: &str, writer: &Named, path: &Path) {
        if reader.name != writer.name && !reader.aliases.iter().any(|alias| alias == from) {
            let what = format!("the name is {}, and was {}; an alias would allow it", reader.name, writer.name);
            self.report("NAME_MISMATCH", &what, path);
        }
    }

    fn compare_fields(&mut self, reader: &'a [Field], writer: &'a [Field], path: &mut Path) {
        for (i, field) in reader.iter().enumerate() {
            let is_it = |w: &&Field| w.name == field.name || field.aliases.contains(&w.name);
            // The name first: an alias may be another field's name.
            let written = writer.iter().find(|w| w.name == field.name).or_else(|| writer.iter().find(is_it));
            self.within(path, &format!("fields/{i}"), |check, path| match written {
                Some(written) => check.within(path, "type", |c, path| c.compare(&field.node, &written.node, path)),
                None if field.default.is_some() => {}
                None => {
                    let what =
                        format!("the reader's field {} has no default, and the writer has no such field", field.name);
                    check.report("READER_FIELD_MISSING_DEFAULT_VALUE", &what, path);
                }
            });
        }
    }

    /// Compares without reporting.
    fn is_compatible(&mut self, reader: &'a Node, writer: &'a Node, path: &mut Path) -> bool {
        let before = self.messages.len();
        self.compare(reader, writer, path);
        let is_compatible = self.messages.len() == before;
        self.messages.truncate(before);
        is_compatible
    }

    fn within(&mut self, path: &mut Path, part: &str, compare: impl FnOnce(&mut Self, &mut Path)) {
        path.0.push(part.to_owned());
        compare(self, path);
        path.0.pop();
    }

    fn report(&mut self, kind: &str, what: &str, path: &Path) {
        let place = path.text();
        self.messages.push(format!("{{errorType:'{kind}', description:'{what}', path:'{place}'}}"));
    }

    fn name_of(&self, schema: &AvroSchema, node: &Node) -> String {
        match &node.kind {
            Kind::Primitive(primitive) => primitive.name().to_uppercase(),
            Kind::Array(_) => "ARRAY".to_owned(),
            Kind::Map(_) => "MAP".to_owned(),
            Kind::Union(_) => "UNION".to_owned(),
            Kind::Named(name) => {
                let kind = schema.named.get(name).map_or("", kind);
                format!("{kind} {name}")
            }
        }
    }
}

fn kind(named: &Named) -> &'static str {
    match named.body {
        Body::Record { .. } => "RECORD",
        Body::Enum { .. } => "ENUM",
        Body::Fixed { .. } => "FIXED",
    }
}

fn is_promoted(from: Primitive, to: Primitive) -> bool {
    use Primitive::{Bytes, Double, Float, Int, Long, String};
    from == to
        || matches!(
            (from, to),
            (Int, Long | Float | Double) | (Long, Float | Double) | (Float, Double) | (Bytes, String) | (String, Bytes)
        )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::super::parse;
    use super::*;

    fn messages(reader: &str, writer: &str) -> Vec<String> {
        let parsed = |schema| parse(schema, &[]).unwrap_or_else(|error| panic!("{schema}: {error}"));
        incompatibilities(&parsed(reader), &parsed(writer))
    }

    /// Asserts whether the first reads the second, by the word for the difference.
    fn check(reader: &str, writer: &str, difference: Option<&str>) {
        let messages = messages(reader, writer);
        match difference {
            None => assert!(messages.is_empty(), "{reader} of {writer}: {messages:?}"),
            Some(word) => assert!(messages.iter().any(|m| m.contains(word)), "{reader} of {writer}: {messages:?}"),
        }
    }

    fn record(fields: &str) -> String {
        format!(r#"{{"type":"record","name":"A","fields":[{fields}]}}"#)
    }

    #[test]
    fn primitives_are_promoted() {
        let names = ["int", "long", "float", "double", "bytes", "string", "boolean", "null"];
        let promoted = [
            ("int", "long"),
            ("int", "float"),
            ("int", "double"),
            ("long", "float"),
            ("long", "double"),
            ("float", "double"),
            ("string", "bytes"),
            ("bytes", "string"),
        ];
        for from in names {
            for to in names {
                let is_read = from == to || promoted.contains(&(from, to));
                let difference = (!is_read).then_some("TYPE_MISMATCH");
                check(&format!("\"{to}\""), &format!("\"{from}\""), difference);
            }
        }
    }

    #[test]
    fn fields_come_with_defaults_and_go_freely() {
        let x = record(r#"{"name":"x","type":"int"}"#);
        let xy = record(r#"{"name":"x","type":"int"},{"name":"y","type":"int"}"#);
        let with_default = record(r#"{"name":"x","type":"int"},{"name":"y","type":"int","default":0}"#);
        check(&x, &xy, None);
        check(&xy, &x, Some("READER_FIELD_MISSING_DEFAULT_VALUE"));
        check(&with_default, &x, None);
        let renamed = record(r#"{"name":"z","type":"int","aliases":["x"]}"#);
        check(&renamed, &x, None);
        check(&x, &renamed, Some("the reader's field x has no default"));
        assert!(messages(&xy, &x)[0].contains("path:'/fields/1'"));
    }

    #[test]
    fn unions_need_a_branch_for_each_that_is_written() {
        for (reader, writer, difference) in [
            (r#"["null","int"]"#, r#""int""#, None),
            (r#"["null","long"]"#, r#""int""#, None),
            (r#"["null","int"]"#, r#""string""#, Some("MISSING_UNION_BRANCH")),
            (r#"["null","int"]"#, r#"["null","int","string"]"#, Some("MISSING_UNION_BRANCH")),
            (r#"["null","int","string"]"#, r#"["int","null"]"#, None),
            (r#""int""#, r#"["int"]"#, None),
            (r#""long""#, r#"["int","long"]"#, None),
            (r#""int""#, r#"["null","int"]"#, Some("TYPE_MISMATCH")),
        ] {
            check(reader, writer, difference);
        }
    }

    #[test]
    fn named_types_keep_name_symbols_and_size() {
        let e = |name: &str, symbols: &str| format!(r#"{{"type":"enum","name":"{name}","symbols":[{symbols}]}}"#);
        check(&e("E", r#""A","B""#), &e("E", r#""A""#), None);
        check(&e("E", r#""A""#), &e("E", r#""A","B""#), Some("MISSING_ENUM_SYMBOLS"));
        let with_default = r#"{"type":"enum","name":"E","symbols":["A"],"default":"A"}"#;
        check(with_default, &e("E", r#""A","B""#), None);
        check(&e("E", r#""A""#), &e("F", r#""A""#), Some("NAME_MISMATCH"));
        check(&e("other.E", r#""A""#), &e("E", r#""A""#), None);
        check(r#"{"type":"enum","name":"E","symbols":["A"],"aliases":["F"]}"#, &e("F", r#""A""#), None);
        let fixed = |size: u8| format!(r#"{{"type":"fixed","name":"F","size":{size}}}"#);
        check(&fixed(2), &fixed(2), None);
        check(&fixed(2), &fixed(3), Some("FIXED_SIZE_MISMATCH"));
        check(&fixed(2), &e("F", r#""A""#), Some("TYPE_MISMATCH"));
    }

    #[test]
    fn containers_are_compared_inside() {
        check(r#"{"type":"array","items":"long"}"#, r#"{"type":"array","items":"int"}"#, None);
        check(r#"{"type":"array","items":"int"}"#, r#"{"type":"array","items":"long"}"#, Some("path:'/items'"));
        check(r#"{"type":"map","values":"int"}"#, r#"{"type":"map","values":"string"}"#, Some("path:'/values'"));
        check(r#"{"type":"map","values":"int"}"#, r#"{"type":"array","items":"int"}"#, Some("TYPE_MISMATCH"));
    }

    #[test]
    fn recursive_types_end() {
        let tree = |kind: &str| {
            record(&format!(
                r#"{{"name":"v","type":"{kind}"}},{{"name":"next","type":["null","A"],"default":null}},
                {{"name":"all","type":{{"type":"array","items":"A"}},"default":[]}}"#
            ))
        };
        check(&tree("long"), &tree("int"), None);
        check(&tree("int"), &tree("long"), Some("path:'/fields/0/type'"));
    }

    #[test]
    fn a_long_chain_of_names_is_an_error_and_no_overflow() {
        let mut fields = vec![r#"{"name":"f0","type":{"type":"record","name":"N0","fields":[]}}"#.to_owned()];
        for i in 1..5_000 {
            let inner = format!(r#"{{"name":"n","type":["null","N{}"]}}"#, i - 1);
            fields.push(format!(r#"{{"name":"f{i}","type":{{"type":"record","name":"N{i}","fields":[{inner}]}}}}"#));
        }
        let chain = record(&fields.join(","));
        check(&chain, &chain, None);
        // Through the references of another schema the last comes first, and leads through all others.
        let parsed = parse(&chain, &[]).expect("the chain");
        let user = parse(r#"{"type":"array","items":"N4999"}"#, &[&parsed]).expect("its user");
        let messages = incompatibilities(&user, &user);
        assert!(messages.len() == 1 && messages[0].contains("MISSING_UNION_BRANCH"), "{messages:?}");
    }

    #[test]
    fn incompatible_records_are_compared_once() {
        // Each has the one before twice: 2^60 comparisons, were they repeated.
        let tower = |kind: &str| {
            let first = record(&format!(r#"{{"name":"x","type":"{kind}"}}"#)).replace("\"A\"", "\"N0\"");
            let mut fields = vec![format!(r#"{{"name":"f0","type":["null",{first}]}}"#)];
            for i in 1..60 {
                let below = i - 1;
                fields.push(format!(
                    r#"{{"name":"f{i}","type":{{"type":"record","name":"N{i}","fields":[
                    {{"name":"a","type":["null","N{below}"]}},{{"name":"b","type":["null","N{below}"]}}]}}}}"#
                ));
            }
            parse(&record(&fields.join(",")), &[]).expect("a tower")
        };
        let (ints, texts) = (tower("int"), tower("string"));
        let user = |tower| parse(r#"{"type":"array","items":"N59"}"#, &[tower]).expect("its user");
        assert_eq!(incompatibilities(&user(&ints), &user(&texts)).len(), 2);
    }
}
