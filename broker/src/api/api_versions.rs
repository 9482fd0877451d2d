//! ApiVersions: the APIs and versions on offer, and the finalized features.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiVersionsResponse;
use kafka_protocol::messages::api_versions_response::{ApiVersion, FinalizedFeatureKey, SupportedFeatureKey};

use super::text;
use crate::features::{Feature, Features};
use crate::shared::Shared;

/// First version with features.
const FEATURES_VERSION: i16 = 3;

pub(crate) fn versions(shared: &Shared, version: i16, error: Option<ResponseError>) -> ApiVersionsResponse {
    let one = |(key, min, max)| ApiVersion::default().with_api_key(key).with_min_version(min).with_max_version(max);
    let response = ApiVersionsResponse::default()
        .with_error_code(error.map_or(0, |e| e.code()))
        .with_api_keys(shared.config.versions.iter().map(one).collect());
    if version < FEATURES_VERSION { response } else { with_features(response, version, &shared.features()) }
}

fn with_features(response: ApiVersionsResponse, version: i16, features: &Features) -> ApiVersionsResponse {
    let Some(epoch) = features.epoch() else { return response };
    let supported = |f: &Feature| {
        let out = SupportedFeatureKey::default().with_name(text(f.name));
        // Clients of version 3 fail on a lowest level of 0 (KAFKA-17011).
        let lowest = if version == FEATURES_VERSION { f.supported.0.max(1) } else { f.supported.0 };
        out.with_min_version(lowest).with_max_version(f.supported.1)
    };
    let finalized = |f: &Feature| {
        let out = FinalizedFeatureKey::default().with_name(text(f.name));
        out.with_min_version_level(f.level).with_max_version_level(f.level)
    };
    response
        .with_supported_features(features.iter().filter(|f| f.supported.1 > 0).map(supported).collect())
        .with_finalized_features_epoch(epoch)
        .with_finalized_features(features.iter().filter(|f| f.level > 0).map(finalized).collect())
}
