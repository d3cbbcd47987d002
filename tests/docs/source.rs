//! Parser of the sources: structures, their defaults, and the doc comments of their
//! fields. So a key is explained only at its declaration.

use std::{collections::BTreeMap, fs, path::Path};

use syn::{
    Attribute, BinOp, Expr, ExprLit, Field, Fields, GenericArgument, ImplItem, Item, ItemEnum,
    ItemStruct, Lit, Member, Meta, PathArguments, Stmt, Type,
};

use crate::repository;

/// The types that configuration is read into.
pub struct Sources {
    structures: BTreeMap<String, ItemStruct>,
    choices: BTreeMap<String, ItemEnum>,
    /// Values of the fields in the `Default` of a type, by type.
    defaults: BTreeMap<String, BTreeMap<String, Expr>>,
}

/// A type, taken apart as far as a reader cares.
pub struct Shape {
    /// Its name, without `Option` and `Box` around it.
    pub name: String,
    /// Types inside of it: the element of a list, key and value of a table.
    pub inside: Vec<Shape>,
    /// True if it may be absent.
    pub optional: bool,
}

impl Sources {
    /// Reads every file below `src` and `crates`.
    pub fn read() -> Self {
        let mut sources = Self {
            structures: BTreeMap::new(),
            choices: BTreeMap::new(),
            defaults: BTreeMap::new(),
        };
        let folders = ["src", "crates"].map(|folder| repository::files_below(folder, "rs"));
        for file in folders.concat() {
            let text = fs::read_to_string(&file).expect("a source can be read");
            let parsed = syn::parse_file(&text)
                .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            for item in parsed.items {
                sources.take(item, &file);
            }
        }
        sources
    }

    fn take(&mut self, item: Item, file: &Path) {
        match item {
            Item::Struct(item) if matches!(item.fields, Fields::Named(_)) => {
                let name = item.ident.to_string();
                let is_read = derives(&item.attrs, "Deserialize");
                let twice = is_read
                    && self
                        .structures
                        .get(&name)
                        .is_some_and(|known| derives(&known.attrs, "Deserialize"));
                assert!(
                    !twice,
                    "{}: there is another {name} that is read",
                    file.display()
                );
                if is_read || !self.structures.contains_key(&name) {
                    self.structures.insert(name, item);
                }
            }
            // One that is made of a text by hand is not a choice of its variants' names.
            Item::Enum(item)
                if derives(&item.attrs, "Deserialize")
                    && !has_serde(&item.attrs, "from")
                    && !has_serde(&item.attrs, "try_from") =>
            {
                self.choices.insert(item.ident.to_string(), item);
            }
            Item::Impl(item) => {
                let is_default = item
                    .trait_
                    .as_ref()
                    .is_some_and(|(_, path, _)| path.is_ident("Default"));
                if let Type::Path(of) = &*item.self_ty
                    && is_default
                {
                    let fields = item.items.iter().find_map(fields_of_default);
                    let name = of.path.segments.last().expect("a type has a name");
                    self.defaults
                        .insert(name.ident.to_string(), fields.unwrap_or_default());
                }
            }
            _ => {}
        }
    }

    /// The structure of that name, where it is one with named fields.
    pub fn structure(&self, name: &str) -> Option<&ItemStruct> {
        self.structures.get(name)
    }

    /// Returns the allowed values of an enumeration.
    pub fn words(&self, name: &str) -> Option<Vec<String>> {
        let choices = self.choices.get(name)?;
        let lower = serde_value(&choices.attrs, "rename_all")? == "lowercase";
        assert!(
            lower,
            "{name}: tests/docs knows rename_all = \"lowercase\" alone"
        );
        let words = choices.variants.iter();
        Some(
            words
                .map(|variant| variant.ident.to_string().to_lowercase())
                .collect(),
        )
    }

