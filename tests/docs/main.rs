//! The documentation is a book whose figures, keys and names are those of the code.
//! What is made of the code is written by `UPDATE_DOCS=1 cargo test --test docs`.

mod api;
mod configuration;
mod links;
mod page;
#[allow(dead_code, reason = "each test program uses a part of it")]
#[path = "../integration/support/pages.rs"]
mod pages;
#[allow(dead_code, reason = "each test program uses a part of it")]
#[path = "../integration/support/repository.rs"]
mod repository;
mod source;
mod threats;
mod versions;
