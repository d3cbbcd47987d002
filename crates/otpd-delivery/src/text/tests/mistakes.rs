//! Errors of the configuration of texts.

use super::*;

/// Checks that each TOML is rejected by one line with this beginning.
fn refused(mistakes: &[(&str, &str)]) {
    for &(toml, start) in mistakes {
        let error = load(toml).expect_err(toml);
        assert!(
            error.starts_with(start),
            "{error:?} does not start with {start:?}"
        );
        assert!(!error.contains('\n'), "{error:?} is more than one line");
    }
}

#[test]
fn unknown_text_key_is_reported() {
    refused(&[
        ("[texts.Login.en]\nplain = \"{{ code }}\"", "texts.Login: "),
        (
            "[texts.login]\norgin = \"example.com\"",
            "texts.login.orgin: unknown field `orgin`, expected one of `origin`",
        ),
        (
            "[texts.login.en]\nplian = \"{{ code }}\"",
            "texts.login.en.plian: unknown field `plian`",
        ),
        (
            "[texts.login.en]\nplain = []",
            "texts.login.en.plain: invalid type",
        ),
        ("[texts.login]\nen = \"x\"", "texts.login.en: invalid type"),
        (
            "[texts.login]\norigin = []",
            "texts.login.origin: invalid type",
        ),
        (
            "[texts.login.variables]\nname = { max = 1 }",
            "texts.login.variables.name.max: unknown field",
        ),
        (
            "[texts.login.variables]\nname = { max_length = 300 }",
            "texts.login.variables.name.max_length: 300 is out of bounds",
        ),
        (
            "[texts.login.variables]\ncode = {}",
            "texts.login.variables.code: is given",
        ),
        (
            "[texts.default.de.variables]\nname = {}",
            "texts.default.de.variables: unknown field",
        ),
        (
            "[texts.login.en]\nplain = \"{{ code }}\"\n[texts.login.EN]\nplain = \"{{ code }}\"",
            "texts.login",
        ),
    ]);
}

#[test]
fn invalid_text_is_reported() {
    refused(&[
        (
            "[texts.login.en]\nsubject = \"x\"",
            "texts.login.en.plain: is missing",
        ),
        (
            "[texts.login.en]\nplain = \"\"",
            "texts.login.en.plain: the text is empty",
        ),
        (
            "[texts.login.en]\nplain = \"Hello\"",
            "texts.login.en.plain: the text does not always contain the code",
        ),
        (
            "[texts.login.en]\nplain = \"{{ code }}\"\nvoice = \"Hello\"",
            "texts.login.en.voice: the text does not",
        ),
        (
            "[texts.login.en]\nplain = \"{{ code }}\"\nhtml = \"<b title='{{ code }}'>\"",
            "texts.login.en.html: the text does not",
        ),
        (
            "[texts.login.en]\nplain = \"{{ code }}\"\nsubject = \" \"",
            "texts.login.en.subject: the text is empty",
        ),
        (
            "[texts.login.variables]\nname = {}\n[texts.login.en]\nplain = \"{% if name %}{{ code }}{% else %}Hi{% endif %}\"",
            "texts.login.en.plain: the text does not always",
        ),
        (
            "[texts.login.en]\nplain = \"{% if minutes > 5 %}{{ code }}{% else %}Hi{% endif %}\"",
            "texts.login.en.plain: the text does not always",
        ),
        (
            "[texts.login.en]\nplain = \"{{ code }} {{ nmae }}\"",
            "texts.login.en.plain: unknown variable nmae; use one of code, minutes, ttl_seconds,",
        ),
        (
            "[texts.login.en]\nplain = \"{{ code\"",
            "texts.login.en.plain: syntax error",
        ),
        (
            "[texts.login.en]\nplain = \"{{ code | shout }}\"",
            "texts.login.en.plain: unknown filter",
        ),
        (
            "[texts.login.en]\nplain = \"{% include 'x' %}{{ code }}\"",
            "texts.login.en.plain: syntax error",
        ),
        (
            "[texts.login.en]\nplain = \"{{ code }}{{ 'x' * 99999999 }}\"",
            "texts.login.en.plain: engine ran out of fuel",
        ),
        (
            "[texts.login.variables]\nname = {}\n[texts.login.en]\nplain = \"{{ code }}\"\nhtml = \"{{ code }}{{ name | safe }}\"",
            "texts.login.en.html: lets callers insert HTML",
        ),
        (
            "[texts.login.variables]\nname = {}\n[texts.login.en]\nplain = \"{{ code }}\"\nhtml = \"{{ code }}{% autoescape false %}{{ name }}{% endautoescape %}\"",
            "texts.login.en.html: lets callers insert HTML",
        ),
    ]);
}

#[test]
fn invalid_autofill_line_or_language_is_reported() {
    let long = "x".repeat(130);
    refused(&[
        (
            "[texts.login]\norigin = \"https://example.com\"",
            "texts.login.origin: not a host name",
        ),
        (
            "[texts.login]\nandroid_hash = \"FA+9\"",
            "texts.login.android_hash: not the hash",
        ),
        (
            &format!(
                "[texts.login]\nandroid_hash = \"FA+9qCX9VSu\"\n[texts.login.en]\nplain = \"{long} {{{{ code }}}}\""
            ),
            "texts.login.en.plain: with android_hash an SMS of login has up to 149 bytes",
        ),
        (
            "[texts.login]\nandroid_hash = \"FA+9qCX9VSu\"\norigin = \"example.com\"",
            "texts.login.android_hash: the shipped text in ru, with all lines after it, has up to 164 bytes",
        ),
        (
            "default_locale = \"fr\"",
            "default_locale: there is no text in fr",
        ),
        (
            "default_locale = \"english\"",
            "default_locale: not a language tag",
        ),
    ]);
}

#[test]
fn android_length_check_uses_maximum_variable_lengths() {
    let toml = |length: usize| {
        format!(
            "[texts.login]\nandroid_hash = \"FA+9qCX9VSu\"\n[texts.login.variables]\nname = {{ max_length = {length} }}\n[texts.login.en]\nplain = \"{{{{ code }}}} {{{{ name }}}}\"\n[texts.login.ru]\nplain = \"Код {{{{ code }}}} {{{{ name }}}}\""
        )
    };
    // The code takes 6 bytes, a blank 1 and the hash 12, which leaves 121; in Russian,
    // with two bytes per letter, "Код " and the same leave 47 letters.
    let error = load(&toml(122)).unwrap_err();
    assert!(
        error.starts_with("texts.login.en.plain: ") && error.contains("141 bytes"),
        "{error}"
    );
    let error = load(&toml(48)).unwrap_err();
    assert!(
        error.starts_with("texts.login.ru.plain: ") && error.contains("142 bytes"),
        "{error}"
    );
    let texts = load(&toml(47)).unwrap();
    let report = texts.report();
    let ru = report
        .iter()
        .find(|line| line.key == "texts.login.ru")
        .unwrap();
    assert_eq!(ru.segments.units, 70);
}
