#![allow(clippy::unwrap_used)]

use std::fs;

use ailurus_broker::{Broker, BrokerConfig};

use super::*;
use crate::error::ErrorKind;

fn vars(pairs: &'static [(&'static str, &'static str)]) -> impl Fn(&str) -> Option<String> {
    |name| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned())
}

fn environment(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn defaults_are_the_documented_ones() {
    let c = ConfigBuilder::from_vars(|_| None).build().unwrap();
    assert_eq!(c, Config::default());
    assert_eq!(c.brokers[0].to_string(), "localhost:9092");
    assert_eq!(c.consumer.session_timeout, Duration::from_secs(30));
    assert_eq!(c.consumer.rebalance_timeout, Duration::from_secs(60));
    assert_eq!(c.consumer.heartbeat_interval, Duration::from_secs(3));
    assert!(c.allow_auto_topic_creation);
}

#[test]
fn variables_set_what_they_name() {
    let c = ConfigBuilder::from_vars(vars(&[
        ("REDPANDA_BROKERS", " a:1, [::1]:2 ,c"),
        ("REDPANDA_SESSION_TIMEOUT", "9000"),
        ("REDPANDA_ALLOW_AUTO_TOPIC_CREATION", "False"),
        ("REDPANDA_COMPRESSION", "gzip"),
        ("REDPANDA_COMPRESSION_LEVEL", "9"),
        ("REDPANDA_AUTO_OFFSET_RESET", "latest"),
        ("REDPANDA_ISOLATION_LEVEL", "read_committed"),
        ("REDPANDA_GROUP_PROTOCOL", "auto"),
        ("REDPANDA_GROUP_REMOTE_ASSIGNOR", "range"),
        ("REDPANDA_AUTO_COMMIT_INTERVAL", "5000"),
    ]))
    .build()
    .unwrap();
    let brokers: Vec<_> = c.brokers.iter().map(ToString::to_string).collect();
    assert_eq!(brokers, ["a:1", "[::1]:2", "c:9092"]);
    assert_eq!(c.consumer.session_timeout, Duration::from_secs(9));
    assert!(!c.allow_auto_topic_creation);
    assert_eq!(c.producer.compression, Compression::Gzip { level: 9 });
    assert_eq!(c.consumer.offset_reset, OffsetReset::Latest);
    assert_eq!(c.consumer.group_protocol, GroupProtocol::Auto);
    assert_eq!(c.consumer.group_remote_assignor.as_deref(), Some("range"));
    let unset = ConfigBuilder::from_vars(vars(&[("REDPANDA_GROUP_REMOTE_ASSIGNOR", "")])).build().unwrap();
    assert_eq!(unset, Config::default());
    assert_eq!(c.consumer.auto_commit_interval, Some(Duration::from_secs(5)));
    let e = ConfigBuilder::from_vars(vars(&[("REDPANDA_AUTO_COMMIT_INTERVAL", "3600001")])).build().unwrap_err();
    assert!(e.to_string().contains("auto commit interval (REDPANDA_AUTO_COMMIT_INTERVAL) is 3600.001s"), "{e}");
}

#[test]
fn compression_by_name_and_by_topic() {
    let of = |pairs| ConfigBuilder::from_vars(vars(pairs)).build().unwrap().producer.compression;
    assert_eq!(of(&[("REDPANDA_COMPRESSION", "gzip")]), Compression::gzip(Compression::DEFAULT_GZIP_LEVEL).unwrap());
    assert_eq!(of(&[("REDPANDA_COMPRESSION", "none")]), Compression::None);
    assert_eq!(of(&[("REDPANDA_COMPRESSION", "snappy")]), Compression::Snappy);
    assert_eq!(of(&[("REDPANDA_COMPRESSION", "lz4")]), Compression::Lz4);
    assert_eq!(of(&[("REDPANDA_COMPRESSION", "zstd"), ("REDPANDA_COMPRESSION_LEVEL", "4")]), Compression::Zstd);

    let c =
        Config::builder().topic_compression("events", Compression::Zstd).topic_compression("images", Compression::None);
    assert_eq!(c.build().unwrap().producer.topic_compression["events"], Compression::Zstd);
    let e =
        Config::builder().topic_compression("events", Compression::Gzip { level: 0 }).build().unwrap_err().to_string();
    assert!(e.contains("compression of topic \"events\": gzip level 0 is not allowed"), "{e}");
}

#[test]
fn partitioners_by_name_and_of_one_s_own() {
    let of = |pairs| ConfigBuilder::from_vars(vars(pairs)).build().unwrap().producer;
    assert_eq!(of(&[]).partitioner, PartitionerKind::Murmur2);
    assert_eq!(of(&[("REDPANDA_PARTITIONER", "murmur2")]).partitioner, PartitionerKind::Murmur2);
    assert_eq!(of(&[("REDPANDA_PARTITIONER", "consistent_random")]).partitioner, PartitionerKind::ConsistentRandom);
    assert_eq!(of(&[("REDPANDA_PARTITIONER", "round_robin")]).partitioner, PartitionerKind::RoundRobin);
    assert!(!of(&[("REDPANDA_ADAPTIVE_PARTITIONING", "false")]).adaptive_partitioning);
    let timeout = of(&[("REDPANDA_PARTITION_AVAILABILITY_TIMEOUT", "1500")]).partition_availability_timeout;
    assert_eq!(timeout, Duration::from_millis(1500));

    #[derive(Debug)]
    struct First;
    impl crate::producer::Partitioner for First {
        fn partition(&self, _: &crate::producer::PartitionInput<'_>) -> Option<i32> {
            Some(0)
        }
    }
    let own = PartitionerKind::custom(First);
    assert_eq!(own, own.clone());
    assert_ne!(own, PartitionerKind::custom(First));
    assert_ne!(own, PartitionerKind::Murmur2);
    let config = Config::builder().partitioner(own.clone()).build().unwrap();
    assert_eq!(config.producer.partitioner, own);
}

#[test]
fn invalid_variables_are_named_with_what_is_allowed() {
    let e = ConfigBuilder::from_vars(vars(&[
        ("REDPANDA_BROKERS", "host:port"),
        ("REDPANDA_SESSION_TIMEOUT", "30s"),
        ("REDPANDA_HEARTBEAT_INTERVAL", "20000"),
        ("REDPANDA_COMPRESSION", "brotli"),
        ("REDPANDA_GROUP_PROTOCOL", "new"),
        ("REDPANDA_GROUP_INSTANCE_ID", "a\tb"),
        ("REDPANDA_COMPRESSION_LEVEL", "0"),
        ("REDPANDA_PARTITIONER", "random"),
        ("REDPANDA_PARTITION_AVAILABILITY_TIMEOUT", "3600001"),
    ]))
    .build()
    .unwrap_err()
    .to_string();
    for part in [
        "9 invalid settings",
        "REDPANDA_BROKERS is \"host:port\"",
        "REDPANDA_SESSION_TIMEOUT is \"30s\": allowed is a whole number of milliseconds",
        "heartbeat interval (REDPANDA_HEARTBEAT_INTERVAL) is 20s: allowed is at most a third of session timeout (REDPANDA_SESSION_TIMEOUT), which is 30s",
        "REDPANDA_GROUP_PROTOCOL is \"new\": allowed is classic, consumer or auto",
        "group instance id (REDPANDA_GROUP_INSTANCE_ID) is",
        "REDPANDA_COMPRESSION is \"brotli\": allowed is none, gzip, snappy, lz4 or zstd",
        "REDPANDA_COMPRESSION_LEVEL is \"0\": allowed is 1 (fast) to 9 (small)",
        "REDPANDA_PARTITIONER is \"random\": allowed is murmur2, consistent_random or round_robin",
        "partition availability timeout (REDPANDA_PARTITION_AVAILABILITY_TIMEOUT) is 3600.001s: allowed is 0ns to 3600s",
    ] {
        assert!(e.contains(part), "{part:?} is not in {e}");
    }
}

#[test]
fn a_rebalance_is_longer_than_a_heartbeat() {
    let second = Duration::from_secs(1);
    let built = Config::builder().heartbeat_interval(second).rebalance_timeout(second).build();
    assert!(built.unwrap_err().to_string().contains("ConsumerConfig::rebalance_timeout is 1s"));
}

#[test]
fn the_environment_wins_over_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(".env");
    let text = "# shop\nREDPANDA_CLIENT_ID=from-file\nREDPANDA_CONSUMER_GROUP_ID=\"g 1\"\nREDPANDA_LINGER=5\n";
    fs::write(&file, text).unwrap();
    let c = env::read(&file, environment(&[("REDPANDA_CLIENT_ID", "from-env"), ("REDPANDA_LINGER", "")]))
        .unwrap()
        .build()
        .unwrap();
    assert_eq!((c.client_id.as_str(), c.group_id.as_str()), ("from-env", "g 1"));
    assert_eq!(c.producer.linger, Duration::from_millis(5), "an empty variable hides nothing");
    let missing = env::read(&dir.path().join("none"), []).unwrap().build().unwrap();
    assert_eq!(missing, Config::default());
}

