//! Content of the log and the audit log, their control at run time, and log backpressure.

mod backlog;
mod control;
mod lines;
