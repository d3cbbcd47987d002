//! Commands that call a server.

use std::{process::ExitCode, time::SystemTime};

use clap::ValueEnum;
use tonic::{Code, Status};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_types::StatusExt as _;

use super::{
    CommandError, CommandOutcome, OtpTarget, block_on, connect::ServerArguments, exit,
    output::print_line,
};
use crate::grpc::v1::{
    self, CancelOtpRequest, GetOtpStatusRequest, SendOtpRequest, VerifyOtpRequest,
};

/// Channel names of the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum ChannelName {
    Sms,
    Email,
    Voice,
    Whatsapp,
    Telegram,
}

impl From<ChannelName> for v1::Channel {
    fn from(name: ChannelName) -> Self {
        match name {
            ChannelName::Sms => Self::Sms,
            ChannelName::Email => Self::Email,
            ChannelName::Voice => Self::Voice,
            ChannelName::Whatsapp => Self::Whatsapp,
            ChannelName::Telegram => Self::Telegram,
        }
    }
}

pub(super) fn health(server: &ServerArguments, service: String) -> CommandOutcome {
    block_on(async {
        let mut client = HealthClient::new(server.connect().await?);
        let request = HealthCheckRequest {
            service: service.clone(),
        };
        let answer = client
            .check(request)
            .await
            .map_err(|status| match status.code() {
                Code::NotFound => {
                    CommandError::usage(format!("--service: the server has no service {service:?}"))
                }
                _ => failure(&status),
            })?;
        let status = answer.into_inner().status();
        print_line!("{}", status.as_str_name());
        Ok(if status == ServingStatus::Serving {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(exit::NO)
        })
    })
}

pub(super) fn send(
    about: OtpTarget,
    recipient: String,
    channel: Option<ChannelName>,
) -> CommandOutcome {
    block_on(async {
        let OtpTarget {
            purpose,
            region,
            server,
        } = about;
        let mut request = SendOtpRequest {
            recipient,
            purpose,
            region,
            ..Default::default()
        };
        if let Some(channel) = channel {
            request.set_channel(channel.into());
        }
        let reply = server
            .otp()
            .await?
            .send_otp(request)
            .await
            .map_err(|status| failure(&status))?;
        let reply = reply.into_inner();
        let again = if reply.resent { " again" } else { "" };
        if reply.code.is_empty() {
            print_line!("sent{again} to {}", reply.recipient);
        } else {
            print_line!("for the caller to deliver{again} to {}", reply.recipient);
            print_line!("code: {}", reply.code);
        }
        print_line!("challenge_id: {}", reply.challenge_id);
        print_line!("expires_at: {}", instant(reply.expires_at));
        print_line!("resend_at: {}", instant(reply.resend_at));
        Ok(ExitCode::SUCCESS)
    })
}

pub(super) fn verify(about: OtpTarget, recipient: String, code: String) -> CommandOutcome {
    block_on(async {
        let OtpTarget {
            purpose,
            region,
            server,
        } = about;
        let request = VerifyOtpRequest {
            recipient,
            code,
            purpose,
            region,
            ..Default::default()
        };
        let reply = server
            .otp()
            .await?
            .verify_otp(request)
            .await
            .map_err(|status| failure(&status))?;
        let reply = reply.into_inner();
        if reply.verified {
            print_line!("verified {}", reply.recipient);
            return Ok(ExitCode::SUCCESS);
        }
        let outcome = reply.outcome();
        let reason = outcome.as_str_name().trim_start_matches("VERIFY_OUTCOME_");
        print_line!(
            "not verified: {reason}, {} attempts remaining",
            reply.attempts_remaining
        );
        Ok(ExitCode::from(exit::NO))
    })
}

