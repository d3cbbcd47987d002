//! Properties of every message, for all values that callers may give.

use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn every_message_contains_its_code(
        digits in "[0-9]{4,10}",
        purpose in "login|other|default",
        locale in "\\PC{0,12}|(ru|en|de)(-[A-Za-z0-9]{1,8}){0,3}",
        name in any::<String>(),
        stray in any::<String>(),
        seconds in any::<u64>(),
        channel in proptest::sample::select(&Channel::ALL[..]),
    ) {
        let texts = load(
            "[texts.login]\norigin = 'example.com'\n[texts.login.variables]\nname = {}\n[texts.login.de]\nplain = '{{ name }}: {{ code }}, {{ minutes }}'\nsubject = '{{ name }}!'\nhtml = '<i>{{ name }}</i> {{ code }}'",
        )
        .unwrap();
        let code = OtpCode::from_digits(&digits).unwrap();
        let render_context = RenderContext {
            code: &code,
            life_left: Duration::from_secs(seconds),
            variables: &given(&[("name", &name), (&stray, &name)]),
        };
        let purpose = Purpose::parse(&purpose).unwrap();
        let text = texts.render(&purpose, &locale, channel, &render_context).unwrap();
        let again = texts.render(&purpose, &locale, channel, &render_context).unwrap();
        prop_assert_eq!(&text, &again);
        let spoken: Vec<String> = digits.chars().map(String::from).collect();
        let shown = if channel == Channel::Voice { spoken.join(", ") } else { digits.clone() };
        prop_assert!(text.plain.contains(&shown));
        let email = channel == Channel::Email;
        prop_assert_eq!((text.subject.is_some(), text.html.is_some()), (email, email));
        if let Some(subject) = &text.subject {
            prop_assert!(!subject.contains(['\n', '\r']));
        }
        // The shipped texts do not begin with this tag.
        if let Some(rest) = text.html.as_deref().and_then(|html| html.strip_prefix("<i>")) {
            let end = format!("</i> {digits}");
            let inside = rest.strip_suffix(&end);
            prop_assert!(inside.is_some_and(|inside| !inside.contains(['<', '>', '"'])));
        }
        if channel == Channel::Sms && purpose.as_str() == "login" {
            let last = format!("\n@example.com #{digits}");
            prop_assert!(text.plain.ends_with(&last));
        }
    }

    #[test]
    fn accepted_variable_is_one_visible_line(name in any::<String>()) {
        let texts = load("[texts.login.variables]\nname = { max_length = 256 }").unwrap();
        let login = Purpose::parse("login").unwrap();
        if texts.check_variables(&login, &given(&[("name", &name)])).is_ok() {
            prop_assert!(!name.chars().any(char::is_control) && !name.contains("://"));
            prop_assert!(name.chars().count() <= 256);
        }
    }
}
