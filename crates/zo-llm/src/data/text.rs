//! White space as Python defines it: MeZO and SQuAD's metrics are written in Python.

/// Whether Python's `str.strip` and `str.split` treat `c` as white space: besides Unicode's, the separators U+001C to U+001F.
pub(crate) fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}')
}

/// `text` without white space around it.
pub(crate) fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_is_what_python_strips() {
        // Every character for which Python says `isspace`.
        let spaces = "\t\n\u{b}\u{c}\r\u{1c}\u{1d}\u{1e}\u{1f} \u{85}\u{a0}\u{1680}\u{2000}\u{2001}\u{2002}\u{2003}\u{2004}\u{2005}\u{2006}\
                      \u{2007}\u{2008}\u{2009}\u{200a}\u{2028}\u{2029}\u{202f}\u{205f}\u{3000}";
        let all = '\0'..=char::MAX;
        assert_eq!(all.filter(|c| is_space(*c)).collect::<String>(), spaces);
        assert_eq!(strip("\u{1f} a b\u{1c}\n"), "a b");
    }
}
