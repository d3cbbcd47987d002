//! Rules 1, 4 and 6: new codes, resends and refused sends.

use super::{
    super::{Ask, Case, DAY, HOUR, Limits, Moment, Reply},
    End, Record,
    limits::{Shared, charge, longest, sends, settle, take, take_each},
};

impl Record {
    /// Rules 1, 4 and 6.
    pub(super) fn send(&mut self, case: &mut Case, limits: &mut Limits) -> Reply {
        let Ask::Send { network, .. } = &case.call.ask else {
            unreachable!("only sends are sent here");
        };
        let (now, policy) = (case.now, case.policy);
        let shared = sends(network.as_deref(), case);
        let taken = self.permit_send(case, &shared, limits);
        let (hour, day, by_client) = match taken {
            Ok(taken) => taken,
            Err(refusal) => {
                settle(shared, limits, now);
                return refusal;
            }
        };
        self.hour_full_at = hour;
        self.day_full_at = day;
        charge(shared, by_client, limits);
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

    /// Checks that a message may be sent now; returns the limits after it.
    fn permit_send(
        &mut self,
        case: &mut Case,
        shared: &[Shared],
        limits: &Limits,
    ) -> Result<(Moment, Moment, Vec<Moment>), Reply> {
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
        let by_client = take_each(shared, limits, case);
        if let (Ok(hour), Ok(day), Ok(by_client)) = (&hour, &day, &by_client) {
            return Ok((*hour, *day, by_client.clone()));
        }
        // Who waits for the longest is not refused by another limit afterwards.
        let mut waits = by_client.err().unwrap_or_default();
        waits.extend(hour.err().map(|wait| ("sends_per_hour", wait)));
        waits.extend(day.err().map(|wait| ("sends_per_day", wait)));
        let longest = longest(waits, case.doubt);
        Err(Reply::Refused {
            reason: "SEND_LIMIT",
            limit: longest.map(|(name, _)| name),
            wait: longest.map(|(_, wait)| wait),
            live: None,
        })
    }
}
