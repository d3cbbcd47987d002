//! Generates the messages and the client of the contract, without a `protoc` on the machine.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    const PROTO: &str = "../../proto";
    println!("cargo:rerun-if-changed={PROTO}");
    let descriptors = protox::compile(["otp/v1/otp.proto"], [PROTO])?;
    tonic_prost_build::configure()
        .build_server(false)
        .compile_fds(descriptors)?;
    Ok(())
}
