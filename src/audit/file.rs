//! The audit file: appended to, never overwritten, rotated by size; and devices.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::sink::Output;

/// Only the account of the proxy reads the trail; readers get it by a group or a copy on purpose.
const MODE: u32 = 0o600;

/// When to rotate, and how much to keep.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rotation {
    /// Size in bytes above which the file is rotated.
    pub(super) rotate_bytes: u64,
    /// How many rotated files are kept.
    pub(super) keep: u32,
}

/// A file that becomes `.1`, `.2` … when it is full.
#[derive(Debug)]
pub(super) struct Rotating {
    path: PathBuf,
    rotation: Rotation,
    file: File,
    bytes: u64,
    /// The last rotation failed and was logged; the file grows on.
    stuck: bool,
}

impl Rotating {
    /// Opens the file for appending, repairs a last line that a crash tore, and locks it against
    /// another process. A device is returned as it is: neither locked, repaired nor rotated.
    ///
    /// # Errors
    /// It cannot be opened, repaired, or is locked.
    pub(super) fn open(path: &Path, rotation: Rotation) -> io::Result<Self> {
        let mut file = open_append(path)?;
        let metadata = file.metadata()?;
        let mut bytes = metadata.len();
        if metadata.is_file() {
            lock(&file)?;
            if metadata.permissions().mode() & 0o077 != 0 {
                let path = path.display();
                tracing::warn!(%path, "audit file is readable by others; consider mode 600");
            }
            bytes += end_last_line(&mut file, bytes)?;
        }
        let keep = rotation.keep.max(1);
        let rotate_bytes = if metadata.is_file() { rotation.rotate_bytes } else { u64::MAX };
        let rotation = Rotation { rotate_bytes, keep };
        Ok(Self { path: path.to_owned(), rotation, file, bytes, stuck: false })
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        // The successor first: without it the old file stays where it is.
        let fresh_path = suffixed(&self.path, "new");
        let fresh = open_append(&fresh_path)?;
        lock(&fresh)?;
        self.shift()?;
        let full = numbered(&self.path, 1);
        match std::fs::rename(&self.path, &full) {
            // Somebody else moved the file away: then only the successor is missing.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            renamed => renamed?,
        }
        if let Err(error) = std::fs::rename(&fresh_path, &self.path) {
            // Lines go on into the old file; it should keep its name.
            std::fs::rename(&full, &self.path)?;
            return Err(error);
        }
        self.file = fresh;
        self.bytes = 0;
        Ok(())
    }

    /// Makes `.1` free: moves the files before the first free number up by one, over the oldest when
    /// all are there. Nothing moves when a failed rotation left `.1` free.
    fn shift(&self) -> io::Result<()> {
        let free = (1..self.rotation.keep).find(|n| !numbered(&self.path, *n).exists());
        let last = free.unwrap_or(self.rotation.keep);
        for number in (1..last).rev() {
            std::fs::rename(numbered(&self.path, number), numbered(&self.path, number + 1))?;
        }
        Ok(())
    }
}

impl Write for Rotating {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.bytes = self.bytes.saturating_add(u64::try_from(written).unwrap_or(u64::MAX));
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Output for Rotating {
    fn begin(&mut self, bytes: usize) {
        let after = self.bytes.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        if self.bytes == 0 || after <= self.rotation.rotate_bytes {
            return;
        }
        // A file that cannot be rotated is no reason to stop: it takes more lines.
        match self.rotate() {
            Ok(()) => self.stuck = false,
            Err(error) if !self.stuck => {
                self.stuck = true;
                let path = self.path.display();
                tracing::warn!(%path, %error, "audit file cannot be rotated; it grows on");
            }
            Err(_) => {}
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        sync(&self.file)
    }
}

/// Standard output, written to without a buffer in between.
#[derive(Debug)]
pub(super) struct Device(File);

impl Device {
    pub(super) fn stdout() -> io::Result<Self> {
        let stdout = io::stdout().as_fd().try_clone_to_owned()?;
        Ok(Self(File::from(stdout)))
    }
}

impl Write for Device {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Output for Device {
    fn begin(&mut self, _bytes: usize) {}

    fn sync(&mut self) -> io::Result<()> {
        sync(&self.0)
    }
}

/// `audit.jsonl` → `audit.jsonl.3`.
fn numbered(path: &Path, number: u32) -> PathBuf {
    suffixed(path, &number.to_string())
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

fn open_append(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).append(true).create(true).mode(MODE).open(path)
}

/// Two processes that rotate one file would lose lines.
fn lock(file: &File) -> io::Result<()> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            let reason = "another process writes to it; give each its own file";
            Err(io::Error::new(io::ErrorKind::WouldBlock, reason))
        }
        // A file system without locks: nothing to protect with.
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Ends a line that a crash left unfinished, so that it does not swallow the next one. Returns how
/// many bytes were added.
fn end_last_line(file: &mut File, bytes: u64) -> io::Result<u64> {
    let Some(last) = bytes.checked_sub(1) else { return Ok(0) };
    let mut end = [0];
    file.read_exact_at(&mut end, last)?;
    if end == *b"\n" {
        return Ok(0);
    }
    file.write_all(b"\n")?;
    Ok(1)
}

/// Syncs what can be synced: a pipe or a terminal cannot, and that is no error.
fn sync(file: &File) -> io::Result<()> {
    if file.metadata()?.is_file() { file.sync_all() } else { Ok(()) }
}
