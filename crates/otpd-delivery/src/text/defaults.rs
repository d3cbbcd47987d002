//! Shipped texts, for every purpose without its own.
//!
//! A shipped SMS with a code of six digits fits one segment, even with a line for
//! browsers for a host name of 11 characters.

use super::settings::TextSettings;

/// Returns the languages, each with its texts.
pub(super) fn texts() -> [(&'static str, TextSettings); 2] {
    [("en", english()), ("ru", russian())]
}

fn english() -> TextSettings {
    let plain =
        "{{ code }} is your code, valid for {{ minutes }} min. Do not share it with anyone.";
    let voice = "Your code is: {{ code }}. Again: {{ code }}. Do not share it with anyone.";
    let email = "Your code: {{ code }}\n\nIt is valid for {{ minutes }} min. Do not share it with anyone.\nIf you did not ask for it, ignore this message.\n";
    TextSettings {
        plain: Some(plain.to_owned()),
        voice: Some(voice.to_owned()),
        subject: Some("Your code".to_owned()),
        email: Some(email.to_owned()),
        html: Some(include_str!("shipped/en.html").to_owned()),
        ..TextSettings::default()
    }
}

fn russian() -> TextSettings {
    let plain = "Код {{ code }} действует {{ minutes }} мин. Никому не сообщайте.";
    let voice = "Ваш код: {{ code }}. Повторяю: {{ code }}. Никому его не сообщайте.";
    let email = "Ваш код: {{ code }}\n\nОн действует {{ minutes }} мин. Никому его не сообщайте.\nЕсли вы не запрашивали код, не обращайте внимания на это письмо.\n";
    TextSettings {
        plain: Some(plain.to_owned()),
        voice: Some(voice.to_owned()),
        subject: Some("Ваш код".to_owned()),
        email: Some(email.to_owned()),
        html: Some(include_str!("shipped/ru.html").to_owned()),
        ..TextSettings::default()
    }
}
