//! Load generator of benches/compare for services other than otpd, with the bare gRPC
//! server of the comparison, the collector of otpd's spans, and the measurement of
//! start-up. `otpd bench` is the generator for otpd itself.

mod echo;
mod http;
mod latency;
mod serving;
mod sink;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
struct Arguments {
    /// Argument that `cargo bench` gives to every benchmark; not for people.
    #[arg(long, hide = true)]
    bench: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Sends and verifies codes over HTTP/1.1, and prints the results as JSON.
    Http(http::Options),
    /// Serves one gRPC method that returns its input.
    EchoServe(echo::ServeOptions),
    /// Calls that method, and prints the results as JSON.
    EchoLoad(echo::LoadOptions),
    /// Accepts spans over OTLP, and discards them.
    Sink(sink::Options),
    /// Starts a server, and prints the time until its health is SERVING.
    Serving(serving::Options),
}

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let Some(command) = Arguments::parse().command else {
        println!("The comparison is run by benches/compare/run.");
        return ExitCode::SUCCESS;
    };
    // One thread, because the measured services share the cores with this process.
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    if matches!(command, Command::EchoServe(_)) {
        runtime = tokio::runtime::Builder::new_multi_thread();
    }
    let runtime = runtime
        .enable_all()
        .build()
        .expect("the system provides threads and a poll");
    let outcome = match command {
        Command::Http(options) => runtime.block_on(http::run(&options)),
        Command::EchoServe(options) => runtime.block_on(echo::serve(&options)),
        Command::EchoLoad(options) => runtime.block_on(echo::load(&options)),
        Command::Sink(options) => runtime.block_on(sink::serve(&options)),
        Command::Serving(options) => runtime.block_on(serving::run(&options)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compare_load: {error}");
            ExitCode::FAILURE
        }
    }
}
