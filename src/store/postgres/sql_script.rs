//! Statements of a migration file.

/// Returns the statements of `script`, without those that are empty or only comments. A semicolon in
/// a comment or in quotes separates nothing.
pub(super) fn statements(script: &str) -> Vec<&str> {
    let mut statements = Vec::new();
    let (mut start, mut position) = (0, 0);
    let mut has_content = false;
    while let Some(next) = script[position..].chars().next() {
        let rest = &script[position..];
        let length = if rest.starts_with("--") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with(['$', '\'', '"']) {
            has_content = true;
            quoted_length(rest)
        } else {
            has_content |= next != ';' && !next.is_whitespace();
            next.len_utf8()
        };
        if next == ';' {
            if has_content {
                statements.push(script[start..position].trim());
            }
            start = position + 1;
            has_content = false;
        }
        position += length;
    }
    if has_content {
        statements.push(script[start..].trim());
    }
    statements
}

/// Returns the length of the quoted text at the start of `text`, up to its end if the quotes are
/// not closed. A doubled quote is taken for the end of one text and the start of another.
fn quoted_length(text: &str) -> usize {
    let quote = match text.strip_prefix('$') {
        None => &text[..1],
        Some(tag) => {
            match tag.find(|character: char| !character.is_alphanumeric() && character != '_') {
                Some(end) if tag[end..].starts_with('$') => &text[..end + 2],
                // A parameter.
                _ => return 1,
            }
        }
    };
    let inside = &text[quote.len()..];
    inside
        .find(quote)
        .map_or(text.len(), |end| quote.len() + end + quote.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_end_at_semicolons_outside_of_comments_and_quotes() {
        let script = "-- a; b\nSELECT 1;\n\n;SELECT ';''' AS \"x;y\", $1;
            DO $$ BEGIN; END $$; DO $a_1$ $$;$$ $a_1$;SELECT 2 -- end;";
        assert_eq!(
            statements(script),
            [
                "-- a; b\nSELECT 1",
                "SELECT ';''' AS \"x;y\", $1",
                "DO $$ BEGIN; END $$",
                "DO $a_1$ $$;$$ $a_1$",
                "SELECT 2 -- end;",
            ]
        );
        assert!(statements(" -- nothing;\n; ").is_empty());
    }
}
