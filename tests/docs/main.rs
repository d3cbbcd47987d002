//! Checks of the documentation against the code: figures, keys and names. `UPDATE_DOCS=1
//! cargo test --test docs` writes the generated parts.

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
mod schema;
mod schema_examples;
mod source;
mod threats;
mod versions;
