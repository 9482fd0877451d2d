//! Codecs: round trips, evolution, references, places of ids, subjects, and requests to the registry.

use ailurus::ErrorKind;
use ailurus::event::{Codec, EncodedValue};
use ailurus_schema::codec::{
    AvroCodec, AvroSchema, IdPlacement, JsonSchemaCodec, JsonValidator, ProtobufCodec, ProtobufSchema, SubjectStrategy,
};
use ailurus_schema::{ResolvedSchema, Schema, SchemaErrorKind, SchemaRegistry, wire};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::memory::{self, ORDER_V1, ORDER_V2, avro};
use crate::quick;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct OrderV1 {
    id: String,
    total: i32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Order {
    total: i64,
    id: String,
    note: Option<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ProtoOrder {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(int64, tag = "2")]
    total: i64,
}

impl prost::Name for ProtoOrder {
    const NAME: &'static str = "Order";
    const PACKAGE: &'static str = "shop";
}

const PROTO: &str = r#"syntax = "proto3"; package shop;
message Envelope { message Inner { int32 a = 1; } Inner inner = 1; }
message Order { string id = 1; int64 total = 2; }"#;

const JSON: &str = r#"{"title": "Order", "type": "object", "required": ["id", "total"],
    "properties": {"id": {"type": "string"}, "total": {"type": "integer", "minimum": 0}, "note": {"type": ["string", "null"]}}}"#;

async fn registry() -> (crate::server::Server, SchemaRegistry) {
    let server = memory::start().await;
    let registry = quick([&server.url]).build().unwrap();
    (server, registry)
}

fn order() -> Order {
    Order { total: 7, id: "o-1".into(), note: Some("leave at the door".into()) }
}

#[tokio::test]
async fn avro_resolves_each_version_to_the_readers() {
    let (_server, registry) = registry().await;
    let v1 = AvroCodec::new(&registry, avro(ORDER_V1)).unwrap().auto_register(true);
    let v2 = AvroCodec::new(&registry, avro(ORDER_V2)).unwrap().auto_register(true);
    let old = v1.encode("orders", &OrderV1 { id: "o-1".into(), total: 7 }).await.unwrap();
    assert_eq!((old.content_type, &old.value[..5]), ("application/avro", &[0, 0, 0, 0, 0][..]));
    let read: Order = memory::decode(&v2, &old).await.unwrap();
    assert_eq!(read, Order { total: 7, id: "o-1".into(), note: None });
    let new = v2.encode("orders", &order()).await.unwrap();
    assert_eq!(memory::decode::<Order>(&v2, &new).await.unwrap(), order());

    // An older reader drops the field that it does not know.
    assert_eq!(memory::decode::<OrderV1>(&v1, &new).await.unwrap().total, 7);
    // With the schema of the record, no schema of one's own is needed.
    let latest = AvroCodec::use_latest(&registry);
    assert_eq!(memory::decode::<Order>(&latest, &new).await.unwrap(), order());
    assert_eq!(latest.encode("orders", &order()).await.unwrap().value, new.value);

    // Another type is no number.
    let text = ORDER_V1.replace("\"int\"", "\"string\"");
    let text = AvroCodec::new(&registry, avro(&text)).unwrap().auto_register(true);
    let text = text.encode("orders", &json!({"id": "o-1", "total": "7"})).await.unwrap();
    let failed = memory::decode::<OrderV1>(&v1, &text).await.unwrap_err();
    assert_eq!((failed.kind(), failed.schema_id()), (ErrorKind::Event, Some("2")));
}

#[tokio::test]
async fn json_is_validated_both_ways() {
    let (_server, registry) = registry().await;
    let codec = JsonSchemaCodec::new(&registry, Schema::json(JSON)).unwrap().auto_register(true);
    let encoded = codec.encode("orders", &order()).await.unwrap();
    assert_eq!(memory::decode::<Order>(&codec, &encoded).await.unwrap(), order());
    let failed = codec.encode("orders", &Order { total: -1, ..order() }).await.err().unwrap();
    assert_eq!(failed.kind(), ErrorKind::Event);
    assert!(failed.to_string().contains("/total: -1 is less than the minimum of 0"), "{failed}");
    let invalid = EncodedValue::new("application/json", b"\0\0\0\0\0{\"id\":1}");
    let failed = memory::decode::<Order>(&codec, &invalid).await.unwrap_err();
    assert!(failed.to_string().contains("\"total\" is a required property"), "{failed}");
    assert_eq!(failed.schema_id(), Some("0"));
}