#[test]
fn a_parse_error_does_not_quote_the_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(".env");
    fs::write(&file, "# a comment\nREDPANDA_LINGER=5\n\nREDPANDA_SASL_PASSWORD='hunter2\n").unwrap();
    let e = env::read(&file, []).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Config);
    assert!(
        e.to_string().contains(".env: line 4: the value of REDPANDA_SASL_PASSWORD has no closing quote on its line"),
        "{e}"
    );
    assert!(!e.full().contains("hunter2"));
}

#[test]
fn a_file_of_other_tools_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(".env");
    fs::write(&file, "\u{feff}APP_NAME=My Shop\r\nREDPANDA_CLIENT_ID=ab$cd\r\n").unwrap();
    assert_eq!(env::read(&file, []).unwrap().build().unwrap().client_id, "ab$cd");
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    assert_eq!(env::read(&file, []).unwrap().build().unwrap(), Config::default());
}

#[test]
fn an_empty_variable_is_not_set() {
    for empty in ["", "  "] {
        let builder = ConfigBuilder::from_vars(|_| Some(empty.to_owned()));
        assert!(!env::rows().any(|row| builder.has_variable(row.variable)));
        assert_eq!(builder.build().unwrap(), Config::default());
    }
}

#[test]
fn lists_of_names_and_of_topics_are_checked() {
    let e = ConfigBuilder::from_vars(vars(&[
        ("REDPANDA_ASSIGNORS", "range,best"),
        ("REDPANDA_TOPIC_COMPRESSION", "orders=gzip:10"),
        ("REDPANDA_MAX_REQUEST_SIZE", "1000"),
    ]))
    .build()
    .unwrap_err()
    .to_string();
    for part in [
        "REDPANDA_ASSIGNORS is \"range,best\": allowed are range, roundrobin,",
        "REDPANDA_TOPIC_COMPRESSION is \"orders=gzip:10\": allowed is TOPIC=CODEC",
        "max request size (REDPANDA_MAX_REQUEST_SIZE) is 1000 bytes: allowed is 1024 to 104857600",
    ] {
        assert!(e.contains(part), "{part:?} is not in {e}");
    }
}

