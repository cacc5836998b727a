//! Starting one process: its command with `${HOST}` and `${PORT}` filled in, its environment, its log.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::record::{Record, TOKEN_VARIABLE};
use crate::runtime::RuntimeError;

/// Passed on from whoever runs discovery; nothing else is, so that its own secrets and proxies do not leak.
const INHERITED: [&str; 9] = ["PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TZ", "TMPDIR", "TERM"];

/// Where the log of a replica is.
pub(super) fn log_path(folder: &Path, record: &Record) -> PathBuf {
    folder.join(format!("{}.log", record.id))
}

/// The first service port, which `PORT` names.
pub(super) fn port(record: &Record) -> Option<u16> {
    record.service.service_ports.first().map(|port| port.port)
}

/// `${HOST}` and `${PORT}` of this replica in one word.
pub(super) fn fill(word: &str, record: &Record) -> String {
    let word = word.replace("${HOST}", &record.address.to_string());
    match port(record) {
        Some(port) => word.replace("${PORT}", &port.to_string()),
        None => word,
    }
}

/// What the replica, and its healthcheck, find in their environment. What the file says comes last and holds.
pub(super) fn environment(record: &Record, http_proxy: Option<SocketAddr>) -> BTreeMap<String, String> {
    let inherited = INHERITED.iter().filter_map(|key| Some(((*key).to_owned(), std::env::var(key).ok()?)));
    let mut environment: BTreeMap<String, String> = inherited.collect();
    environment.insert("HOST".to_owned(), record.address.to_string());
    environment.extend(port(record).map(|port| ("PORT".to_owned(), port.to_string())));
    if let Some(proxy) = http_proxy {
        for key in ["http_proxy", "HTTP_PROXY"] {
            environment.insert(key.to_owned(), format!("http://{proxy}"));
        }
        // An address was dialled as such: the proxy has nothing to decide.
        for key in ["no_proxy", "NO_PROXY"] {
            environment.insert(key.to_owned(), "localhost,127.0.0.0/8,::1".to_owned());
        }
    }
    environment.extend(record.service.environment.clone());
    environment.insert(TOKEN_VARIABLE.to_owned(), record.token.clone());
    environment
}

/// Where it runs: the project's folder, or below it.
pub(super) fn working_directory(record: &Record) -> PathBuf {
    record.directory.join(record.service.working_dir.as_deref().unwrap_or_default())
}

/// A program that is named by a path is looked for from where it runs, any other along `PATH`.
pub(super) fn program(word: &str, directory: &Path) -> PathBuf {
    if word.contains('/') { directory.join(word) } else { PathBuf::from(word) }
}

/// Starts it, in a process group of its own.
///
/// It is not tied to the life of discovery (`PR_SET_PDEATHSIG`): when discovery is killed its replicas go on serving, and are
/// found again by their records.
pub(super) fn spawn(record: &Record, folder: &Path) -> io::Result<Child> {
    let service = &record.service;
    let words: Vec<String> = [&service.entrypoint, &service.command]
        .into_iter()
        .flatten()
        .flatten()
        .map(|word| fill(word, record))
        .collect();
    let (name, arguments) =
        words.split_first().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no command is given"))?;
    let log = open_log(&log_path(folder, record))?;
    let directory = working_directory(record);
    Command::new(program(name, &directory))
        .args(arguments)
        .env_clear()
        .envs(environment(record, record.http_proxy))
        .current_dir(&directory)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()
}

/// Anew with each start; the one before is kept beside it. Opened for appending, so that it may be cut while it is written.
fn open_log(path: &Path) -> io::Result<File> {
    match std::fs::rename(path, path.with_extension("log.1")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

pub(super) fn cannot_start(record: &Record, error: &io::Error) -> RuntimeError {
    let words = record.service.entrypoint.iter().chain(&record.service.command).flatten();
    let program = words.map(String::as_str).next().unwrap_or_default();
    let directory = working_directory(record);
    let message = format!("{program:?} in {}: {error}", directory.display());
    let (unit, operation) = (record.id.to_string(), "starting");
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => RuntimeError::Lacking { unit, operation, message },
        _ => RuntimeError::Refused { unit, operation, message },
    }
}
