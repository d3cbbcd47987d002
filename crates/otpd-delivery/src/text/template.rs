//! Template engine: its limits, and its error texts.

use std::{collections::BTreeMap, fmt};

use minijinja::{AutoEscape, Environment, Error, UndefinedBehavior, Value, syntax::SyntaxConfig};

use otpd_rules::Channel;

/// Maximum work of a template: about 20,000 steps, or 1.2 MB of its own text (one that
/// doubles a value repeatedly can make more). An e-mail of a hundred kilobytes takes a
/// tenth of that.
const FUEL: u64 = 20_000;
/// Maximum depth of nested loops and conditions.
const RECURSION: usize = 50;

/// Field of a message that a template fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TemplateField {
    Plain,
    Sms,
    Voice,
    Whatsapp,
    Telegram,
    Subject,
    Email,
    Html,
}

impl TemplateField {
    /// Fields that use [`Plain`](Self::Plain) if they are not given.
    pub const LIKE_PLAIN: [Self; 5] = [
        Self::Sms,
        Self::Voice,
        Self::Whatsapp,
        Self::Telegram,
        Self::Email,
    ];

    /// Returns the field with the plain text on `channel`.
    pub const fn of(channel: Channel) -> Self {
        match channel {
            Channel::Sms => Self::Sms,
            Channel::Email => Self::Email,
            Channel::Voice => Self::Voice,
            Channel::WhatsApp => Self::Whatsapp,
            Channel::Telegram => Self::Telegram,
        }
    }

    /// Returns the key in `[texts.PURPOSE.LOCALE]`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Sms => "sms",
            Self::Voice => "voice",
            Self::Whatsapp => "whatsapp",
            Self::Telegram => "telegram",
            Self::Subject => "subject",
            Self::Email => "email",
            Self::Html => "html",
        }
    }
}