#[test]
fn addresses() {
    for bad in ["", ":9092", "a:", "a:0", "a:65536", "[::1", "[x]:1", "a b:1", "http://a:1", "::1"] {
        assert!(bad.parse::<BrokerAddr>().is_err(), "{bad:?}");
    }
    assert_eq!("[fe80::1]".parse::<BrokerAddr>().unwrap().to_string(), "[fe80::1]:9092");
}

#[test]
fn the_retention_of_dead_letters_is_a_time_or_for_good() {
    let of = |value: &str| {
        let built =
            ConfigBuilder::from_vars(|name| (name == "REDPANDA_DEAD_LETTER_RETENTION").then(|| value.to_owned()))
                .build();
        built.map(|c| c.processor.dead_letter_retention).map_err(|e| e.to_string())
    };
    for (value, hours) in
        [("forever", None), ("none", None), ("30d", Some(720)), ("12h", Some(12)), ("3600000", Some(1))]
    {
        assert_eq!(of(value), Ok(hours.map(|h| Duration::from_secs(h * 3600))), "{value}");
    }
    assert_eq!((of("90m"), of("60s")), (Ok(Some(Duration::from_secs(5400))), Ok(Some(Duration::from_secs(60)))));
    for bad in ["-1", "d", "1w", "1.5d", "99999999999999999999d", "300000000000000000d", "59s"] {
        let error = of(bad).unwrap_err();
        assert!(error.contains("REDPANDA_DEAD_LETTER_RETENTION") && error.contains("allowed is"), "{error}");
    }
}

