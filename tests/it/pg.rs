//! A private PostgreSQL for one test.
//!
//! The cluster is made once into a template folder and copied for each test. PostgreSQL refuses to
//! run as root, so as root the server runs under the `postgres` account (else `nobody`).

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use crate::harness::{SOON, free_port, server_command, signal, wait_exit, wait_until};

/// Password of every role in the template.
pub(crate) const PASSWORD: &str = "pw-of-the-tests";

const SUPERUSER: &str = "postgres";
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// How the server authenticates TCP clients: the last column of `pg_hba.conf`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hba {
    Trust,
    Password,
    Md5,
    Scram,
}

impl Hba {
    fn word(self) -> &'static str {
        match self {
            Self::Trust => "trust",
            Self::Password => "password",
            Self::Md5 => "md5",
            Self::Scram => "scram-sha-256",
        }
    }
}

/// A running server; stopped and removed on drop.
#[derive(Debug)]
pub(crate) struct Postgres {
    child: Option<Child>,
    folder: tempfile::TempDir,
    port: u16,
}

impl Postgres {
    /// Starts a copy of the template that trusts everybody on loopback.
    pub(crate) fn start() -> Self {
        Self::with_hba(Hba::Trust)
    }

    /// Starts a copy of the template with this authentication for TCP clients.
    pub(crate) fn with_hba(hba: Hba) -> Self {
        Self::with_files(&format!("host all all 127.0.0.1/32 {}\n", hba.word()), &[], "")
    }

    /// Starts a copy of the template with these lines of `pg_hba.conf`, files in its data folder
    /// (name and text), and settings for `postgresql.conf`.
    pub(crate) fn with_files(hba: &str, files: &[(&str, &str)], settings: &str) -> Self {
        let template = template();
        let folder = tempfile::Builder::new().prefix("portcullis-pg-").tempdir().unwrap();
        let data = folder.path().join("data");
        run(Command::new("cp").arg("-a").arg(&template).arg(&data));
        give_to_account(folder.path());
        // The superuser stays trusted: the tests look behind the proxy's back with it.
        let hba_text = format!("host all,replication {SUPERUSER} 127.0.0.1/32 trust\n{hba}");
        fs::write(data.join("pg_hba.conf"), hba_text).unwrap();
        for (name, text) in files {
            let path = data.join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            give_to_account(&path);
        }
        let conf = data.join("postgresql.conf");
        let written = fs::read_to_string(&conf).unwrap() + "\n" + settings;
        fs::write(&conf, written).unwrap();
        let mut server = Self { child: None, folder, port: free_port() };
        server.launch();
        server
    }

    /// A streaming standby of a server that trusts the superuser for replication.
    pub(crate) fn standby_of(primary: &Self) -> Self {
        let folder = tempfile::Builder::new().prefix("portcullis-pg-").tempdir().unwrap();
        give_to_account(folder.path());
        let mut copy = server_command(&server_program("pg_basebackup"), account());
        copy.arg("-D").arg(folder.path().join("data")).args(["-h", "127.0.0.1", "-U", SUPERUSER]);
        copy.args(["-p", &primary.port.to_string(), "-R", "-X", "stream", "-c", "fast"]);
        run(copy.arg("--no-sync").current_dir("/"));
        let mut server = Self { child: None, folder, port: free_port() };
        server.launch();
        server
    }

    /// Address clients connect to.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Runs SQL as superuser, past the proxy; fails the test on an error.
    pub(crate) fn admin(&self, sql: &str) -> String {
        let output = psql(self.port, SUPERUSER, "demo").args(["-Atq", "-c", sql]).output().unwrap();
        expect_success(&output, sql)
    }

    /// Waits until a statement of `app` that holds this text is known to the server.
    pub(crate) fn wait_for_statement(&self, holds: &str) {
        wait_until("the statement runs", SOON, || {
            let sql = format!(
                "select count(*) from pg_stat_activity where query like '%{holds}%' \
                 and usename = 'app'"
            );
            self.admin(&sql).trim() == "1"
        });
    }

