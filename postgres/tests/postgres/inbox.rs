//! Claims: what is a duplicate, what a rollback leaves, who waits for whom, who is fenced.

use std::time::Duration;

use ailurus::processor::BoxError;
use ailurus::store::Claim;
use ailurus::{ErrorKind, Headers, Message, ProducerRecord};
use ailurus_postgres::{Inbox, migrate};
use tokio_postgres::{Client, Transaction};

use super::{Cluster, server};
use Claim::{Duplicate, First};

/// Number of rows that [`add_effect`] has written.
async fn effects(client: &Client) -> i64 {
    client.query_one("SELECT count(*) FROM effects", &[]).await.unwrap().get(0)
}

async fn add_effect(transaction: &Transaction<'_>) -> Result<(), tokio_postgres::Error> {
    transaction.execute("INSERT INTO effects DEFAULT VALUES", &[]).await.map(drop)
}

async fn with_effects(database: &server::Database) -> Client {
    let client = database.migrated().await;
    client.batch_execute("CREATE TABLE effects (id bigserial)").await.unwrap();
    client
}

/// Claims messages one by one, each in a transaction of its own.
async fn claims(inbox: &Inbox, client: &mut Client, messages: &[Message]) -> Vec<Claim> {
    let mut claims = Vec::new();
    for message in messages {
        let transaction = client.transaction().await.unwrap();
        claims.push(inbox.claim(&transaction, message).await.unwrap());
        transaction.commit().await.unwrap();
    }
    claims
}

fn event(id: &str) -> Headers {
    Headers::new().with("ce_id", id).with("ce_source", "shop")
}

#[tokio::test]
async fn an_event_is_claimed_once_by_each_consumer() {
    let Some(database) = server::database().await else { return };
    let (mut client, cluster) = (with_effects(&database).await, Cluster::start().await);
    let topic = cluster.topic("orders").await;
    let (a, b) = (event("a"), event("b"));
    let other_source = Headers::new().with("ce_id", "a").with("ce_source", "stock");
    let records = [&a, &b, &a, &other_source].map(|headers| ProducerRecord::to(&topic).headers(headers));
    let plain = ProducerRecord::to(&topic).value("no id");
    let messages = cluster.messages(&topic, "g", &[&records[..], &[plain.clone(), plain]].concat()).await;

    let by_id = Inbox::by_event_id("billing");
    assert_eq!(claims(&by_id, &mut client, &messages).await, [First, First, Duplicate, First, First, First]);
    assert_eq!(claims(&by_id, &mut client, &messages).await, [Duplicate; 6]);
    let other = Inbox::by_event_id("ledger");
    let transaction = client.transaction().await.unwrap();
    let batch = other.claim_all(&transaction, &messages).await.unwrap();
    assert_eq!(batch, [First, First, Duplicate, First, First, First], "as one by one");
    transaction.rollback().await.unwrap();
    assert_eq!(claims(&other, &mut client, &messages).await, batch, "the rollback took the claims back");

    let by_position = Inbox::by_position("audit");
    assert_eq!(claims(&by_position, &mut client, &messages).await, [First; 6], "each record is an event");
    assert_eq!(claims(&by_position, &mut client, &messages).await, [Duplicate; 6]);
}

#[tokio::test]
async fn in_order_a_partition_has_one_row() {
    let Some(database) = server::database().await else { return };
    let (mut client, cluster) = (database.migrated().await, Cluster::start().await);
    let topic = cluster.topic("orders").await;
    let messages = cluster.messages(&topic, "g", &vec![ProducerRecord::to(&topic).value("v"); 5]).await;
    let inbox = Inbox::in_order("billing");
    let partition = ailurus::TopicPartition::new(&*topic, 0);
    assert_eq!(inbox.next_offsets(&client, std::slice::from_ref(&partition)).await.unwrap(), []);

    assert_eq!(claims(&inbox, &mut client, &messages[..2]).await, [First; 2]);
    assert_eq!(inbox.next_offsets(&client, std::slice::from_ref(&partition)).await.unwrap(), [(partition.clone(), 2)]);
    let transaction = client.transaction().await.unwrap();
    let batch = inbox.claim_all(&transaction, &messages[1..4]).await.unwrap();
    assert_eq!(batch, [Duplicate, First, First]);
    transaction.commit().await.unwrap();
    assert_eq!(claims(&inbox, &mut client, &messages).await, [Duplicate, Duplicate, Duplicate, Duplicate, First]);
    let rows: i64 = client.query_one("SELECT count(*) FROM ailurus_inbox_partitions", &[]).await.unwrap().get(0);
    let events: i64 = client.query_one("SELECT count(*) FROM ailurus_inbox", &[]).await.unwrap().get(0);
    assert_eq!((rows, events), (1, 0));
}

