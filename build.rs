//! Generates the server code of the contract; needs no installed `protoc`.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=migrations");

    let descriptors = protox::compile(["otp/v1/otp.proto"], ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    // The reflection services return exactly the descriptors that the code was generated from.
    fs::write(out.join("otp_descriptor.bin"), descriptors.encode_to_vec())?;

    tonic_prost_build::configure()
        .build_client(false)
        .extern_path(".otp.v1", "::otpd_contract::v1")
        .codec_path("crate::grpc::codec::OtpCodec")
        .compile_fds(descriptors)?;
    Ok(())
}
