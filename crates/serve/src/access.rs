//! Who may call: secrets compared in constant time.

use std::fmt;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

/// The secrets of a server, kept as digests so that all have one length.
pub struct Keys {
    digests: Vec<[u8; 32]>,
}

/// Who calls, as far as that is told apart: whose requests share an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Caller {
    /// Where nobody needs a key.
    Anyone,
    /// Who has the key of this number, counted from 1.
    Key(u32),
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Caller::Anyone => write!(f, "anyone"),
            Caller::Key(number) => write!(f, "key {number}"),
        }
    }
}

/// Why a caller is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    KeyMissing,
    KeyUnknown,
}

impl Keys {
    pub fn new(secrets: &[String]) -> Keys {
        Keys { digests: secrets.iter().map(|secret| digest(secret)).collect() }
    }

    /// Whether nobody needs a key.
    pub fn is_open(&self) -> bool {
        self.digests.is_empty()
    }

    /// Looks at `Authorization: Bearer SECRET`. The time taken doesn't depend on how a wrong secret differs
    /// from a right one, nor on which of several was right.
    pub fn check(&self, headers: &HeaderMap) -> Result<Caller, Denied> {
        if self.is_open() {
            return Ok(Caller::Anyone);
        }
        let secret = bearer(headers).ok_or(Denied::KeyMissing)?;
        let presented = digest(secret);
        let (mut known, mut number) = (Choice::from(0), 0);
        for (one, digest) in (1..).zip(&self.digests) {
            let equal = digest.ct_eq(&presented);
            known |= equal;
            number.conditional_assign(&one, equal);
        }
        if known.into() { Ok(Caller::Key(number)) } else { Err(Denied::KeyUnknown) }
    }
}

fn digest(secret: &str) -> [u8; 32] {
    Sha256::digest(secret).into()
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, secret) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| secret.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(keys: &[&str], header: Option<&str>, expected: Result<Caller, Denied>) {
        let keys = Keys::new(&keys.iter().map(|key| key.to_string()).collect::<Vec<_>>());
        let mut headers = HeaderMap::new();
        if let Some(header) = header {
            headers.insert(AUTHORIZATION, header.parse().unwrap());
        }
        assert_eq!(keys.check(&headers), expected, "{header:?}");
    }

    #[test]
    fn any_of_the_keys_lets_in_and_nothing_else() {
        let keys = ["first", "second"];
        check(&keys, Some("Bearer first"), Ok(Caller::Key(1)));
        check(&keys, Some("bearer second"), Ok(Caller::Key(2)));
        check(&keys, Some("Bearer  second "), Ok(Caller::Key(2)));
        check(&keys, Some("Bearer firs"), Err(Denied::KeyUnknown));
        check(&keys, Some("Bearer firstsecond"), Err(Denied::KeyUnknown));
        check(&keys, Some("Bearer "), Err(Denied::KeyUnknown));
        check(&keys, Some("Basic first"), Err(Denied::KeyMissing));
        check(&keys, Some("first"), Err(Denied::KeyMissing));
        check(&keys, None, Err(Denied::KeyMissing));
        check(&[], None, Ok(Caller::Anyone));
        check(&[], Some("Bearer anything"), Ok(Caller::Anyone));
    }
}
