//! Programs that the tests run: whether they are there, and where they come from.

use std::collections::BTreeSet;
use std::env;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::sync::{Mutex, OnceLock};

/// Oldest Java that runs Kafka's servers.
const MIN_JAVA: u32 = 17;

/// Returns the root of the repository.
pub fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// Returns the directory for what the tests keep or leave behind.
pub fn target() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    std::fs::create_dir_all(target).unwrap();
    target.to_owned()
}

/// Returns the directory with Kafka's jars.
pub fn kafka_libs() -> PathBuf {
    env::var_os("KAFKA_LIBS").map_or_else(|| target().join("kafka-libs"), |libs| root().join(libs))
}

/// Returns the value of a setting of the tests.
pub fn setting<T: FromStr>(name: &str, default: T) -> T {
    match env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}")),
        Err(_) => default,
    }
}

/// Writes a line that is shown even if the test passes.
pub fn report(module: &str, text: impl std::fmt::Display) {
    let line = format!("{}: {text}\n", short(module));
    _ = std::io::stderr().write_all(line.as_bytes()); // at once, so that lines of several tests stay whole
}

/// Returns whether Kafka's servers or tools can run, and these programs are there.
pub fn has_kafka_and(module: &str, programs: &[&str]) -> bool {
    has_programs(module, programs) && (has_java(module) && has_jars(module))
}

/// Returns whether these are installed. If not, the module is reported as not run.
pub fn has_programs(module: &str, programs: &[&str]) -> bool {
    let missing: Vec<_> = programs.iter().filter(|program| !is_installed(program)).copied().collect();
    missing.is_empty() || not_run(module, &format!("{} is not installed", missing.join(", ")))
}

fn is_installed(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

fn has_java(module: &str) -> bool {
    let version = Command::new("java").arg("-version").output();
    let version = version.map(|output| String::from_utf8_lossy(&output.stderr).into_owned()).unwrap_or_default();
    let number = version.split('"').nth(1).and_then(|v| v.split(['.', '-']).next()).and_then(|v| v.parse().ok());
    number.is_some_and(|n: u32| n >= MIN_JAVA) || not_run(module, &format!("no java {MIN_JAVA} or later"))
}

/// Downloads Kafka's jars if they are not there: as long as that takes.
fn has_jars(module: &str) -> bool {
    static FETCHED: OnceLock<bool> = OnceLock::new();
    if kafka_libs().join(".done").exists() {
        return true;
    }
    if !is_installed("mvn") {
        return not_run(module, "mvn is not installed");
    }
    let fetch = || kafka_local(&target().join("kafka-tools"), &["fetch"]).status().unwrap().success();
    *FETCHED.get_or_init(fetch) || not_run(module, "mvn could not fetch Kafka")
}

/// Reports a module as not run, once for each reason; returns false.
///
/// # Panics
///
/// With `CI=true`, which requires every test.
pub fn not_run(module: &str, why: &str) -> bool {
    static REPORTED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let line = format!("cargo test --workspace --test kafka -- {}:: ({why})", short(module));
    assert!(env::var("CI").as_deref() != Ok("true"), "CI=true requires {line}");
    if !REPORTED.lock().unwrap().insert(line.clone()) {
        return false;
    }
    report(module, format_args!("not run: {why}"));
    if let Some(file) = env::var_os("AILURUS_TEST_NOT_RUN") {
        let mut file = OpenOptions::new().create(true).append(true).open(file).unwrap();
        writeln!(file, "{line}").unwrap();
    }
    false
}

/// Returns the last part of a module path.
fn short(module: &str) -> &str {
    module.rsplit("::").next().unwrap_or(module)
}

/// Returns `scripts/kafka-local.sh` with its data in `directory`.
pub fn kafka_local(directory: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(root().join("scripts/kafka-local.sh"));
    command.current_dir(root()).args(args).env("KAFKA_DIR", directory).env("KAFKA_LIBS", kafka_libs());
    command
}

/// Builds the command and the examples that the tests run, with the features of the tests; returns their directory.
pub fn built() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.current_dir(root()).args(["build", "--locked", "--quiet", "--workspace", "--bin", "ailurus"]);
        for example in ["publisher", "steady_load", "steady_pipeline", "steady_transactions", "mixed_group"] {
            build.args(["--example", example]);
        }
        assert!(build.stdin(Stdio::null()).status().unwrap().success(), "{build:?} failed");
        // This test is target/PROFILE/deps/kafka-HASH.
        env::current_exe().unwrap().parent().and_then(Path::parent).unwrap().to_owned()
    })
}
