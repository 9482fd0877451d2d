//! Access control lists.

use ailurus::admin::{Acl, AclFilter, AclOperation, PatternKind, ResourceKind};
use ailurus::{Admin, Client, ErrorKind};

use crate::support;

#[tokio::test]
async fn access_control_lists_are_created_filtered_and_deleted() {
    let broker = support::broker().await;
    let client = Client::connect(broker.config().build().unwrap()).await.unwrap();
    let admin = Admin::new(&client);
    let topic = broker.topic("orders");
    let read = Acl::allow("User:alice", AclOperation::Read, ResourceKind::Topic, &topic);
    let all = Acl::allow("User:bob", AclOperation::All, ResourceKind::Topic, broker.prefix()).prefixed();
    let deny = Acl::deny("User:eve", AclOperation::Write, ResourceKind::Topic, &topic).from_host("10.0.0.1");
    let mut created = vec![read.clone(), all.clone(), deny.clone()];
    match admin.create_acls(&created).await {
        Ok(()) => {}
        // Kafka without an authorizer rejects each of these requests.
        Err(e) => {
            assert!(broker.embedded().is_none(), "{e}");
            for e in [e, admin.list_acls(&AclFilter::default()).await.unwrap_err()] {
                assert_eq!(e.kind(), ErrorKind::Unsupported, "{e:#}");
                assert!(format!("{e:#}").contains("authorizer.class.name"), "{e:#}");
            }
            return client.close().await;
        }
    }
    admin.create_acls(&created).await.unwrap(); // what is there is no error

    let topics = AclFilter::default().resource(ResourceKind::Topic);
    let covering = topics.clone().covering(&topic);
    created.sort();
    assert_eq!(soon(&admin, &covering, 3).await, created);
    assert_eq!(admin.list_acls(&covering.clone().principal("User:bob")).await.unwrap(), std::slice::from_ref(&all));
    assert_eq!(
        admin.list_acls(&topics.clone().name(&topic).host("10.0.0.1")).await.unwrap(),
        std::slice::from_ref(&deny)
    );
    let prefixed = topics.clone().name(broker.prefix()).pattern(PatternKind::Prefixed);
    assert_eq!(admin.list_acls(&prefixed).await.unwrap(), [all]);
    assert_eq!(admin.list_acls(&covering.clone().operation(AclOperation::Delete)).await.unwrap(), []);

    let of_alice = topics.clone().name(&topic).principal("User:alice");
    assert_eq!(admin.delete_acls(&of_alice).await.unwrap(), [read]);
    assert_eq!(admin.delete_acls(&of_alice).await.unwrap(), []);
    assert_eq!(admin.delete_acls(&covering).await.unwrap().len(), 2);
    assert_eq!(soon(&admin, &covering, 0).await, []);
    client.close().await;
}

/// A cluster agrees to a change a moment before each of its brokers knows it.
async fn soon(admin: &Admin, filter: &AclFilter, count: usize) -> Vec<Acl> {
    let mut found = Vec::new();
    for _ in 0..10_000 {
        found = admin.list_acls(filter).await.unwrap();
        if found.len() == count {
            break;
        }
    }
    found
}

#[tokio::test]
async fn an_invalid_access_control_list_is_rejected() {
    let Some(broker) = support::embedded(|config| config).await else { return };
    let client = Client::connect(broker.config().build().unwrap()).await.unwrap();
    let acl = Acl::allow("alice", AclOperation::Read, ResourceKind::Topic, "orders");
    let e = Admin::new(&client).create_acls(&[acl]).await.unwrap_err();
    assert_eq!(e.broker_code(), Some(42), "{e}");
    assert!(e.to_string().contains("\"allow alice from * to read topic orders\" (Could not parse principal"), "{e}");
    client.close().await;
}
