//! `$(VAR)` expansion in env values, command and args (ENV-38, ENV-39, ENV-40).

/// Expands `$(NAME)` by `lookup`. What `lookup` does not know stays as written; `$$` is a literal `$`.
#[must_use]
pub fn expand(input: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut output = String::with_capacity(input.len());
    let mut rest = input;
    while let Some(at) = rest.find('$') {
        output.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(escaped) = after.strip_prefix('$') {
            output.push('$');
            rest = escaped;
        } else if let Some(reference) = after.strip_prefix('(') {
            match reference.split_once(')') {
                Some((name, remainder)) => {
                    match lookup(name) {
                        Some(value) => output.push_str(&value),
                        None => {
                            output.push_str("$(");
                            output.push_str(name);
                            output.push(')');
                        }
                    }
                    rest = remainder;
                }
                None => {
                    output.push_str("$(");
                    rest = reference;
                }
            }
        } else {
            output.push('$');
            rest = after;
        }
    }
    output.push_str(rest);
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn env_39_expansion_table() {
        let lookup = |name: &str| match name {
            "VAR_A" => Some("A".to_owned()),
            "VAR_B" => Some("B".to_owned()),
            "VAR_REF" => Some("$(VAR_A)".to_owned()),
            "VAR_EMPTY" => Some(String::new()),
            _ => None,
        };
        for (input, expected) in [
            ("$(VAR_A)", "A"),
            ("___$(VAR_B)___", "___B___"),
            ("$(VAR_A)$(VAR_B)", "AB"),
            ("$(VAR_REF)", "$(VAR_A)"),
            ("$$(VAR_A)", "$(VAR_A)"),
            ("$$$(VAR_A)", "$A"),
            ("$$$$(VAR_A)", "$$(VAR_A)"),
            ("$VAR_A", "$VAR_A"),
            ("${VAR_A}", "${VAR_A}"),
            ("$(VAR_A", "$(VAR_A"),
            ("foo$(NOPE)bar", "foo$(NOPE)bar"),
            ("$(VAR_EMPTY)x", "x"),
            ("\\$(VAR_A)", "\\A"),
            ("trailing $", "trailing $"),
            ("$()", "$()"),
            ("$(VAR_$(VAR_A)", "$(VAR_$(VAR_A)"),
            ("$$$$$$", "$$$"),
        ] {
            assert_eq!(expand(input, lookup), expected, "{input}");
        }
    }
}
