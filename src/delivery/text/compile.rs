//! From settings to texts: every template is compiled and tried out at the start, so
//! that no mistake waits for a customer.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    Autofill, Context, Engine, Facts, Field, Locale, PurposeTextSettings, PurposeTexts, Table,
    TextError, TextSettings, Texts, Variables, autofill, context, lookup,
    segments::{Encoding, segments},
    shipped, shows_code,
    template::problem,
};
use crate::domain::{Channel, Code, Policies, Purpose};

/// The most bytes of an SMS in which Android looks for a hash.
pub(super) const ANDROID_BYTES: usize = 140;
/// The longest life of a code, for samples: the upper bound of `code_ttl`.
const LONGEST_LIFE: Duration = Duration::from_mins(10);
/// What HTML must not repeat as it is.
const MARKUP: &str = "<&>";

impl Texts {
    /// Compiles the texts of `settings` on top of those that are shipped, and tries
    /// them with codes as long as those of `policies`.
    ///
    /// # Errors
    /// The first mistake, with its key: a template that fails, that names an unknown
    /// variable or lets markup through, a text without the code, an origin or a hash
    /// that is none, an SMS too long for Android, or no text in the default locale.
    pub fn new(
        default_locale: &Locale,
        settings: &BTreeMap<Purpose, PurposeTextSettings>,
        policies: &Policies,
    ) -> Result<Self, TextError> {
        let mut compiler = Compiler::new()?;
        let default = Purpose::default();
        let nothing = PurposeTextSettings::default();
        let settings_of = |purpose: &Purpose| settings.get(purpose).unwrap_or(&nothing);
        let length = |purpose: &Purpose| policies.of(purpose).code_length;

        let own = settings_of(&default);
        let mut general = compiler.purpose(&default, own, length(&default), None)?;
        for (locale, table) in &compiler.shipped {
            let table = table.clone();
            general.tables.entry(locale.clone()).or_insert(table);
        }
        if lookup(&general.tables, default_locale.as_str()).is_none() {
            let problem = format!(
                "there is no text in {default_locale}; write [texts.default.{default_locale}], or choose a language that has one"
            );
            return Err(TextError::new("default_locale", problem));
        }
        compiler.borrow_subjects(&mut general.tables, None, default_locale);

        let mut purposes = BTreeMap::new();
        let named: BTreeSet<&Purpose> = settings.keys().chain(policies.purposes.keys()).collect();
        for purpose in named.into_iter().filter(|&purpose| *purpose != default) {
            let own = settings_of(purpose);
            let mut texts = compiler.purpose(purpose, own, length(purpose), Some(&general))?;
            let general = Some(&general.tables);
            compiler.borrow_subjects(&mut texts.tables, general, default_locale);
            purposes.insert(purpose.clone(), texts);
        }
        let texts = Self {
            engine: compiler.engine,
            default_locale: default_locale.clone(),
            general,
            purposes,
        };
        texts.try_out()?;
        Ok(texts)
    }

    /// Renders samples of everything.
    fn try_out(&self) -> Result<(), TextError> {
        let default = Purpose::default();
        let all = self.purposes.iter().chain([(&default, &self.general)]);
        for (purpose, texts) in all {
            for table in texts.tables.values() {
                for &field in table.templates.keys() {
                    self.try_field(texts, table, field)?;
                }
            }
            for table in self.reachable(texts) {
                self.try_android(purpose, texts, table)?;
            }
        }
        Ok(())
    }

    /// Fills one template with the least and the most that it may be given, and one of
    /// HTML with markup.
    fn try_field(
        &self,
        texts: &PurposeTexts,
        table: &Table,
        field: Field,
    ) -> Result<(), TextError> {
        let key = &table.templates[&field];
        let fault = |problem: String| Err(TextError::new(key, problem));
        let channel = match field {
            Field::Voice => Channel::Voice,
            _ => Channel::Sms,
        };
        for (variables, life_left) in [
            (least(&texts.variables), Duration::from_secs(1)),
            (most(&texts.variables, 'x'), LONGEST_LIFE),
            (markup(&texts.variables), LONGEST_LIFE),
        ] {
            let code = sample_code(texts.code_length);
            let facts = Facts {
                code: &code,
                life_left,
                variables: &variables,
            };
            let context: Context<'_> = context(&texts.variables, channel, &facts);
            let text = match self.engine.render(key, &context) {
                Ok(text) => text,
                Err(error) => return fault(problem(&error)),
            };
            if text.trim().is_empty() {
                return fault("the text is empty".to_owned());
            }
            if field != Field::Subject && !shows_code(field, &text, code.expose()) {
                return fault(
                    "the text does not always contain the code; write {{ code }} outside of every condition"
                        .to_owned(),
                );
            }
            if field == Field::Html && text.contains(MARKUP) {
                return fault(
                    "lets callers write HTML of their own into the e-mail; leave out `safe` and `autoescape`"
                        .to_owned(),
                );
            }
        }
        Ok(())
    }

