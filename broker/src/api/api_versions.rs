//! ApiVersions: the APIs and versions on offer.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiVersionsResponse;
use kafka_protocol::messages::api_versions_response::ApiVersion;

use crate::shared::Shared;

pub(crate) fn versions(shared: &Shared, error: Option<ResponseError>) -> ApiVersionsResponse {
    let one = |(key, min, max)| ApiVersion::default().with_api_key(key).with_min_version(min).with_max_version(max);
    ApiVersionsResponse::default()
        .with_error_code(error.map_or(0, |e| e.code()))
        .with_api_keys(shared.config.versions.iter().map(one).collect())
}