#[tokio::test]
async fn protobuf_names_the_message() {
    let (_server, registry) = registry().await;
    let codec = ProtobufCodec::new(&registry, Schema::protobuf(PROTO)).unwrap().auto_register(true);
    let event = ProtoOrder { id: "o-1".into(), total: 7 };
    let encoded = codec.encode("orders", &event).await.unwrap();
    assert_eq!(encoded.value[..7], [0, 0, 0, 0, 0, 2, 2], "the second message");
    assert_eq!(memory::decode::<ProtoOrder>(&codec, &encoded).await.unwrap(), event);
    let other = EncodedValue::new("application/protobuf", [0, 0, 0, 0, 0, 4, 0, 0]);
    let failed = memory::decode::<ProtoOrder>(&codec, &other).await.unwrap_err();
    assert!(failed.to_string().contains("the record is a shop.Envelope.Inner, and not a shop.Order"), "{failed}");
}

#[tokio::test]
async fn ids_are_in_headers_too() {
    let (_server, registry) = registry().await;
    let proto = ProtobufCodec::new(&registry, Schema::protobuf(PROTO)).unwrap().auto_register(true);
    let proto = proto.placement(IdPlacement::Header);
    let event = ProtoOrder { id: "o-1".into(), total: 7 };
    let encoded = proto.encode("orders", &event).await.unwrap();
    assert_eq!(encoded.value, prost::Message::encode_to_vec(&event));
    let header = encoded.headers.get(wire::VALUE_HEADER).unwrap();
    assert_eq!((header.len(), header[0], &header[17..]), (19, 1, &[2, 2][..]));
    let prefixed = ProtobufCodec::use_latest(&registry);
    assert_eq!(memory::decode::<ProtoOrder>(&prefixed, &encoded).await.unwrap(), event);

    let json = JsonSchemaCodec::new(&registry, Schema::json(JSON)).unwrap().auto_register(true);
    let encoded = json.placement(IdPlacement::Header).encode("orders", &order()).await.unwrap();
    assert_eq!(encoded.value, serde_json::to_vec(&json!(order())).unwrap(), "plain JSON");
}

#[tokio::test]
async fn the_registry_is_off_the_path_once_an_id_is_known() {
    let (server, registry) = registry().await;
    let codec = AvroCodec::new(&registry, avro(ORDER_V1)).unwrap().auto_register(true);
    let event = OrderV1 { id: "o-1".into(), total: 7 };
    let encoded = codec.encode("orders", &event).await.unwrap();
    memory::decode::<OrderV1>(&codec, &encoded).await.unwrap();
    let known = server.lines().len();
    assert_eq!(known, 2, "one to register, one to read by id");
    for _ in 0..1000 {
        let encoded = codec.encode("orders", &event).await.unwrap();
        memory::decode::<OrderV1>(&codec, &encoded).await.unwrap();
    }
    assert_eq!(server.lines().len(), known);
    // It may even be away.
    drop(server);
    let encoded = codec.encode("orders", &event).await.unwrap();
    let read: OrderV1 = memory::decode(&codec, &encoded).await.unwrap();
    assert_eq!(read, event);
}

#[tokio::test]
async fn schemas_are_not_registered_unless_that_is_wanted() {
    let (server, registry) = registry().await;
    let codec = AvroCodec::new(&registry, avro(ORDER_V1)).unwrap();
    let event = OrderV1 { id: "o-1".into(), total: 7 };
    let failed = codec.encode("orders", &event).await.err().unwrap();
    assert!(failed.to_string().contains("must be registered before it is used"), "{failed}");
    assert_eq!(server.lines(), ["POST /subjects/orders-value"]);
    registry.register("orders-value", &avro(ORDER_V1), Default::default()).await.unwrap();
    codec.encode("orders", &event).await.unwrap();
}

#[tokio::test]
async fn subjects_follow_the_strategy() {
    let (server, registry) = registry().await;
    let order = OrderV1 { id: "o-1".into(), total: 7 };
    let avro = AvroCodec::new(&registry, avro(ORDER_V1)).unwrap().auto_register(true);
    avro.clone().subjects(SubjectStrategy::Record).encode("a", &order).await.unwrap();
    avro.clone().subjects(SubjectStrategy::TopicRecord).encode("a", &order).await.unwrap();
    avro.subjects(SubjectStrategy::function(|topic, record| format!("{topic}.{}", record.unwrap())))
        .encode("a", &order)
        .await
        .unwrap();
    let proto = ProtobufCodec::new(&registry, Schema::protobuf(PROTO)).unwrap().auto_register(true);
    let event = ProtoOrder { id: "o-1".into(), total: 7 };
    proto.subjects(SubjectStrategy::TopicRecord).encode("b", &event).await.unwrap();
    let subjects = ["shop.Order", "a-shop.Order", "a.shop.Order", "b-shop.Order"];
    assert_eq!(server.lines(), subjects.map(|subject| format!("POST /subjects/{subject}/versions")));
}