#[tokio::test]
async fn apply_commits_claim_and_effect_together_or_neither() {
    let Some(database) = server::database().await else { return };
    let (mut client, cluster) = (with_effects(&database).await, Cluster::start().await);
    let topic = cluster.topic("orders").await;
    let message = &cluster.messages(&topic, "g", &[ProducerRecord::to(&topic).value("v")]).await[0];
    for inbox in [Inbox::by_event_id("a"), Inbox::by_position("b").fenced(), Inbox::in_order("c")] {
        let before = effects(&client).await;
        let fail = async |transaction: &Transaction<'_>| {
            add_effect(transaction).await?;
            Err::<(), BoxError>("no".into())
        };
        assert_eq!(inbox.apply(&mut client, message, fail).await.unwrap_err().to_string(), "no");
        assert_eq!(effects(&client).await, before);
        assert_eq!(inbox.apply(&mut client, message, async |t| add_effect(t).await).await.unwrap(), Some(()));
        assert_eq!(inbox.apply(&mut client, message, async |t| add_effect(t).await).await.unwrap(), None);
        assert_eq!(effects(&client).await, before + 1);
    }
}

#[tokio::test]
async fn a_dropped_handler_leaves_nothing() {
    let Some(database) = server::database().await else { return };
    let (mut client, cluster) = (with_effects(&database).await, Cluster::start().await);
    let topic = cluster.topic("orders").await;
    let message = &cluster.messages(&topic, "g", &[ProducerRecord::to(&topic).value("v")]).await[0];
    let inbox = Inbox::by_event_id("billing");
    let (reached, at_effect) = tokio::sync::oneshot::channel();
    let hang = async |transaction: &Transaction<'_>| {
        add_effect(transaction).await?;
        reached.send(()).unwrap();
        std::future::pending::<Result<(), tokio_postgres::Error>>().await
    };
    tokio::select! {
        _ = inbox.apply(&mut client, message, hang) => unreachable!("it hangs"),
        _ = at_effect => {}
    }
    assert_eq!(effects(&client).await, 0);
    assert_eq!(claims(&inbox, &mut client, std::slice::from_ref(message)).await, [First]);
}

#[tokio::test]
async fn two_transactions_never_claim_the_same_event() {
    let Some(database) = server::database().await else { return };
    let (mut one, mut two, watcher) = (database.migrated().await, database.connect().await, database.connect().await);
    let cluster = Cluster::start().await;
    let topic = cluster.topic("orders").await;
    let message = &cluster.messages(&topic, "g", &[ProducerRecord::to(&topic).value("v")]).await[0];
    for inbox in [Inbox::by_event_id("a"), Inbox::in_order("b")] {
        for commits in [false, true] {
            let first = one.transaction().await.unwrap();
            assert_eq!(inbox.claim(&first, message).await.unwrap(), First);
            let second = two.transaction().await.unwrap();
            let ends = async {
                waits_for_a_lock(&watcher).await;
                if commits { first.commit().await.unwrap() } else { first.rollback().await.unwrap() }
            };
            let (claim, ()) = tokio::join!(inbox.claim(&second, message), ends);
            assert_eq!(claim.unwrap(), if commits { Duplicate } else { First });
            second.rollback().await.unwrap();
        }
    }
}

/// Waits until a statement waits for the lock of another transaction.
async fn waits_for_a_lock(watcher: &Client) {
    let select =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let waiting = async {
        while watcher.query_one(select, &[]).await.unwrap().get::<_, i64>(0) == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(super::PATIENCE, waiting).await.expect("a statement waits for a lock");
}

#[tokio::test]
async fn an_earlier_owner_is_fenced() {
    let Some(database) = server::database().await else { return };
    let (mut client, cluster) = (database.migrated().await, Cluster::start().await);
    let topic = cluster.topic("orders").await;
    let record = ProducerRecord::to(&topic).value("v");
    let old = cluster.messages(&topic, "g", &vec![record; 4]).await;
    let new = cluster.read_in_group(&topic, "g", 4).await;
    assert!(old[0].generation() < new[0].generation(), "{:?} {:?}", old[0].generation(), new[0].generation());

    for inbox in [Inbox::by_event_id("a").fenced(), Inbox::by_position("b").fenced(), Inbox::in_order("c")] {
        assert_eq!(claims(&inbox, &mut client, &old[..1]).await, [First]);
        assert_eq!(claims(&inbox, &mut client, &new[..2]).await, [Duplicate, First]);
        let transaction = client.transaction().await.unwrap();
        let error = inbox.claim(&transaction, &old[3]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::GroupMembership);
        assert!(error.to_string().contains("another member owns it now"), "{error}");
        transaction.rollback().await.unwrap();
        assert_eq!(claims(&inbox, &mut client, &new[2..]).await, [First; 2]);
    }
    let unfenced = Inbox::by_event_id("d");
    assert_eq!(claims(&unfenced, &mut client, &new[..1]).await, [First]);
    assert_eq!(claims(&unfenced, &mut client, &old[..2]).await, [Duplicate, First]);
}

#[tokio::test]
async fn the_claim_of_a_new_owner_waits_for_the_old_one() {
    let Some(database) = server::database().await else { return };
    let (mut one, mut two, watcher) = (database.migrated().await, database.connect().await, database.connect().await);
    let cluster = Cluster::start().await;
    let topic = cluster.topic("orders").await;
    let old = cluster.messages(&topic, "g", &vec![ProducerRecord::to(&topic).value("v"); 2]).await;
    let new = cluster.read_in_group(&topic, "g", 2).await;
    let inbox = Inbox::by_event_id("billing").fenced();
    assert_eq!(claims(&inbox, &mut one, &old[..1]).await, [First]);

    let late = one.transaction().await.unwrap();
    assert_eq!(inbox.claim(&late, &old[1]).await.unwrap(), First);
    let takes_over = two.transaction().await.unwrap();
    let commits = async {
        waits_for_a_lock(&watcher).await;
        late.commit().await.unwrap();
    };
    let (claim, ()) = tokio::join!(inbox.claim(&takes_over, &new[0]), commits);
    assert_eq!(claim.unwrap(), Duplicate);
    assert_eq!(inbox.claim(&takes_over, &new[1]).await.unwrap(), Duplicate);
}

#[tokio::test]
async fn ids_that_cannot_be_stored_are_errors_of_the_event() {
    let Some(database) = server::database().await else { return };
    let (mut client, cluster) = (database.migrated().await, Cluster::start().await);
    let topic = cluster.topic("orders").await;
    let headers = [event("a\0b"), event(&"x".repeat(3000)), Headers::new().with("ce_id", [0xff])];
    let records = headers.each_ref().map(|headers| ProducerRecord::to(&topic).headers(headers));
    for message in cluster.messages(&topic, "g", &records).await {
        let transaction = client.transaction().await.unwrap();
        let error = Inbox::by_event_id("billing").claim(&transaction, &message).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Event, "{error}");
        // No statement has failed: the application may go on.
        assert_eq!(Inbox::by_position("billing").claim(&transaction, &message).await.unwrap(), First);
    }
}

