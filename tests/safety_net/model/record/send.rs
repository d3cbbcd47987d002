//! Rules 1, 4 and 6: when a code is made, when it is sent again, when neither.

use super::{
    super::{Ask, Case, DAY, HOUR, Limits, Moment, Reply},
    End, Record,
    limits::{Shared, charge, settle, shared, take},
};

impl Record {
    /// Rules 1, 4 and 6.
    pub(super) fn send(&mut self, case: &mut Case, limits: &mut Limits) -> Reply {
        let Ask::Send { network, .. } = &case.call.ask else {
            unreachable!("only sends are sent here");
        };
        let (now, policy) = (case.now, case.policy);
        let mut shared = shared(network.as_deref(), "ip_sends_per_hour", case);
        let taken = self.permit_send(case, shared.as_ref(), limits);
        let (hour, day, by_network) = match taken {
            Ok(taken) => taken,
            Err(refusal) => {
                settle(shared.take(), limits, now);
                return refusal;
            }
        };
        self.hour_full_at = hour;
        self.day_full_at = day;
        charge(shared, by_network, limits);
        let worth_repeating = self.lives(case)
            && !case
                .doubt
                .before(self.expires_at, now.plus(policy.resend_after));
        if !worth_repeating {
            self.names.push(None);
            self.end = End::None;
            self.attempts = 0;
            self.expires_at = now.plus(policy.code_ttl);
        }
        self.sent_at = now;
        let reply = Reply::Sent {
            challenge: self.newest(),
            expires_at: self.expires_at,
            resend_at: now.plus(policy.resend_after),
            resent: worth_repeating,
            code: true,
        };
        self.remember(&reply, case);
        reply
    }

    /// Whether a message may go out now; what the limits then are.
    fn permit_send(
        &mut self,
        case: &mut Case,
        shared: Option<&Shared>,
        limits: &Limits,
    ) -> Result<(Moment, Moment, Option<Moment>), Reply> {
        let (now, policy) = (case.now, case.policy);
        if let Some((until, reason)) = self.block(case)
            && !case.doubt.before(until, now.plus(policy.code_ttl))
        {
            return Err(Reply::wait(reason, until.since(now)));
        }
        let resend_at = self.resend_at(policy);
        if case.doubt.before(now, resend_at) {
            let live = self.lives(case).then(|| (self.newest(), self.expires_at));
            let wait = Some(resend_at.since(now));
            return Err(Reply::Refused {
                reason: "RESEND_TOO_SOON",
                limit: None,
                wait,
                live,
            });
        }
        let hour = take(
            self.hour_full_at,
            policy.sends_per_hour,
            HOUR,
            now,
            case.doubt,
        );
        let day = take(self.day_full_at, policy.sends_per_day, DAY, now, case.doubt);
        let network = shared.map(|shared| shared.take(limits, case)).transpose();
        // Who waits for the longest is not refused by another limit afterwards.
        let mut longest: Option<(&'static str, Moment)> = None;
        for (name, wait) in [
            ("ip_sends_per_hour", network.as_ref().err()),
            ("sends_per_hour", hour.as_ref().err()),
            ("sends_per_day", day.as_ref().err()),
        ] {
            if let Some(&wait) = wait
                && longest.is_none_or(|(_, other)| !case.doubt.before(wait, other))
            {
                longest = Some((name, wait));
            }
        }
        match (hour, day, network, longest) {
            (Ok(hour), Ok(day), Ok(network), _) => Ok((hour, day, network)),
            (.., longest) => Err(Reply::Refused {
                reason: "SEND_LIMIT",
                limit: longest.map(|(name, _)| name),
                wait: longest.map(|(_, wait)| wait),
                live: None,
            }),
        }
    }
}