#[tokio::test]
async fn references_are_followed_in_each_language() {
    let money =
        r#"{"type": "record", "name": "Money", "namespace": "shop", "fields": [{"name": "cents", "type": "long"}]}"#;
    let order = r#"{"type": "record", "name": "Priced", "namespace": "shop", "fields": [{"name": "total", "type": "shop.Money"}, {"name": "tax", "type": "shop.Money"}]}"#;
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Money {
        cents: i64,
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Priced {
        total: Money,
        tax: Money,
    }
    let (_server, registry) = registry().await;
    registry.register("money", &avro(money), Default::default()).await.unwrap();
    let schema = avro(order).reference("shop.Money", "money", 1);
    registry.register("orders-value", &schema, Default::default()).await.unwrap();
    let event = Priced { total: Money { cents: 700 }, tax: Money { cents: 133 } };
    let codec = AvroCodec::use_latest(&registry);
    let encoded = codec.encode("orders", &event).await.unwrap();
    assert_eq!(memory::decode::<Priced>(&codec, &encoded).await.unwrap(), event);
    let own = AvroCodec::new(&registry, ResolvedSchema::from(schema).with("shop.Money", avro(money))).unwrap();
    assert_eq!(own.encode("orders", &event).await.unwrap().value, encoded.value);

    let json =
        ResolvedSchema::from(Schema::json(r#"{"type": "object", "properties": {"total": {"$ref": "money.json"}}}"#))
            .with("money.json", Schema::json(r#"{"type": "integer"}"#));
    let validator = JsonValidator::parse(&json).unwrap();
    assert!(validator.encode(&json!({"total": 1})).is_ok() && validator.encode(&json!({"total": "x"})).is_err());

    let proto = ResolvedSchema::from(Schema::protobuf(
        r#"syntax = "proto3"; import "money.proto"; import "google/protobuf/timestamp.proto";
           message Order { Money total = 1; google.protobuf.Timestamp at = 2; }"#,
    ))
    .with("money.proto", Schema::protobuf(r#"syntax = "proto3"; message Money { int64 cents = 1; }"#));
    let proto = ProtobufSchema::parse(&proto).unwrap();
    let value = json!({"total": {"cents": "700"}, "at": "2026-01-02T03:04:05Z"});
    assert_eq!(proto.decode_json("Order", &proto.encode_json("Order", &value).unwrap()).unwrap(), value);
}

#[test]
fn avro_has_unions_maps_enums_and_logical_types() {
    let text = r#"{"type": "record", "name": "All", "fields": [
        {"name": "maybe", "type": ["null", "long"]},
        {"name": "tags", "type": {"type": "map", "values": "int"}},
        {"name": "lines", "type": {"type": "array", "items": {"type": "record", "name": "Line", "fields": [{"name": "sku", "type": "string"}]}}},
        {"name": "state", "type": {"type": "enum", "name": "State", "symbols": ["Open", "Paid"]}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "raw", "type": "bytes"}
    ]}"#;
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum State {
        Open,
        Paid,
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Line {
        sku: String,
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct All {
        maybe: Option<i64>,
        tags: std::collections::BTreeMap<String, i32>,
        lines: Vec<Line>,
        state: State,
        at: i64,
        #[serde(with = "ailurus_schema::codec::avro_bytes")]
        raw: Vec<u8>,
    }
    let schema = AvroSchema::parse(&avro(text).into()).unwrap();
    for maybe in [None, Some(-5)] {
        let all = All {
            maybe,
            tags: [("a".into(), 1), ("b".into(), 2)].into(),
            lines: vec![Line { sku: "s".into() }],
            state: State::Paid,
            at: 1_700_000_000_000,
            raw: vec![1, 2],
        };
        assert_eq!(schema.decode::<All>(&schema.encode(&all).unwrap()).unwrap(), all);
    }
}

#[test]
fn invalid_schemas_are_named() {
    let registry = SchemaRegistry::new("http://localhost:1").unwrap();
    let failed = AvroCodec::new(&registry, Schema::json("{}")).unwrap_err();
    assert!(failed.to_string().contains("the schema is JSON, and the codec's are AVRO"), "{failed}");
    for bad in [
        AvroCodec::new(&registry, avro("{")).unwrap_err(),
        AvroCodec::new(&registry, avro(r#"{"type": "record", "name": "A", "fields": [{"name": "b", "type": "B"}]}"#))
            .unwrap_err(),
        JsonSchemaCodec::new(&registry, Schema::json(r#"{"type": "nothing"}"#)).unwrap_err(),
        JsonSchemaCodec::new(&registry, Schema::json(r#"{"$ref": "https://example.com/a.json"}"#)).unwrap_err(),
        ProtobufCodec::new(&registry, Schema::protobuf("message {")).unwrap_err(),
        ProtobufCodec::new(&registry, Schema::protobuf(r#"syntax = "proto3"; import "/etc/passwd";"#)).unwrap_err(),
    ] {
        assert_eq!(bad.kind(), SchemaErrorKind::InvalidSchema, "{bad}");
    }
}
