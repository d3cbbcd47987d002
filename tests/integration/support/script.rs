//! Scripted steps of a caller with the expected result of each.

use std::{future::Future, time::Duration};

use otpd::grpc::v1::{
    CancelOtpRequest, GetOtpStatusRequest, GetOtpStatusResponse, SendOtpRequest, SendOtpResponse,
    VerifyOtpRequest, VerifyOutcome, otp_service_client::OtpServiceClient,
};
use tonic::{Status, transport::Channel};
use tonic_types::StatusExt as _;

use super::{
    Database, Refusal, Replica,
    assertions::{Typed, milliseconds, reason, timestamp},
};

const TTL: i64 = 300_000;
const RESEND_AFTER: i64 = 60_000;
const MAX_ATTEMPTS: u32 = 5;

/// Which challenge is named.
#[derive(Clone, Copy, Debug)]
pub enum Challenge {
    Unnamed,
    Newest,
    /// The one before the newest.
    Previous,
    /// Not one of otpd's.
    Garbled,
}

/// One step, with its expected result under the default policy.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// A send makes a new code.
    New,
    /// A send sends the newest code again.
    Resent,
    /// A send is refused for as long as the cool-down lasts; does a code live?
    TooSoon { live: bool },
    /// An answer is given this verdict.
    Verify(Typed, Challenge, VerifyOutcome),
    /// A wrong answer is judged, and leaves so many.
    Wrong { remaining: u32 },
    /// An answer cannot be a code.
    Malformed(Typed),
    /// A cancellation ends a code, or finds none.
    Cancel(Challenge, bool),
    /// The code lives and has so many attempts left.
    Live { remaining: u32 },
    /// No code lives.
    Dead,
    /// The clock moves forward by so many seconds.
    After(u32),
    /// The clock steps back by so many seconds.
    Back(u32),
}

/// Runs steps for one recipient after the other.
pub struct Script<'a> {
    database: &'a Database,
    replica: &'a Replica,
    client: OtpServiceClient<Channel>,
    offset: i64,
    recipient: String,
    sent: Vec<Sent>,
    /// The earliest and the latest instant at which the cool-down ends.
    resend_at: (i64, i64),
    stepped_back: bool,
}

/// A challenge as its caller knows it.
#[derive(Clone)]
struct Sent {
    id: String,
    code: String,
    expires_at: i64,
    messages: usize,
}

impl<'a> Script<'a> {
    pub fn new(database: &'a Database, replica: &'a Replica) -> Self {
        Self {
            database,
            replica,
            client: replica.client(),
            offset: 0,
            recipient: String::new(),
            sent: Vec::new(),
            resend_at: (0, 0),
            stepped_back: false,
        }
    }

    /// Runs `steps` for a recipient without a record.
    pub async fn run(&mut self, recipient: &str, steps: &[Step]) {
        recipient.clone_into(&mut self.recipient);
        self.sent.clear();
        self.resend_at = (0, 0);
        self.stepped_back = false;
        for (index, &step) in steps.iter().enumerate() {
            self.step(step, &format!("{recipient}, step {index}, {step:?}"))
                .await;
        }
    }

    async fn step(&mut self, step: Step, place: &str) {
        match step {
            Step::New | Step::Resent => self.send(matches!(step, Step::Resent), place).await,
            Step::TooSoon { live } => self.too_soon(live, place).await,
            Step::Verify(typed, challenge, expected) => {
                let (verdict, remaining) = self.verify(typed, challenge, place).await;
                assert_eq!((verdict, remaining), (expected, 0), "{place}");
            }
            Step::Wrong { remaining } => {
                let expected = (VerifyOutcome::WrongCode, remaining);
                let verdict = self
                    .verify(Typed::Mistyped, Challenge::Unnamed, place)
                    .await;
                assert_eq!(verdict, expected, "{place}");
            }
            Step::Malformed(typed) => {
                let status = self.ask(typed, Challenge::Unnamed).await.expect_err(place);
                assert_eq!(reason(&status), "CODE_MALFORMED", "{place}");
            }
            Step::Cancel(challenge, expected) => {
                let request = CancelOtpRequest {
                    recipient: self.recipient.clone(),
                    challenge_id: self.challenge_id(challenge),
                    ..Default::default()
                };
                let mut client = self.client.clone();
                let (reply, _, _) = self.measured(client.cancel_otp(request)).await;
                let reply = reply.expect(place).into_inner();
                assert_eq!(reply.cancelled, expected, "{place}");
                assert!(!reply.failures_reset, "{place}");
            }
            Step::Live { remaining } => self.status(Some(remaining), place).await,
            Step::Dead => self.status(None, place).await,
            Step::After(seconds) => self.move_clock(i64::from(seconds) * 1_000).await,
            Step::Back(seconds) => {
                self.move_clock(i64::from(seconds) * -1_000).await;
                self.stepped_back = true;
            }
        }
    }

