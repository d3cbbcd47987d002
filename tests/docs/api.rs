//! Generation of docs/api.md from the descriptors that the server publishes and from the
//! comments in the contract.

use std::collections::{BTreeMap, BTreeSet};

use otpd::{grpc::v1::FILE_DESCRIPTOR_SET, metrics::code_name, reason::Reason};
use prost::Message as _;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    FileDescriptorSet, ServiceDescriptorProto,
    field_descriptor_proto::{Label, Type},
};

use crate::page;

const PAGE: &str = "docs/api.md";
const PACKAGE: &str = ".otp.v1.";

// The numbers of fields in descriptor.proto, of which the paths to comments are made.
const MESSAGES: i32 = 4;
const ENUMS: i32 = 5;
const SERVICES: i32 = 6;
const MEMBERS: i32 = 2;

/// The contract with its comments.
struct Contract {
    file: FileDescriptorProto,
    comments: BTreeMap<Vec<i32>, String>,
}

impl Contract {
    fn read() -> Self {
        let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).expect("the build made it");
        let mut files = set.file.into_iter();
        let file = files
            .find(|file| file.package() == "otp.v1")
            .expect("the contract is in it");
        let comments = file
            .source_code_info
            .iter()
            .flat_map(|info| &info.location)
            .filter(|location| location.leading_comments.is_some())
            .map(|location| (location.path.clone(), one_line(location.leading_comments())))
            .collect();
        Self { file, comments }
    }

    /// Returns the comment of a part, without its name at the start.
    fn comment(&self, path: &[i32], name: &str) -> String {
        let comment = self
            .comments
            .get(path)
            .unwrap_or_else(|| panic!("the contract does not explain {name}"));
        match comment.strip_prefix(name) {
            Some(rest) => {
                let mut letters = rest.trim_start().chars();
                let first = letters.next().map(char::to_uppercase);
                first.into_iter().flatten().chain(letters).collect()
            }
            None => comment.clone(),
        }
    }

    fn written(&self) -> String {
        let mut parts = vec!["## Calls".to_owned()];
        let mut reply = BTreeSet::new();
        for (place, service) in (0..).zip(&self.file.service) {
            self.write_service(place, service, &mut reply, &mut parts);
        }
        parts.push("## Other messages".to_owned());
        for (place, message) in (0..).zip(&self.file.message_type) {
            if !reply.contains(message.name()) {
                let level = format!("### {}", message.name());
                parts.push(self.message(&[MESSAGES, place], message, &level));
            }
        }
        parts.push("## Enumerations".to_owned());
        for (place, choices) in (0..).zip(&self.file.enum_type) {
            parts.push(self.choices(&[ENUMS, place], choices));
        }
        parts.join("\n\n")
    }

    /// Writes each call with its request and its response.
    fn write_service(
        &self,
        place: i32,
        service: &ServiceDescriptorProto,
        reply: &mut BTreeSet<String>,
        parts: &mut Vec<String>,
    ) {
        let path = [SERVICES, place];
        parts.push(format!(
            "`otp.v1.{}`: {}",
            service.name(),
            decapitalized(&self.comment(&path, service.name()))
        ));
        for (member, call) in (0..).zip(&service.method) {
            let path = [SERVICES, place, MEMBERS, member];
            let comment = self.comment(&path, call.name());
            parts.push(format!("### {}\n\n{comment}", call.name()));
            for name in [call.input_type(), call.output_type()] {
                let name = name.trim_start_matches(PACKAGE);
                let messages = (0..).zip(&self.file.message_type);
                let (index, message) = messages
                    .into_iter()
                    .find(|(_, message)| message.name() == name)
                    .expect("the contract declares the types of its calls");
                let level = format!("#### {name}");
                parts.push(self.message(&[MESSAGES, index], message, &level));
                reply.insert(name.to_owned());
            }
        }
    }

    fn message(&self, path: &[i32], message: &DescriptorProto, heading: &str) -> String {
        let comment = self.comment(path, message.name());
        let rows = (0..).zip(&message.field).map(|(place, field)| {
            let path = [path, &[MEMBERS, place]].concat();
            vec![
                field.number().to_string(),
                format!("`{}`", field.name()),
                kind(message, field),
                self.comment(&path, ""),
            ]
        });
        let head = ["number", "field", "type", "meaning"];
        format!("{heading}\n\n{comment}\n\n{}", page::table(&head, rows))
    }

    fn choices(&self, path: &[i32], choices: &EnumDescriptorProto) -> String {
        let comment = self.comment(path, choices.name());
        let rows = (0..).zip(&choices.value).map(|(place, value)| {
            let path = [path, &[MEMBERS, place]].concat();
            vec![
                value.number().to_string(),
                format!("`{}`", value.name()),
                self.comment(&path, ""),
            ]
        });
        let table = page::table(&["number", "value", "meaning"], rows);
        format!("### {}\n\n{comment}\n\n{table}", choices.name())
    }
}

