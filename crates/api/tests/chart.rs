//! The chart's CRD files are what the types say.

use std::{collections::BTreeSet, fs, path::Path};

#[test]
fn the_charts_crd_files_are_the_generated_ones() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts/purelb/crds");
    let mut expected = BTreeSet::new();
    for (file, crd) in api::crds::all() {
        let yaml = format!("{}{}", api::crds::HEADER, serde_norway::to_string(&crd).unwrap());
        let found = fs::read_to_string(folder.join(&file)).unwrap_or_default();
        assert!(found == yaml, "{file} differs from crates/api: run `make crds`");
        assert!(!yaml.contains("{{"), "{file} would be read as a template by helm");
        expected.insert(file);
    }
    let found: BTreeSet<String> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(found, expected);
}
