//! Generates the messages and the client of the contract, without a `protoc` on the machine.

use std::error::Error;

use prost_types::{
    DescriptorProto, FieldDescriptorProto,
    field_descriptor_proto::{Label, Type},
};
use tonic_prost_build::Builder;

fn main() -> Result<(), Box<dyn Error>> {
    const PROTO: &str = "../../proto";
    println!("cargo:rerun-if-changed={PROTO}");
    let descriptors = protox::compile(["otp/v1/otp.proto"], [PROTO])?;
    let mut builder = tonic_prost_build::configure().build_server(false);
    let contract = descriptors
        .file
        .iter()
        .filter(|file| file.package() == "otp.v1");
    for message in contract.flat_map(|file| &file.message_type) {
        builder = with_json(builder, message);
    }
    builder.compile_fds(descriptors)?;
    Ok(())
}

/// Derives the JSON form of a message: requests are read, and all other messages are written.
fn with_json(builder: Builder, message: &DescriptorProto) -> Builder {
    let path = format!(".otp.v1.{}", message.name());
    let is_request = message.name().ends_with("Request");
    let derived = if is_request {
        "#[derive(serde::Deserialize)] #[serde(default, deny_unknown_fields)]"
    } else {
        "#[derive(serde::Serialize)]"
    };
    message.field.iter().fold(
        builder.message_attribute(&path, derived),
        |builder, field| {
            let attribute = if is_request {
                read_attribute(field)
            } else {
                written_attribute(field)
            };
            builder.field_attribute(format!("{path}.{}", field.name()), attribute)
        },
    )
}

/// Reads both names that proto3 gives a field in JSON, by the reader of its type.
fn read_attribute(field: &FieldDescriptorProto) -> String {
    let reader = match (field.r#type(), field.label()) {
        (Type::String, Label::Optional) => "text".to_owned(),
        (Type::Bool, Label::Optional) => "boolean".to_owned(),
        (Type::Enum, Label::Optional) => {
            format!("enumeration::<crate::v1::{}, _>", type_name(field))
        }
        (Type::Message, Label::Optional) => "message".to_owned(),
        // The only repeated field of a request.
        (Type::Message, Label::Repeated) => "text_map".to_owned(),
        other => panic!("{}: add a reader of {other:?} to src/json.rs", field.name()),
    };
    let alias = if field.json_name() == field.name() {
        String::new()
    } else {
        format!(", alias = \"{}\"", field.name())
    };
    format!(
        "#[serde(rename = \"{}\"{alias}, deserialize_with = \"crate::json::{reader}\")]",
        field.json_name()
    )
}

/// Writes an unset time and an empty text as nothing, and every other value as it is.
fn written_attribute(field: &FieldDescriptorProto) -> String {
    let form = match (field.r#type(), field.label()) {
        (Type::String, Label::Optional) => {
            ", skip_serializing_if = \"String::is_empty\"".to_owned()
        }
        (Type::Enum, Label::Optional) => format!(
            ", serialize_with = \"crate::json::enumeration_name::<crate::v1::{}, _>\"",
            type_name(field)
        ),
        (Type::Message, Label::Optional) => {
            assert_eq!(
                field.type_name(),
                ".google.protobuf.Timestamp",
                "{}",
                field.name()
            );
            ", serialize_with = \"crate::json::timestamp\", skip_serializing_if = \"Option::is_none\""
                .to_owned()
        }
        (Type::Bool | Type::Uint32, Label::Optional) | (Type::Message, Label::Repeated) => {
            String::new()
        }
        other => panic!("{}: add a writer of {other:?} to src/json.rs", field.name()),
    };
    format!("#[serde(rename = \"{}\"{form})]", field.json_name())
}

/// Name of the type of a field, without its package.
fn type_name(field: &FieldDescriptorProto) -> &str {
    field.type_name().rsplit('.').next().unwrap_or_default()
}