    /// Returns the default of a field; `None` if the field is required.
    pub fn default_of(&self, structure: &ItemStruct, field: &Field) -> Option<String> {
        let documented = documentation(&field.attrs).default;
        if documented.is_some() {
            return documented;
        }
        let (owner, name) = (structure.ident.to_string(), field_name(field));
        let shape = shape(&field.ty);
        if let Some(value) = self
            .defaults
            .get(&owner)
            .and_then(|fields| fields.get(&name))
        {
            return Some(self.value(value, &shape).unwrap_or_else(|| {
                panic!(
                    "{owner}.{name}: tests/docs cannot read its default; \
                     write a line `/// Default: …` above the field"
                )
            }));
        }
        let whole = derives(&structure.attrs, "Default") && has_serde(&structure.attrs, "default");
        if whole || has_serde(&field.attrs, "default") || shape.optional {
            return Some(self.default_of_type(&shape));
        }
        None
    }

    fn default_of_type(&self, shape: &Shape) -> String {
        if shape.optional {
            return String::new();
        }
        match shape.name.as_str() {
            "bool" => "`false`".to_owned(),
            "u8" | "u16" | "u32" | "u64" | "usize" => "`0`".to_owned(),
            name => self
                .choices
                .get(name)
                .and_then(|choices| {
                    let mut variants = choices.variants.iter();
                    let chosen = variants.find(|variant| {
                        variant.attrs.iter().any(|it| it.path().is_ident("default"))
                    })?;
                    Some(format!("`{}`", chosen.ident.to_string().to_lowercase()))
                })
                .unwrap_or_default(),
        }
    }

    /// A default as a person would write it; empty: nothing. `None` where the
    /// expression is of a kind that is not known here.
    fn value(&self, expression: &Expr, shape: &Shape) -> Option<String> {
        if let Expr::Path(path) = expression {
            return path.path.is_ident("None").then(String::new);
        }
        if let Some(number) = number(expression) {
            return Some(format!("`{number}`"));
        }
        if let Expr::Lit(ExprLit { lit, .. }) = expression {
            return match lit {
                Lit::Bool(switch) => Some(format!("`{}`", switch.value)),
                Lit::Float(number) => Some(format!("`{}`", number.base10_digits())),
                Lit::Str(text) => Some(format!("`{}`", text.value())),
                _ => None,
            };
        }
        let Expr::Call(call) = expression else {
            return None;
        };
        let Expr::Path(function) = &*call.func else {
            return None;
        };
        let names: Vec<String> = function
            .path
            .segments
            .iter()
            .map(|segment| segment.ident.to_string())
            .collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        match names.as_slice() {
            ["Vec" | "BTreeMap", "new"] => Some(String::new()),
            ["Duration", unit] => {
                let count = number(call.args.first()?)?;
                Some(format!("`{}`", duration(count, unit)?))
            }
            ["SecretString" | "String", "from"] | ["Some"] => self.value(call.args.first()?, shape),
            [name, "default"] if self.structures.contains_key(*name) => Some(String::new()),
            [name, "default"] if self.choices.contains_key(*name) => {
                Some(self.default_of_type(shape))
            }
            _ => None,
        }
    }
}

/// Documentation of an item.
pub struct Documentation {
    /// Meaning of the item.
    pub meaning: String,
    /// The line `Default: …`, for a value that the code computes.
    pub default: Option<String>,
}

/// Returns the documentation of an item.
pub fn documentation(attributes: &[Attribute]) -> Documentation {
    let mut default = None;
    let mut words = Vec::new();
    for attribute in attributes {
        if let Meta::NameValue(pair) = &attribute.meta
            && pair.path.is_ident("doc")
            && let Expr::Lit(ExprLit {
                lit: Lit::Str(line),
                ..
            }) = &pair.value
        {
            let line = line.value();
            match line.trim().strip_prefix("Default: ") {
                Some(text) => default = Some(text.trim_end_matches('.').to_owned()),
                None => words.push(line.trim().to_owned()),
            }
        }
    }
    Documentation {
        meaning: without_links(words.join(" ").trim()),
        default,
    }
}

/// Links among the sources lead nowhere on a page: [`Name`](path) and [`Name`] become
/// their text.
fn without_links(text: &str) -> String {
    let mut rest = text;
    let mut plain = String::new();
    while let Some(start) = rest.find("[`") {
        let Some(length) = rest[start..].find("`]") else {
            break;
        };
        plain.push_str(&rest[..start]);
        plain.push_str(&rest[start + 1..=start + length]);
        rest = &rest[start + length + 2..];
        if let Some(target) = rest.strip_prefix('(')
            && let Some((_, after)) = target.split_once(')')
        {
            rest = after;
        }
    }
    plain.push_str(rest);
    plain
}

