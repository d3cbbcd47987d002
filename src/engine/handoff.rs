//! Hand-over of a written message from the engine to the outbox, which depends on the engine.

use std::fmt;

use crate::store::{RowVersion, StoreClock};
use otpd_rules::{CallerName, OutboxMessage, Purpose, RecordKey};

/// A message whose lease this replica holds.
#[derive(Debug)]
pub struct LeasedMessage {
    /// Key of the record whose code it carries.
    pub key: RecordKey,
    /// Caller of that record.
    pub caller: CallerName,
    /// Purpose of that record.
    pub purpose: Purpose,
    /// Version under which the store has the message.
    pub version: RowVersion,
    /// The message.
    pub message: OutboxMessage,
    /// The store's clock at the load that saw the code live.
    pub clock: StoreClock,
}

/// Receiver of the message of one send.
pub trait MessageHandoff: fmt::Debug + Send {
    /// Takes the message once it is committed.
    fn accept(self: Box<Self>, message: LeasedMessage);
}
