//! Carries one message: from provider to provider until one takes it, its code dies, or
//! nobody is left who might.

use std::{collections::HashSet, future::Future, time::Duration};

use tokio::sync::SemaphorePermit;
use tokio_util::sync::CancellationToken;

use super::{
    LEASE_MARGIN, LEASE_RENEWAL, LEASE_RESERVE, LeasedMessage, MAX_LIVENESS_AGE, OutboxContext,
    attempt::{note_failure, report},
};
use crate::{
    delivery::{ProviderHandle, ProviderReceipt, Route},
    keys::os_rng,
    metrics::MessageOutcome,
    store::{MessageWrite, RowVersion},
};
use otpd_rules::{CountryCode, LoggedAttempt, NextState, OutboxMessage, Timestamp};

/// Carries messages.
#[derive(Debug)]
pub(super) struct Dispatcher {
    pub tools: OutboxContext,
    stopping: CancellationToken,
}

/// How the carrying of a message goes on.
enum NextStep<'a> {
    /// With an attempt.
    Try(&'a ProviderHandle),
    /// As soon as another message knows whether the provider is back.
    Await(&'a ProviderHandle),
    /// Not now.
    End(NextState),
    /// Never: it may have arrived as often as it is allowed to.
    GiveUp,
}

/// The message is out of this replica's hands.
struct LeaseLost;

impl Dispatcher {
    pub fn new(tools: OutboxContext, stopping: CancellationToken) -> Self {
        Self { tools, stopping }
    }

    /// Carries a message as far as it goes now.
    pub async fn dispatch(&self, mut in_hand: LeasedMessage) {
        let Some(route) = self.tools.route(&in_hand) else {
            // It was leased to a replica that knows one, so another configuration does.
            let now = in_hand.clock.now();
            return self.finish(in_hand, NextState::Queued(now)).await;
        };
        let mut tried = HashSet::new();
        let mut has_waited = false;
        loop {
            let now = in_hand.clock.now();
            if now >= in_hand.message.expires_at {
                return self.drop_dead(in_hand).await;
            }
            let gateway = match self.choose(&in_hand.message, route, &tried, now) {
                NextStep::Try(gateway) => gateway,
                NextStep::Await(gateway) if !has_waited => {
                    has_waited = true;
                    self.unless_stopping(gateway.breaker.wait_for_probe()).await;
                    continue;
                }
                NextStep::Await(gateway) => {
                    let then = NextState::Queued(now.saturating_add(gateway.breaker.wait()));
                    return self.finish(in_hand, then).await;
                }
                NextStep::End(then) => return self.finish(in_hand, then).await,
                NextStep::GiveUp => return self.give_up(in_hand).await,
            };
            let turn = match self.turn(&mut in_hand, gateway).await {
                Ok(Some(turn)) => turn,
                Ok(None) => continue,
                Err(LeaseLost) => return,
            };
            if !gateway.breaker.wait().is_zero() {
                // While the message waited, the provider proved to be down.
                continue;
            }
            match self
                .ensure_live_and_leased(&mut in_hand, gateway, route)
                .await
            {
                Ok(true) => {}
                Ok(false) => return self.drop_dead(in_hand).await,
                Err(LeaseLost) => return,
            }
            // That took time as well.
            let Some(admission) = gateway.breaker.admit() else {
                continue;
            };
            tried.insert(gateway.name.clone());
            let (attempt, result) = self.attempt(&in_hand, gateway).await;
            drop(turn);
            report(gateway, admission, &result);
            match result {
                Ok(accepted) => return self.on_accepted(in_hand, attempt, &accepted).await,
                Err(error) => {
                    note_failure(&in_hand.message, gateway, &error);
                    in_hand.message = in_hand.message.failed(attempt, gateway.is_idempotent());
                }
            }
        }
    }

    /// What `work` comes to, if there is still time for it.
    async fn unless_stopping<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = work => Some(done),
            () = self.stopping.cancelled() => None,
        }
    }

    /// Waits for a turn with a gateway. The lease covers the wait, so that no other replica
    /// starts to wait with the same message at the end of another line. `None`: the outbox
    /// stops, or the code has expired meanwhile.
    async fn turn<'a>(
        &self,
        in_hand: &mut LeasedMessage,
        gateway: &'a ProviderHandle,
    ) -> Result<Option<SemaphorePermit<'a>>, LeaseLost> {
        let caller = in_hand.caller.clone();
        let mut turn = std::pin::pin!(gateway.acquire(&caller));
        loop {
            let now = in_hand.clock.now();
            let life_left = now.duration_until(in_hand.message.expires_at);
            if life_left.is_zero() {
                return Ok(None);
            }
            let lease_left = now.duration_until(in_hand.message.due_at.unwrap_or(now));
            let renewal = lease_left.saturating_sub(LEASE_RENEWAL);
            tokio::select! {
                turn = &mut turn => return Ok(Some(turn)),
                () = self.stopping.cancelled() => return Ok(None),
                () = tokio::time::sleep(renewal.min(life_left)) => {
                    if renewal < life_left {
                        self.renew(in_hand, gateway).await?;
                    }
                }
            }
        }
    }

    /// The provider to try now: the first in order that was not tried in this round, has
    /// not refused the message for good, and is not known to be down. Providers that may
    /// have the message already come after the others.
    fn choose<'a>(
        &self,
        message: &OutboxMessage,
        route: &'a Route,
        tried: &HashSet<String>,
        now: Timestamp,
    ) -> NextStep<'a> {
        if self.stopping.is_cancelled() {
            return NextStep::End(NextState::Queued(now));
        }
        let history = &message.history;
        let mut left: Vec<&ProviderHandle> = route
            .order(message.predecessors)
            .map(|gateway| &**gateway)
            .filter(|gateway| !history.is_rejected_by(&gateway.name))
            .collect();
        if left.is_empty() {
            return NextStep::End(NextState::Failed);
        }
        left.retain(|gateway| history.permits_copy_with(&gateway.name, gateway.is_idempotent()));
        if left.is_empty() {
            return NextStep::GiveUp;
        }
        left.sort_by_key(|gateway| {
            let copies = history.copies_with(&gateway.name);
            if gateway.is_idempotent() { 0 } else { copies }
        });
        let untried = left.iter().filter(|gateway| !tried.contains(&gateway.name));
        let waits: Vec<(&ProviderHandle, Duration)> = untried
            .map(|gateway| (*gateway, gateway.breaker.wait()))
            .collect();
        if let Some((gateway, _)) = waits.iter().find(|(_, wait)| wait.is_zero()) {
            return NextStep::Try(gateway);
        }
        let pause = if tried.is_empty() {
            // Nobody was asked about it, so it has nothing to wait for but that somebody
            // may be; then such messages are found in their order.
            if let Some((gateway, _)) = waits
                .iter()
                .find(|(gateway, _)| gateway.breaker.is_half_open())
            {
                return NextStep::Await(gateway);
            }
            waits
                .iter()
                .map(|(_, wait)| *wait)
                .min()
                .unwrap_or_default()
        } else {
            history.retry_backoff(left.len(), &mut os_rng())
        };
        // Whoever finds it when its code has died drops it.
        NextStep::End(NextState::Queued(
            now.saturating_add(pause).min(message.expires_at.max(now)),
        ))
    }

    /// Makes sure that the code was alive a moment ago, that the lease lasts for an
    /// attempt, and that the store shows which provider is tried; says whether the code
    /// lives.
    async fn ensure_live_and_leased(
        &self,
        in_hand: &mut LeasedMessage,
        gateway: &ProviderHandle,
        route: &Route,
    ) -> Result<bool, LeaseLost> {
        let needed = gateway.options.timeout + LEASE_RESERVE;
        let first = route.first(in_hand.message.predecessors);
        let is_noted = |message: &OutboxMessage| message.open_attempt(first) == Some(&gateway.name);
        // Each of the two takes time, and so may undo the other.
        loop {
            let due_at = in_hand.message.due_at.unwrap_or(in_hand.message.updated_at);
            if in_hand.clock.now() >= in_hand.message.expires_at {
                return Ok(false);
            } else if in_hand.clock.requested_at().elapsed() >= MAX_LIVENESS_AGE {
                if !self.is_code_live(in_hand).await? {
                    return Ok(false);
                }
            } else if !is_noted(&in_hand.message)
                || in_hand.clock.now().duration_until(due_at) < needed
            {
                let now = in_hand.clock.now();
                let until = now.saturating_add(gateway.options.timeout + LEASE_MARGIN);
                let message = in_hand.message.clone();
                let message = message.attempting(&gateway.name, until, now);
                self.write(in_hand, message).await?;
            } else {
                return Ok(true);
            }
        }
    }

    /// Renews the lease of a message that waits for a turn with a gateway. It was not given
    /// to that gateway yet.
    async fn renew(
        &self,
        in_hand: &mut LeasedMessage,
        gateway: &ProviderHandle,
    ) -> Result<(), LeaseLost> {
        let now = in_hand.clock.now();
        let until = now.saturating_add(gateway.options.timeout + LEASE_MARGIN);
        let mut message = in_hand
            .message
            .clone()
            .transition_to(NextState::Leased(until), now);
        message.provider.clone_from(&gateway.name);
        self.write(in_hand, message).await
    }

    /// Looks whether the code is alive.
    async fn is_code_live(&self, in_hand: &mut LeasedMessage) -> Result<bool, LeaseLost> {
        let look = self.tools.batcher.read(in_hand.key);
        // Whoever takes the message over when the lease has ended knows as much.
        let seen = look.await.map_err(|_| LeaseLost)?;
        in_hand.clock = seen.clock;
        let (challenge, now) = (in_hand.message.challenge, seen.clock.now());
        let Some(record) = seen.record.filter(|record| !record.is_dead(challenge, now)) else {
            return Ok(false);
        };
        let policy = self.tools.policy(&in_hand.caller, &in_hand.purpose);
        if policy.is_some_and(|policy| record.has_live(challenge, policy, now)) {
            return Ok(true);
        }
        // For this configuration alone; the lease ends, and another replica may judge.
        Err(LeaseLost)
    }

    /// Drops a message whose code is dead.
    async fn drop_dead(&self, in_hand: LeasedMessage) {
        tracing::warn!(message_id = %in_hand.message.id, "[OTP] Message dropped: code expired or used");
        self.finish(in_hand, NextState::Dropped).await;
    }

    async fn on_accepted(
        &self,
        mut in_hand: LeasedMessage,
        attempt: LoggedAttempt,
        accepted: &ProviderReceipt,
    ) {
        let recipient = in_hand.message.content().map(|content| &content.recipient);
        tracing::info!(
            message_id = %in_hand.message.id,
            recipient = recipient.map(tracing::field::display),
            provider = attempt.provider,
            provider_id = accepted.provider_id,
            attempts = in_hand.message.history.count + 1,
            "[OTP] Message accepted by provider"
        );
        self.note_sent(&in_hand.message, &attempt);
        let message = in_hand.message.clone().sent(attempt);
        // Nothing is to be done where that was lost: another replica sends it once more.
        if self.write(&mut in_hand, message).await.is_ok() {
            self.tools.metrics.ended(MessageOutcome::Sent);
        }
    }

    async fn finish(&self, mut in_hand: LeasedMessage, then: NextState) {
        if then == NextState::Failed {
            let recipient = in_hand.message.content().map(|content| &content.recipient);
            tracing::error!(
                message_id = %in_hand.message.id,
                recipient = recipient.map(tracing::field::display),
                attempts = in_hand.message.history.count,
                "[OTP] Message failed permanently"
            );
        }
        let how = match then {
            NextState::Failed => Some(MessageOutcome::Failed),
            NextState::Dropped => Some(MessageOutcome::Dropped),
            NextState::Leased(_) | NextState::Queued(_) => None,
        };
        self.put_down(&mut in_hand, then, how).await;
    }

    /// Ends a message that may have arrived as often as it is allowed to.
    async fn give_up(&self, mut in_hand: LeasedMessage) {
        let recipient = in_hand.message.content().map(|content| &content.recipient);
        tracing::error!(
            message_id = %in_hand.message.id,
            recipient = recipient.map(tracing::field::display),
            attempts = in_hand.message.history.count,
            "[OTP] Message given up: it may have arrived, and no provider confirmed it"
        );
        self.put_down(
            &mut in_hand,
            NextState::Failed,
            Some(MessageOutcome::Undecided),
        )
        .await;
    }

    async fn put_down(
        &self,
        in_hand: &mut LeasedMessage,
        then: NextState,
        how: Option<MessageOutcome>,
    ) {
        let now = in_hand.clock.now();
        let message = in_hand.message.clone().transition_to(then, now);
        let written = self.write(in_hand, message).await.is_ok();
        if let Some(how) = how.filter(|_| written) {
            self.tools.metrics.ended(how);
        }
    }

    /// Counts a message that a provider has taken, by the channel that was asked for.
    fn note_sent(&self, message: &OutboxMessage, attempt: &LoggedAttempt) {
        let recipient = message.content().map(|content| &content.recipient);
        let country = recipient.map_or(CountryCode::NONE, CountryCode::of);
        let delay = message.created_at.duration_until(attempt.ended_at);
        let metrics = &self.tools.metrics;
        metrics.sent(
            message.challenge,
            &attempt.provider,
            message.channel,
            country,
            delay,
        );
    }

    /// Writes what became of a message.
    async fn write(
        &self,
        in_hand: &mut LeasedMessage,
        message: OutboxMessage,
    ) -> Result<(), LeaseLost> {
        let LeasedMessage { key, version, .. } = *in_hand;
        let random = &mut os_rng();
        let change = MessageWrite {
            key,
            expected: Some(version),
            version: RowVersion::random(random),
            message: self.tools.keys.seal_message(&key, message.clone(), random),
        };
        let version = change.version;
        if !self.tools.settle(change).await {
            tracing::debug!(message_id = %message.id, "[OTP] Message lease lost to another replica");
            return Err(LeaseLost);
        }
        in_hand.version = version;
        in_hand.message = message;
        Ok(())
    }
}