/// The name of a field.
pub fn field_name(field: &Field) -> String {
    let name = field.ident.as_ref().expect("the fields are named");
    serde_value(&field.attrs, "rename").unwrap_or_else(|| name.to_string())
}

/// Takes a type apart.
pub fn shape(of: &Type) -> Shape {
    let Type::Path(path) = of else {
        panic!("a key is of a type with a name");
    };
    let last = path.path.segments.last().expect("a type has a name");
    let name = last.ident.to_string();
    let mut inside: Vec<Shape> = match &last.arguments {
        PathArguments::AngleBracketed(arguments) => arguments
            .args
            .iter()
            .filter_map(|argument| match argument {
                GenericArgument::Type(inner) => Some(shape(inner)),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    };
    if name == "Option" || name == "Box" {
        let mut inner = inside.pop().expect("they hold something");
        inner.optional |= name == "Option";
        return inner;
    }
    Shape {
        name,
        inside,
        optional: false,
    }
}

fn derives(attributes: &[Attribute], what: &str) -> bool {
    let mut found = false;
    for attribute in attributes {
        if attribute.path().is_ident("derive") {
            attribute
                .parse_nested_meta(|meta| {
                    let last = meta.path.segments.last();
                    found |= last.is_some_and(|segment| segment.ident == what);
                    Ok(())
                })
                .expect("a derive lists traits");
        }
    }
    found
}

/// Returns true if `#[serde(…)]` has this word.
pub fn has_serde(attributes: &[Attribute], word: &str) -> bool {
    serde_words(attributes).contains_key(word)
}

fn serde_value(attributes: &[Attribute], word: &str) -> Option<String> {
    serde_words(attributes).remove(word).flatten()
}

fn serde_words(attributes: &[Attribute]) -> BTreeMap<String, Option<String>> {
    let mut words = BTreeMap::new();
    for attribute in attributes {
        if attribute.path().is_ident("serde") {
            attribute
                .parse_nested_meta(|meta| {
                    let name = meta.path.segments.last().map(|it| it.ident.to_string());
                    let value = match meta.value() {
                        Ok(value) => Some(value.parse::<syn::LitStr>()?.value()),
                        Err(_) => None,
                    };
                    words.insert(name.unwrap_or_default(), value);
                    Ok(())
                })
                .expect("serde's attributes are words and texts");
        }
    }
    words
}

/// The fields of `Self { … }` where that is all that `default` does.
fn fields_of_default(item: &ImplItem) -> Option<BTreeMap<String, Expr>> {
    let ImplItem::Fn(function) = item else {
        return None;
    };
    let Some(Stmt::Expr(Expr::Struct(made), None)) = function.block.stmts.last() else {
        return None;
    };
    let fields = made.fields.iter().map(|field| {
        let Member::Named(name) = &field.member else {
            panic!("the fields are named");
        };
        (name.to_string(), field.expr.clone())
    });
    Some(fields.collect())
}

/// A whole number, or a product of some.
fn number(expression: &Expr) -> Option<u64> {
    match expression {
        Expr::Lit(ExprLit {
            lit: Lit::Int(digits),
            ..
        }) => digits.base10_parse().ok(),
        Expr::Binary(product) if matches!(product.op, BinOp::Mul(_)) => {
            Some(number(&product.left)? * number(&product.right)?)
        }
        Expr::Paren(inner) => number(&inner.expr),
        _ => None,
    }
}

/// A duration as the configuration writes it, in its largest whole unit.
fn duration(count: u64, constructor: &str) -> Option<String> {
    let milliseconds = match constructor {
        "from_millis" => count,
        "from_secs" => count * 1_000,
        "from_mins" => count * 60_000,
        "from_hours" => count * 3_600_000,
        "from_days" => count * 86_400_000,
        _ => return None,
    };
    let units = [
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1_000),
        ("ms", 1),
    ];
    let (unit, length) = units
        .into_iter()
        .find(|(_, length)| milliseconds > 0 && milliseconds.is_multiple_of(*length))
        .unwrap_or(("s", 1));
    Some(format!("{}{unit}", milliseconds / length))
}