    async fn send(&mut self, resent: bool, place: &str) {
        let (reply, before, after) = self.try_send().await;
        let reply = reply.expect(place);
        assert_eq!(reply.resent, resent, "{place}");
        assert_eq!(reply.recipient, self.recipient, "{place}");
        assert_eq!(reply.code_length, 6, "{place}");
        assert_eq!(reply.code, "", "{place}");
        let resend_at = milliseconds(reply.resend_at);
        let sent_at = resend_at - RESEND_AFTER;
        assert!((before..=after).contains(&sent_at), "{place}");
        self.resend_at = (resend_at, resend_at);
        let expires_at = milliseconds(reply.expires_at);
        if resent {
            let sent = self.sent.last_mut().expect("a code was sent before");
            sent.messages += 1;
            assert_eq!(reply.challenge_id, sent.id, "{place}");
            assert_eq!(expires_at, sent.expires_at, "{place}");
            let codes = self.replica.codes(&sent.id, sent.messages).await;
            assert_eq!(codes, vec![sent.code.clone(); sent.messages], "{place}");
        } else {
            assert_eq!(expires_at, sent_at + TTL, "{place}");
            let known = self.sent.iter().any(|sent| sent.id == reply.challenge_id);
            assert!(!known, "{place}");
            let code = self.replica.code(&reply.challenge_id).await;
            assert_eq!(code.len(), 6, "{place}");
            self.sent.push(Sent {
                id: reply.challenge_id,
                code,
                expires_at,
                messages: 1,
            });
            self.status(Some(MAX_ATTEMPTS), place).await;
        }
    }

    async fn too_soon(&mut self, live: bool, place: &str) {
        let (reply, before, after) = self.try_send().await;
        let status = reply.expect_err(place);
        assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{place}");
        let details = status.get_error_details();
        let info = details.error_info().expect(place);
        assert_eq!(info.reason, "RESEND_TOO_SOON", "{place}");
        assert_eq!(info.domain, "otp.v1", "{place}");
        let told = |key: &str| info.metadata.get(key).map(String::as_str);
        let sent = self.sent.last().filter(|_| live);
        assert_eq!(told("challenge_id"), sent.map(|sent| sent.id.as_str()));
        let expires_at = sent.map(|sent| {
            let instant = Duration::from_millis(sent.expires_at.unsigned_abs());
            humantime::format_rfc3339_millis(std::time::UNIX_EPOCH + instant).to_string()
        });
        assert_eq!(told("expires_at"), expires_at.as_deref(), "{place}");

        let wait = Refusal::of(&status).wait;
        let wait = i64::try_from(wait.expect(place).as_millis()).expect("a short wait");
        let possible = self.resend_at.0 - after..=self.resend_at.1 - before;
        assert!(possible.contains(&wait), "{place}: {wait} {possible:?}");
        assert!((1..=RESEND_AFTER).contains(&wait), "{place}: {wait}");
    }

    async fn try_send(&mut self) -> (Result<SendOtpResponse, Status>, i64, i64) {
        let request = SendOtpRequest {
            recipient: self.recipient.clone(),
            ..Default::default()
        };
        let mut client = self.client.clone();
        let (reply, before, after) = self.measured(client.send_otp(request)).await;
        (reply.map(tonic::Response::into_inner), before, after)
    }

