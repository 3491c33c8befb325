//! Something built of files, built again when their content changes.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use sha2::{Digest as _, Sha256};

use super::files::{self, Part, Problem};

/// Files that something is built of.
pub trait Source {
    /// What is built.
    type Built;

    /// Reads the files.
    ///
    /// # Errors
    /// One cannot be read.
    fn read(&self) -> Result<Contents, Problem>;

    /// Builds it of what was read.
    ///
    /// # Errors
    /// A file holds something else, or they do not fit together.
    fn build(&self, contents: &Contents) -> Result<Self::Built, Problem>;
}

/// What the files hold. Read first and built of then, so that what is compared is what is used.
#[derive(Default)]
pub struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    authorities: Vec<u8>,
}

impl Contents {
    /// Reads one file.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn add(&mut self, part: Part, path: &Path) -> Result<(), Problem> {
        let bytes = files::read_part(part, path)?;
        match part {
            Part::Certificate => self.certificate = bytes,
            Part::Key => self.key = bytes,
            Part::Authorities => self.authorities = bytes,
        }
        Ok(())
    }

    /// What one file holds.
    pub(super) fn of(&self, part: Part) -> &[u8] {
        match part {
            Part::Certificate => &self.certificate,
            Part::Key => &self.key,
            Part::Authorities => &self.authorities,
        }
    }

    fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        for part in [&self.certificate, &self.key, &self.authorities] {
            digest.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            digest.update(part);
        }
        digest.finalize().into()
    }
}

impl std::fmt::Debug for Contents {
    /// Leaves the key out.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Contents").finish_non_exhaustive()
    }
}

/// Files that can be looked at, whatever is built of them.
pub trait LookAt: std::fmt::Debug + Send + Sync {
    /// Reads the files; puts them in force if they are others than those last tried.
    fn look(&self) -> Look;
}

/// What a look at the files found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// What was there at the last look; its problem, if it has one, is known.
    Same,
    /// Something else that cannot be used. Somebody may be half-way through writing: the next look
    /// refuses it if it is still the same.
    Unsettled,
    /// Something else, and it is in force now.
    Swapped,
    /// Something that cannot be used; what was in force stays.
    Refused(Problem),
}

/// The source, what is in force, and what was last tried.
#[derive(Debug)]
pub struct Watched<S: Source> {
    source: S,
    current: Arc<ArcSwap<S::Built>>,
    tried: Mutex<Tried>,
}

/// What was last found, and its problem as long as that was not told.
#[derive(Debug)]
struct Tried {
    found: Result<[u8; 32], Problem>,
    untold: Option<Problem>,
}

impl<S: Source> Watched<S> {
    /// Reads and builds it for the first time.
    ///
    /// # Errors
    /// What keeps it from being used.
    pub fn first(source: S) -> Result<Self, Problem> {
        let contents = source.read()?;
        let built = source.build(&contents)?;
        let current = Arc::new(ArcSwap::from_pointee(built));
        let tried = Tried { found: Ok(contents.digest()), untold: None };
        Ok(Self { source, current, tried: Mutex::new(tried) })
    }

    /// What is in force, now and after each change.
    pub fn current(&self) -> Arc<ArcSwap<S::Built>> {
        Arc::clone(&self.current)
    }
}

impl<S> LookAt for Watched<S>
where
    S: Source + std::fmt::Debug + Send + Sync,
    S::Built: std::fmt::Debug + Send + Sync,
{
    fn look(&self) -> Look {
        let read = self.source.read();
        let found = match &read {
            Ok(contents) => Ok(contents.digest()),
            Err(problem) => Err(problem.clone()),
        };
        let mut tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        if tried.found == found {
            return tried.untold.take().map_or(Look::Same, Look::Refused);
        }
        let built = read.and_then(|contents| self.source.build(&contents));
        tried.found = found;
        match built {
            Ok(built) => {
                tried.untold = None;
                self.current.store(Arc::new(built));
                Look::Swapped
            }
            Err(problem) => {
                tried.untold = Some(problem);
                Look::Unsettled
            }
        }
    }
}