#[tokio::test]
async fn expired_events_are_deleted_in_steps() {
    let Some(database) = server::database().await else { return };
    let client = database.migrated().await;
    let insert = "INSERT INTO ailurus_inbox SELECT c, '', n, now() - n * interval '1 hour' \
                  FROM generate_series(0, 9) AS n, (VALUES ('billing'), ('ledger')) AS consumers (c)";
    client.execute(insert, &[]).await.unwrap();
    let inbox = Inbox::by_event_id("billing").retention(Duration::from_secs(5 * 3600 - 60));
    let mut deleted = Vec::new();
    for _ in 0..4 {
        deleted.push(inbox.delete_expired(&client, 2).await.unwrap());
    }
    assert_eq!(deleted, [2, 2, 1, 0]);
    let left: i64 = client.query_one("SELECT count(*) FROM ailurus_inbox", &[]).await.unwrap().get(0);
    assert_eq!(left, 15, "those of others are kept");
}

#[tokio::test]
async fn a_claim_in_a_serializable_transaction_is_safe_too() {
    let Some(database) = server::database().await else { return };
    let (mut one, mut two) = (database.migrated().await, database.connect().await);
    let cluster = Cluster::start().await;
    let topic = cluster.topic("orders").await;
    let message = &cluster.messages(&topic, "g", &[ProducerRecord::to(&topic).value("v")]).await[0];
    let serializable = tokio_postgres::IsolationLevel::Serializable;
    for inbox in [Inbox::by_event_id("a"), Inbox::in_order("b")] {
        let late = two.build_transaction().isolation_level(serializable).start().await.unwrap();
        late.query_one("SELECT count(*) FROM ailurus_inbox", &[]).await.unwrap(); // its snapshot
        assert_eq!(claims(&inbox, &mut one, std::slice::from_ref(message)).await, [First]);
        let claim = inbox.claim(&late, message).await;
        assert!(claim.as_ref().is_err_and(|e| e.kind() == ErrorKind::Io), "{claim:?}");
    }
}

#[tokio::test]
async fn migrations_may_run_at_the_same_time_and_again() {
    let Some(database) = server::database().await else { return };
    let clients = futures_util::future::join_all((0..8).map(|_| database.connect())).await;
    for result in futures_util::future::join_all(clients.iter().map(migrate)).await {
        result.unwrap();
    }
    migrate(&clients[0]).await.unwrap();
}

#[tokio::test]
async fn the_trait_claims_as_the_inbox_does() {
    async fn claim<I: ailurus::store::Inbox>(inbox: &I, transaction: &I::Transaction<'_>, message: &Message) -> Claim {
        inbox.claim(transaction, message).await.unwrap()
    }
    let Some(database) = server::database().await else { return };
    let (mut client, cluster) = (database.migrated().await, Cluster::start().await);
    let topic = cluster.topic("orders").await;
    let message = &cluster.messages(&topic, "g", &[ProducerRecord::to(&topic).value("v")]).await[0];
    let transaction = client.transaction().await.unwrap();
    let inbox = Inbox::by_event_id("billing");
    assert_eq!(claim(&inbox, &transaction, message).await, First);
    assert_eq!(claim(&inbox, &transaction, message).await, Duplicate);
}