#[test]
fn delayed_retries_are_ascending_times() {
    let of = |value: &str| {
        let built = ConfigBuilder::from_vars(|name| (name == "REDPANDA_DELAYED_RETRIES").then(|| value.to_owned()));
        built.build().map(|c| c.processor.delayed_retries).map_err(|e| e.to_string())
    };
    let secs = |all: &[u64]| Ok(all.iter().map(|s| Duration::from_secs(*s)).collect::<Vec<_>>());
    assert_eq!(of("30s, 10m,1h"), secs(&[30, 600, 3600]));
    assert_eq!((of("none"), of("5000")), (secs(&[]), secs(&[5])));
    for bad in ["10m,1m", "1m,1m", "1m,60s", "0", "31d", "1w", "1m,", "1s,2s,3s,4s,5s,6s,7s,8s,9s,10s,11s"] {
        let error = of(bad).unwrap_err();
        assert!(error.contains("REDPANDA_DELAYED_RETRIES") && error.contains("allowed are"), "{error}");
    }
    let unnamed = Config::builder().delayed_retries([Duration::from_micros(1500)]).build();
    assert!(unnamed.is_err(), "its topic would have the name of another");
}

#[test]
fn huge_durations_are_problems_and_do_not_overflow() {
    let max = Duration::MAX;
    let e = Config::builder()
        .linger(max)
        .request_timeout(max)
        .delivery_timeout(max)
        .heartbeat_interval(max)
        .session_timeout(max)
        .retry_backoff(max)
        .build()
        .unwrap_err()
        .to_string();
    for setting in [
        "ProducerConfig::linger",
        "Config::request_timeout",
        "ProducerConfig::delivery_timeout",
        "ConsumerConfig::heartbeat_interval",
        "ConsumerConfig::session_timeout",
    ] {
        assert!(e.contains(&format!("{setting} is ")), "{setting} is not in {e}");
    }
}

#[tokio::test]
async fn settings_changed_after_they_were_built_are_checked_too() {
    let config = Config { connect_timeout: Duration::MAX, request_timeout: Duration::MAX, ..Config::default() };
    let e = crate::Client::connect(config).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Config, "{e}");
}

#[tokio::test]
async fn each_builder_replaces_and_checks_its_settings() {
    let broker = Broker::start(BrokerConfig::default()).await.unwrap();
    broker.create_topic("t", 1).unwrap();
    let client = crate::Client::connect(Config::builder().brokers(broker.bootstrap()).build().unwrap()).await.unwrap();
    let handle = |_: crate::Message| async {};
    let start = [(crate::TopicPartition::new("t", 0), crate::StartOffset::Earliest)];
    let producer = ProducerConfig::default().batch_size(1).linger(Duration::from_millis(7));
    let consumer = ConsumerConfig::default().prefetch_bytes(1);
    let processor = ProcessorConfig::default().concurrency(0_usize);
    for (field, error) in [
        ("ProducerConfig::batch_size", client.producer().config(producer.clone()).start().unwrap_err()),
        (
            "ProducerConfig::batch_size",
            client.transactional_producer("t").config(producer.clone()).start().await.unwrap_err().into(),
        ),
        (
            "ConsumerConfig::prefetch_bytes",
            client.consumer("g").config(consumer.clone()).subscribe(["t"]).await.unwrap_err(),
        ),
        ("ConsumerConfig::prefetch_bytes", client.reader().config(consumer.clone()).assign(start).await.unwrap_err()),
        (
            "ConsumerConfig::prefetch_bytes",
            client.processor("g").consumer_config(consumer).subscribe(["t"], handle).await.unwrap_err(),
        ),
        (
            "ProcessorConfig::concurrency",
            client.processor("g").config(processor).subscribe(["t"], handle).await.unwrap_err(),
        ),
    ] {
        assert!(error.kind() == ErrorKind::Config && format!("{error:#}").contains(field), "{field}: {error:#}");
    }
    // A later setter overrides.
    client.producer().config(producer).batch_size(table::KIB).start().unwrap();
    client.close().await;
}

#[test]
fn the_security_protocol_has_kafka_s_names() {
    use SecurityProtocol::{Plaintext, SaslPlaintext, SaslSsl, Ssl};
    for protocol in [Plaintext, Ssl, SaslPlaintext, SaslSsl] {
        assert_eq!(protocol.to_string().parse::<SecurityProtocol>().unwrap(), protocol);
    }
    assert_eq!("sasl_ssl".parse::<SecurityProtocol>().unwrap(), SaslSsl);
    let e = ConfigBuilder::from_vars(vars(&[("REDPANDA_SECURITY_PROTOCOL", "TLS")])).build().unwrap_err().to_string();
    let what = "REDPANDA_SECURITY_PROTOCOL is \"TLS\": allowed is PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL";
    assert!(e.contains(what), "{e}");
}

