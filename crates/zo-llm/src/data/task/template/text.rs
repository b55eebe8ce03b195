//! Templates as text.

use super::TemplateError;

/// A part of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    Text(String),
    /// The path to a field.
    Field(Vec<String>),
}

/// `\n`, `\t` and `\\` as what they stand for.
pub(super) fn unescaped(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let escaped = match (c, chars.peek()) {
            ('\\', Some('n')) => Some('\n'),
            ('\\', Some('t')) => Some('\t'),
            ('\\', Some('\\')) => Some('\\'),
            _ => None,
        };
        if escaped.is_some() {
            chars.next();
        }
        plain.push(escaped.unwrap_or(c));
    }
    plain
}

/// The parts of a template.
pub(super) fn parse(template: &str) -> Result<Vec<Piece>, TemplateError> {
    let brace = |brace| {
        let template = template.to_owned();
        Err(TemplateError::Brace { template, brace })
    };
    let (mut pieces, mut text) = (Vec::new(), String::new());
    let plain = unescaped(template);
    let mut chars = plain.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, chars.peek()) {
            ('{', Some('{')) | ('}', Some('}')) => {
                chars.next();
                text.push(c);
            }
            ('}', _) => return brace('}'),
            ('{', _) => {
                let mut name = String::new();
                loop {
                    match chars.next() {
                        None | Some('{') => return brace('{'),
                        Some('}') => break,
                        Some(c) => name.push(c),
                    }
                }
                if !text.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut text)));
                }
                let path = name.split('.').map(|name| name.trim().to_owned());
                pieces.push(Piece::Field(path.collect()));
            }
            _ => text.push(c),
        }
    }
    if !text.is_empty() {
        pieces.push(Piece::Text(text));
    }
    if !pieces.iter().any(|piece| matches!(piece, Piece::Field(_))) {
        let template = template.to_owned();
        return Err(TemplateError::NoField { template });
    }
    Ok(pieces)
}
