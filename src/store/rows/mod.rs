//! Rows of the tables, as both databases return them, and their columns.

mod message;
mod record;

pub(super) use message::{MessageRow, history_column, key_bytes, message_state_columns};
pub(super) use record::{RecordRow, count_column, memory_column, record_state_columns};
