//! SendOtp: a code is made or repeated, and its message written with it.

use tokio::time::Instant;

use super::{OtpService, Send, SendReply, ServiceError, permit_purpose};
use crate::{
    delivery::{Route, Shipment},
    domain::{
        self, Barred, Caller, ChallengeId, MessageId, MessageRequest, SendRefusal, SendRequest,
        TestRecipient,
    },
    keys::system_random,
    outbox::{InHand, Outbox},
};

impl OtpService {
    /// Sends the live code again, or a new one.
    ///
    /// # Errors
    /// A purpose or destination that is not the caller's, a message that no provider is
    /// for, what [`domain::send`] refuses, and the store's failures.
    pub async fn send(
        &self,
        caller: &Caller,
        request: &Send,
        deadline: Instant,
    ) -> Result<SendReply, ServiceError> {
        let Send {
            recipient, purpose, ..
        } = request;
        permit_purpose(caller, purpose)?;
        let is_test = |test: &&TestRecipient| test.is(&caller.name, recipient, purpose);
        let test = self.test_recipients.iter().find(is_test);
        let route = self.route(caller, request);
        let barred = bars(caller, request, route);
        if let (None, Some(barred)) = (test, barred) {
            return Err(barred.into());
        }
        if route.is_some() {
            let texts = &self.outbox.delivery().texts;
            texts
                .check_variables(purpose, &request.variables)
                .map_err(|error| ServiceError::request("variables", error.to_string()))?;
        }
        let policy = caller.policies.of(purpose);
        let key = self.keys.record_key(&caller.name, recipient, purpose);
        let limits = request.limits(&self.keys, caller, policy);
        let identity = self.identity("SendOtp", request.request_id.as_deref(), &request.fields());
        let room = route.and_then(|_| self.outbox.room());
        let message = route.map(|route| MessageRequest {
            id: MessageId::generate(&mut system_random()),
            lease: room.is_some().then(|| Outbox::lease(route)),
            locale: &request.locale,
            variables: &request.variables,
            client_ip: request.client_ip,
        });
        let rule = |record, limits: &[_], now, random: &mut _| {
            let test = test.and_then(|test| test.at(now));
            let wish = SendRequest {
                identity: &identity,
                caller: &caller.name,
                recipient,
                purpose,
                channel: request.channel,
                test,
                barred,
                message: message.as_ref().filter(|_| test.is_none()),
            };
            domain::send(record, limits, &wish, policy, now, random)
        };
        let decided = self.decide(caller, key, &limits, deadline, rule).await?;

        let sent = decided.answer.map_err(|refusal| match refusal {
            SendRefusal::TooSoon { wait, live } => ServiceError::ResendTooSoon {
                wait,
                live: live.map(|(nonce, expires_at)| (ChallengeId { key, nonce }, expires_at)),
            },
            SendRefusal::Blocked(block) => ServiceError::blocked(block),
            SendRefusal::Limit(exceeded) => ServiceError::SendLimit(exceeded),
            SendRefusal::Reused => ServiceError::reused(),
            SendRefusal::Barred(barred) => barred.into(),
        })?;
        match (sent.message, room) {
            (Some(message), Some(room)) => {
                let in_hand = InHand {
                    key,
                    caller: caller.name.clone(),
                    purpose: purpose.clone(),
                    version: decided.message_version,
                    message,
                    clock: decided.clock,
                };
                self.outbox.send(room, in_hand);
            }
            (Some(_), None) => self.outbox.notice(),
            (None, _) => {}
        }
        Ok(SendReply {
            challenge_id: ChallengeId {
                key,
                nonce: sent.challenge,
            },
            expires_at: sent.expires_at,
            resend_at: sent.resend_at,
            resent: sent.resent,
            code_length: sent.code_length,
            code: sent.code.filter(|_| caller.delivers),
        })
    }

    /// The way of the message; `None` where there is none, or it needs no message.
    fn route(&self, caller: &Caller, request: &Send) -> Option<&Route> {
        let shipment = Shipment {
            channel: request.channel,
            purpose: &request.purpose,
            caller: &caller.name,
            recipient: &request.recipient,
            locale: &request.locale,
        };
        let routed = !caller.delivers;
        routed.then(|| self.outbox.delivery().route(&shipment))?
    }
}

/// Why no message can go there.
fn bars(caller: &Caller, request: &Send, route: Option<&Route>) -> Option<Barred> {
    if !caller.destinations.permit(&request.recipient) {
        Some(Barred::Destination)
    } else if route.is_none() && !caller.delivers {
        Some(Barred::NoRoute(request.channel))
    } else {
        None
    }
}

impl From<Barred> for ServiceError {
    fn from(barred: Barred) -> Self {
        match barred {
            Barred::Destination => Self::DestinationBlocked,
            Barred::NoRoute(channel) => Self::NoRoute(channel),
        }
    }
}
