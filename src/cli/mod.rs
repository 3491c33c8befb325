//! The command line: parse, run, map what happened to an exit code.
//!
//! Results go to standard output, problems to standard error. Exit codes: 0 it is well, 1 problems
//! were found or it failed, 2 the command line was not understood.

use std::fmt;
use std::io::{self, IsTerminal as _, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;

use crate::analysis::redis::Table;
use crate::config::{Config, Log, LogFormat};
use crate::policy::Diagnostic;
use crate::proxy::{self, StartError};
use crate::reload;

mod explain;
mod new_key;
pub mod rules;
mod scram_verifier;
mod sessions;

/// A governance proxy in front of PostgreSQL and Redis: masking, row filters, access rules and audit,
/// from rule files.
#[derive(Debug, Parser)]
#[command(name = "portcullis", version = VERSION, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the proxy
    Run(Run),
    /// Check rules, or explain what they make of a statement
    #[command(subcommand)]
    Rules(Rules),
    /// List or end the sessions of a running proxy
    #[command(subcommand)]
    Sessions(sessions::Sessions),
    /// Credentials of clients
    #[command(subcommand)]
    Auth(Auth),
}

#[derive(Debug, Args)]
struct ScramVerifier {
    /// Rounds of key derivation
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(4096..=1_000_000))]
    iterations: u32,
}

#[derive(Debug, Args)]
struct Run {
    /// The configuration file
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,
    /// Check the configuration and the rules, then stop
    #[arg(long)]
    check: bool,
}

#[derive(Debug, Subcommand)]
enum Rules {
    /// Check the rules of a folder and run their tests
    Check(Check),
    /// Tell what the rules make of a statement, and why
    Explain(Explain),
}

#[derive(Debug, Subcommand)]
enum Auth {
    /// Make an API key: shows it once, and the lines for identities.yaml
    NewKey(NewKey),
    /// Make the SCRAM-SHA-256 verifier of a password that is read from standard input
    ScramVerifier(ScramVerifier),
}

#[derive(Debug, Args)]
struct NewKey {
    /// Whose key it is
    #[arg(long, value_name = "NAME")]
    user: String,
}

#[derive(Debug, Args)]
struct Check {
    /// The folder
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// CREATE statements of the relations the rules are about [default: DIR/schema.sql]
    #[arg(long, value_name = "FILE")]
    schema: Option<PathBuf>,
}

/// What a session speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Spoken {
    Postgresql,
    Redis,
}

#[derive(Debug, Args)]
struct Explain {
    /// Who asks
    #[arg(long = "as", value_name = "USER")]
    user: String,
    /// The rules' folder
    #[arg(long, value_name = "DIR", default_value = "rules")]
    rules: PathBuf,
    /// The database asked for [default: the user's name]
    #[arg(long, short, value_name = "NAME")]
    database: Option<String>,
    /// The application's name
    #[arg(long, value_name = "NAME", default_value = "")]
    application: String,
    /// The client's address
    #[arg(long, value_name = "IP")]
    address: Option<IpAddr>,
    /// The datasource's name, as rules may name it
    #[arg(long, value_name = "NAME", default_value = "")]
    datasource: String,
    /// Refuse identities that no rule concerns, as `default: deny` does
    #[arg(long)]
    default_deny: bool,
    /// CREATE statements of the relations [default: DIR/schema.sql]
    #[arg(long, value_name = "FILE")]
    schema: Option<PathBuf>,
    /// What the session speaks
    #[arg(long, value_enum, default_value_t = Spoken::Postgresql)]
    protocol: Spoken,
    /// The statement, or the command as a line of text
    #[arg(value_name = "STATEMENT")]
    statement: String,
}

/// What came of a command.
enum Outcome {
    /// It is well.
    Fine,
    /// Problems were found; they are reported already.
    Problems,
}

