//! Rules 1, 4 and 6: new codes, resends and refused sends.

use super::{
    End, Record,
    limits::{Shared, charge, clamp, consume, consume_all, longest, sends},
};
use crate::{Command, Context, DAY, HOUR, Reply, SharedLimits, TimeRange};

impl Record {
    /// Rules 1, 4 and 6.
    pub(super) fn send(&mut self, context: &mut Context, limits: &mut SharedLimits) -> Reply {
        let Command::Send {
            network, channel, ..
        } = &context.call.command
        else {
            unreachable!("only sends are decided here");
        };
        let (now, policy) = (context.now, context.policy);
        let shared = sends(network.as_deref(), context);
        let (hour, day, by_client) = match self.check_send(context, &shared, limits) {
            Ok(consumed) => consumed,
            Err(refusal) => {
                clamp(shared, limits, now);
                return refusal;
            }
        };
        self.hour_full_at = hour;
        self.day_full_at = day;
        charge(shared, by_client, limits);
        let is_reusable = self.is_live(context)
            && !context
                .choices
                .before(self.expires_at, now.plus(policy.resend_after));
        if !is_reusable {
            self.ids.push(None);
            self.end = End::None;
            self.attempts = 0;
            self.channels.clear();
            self.expires_at = now.plus(policy.code_ttl);
        }
        self.sent_at = now;
        self.channels.insert(*channel);
        let reply = Reply::Sent {
            challenge: self.newest(),
            expires_at: self.expires_at,
            resend_at: now.plus(policy.resend_after),
            resent: is_reusable,
            code: true,
        };
        self.record_outcome(&reply, context);
        reply
    }

    /// Checks that a message may be sent now, and returns the limits after it.
    fn check_send(
        &mut self,
        context: &mut Context,
        shared: &[Shared],
        limits: &SharedLimits,
    ) -> Result<(TimeRange, TimeRange, Vec<TimeRange>), Reply> {
        let (now, policy) = (context.now, context.policy);
        if let Some((until, reason)) = self.lockout(context)
            && !context.choices.before(until, now.plus(policy.code_ttl))
        {
            return Err(Reply::wait(reason, until.since(now)));
        }
        let resend_at = self.resend_at(policy);
        if context.choices.before(now, resend_at) {
            let live = self
                .is_live(context)
                .then(|| (self.newest(), self.expires_at));
            let wait = Some(resend_at.since(now));
            return Err(Reply::Refused {
                reason: "RESEND_TOO_SOON",
                limit: None,
                wait,
                live,
            });
        }
        let choices = &mut *context.choices;
        let hour = consume(self.hour_full_at, policy.sends_per_hour, HOUR, now, choices);
        let day = consume(self.day_full_at, policy.sends_per_day, DAY, now, choices);
        let by_client = consume_all(shared, limits, context);
        if let (Ok(hour), Ok(day), Ok(by_client)) = (&hour, &day, &by_client) {
            return Ok((*hour, *day, by_client.clone()));
        }
        // After the longest wait, no other limit refuses the request.
        let mut waits = by_client.err().unwrap_or_default();
        waits.extend(hour.err().map(|wait| ("sends_per_hour", wait)));
        waits.extend(day.err().map(|wait| ("sends_per_day", wait)));
        let longest = longest(waits, context.choices);
        Err(Reply::Refused {
            reason: "SEND_LIMIT",
            limit: longest.map(|(name, _)| name),
            wait: longest.map(|(_, wait)| wait),
            live: None,
        })
    }
}
