//! Nothing to use: the tests of this crate hold the tree against the rules of ARCHITECTURE.md.
