//! Bytes that nobody's serializer writes: an error, never a panic, and bounded memory.

use ailurus::ErrorKind;
use ailurus::event::EncodedValue;
use ailurus_schema::codec::{AvroCodec, AvroSchema, JsonSchemaCodec, JsonValidator, ProtobufCodec, ProtobufSchema};
use ailurus_schema::wire::MessageIndex;
use ailurus_schema::{ResolvedSchema, Schema, SchemaErrorKind};
use serde_json::Value;

use crate::memory::{self, ORDER_V1, avro};
use crate::quick;

/// A list that refers to itself, and an array of nothing.
const NODE: &str = r#"{"type": "record", "name": "Node", "fields": [{"name": "next", "type": ["null", "Node"]}]}"#;
const NULLS: &str = r#"{"type": "array", "items": "null"}"#;

fn parsed(text: &str) -> AvroSchema {
    AvroSchema::parse(&avro(text).into()).unwrap()
}

#[tokio::test]
async fn what_has_no_known_schema_is_an_error_with_its_id() {
    let server = memory::start().await;
    let registry = quick([&server.url]).build().unwrap();
    registry.register("orders-value", &avro(ORDER_V1), Default::default()).await.unwrap();
    let codec = AvroCodec::use_latest(&registry);
    let cases: [(&[u8], Option<&str>); 6] = [
        (b"", None),
        (b"{\"id\": 1}", None),
        (b"\0\0\0", None),
        (b"\0\0\0\0\x63", Some("99")),
        (b"\0\0\0\0\0", Some("0")),
        (b"\0\0\0\0\0\x06o-1\x0e\x01", Some("0")),
    ];
    for (value, id) in cases {
        let failed = memory::decode::<Value>(&codec, &EncodedValue::new("", value)).await.unwrap_err();
        assert_eq!((failed.kind(), failed.schema_id()), (ErrorKind::Event, id), "{value:?}: {failed}");
    }
    // The id is of another language.
    let json = JsonSchemaCodec::use_latest(&registry);
    let failed = memory::decode::<Value>(&json, &EncodedValue::new("", b"\0\0\0\0\0{}")).await.unwrap_err();
    assert!(failed.to_string().contains("the schema is AVRO, and the codec's are JSON"), "{failed}");
}

