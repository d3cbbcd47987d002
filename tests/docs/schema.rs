//! Generation of src/config/otpd.schema.json, the JSON schema of the configuration file, from
//! the structures that the configuration is deserialized into. Editors complete and check
//! otpd.toml with it.

use otpd_delivery::preset_names;
use serde_json::{Map, Value, json};
use syn::Fields;

use crate::{
    configuration::FLATTENED_FIELD,
    page, pages,
    source::{Shape, Sources, documentation, field_name, has_serde, shape},
};

/// Schema that `otpd config-schema` prints.
const FILE: &str = "src/config/otpd.schema.json";

/// Names of callers, purposes and providers.
const NAME: &str = "^[a-z][a-z0-9_-]{0,31}$";
const LOCALE: &str = "^[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8})*$";
const DURATION: &str = r"^\s*(0|([0-9]+(\.[0-9]+)?\s*[A-Za-zµ]+\s*)+)\s*$";

/// Properties of a table, and the names of the required ones.
#[derive(Default)]
struct Table {
    properties: Map<String, Value>,
    required: Vec<String>,
    /// Schema of the keys that match [`LOCALE`].
    by_locale: Option<Value>,
    description: String,
}

impl Table {
    fn read(sources: &Sources, name: &str) -> Self {
        let structure = sources.structure(name);
        let structure =
            structure.unwrap_or_else(|| panic!("the sources have no {name}; correct tests/docs"));
        let Fields::Named(fields) = &structure.fields else {
            panic!("{name}: a table has named fields");
        };
        let mut table = Self {
            description: documentation(&structure.attrs).meaning,
            ..Self::default()
        };
        for field in &fields.named {
            if has_serde(&field.attrs, "skip") {
                continue;
            }
            let key = field_name(field);
            let shape = shape(&field.ty);
            let meaning = documentation(&field.attrs).meaning;
            let mut value = schema_of(sources, &shape, &meaning);
            if (name, key.as_str()) == FLATTENED_FIELD {
                table.by_locale = Some(value["additionalProperties"].take());
                continue;
            }
            if shape.name == "SecretString" && name == "TopLevelSettings" {
                let meaning = format!("File that contains `{key}`, instead of the value itself.");
                let file = json!({"type": "string", "description": meaning});
                table.properties.insert(format!("{key}_file"), file);
            }
            match sources.default_of(structure, field) {
                // Code by hand deserializes it, and requires no key.
                None if name == FLATTENED_FIELD.0 => {}
                None => table.required.push(key.clone()),
                Some(default) => {
                    if let Some(default) = default_value(&value, &default) {
                        value["default"] = default;
                    }
                }
            }
            value["description"] = meaning.into();
            table.properties.insert(key, value);
        }
        table
    }

    fn schema(self) -> Value {
        let mut schema = json!({
            "type": "object",
            "description": self.description,
            "properties": self.properties,
            "additionalProperties": false,
        });
        if !self.required.is_empty() {
            schema["required"] = self.required.into();
        }
        if let Some(texts) = self.by_locale {
            schema["patternProperties"] = json!({ LOCALE: texts });
        }
        schema
    }
}

fn schema_of(sources: &Sources, shape: &Shape, meaning: &str) -> Value {
    if let Some(words) = sources.words(&shape.name) {
        return json!({"type": "string", "enum": words});
    }
    let scalar = json!({"type": ["string", "number", "boolean"]});
    match (shape.name.as_str(), shape.inside.as_slice()) {
        ("bool", _) => json!({"type": "boolean"}),
        ("u8" | "u16" | "u32" | "u64" | "usize", _) => integer(&shape.name, meaning),
        ("f64", _) => match bounds(meaning) {
            Some((min, max)) => json!({"type": "number", "minimum": min, "maximum": max}),
            None => json!({"type": "number"}),
        },
        ("Duration", _) => json!({"type": "string", "pattern": DURATION}),
        ("SocketAddr", _) => json!({"type": "string", "pattern": "^.+:[0-9]+$"}),
        ("Purpose", _) => json!({"type": "string", "pattern": NAME}),
        ("Region", _) => json!({"type": "string", "pattern": "^[A-Za-z]{2}$"}),
        ("Locale", _) => json!({"type": "string", "pattern": LOCALE}),
        ("TokenDigest", _) => json!({"type": "string", "pattern": "^[0-9A-Fa-f]{64}$"}),
        (
            "String" | "SecretString" | "PathBuf" | "AuditLog" | "RecipientPattern"
            | "CertificateName",
            _,
        ) => json!({"type": "string"}),
        ("ConfigScalar", _) => scalar,
        ("ScalarList", _) => json!({"anyOf": [{"type": "array", "items": scalar}, scalar]}),
        ("Value", _) => json!({}),
        ("Vec", [element]) if sources.structure(&element.name).is_some() => {
            json!({"type": "array", "items": Table::read(sources, &element.name).schema()})
        }
        // Every list can also be one text, with commas between the elements.
        ("Vec", [element]) => {
            let elements = schema_of(sources, element, "");
            let one = if element.name == "TokenDigest" {
                elements.clone()
            } else {
                json!({"type": "string"})
            };
            json!({"anyOf": [{"type": "array", "items": elements}, one]})
        }
        ("BTreeMap", [key, value]) => {
            let values = schema_of(sources, value, "");
            let mut table = json!({"type": "object", "additionalProperties": values});
            if key.name == "Purpose" {
                table["propertyNames"] = json!({"pattern": NAME});
            }
            table
        }
        (name, _) if sources.structure(name).is_some() => Table::read(sources, name).schema(),
        (name, _) => panic!("{name}: add its schema to tests/docs/schema.rs"),
    }
}

