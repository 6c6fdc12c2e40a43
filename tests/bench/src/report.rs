//! Writes figures as JSON, one file a benchmark.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use serde::Serialize;

use crate::{figure::Figure, machine::Machine};

/// What a file holds.
#[derive(Debug, Serialize)]
struct Report<'a> {
    benchmark: &'a str,
    about: &'a str,
    finished: Timestamp,
    machine: &'a Machine,
    figures: &'a [Figure],
}

/// Writes `folder/NAME.json`.
pub(crate) fn write(
    folder: &Path,
    machine: &Machine,
    (benchmark, about): (&str, &str),
    figures: &[Figure],
) -> Result<()> {
    let report = Report { benchmark, about, finished: Timestamp::now(), machine, figures };
    let path = folder.join(format!("{benchmark}.json"));
    let text = serde_json::to_string_pretty(&report).context("writing figures as JSON")?;
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    fs::write(&path, text + "\n").with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::figure::{Sample, merge};

    #[test]
    fn a_report_says_what_the_line_says_and_the_runs_behind_it() {
        let folder = tempfile::tempdir().unwrap();
        let runs = [1.0, 3.0, 2.0].map(|value| {
            vec![
                Sample::bar("bulk_100k", value, "ms", 8.0),
                Sample::peer("bulk_100k", 72.0, "ms", ("BIRD", "2.0.12")),
            ]
        });
        write(folder.path(), &Machine::look(), ("bulk_100k", "about"), &merge(runs.into())).unwrap();
        let text = fs::read_to_string(folder.path().join("bulk_100k.json")).unwrap();
        let report = serde_json::from_str::<Value>(&text).unwrap();
        assert_eq!(report["figures"][0]["value"], 2.0);
        assert_eq!(report["figures"][0]["kind"], "bar");
        assert_eq!(report["figures"][0]["limit"], 8.0);
        assert_eq!(report["figures"][0]["runs"].as_array().unwrap().len(), 3);
        assert_eq!(report["figures"][1]["peer"], "BIRD");
        assert!(report["machine"]["kernel"].is_string());
    }
}
