//! Requests of all RPCs behind one type.

use otpd::grpc::v1::{
    CancelOtpRequest, GetOtpStatusRequest, SendOtpRequest, VerifyOtpRequest,
    otp_service_client::OtpServiceClient,
};
use tonic::{Status, transport::Channel};

/// A request of any RPC.
#[derive(Clone, Debug)]
pub enum AnyRequest {
    Send(SendOtpRequest),
    Verify(VerifyOtpRequest),
    Cancel(CancelOtpRequest),
    Status(GetOtpStatusRequest),
}

impl AnyRequest {
    /// Calls; the reply does not matter.
    pub async fn call(self, mut client: OtpServiceClient<Channel>) -> Result<(), Status> {
        match self {
            Self::Send(request) => client.send_otp(request).await.map(drop),
            Self::Verify(request) => client.verify_otp(request).await.map(drop),
            Self::Cancel(request) => client.cancel_otp(request).await.map(drop),
            Self::Status(request) => client.get_otp_status(request).await.map(drop),
        }
    }
}

/// Cancels, and returns whether there was a code to cancel.
pub async fn cancel(mut client: OtpServiceClient<Channel>, request: CancelOtpRequest) -> bool {
    let reply = client.cancel_otp(request).await;
    reply.expect("there is a reply").into_inner().cancelled
}

/// A message behind its flag (not compressed) and length.
pub fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("a test's message is short");
    [&[0], length.to_be_bytes().as_slice(), message].concat()
}
