//! The file of the books. It is replaced as a whole: written beside, made durable, renamed; a crash leaves the old
//! or the new one. A lock beside it keeps a second instance away.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::books::Holdings;

/// What the file says.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content<H> {
    version: u32,
    pools: H,
}

const VERSION: u32 = 1;

/// The file, ours alone as long as this lives.
pub(crate) struct Store {
    path: PathBuf,
    directory: PathBuf,
    _lock: Flock<File>,
}

impl Store {
    /// Locks and reads it. A file that is there and cannot be read is an error: beginning anew would hand out
    /// addresses that are in use.
    pub(crate) fn open(path: &Path) -> anyhow::Result<(Store, Holdings)> {
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
        let mut lock = path.as_os_str().to_owned();
        lock.push(".lock");
        let lock = PathBuf::from(lock);
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&lock);
        let file = file.with_context(|| lock.display().to_string())?;
        let Ok(lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else {
            bail!("{} is in use by another instance", path.display());
        };
        let holdings = match fs::read(path) {
            Ok(text) => parse(&text).with_context(|| format!("{} is no store of ours", path.display()))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Holdings::new(),
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        let store = Store { path: path.to_owned(), directory, _lock: lock };
        // What cannot be written should be known before the first address is promised.
        store.save(&holdings).with_context(|| format!("{} cannot be written", path.display()))?;
        Ok((store, holdings))
    }

    /// Returns when it is on the disk.
    pub(crate) fn save(&self, holdings: &Holdings) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(&Content { version: VERSION, pools: holdings })?;
        text.push(b'\n');
        let mut file = tempfile::NamedTempFile::new_in(&self.directory)?;
        file.write_all(&text)?;
        file.as_file().sync_all()?;
        file.persist(&self.path)?;
        File::open(&self.directory)?.sync_all()
    }
}

fn parse(text: &[u8]) -> anyhow::Result<Holdings> {
    let content: Content<Holdings> = serde_json::from_slice(text)?;
    if content.version != VERSION {
        bail!("its version is {}, expected {VERSION}", content.version);
    }
    Ok(content.pools)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::books::Holder;

    #[test]
    fn what_was_saved_is_read_and_a_second_instance_is_kept_away() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("books.json");
        let (store, empty) = Store::open(&path).unwrap();
        assert!(empty.is_empty());
        let error = Store::open(&path).map(drop).unwrap_err().to_string();
        assert!(error.contains("another instance"), "{error}");
        let holder = Holder { service: "ns/a".into(), sharing_key: String::new() };
        let holdings: Holdings = [("p".into(), [("192.0.2.1".parse().unwrap(), vec![holder])].into())].into();
        store.save(&holdings).unwrap();
        drop(store);
        assert_eq!(Store::open(&path).unwrap().1, holdings);
    }

    #[test]
    fn a_broken_file_is_not_taken_for_an_empty_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("books.json");
        for text in ["", "{\"version\": 2, \"pools\": {}}", "{\"version\": 1, \"pools\": {"] {
            fs::write(&path, text).unwrap();
            assert!(Store::open(&path).is_err(), "{text:?}");
        }
    }
}
