//! Report of `otpd check` about texts.

use super::*;
use crate::text::cost_report::ReportLine;
use otpd_rules::PurposePolicy;

#[test]
fn built_in_sms_with_browser_line_fits_one_segment() {
    let texts = load("[texts.default]\norigin = \"example.com\"").unwrap();
    let report = texts.report();
    assert_eq!(report.len(), 2);
    for line in report {
        assert_eq!(line.segments.count, 1, "{line}");
        assert!(line.warnings.is_empty(), "{:?}", line.warnings);
        assert!(
            line.text.ends_with("\n@example.com #123456"),
            "{}",
            line.text
        );
    }
}

#[test]
fn report_lists_texts_of_several_segments() {
    let mut policies = PolicySet::default();
    let long_codes = PurposePolicy {
        code_length: 10,
        ..PurposePolicy::default()
    };
    policies
        .purposes
        .insert(Purpose::parse("payment").unwrap(), long_codes);
    let root = read(
        "
        [texts.login.variables]
        name = { max_length = 60 }
        [texts.login.en]
        plain = 'It’s {{ code }} — really'
        [texts.login.de]
        plain = '{{ name }} {{ code }}'
        [texts.long.en]
        plain = 'Код {{ code }} для подтверждения вашего запроса действует недолго, никому его не говорите'
        ",
    )
    .unwrap();
    let texts = MessageTemplates::new(&root.default_locale, &root.texts, &policies).unwrap();
    let report: BTreeMap<String, ReportLine> = texts
        .report()
        .into_iter()
        .map(|line| (format!("{} {}", line.purpose, line.locale), line))
        .collect();
    let names: Vec<&str> = report.keys().map(String::as_str).collect();
    let expected = [
        "default en",
        "default ru",
        "login de",
        "login en",
        "long en",
        "payment en",
        "payment ru",
    ];
    assert_eq!(names, expected);
    let typographic = "is UCS-2, with 70 instead of 160 characters a segment, because of '’' (U+2019), '—' (U+2014)";
    let long = "costs as much as 2 messages; shorten it by 15 to fit one";
    for (name, warnings) in [
        ("login en", &[typographic][..]),
        ("long en", &[long]),
        // Texts that cannot become cheaper: 67 characters of either encoding, and
        // Cyrillic.
        ("login de", &[]),
        ("payment ru", &[]),
    ] {
        assert_eq!(report[name].warnings, warnings, "{}", report[name].text);
    }
    assert!(report["payment en"].text.contains("1234567890"));
    assert_eq!(
        report["login de"].to_string(),
        "login in de: 67 characters of GSM-7, 1 segment (texts.login.de)"
    );
}

#[test]
fn non_gsm_values_may_need_more_segments() {
    let texts = load(
        "[texts.default.variables]\nname = {}\n[texts.default.en]\nplain = '{{ name }}: {{ code }}'\n[texts.login]\nandroid_hash = 'FA+9qCX9VSu'",
    )
    .unwrap();
    let report = texts.report();
    let of = |purpose: &str| {
        let mut lines = report.iter();
        let line = lines.find(|line| line.purpose.as_str() == purpose);
        line.unwrap().warnings.clone()
    };
    let segments = "with values in other letters than those of GSM-7 it takes 72 characters of UCS-2, 2 segments";
    assert_eq!(of("default"), [segments]);
    let login = of("login");
    assert!(
        login[0].contains("84 characters of UCS-2, 2 segments"),
        "{login:?}"
    );
    assert!(
        login[1].contains("168 bytes, and Android reads 140"),
        "{login:?}"
    );
}
