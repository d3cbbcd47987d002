//! SendOtp: issues or resends a code, and writes its message with it.

use std::sync::Arc;

use tokio::time::Instant;

use super::{OtpService, SendOtp, SendReply, ServiceError, permit_purpose};
use crate::{
    engine::{CommandRequest, MessageHandoff},
    keys::os_rng,
    outbox::OutboxSlot,
};
use otpd_delivery::{Route, RouteQuery};
use otpd_rules::{
    Caller, ChallengeId, Command, MessageId, MessageRequest, Outcome, SendRequest, TestRecipient,
    Undeliverable,
};

impl OtpService {
    /// Sends the live code again, or a new one.
    ///
    /// # Errors
    /// A purpose or destination that the caller may not use, a message that has no route, the
    /// refusals of the rules, and the failures of the store.
    pub async fn send(
        &self,
        caller: &Arc<Caller>,
        request: &SendOtp,
        deadline: Instant,
    ) -> Result<SendReply, ServiceError> {
        let SendOtp {
            recipient, purpose, ..
        } = request;
        permit_purpose(caller, purpose)?;
        let is_test = |test: &&TestRecipient| test.matches(&caller.name, recipient, purpose);
        let test = self.test_recipients.iter().find(is_test);
        let route = self.route(caller, request);
        let barred = undeliverable_reason(caller, request, route);
        if let (None, Some(barred)) = (test, barred) {
            return Err(barred.into());
        }
        if route.is_some() {
            let texts = &self.outbox.delivery().texts;
            texts
                .check_variables(purpose, &request.variables)
                .map_err(|error| ServiceError::request("variables", error.to_string()))?;
        }
        let slot = route.map(|_| self.outbox.reserve(&caller.name));
        let message = route.zip(slot.as_ref());
        let message = message.map(|(route, slot)| message_request(request, route, slot));
        let keys = &self.engine.keys;
        let key = keys.record_key(&caller.name, recipient, purpose);
        let command = Command::Send(Box::new(SendRequest {
            identity: self.identity("SendOtp", request.request_id.as_deref(), &request.fields()),
            caller: caller.name.clone(),
            recipient: recipient.clone(),
            purpose: purpose.clone(),
            channel: request.channel,
            test: test.cloned(),
            barred,
            message,
            keeps_channels: !caller.receipt_audiences.is_empty(),
        }));
        let command = CommandRequest {
            command,
            caller: Arc::clone(caller),
            key,
            purpose: Some(purpose.clone()),
            limits: request.limits(keys, caller, caller.policies.of(purpose)),
            deadline,
            outbox: slot.map(|slot| -> Box<dyn MessageHandoff> { Box::new(slot) }),
        };
        let (Outcome::Sent(sent), _) = self.decide(command).await? else {
            return Err(ServiceError::foreign_outcome());
        };
        let code = sent.code.filter(|_| caller.self_delivery);
        if code.is_some() {
            self.conversions
                .record_self_delivered(request.channel, recipient);
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
            code,
        })
    }

    /// Returns the route of the message; `None` if there is none, or no message is needed.
    fn route(&self, caller: &Caller, request: &SendOtp) -> Option<&Route> {
        let query = RouteQuery {
            channel: request.channel,
            purpose: &request.purpose,
            caller: &caller.name,
            recipient: &request.recipient,
            locale: &request.locale,
        };
        let is_routed = !caller.self_delivery;
        is_routed.then(|| self.outbox.delivery().route(&query))?
    }
}

fn message_request(request: &SendOtp, route: &Route, slot: &OutboxSlot) -> MessageRequest {
    MessageRequest {
        id: MessageId::generate(&mut os_rng()),
        lease: slot.lease(route),
        locale: request.locale.clone(),
        variables: request.variables.clone(),
        client_ip: request.client_ip,
    }
}

/// Returns the reason why no message can go to the recipient, if so.
fn undeliverable_reason(
    caller: &Caller,
    request: &SendOtp,
    route: Option<&Route>,
) -> Option<Undeliverable> {
    if !caller.destinations.allows(&request.recipient) {
        Some(Undeliverable::Destination)
    } else if route.is_none() && !caller.self_delivery {
        Some(Undeliverable::NoRoute(request.channel))
    } else {
        None
    }
}

impl From<Undeliverable> for ServiceError {
    fn from(barred: Undeliverable) -> Self {
        match barred {
            Undeliverable::Destination => Self::DestinationBlocked,
            Undeliverable::NoRoute(channel) => Self::NoRoute(channel),
        }
    }
}
