//! Whether an environment fits into `execve`: found out before the container is made, with the cause. What the kernel
//! has to say ("argument list too long") comes too late and names nothing.

use std::collections::BTreeMap;

/// Linux: 32 pages for one string with its NUL.
const MAX_STRING: usize = 128 << 10;
/// Linux: a quarter of the stack's limit (8 MiB) for all strings and the pointers to them.
const MAX_TOTAL: usize = 2 << 20;
/// Room for arguments, what the image adds, and the kernel's own.
const RESERVE: usize = 64 << 10;
/// A variable beside its name and value: `=`, NUL and a pointer.
const OVERHEAD: usize = 10;

/// Checks the environment of a container; `services` are those of its variables that lead to Services.
///
/// # Errors
/// What is too large and how to make it smaller, for the waiting reason `CreateContainerConfigError`.
pub(crate) fn check(
    environment: &BTreeMap<String, String>,
    services: &BTreeMap<String, String>,
) -> Result<(), String> {
    for (name, value) in environment {
        let size = name.len() + value.len() + 2;
        if size > MAX_STRING {
            let shown: String = name.chars().take(64).collect();
            return Err(format!(
                "environment variable {shown:?} is too large: {size} bytes, a program can be given {MAX_STRING}; mount \
                 the value as a file instead"
            ));
        }
    }
    let total: usize = environment.iter().map(size).sum();
    if total <= MAX_TOTAL - RESERVE {
        return Ok(());
    }
    let links = environment.iter().filter(|(name, value)| services.get(*name) == Some(value));
    let (count, bytes) = links.fold((0, 0), |(count, bytes), pair| (count + 1, bytes + size(pair)));
    let what = format!(
        "the environment is too large: {} variables of {total} bytes, a program can be given {}",
        environment.len(),
        MAX_TOTAL - RESERVE
    );
    Err(if bytes * 2 >= total || total - bytes <= MAX_TOTAL - RESERVE {
        format!(
            "{what}; {count} of them with {bytes} bytes are the links to the Services of the namespace, which \
             enableServiceLinks: false in the pod's spec turns off"
        )
    } else {
        format!("{what}; mount large values as files instead")
    })
}

fn size((name, value): (&String, &String)) -> usize {
    name.len() + value.len() + OVERHEAD
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn variables(prefix: &str, count: usize, bytes: usize) -> BTreeMap<String, String> {
        (0..count).map(|n| (format!("{prefix}_{n}"), "x".repeat(bytes))).collect()
    }

    #[test]
    fn env_34_too_many_service_links_are_named_with_the_cure() {
        let services = variables("SERVICE", 30_000, 60);
        let mut environment = variables("OWN", 10, 100);
        assert_eq!(check(&environment, &BTreeMap::new()), Ok(()));
        environment.extend(services.clone());
        let error = check(&environment, &services).unwrap_err();
        assert!(error.contains("30000 of them") && error.contains("enableServiceLinks: false"), "{error}");
        // The pod's own are to blame when they would not fit alone.
        let own = variables("OWN", 40, 100_000);
        let error = check(&own, &BTreeMap::new()).unwrap_err();
        assert!(!error.contains("Service") && error.contains("files"), "{error}");
    }

    #[test]
    fn one_variable_has_a_bound_of_its_own() {
        let one = |bytes: usize| BTreeMap::from([("A".to_owned(), "x".repeat(bytes))]);
        assert_eq!(check(&one(MAX_STRING - 3), &BTreeMap::new()), Ok(()));
        let error = check(&one(MAX_STRING), &BTreeMap::new()).unwrap_err();
        assert!(error.starts_with("environment variable \"A\" is too large"), "{error}");
    }
}
