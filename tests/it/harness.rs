//! Starts Portcullis as its users do, and waits for conditions instead of sleeping.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// How long the proxy may take to become ready.
pub(crate) const READY_TIMEOUT: Duration = Duration::from_secs(20);
/// How long anything may take that should be immediate.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// What varies between the proxies of the tests; everything else is the same configuration.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// What is behind the proxy: `postgresql` or `redis`.
    pub(crate) protocol: &'static str,
    /// Where the proxy finds it.
    pub(crate) upstream: SocketAddr,
    /// The value of `upstream:` in the place of that address: a name, a list.
    pub(crate) upstream_text: Option<String>,
    /// The value of `listen:`; `{port}` and `{folder}` are replaced.
    pub(crate) listen: String,
    /// Most file descriptors the proxy may have, if not what it gets here.
    pub(crate) descriptors: Option<u32>,
    /// Files of the rules folder: name and text.
    pub(crate) rules: Vec<(String, String)>,
    /// `allow` or `deny`.
    pub(crate) default: &'static str,
    /// Extra lines of the datasource, e.g. its `tls:`; `{folder}` is replaced.
    pub(crate) datasource_extra: String,
    /// The value of `audit:`; `{folder}` is replaced.
    pub(crate) audit: String,
    /// Further members of `admin:`, with a comma before.
    pub(crate) admin_extra: String,
    /// Further top-level lines, e.g. `limits:`.
    pub(crate) extra: String,
}

impl Setup {
    /// No rules, everything allowed.
    pub(crate) fn open(upstream: SocketAddr) -> Self {
        Self {
            protocol: "postgresql",
            upstream,
            upstream_text: None,
            listen: "\"127.0.0.1:{port}\"".into(),
            descriptors: None,
            rules: vec![("none.yaml".into(), "version: 1\nrules: []\n".into())],
            default: "allow",
            datasource_extra: String::new(),
            audit: "{file: \"{folder}/audit.jsonl\"}".into(),
            admin_extra: String::new(),
            extra: String::new(),
        }
    }

    /// The same in front of a Redis.
    pub(crate) fn redis(upstream: SocketAddr) -> Self {
        Self { protocol: "redis", ..Self::open(upstream) }
    }

    /// The same where everything that a rule can open is open.
    pub(crate) fn redis_trusted(upstream: SocketAddr) -> Self {
        let rules = "version: 1\nrules:\n  - id: doors\n    match: {users: [\"*\"]}\n    allow: {commands: [\"@doors\"]}\n";
        Self { protocol: "redis", ..Self::with_rules(upstream, rules) }
    }

    /// The demo rules as shipped.
    pub(crate) fn demo(upstream: SocketAddr) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("rules/demo");
        let rules = fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
            .map(|entry| {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                (name, fs::read_to_string(&path).unwrap())
            })
            .collect();
        Self { rules, ..Self::open(upstream) }
    }

    /// One rule file, no identities.
    pub(crate) fn with_rules(upstream: SocketAddr, text: &str) -> Self {
        Self { rules: vec![("rules.yaml".into(), text.into())], ..Self::open(upstream) }
    }

    /// Writes the configuration and the rules; returns the configuration's path.
    pub(crate) fn write(&self, folder: &Path, listen: u16, admin: u16) -> PathBuf {
        let rules = folder.join("rules");
        fs::create_dir_all(&rules).unwrap();
        for (name, text) in &self.rules {
            fs::write(rules.join(name), text).unwrap();
        }
        let text = format!(
            "version: 1\n\
             datasources:\n\
             \x20 - name: demo\n\
             \x20   protocol: {}\n\
             \x20   listen: {}\n\
             \x20   upstream: {}\n\
             \x20   default: {}\n\
             {}\
             rules: {{directory: rules}}\n\
             audit: {}\n\
             admin: {{listen: \"127.0.0.1:{admin}\"{}}}\n\
             {}",
            self.protocol,
            self.listen,
            self.upstream_text.clone().unwrap_or_else(|| format!("\"{}\"", self.upstream)),
            self.default,
            self.datasource_extra,
            self.audit,
            self.admin_extra,
            self.extra
        );
        let text = text.replace("{port}", &listen.to_string());
        let path = folder.join("portcullis.yaml");
        fs::write(&path, text.replace("{folder}", folder.to_str().unwrap())).unwrap();
        path
    }
}

