//! Call of the contract by a request of Connect.

use http_body_util::BodyExt as _;
use prost::Message;
use serde::{Serialize, de::DeserializeOwned};
use tonic::{Request, Response, Status, body::Body, codegen::http, metadata::MetadataMap};

use super::{MessageFormat, error_response, response};
use crate::{
    grpc::{otp_service::OtpGrpc, v1::otp_service_server::OtpService as _},
    metrics::RpcName,
};

/// Makes the call of an admitted request.
pub(in crate::grpc) async fn call(
    otp: OtpGrpc,
    rpc: RpcName,
    format: MessageFormat,
    request: http::Request<Body>,
) -> http::Response<Body> {
    let response = match rpc {
        RpcName::Send => unary(format, request, async |call| otp.send_otp(call).await).await,
        RpcName::Verify => unary(format, request, async |call| otp.verify_otp(call).await).await,
        RpcName::Cancel => unary(format, request, async |call| otp.cancel_otp(call).await).await,
        RpcName::Status => {
            unary(format, request, async |call| otp.get_otp_status(call).await).await
        }
    };
    response.unwrap_or_else(error_response)
}

async fn unary<Q, R>(
    format: MessageFormat,
    request: http::Request<Body>,
    call: impl AsyncFnOnce(Request<Q>) -> Result<Response<R>, Status>,
) -> Result<http::Response<Body>, Status>
where
    Q: Message + Default + DeserializeOwned,
    R: Message + Serialize,
{
    let (parts, message) = request.into_parts();
    // Its length and the time are bounded by `BodyTimeoutLayer`.
    let message = message.collect().await?.to_bytes();
    let message = format.decode(&message)?;
    let metadata = MetadataMap::from_headers(parts.headers);
    let reply = call(Request::from_parts(metadata, parts.extensions, message)).await?;
    let reply = format.encode(reply.get_ref())?;
    Ok(response(format.media_type(), reply))
}