    async fn verify(
        &mut self,
        typed: Typed,
        challenge: Challenge,
        place: &str,
    ) -> (VerifyOutcome, u32) {
        let (reply, before, after) = self.ask(typed, challenge).await.expect(place);
        let verdict = reply.outcome();
        let verified = verdict == VerifyOutcome::Verified;
        assert_eq!(reply.recipient, self.recipient, "{place}");
        assert_eq!(reply.verified, verified, "{place}");
        assert_eq!(reply.verified_at.is_some(), verified, "{place}");
        let judged = if verdict == VerifyOutcome::NotFound {
            ""
        } else {
            self.sent.last().map_or("", |sent| &sent.id)
        };
        assert_eq!(reply.challenge_id, judged, "{place}");
        if verified {
            let at = milliseconds(reply.verified_at);
            assert!((before..=after).contains(&at), "{place}");
            // A success ends the cool-down.
            self.resend_at = (0, 0);
        }
        (verdict, reply.attempts_remaining)
    }

    async fn ask(
        &mut self,
        typed: Typed,
        challenge: Challenge,
    ) -> Result<(otpd::grpc::v1::VerifyOtpResponse, i64, i64), Status> {
        let code = self.sent.last().map_or("123456", |sent| &sent.code);
        let request = VerifyOtpRequest {
            recipient: self.recipient.clone(),
            code: typed.text(code),
            challenge_id: self.challenge_id(challenge),
            ..Default::default()
        };
        let mut client = self.client.clone();
        let (reply, before, after) = self.measured(client.verify_otp(request)).await;
        reply.map(|reply| (reply.into_inner(), before, after))
    }

    /// Asks for the status by recipient, and by challenge id alone.
    async fn status(&mut self, remaining: Option<u32>, place: &str) {
        let newest = self.challenge_id(Challenge::Newest);
        for (recipient, challenge_id) in [
            (self.recipient.clone(), String::new()),
            (String::new(), newest.clone()),
        ] {
            if recipient.is_empty() && challenge_id.is_empty() {
                continue;
            }
            let request = GetOtpStatusRequest {
                recipient: recipient.clone(),
                challenge_id,
                ..Default::default()
            };
            let mut client = self.client.clone();
            let (reply, before, after) = self.measured(client.get_otp_status(request)).await;
            let reply = reply.expect(place).into_inner();
            // Unset where the wait is over; both is possible where it ends just now.
            let told = reply.resend_at.map(|at| milliseconds(Some(at)));
            match told {
                Some(told) => {
                    let (earliest, latest) = self.resend_at;
                    assert!((earliest..=latest).contains(&told), "{place}");
                    assert!(told > before, "{place}");
                }
                None => assert!(self.resend_at.0 <= after, "{place}"),
            }
            let sent = self.sent.last();
            let expected = match (remaining, sent) {
                (Some(attempts_remaining), Some(sent)) => GetOtpStatusResponse {
                    live: true,
                    challenge_id: sent.id.clone(),
                    recipient: self.recipient.clone(),
                    expires_at: Some(timestamp(sent.expires_at)),
                    attempts_remaining,
                    ..Default::default()
                },
                _ => GetOtpStatusResponse {
                    recipient,
                    ..Default::default()
                },
            };
            let reply = GetOtpStatusResponse {
                resend_at: None,
                deliveries: Vec::new(),
                ..reply
            };
            assert_eq!(reply, expected, "{place}");
        }
    }

    /// The result of a call, and the store's clock before and after it.
    async fn measured<T>(&mut self, call: impl Future<Output = T>) -> (T, i64, i64) {
        let before = self.now().await;
        let result = call.await;
        let after = self.now().await;
        if std::mem::take(&mut self.stepped_back) && self.resend_at.1 > 0 {
            // The first request after the step starts the wait again, and no other.
            self.resend_at = (before + RESEND_AFTER, after + RESEND_AFTER);
        }
        (result, before, after)
    }

    async fn now(&self) -> i64 {
        self.database.number("SELECT now FROM otp_clock").await
    }

    async fn move_clock(&mut self, milliseconds: i64) {
        self.offset += milliseconds;
        self.database.set_clock_offset(self.offset).await;
    }

    fn challenge_id(&self, challenge: Challenge) -> String {
        let sent = match challenge {
            Challenge::Unnamed => None,
            Challenge::Newest => self.sent.last(),
            Challenge::Previous => self.sent.iter().nth_back(1),
            Challenge::Garbled => return "garbled".to_owned(),
        };
        sent.map(|sent| sent.id.clone()).unwrap_or_default()
    }
}
