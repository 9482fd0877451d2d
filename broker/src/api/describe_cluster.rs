//! DescribeCluster: the nodes that are up.

use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::{BrokerId, DescribeClusterRequest, DescribeClusterResponse};

use super::{code, text};
use crate::cluster::Node;
use crate::request::Context;
use crate::shared::Shared;

pub(super) fn handle(shared: &Shared, cx: &Context, _request: DescribeClusterRequest) -> DescribeClusterResponse {
    let cluster = shared.cluster();
    let host = text(shared.config.host());
    let broker = |n: &Node| {
        let out = DescribeClusterBroker::default().with_broker_id(BrokerId(n.id));
        out.with_host(host.clone()).with_port(n.advertised_port.into()).with_rack(n.rack.as_ref().map(text))
    };
    DescribeClusterResponse::default()
        .with_error_code(code(&cx.check_fault()))
        .with_cluster_id(text(shared.cluster_id()))
        .with_controller_id(BrokerId(cluster.controller()))
        .with_brokers(cluster.nodes_up().map(broker).collect())
}
