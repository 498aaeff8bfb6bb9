//! The `continue` tokens of lists: where the next piece begins, and at which revision it is read.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sampan_api::Status;
use serde::{Deserialize, Serialize};

/// The token's content, in upstream's form.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Token {
    v: String,
    /// The revision of the whole list; -1 is "whatever is there now".
    rv: i64,
    /// The first key of the next piece, without the resource's prefix.
    start: String,
}

const VERSION: &str = "meta.k8s.io/v1";

/// Where a list goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Continue {
    /// The first key of the next piece, without the prefix of what is listed.
    pub start: String,
    /// The revision it is read at; `None` is the newest.
    pub revision: Option<i64>,
}

impl Continue {
    /// The token as clients get it.
    pub fn encode(&self) -> String {
        let token =
            Token { v: VERSION.to_owned(), rv: self.revision.unwrap_or(-1), start: self.start.clone() };
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).unwrap_or_default())
    }

    /// Reads a token.
    ///
    /// # Errors
    /// 400 when it is none of ours.
    pub fn decode(text: &str) -> Result<Self, Status> {
        let wrong = |why: &str| Status::bad_request(format!("continue key is not valid: {why}"));
        let bytes =
            URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|error| wrong(&error.to_string()))?;
        let token: Token = serde_json::from_slice(&bytes).map_err(|error| wrong(&error.to_string()))?;
        if token.v != VERSION {
            return Err(wrong("server does not recognize this encoded version"));
        }
        if token.rv == 0 {
            return Err(wrong("incorrect encoded start resourceVersion (version meta.k8s.io/v1)"));
        }
        if token.start.is_empty()
            || token.start.split('/').any(|piece| piece == "..")
            || token.start.starts_with('/')
        {
            return Err(wrong("encoded start key empty (version meta.k8s.io/v1)"));
        }
        Ok(Self { start: token.start, revision: (token.rv > 0).then_some(token.rv) })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn tokens_survive_the_way_to_the_client() {
        for revision in [Some(12), None] {
            let token = Continue { start: "default/a\0".to_owned(), revision };
            assert_eq!(Continue::decode(&token.encode()).unwrap(), token);
        }
        assert_eq!(Continue::decode("!!").unwrap_err().code, 400);
        assert_eq!(Continue::decode("e30").unwrap_err().code, 400);
    }
}
