//! The syntax of the files that `fileKeyRef` reads (ENV-43, KEP-3721): `NAME='value'`, literally, over several lines if
//! need be. What a shell would read otherwise is an error, not a guess.

/// The value of `key` in a file of variables; `None` when it is not there.
///
/// # Errors
/// Which line is not of that syntax, for the container's waiting message.
pub fn value(text: &str, key: &str) -> Result<Option<String>, String> {
    let invalid =
        |line: usize, why: &str| format!("invalid environment variable format at line {line}: {why}");
    let mut rest = text;
    let mut number = 0;
    while !rest.is_empty() {
        number += 1;
        rest = rest.trim_start_matches([' ', '\t']);
        let (line, next) = rest.split_once('\n').unwrap_or((rest, ""));
        if line.trim_end_matches('\r').is_empty() || line.starts_with('#') {
            rest = next;
            continue;
        }
        let (name, value) = line.split_once('=').ok_or_else(|| invalid(number, "missing '='"))?;
        if name.is_empty() {
            return Err(invalid(number, "empty variable name"));
        }
        if name.ends_with([' ', '\t']) {
            return Err(invalid(number, "whitespace before '=' is not allowed"));
        }
        if value.starts_with([' ', '\t']) {
            // As in a shell: the variable is empty, what follows is something else.
            if name == key {
                return Ok(Some(String::new()));
            }
            rest = next;
            continue;
        }
        if !value.starts_with('\'') {
            return Err(invalid(number, "value must be enclosed in single quotes"));
        }
        // The value may go on behind the end of the line.
        let quoted = &rest[name.len() + "='".len()..];
        let (value, behind) = quoted.split_once('\'').ok_or_else(|| {
            format!("invalid environment variable format starting at line {number}: unclosed single quote")
        })?;
        number += value.matches('\n').count();
        let (trailer, next) = behind.split_once('\n').unwrap_or((behind, ""));
        let trailer = trailer.trim_matches([' ', '\t', '\r']);
        if !trailer.is_empty() && !trailer.starts_with('#') {
            return Err(invalid(number, "unexpected content after closing quote"));
        }
        if name == key {
            return Ok(Some(value.to_owned()));
        }
        rest = next;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn env_43_the_syntax_of_env_files() {
        let text = "# comment\n\n  DB='address'\nMULTI='one\n two # not a comment\n' # comment\nEMPTY=''\n\
                    GAP= 'x'\nLAST='$HOME \"\\n\"'";
        let get = |key: &str| value(text, key).unwrap();
        assert_eq!(get("DB").as_deref(), Some("address"));
        assert_eq!(get("MULTI").as_deref(), Some("one\n two # not a comment\n"));
        assert_eq!(get("EMPTY").as_deref(), Some(""));
        assert_eq!(get("GAP").as_deref(), Some(""));
        assert_eq!(get("LAST").as_deref(), Some("$HOME \"\\n\""));
        assert_eq!(get("NOPE"), None);
        for (bad, why) in [
            ("A=b", "at line 1: value must be enclosed in single quotes"),
            ("A=\"b\"", "at line 1: value must be enclosed in single quotes"),
            ("\nA = 'b'", "at line 2: whitespace before '=' is not allowed"),
            ("A='x'\n='b'", "at line 2: empty variable name"),
            ("word", "at line 1: missing '='"),
            ("A='b\nc'd", "at line 2: unexpected content after closing quote"),
            ("A='b''c'", "at line 1: unexpected content after closing quote"),
            ("A='b\n\n", "starting at line 1: unclosed single quote"),
        ] {
            let error = value(bad, "Z").unwrap_err();
            assert_eq!(error, format!("invalid environment variable format {why}"), "{bad:?}");
        }
    }
}
