//! The grammar of label selectors: a lexer and a recursive descent, with upstream's complaints.

use super::Error;
use super::label::{Operator, Requirement};

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Symbol(&'static str),
    End,
}

impl Token {
    fn text(&self) -> &str {
        match self {
            Self::Word(w) => w,
            Self::Symbol(s) => s,
            Self::End => "",
        }
    }

    fn is(&self, symbol: &str) -> bool {
        matches!(self, Self::Symbol(s) if *s == symbol)
    }

    fn is_word(&self) -> bool {
        matches!(self, Self::Word(_))
    }
}

fn is_special(c: u8) -> bool {
    matches!(c, b'=' | b'!' | b'(' | b')' | b',' | b'>' | b'<')
}

fn lex(text: &str) -> Vec<Token> {
    let bytes = text.as_bytes();
    let mut tokens = Vec::new();
    let mut i = 0;
    while i < bytes.len() {
        let c = bytes[i];
        if matches!(c, b' ' | b'\t' | b'\r' | b'\n') {
            i += 1;
            continue;
        }
        if is_special(c) {
            let two = bytes.get(i + 1) == Some(&b'=');
            let (symbol, len) = match (c, two) {
                (b'=', true) => ("==", 2),
                (b'!', true) => ("!=", 2),
                (b'=', false) => ("=", 1),
                (b'!', false) => ("!", 1),
                (b'(', _) => ("(", 1),
                (b')', _) => (")", 1),
                (b',', _) => (",", 1),
                (b'>', _) => (">", 1),
                _ => ("<", 1),
            };
            tokens.push(Token::Symbol(symbol));
            i += len;
            continue;
        }
        let start = i;
        while i < bytes.len() && !is_special(bytes[i]) && !matches!(bytes[i], b' ' | b'\t' | b'\r' | b'\n') {
            i += 1;
        }
        tokens.push(Token::Word(text[start..i].to_owned()));
    }
    tokens.push(Token::End);
    tokens
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
}

impl Parser {
    fn peek(&self) -> Token {
        self.tokens.get(self.at).cloned().unwrap_or(Token::End)
    }

    fn next(&mut self) -> Token {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn requirement(&mut self) -> Result<Requirement, Error> {
        let negated = self.peek().is("!");
        if negated {
            self.at += 1;
        }
        let key = self.next();
        if !key.is_word() {
            return found(&key, "identifier");
        }
        let after = self.peek();
        if negated || after == Token::End || after.is(",") {
            let operator = if negated { Operator::DoesNotExist } else { Operator::Exists };
            return Requirement::new(key.text(), operator, vec![]);
        }
        let operator = self.next();
        match operator.text() {
            "in" | "notin" => {
                let kind = if operator.text() == "in" { Operator::In } else { Operator::NotIn };
                let values = self.values()?;
                Requirement::new(key.text(), kind, values)
            }
            "=" | "==" => Requirement::new(key.text(), Operator::In, vec![self.exact_value()?]),
            "!=" => Requirement::new(key.text(), Operator::NotIn, vec![self.exact_value()?]),
            ">" => Requirement::new(key.text(), Operator::Gt, vec![self.exact_value()?]),
            "<" => Requirement::new(key.text(), Operator::Lt, vec![self.exact_value()?]),
            _ => found(&operator, "in, notin, =, ==, !=, gt, lt"),
        }
    }

    fn exact_value(&mut self) -> Result<String, Error> {
        let token = self.peek();
        if token == Token::End || token.is(",") {
            return Ok(String::new());
        }
        self.at += 1;
        if token.is_word() { Ok(token.text().to_owned()) } else { found(&token, "identifier") }
    }

    fn values(&mut self) -> Result<Vec<String>, Error> {
        let open = self.next();
        if !open.is("(") {
            return Err(Error::Label(format!("found '{}' expected: '('", open.text())));
        }
        let mut values = Vec::new();
        let mut expect_value = true;
        loop {
            let token = self.next();
            if token.is(")") {
                if expect_value {
                    values.push(String::new());
                }
                break;
            } else if token.is(",") {
                if expect_value {
                    values.push(String::new());
                }
                expect_value = true;
            } else if token.is_word() && expect_value {
                values.push(token.text().to_owned());
                expect_value = false;
            } else if expect_value {
                return found(&token, "',', ')' or identifier");
            } else {
                return found(&token, "',' or ')'");
            }
        }
        values.sort();
        values.dedup();
        Ok(values)
    }
}

fn found<T>(token: &Token, expected: &str) -> Result<T, Error> {
    Err(Error::Label(format!("found '{}', expected: {expected}", token.text())))
}

/// Parses a whole selector; requirements come back sorted by key, as upstream keeps them.
pub(super) fn parse(text: &str) -> Result<Vec<Requirement>, Error> {
    let mut parser = Parser { tokens: lex(text), at: 0 };
    let mut out = Vec::new();
    loop {
        let token = parser.peek();
        if token == Token::End && out.is_empty() {
            return Ok(out);
        }
        if !(token.is_word() || token.is("!")) {
            return found(&token, "!, identifier, or 'end of string'");
        }
        let requirement =
            parser.requirement().map_err(|e| Error::Label(format!("unable to parse requirement: {e}")))?;
        out.push(requirement);
        let separator = parser.next();
        if separator == Token::End {
            break;
        }
        if !separator.is(",") {
            return found(&separator, "',' or 'end of string'");
        }
        let after = parser.peek();
        if !(after.is_word() || after.is("!")) {
            return found(&after, "identifier after ','");
        }
    }
    out.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(out)
}
