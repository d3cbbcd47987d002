//! A PromQL parser that finds the metrics and labels of an expression.

use std::{iter::Peekable, str::Chars};

/// Metric selectors of an expression.
#[derive(Debug, Default)]
pub struct Named {
    pub selectors: Vec<Selector>,
    /// The labels that it groups, joins or reduces by.
    pub groups: Vec<String>,
}

/// A metric with its label matchers.
#[derive(Debug, PartialEq, Eq)]
pub struct Selector {
    pub metric: String,
    /// Labels with their quoted values.
    pub matchers: Vec<(String, String)>,
}

/// Words that are followed by labels in parentheses.
const GROUPING: [&str; 6] = [
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
];
const OPERATORS: [&str; 5] = ["and", "or", "unless", "offset", "bool"];

/// Reads an expression.
pub fn named(expression: &str) -> Named {
    let mut named = Named::default();
    let mut rest = expression.chars().peekable();
    while let Some(&next) = rest.peek() {
        match next {
            '"' | '\'' => {
                quoted(&mut rest);
            }
            // A window.
            '[' => {
                rest.by_ref().find(|&character| character == ']');
            }
            // A number, or a time.
            '0'..='9' => {
                while_in(&mut rest, |character| {
                    character.is_alphanumeric() || character == '.'
                });
            }
            'a'..='z' | 'A'..='Z' | '_' | ':' => {
                let word = word(&mut rest);
                blanks(&mut rest);
                let follows = rest.peek().copied();
                if GROUPING.contains(&word.as_str()) {
                    rest.next();
                    let inside: String = rest
                        .by_ref()
                        .take_while(|&character| character != ')')
                        .collect();
                    let labels = inside.split(',').map(|label| label.trim().to_owned());
                    named.groups.extend(labels);
                } else if follows == Some('{') {
                    let matchers = matchers(&mut rest);
                    named.selectors.push(Selector {
                        metric: word,
                        matchers,
                    });
                } else if follows != Some('(') && !OPERATORS.contains(&word.as_str()) {
                    // A function or an aggregation is followed by a parenthesis, or by `by`.
                    let upcoming: String = rest.clone().take(3).collect();
                    if !upcoming.starts_with("by ") && !upcoming.starts_with("by(") {
                        named.selectors.push(Selector {
                            metric: word,
                            matchers: Vec::new(),
                        });
                    }
                }
            }
            _ => {
                rest.next();
            }
        }
    }
    named
}

fn matchers(rest: &mut Peekable<Chars>) -> Vec<(String, String)> {
    let mut matchers = Vec::new();
    rest.next();
    loop {
        while_in(rest, |character| " ,".contains(character));
        if rest.peek().is_none_or(|&character| character == '}') {
            rest.next();
            return matchers;
        }
        let label = word(rest);
        while_in(rest, |character| " =!~".contains(character));
        assert!(!label.is_empty(), "a matcher begins with a label");
        matchers.push((label, quoted(rest)));
    }
}

fn word(rest: &mut Peekable<Chars>) -> String {
    while_in(rest, |character| {
        character.is_ascii_alphanumeric() || "_:".contains(character)
    })
}

fn blanks(rest: &mut Peekable<Chars>) {
    while_in(rest, char::is_whitespace);
}

/// Parses a quoted string.
fn quoted(rest: &mut Peekable<Chars>) -> String {
    let quote = rest.next();
    rest.by_ref()
        .take_while(|&character| Some(character) != quote)
        .collect()
}

fn while_in(rest: &mut Peekable<Chars>, fits: impl Fn(char) -> bool) -> String {
    let mut taken = String::new();
    while let Some(character) = rest.next_if(|&character| fits(character)) {
        taken.push(character);
    }
    taken
}

#[test]
fn selectors_are_extracted_from_expressions() {
    let expression = r#"histogram_quantile(0.95, sum by (le, job) (rate(a_bucket{x="1", y=~"b|c"}[5m])))
        / on (instance) group_left () (b_total offset 10m) > 3 or vector(0) unless c:d:rate5m"#;
    let named = named(expression);
    let matched = |label: &str, value: &str| (label.to_owned(), value.to_owned());
    let expected = [
        ("a_bucket", vec![matched("x", "1"), matched("y", "b|c")]),
        ("b_total", Vec::new()),
        ("c:d:rate5m", Vec::new()),
    ];
    let expected = expected.map(|(metric, matchers)| Selector {
        metric: metric.to_owned(),
        matchers,
    });
    assert_eq!(named.selectors, expected);
    assert_eq!(named.groups, ["le", "job", "instance", ""]);
}
