//! Dispatch of one message: it goes from provider to provider until one accepts it, its
//! code is no longer valid, or no provider is left.

use std::{collections::HashSet, future::Future, time::Duration};

use tokio::sync::SemaphorePermit;
use tokio_util::sync::CancellationToken;

use super::{
    LEASE_MARGIN, LEASE_RENEWAL, LEASE_RESERVE, LeasedMessage, MAX_LIVENESS_AGE, OutboxContext,
    attempt::{log_failure, report_to_breaker},
};
use crate::keys::os_rng;
use otpd_delivery::{ProviderHandle, Route};
use otpd_rules::{NextState, OutboxMessage, Timestamp};

/// Dispatcher of the messages that this replica holds leases of.
#[derive(Debug)]
pub(super) struct Dispatcher {
    pub context: OutboxContext,
    stopping: CancellationToken,
}

/// Next step of the dispatch of a message.
enum NextStep<'a> {
    /// Attempt with this provider.
    Try(&'a ProviderHandle),
    /// Wait for the probe of this provider's half-open circuit breaker.
    Await(&'a ProviderHandle),
    /// Write this state, and stop for now.
    Finish(NextState),
    /// Fail the message: as many copies as allowed may have arrived already.
    GiveUp,
}

/// Error: this replica no longer holds the lease of the message.
pub(super) struct LeaseLost;

impl Dispatcher {
    pub fn new(context: OutboxContext, stopping: CancellationToken) -> Self {
        Self { context, stopping }
    }

    /// Dispatches a message as far as possible now.
    pub async fn dispatch(&self, mut leased: LeasedMessage) {
        let Some(route) = self.context.route(&leased) else {
            // The replica that leased the message has a route for it, so the configurations differ.
            let now = leased.clock.now();
            return self.finish(leased, NextState::Queued(now)).await;
        };
        let mut tried = HashSet::new();
        let mut has_waited = false;
        loop {
            let now = leased.clock.now();
            if now >= leased.message.expires_at {
                return self.drop_message(leased).await;
            }
            let gateway = match self.choose_provider(&leased.message, route, &tried, now) {
                NextStep::Try(gateway) => gateway,
                NextStep::Await(gateway) if !has_waited => {
                    has_waited = true;
                    self.run_unless_stopping(gateway.breaker.wait_for_probe())
                        .await;
                    continue;
                }
                NextStep::Await(gateway) => {
                    let state = NextState::Queued(now.saturating_add(gateway.breaker.wait()));
                    return self.finish(leased, state).await;
                }
                NextStep::Finish(state) => return self.finish(leased, state).await,
                NextStep::GiveUp => return self.give_up(leased).await,
            };
            let permit = match self.acquire_permit(&mut leased, gateway).await {
                Ok(Some(permit)) => permit,
                Ok(None) => continue,
                Err(LeaseLost) => return,
            };
            if !gateway.breaker.wait().is_zero() {
                // The circuit breaker opened while the message waited.
                continue;
            }
            match self
                .ensure_live_and_leased(&mut leased, gateway, route)
                .await
            {
                Ok(true) => {}
                Ok(false) => return self.drop_message(leased).await,
                Err(LeaseLost) => return,
            }
            // The circuit breaker may have opened in the meantime.
            let Some(breaker_permit) = gateway.breaker.admit() else {
                continue;
            };
            tried.insert(gateway.name.clone());
            let (attempt, result) = self.context.attempt(&leased, gateway).await;
            drop(permit);
            report_to_breaker(gateway, breaker_permit, &result);
            match result {
                Ok(accepted) => return self.on_accepted(leased, attempt, &accepted).await,
                Err(error) => {
                    log_failure(&leased.message, gateway, &error);
                    leased.message = leased.message.failed(attempt, gateway.is_idempotent());
                }
            }
        }
    }

    /// Returns the output of `work`, or `None` if the outbox stops first.
    async fn run_unless_stopping<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = work => Some(done),
            () = self.stopping.cancelled() => None,
        }
    }

    /// Waits for a concurrency permit of a provider. The lease is renewed during the wait, so
    /// that no other replica queues the same message once more. Returns `None` if the outbox
    /// stops, or if the code expires first.
    async fn acquire_permit<'a>(
        &self,
        leased: &mut LeasedMessage,
        gateway: &'a ProviderHandle,
    ) -> Result<Option<SemaphorePermit<'a>>, LeaseLost> {
        let caller = leased.caller.clone();
        let mut acquiring = std::pin::pin!(gateway.acquire(&caller));
        loop {
            let now = leased.clock.now();
            let life_left = now.duration_until(leased.message.expires_at);
            if life_left.is_zero() {
                return Ok(None);
            }
            let lease_left = now.duration_until(leased.message.due_at.unwrap_or(now));
            let renewal = lease_left.saturating_sub(LEASE_RENEWAL);
            tokio::select! {
                permit = &mut acquiring => return Ok(Some(permit)),
                () = self.stopping.cancelled() => return Ok(None),
                () = tokio::time::sleep(renewal.min(life_left)) => {
                    if renewal < life_left {
                        self.renew(leased, gateway).await?;
                    }
                }
            }
        }
    }

    /// Chooses the provider for the next attempt: the first one in the order of the route
    /// that was not tried in this round, has not rejected the message permanently, and has
    /// no open circuit breaker. Providers that may already have the message come last.
    fn choose_provider<'a>(
        &self,
        message: &OutboxMessage,
        route: &'a Route,
        tried: &HashSet<String>,
        now: Timestamp,
    ) -> NextStep<'a> {
        if self.stopping.is_cancelled() {
            return NextStep::Finish(NextState::Queued(now));
        }
        let history = &message.history;
        let mut left: Vec<&ProviderHandle> = route
            .order(message.predecessors)
            .map(|gateway| &**gateway)
            .filter(|gateway| !history.is_rejected_by(&gateway.name))
            .collect();
        if left.is_empty() {
            return NextStep::Finish(NextState::Failed);
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
            // No provider was tried, so the message waits only until one can be tried again.
            // Messages that wait for this are then found in their order.
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
        // The replica that finds the message after its code expired drops it.
        NextStep::Finish(NextState::Queued(
            now.saturating_add(pause).min(message.expires_at.max(now)),
        ))
    }

    /// Ensures that the code was read as valid a moment ago, that the lease covers the
    /// attempt, and that the provider of the attempt is recorded in the store. Returns
    /// whether the code is valid.
    async fn ensure_live_and_leased(
        &self,
        leased: &mut LeasedMessage,
        gateway: &ProviderHandle,
        route: &Route,
    ) -> Result<bool, LeaseLost> {
        let needed = gateway.options.timeout + LEASE_RESERVE;
        let first = route.first(leased.message.predecessors);
        let is_recorded =
            |message: &OutboxMessage| message.open_attempt(first) == Some(&gateway.name);
        // Each of the two operations takes time, and so may invalidate the other.
        loop {
            let due_at = leased.message.due_at.unwrap_or(leased.message.updated_at);
            if leased.clock.now() >= leased.message.expires_at {
                return Ok(false);
            } else if leased.clock.requested_at().elapsed() >= MAX_LIVENESS_AGE {
                if !self.is_code_live(leased).await? {
                    return Ok(false);
                }
            } else if !is_recorded(&leased.message)
                || leased.clock.now().duration_until(due_at) < needed
            {
                let now = leased.clock.now();
                let until = now.saturating_add(gateway.options.timeout + LEASE_MARGIN);
                let message = leased.message.clone();
                let message = message.attempting(&gateway.name, until, now);
                self.write(leased, message).await?;
            } else {
                return Ok(true);
            }
        }
    }

    /// Renews the lease of a message that waits for a permit. The message has not been
    /// passed to the provider yet.
    async fn renew(
        &self,
        leased: &mut LeasedMessage,
        gateway: &ProviderHandle,
    ) -> Result<(), LeaseLost> {
        let now = leased.clock.now();
        let until = now.saturating_add(gateway.options.timeout + LEASE_MARGIN);
        let mut message = leased
            .message
            .clone()
            .transition_to(NextState::Leased(until), now);
        message.provider.clone_from(&gateway.name);
        self.write(leased, message).await
    }

    /// Reads the record, and returns whether the code is valid.
    async fn is_code_live(&self, leased: &mut LeasedMessage) -> Result<bool, LeaseLost> {
        let read = self.context.batcher.read(leased.key);
        // The replica that reclaims the message after the lease reads the record again.
        let seen = read.await.map_err(|_| LeaseLost)?;
        leased.clock = seen.clock;
        let (challenge, now) = (leased.message.challenge, seen.clock.now());
        let Some(record) = seen.record.filter(|record| !record.is_dead(challenge, now)) else {
            return Ok(false);
        };
        let policy = self.context.policy(&leased.caller, &leased.purpose);
        if policy.is_some_and(|policy| record.has_live(challenge, policy, now)) {
            return Ok(true);
        }
        // The code is not valid only by this replica's configuration. The lease expires, and
        // another replica may decide differently.
        Err(LeaseLost)
    }
}