/// The type of a field, with a link to where it is explained.
fn kind(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let name = field.type_name().rsplit('.').next().unwrap_or_default();
    let entry = message
        .nested_type
        .iter()
        .find(|nested| nested.name() == name);
    if let Some(entry) = entry {
        let inner: Vec<String> = entry
            .field
            .iter()
            .map(|field| kind(message, field))
            .collect();
        return format!("map of {}", inner.join(" to "));
    }
    let kind = match field.r#type() {
        Type::Bool => "bool".to_owned(),
        Type::String => "string".to_owned(),
        Type::Uint32 => "uint32".to_owned(),
        Type::Message | Type::Enum if field.type_name().starts_with(PACKAGE) => {
            format!("[{name}](#{})", name.to_lowercase())
        }
        Type::Message => name.to_owned(),
        other => other
            .as_str_name()
            .trim_start_matches("TYPE_")
            .to_lowercase(),
    };
    match field.label() {
        Label::Repeated => format!("list of {kind}"),
        _ => kind,
    }
}

fn one_line(comment: &str) -> String {
    comment.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn decapitalized(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(char::to_lowercase);
    first.into_iter().flatten().chain(letters).collect()
}

#[test]
fn api_page_matches_the_contract() {
    page::hold_to(PAGE, "contract", &Contract::read().written());
}

/// The reasons in the table of docs/errors.md, with the status of each.
fn reasons_of_the_errors_page() -> Vec<(String, String)> {
    let page = page::read("docs/errors.md");
    let rows = page.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| ")?.split(" | ");
        let status = cells.next()?.to_owned();
        let reason = cells.next()?.strip_prefix('`')?.strip_suffix('`')?;
        Some((status, reason.to_owned()))
    });
    rows.filter(|(status, _)| status.chars().all(|it| it.is_uppercase() || it == '_'))
        .collect()
}

#[test]
fn api_page_lists_every_reason() {
    let mut by_status: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let reasons = reasons_of_the_errors_page();
    for (status, reason) in &reasons {
        let reply = format!("`{reason}`");
        by_status.entry(status.clone()).or_default().push(reply);
    }
    let rows = by_status
        .into_iter()
        .map(|(status, reasons)| vec![format!("`{status}`"), reasons.join(", ")]);
    page::hold_to(PAGE, "reasons", &page::table(&["status", "reasons"], rows));

    // And the page of reasons has those of the code.
    let reply: BTreeSet<(String, String)> = reasons.into_iter().collect();
    assert_eq!(reasons_of_the_code(), reply);
}

/// Returns the reasons of the code, with the status of each.
fn reasons_of_the_code() -> BTreeSet<(String, String)> {
    let entry = |reason: &Reason| {
        let status = code_name(i32::from(reason.code()));
        (status.to_owned(), reason.name().to_owned())
    };
    Reason::ALL.iter().map(entry).collect()
}
