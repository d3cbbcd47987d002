//! Parsing of `[providers.NAME]`.

mod mistakes;

use std::fmt::Write as _;

use config::{File, FileFormat};

use super::{
    preset::PRESETS,
    provider::Provider,
    settings::{ProviderKind, ProviderSettings},
};
use otpd_base::{environment::Environment, tables::ConfigTable};
use otpd_rules::Channel;

/// Secret that no output may contain.
const SECRET: &str = "hush-hush-4711";

fn table(text: &str) -> ConfigTable {
    let source = File::from_str(text, FileFormat::Toml);
    let built = config::Config::builder().add_source(source).build();
    let table = built.and_then(|config| config.cache.into_table());
    table
        .expect("the TOML of the test is valid")
        .into_iter()
        .collect()
}

fn parse(text: &str) -> Result<ProviderSettings, String> {
    ProviderSettings::parse("x", table(text)).map_err(|fault| fault.to_string())
}

#[test]
fn each_provider_problem_names_its_key() {
    for (start, rest, expected) in mistakes::ALL {
        let problem = parse(&format!("{start}{rest}\n"));
        let problem = problem.map(|_| ()).expect_err(rest);
        assert!(problem.contains(expected), "{rest}: {problem}");
    }
}

#[test]
fn explicit_key_overrides_the_preset() {
    let settings = parse(
        "preset = \"telegram_gateway\"\nchannel = \"sms\"\ntimeout = \"9s\"\nsecrets.token = \"a\"\nurl = \"https://mine.example/x\"\njson.more = 1\n",
    )
    .expect("all is there");
    assert_eq!(settings.common.channel, Some(Channel::Sms));
    assert_eq!(settings.common.timeout.as_secs(), 9);
    assert!(format!("{settings:?}").contains("mine.example"));
}

#[test]
fn each_preset_is_complete_and_requires_its_parameters() {
    for (name, text) in PRESETS {
        let preset = table(text);
        let documentation = preset["documentation"].clone().into_string();
        assert!(
            documentation.is_ok_and(|url| url.starts_with("https://")),
            "{name}"
        );
        let needs = preset["needs"].clone().into_table().expect("a table");
        let mut own = format!("preset = \"{name}\"\n");
        for kind in ["secrets", "parameters"] {
            let names = needs.get(kind).map(|names| names.clone().into_array());
            for needed in names.unwrap_or(Ok(Vec::new())).expect("a list") {
                writeln!(own, "{kind}.{needed} = \"{SECRET}\"").expect("a string takes all");
                let needed = needed.to_string();
                let others = own.lines().filter(|line| !line.contains(&needed));
                let without = others.collect::<Vec<_>>().join(
                    "
",
                );
                let problem = parse(&without).map(|_| ()).expect_err(name);
                assert!(problem.contains("is missing; preset"), "{problem}");
            }
        }
        let settings = parse(&own).unwrap_or_else(|problem| panic!("{name}: {problem}"));
        assert!(settings.common.channel.is_some(), "{name}");
        assert!(matches!(settings.kind, ProviderKind::Http(_)), "{name}");
        let shown = format!("{settings:?}");
        assert!(!shown.contains(SECRET), "{shown}");
        let provider = Provider::new("x", settings, Environment::Development).expect(name);
        let shown = format!("{provider:?}");
        assert!(!shown.contains(SECRET), "{shown}");
    }
}

#[test]
fn secret_from_a_file_is_trimmed_of_its_line_end() {
    let path = std::env::temp_dir().join(format!("otpd-secret-{}", std::process::id()));
    std::fs::write(&path, format!("{SECRET}\r\n")).expect("the temporary directory takes files");
    let written = path.display();
    let fine = parse(&format!(
        "preset = \"sms_ru\"\nsecrets.api_id_file = \"{written}\"\n"
    ));
    let both = parse(&format!(
        "preset = \"sms_ru\"\nsecrets.api_id_file = \"{written}\"\nsecrets.api_id = \"{SECRET}\"\n"
    ));
    std::fs::remove_file(&path).expect("it was just written");
    assert!(fine.is_ok());
    let problem = both.map(|_| ()).expect_err("one too many");
    assert!(
        problem.contains("leave one out") && !problem.contains(SECRET),
        "{problem}"
    );
}

#[test]
fn provider_debug_output_hides_its_values() {
    for text in [
        format!(
            "kind = \"http\"\nurl = \"https://a.example/{SECRET}\"\nheaders.key = \"{SECRET}\"\njson.a = \"{SECRET}\"\nsecrets.a = \"{SECRET}\"\nbasic = {{ user = \"a\", password = \"{SECRET}\" }}\n"
        ),
        format!(
            "kind = \"smtp\"\nhost = \"a.example\"\nfrom = \"a@b.example\"\nuser = \"{SECRET}\"\npassword = \"{SECRET}\"\n"
        ),
    ] {
        let settings = parse(&text).expect(&text);
        let mut shown = format!("{settings:?}");
        let provider = Provider::new("x", settings, Environment::Development).expect(&text);
        write!(shown, "{provider:?}").expect("a string takes all");
        assert!(
            shown.contains("a.example") && !shown.contains(SECRET),
            "{shown}"
        );
    }
}
