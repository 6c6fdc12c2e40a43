//! The Unix socket: what a crashed instance left is removed, what a living one serves is not.

use std::{
    fs, io,
    os::unix::{fs::FileTypeExt, net::UnixStream},
    path::Path,
};

use anyhow::{Context, bail};
use tokio::net::UnixListener;

/// Listens on the path.
pub(crate) fn bind(path: &Path) -> anyhow::Result<UnixListener> {
    let shown = path.display();
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => bail!("{shown} is there and is no socket"),
        Ok(_) if UnixStream::connect(path).is_ok() => bail!("{shown} is served by another program"),
        Ok(_) => fs::remove_file(path).with_context(|| format!("{shown} is left over and stays"))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
            }
        }
        Err(error) => return Err(error).with_context(|| shown.to_string()),
    }
    UnixListener::bind(path).with_context(|| format!("cannot listen on {shown}"))
}
