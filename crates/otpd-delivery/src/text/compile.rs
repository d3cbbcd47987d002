//! Compilation of texts: every template is compiled at start-up.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Autofill, Engine, Locale, MessageTemplates, PurposeTemplates, PurposeTextSettings,
    PurposeTexts, TemplateField, TextError, TextSettings, Variables, autofill, defaults, lookup,
};
use otpd_rules::{PolicySet, Purpose};

impl MessageTemplates {
    /// Compiles the texts of `settings` on top of the shipped ones, and renders samples
    /// of them with codes as long as those of `policies`.
    ///
    /// # Errors
    /// [`TextError`] for the first mistake, with its key: a template that fails, uses an
    /// unknown variable or does not escape markup, a text without the code, an invalid
    /// origin or hash, an SMS too long for Android, or no text in the default locale.
    pub fn new(
        default_locale: &Locale,
        settings: &BTreeMap<Purpose, PurposeTextSettings>,
        policies: &PolicySet,
    ) -> Result<Self, TextError> {
        let mut compiler = TemplateCompiler::new()?;
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
        texts.validate_all()?;
        Ok(texts)
    }
}

/// Compiler of the tables, one by one.
struct TemplateCompiler {
    engine: Engine,
    shipped: BTreeMap<Locale, PurposeTemplates>,
}

impl TemplateCompiler {
    fn new() -> Result<Self, TextError> {
        let mut compiler = Self {
            engine: Engine::new(),
            shipped: BTreeMap::new(),
        };
        for (tag, settings) in defaults::texts() {
            let locale = Locale::parse(tag).map_err(|error| TextError::new(tag, error))?;
            let key = format!("the shipped texts.default.{tag}");
            let mut table = compiler.table(key, &locale, &settings, &Variables::default())?;
            table.shipped = true;
            compiler.shipped.insert(locale, table);
        }
        Ok(compiler)
    }

    /// Compiles the texts of a purpose, with those of the `general` ones that it
    /// inherits.
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
    ) -> Result<PurposeTemplates, TextError> {
        let mut templates = BTreeMap::new();
        for (field, source) in settings.templates() {
            let name = format!("{key}.{field}");
            self.engine
                .add(name.clone(), source.to_owned())
                .map_err(|problem| TextError::new(&name, problem))?;
            for variable in self.engine.variables(&name) {
                if !variables.has(&variable) {
                    let problem = format!(
                        "unknown variable {variable}; use one of {}, or declare it in [texts.PURPOSE.variables]",
                        variables.names()
                    );
                    return Err(TextError::new(&name, problem));
                }
            }
            templates.insert(field, name);
        }
        let Some(plain) = templates.get(&TemplateField::Plain).cloned() else {
            let problem = "is missing; it is the text of every channel without its own";
            return Err(TextError::new(&format!("{key}.plain"), problem));
        };
        for field in TemplateField::LIKE_PLAIN {
            templates.entry(field).or_insert_with(|| plain.clone());
        }
        Ok(PurposeTemplates {
            key,
            locale: locale.clone(),
            shipped: false,
            templates,
        })
    }

    /// Adds a subject to the tables without one: that of the general text in their
    /// language, or the shipped one, or else the one of the default locale.
    fn borrow_subjects(
        &self,
        tables: &mut BTreeMap<Locale, PurposeTemplates>,
        general: Option<&BTreeMap<Locale, PurposeTemplates>>,
        default_locale: &Locale,
    ) {
        let lenders: Vec<&BTreeMap<Locale, PurposeTemplates>> =
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
                found.find_map(|table| table.templates.get(&TemplateField::Subject))
            });
            if let Some(subject) = subject {
                let entry = table.templates.entry(TemplateField::Subject);
                entry.or_insert_with(|| subject.clone());
            }
        }
    }
}