/// A running proxy; killed on drop.
#[derive(Debug)]
pub(crate) struct Portcullis {
    child: Child,
    folder: tempfile::TempDir,
    listen: u16,
    admin: u16,
}

impl Portcullis {
    /// Starts it and waits until `/readyz` says yes.
    pub(crate) fn start(setup: &Setup) -> Self {
        Self::launch_until(setup, "/readyz")
    }

    /// Starts it and waits only until it answers on the admin port, ready or not.
    pub(crate) fn start_unready(setup: &Setup) -> Self {
        Self::launch_until(setup, "/livez")
    }

    fn launch_until(setup: &Setup, path: &str) -> Self {
        let mut proxy = Self::launch(setup);
        wait_until(&format!("the proxy's {path} says yes"), READY_TIMEOUT, || {
            let ended = proxy.child.try_wait().unwrap();
            assert!(ended.is_none(), "the proxy ended: {}", ended.unwrap());
            proxy.admin("GET", path).0 == 200
        });
        proxy
    }

    /// Starts one beside another on the same ports; both must share them.
    pub(crate) fn start_beside(&self, setup: &Setup) -> Self {
        let command = command_with(setup.descriptors);
        Self::launch_with(command, Stdio::null(), (setup, self.listen, self.admin)).listening()
    }

    /// Starts it as a service manager does that keeps the socket.
    pub(crate) fn start_activated(setup: &Setup, socket: &TcpListener) -> Self {
        let listen = socket.local_addr().unwrap().port();
        let kept = std::os::fd::OwnedFd::from(socket.try_clone().unwrap());
        // The socket becomes descriptor 3, and the shell becomes the proxy: the id is its own.
        let script = "exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\"";
        let mut command = server_command(Path::new("sh"), None);
        command.args(["-c", script, "sh", env!("CARGO_BIN_EXE_portcullis")]).env("NO_COLOR", "1");
        Self::launch_with(command, kept.into(), (setup, listen, free_port())).listening()
    }

    /// Waits until it has said so.
    fn listening(mut self) -> Self {
        wait_until("the proxy listens", READY_TIMEOUT, || {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "the proxy ended: {}\n{}", ended.unwrap(), self.log());
            self.log().contains("admin port")
        });
        self
    }

    fn launch(setup: &Setup) -> Self {
        let command = command_with(setup.descriptors);
        Self::launch_with(command, Stdio::null(), (setup, free_port(), free_port()))
    }

    fn launch_with(
        mut command: Command,
        stdin: Stdio,
        (setup, listen, admin): (&Setup, u16, u16),
    ) -> Self {
        let folder = tempfile::Builder::new().prefix("portcullis-it-").tempdir().unwrap();
        let config = setup.write(folder.path(), listen, admin);
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let child = command
            .args(["run", "--config"])
            .arg(&config)
            .stdin(stdin)
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { child, folder, listen, admin }
    }

    /// Where clients connect.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.listen))
    }

    pub(crate) fn port(&self) -> u16 {
        self.listen
    }

    pub(crate) fn admin_address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.admin))
    }

    /// The most memory the process ever held at once.
    pub(crate) fn peak_memory_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// The folder of the configuration.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Replaces a file of the rules folder the way editors do: written aside, then renamed.
    pub(crate) fn write_rules(&self, name: &str, text: &str) {
        let aside = self.folder.path().join("aside");
        fs::write(&aside, text).unwrap();
        fs::rename(&aside, self.folder.path().join("rules").join(name)).unwrap();
    }

    pub(crate) fn ready(&self) -> bool {
        self.admin("GET", "/readyz").0 == 200
    }

    /// One request to the admin port: status and body; status 0 when it cannot be reached.
    pub(crate) fn admin(&self, method: &str, path: &str) -> (u16, String) {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.admin));
        http(address, method, path).unwrap_or_default()
    }

    /// Value of a metric without labels, or the sum over its series.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let (status, text) = self.admin("GET", "/metrics");
        assert_eq!(status, 200, "/metrics: {text}");
        let values: Vec<f64> = text
            .lines()
            .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])))
            .map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
            .collect();
        assert!(!values.is_empty(), "no metric {name} in:\n{text}");
        values.iter().sum()
    }

    /// Memory of the process that is in use, bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// Everything it has logged so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// The audit file's lines so far.
    pub(crate) fn audit_lines(&self) -> Vec<String> {
        let text = fs::read_to_string(self.folder.path().join("audit.jsonl")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(self.child.id(), name);
    }

    /// Waits for the process to end on its own.
    pub(crate) fn wait(&mut self, timeout: Duration) -> Option<ExitStatus> {
        wait_exit(&mut self.child, timeout).then(|| self.child.wait().unwrap())
    }

    /// Ends the process as its users do and returns the complete audit file.
    pub(crate) fn finish(mut self) -> Vec<String> {
        self.signal("TERM");
        let status = self.wait(SOON).unwrap_or_else(|| panic!("no end:\n{}", self.log()));
        assert!(status.success(), "{status}\n{}", self.log());
        self.audit_lines()
    }
}

