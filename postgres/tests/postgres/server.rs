//! A PostgreSQL of the tests: the server of `AILURUS_TEST_POSTGRES` (`host=… user=…`), or one that is
//! started here from the installed binaries and ends with this process.

use std::env;
use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex};

use tokio_postgres::{Client, Config, NoTls};

/// Runs as a user that is not root, for as long as its stdin is open: also if this process is killed.
const RUN: &str = r#"
cd "$2" && export LC_ALL=C
"$1/initdb" -D data -U postgres -A trust -E UTF8 --no-locale >initdb.log 2>&1 || { cat initdb.log >&2; exit 1; }
start() {
    "$1/pg_ctl" -D data -w -t 60 -l server.log -o "-k '$2' -c listen_addresses= -c fsync=off -c max_connections=200" start >/dev/null ||
        { cat server.log >&2; exit 1; }
    echo ready
}
start "$1" "$2"
while read -r _; do
    "$1/pg_ctl" -D data -w -m immediate stop >/dev/null
    start "$1" "$2"
done
"$1/pg_ctl" -D data -w -m immediate stop >/dev/null
rm -rf "$2"
"#;

static SERVER: LazyLock<Option<Server>> = LazyLock::new(Server::find);
static DATABASES: AtomicU32 = AtomicU32::new(0);

/// A server.
pub struct Server {
    config: String,
    /// None if another process has started it.
    process: Option<Mutex<Process>>,
}

struct Process {
    commands: ChildStdin,
    ready: BufReader<ChildStdout>,
    _child: Child,
}

/// A database of one test.
pub struct Database {
    server: &'static Server,
    /// Parameters of its connections.
    pub config: String,
}

/// Returns a new database; `None`, with a line that says so, where there is no PostgreSQL and it is
/// not required (`CI=true`).
pub async fn database() -> Option<Database> {
    // The start blocks.
    let server = tokio::task::spawn_blocking(|| SERVER.as_ref()).await.unwrap()?;
    Some(create_database(server).await)
}

/// Returns a new database on a server that no other test uses; `None` as [`database`].
pub async fn database_to_restart() -> Option<Database> {
    let server = tokio::task::spawn_blocking(Server::find).await.unwrap()?;
    // Until the process ends, as the other one.
    Some(create_database(Box::leak(Box::new(server))).await)
}

async fn create_database(server: &'static Server) -> Database {
    let name = format!("ailurus_test_{}_{}", std::process::id(), DATABASES.fetch_add(1, Ordering::Relaxed));
    connect(&format!("{} dbname=postgres", server.config))
        .await
        .batch_execute(&format!("CREATE DATABASE {name}"))
        .await
        .unwrap();
    Database { server, config: format!("{} dbname={name}", server.config) }
}

/// Connects.
pub async fn connect(config: &str) -> Client {
    let (client, connection) = config.parse::<Config>().unwrap().connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

impl Database {
    /// Connects.
    pub async fn connect(&self) -> Client {
        connect(&self.config).await
    }

    /// Connects, and creates the tables.
    pub async fn migrated(&self) -> Client {
        let client = self.connect().await;
        ailurus_postgres::migrate(&client).await.unwrap();
        client
    }

    /// Ends the server without a shutdown, and starts it again. Does nothing to a server that
    /// another process has started, and returns false.
    pub async fn restart_server(&self) -> bool {
        let Some(process) = &self.server.process else { return false };
        let restart = || {
            let mut process = process.lock().unwrap();
            process.commands.write_all(b"restart\n").unwrap();
            process.wait_ready().expect("the server starts again");
        };
        tokio::task::spawn_blocking(restart).await.unwrap();
        true
    }
}

impl Server {
    fn find() -> Option<Self> {
        if let Some(config) = env::var("AILURUS_TEST_POSTGRES").ok().filter(|c| !c.is_empty()) {
            return Some(Self { config, process: None });
        }
        let Some(binaries) = binaries() else {
            let what = "PostgreSQL is not installed (apt-get install postgresql, or set AILURUS_TEST_POSTGRES)";
            assert!(env::var("CI").as_deref() != Ok("true"), "{what}, and CI=true requires it");
            _ = writeln!(std::io::stderr(), "SKIPPED: {what}");
            return None;
        };
        let directory = tempfile::Builder::new().prefix("ailurus-postgres-").tempdir().unwrap().keep();
        let process = Process::start(&binaries, &directory);
        let config = format!("host={} user=postgres", directory.display());
        Some(Self { config, process: Some(Mutex::new(process)) })
    }
}

impl Process {
    fn start(binaries: &Path, directory: &Path) -> Self {
        let shell = ["sh", "-c", RUN, "sh"];
        // The server refuses to run as root.
        let mut command = if std::fs::metadata(directory).unwrap().uid() == 0 {
            std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755)).unwrap();
            let status = Command::new("chown").arg("postgres").arg(directory).status().unwrap();
            assert!(status.success(), "there is no user postgres to run the server as");
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).args(shell);
            command
        } else {
            let mut command = Command::new(shell[0]);
            command.args(&shell[1..]);
            command
        };
        command.arg(binaries).arg(directory).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (commands, ready) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut process = Self { commands, ready, _child: child };
        process.wait_ready().expect("PostgreSQL starts; see above");
        process
    }

    fn wait_ready(&mut self) -> Option<()> {
        let mut line = String::new();
        self.ready.read_line(&mut line).unwrap();
        (line.trim_end() == "ready").then_some(())
    }
}

/// Returns the directory of the newest binaries.
fn binaries() -> Option<PathBuf> {
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let version = |path: &PathBuf| path.parent()?.file_name()?.to_str()?.parse::<u32>().ok();
    let newest =
        debian.map(|entry| entry.path().join("bin")).filter(|bin| bin.join("initdb").exists()).max_by_key(version);
    let in_path = || env::split_paths(&env::var_os("PATH")?).find(|bin| bin.join("initdb").exists());
    newest.or_else(in_path)
}