/// Runs the command of this process's command line.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut out = io::stdout().lock();
    let outcome = match cli.command {
        Command::Run(command) => run(&command, &mut out),
        Command::Auth(Auth::ScramVerifier(command)) => {
            scram_verifier::scram_verifier(&command, &mut out)
        }
        Command::Rules(Rules::Check(command)) => explain::check(&command, &mut out),
        Command::Rules(Rules::Explain(command)) => explain::explain(command, &mut out),
        Command::Sessions(command) => sessions::run(&command, &mut out),
        Command::Auth(Auth::NewKey(command)) => new_key::new_key(&command, &mut out),
    };
    match outcome {
        Ok(Outcome::Fine) => ExitCode::SUCCESS,
        Ok(Outcome::Problems) => ExitCode::FAILURE,
        // Whoever read our output has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            complain(format_args!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Run, out: &mut dyn Write) -> anyhow::Result<Outcome> {
    let config = match Config::load(&command.config) {
        Ok((config, warnings)) => {
            report(&warnings);
            config
        }
        Err(problems) => {
            report(&problems);
            complain(format_args!("{} is not accepted", command.config.display()));
            return Ok(Outcome::Problems);
        }
    };
    if command.check {
        return check_only(command, &config, out);
    }
    start_log(&config.log)?;
    // Connections have threads of their own; this one accepts, reloads and serves the admin port.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .thread_stack_size(WORKER_STACK_BYTES)
        .build()
        .context("start the runtime")?;
    match runtime.block_on(proxy::run(config, COMMIT)) {
        Ok(()) => Ok(Outcome::Fine),
        Err(StartError::Rules(problems)) => {
            report(&problems);
            complain(format_args!("the rules are not accepted"));
            Ok(Outcome::Problems)
        }
        Err(StartError::Other(error)) => Err(error),
    }
}

fn check_only(command: &Run, config: &Config, out: &mut dyn Write) -> anyhow::Result<Outcome> {
    let directory = &config.rules.directory;
    let language = reload::Language::new(Arc::new(Table::builtin()), &config.masker);
    let files = reload::Files::read(directory);
    let compiled = files.and_then(|files| reload::compile(&files, &language, 1));
    match compiled {
        Ok((active, warnings)) => {
            report(&warnings);
            if let Err(problem) = config.fits(&active.set) {
                complain(format_args!("{problem}"));
                return Ok(Outcome::Problems);
            }
            let (sources, rules) = (config.datasources.len(), active.set.len());
            let file = command.config.display();
            writeln!(out, "{file}: ok, {sources} datasources, {rules} rules")?;
            Ok(Outcome::Fine)
        }
        Err(problems) => {
            report(&problems);
            complain(format_args!("the rules in {} are not accepted", directory.display()));
            Ok(Outcome::Problems)
        }
    }
}

/// The log goes to standard error: standard output may be the audit trail.
fn start_log(log: &Log) -> anyhow::Result<()> {
    let filter: EnvFilter = log.level.parse().context("read `log.level`")?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(coloured())
        .with_writer(io::stderr);
    match log.format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    }
    .map_err(|error| anyhow::anyhow!("start the log: {error}"))
}

/// Writes diagnostics to standard error.
fn report(diagnostics: &[Diagnostic]) {
    let mut err = io::stderr().lock();
    for diagnostic in diagnostics {
        // Nothing is left to tell it to.
        let _ = writeln!(err, "{diagnostic}");
    }
}

/// Writes one line to standard error, marked as an error.
fn complain(message: fmt::Arguments<'_>) {
    let (red, plain) = if coloured() { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
    let _ = writeln!(io::stderr().lock(), "{red}error:{plain} {message}");
}

fn coloured() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !refused && io::stderr().is_terminal()
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let source = error.downcast_ref::<io::Error>();
    source.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// The commit this binary was built from.
const COMMIT: &str = env!("PORTCULLIS_COMMIT");

const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("PORTCULLIS_COMMIT"), ")");

/// Address space of a worker's stack. Only what is used is ever backed by memory; analysis of
/// nested statements is the reason not to be stingy.
const WORKER_STACK_BYTES: usize = 64 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn commands_are_understood_and_mistakes_are_usage_errors() {
        for (line, fine) in [
            ("run --config p.yaml", true),
            ("run -c p.yaml --check", true),
            ("run", false),
            ("rules check rules", true),
            ("rules explain --as support --address 10.0.0.1 SELECT", true),
            ("rules explain SELECT", false),
            ("rules explain --as support --protocol redis GET", true),
            ("rules explain --as support --protocol memcached GET", false),
            ("rules explain --as u --address x SELECT", false),
            ("rules", false),
            ("auth scram-verifier", true),
            ("auth scram-verifier --iterations 5000", true),
            ("auth scram-verifier --iterations 1", false),
            ("auth scram-verifier secret", false),
            ("sessions list --user ann --json", true),
            ("sessions end 01A 01B --admin 127.0.0.1:1 --token-file t", true),
            ("sessions end", false),
            ("sessions list --admin x", false),
            ("auth new-key --user app", true),
            ("auth new-key", false),
            ("", false),
        ] {
            let words = std::iter::once("portcullis").chain(line.split_whitespace());
            let parsed = Cli::try_parse_from(words);
            assert_eq!(parsed.is_ok(), fine, "{line}: {parsed:?}");
        }
    }
}