fn integer(type_name: &str, meaning: &str) -> Value {
    let mut schema = json!({"type": "integer", "minimum": 0});
    match type_name {
        "u8" => schema["maximum"] = u8::MAX.into(),
        "u16" => schema["maximum"] = u16::MAX.into(),
        _ => {}
    }
    if let Some((min, max)) = bounds(meaning) {
        schema["minimum"] = min.into();
        schema["maximum"] = max.into();
    } else if meaning.contains("at least 1") {
        schema["minimum"] = 1.into();
    }
    schema
}

/// Returns the bounds that a description has: `1 to 4096`.
fn bounds(meaning: &str) -> Option<(u64, u64)> {
    let words: Vec<&str> = meaning
        .split_whitespace()
        .map(|word| word.trim_end_matches(['.', ',', ';']))
        .collect();
    words.windows(3).find_map(|window| match window {
        [min, "to", max] => Some((min.parse().ok()?, max.parse().ok()?)),
        _ => None,
    })
}

/// Returns the value of a default in the reference page. `None` if it is prose.
fn default_value(schema: &Value, default: &str) -> Option<Value> {
    let literal = default.strip_prefix('`')?.strip_suffix('`')?;
    if literal.contains('`') {
        return None;
    }
    match schema["type"].as_str() {
        Some("string") => Some(literal.into()),
        _ => serde_json::from_str(literal).ok(),
    }
}

/// Returns the schema of `[providers.NAME]`: one for each kind of provider.
fn provider(sources: &Sources) -> Value {
    let kinds = [
        ("log", None),
        ("smtp", Some("SmtpTable")),
        ("http", Some("HttpTable")),
    ];
    let kinds = kinds.map(|(kind, own)| {
        let mut table = Table::read(sources, "CommonSettings");
        let own = own.map(|own| Table::read(sources, own)).unwrap_or_default();
        table.properties.extend(own.properties);
        let name = json!({"type": "string", "enum": [kind], "description": "Kind of provider."});
        table.properties.insert("kind".to_owned(), name);
        if kind != "http" {
            table.required.push("kind".to_owned());
            return table.schema();
        }
        let preset = json!({
            "type": "string",
            "enum": preset_names().collect::<Vec<_>>(),
            "description": "Description of a known gateway, which the other keys override.",
        });
        table.properties.insert("preset".to_owned(), preset);
        let mut schema = table.schema();
        schema["anyOf"] = json!([{"required": ["kind"]}, {"required": ["preset"]}]);
        schema
    });
    json!({"anyOf": kinds})
}

/// Returns the schema of the configuration file.
pub fn schema() -> Value {
    let sources = Sources::read();
    let policy = json!({"$ref": "#/definitions/policy"});
    let named = |value: Value| {
        let names = json!({"pattern": NAME});
        json!({"type": "object", "propertyNames": names, "additionalProperties": value})
    };
    let mut caller = Table::read(&sources, "CallerTable");
    caller
        .properties
        .insert("policy".to_owned(), policy.clone());
    let mut root = Table::read(&sources, "TopLevelSettings");
    root.description = String::from("Configuration file of otpd.");
    for (name, value) in [
        ("policy", policy.clone()),
        ("purposes", named(policy)),
        ("callers", named(caller.schema())),
        ("providers", named(provider(&sources))),
    ] {
        root.properties.insert(name.to_owned(), value);
    }
    let mut schema = root.schema();
    schema["$schema"] = "http://json-schema.org/draft-07/schema#".into();
    schema["title"] = "otpd.toml".into();
    schema["definitions"] = json!({"policy": Table::read(&sources, "PurposePolicy").schema()});
    schema
}

#[test]
fn schema_file_matches_the_code() {
    let text = serde_json::to_string_pretty(&schema()).expect("a schema is JSON");
    pages::hold_to(FILE, page::COMMAND, &format!("{text}\n"));
}
