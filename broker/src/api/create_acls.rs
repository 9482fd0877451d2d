//! CreateAcls.

use kafka_protocol::messages::create_acls_request::AclCreation;
use kafka_protocol::messages::create_acls_response::AclCreationResult;
use kafka_protocol::messages::{CreateAclsRequest, CreateAclsResponse};

use super::text;
use crate::acls::Acl;
use crate::error::ApiError;
use crate::request::Context;
use crate::shared::Shared;

pub(super) fn handle(shared: &Shared, cx: &Context, request: CreateAclsRequest) -> CreateAclsResponse {
    let create = |creation: &AclCreation| -> Result<(), ApiError> {
        cx.check_fault()?;
        let acl = Acl::new(creation)?;
        shared.cluster().acls.add(acl);
        Ok(())
    };
    let one = |creation: AclCreation| match create(&creation) {
        Ok(()) => AclCreationResult::default().with_error_message(None),
        Err(error) => {
            AclCreationResult::default().with_error_code(error.code()).with_error_message(Some(text(error.message)))
        }
    };
    CreateAclsResponse::default().with_results(request.creations.into_iter().map(one).collect())
}