impl Drop for Portcullis {
    fn drop(&mut self) {
        // Already gone is fine: several tests kill it.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of the proxy ---\n{}", self.log());
        }
    }
}

/// The binary under test, without the environment of whoever runs the tests.
pub(crate) fn command() -> Command {
    command_with(None)
}

/// The same with at most this many file descriptors.
fn command_with(descriptors: Option<u32>) -> Command {
    let binary = &binary();
    let mut command = match descriptors {
        Some(most) => {
            let mut limited = server_command(Path::new("prlimit"), None);
            limited.arg(format!("--nofile={most}:{most}")).arg("--").arg(binary);
            limited
        }
        None => server_command(binary, None),
    };
    command.env("NO_COLOR", "1").env_remove("RUST_LOG");
    command
}

/// As cargo built it, or another build of it for measurements.
fn binary() -> PathBuf {
    let built = || env!("CARGO_BIN_EXE_portcullis").into();
    std::env::var_os("PORTCULLIS_BINARY").map_or_else(built, PathBuf::from)
}

/// Runs the binary to its end.
pub(crate) fn portcullis<const N: usize>(arguments: [&str; N]) -> Output {
    command().args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// A long-running program that dies with the thread that started it, under this account.
///
/// `setpriv` (util-linux) sets the account and the parent-death signal, then becomes the program:
/// a killed test leaves no server behind, and the pid is the program's own.
pub(crate) fn server_command(program: &Path, account: Option<(u32, u32)>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "QUIT"]);
    if let Some((user, group)) = account {
        command.arg(format!("--reuid={user}")).arg(format!("--regid={group}"));
        command.arg("--clear-groups");
    }
    command.arg("--").arg(program).env("LC_ALL", "C");
    command
}

/// Polls until the condition holds; fails the test at the deadline.
#[track_caller]
pub(crate) fn wait_until(what: &str, timeout: Duration, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < timeout, "waited {timeout:?} in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether the process ended within the time.
pub(crate) fn wait_exit(child: &mut Child, timeout: Duration) -> bool {
    let began = Instant::now();
    loop {
        if child.try_wait().unwrap().is_some() {
            return true;
        }
        if began.elapsed() > timeout {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Sends a signal by process id.
pub(crate) fn signal(pid: u32, name: &str) {
    let status = Command::new("kill").args(["-s", name, &pid.to_string()]).status().unwrap();
    assert!(status.success(), "kill -s {name} {pid}");
}

/// A loopback port nobody listens on, below the range the kernel gives to outgoing connections so
/// that nothing takes it in the meantime.
pub(crate) fn free_port() -> u16 {
    const FIRST: u16 = 11_000;
    const COUNT: u16 = 20_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test processes run side by side: each starts at a place of its own.
    let start = std::process::id().wrapping_mul(61);
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let offset = u16::try_from(start.wrapping_add(u32::from(step)) % u32::from(COUNT)).unwrap();
        let port = FIRST + offset;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// The user id the tests run under.
pub(crate) fn user_id() -> u32 {
    fs::metadata("/proc/self").unwrap().uid()
}

fn http(address: SocketAddr, method: &str, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}
