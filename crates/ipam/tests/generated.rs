//! The checked-in types are those of the checked-in contract.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::{fs, path::Path};

#[test]
fn the_generated_types_are_those_of_the_proto() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = protox::compile([root.join("proto/ipam.proto")], [root.join("proto")]).unwrap();
    let out = tempfile::tempdir().unwrap();
    tonic_prost_build::configure()
        .out_dir(out.path())
        .server_mod_attribute(".", "#[cfg(feature = \"server\")]")
        .compile_fds(files)
        .unwrap();
    let made = fs::read_to_string(out.path().join("purelb.ipam.v1.rs")).unwrap();
    let file = root.join("src/generated.rs");
    if std::env::var_os("IPAM_WRITE").is_some() {
        fs::write(&file, &made).unwrap();
    }
    let is_same = fs::read_to_string(&file).unwrap() == made;
    assert!(is_same, "{} differs from the proto: run the test with IPAM_WRITE=1", file.display());
}