#[test]
fn truncated_avro_is_no_value_with_nulls() {
    let schema = parsed(
        r#"{"type": "record", "name": "A", "fields": [{"name": "a", "type": "string"}, {"name": "b", "type": ["null", "boolean"]}]}"#,
    );
    let whole = b"\x02x\x02\x01";
    assert!(schema.decode::<Value>(whole).is_ok());
    for length in 0..whole.len() {
        let failed = schema.decode::<Value>(&whole[..length]).unwrap_err();
        assert_eq!(failed.kind(), SchemaErrorKind::Decode);
        assert!(failed.to_string().contains("ends early"), "{failed}");
    }
    for bad in
        [&b"\x02x\x02\x01\0"[..], b"\x02x\x04", b"\x02x\x01", b"\x01", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"]
    {
        assert!(schema.decode::<Value>(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn deep_and_endless_avro_is_refused() {
    let node = parsed(NODE);
    let list = |depth: usize| [vec![2; depth], vec![0]].concat();
    assert!(node.decode::<Value>(&list(60)).is_ok());
    let other = parsed(&NODE.replace(r#""null", "Node""#, r#""Node", "null""#));
    for bytes in [list(10_000), list(1_000_000)] {
        let failed = node.decode::<Value>(&bytes).unwrap_err();
        assert!(failed.to_string().contains("levels deep"), "{failed}");
        assert!(node.decode_as::<Value>(&bytes, &other).is_err());
    }
    // A block of 2^40 nulls, and 2^62 of them.
    for bytes in [&b"\x80\x80\x80\x80\x80\x80\x01\0"[..], b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01\0"] {
        let failed = parsed(NULLS).decode::<Value>(bytes).unwrap_err();
        assert!(failed.to_string().contains("empty elements"), "{failed}");
    }
    // A string of 2^40 bytes.
    assert!(parsed("\"string\"").decode::<Value>(b"\x80\x80\x80\x80\x80\x80\x01x").is_err());
}

#[test]
fn deep_and_wrong_protobuf_and_json_are_refused() {
    let text = r#"syntax = "proto3"; message Node { Node next = 1; } message Other {}"#;
    let schema = ProtobufSchema::parse(&Schema::protobuf(text).into()).unwrap();
    let mut bytes = Vec::new();
    for _ in 0..500 {
        let mut outer = vec![0x0a];
        let mut length = bytes.len();
        while length >= 0x80 {
            outer.push(length as u8 | 0x80);
            length >>= 7;
        }
        outer.push(length as u8);
        outer.append(&mut bytes);
        bytes = outer;
    }
    assert!(schema.decode_json("Node", &bytes).is_err());
    assert!(schema.decode_json("Node", b"\x0a\xff\xff\xff\xff\x07").is_err());
    for index in [vec![2], vec![0, 0], vec![u32::MAX]] {
        let failed = schema.message_name(&MessageIndex::new(index)).unwrap_err();
        assert!(failed.to_string().contains("no message with the index"), "{failed}");
    }
    assert_eq!(schema.message_name(&MessageIndex::new([1])).unwrap(), "Other");

    let any = JsonValidator::parse(&Schema::json("{}").into()).unwrap();
    assert!(any.decode::<Value>("[".repeat(100_000).as_bytes()).is_err());
}

#[test]
fn large_and_deep_schemas_are_refused() {
    let registry = quick(["http://localhost:1"]).build().unwrap();
    let doc = "x".repeat(1 << 20);
    let large = format!(r#"{{"type": "record", "name": "A", "doc": "{doc}", "fields": []}}"#);
    let failed = AvroCodec::new(&registry, avro(&large)).unwrap_err();
    assert!(failed.to_string().contains("at most 1048576 are parsed"), "{failed}");
    let deep = format!("{}\"int\"{}", r#"{"type":"array","items":"#.repeat(10_000), "}".repeat(10_000));
    assert!(AvroCodec::new(&registry, avro(&deep)).is_err());
    assert!(JsonSchemaCodec::new(&registry, Schema::json(r#"{"not":"#.repeat(10_000) + &"}".repeat(10_000))).is_err());
    let deep = format!(r#"syntax = "proto3"; {} {}"#, "message A {".repeat(10_000), "}".repeat(10_000));
    assert!(ProtobufCodec::new(&registry, Schema::protobuf(deep)).is_err());
    // A schema of nearly 1 MB is parsed.
    let fields: Vec<String> = (0..22_000).map(|i| format!(r#"{{"name": "field_{i}", "type": "long"}}"#)).collect();
    let wide = format!(r#"{{"type": "record", "name": "A", "fields": [{}]}}"#, fields.join(","));
    assert!(wide.len() > 800_000);
    AvroCodec::new(&registry, avro(&wide)).unwrap();
}

#[test]
fn references_of_json_to_itself_end() {
    let endless = ResolvedSchema::from(Schema::json(r##"{"$ref": "#"}"##));
    // Refused, or a schema that ends: not a stack that overflows.
    if let Ok(validator) = JsonValidator::parse(&endless) {
        _ = validator.decode::<Value>(b"{}");
    }
}

/// Random bytes, from seeds: each decoder returns.
#[test]
fn random_bytes_are_values_or_errors() {
    let avro_schemas = [ORDER_V1, NODE, NULLS].map(parsed);
    let proto =
        r#"syntax = "proto3"; message A { string a = 1; repeated A b = 2; map<string, int64> c = 3; double d = 4; }"#;
    let proto = ProtobufSchema::parse(&Schema::protobuf(proto).into()).unwrap();
    for seed in 0..20_000_u64 {
        let mut random = fastrand::Rng::with_seed(seed);
        let bytes: Vec<u8> = (0..random.usize(0..40)).map(|_| random.u8(..) >> random.u8(0..7)).collect();
        for schema in &avro_schemas {
            _ = schema.decode::<Value>(&bytes);
        }
        _ = proto.decode_json("A", &bytes);
        _ = MessageIndex::read(&bytes);
    }
}