#[cfg(not(any(feature = "tls", feature = "tls-ring")))]
#[test]
fn tls_that_is_not_built_in_is_refused() {
    let e = Config::builder().security_protocol(SecurityProtocol::Ssl).build().unwrap_err().to_string();
    let what = "Config::security_protocol is SSL: TLS is not built in: build the library with its feature tls";
    assert!(e.contains(what), "{e}");
}

#[test]
fn tls_settings_without_tls_are_refused() {
    let e = ConfigBuilder::from_vars(vars(&[
        ("REDPANDA_TLS_CA_FILE", "ca.pem"),
        ("REDPANDA_TLS_CERT_FILE", "client.pem"),
        ("REDPANDA_TLS_SERVER_NAME", ""),
    ]))
    .build()
    .unwrap_err()
    .to_string();
    for part in [
        "3 invalid settings",
        "tls ca file (REDPANDA_TLS_CA_FILE) is set, but security protocol (REDPANDA_SECURITY_PROTOCOL) is PLAINTEXT: it needs SSL or SASL_SSL",
        "tls cert file (REDPANDA_TLS_CERT_FILE) is set, but",
        "of tls cert file (REDPANDA_TLS_CERT_FILE) and tls key file (REDPANDA_TLS_KEY_FILE) one is set: a client certificate needs both",
    ] {
        assert!(e.contains(part), "{part:?} is not in {e}");
    }
}

#[test]
fn a_login_by_variables() {
    let of = |pairs: &[(&str, &str)]| {
        let pairs: Vec<_> = pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let read = move |name: &str| pairs.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
        ConfigBuilder::from_vars(read).build()
    };
    let user = [("REDPANDA_SASL_USERNAME", "alice"), ("REDPANDA_SASL_PASSWORD", "pass word ")];
    for (mechanism, expected) in [
        ("PLAIN", SaslConfig::plain("alice", "pass word ")),
        ("SCRAM-SHA-256", SaslConfig::scram_sha_256("alice", "pass word ")),
        ("scram-sha-512", SaslConfig::scram_sha_512("alice", "pass word ")),
    ] {
        let pairs = [("REDPANDA_SECURITY_PROTOCOL", "SASL_PLAINTEXT"), ("REDPANDA_SASL_ALLOW_CLEARTEXT", "true")];
        let c = of(&[&pairs[..], &user, &[("REDPANDA_SASL_MECHANISM", mechanism)]].concat()).unwrap();
        assert_eq!(c.sasl, Some(expected.allow_cleartext(true)));
        assert!(!format!("{c:?}").contains("pass word"), "{c:?}");
    }

    let bearer = |more: &[(&str, &str)]| {
        let pairs = [
            ("REDPANDA_SECURITY_PROTOCOL", "SASL_PLAINTEXT"),
            ("REDPANDA_SASL_ALLOW_CLEARTEXT", "true"),
            ("REDPANDA_SASL_MECHANISM", "OAUTHBEARER"),
        ];
        of(&[&pairs[..], more].concat()).map(|c| c.sasl.unwrap().mechanism)
    };
    let by_file = bearer(&[
        ("REDPANDA_SASL_OAUTH_TOKEN_FILE", "/run/token"),
        ("REDPANDA_SASL_OAUTH_EXTENSIONS", "logicalCluster=lkc-1, identityPoolId=a=b"),
    ]);
    let extensions = [("logicalCluster", "lkc-1"), ("identityPoolId", "a=b")];
    let tokens = TokenSource::File("/run/token".into());
    let extensions = extensions.map(|(n, v)| (n.to_owned(), v.to_owned())).to_vec();
    assert_eq!(by_file.unwrap(), SaslMechanism::OAuthBearer(OAuthBearer { tokens, extensions }));
}

#[test]
fn a_token_endpoint_needs_a_provider() {
    let builder = || {
        ConfigBuilder::from_vars(vars(&[
            ("REDPANDA_SECURITY_PROTOCOL", "SASL_PLAINTEXT"),
            ("REDPANDA_SASL_ALLOW_CLEARTEXT", "true"),
            ("REDPANDA_SASL_MECHANISM", "OAUTHBEARER"),
            ("REDPANDA_SASL_OAUTH_TOKEN_ENDPOINT", "https://id/token"),
            ("REDPANDA_SASL_OAUTH_CLIENT_ID", "shop"),
            ("REDPANDA_SASL_OAUTH_CLIENT_SECRET", "hunter2"),
            ("REDPANDA_SASL_OAUTH_SCOPE", "kafka"),
        ]))
    };
    let mut client = ClientCredentials::new("https://id/token", "shop", "hunter2");
    client.scope = Some("kafka".into());
    let e = builder().build().unwrap_err().to_string();
    assert!(e.contains("does not fetch tokens") && !e.contains("hunter2"), "{e}");
    let tokens = TokenSource::File("t".into());
    let resolved = builder().token_endpoint(|found| {
        assert_eq!(*found, client);
        Ok(tokens.clone())
    });
    let sasl = resolved.build().unwrap().sasl.unwrap();
    assert_eq!(sasl.mechanism, SaslMechanism::OAuthBearer(OAuthBearer::new(tokens)));
    assert!(!format!("{:?}", builder()).contains("hunter2"));
}