pub(super) fn status(about: OtpTarget, recipient: String) -> CommandOutcome {
    block_on(async {
        let OtpTarget {
            purpose,
            region,
            server,
        } = about;
        let request = GetOtpStatusRequest {
            recipient,
            purpose,
            region,
            ..Default::default()
        };
        let reply = server
            .otp()
            .await?
            .get_otp_status(request)
            .await
            .map_err(|status| failure(&status))?;
        let reply = reply.into_inner();
        print_line!(
            "{} {}",
            if reply.live {
                "live code of"
            } else {
                "no live code of"
            },
            reply.recipient
        );
        if reply.live {
            print_line!("challenge_id: {}", reply.challenge_id);
            print_line!("expires_at: {}", instant(reply.expires_at));
            print_line!("attempts_remaining: {}", reply.attempts_remaining);
        }
        for (name, at) in [
            ("resend_at", reply.resend_at),
            ("blocked_until", reply.blocked_until),
        ] {
            if at.is_some() {
                print_line!("{name}: {}", instant(at));
            }
        }
        for delivery in &reply.deliveries {
            print_line!("{}", delivery_line(delivery));
        }
        Ok(ExitCode::SUCCESS)
    })
}

pub(super) fn cancel(about: OtpTarget, recipient: String, reset_failures: bool) -> CommandOutcome {
    block_on(async {
        let OtpTarget {
            purpose,
            region,
            server,
        } = about;
        let request = CancelOtpRequest {
            recipient,
            purpose,
            region,
            reset_failures,
            ..Default::default()
        };
        let reply = server
            .otp()
            .await?
            .cancel_otp(request)
            .await
            .map_err(|status| failure(&status))?;
        let reply = reply.into_inner();
        print_line!(
            "{}",
            if reply.cancelled {
                "cancelled"
            } else {
                "no live code to cancel"
            }
        );
        if reply.failures_reset {
            print_line!("failures reset");
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Converts a failed call to an exit code and a message.
pub(super) fn failure(status: &Status) -> CommandError {
    let code = match status.code() {
        Code::InvalidArgument => exit::USAGE,
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => exit::UNAVAILABLE,
        Code::Unauthenticated
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition => exit::REFUSED,
        _ => exit::SOFTWARE,
    };
    let reason = status
        .get_error_details()
        .error_info()
        .map(|info| info.reason.clone());
    let reason = reason.unwrap_or_else(|| format!("{:?}", status.code()));
    CommandError::new(code, format!("{reason}: {}", status.message()))
}

/// Formats an attempt, or a message that is waiting, such as
/// `delivery 2: FAILED sms-backup (sms) 2026-11-24T17:00:00.000Z timeout`.
fn delivery_line(delivery: &v1::Delivery) -> String {
    let state = delivery.state().as_str_name();
    let channel = delivery.channel().as_str_name();
    let line = format!(
        "delivery {}: {} {} ({}) {} {}",
        delivery.attempts,
        state.trim_start_matches("DELIVERY_STATE_"),
        delivery.provider,
        channel.trim_start_matches("CHANNEL_").to_lowercase(),
        instant(delivery.updated_at),
        delivery.error,
    );
    line.trim_end().to_owned()
}

/// Last second of the year 9999 as a Unix time; RFC 3339 has no later time.
const LAST_SECOND: i64 = 253_402_300_799;

/// Formats a time as RFC 3339; empty if it is unset or out of range.
fn instant(at: Option<prost_types::Timestamp>) -> String {
    at.filter(|at| (0..=LAST_SECOND).contains(&at.seconds) && at.nanos >= 0)
        .and_then(|at| SystemTime::try_from(at).ok())
        .filter(|at| {
            at.duration_since(SystemTime::UNIX_EPOCH)
                .is_ok_and(|since| since.as_secs() <= LAST_SECOND.unsigned_abs())
        })
        .map(|at| humantime::format_rfc3339_millis(at).to_string())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_server_timestamp_is_formatted_without_panic() {
        let text = |seconds, nanos| instant(Some(prost_types::Timestamp { seconds, nanos }));
        assert_eq!(text(0, 0), "1970-01-01T00:00:00.000Z");
        assert_eq!(text(LAST_SECOND, 0), "9999-12-31T23:59:59.000Z");
        for (seconds, nanos) in [
            (-1, 0),
            (0, -1),
            (LAST_SECOND, 1_000_000_000),
            (LAST_SECOND + 1, 0),
            (i64::MAX, 0),
            (i64::MIN, 0),
        ] {
            assert_eq!(text(seconds, nanos), "");
        }
    }
}