    /// Kills the server as a crash would, children included.
    pub(crate) fn crash(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Backends notice the postmaster's death and exit on their own.
            signal(child.id(), "KILL");
            child.wait().unwrap();
        }
    }

    /// Starts it again on the same port after a crash.
    pub(crate) fn restart(&mut self) {
        // Backends of the crashed server may hold the data folder for a moment.
        let started = std::time::Instant::now();
        loop {
            match self.try_launch() {
                Ok(()) => return,
                Err(log) if started.elapsed() > START_TIMEOUT => panic!("no restart: {log}"),
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    fn launch(&mut self) {
        if let Err(log) = self.try_launch() {
            panic!("PostgreSQL did not start:\n{log}");
        }
    }

    fn try_launch(&mut self) -> Result<(), String> {
        let child = spawn_postgres(self.folder.path(), self.port);
        self.child = Some(child);
        let started = std::time::Instant::now();
        loop {
            let ready = Command::new(server_program("pg_isready"))
                .args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()])
                .status()
                .unwrap();
            if ready.success() {
                return Ok(());
            }
            let exited = self.child.as_mut().unwrap().try_wait().unwrap().is_some();
            if exited || started.elapsed() > START_TIMEOUT {
                self.stop();
                return Err(fs::read_to_string(self.folder.path().join("log")).unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            signal(child.id(), "QUIT");
            if !wait_exit(&mut child, Duration::from_secs(10)) {
                signal(child.id(), "KILL");
                child.wait().unwrap();
            }
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A `psql` that reads no start-up file and stops at the first error.
pub(crate) fn psql(port: u16, user: &str, database: &str) -> Command {
    let mut command = client_program("psql", port, user);
    command.args(["-X", "-v", "ON_ERROR_STOP=1", "-d", database]);
    command
}

/// A `pgbench` against the database of the template.
pub(crate) fn pgbench(port: u16, user: &str) -> Command {
    client_program("pgbench", port, user)
}

/// Standard output of a run that must have succeeded.
pub(crate) fn expect_success(output: &Output, what: &str) -> String {
    assert!(
        output.status.success(),
        "`{what}` failed: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// `select current_user` went through as this user.
#[track_caller]
pub(crate) fn check_accepted(output: &Output, user: &str) {
    assert_eq!(expect_success(output, "login").trim(), user);
}

/// The login failed, and the client was told this.
#[track_caller]
pub(crate) fn check_refused(output: &Output, message: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "logged in although it must not");
    assert!(text.contains(message), "expected `{message}` in: {text}");
}

pub(crate) fn client_program(name: &str, port: u16, user: &str) -> Command {
    let mut command = Command::new(server_program(name));
    command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-U", user]);
    command.env("PGPASSWORD", PASSWORD).env("PGCONNECT_TIMEOUT", "10").env("LC_ALL", "C");
    command.env("PGGSSENCMODE", "disable").stdin(Stdio::null());
    command
}

/// Finds a PostgreSQL program: in the newest `/usr/lib/postgresql/N/bin`, else on the path.
pub(crate) fn server_program(name: &str) -> PathBuf {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let folder = entry.ok()?;
            let version = folder.file_name().to_str()?.parse().ok()?;
            Some((version, folder.path().join("bin").join(name)))
        })
        .filter(|(_, program)| program.exists())
        .collect();
    versions.sort();
    versions.pop().map_or_else(|| PathBuf::from(name), |(_, program)| program)
}

/// The template's data folder, made on first use and shared by all test processes.
fn template() -> PathBuf {
    let home = template_home();
    let ready = home.join("data");
    let lock = fs::File::create(home.join("lock")).unwrap();
    lock.lock().unwrap();
    if !ready.exists() {
        let making = home.join("making");
        if making.exists() {
            fs::remove_dir_all(&making).unwrap();
        }
        fs::create_dir(&making).unwrap();
        make_template(&making);
        // The rename is what declares it complete: a run that died half-way leaves no template.
        fs::rename(making.join("data"), &ready).unwrap();
    }
    ready
}

/// Where the template lives. `PORTCULLIS_IT_DIR` lets a script choose, and remove, the place.
fn template_home() -> PathBuf {
    let me = fs::metadata("/proc/self").unwrap().uid();
    let home = std::env::var_os("PORTCULLIS_IT_DIR").map_or_else(
        || std::env::temp_dir().join(format!("portcullis-it-{me}-{}", template_version())),
        PathBuf::from,
    );
    fs::create_dir_all(&home).unwrap();
    let metadata = fs::metadata(&home).unwrap();
    assert_eq!(metadata.uid(), me, "{} belongs to somebody else; remove it", home.display());
    // The server's account must be able to pass through; nobody else may write.
    fs::set_permissions(&home, fs::Permissions::from_mode(0o755)).unwrap();
    home
}

/// Changes whenever the template's content would.
fn template_version() -> String {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    let files = [SCHEMA, SAMPLE].map(read_project_file);
    (files, ROLES, GRANTS, PASSWORD, server_program("postgres")).hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

fn make_template(folder: &Path) {
    give_to_account(folder);
    let data = folder.join("data");
    let mut initdb = server_command(&server_program("initdb"), account());
    initdb.arg("-D").arg(&data).args(["-U", SUPERUSER, "-A", "trust", "-E", "UTF8"]);
    initdb.args(["--locale=C", "--no-sync", "--no-instructions"]);
    run(&mut initdb);
    let mut server = spawn_postgres_keeping(folder, free_port());
    load_template(server.port);
    signal(server.child.id(), "INT");
    assert!(wait_exit(&mut server.child, START_TIMEOUT), "template server did not stop");
}

struct TemplateServer {
    child: Child,
    port: u16,
}

fn spawn_postgres_keeping(folder: &Path, port: u16) -> TemplateServer {
    let child = spawn_postgres(folder, port);
    wait_until("template server", START_TIMEOUT, || {
        psql(port, SUPERUSER, "postgres")
            .args(["-c", "select 1"])
            .output()
            .unwrap()
            .status
            .success()
    });
    TemplateServer { child, port }
}

fn load_template(port: u16) {
    let load = |database: &str, sql: &str| {
        let output =
            psql(port, SUPERUSER, database).args(["-q", "-1", "-c", sql]).output().unwrap();
        expect_success(&output, sql);
    };
    load("postgres", &ROLES.replace("{password}", PASSWORD));
    let output =
        psql(port, SUPERUSER, "postgres").args(["-c", "CREATE DATABASE demo"]).output().unwrap();
    expect_success(&output, "CREATE DATABASE demo");
    load("demo", &read_project_file(SCHEMA));
    load("demo", &read_project_file(SAMPLE));
    load("demo", GRANTS);
    let mut bench = pgbench(port, SUPERUSER);
    expect_success(&bench.args(["-i", "-q", "-n", "demo"]).output().unwrap(), "pgbench -i");
    load("demo", "GRANT ALL ON ALL TABLES IN SCHEMA public TO app, support, analyst");
}

fn spawn_postgres(folder: &Path, port: u16) -> Child {
    let log = fs::File::create(folder.join("log")).unwrap();
    let mut command = server_command(&server_program("postgres"), account());
    command.arg("-D").arg(folder.join("data"));
    for setting in [
        &format!("port={port}"),
        "listen_addresses=127.0.0.1",
        "unix_socket_directories=",
        "fsync=off",
        "max_connections=120",
        "shared_buffers=16MB",
        "max_prepared_transactions=4",
        "log_statement=all",
        "log_min_messages=info",
    ] {
        command.arg("-c").arg(setting);
    }
    command.current_dir("/").stdin(Stdio::null());
    command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}

/// User and group the server runs under; `None` when the tests do not run as root.
pub(crate) fn account() -> Option<(u32, u32)> {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return None;
    }
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let find = |name: &str| {
        passwd.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            (fields[0] == name).then(|| (fields[2].parse().unwrap(), fields[3].parse().unwrap()))
        })
    };
    Some(find("postgres").or_else(|| find("nobody")).expect("an unprivileged account"))
}

fn read_project_file(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

pub(crate) fn give_to_account(folder: &Path) {
    if let Some((user, group)) = account() {
        chown(folder, Some(user), Some(group)).unwrap();
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    expect_success(&output, &format!("{command:?}"));
}

const SCHEMA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/rules/demo/schema.sql");
const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/demo/sample.sql");
const GRANTS: &str = "GRANT ALL ON ALL TABLES IN SCHEMA public TO app, support, analyst;
    GRANT CREATE ON SCHEMA public TO app;";
const ROLES: &str = "SET password_encryption = 'scram-sha-256';
    CREATE ROLE app LOGIN PASSWORD '{password}';
    CREATE ROLE support LOGIN PASSWORD '{password}';
    CREATE ROLE analyst LOGIN PASSWORD '{password}';
    SET password_encryption = 'md5';
    CREATE ROLE md5user LOGIN PASSWORD '{password}';";
