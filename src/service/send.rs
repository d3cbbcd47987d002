//! SendOtp: a code is made or repeated, and its message written with it.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    OtpService, SendOtp, SendReply, ServiceError,
    decide::{Committed, DecisionInput},
    permit_purpose,
};
use crate::{
    delivery::{Route, RouteQuery},
    keys::{SystemRandom, os_rng},
    outbox::{LeasedMessage, Outbox, OutboxPermit},
    traces::{self, TraceContext},
};
use otpd_rules::{
    self, Caller, CallerName, ChallengeId, Decision, MessageId, MessageRequest, OutboxMessage,
    Purpose, RateLimitState, Record, RecordKey, RequestFingerprint, SendError, SendOutcome,
    SendRequest, TestRecipient, Timestamp, Undeliverable,
};

impl OtpService {
    /// Sends the live code again, or a new one.
    ///
    /// # Errors
    /// A purpose or destination that is not the caller's, a message that no provider is
    /// for, what [`otpd_rules::send`] refuses, and the store's failures.
    pub async fn send(
        &self,
        caller: &Arc<Caller>,
        request: &Arc<SendOtp>,
        deadline: Instant,
    ) -> Result<SendReply, ServiceError> {
        let SendOtp {
            recipient, purpose, ..
        } = &**request;
        permit_purpose(caller, purpose)?;
        let is_test = |test: &&TestRecipient| test.matches(&caller.name, recipient, purpose);
        let test = self.test_recipients.iter().find(is_test).cloned();
        let route = self.route(caller, request);
        let barred = undeliverable_reason(caller, request, route);
        if let (None, Some(barred)) = (&test, barred) {
            return Err(barred.into());
        }
        if route.is_some() {
            let texts = &self.outbox.delivery().texts;
            texts
                .check_variables(purpose, &request.variables)
                .map_err(|error| ServiceError::request("variables", error.to_string()))?;
        }
        let key = self.keys.record_key(&caller.name, recipient, purpose);
        let room = route.and_then(|_| self.outbox.try_reserve(&caller.name));
        let wish = SendCommand {
            identity: self.identity("SendOtp", request.request_id.as_deref(), &request.fields()),
            caller: Arc::clone(caller),
            request: Arc::clone(request),
            test,
            barred,
            message: route.map(|route| {
                let lease = room.is_some().then(|| Outbox::lease(route));
                (MessageId::generate(&mut os_rng()), lease)
            }),
        };
        let matter = DecisionInput {
            caller: Arc::clone(caller),
            key,
            purpose: Some(purpose.clone()),
            limits: request.limits(&self.keys, caller, caller.policies.of(purpose)),
            deadline,
            reads_messages: false,
        };
        let parcel = OutboxHandoff {
            outbox: self.outbox.clone(),
            key,
            caller: caller.name.clone(),
            purpose: purpose.clone(),
            room,
            place: traces::current(),
        };
        let rule = move |record, limits: &[_], now, random: &mut _| {
            wish.decide(record, limits, now, random)
        };
        let then = move |answer: &mut Result<SendOutcome, SendError>, done| {
            if let Ok(SendOutcome { message, .. }) = answer {
                parcel.enqueue(message.take(), done);
            }
        };
        let decided = self.decide(matter, rule, then).await?;
        let sent = decided.map_err(|refusal| match refusal {
            SendError::CoolingDown { wait, live } => ServiceError::ResendTooSoon {
                wait,
                live: live.map(|(nonce, expires_at)| (ChallengeId { key, nonce }, expires_at)),
            },
            SendError::Blocked(block) => ServiceError::blocked(block),
            SendError::Limit(exceeded) => ServiceError::SendLimit(exceeded),
            SendError::IdempotencyKeyReused => ServiceError::idempotency_key_reused(),
            SendError::Undeliverable(barred) => barred.into(),
        })?;
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

    /// The way of the message; `None` where there is none, or it needs no message.
    fn route(&self, caller: &Caller, request: &SendOtp) -> Option<&Route> {
        let shipment = RouteQuery {
            channel: request.channel,
            purpose: &request.purpose,
            caller: &caller.name,
            recipient: &request.recipient,
            locale: &request.locale,
        };
        let routed = !caller.self_delivery;
        routed.then(|| self.outbox.delivery().route(&shipment))?
    }
}

/// What [`otpd_rules::send`] is asked, and may be asked again.
struct SendCommand {
    identity: RequestFingerprint,
    caller: Arc<Caller>,
    request: Arc<SendOtp>,
    test: Option<TestRecipient>,
    barred: Option<Undeliverable>,
    /// The message that is to carry the code, and for how long it is leased.
    message: Option<(MessageId, Option<Duration>)>,
}

impl SendCommand {
    fn decide(
        &self,
        record: Option<Record>,
        limits: &[RateLimitState],
        now: Timestamp,
        random: &mut SystemRandom,
    ) -> Decision<Result<SendOutcome, SendError>> {
        let request = &*self.request;
        let test = self.test.as_ref().and_then(|test| test.active_at(now));
        let message = self.message.map(|(id, lease)| MessageRequest {
            id,
            lease,
            locale: &request.locale,
            variables: &request.variables,
            client_ip: request.client_ip,
        });
        let wish = SendRequest {
            identity: &self.identity,
            caller: &self.caller.name,
            recipient: &request.recipient,
            purpose: &request.purpose,
            channel: request.channel,
            test,
            barred: self.barred,
            message: message.as_ref().filter(|_| test.is_none()),
        };
        let policy = self.caller.policies.of(&request.purpose);
        otpd_rules::send(record, limits, &wish, policy, now, random)
    }
}

/// What it takes to hand a message over that has been written.
struct OutboxHandoff {
    outbox: Outbox,
    key: RecordKey,
    caller: CallerName,
    purpose: Purpose,
    room: Option<OutboxPermit>,
    /// Where in a trace the message was asked for.
    place: Option<TraceContext>,
}

impl OutboxHandoff {
    fn enqueue(self, message: Option<OutboxMessage>, done: Committed) {
        // What is answered with a message was written by this request, in a try before.
        match (message.zip(done.message_version), self.room) {
            (Some((message, version)), Some(room)) => {
                let in_hand = LeasedMessage {
                    key: self.key,
                    caller: self.caller,
                    purpose: self.purpose,
                    version,
                    message,
                    clock: done.clock,
                };
                traces::enter(self.place, || self.outbox.send(room, in_hand));
            }
            (Some(_), None) => self.outbox.wake(),
            (None, _) => {}
        }
    }
}

/// Why no message can go there.
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
