//! What messages say.

mod segments;

pub use segments::{Encoding, Segments, is_gsm, segments};
