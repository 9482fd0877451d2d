//! Every program of the cookbook succeeds on the broker that it starts.

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::process::Command;

/// Path of an example that cargo has built beside this test.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path =
        test.ancestors().nth(2).unwrap().join("examples").join(name).with_extension(std::env::consts::EXE_EXTENSION);
    assert!(path.exists(), "{} is missing: cargo build --examples", path.display());
    path
}

#[test]
fn every_program_of_the_cookbook_ends_well() {
    let cookbook = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/cookbook.md")).unwrap();
    let names: Vec<_> = cookbook.split("(../examples/").skip(1).filter_map(|rest| rest.split(".rs)").next()).collect();
    assert_eq!(names.len(), 15, "{names:?}");
    let running: Vec<_> = names.iter().map(|name| (name, Command::new(example(name)).output())).collect();
    for (name, output) in running {
        let output = output.unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}: {}\n{errors}", output.status);
        assert!(!output.stdout.is_empty(), "{name} prints nothing");
    }
}