#[test]
fn login_errors_name_settings_and_no_secret() {
    let of = |pairs: &'static [(&'static str, &'static str)]| {
        ConfigBuilder::from_vars(vars(pairs)).build().unwrap_err().to_string()
    };
    const SASL: (&str, &str) = ("REDPANDA_SECURITY_PROTOCOL", "SASL_PLAINTEXT");
    const PASSWORD: (&str, &str) = ("REDPANDA_SASL_PASSWORD", "hunter2");
    for (e, why) in [
        (
            of(&[SASL]),
            "security protocol (REDPANDA_SECURITY_PROTOCOL) is SASL_PLAINTEXT, but sasl mechanism (REDPANDA_SASL_MECHANISM) is not set",
        ),
        (of(&[SASL, PASSWORD]), "REDPANDA_SASL_PASSWORD is set, but it needs REDPANDA_SASL_MECHANISM"),
        (
            of(&[SASL, ("REDPANDA_SASL_MECHANISM", "GSSAPI")]),
            "REDPANDA_SASL_MECHANISM is \"GSSAPI\": allowed is PLAIN, SCRAM-SHA-256",
        ),
        (of(&[SASL, PASSWORD, ("REDPANDA_SASL_MECHANISM", "SCRAM-SHA-256")]), "REDPANDA_SASL_USERNAME is not set"),
        (
            of(&[PASSWORD, ("REDPANDA_SASL_MECHANISM", "SCRAM-SHA-256"), ("REDPANDA_SASL_USERNAME", "alice")]),
            "sasl mechanism (REDPANDA_SASL_MECHANISM) is SCRAM-SHA-256, but security protocol (REDPANDA_SECURITY_PROTOCOL) is PLAINTEXT: it needs SASL_SSL",
        ),
        (
            of(&[SASL, PASSWORD, ("REDPANDA_SASL_MECHANISM", "PLAIN"), ("REDPANDA_SASL_USERNAME", "alice")]),
            "anyone on the way could read the password; use SASL_SSL or a SCRAM mechanism, or allow it by sasl allow cleartext (REDPANDA_SASL_ALLOW_CLEARTEXT)",
        ),
        (of(&[SASL, ("REDPANDA_SASL_MECHANISM", "OAUTHBEARER")]), "REDPANDA_SASL_OAUTH_TOKEN_FILE is not set"),
        (
            of(&[SASL, ("REDPANDA_SASL_MECHANISM", "OAUTHBEARER"), ("REDPANDA_SASL_OAUTH_TOKEN_FILE", "t")]),
            "anyone on the way could read the token",
        ),
        (
            of(&[SASL, PASSWORD, ("REDPANDA_SASL_MECHANISM", "OAUTHBEARER"), ("REDPANDA_SASL_OAUTH_TOKEN_FILE", "t")]),
            "REDPANDA_SASL_PASSWORD is set, but OAUTHBEARER has tokens",
        ),
        (
            of(&[SASL, ("REDPANDA_SASL_MECHANISM", "OAUTHBEARER"), ("REDPANDA_SASL_OAUTH_TOKEN_ENDPOINT", "http://x")]),
            "REDPANDA_SASL_OAUTH_CLIENT_SECRET is not set",
        ),
        (
            of(&[
                SASL,
                ("REDPANDA_SASL_MECHANISM", "OAUTHBEARER"),
                ("REDPANDA_SASL_OAUTH_TOKEN_FILE", "t"),
                ("REDPANDA_SASL_OAUTH_EXTENSIONS", "auth=x"),
            ]),
            "sasl oauth extensions (REDPANDA_SASL_OAUTH_EXTENSIONS) has \"auth\"",
        ),
    ] {
        assert!(e.contains(why) && !e.contains("hunter2"), "{why:?} is not in {e}");
    }
}
