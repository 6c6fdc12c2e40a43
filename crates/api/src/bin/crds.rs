//! Writes the chart's CRD files: `cargo run -p api --bin crds -- charts/purelb/crds`.

use std::{env, fs, path::PathBuf, process::ExitCode};

fn main() -> ExitCode {
    let Some(folder) = env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: crds FOLDER");
        return ExitCode::from(2);
    };
    if let Err(error) = write(&folder) {
        eprintln!("cannot write CRDs to {}: {error}", folder.display());
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn write(folder: &std::path::Path) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    for (file, crd) in api::crds::all() {
        let yaml = serde_norway::to_string(&crd).map_err(std::io::Error::other)?;
        fs::write(folder.join(file), format!("{}{yaml}", api::crds::HEADER))?;
    }
    Ok(())
}