    /// Whether an SMS is short enough for Android with the most that it may be given.
    fn try_android(
        &self,
        purpose: &Purpose,
        texts: &PurposeTexts,
        table: &Table,
    ) -> Result<(), TextError> {
        if texts.autofill.android_hash.is_none() {
            return Ok(());
        }
        let text = self.sample_sms(texts, table, 'x');
        let bytes = android_bytes(&text);
        if bytes <= ANDROID_BYTES {
            return Ok(());
        }
        let locale = &table.locale;
        let (key, problem) = if table.shipped {
            let key = format!("texts.{purpose}.android_hash");
            let remedy = format!("write a shorter one in [texts.{purpose}.{locale}]");
            (
                key,
                format!(
                    "the shipped text in {locale}, with all lines after it, has up to {bytes} bytes, and Android looks at {ANDROID_BYTES}; {remedy}"
                ),
            )
        } else {
            let key = table.templates[&Field::Sms].clone();
            (
                key,
                format!(
                    "with android_hash an SMS of {purpose} has up to {bytes} bytes, and Android looks at {ANDROID_BYTES}; shorten the text or the max_length of its variables"
                ),
            )
        };
        Err(TextError::new(&key, problem))
    }

    /// The longest SMS of a table: a sample code, and the most `letter`s that callers
    /// may give.
    pub(super) fn sample_sms(&self, texts: &PurposeTexts, table: &Table, letter: char) -> String {
        let facts = Facts {
            code: &sample_code(texts.code_length),
            life_left: LONGEST_LIFE,
            variables: &most(&texts.variables, letter),
        };
        // What cannot be rendered has been refused by then.
        self.fill(texts, table, Channel::Sms, &facts)
            .map_or(String::new(), |text| text.plain)
    }

    /// The tables that messages of a purpose can come from: its own, and the general
    /// ones where it has none in the default locale.
    pub(super) fn reachable<'a>(
        &'a self,
        texts: &'a PurposeTexts,
    ) -> impl Iterator<Item = &'a Table> {
        let own = &texts.tables;
        let alone = lookup(own, self.default_locale.as_str()).is_some();
        let general = &self.general.tables;
        let others = general
            .iter()
            .filter(move |(locale, _)| !alone && lookup(own, locale.as_str()).is_none());
        own.values().chain(others.map(|(_, table)| table))
    }
}

/// Compiles tables one by one.
struct Compiler {
    engine: Engine,
    shipped: BTreeMap<Locale, Table>,
}

impl Compiler {
    fn new() -> Result<Self, TextError> {
        let mut compiler = Self {
            engine: Engine::new(),
            shipped: BTreeMap::new(),
        };
        for (tag, settings) in shipped::texts() {
            let locale = Locale::parse(tag).map_err(|error| TextError::new(tag, error))?;
            let key = format!("the shipped texts.default.{tag}");
            let mut table = compiler.table(key, &locale, &settings, &Variables::default())?;
            table.shipped = true;
            compiler.shipped.insert(locale, table);
        }
        Ok(compiler)
    }

