//! With which account a client that has proved who it is logs in at the server, and the
//! credentials for it: from a file or the environment, never from the configuration itself.

use std::fmt;
use std::path::PathBuf;

use anyhow::Context as _;
use tracing::error;

use crate::name::Glob;
use crate::session::auth::{AccountProof, Attempt, Method, Secret};

/// `upstream_login:`, the first line that fits.
#[derive(Clone, Debug, Default)]
pub struct Accounts {
    /// In the configuration's order.
    pub lines: Vec<Line>,
}

/// One line.
#[derive(Clone, Debug)]
pub struct Line {
    /// Users that clients log in as; empty for all.
    pub users: Vec<Glob>,
    /// Databases; empty for all.
    pub databases: Vec<Glob>,
    /// The account on the server; the client's own name if absent.
    pub account: Option<String>,
    /// Its password.
    pub password: PasswordSource,
}

/// Where a password of ours is.
#[derive(Clone)]
pub enum PasswordSource {
    /// There is none: the server trusts our address or our certificate.
    None,
    /// In a file that is read at each login, so that it can be changed.
    File(PathBuf),
    /// In the environment the process was started with.
    Given(Secret),
}

impl Accounts {
    /// The account for a login and what proves that we may use it.
    ///
    /// # Errors
    /// No line fits, or a password could not be read; the log has it, the word is for the audit
    /// trail.
    pub async fn find(&self, attempt: &Attempt) -> Result<(String, AccountProof), &'static str> {
        let one_of = |globs: &[Glob], name: &str| {
            globs.is_empty() || globs.iter().any(|glob| glob.matches(name))
        };
        let fits = |line: &&Line| {
            one_of(&line.users, &attempt.user) && one_of(&line.databases, &attempt.database)
        };
        let Some(line) = self.lines.iter().find(fits) else {
            return match attempt.method {
                Method::Scram(_) => Ok((attempt.user.clone(), AccountProof::ClientsKeys)),
                _ => {
                    error!(user = attempt.user, "no `upstream_login` fits this user");
                    Err("no upstream_login fits")
                }
            };
        };
        let account = line.account.as_ref().unwrap_or(&attempt.user).clone();
        match line.password.read().await {
            Ok(None) => Ok((account, AccountProof::Nothing)),
            Ok(Some(password)) => Ok((account, AccountProof::Password(password))),
            Err(error) => {
                error!(account, error = format!("{error:#}"), "password of `upstream_login`");
                Err("the password of upstream_login was not read")
            }
        }
    }
}

impl Accounts {
    /// Whether a password of ours goes to the server.
    pub fn have_password(&self) -> bool {
        self.lines.iter().any(|line| line.password.is_some())
    }
}

impl PasswordSource {
    /// Whether there is one.
    pub fn is_some(&self) -> bool {
        match self {
            Self::None => false,
            Self::File(_) | Self::Given(_) => true,
        }
    }

    /// The password as it is now.
    ///
    /// # Errors
    /// The file cannot be read, or is empty.
    pub async fn read(&self) -> anyhow::Result<Option<Secret>> {
        match self {
            Self::None => Ok(None),
            Self::Given(password) => Ok(Some(password.clone())),
            Self::File(path) => {
                let read = tokio::fs::read(path).await;
                let mut bytes = read.with_context(|| format!("read `{}`", path.display()))?;
                // Editors end a file with a newline; passwords do not end with one.
                while bytes.last().is_some_and(|byte| b"\r\n".contains(byte)) {
                    bytes.pop();
                }
                anyhow::ensure!(!bytes.is_empty(), "`{}` is empty", path.display());
                anyhow::ensure!(!bytes.contains(&0), "`{}` holds a zero byte", path.display());
                Ok(Some(Secret::new(bytes)))
            }
        }
    }
}

impl fmt::Debug for PasswordSource {
    /// Leaves the password out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::File(_) => "File",
            Self::Given(_) => "Given",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::auth::{ChannelBinding, PasswordKind, Scram, StoredIn};

    fn attempt(user: &str, method: Method) -> Attempt {
        Attempt {
            user: user.to_owned(),
            database: "shop".to_owned(),
            address: None,
            entry: 0,
            method,
        }
    }

    #[tokio::test]
    async fn the_first_line_that_fits_names_the_account() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        let line = |user: &str, account: Option<&str>, password| Line {
            users: vec![Glob::new(user)],
            databases: vec![Glob::new("shop")],
            account: account.map(str::to_owned),
            password,
        };
        let accounts = Accounts {
            lines: vec![
                line("app_*", Some("service"), PasswordSource::File(file.clone())),
                line("own", None, PasswordSource::None),
            ],
        };
        let scram = || {
            let (binding, stored) = (ChannelBinding::Prefer, StoredIn::Identities);
            Method::Scram(Scram { binding, stored })
        };
        assert!(accounts.find(&attempt("app_a", scram())).await.is_err(), "no file yet");
        for (text, expected) in [("s3cret\n", &b"s3cret"[..]), ("other\r\n", b"other")] {
            std::fs::write(&file, text).unwrap();
            let (account, proof) = accounts.find(&attempt("app_a", scram())).await.unwrap();
            let secret = Secret::new(expected.to_vec());
            assert_eq!((account.as_str(), proof), ("service", AccountProof::Password(secret)));
        }
        let own = accounts.find(&attempt("own", scram())).await.unwrap();
        assert_eq!(own, ("own".to_owned(), AccountProof::Nothing));
        let learned = accounts.find(&attempt("else", scram())).await.unwrap();
        assert_eq!(learned, ("else".to_owned(), AccountProof::ClientsKeys));
        let token = Method::Password(PasswordKind::Jwt);
        assert!(accounts.find(&attempt("else", token)).await.is_err());
        std::fs::write(&file, "\n").unwrap();
        assert!(accounts.find(&attempt("app_a", scram())).await.is_err(), "an empty password");
    }
}
