//! Finds the routers of the matrix by their folders and writes what no list says: a module of the library and a
//! test a cell for each. A cell that a router's `lacks.txt` names becomes an ignored test with the reason.

use std::{
    env,
    error::Error,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The lines `name: text` of a file, comments and empty lines left out.
fn pairs(path: &Path) -> Result<Vec<(String, String)>> {
    println!("cargo::rerun-if-changed={}", path.display());
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = fs::read_to_string(path)?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| match line.split_once(": ") {
            Some((name, text)) => Ok((name.to_owned(), text.to_owned())),
            None => Err(format!("{}: {line:?}: expected `name: text`", path.display()).into()),
        })
        .collect()
}

struct Router {
    name: String,
    source: PathBuf,
    lacks: Vec<(String, String)>,
}

fn routers(folder: &Path) -> Result<Vec<Router>> {
    println!("cargo::rerun-if-changed={}", folder.display());
    let mut routers = Vec::new();
    for entry in fs::read_dir(folder)? {
        let (path, name) = { entry.map(|entry| (entry.path(), entry.file_name()))? };
        let source = path.join("router.rs");
        if source.exists() {
            let name = name.into_string().map_err(|name| format!("{}: not UTF-8", name.display()))?;
            routers.push(Router { name, source, lacks: pairs(&path.join("lacks.txt"))? });
        }
    }
    routers.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(routers)
}

fn library(cells: &[(String, String)], routers: &[Router]) -> Result<String> {
    let mut text = String::new();
    writeln!(text, "/// The rows of the matrix: names of cells, and what they show.")?;
    writeln!(text, "pub const CELLS: &[(&str, &str)] = &{cells:?};")?;
    writeln!(text, "/// The columns of the matrix.\npub const KINDS: &[Kind] = &[")?;
    for Router { name, lacks, .. } in routers {
        writeln!(
            text,
            "Kind {{ name: {name:?}, title: {name}::TITLE, version: {name}::version, start: {name}::start, lacks: \
             &{lacks:?} }},"
        )?;
    }
    writeln!(text, "];")?;
    for Router { name, source, .. } in routers {
        writeln!(text, "#[path = {source:?}]\nmod {name};")?;
    }
    Ok(text)
}

fn tests(cells: &[(String, String)], routers: &[Router]) -> Result<String> {
    let mut text = String::new();
    for Router { name, source, lacks } in routers {
        let unknown = lacks.iter().find(|(lacking, _)| !cells.iter().any(|(cell, _)| cell == lacking));
        if let Some((lacking, _)) = unknown {
            return Err(format!("{}: lacks.txt: no cell called {lacking}", source.display()).into());
        }
        writeln!(text, "mod {name} {{")?;
        for (cell, _) in cells {
            let lacking = lacks.iter().find(|(lacking, _)| lacking == cell);
            if let Some((_, reason)) = lacking {
                writeln!(text, "#[ignore = {reason:?}]")?;
            }
            writeln!(
                text,
                "#[test]\nfn {cell}() {{ super::run({name:?}, {cell:?}, interop::cells::{cell}); }}"
            )?;
        }
        writeln!(text, "}}")?;
    }
    Ok(text)
}

fn main() -> Result<()> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let cells = pairs(&root.join("cells.txt"))?;
    let routers = routers(&root.join("routers"))?;
    fs::write(out.join("routers.rs"), library(&cells, &routers)?)?;
    fs::write(out.join("tests.rs"), tests(&cells, &routers)?)?;
    Ok(())
}