    /// What the settings of a purpose say, with what the `general` ones add.
    fn purpose(
        &mut self,
        purpose: &Purpose,
        settings: &PurposeTextSettings,
        code_length: u8,
        general: Option<&PurposeTexts>,
    ) -> Result<PurposeTexts, TextError> {
        let key = format!("texts.{purpose}");
        let no_variables = Variables::default();
        let general_variables = general.map_or(&no_variables, |general| &general.variables);
        let variables = Variables::declare(&key, &settings.variables, general_variables)?;
        let mut tables = BTreeMap::new();
        for (locale, text) in &settings.texts {
            let table = self.table(format!("{key}.{locale}"), locale, text, &variables)?;
            tables.insert(locale.clone(), table);
        }
        let mut autofill =
            general.map_or_else(Autofill::default, |general| general.autofill.clone());
        if let Some(host) = &settings.origin {
            autofill.origin = autofill::origin(host)
                .map_err(|problem| TextError::new(&format!("{key}.origin"), problem))?;
        }
        if let Some(hash) = &settings.android_hash {
            autofill.android_hash = autofill::android_hash(hash)
                .map_err(|problem| TextError::new(&format!("{key}.android_hash"), problem))?;
        }
        Ok(PurposeTexts {
            tables,
            variables,
            autofill,
            code_length,
        })
    }

    fn table(
        &mut self,
        key: String,
        locale: &Locale,
        settings: &TextSettings,
        variables: &Variables,
    ) -> Result<Table, TextError> {
        let mut templates = BTreeMap::new();
        for (field, source) in settings.templates() {
            let name = format!("{key}.{field}");
            self.engine
                .add(name.clone(), source.to_owned())
                .map_err(|problem| TextError::new(&name, problem))?;
            for variable in self.engine.variables(&name) {
                if !variables.has(&variable) {
                    let problem = format!(
                        "there is no variable {variable}; there are {}, and more are declared in [texts.PURPOSE.variables]",
                        variables.names()
                    );
                    return Err(TextError::new(&name, problem));
                }
            }
            templates.insert(field, name);
        }
        let Some(plain) = templates.get(&Field::Plain).cloned() else {
            let problem = "is missing; it is the text of every channel that has none of its own";
            return Err(TextError::new(&format!("{key}.plain"), problem));
        };
        for field in Field::LIKE_PLAIN {
            templates.entry(field).or_insert_with(|| plain.clone());
        }
        Ok(Table {
            key,
            locale: locale.clone(),
            shipped: false,
            templates,
        })
    }

    /// Gives a subject to the tables that have none: that of the general text in their
    /// language, or the shipped one, or else the one of the default locale.
    fn borrow_subjects(
        &self,
        tables: &mut BTreeMap<Locale, Table>,
        general: Option<&BTreeMap<Locale, Table>>,
        default_locale: &Locale,
    ) {
        let lenders: Vec<&BTreeMap<Locale, Table>> =
            general.into_iter().chain([&self.shipped]).collect();
        for table in tables.values_mut() {
            let languages = [
                table.locale.clone(),
                default_locale.clone(),
                Locale::default(),
            ];
            let subject = languages.iter().find_map(|language| {
                let mut found = lenders
                    .iter()
                    .filter_map(|tables| lookup(tables, language.as_str()));
                found.find_map(|table| table.templates.get(&Field::Subject))
            });
            if let Some(subject) = subject {
                let entry = table.templates.entry(Field::Subject);
                entry.or_insert_with(|| subject.clone());
            }
        }
    }
}

/// How long an SMS is to Android. The documentation speaks of bytes without saying of
/// which encoding, so the longer one counts: UTF-8, or what travels.
pub(super) fn android_bytes(text: &str) -> usize {
    let counted = segments(text);
    match counted.encoding {
        Encoding::Gsm7 => text.len(),
        Encoding::Ucs2 => text.len().max(counted.units * 2),
    }
}

fn sample_code(length: u8) -> Code {
    let digits = &"1234567890"[..usize::from(length).clamp(4, 10)];
    Code::from_digits(digits).expect("these are 4 to 10 digits")
}

fn values(
    declared: &Variables,
    value: impl Fn(&super::VariableSettings) -> String,
) -> BTreeMap<String, String> {
    declared
        .iter()
        .map(|(name, settings)| (name.to_owned(), value(settings)))
        .collect()
}

/// Nothing but what must be given.
fn least(declared: &Variables) -> BTreeMap<String, String> {
    values(declared, |settings| {
        "x".repeat(usize::from(settings.required))
    })
}

/// As much as may be given.
fn most(declared: &Variables, letter: char) -> BTreeMap<String, String> {
    values(declared, |settings| {
        letter.to_string().repeat(settings.max_length)
    })
}

fn markup(declared: &Variables) -> BTreeMap<String, String> {
    values(declared, |_| MARKUP.to_owned())
}
