//! Secrets that BGPPeers name: the password of a session, as a key that is neither printed nor serialised. The
//! agent watches those Secrets alone, each by its name.

use api::{Refusal, condition::reason};
use bgp::md5::Md5Key;
use k8s_openapi::api::core::v1::Secret;

/// The type that a password comes in.
const TYPE: &str = "kubernetes.io/basic-auth";
/// Its entry in such a Secret.
const ENTRY: &str = "password";
/// The field that names it.
const PATH: &str = "spec.passwordSecret.name";

/// What is known of a Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Password {
    /// A password that can be a key.
    Key(Md5Key),
    /// What keeps it from being one.
    Unusable(String),
}

/// Reads a Secret.
pub fn parse(secret: &Secret) -> Password {
    let type_ = secret.type_.as_deref().unwrap_or("Opaque");
    if type_ != TYPE {
        return Password::Unusable(format!("has type {type_}: expected {TYPE}"));
    }
    let Some(octets) = secret.data.as_ref().and_then(|data| data.get(ENTRY)) else {
        return Password::Unusable(format!("has no entry {ENTRY:?}: expected one of 1 to 80 octets"));
    };
    if octets.0.ends_with(b"\n") {
        return Password::Unusable(format!(
            "has a line break at the end of {ENTRY:?}, which the router's password hardly has: leave it out"
        ));
    }
    match Md5Key::new(&octets.0) {
        Ok(key) => Password::Key(key),
        Err(error) => Password::Unusable(format!("cannot be used, {ENTRY:?}: {error}")),
    }
}

/// What became of a Secret that a peer names.
#[derive(Clone, Copy, Debug)]
pub enum Known<'a> {
    /// The API server has not answered yet.
    NotYet,
    /// It says that there is none.
    Missing,
    /// It is there.
    There(&'a Password),
}

impl Known<'_> {
    /// The key, or why there is no session without it: never one without a password instead.
    pub fn key(self, name: &str) -> Result<Md5Key, Refusal> {
        let message = match self {
            Known::There(Password::Key(key)) => return Ok(key.clone()),
            Known::There(Password::Unusable(why)) => format!("Secret {name} {why}"),
            Known::Missing => {
                format!(
                    "there is no Secret {name} in the namespace of this BGPPeer: create it, of type {TYPE}"
                )
            }
            Known::NotYet => {
                format!("Secret {name} has not been read yet: is the agent allowed to list and watch it?")
            }
        };
        Err(Refusal { reason: reason::SECRET_NOT_USABLE, path: PATH.to_owned(), message })
    }
}

/// Whether a refusal is about a Secret.
pub fn is_about_secret(refusal: &str) -> bool {
    refusal.contains(PATH)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(yaml: &str) -> Password {
        parse(&serde_norway::from_str(yaml).unwrap())
    }

    fn of(type_: &str, entry: &str, base64: &str) -> Password {
        read(&format!("{{type: {type_}, data: {{{entry}: {base64}}}}}"))
    }

    #[test]
    fn a_basic_auth_secret_is_a_key() {
        // "hunter2"
        let password = of(TYPE, "password", "aHVudGVyMg==");
        assert_eq!(password, Password::Key(Md5Key::new(b"hunter2").unwrap()));
        assert!(!format!("{password:?}").contains("hunter2"), "it is not printed");
    }

    #[test]
    fn what_is_no_password_says_why_and_is_no_key() {
        for (password, part) in [
            (of("Opaque", "password", "aHVudGVyMg=="), "type Opaque: expected kubernetes.io/basic-auth"),
            (read("{data: {password: aHVudGVyMg==}}"), "type Opaque"),
            (of(TYPE, "username", "aHVudGVyMg=="), "no entry \"password\""),
            (of(TYPE, "password", "''"), "empty"),
            // "x\n"
            (of(TYPE, "password", "eAo="), "line break"),
            (of(TYPE, "password", &"YWFh".repeat(27)), "81 octets"),
        ] {
            let refusal = Known::There(&password).key("s").unwrap_err();
            assert!(refusal.message.contains(part), "{refusal}");
            assert_eq!((refusal.path.as_str(), refusal.reason), (PATH, "SecretNotUsable"));
        }
        for (known, part) in [(Known::Missing, "no Secret s"), (Known::NotYet, "not been read yet")] {
            assert!(known.key("s").unwrap_err().message.contains(part));
        }
    }
}
