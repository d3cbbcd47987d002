//! Every spelling in the golden corpus is parsed as by Google's library.

use otpd_rules::{Recipient, Region};

/// Made by make_phones.py beside it, from Google's metadata.
const CORPUS: &str = include_str!("../corpus/phones.tsv");

#[test]
fn every_corpus_spelling_is_parsed_correctly() {
    let mut lines = 0;
    let mut wrong = Vec::new();
    for line in CORPUS.split('\n').skip(1).filter(|line| !line.is_empty()) {
        let columns: Vec<&str> = line.split('\t').collect();
        let [region, written, expected, note] = columns[..] else {
            panic!("not four columns: {line:?}");
        };
        // A region that Google does not know reads nothing; otpd refuses it by name.
        let region = match region {
            "" => None,
            region => match region.parse::<Region>() {
                Ok(region) => Some(region),
                Err(_) => continue,
            },
        };
        lines += 1;
        let read = Recipient::parse(written, region);
        let read = read.as_ref().map_or("invalid", Recipient::as_str);
        if read != expected {
            wrong.push(format!(
                "{note}: {written:?} is {expected}, but was read as {read}"
            ));
        }
    }
    assert!(lines >= 24_000, "only {lines} lines");
    assert!(
        wrong.is_empty(),
        "{} of {lines} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