impl fmt::Display for TemplateField {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Values for a template.
pub(super) type TemplateContext<'a> = BTreeMap<&'a str, Value>;

/// All templates, each under its key in the configuration.
///
/// The crate is built without the features that let one template read another, so that
/// none reads a template of another purpose.
#[derive(Debug)]
pub(super) struct Engine(Environment<'static>);

impl Engine {
    pub fn new() -> Self {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(RECURSION);
        // The function prints all values of a template.
        environment.remove_global("debug");
        environment.set_auto_escape_callback(|name| match name.rsplit_once('.') {
            Some((_, field)) if field == TemplateField::Html.name() => AutoEscape::Html,
            _ => AutoEscape::None,
        });
        // A line that contains only a condition leaves no empty line.
        if let Ok(syntax) = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()
        {
            environment.set_syntax(syntax);
        }
        Self(environment)
    }

    /// Adds a template; an error describes the problem.
    pub fn add(&mut self, key: String, source: String) -> Result<(), String> {
        self.0
            .add_template_owned(key, source)
            .map_err(|error| problem(&error))
    }

    /// Returns the variables that a template uses and does not set itself.
    pub fn variables(&self, key: &str) -> Vec<String> {
        let globals: Vec<&str> = self.0.globals().map(|(name, _)| name).collect();
        let mut names: Vec<String> = self
            .0
            .get_template(key)
            .map(|template| template.undeclared_variables(false))
            .into_iter()
            .flatten()
            .filter(|name| !globals.contains(&name.as_str()))
            .collect();
        names.sort_unstable();
        names
    }

    /// Renders a template.
    pub fn render(&self, key: &str, context: &TemplateContext<'_>) -> Result<String, Error> {
        self.0.get_template(key)?.render(context)
    }
}

/// Describes an error on one line. It may show values of the template, so it is for
/// samples only.
pub(super) fn problem(error: &Error) -> String {
    let detail = error.detail().unwrap_or_default();
    let separator = if detail.is_empty() { "" } else { ": " };
    let line = error
        .line()
        .map_or(String::new(), |line| format!(" (line {line})"));
    format!("{}{separator}{detail}{line}", error.kind())
}

/// Describes an error without any values of the template.
pub(super) fn public_problem(error: &Error) -> String {
    let line = error
        .line()
        .map_or(String::new(), |line| format!(" (line {line})"));
    format!("{}{line}", error.kind())
}

/// Returns true if a message shows `code`: its digits in order, with only blanks,
/// hyphens, commas and, in HTML, tags between them.
pub(super) fn shows_code(field: TemplateField, message: &str, code: &str) -> bool {
    let mut inside_tag = false;
    let mut shown = String::with_capacity(message.len());
    for character in message.chars() {
        match character {
            '<' if field == TemplateField::Html => inside_tag = true,
            '>' if inside_tag => inside_tag = false,
            ',' | '-' | '\u{2010}'..='\u{2015}' => {}
            _ if inside_tag || character.is_whitespace() => {}
            _ => shown.push(character),
        }
    }
    shown.contains(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(key: &str, source: &str) -> Result<String, String> {
        let mut engine = Engine::new();
        engine.add(key.to_owned(), source.to_owned())?;
        let context = TemplateContext::from([
            ("code", Value::from("012345")),
            ("minutes", Value::from(5)),
            ("name", Value::from("<b>&\"'")),
        ]);
        engine
            .render(key, &context)
            .map_err(|error| problem(&error))
    }

    #[test]
    fn only_html_is_escaped() {
        assert_eq!(filled("a.plain", "{{ name }}").as_deref(), Ok("<b>&\"'"));
        let escaped = filled("a.html", "<p>{{ name }}</p>").unwrap();
        assert_eq!(escaped, "<p>&lt;b&gt;&amp;&quot;&#x27;</p>");
    }

    #[test]
    fn conditions_slices_and_loops_work() {
        for (source, text) in [
            ("{{ code[:3] }} {{ code[3:] }}", "012 345"),
            (
                "{% if minutes == 1 %}a minute{% else %}{{ minutes }} minutes{% endif %}",
                "5 minutes",
            ),
            (
                "{% for digit in code | list %}{{ digit }} {% endfor %}",
                "0 1 2 3 4 5 ",
            ),
            ("a\n  {% if name %}\nb\n  {% endif %}\nc", "a\nb\nc"),
        ] {
            assert_eq!(filled("a.plain", source).as_deref(), Ok(text), "{source}");
        }
    }

    #[test]
    fn template_cannot_include_others_and_terminates() {
        for source in [
            "{% include 'a.plain' %}",
            "{% extends 'a.plain' %}",
            "{% import 'a.plain' as a %}",
            "{% macro a() %}{% endmacro %}",
            "{{ debug() }}",
            "{{ missing }}",
            "{{ code.missing }}",
            "{% for a in range(100000) %}{% for b in range(100000) %}x{% endfor %}{% endfor %}",
            "{{ 'x' * 100000000 }}",
            "{{ code",
            "{{ code | nothing }}",
        ] {
            let error = filled("a.plain", source).expect_err(source);
            assert!(!error.contains('\n'), "{error:?}");
        }
    }

    #[test]
    fn template_variables_are_found() {
        let mut engine = Engine::new();
        let source = "{% set a = b %}{{ a }}{{ code }}{% if c %}{{ d.e }}{% endif %}{% for f in range(3) %}{{ f }}{{ loop.index }}{% endfor %}";
        engine.add("a.plain".to_owned(), source.to_owned()).unwrap();
        assert_eq!(engine.variables("a.plain"), ["b", "c", "code", "d"]);
    }

    #[test]
    fn code_is_detected_in_every_spelling() {
        for text in [
            "012345",
            "a 012345.",
            "012 345",
            "012-345",
            "0, 1, 2, 3, 4, 5",
            "012–345",
        ] {
            assert!(shows_code(TemplateField::Plain, text, "012345"), "{text}");
        }
        for text in ["", "01234", "01234x5", "012.345", "<b>012</b>345"] {
            assert!(!shows_code(TemplateField::Plain, text, "012345"), "{text}");
        }
        assert!(shows_code(
            TemplateField::Html,
            "<b>012</b>\n<b>345</b>",
            "012345"
        ));
        assert!(!shows_code(
            TemplateField::Html,
            "<a title=\"012345\">x</a>",
            "012345"
        ));
    }
}
