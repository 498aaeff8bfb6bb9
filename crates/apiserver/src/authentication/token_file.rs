//! Static bearer tokens: upstream's `--token-auth-file`, lines of `token,user,uid,"group1,group2"`.

use std::collections::HashMap;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::Error;
use crate::user::UserInfo;

/// More than anybody writes by hand.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// The users of a token file. Tokens are kept and looked up as hashes, so that comparing them tells nothing by time.
#[derive(Debug, Default)]
pub struct TokenFile(HashMap<[u8; 32], UserInfo>);

impl TokenFile {
    /// Reads the file.
    ///
    /// # Errors
    /// When it cannot be read or a line has fewer than three columns.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error::Identity {
            operation: format!("read the token file {}", path.display()),
            source,
        };
        let size = std::fs::metadata(path).map_err(|e| failed(Box::new(e)))?.len();
        if size > MAX_FILE_BYTES {
            return Err(failed(format!("it is larger than {MAX_FILE_BYTES} bytes").into()));
        }
        let text = std::fs::read_to_string(path).map_err(|e| failed(Box::new(e)))?;
        Self::parse(&text).map_err(|line| {
            failed(
                format!("line {line} does not have at least the columns token, user name and user uid")
                    .into(),
            )
        })
    }

    /// Parses the lines; the error is the number of one that is malformed.
    fn parse(text: &str) -> Result<Self, usize> {
        let mut users = HashMap::new();
        for (number, line) in text.lines().enumerate() {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let columns = columns(line);
            let [token, username, uid, rest @ ..] = columns.as_slice() else { return Err(number + 1) };
            if token.is_empty() || username.is_empty() {
                return Err(number + 1);
            }
            let groups = rest.first().map(String::as_str).unwrap_or_default();
            let groups =
                groups.split(',').map(str::trim).filter(|group| !group.is_empty()).map(str::to_owned);
            let user = UserInfo {
                username: username.clone(),
                uid: uid.clone(),
                groups: groups.collect(),
                ..UserInfo::default()
            };
            users.insert(Sha256::digest(token).into(), user);
        }
        Ok(Self(users))
    }

    /// Whose token it is.
    pub fn user(&self, token: &str) -> Option<UserInfo> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        self.0.get(&digest).cloned()
    }
}

/// The columns of a CSV line; a column in double quotes may hold commas.
fn columns(line: &str) -> Vec<String> {
    let (mut out, mut column, mut quoted) = (Vec::new(), String::new(), false);
    for character in line.chars() {
        match character {
            '"' => quoted = !quoted,
            ',' if !quoted => out.push(std::mem::take(&mut column).trim().to_owned()),
            other => column.push(other),
        }
    }
    out.push(column.trim().to_owned());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_token_user_uid_and_groups() {
        let file = TokenFile::parse("# ours\nsecret,ann,7,\"dev,ops\"\n\nother,bob,8\n").unwrap();
        let ann = file.user("secret").unwrap();
        assert_eq!((ann.username.as_str(), ann.uid.as_str()), ("ann", "7"));
        assert_eq!(ann.groups, ["dev", "ops"]);
        assert!(file.user("other").unwrap().groups.is_empty());
        assert!(file.user("ann").is_none());
        assert_eq!(TokenFile::parse("a,b\n").unwrap_err(), 1);
    }
}
