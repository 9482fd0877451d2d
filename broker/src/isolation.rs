//! Nodes and clients that the network does not reach.

use std::collections::BTreeSet;

use tokio::sync::watch;

/// Nodes and clients that are isolated. Their bytes wait in the network, as those of TCP do: what
/// was sent arrives once the network is healed, even if its sender has closed the connection.
#[derive(Debug, Default)]
pub(crate) struct Isolation(watch::Sender<Isolated>);

#[derive(Debug, Default)]
struct Isolated {
    nodes: BTreeSet<i32>,
    /// Client ids.
    clients: BTreeSet<String>,
}

impl Isolated {
    fn separates(&self, node: i32, client_id: &str) -> bool {
        self.nodes.contains(&node) || self.clients.contains(client_id)
    }
}

impl Isolation {
    pub fn isolate_node(&self, node: i32) {
        self.0.send_modify(|isolated| _ = isolated.nodes.insert(node));
    }

    pub fn isolate_client(&self, client_id: &str) {
        self.0.send_modify(|isolated| _ = isolated.clients.insert(client_id.to_owned()));
    }

    pub fn heal(&self) {
        self.0.send_replace(Isolated::default());
    }

    /// Waits while the network separates a node and a client.
    pub async fn passage(&self, node: i32, client_id: &str) {
        if !self.0.borrow().separates(node, client_id) {
            return;
        }
        // The sender is part of the broker's state, and so lives as long as its connections.
        _ = self.0.subscribe().wait_for(|isolated| !isolated.separates(node, client_id)).await;
    }
}
