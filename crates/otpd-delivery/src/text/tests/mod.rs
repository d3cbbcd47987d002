//! Texts as a whole: from TOML to a message.

mod mistakes;
mod properties;
mod report;

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use serde::Deserialize;

use super::*;
use otpd_rules::PolicySet;

/// Keys that the tests read, as in the configuration.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Root {
    default_locale: Locale,
    texts: BTreeMap<Purpose, PurposeTextSettings>,
}

fn read(toml: &str) -> Result<Root, String> {
    let file = config::File::from_str(toml, config::FileFormat::Toml);
    let built = config::Config::builder().add_source(file).build();
    let value = built.map_err(|error| error.to_string())?.cache;
    serde_path_to_error::deserialize(value)
        .map_err(|error| format!("{}: {}", error.path(), error.inner()))
}

fn load(toml: &str) -> Result<MessageTemplates, String> {
    let root = read(toml)?;
    MessageTemplates::new(&root.default_locale, &root.texts, &PolicySet::default())
        .map_err(|error| error.to_string())
}

fn given(variables: &[(&str, &str)]) -> BTreeMap<String, String> {
    variables
        .iter()
        .map(|&(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn rendered(
    texts: &MessageTemplates,
    (purpose, locale): (&str, &str),
    channel: Channel,
    variables: &[(&str, &str)],
) -> MessageBody {
    let render_context = RenderContext {
        code: &OtpCode::from_digits("012345").unwrap(),
        life_left: Duration::from_secs(299),
        variables: &given(variables),
    };
    texts
        .render(
            &Purpose::parse(purpose).unwrap(),
            locale,
            channel,
            &render_context,
        )
        .unwrap()
}

fn sms(texts: &MessageTemplates, purpose: &str, locale: &str) -> String {
    rendered(texts, (purpose, locale), Channel::Sms, &[]).plain
}

#[test]
fn built_in_texts_are_english_and_russian() {
    let texts = load("").unwrap();
    let english = "012345 is your code, valid for 5 min. Do not share it with anyone.";
    let russian = "Код 012345 действует 5 мин. Никому не сообщайте.";
    assert_eq!(sms(&texts, "login", ""), english);
    assert_eq!(sms(&texts, "", "en-GB"), english);
    assert_eq!(sms(&texts, "", "fr"), english);
    assert_eq!(sms(&texts, "", "RU-ru"), russian);

    let voice = rendered(&texts, ("", "ru"), Channel::Voice, &[]);
    assert!(voice.plain.starts_with("Ваш код: 0, 1, 2, 3, 4, 5."));
    assert_eq!((voice.subject, voice.html), (None, None));

    let email = rendered(&texts, ("", "ru"), Channel::Email, &[]);
    assert_eq!(email.subject.as_deref(), Some("Ваш код"));
    assert!(email.plain.starts_with("Ваш код: 012345\n\n") && !email.plain.ends_with('\n'));
    let html = email.html.unwrap();
    assert!(html.contains(">012345</p>") && html.contains("lang=\"ru\""));
}

#[test]
fn purpose_takes_precedence_over_language() {
    let texts = load(
        r#"
        default_locale = "de-AT"
        [texts.default.de]
        plain = "allgemein {{ code }}"
        [texts.default.en-GB]
        plain = "general, British {{ code }}"
        [texts.login.en]
        plain = "login {{ code }}"
        [texts.payment.de]
        plain = "Zahlung {{ code }}"
        [texts.payment.en]
        plain = "payment {{ code }}"
        "#,
    )
    .unwrap();
    for (purpose, locale, text) in [
        // Its own text in the language, else its own in the default locale.
        ("payment", "en-GB", "payment 012345"),
        ("payment", "fr", "Zahlung 012345"),
        ("payment", "ru", "Zahlung 012345"),
        // It has no own text in the default locale, so the general one is used, by the
        // same lookup.
        ("login", "en-GB", "login 012345"),
        (
            "login",
            "ru",
            "Код 012345 действует 5 мин. Никому не сообщайте.",
        ),
        ("login", "fr", "allgemein 012345"),
        // It has no own text.
        ("other", "en-GB", "general, British 012345"),
        ("other", "", "allgemein 012345"),
    ] {
        assert_eq!(sms(&texts, purpose, locale), text, "{purpose} {locale}");
    }
}

#[test]
fn missing_parts_default_to_plain_and_the_subject_is_inherited() {
    let texts = load(
        r#"
        [texts.default.de]
        plain = "Code {{ code }}"
        subject = "  Ihr\n Code "
        [texts.login.de]
        plain = "Anmeldung {{ code }}"
        telegram = "Telegram {{ code }}"
        [texts.login.ru]
        plain = "Вход {{ code }}"
        [texts.login.fr]
        plain = "Connexion {{ code }}"
        html = "<b>{{ code }}</b>"
        "#,
    )
    .unwrap();
    let text = |locale, channel| rendered(&texts, ("login", locale), channel, &[]);
    for (channel, plain) in [
        (Channel::Sms, "Anmeldung 012345"),
        (Channel::Voice, "Anmeldung 0, 1, 2, 3, 4, 5"),
        (Channel::WhatsApp, "Anmeldung 012345"),
        (Channel::Telegram, "Telegram 012345"),
        (Channel::Email, "Anmeldung 012345"),
    ] {
        assert_eq!(text("de", channel).plain, plain);
    }
    for (locale, subject, html) in [
        ("de", "Ihr Code", None),
        ("ru", "Ваш код", None),
        ("fr", "Your code", Some("<b>012345</b>")),
    ] {
        let email = text(locale, Channel::Email);
        assert_eq!(email.subject.as_deref(), Some(subject));
        assert_eq!(email.html.as_deref(), html);
    }
}

#[test]
fn variables_are_substituted_and_escaped_only_in_html() {
    let texts = load(
        r#"
        [texts.default.variables]
        name = {}
        [texts.login.variables]
        place = { required = true }
        [texts.login.en]
        plain = "{% if name %}{{ name }}, {% endif %}{{ code }} for {{ place }}, {{ ttl_seconds }} s"
        html = "<p>{{ place }} {{ code }}</p>"
        "#,
    )
    .unwrap();
    let login = Purpose::parse("login").unwrap();
    let values = [("name", "Anna"), ("place", "<i>&")];
    assert_eq!(texts.check_variables(&login, &given(&values)), Ok(()));
    assert!(texts.check_variables(&login, &given(&values[..1])).is_err());
    assert!(
        texts
            .check_variables(&Purpose::default(), &given(&values))
            .is_err()
    );
    assert!(
        texts
            .check_variables(&Purpose::default(), &given(&values[..1]))
            .is_ok()
    );

    let email = rendered(&texts, ("login", "en"), Channel::Email, &values);
    assert_eq!(email.plain, "Anna, 012345 for <i>&, 299 s");
    assert_eq!(email.html.as_deref(), Some("<p>&lt;i&gt;&amp; 012345</p>"));
    // A variable that is not given any more, and one that is not declared any more.
    let stale = rendered(&texts, ("login", "en"), Channel::Sms, &[("gone", "x")]);
    assert_eq!(stale.plain, "012345 for , 299 s");
}

#[test]
fn validity_minutes_are_rounded_down_to_at_least_one() {
    let texts =
        load("[texts.default.en]\nplain = \"{{ code }} {{ minutes }} {{ ttl_seconds }}\"").unwrap();
    for (milliseconds, expected) in [
        (0, "1 1"),
        (999, "1 1"),
        (59_999, "1 59"),
        (60_000, "1 60"),
        (109_999, "1 109"),
        (110_000, "2 110"),
        (289_999, "4 289"),
        (299_990, "5 299"),
        (300_000, "5 300"),
        (600_000, "10 600"),
    ] {
        let render_context = RenderContext {
            code: &OtpCode::from_digits("012345").unwrap(),
            life_left: Duration::from_millis(milliseconds),
            variables: &BTreeMap::new(),
        };
        let text = texts.render(&Purpose::default(), "en", Channel::Sms, &render_context);
        assert_eq!(text.unwrap().plain, format!("012345 {expected}"));
    }
}

#[test]
fn autofill_lines_follow_only_sms_and_are_inherited() {
    let texts = load(
        r#"
        [texts.default]
        origin = "Example.com"
        [texts.login]
        android_hash = "FA+9qCX9VSu"
        [texts.login.ru]
        plain = "Код {{ code }}"
        [texts.quiet]
        origin = ""
        [texts.quiet.en]
        plain = "{{ code }}\n"
        "#,
    )
    .unwrap();
    assert!(sms(&texts, "", "en").ends_with(".\n@example.com #012345"));
    assert!(sms(&texts, "login", "en").ends_with(".\nFA+9qCX9VSu\n@example.com #012345"));
    assert_eq!(sms(&texts, "quiet", "en"), "012345");
    let telegram = rendered(&texts, ("login", "en"), Channel::Telegram, &[]);
    assert!(!telegram.plain.contains('\n'));
}

#[test]
fn render_error_shows_no_rendered_text() {
    let texts = load(
        "[texts.login.variables]\nname = {}\n[texts.login.en]\nplain = \"{{ code }}{% if name == 'boom' %}{{ name + 1 }}{% endif %}\"\nsms = \"{% if name != 'boom' %}{{ code }}{% endif %}x\"",
    )
    .unwrap();
    let variables = given(&[("name", "boom")]);
    let render_context = RenderContext {
        code: &OtpCode::from_digits("012345").unwrap(),
        life_left: Duration::from_mins(5),
        variables: &variables,
    };
    let login = Purpose::parse("login").unwrap();
    let error = |channel| {
        texts
            .render(&login, "en", channel, &render_context)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        error(Channel::Telegram),
        "texts.login.en.plain: invalid operation (line 1)"
    );
    assert_eq!(
        error(Channel::Sms),
        "texts.login.en.sms: the text does not contain the code"
    );
}

/// Each block of TOML in docs/texts.md loads by itself.
#[test]
fn every_example_on_the_page_loads() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/texts.md");
    let page = fs::read_to_string(path).expect("docs/texts.md is there");
    let blocks: Vec<&str> = page
        .split("```toml\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap_or_default())
        .collect();
    assert!(blocks.len() >= 6, "the page has {} examples", blocks.len());
    for block in blocks {
        if let Err(error) = load(block) {
            panic!("{error}\n{block}");
        }
    }
}
