//! The client's end of the control socket, as `tandem ctl` uses it: ask, and show the answer.
//!
//! Blocking, for a command has nothing else to do. What peers wrote is escaped before it reaches a
//! terminal.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::Exit;
use super::protocol::{Request, Response, SCHEMA, Secret};
use crate::limits::CTL_LINE_BYTES_MAX;

/// The longest an answer may take: a reload checks everything, an import hashes passwords.
const ANSWER: Duration = Duration::from_secs(120);
/// Users of an import in one request, so that progress can be shown.
const IMPORT_STEP: usize = 32;

/// Why there is no answer.
#[derive(Debug)]
pub enum CallFault {
    /// Nobody serves the socket.
    NoNode(PathBuf, io::Error),
    /// The socket's rights do not let us in.
    NotAllowed(PathBuf),
    /// The node went away, was silent, or speaks otherwise than we do.
    Broken(PathBuf, String),
}

impl CallFault {
    /// What to tell the shell.
    pub fn exit(&self) -> Exit {
        match self {
            Self::NoNode(..) | Self::Broken(..) => Exit::Unavailable,
            Self::NotAllowed(_) => Exit::NotAllowed,
        }
    }
}

impl fmt::Display for CallFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoNode(path, error) => write!(
                f,
                "no node answers at {} ({error}); is it running, and is this its control socket?",
                path.display()
            ),
            Self::NotAllowed(path) => write!(
                f,
                "this user may not open {}; use the account that runs tandem, or its group",
                path.display()
            ),
            Self::Broken(path, text) => write!(f, "the node at {}: {text}", path.display()),
        }
    }
}

impl std::error::Error for CallFault {}

/// What the answer tells the shell.
pub fn exit(response: &Response) -> Exit {
    match &response.error {
        None => Exit::Done,
        Some(error) if error.reason == "config" => Exit::Config,
        Some(_) => Exit::Refused,
    }
}

/// Asks the node at `socket`.
pub fn call(socket: &Path, request: &Request) -> Result<Response, CallFault> {
    Call::open(socket)?.ask(request)
}

/// A connection on which several requests follow each other.
pub struct Call {
    path: PathBuf,
    conn: BufReader<UnixStream>,
}

impl Call {
    /// Connects.
    pub fn open(socket: &Path) -> Result<Self, CallFault> {
        let conn = UnixStream::connect(socket).map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => CallFault::NotAllowed(socket.into()),
            _ => CallFault::NoNode(socket.into(), error),
        })?;
        let broken = |error: io::Error| CallFault::Broken(socket.into(), error.to_string());
        conn.set_read_timeout(Some(ANSWER)).map_err(broken)?;
        conn.set_write_timeout(Some(ANSWER)).map_err(broken)?;
        Ok(Self { path: socket.into(), conn: BufReader::new(conn) })
    }

    /// Asks once.
    pub fn ask(&mut self, request: &Request) -> Result<Response, CallFault> {
        self.exchange(request).map_err(|text| CallFault::Broken(self.path.clone(), text))
    }

    fn exchange(&mut self, request: &Request) -> Result<Response, String> {
        let mut line = serde_json::to_vec(request).map_err(|it| it.to_string())?;
        line.push(b'\n');
        self.conn.get_mut().write_all(&line).map_err(|it| it.to_string())?;
        let mut answer = Vec::new();
        let mut bounded = (&mut self.conn).take(CTL_LINE_BYTES_MAX as u64 * 2);
        bounded.read_until(b'\n', &mut answer).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "no answer in time".into(),
            _ => error.to_string(),
        })?;
        if answer.is_empty() {
            return Err("it went away without an answer".into());
        }
        let response: Response = serde_json::from_slice(&answer)
            .map_err(|error| format!("its answer can't be read: {error}"))?;
        if response.schema != SCHEMA {
            return Err(format!("it answers in schema {}, known is {SCHEMA}", response.schema));
        }
        Ok(response)
    }
}

/// Reads `user@domain password` lines; empty ones and those that start with `#` are skipped. All
/// bad lines are told at once.
pub fn parse_import(text: &str) -> Result<Vec<(String, Secret)>, Vec<String>> {
    let mut users = Vec::new();
    let mut faults = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match line.split_once([' ', '\t']) {
            Some((address, password)) if !password.trim_start().is_empty() => {
                users.push((address.to_owned(), Secret(password.trim_start().to_owned())));
            }
            _ => faults.push(format!("line {number}: write user@domain, a space, the password")),
        }
    }
    if faults.is_empty() { Ok(users) } else { Err(faults) }
}

/// Imports any number of users, some at a time; `progress` hears how many are done. The answer
/// sums up.
pub fn import(
    socket: &Path,
    users: &[(String, Secret)],
    mut progress: impl FnMut(usize),
) -> Result<Response, CallFault> {
    let mut call = Call::open(socket)?;
    let (mut added, mut existed, mut refused) = (0, 0, Vec::new());
    let mut done = 0;
    for some in users.chunks(IMPORT_STEP) {
        let response = call.ask(&Request::UserImport { users: some.to_vec() })?;
        if !response.ok {
            return Ok(response);
        }
        let number = |name: &str| response.result.get(name).and_then(Value::as_u64).unwrap_or(0);
        added += number("added");
        existed += number("existed");
        let rows = response.result.get("refused").and_then(Value::as_array);
        refused.extend(rows.into_iter().flatten().cloned());
        done += some.len();
        progress(done);
    }
    let failed = refused.len();
    let mut response =
        Response::done(json!({"added": added, "existed": existed, "refused": refused}));
    if failed > 0 {
        response.ok = false;
        response.error = Some(super::protocol::Refused {
            reason: "partly".into(),
            text: format!("{failed} of {done} users were refused"),
        });
    }
    Ok(response)
}

/// How an answer is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Tables for people.
    Text,
    /// One JSON object, with its schema.
    Json,
}

/// The answer as text that ends with a newline.
pub fn render(request: &Request, response: &Response, format: Format) -> String {
    if format == Format::Json {
        let text = serde_json::to_string_pretty(response).unwrap_or_default();
        return text + "\n";
    }
    let mut text = String::new();
    let result = &response.result;
    match request {
        // Nothing but the refusal.
        _ if result.is_null() => {}
        Request::Status => {
            pairs(&mut text, result);
            table(&mut text, result, &["shard", "state", "answered_ms_ago"]);
        }
        Request::UserList { .. } => {
            table(&mut text, result, &["address", "created"]);
            more(&mut text, result);
        }
        Request::UserLists { .. } => {
            table(&mut text, result, &["list", "pattern"]);
            more(&mut text, result);
        }
        Request::UserRoster { .. } => {
            let columns = ["contact", "subscription", "pending", "approved", "name", "groups"];
            table(&mut text, result, &columns);
            more(&mut text, result);
        }
        Request::Domains => table(&mut text, result, &["domain", "kind", "allow", "plain"]),
        Request::Streams { .. } => {
            let columns =
                ["kind", "far", "near", "state", "remote", "tls", "age_seconds", "outbox_bytes"];
            table(&mut text, result, &columns);
            pairs(&mut text, result);
        }
        Request::Reload => {
            pairs(&mut text, result);
            for change in result.get("changes").and_then(Value::as_array).into_iter().flatten() {
                text.push_str(&format!("changed  {}\n", shown(change)));
            }
        }
        Request::UserUnlist { .. } => {
            pairs(&mut text, result);
            text.push_str(&format!(
                "lists  {}\n",
                result.get("lists").map(shown).unwrap_or_default()
            ));
        }
        Request::UserImport { .. } => {
            pairs(&mut text, result);
            for row in result.get("refused").and_then(Value::as_array).into_iter().flatten() {
                let of = |name: &str| row.get(name).map(shown).unwrap_or_default();
                text.push_str(&format!("refused  {}: {}\n", of("address"), of("text")));
            }
        }
        _ => pairs(&mut text, result),
    }
    if let Some(error) = &response.error {
        text.push_str(&format!("{}: {}\n", error.reason, shown(&json!(error.text))));
    }
    text
}

/// How to see the next page, if there is one.
fn more(text: &mut String, result: &Value) {
    if let Some(next) = result.get("next").and_then(Value::as_str) {
        text.push_str(&format!("more: --after {}\n", shown(&json!(next))));
    }
}

/// A value on a terminal: nothing that steers it gets through.
fn shown(value: &Value) -> String {
    let text = match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(some) => some.iter().map(shown).collect::<Vec<_>>().join(", "),
        Value::Bool(it) => if *it { "yes" } else { "no" }.to_owned(),
        other => other.to_string(),
    };
    let mut safe = String::with_capacity(text.len());
    for it in text.chars() {
        if it == ' ' || it.is_ascii_graphic() || it.is_alphanumeric() {
            safe.push(it);
        } else {
            safe.extend(it.escape_unicode());
        }
    }
    safe
}

/// The plain values of an object, one a line.
fn pairs(text: &mut String, result: &Value) {
    for (key, value) in result.as_object().into_iter().flatten() {
        if !value.is_array() && !value.is_object() {
            text.push_str(&format!("{key}  {}\n", shown(value)));
        }
    }
}

/// The rows of an object under the names of their columns.
fn table(text: &mut String, result: &Value, columns: &[&str]) {
    let mut lines: Vec<Vec<String>> = vec![columns.iter().map(|it| it.to_uppercase()).collect()];
    for row in result.get("rows").and_then(Value::as_array).into_iter().flatten() {
        lines
            .push(columns.iter().map(|it| row.get(it).map_or_else(|| "-".into(), shown)).collect());
    }
    let mut widths = vec![0; columns.len()];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.chars().count().max(*width);
        }
    }
    for line in &lines {
        let mut row = String::new();
        for (width, cell) in widths.iter().zip(line) {
            row.push_str(&format!("{cell:<width$}  "));
        }
        text.push_str(row.trim_end());
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_are_read_whole_or_not_at_all() {
        let users = parse_import("# comment\n\na@example.com pass word \nb@example.com\tx\n");
        let expected = vec![
            ("a@example.com".to_owned(), Secret("pass word ".into())),
            ("b@example.com".to_owned(), Secret("x".into())),
        ];
        assert_eq!(users, Ok(expected));
        let faults = parse_import("a@example.com x\nb@example.com\nc@example.com \n").unwrap_err();
        assert_eq!(faults.len(), 2);
        assert!(faults[0].starts_with("line 2:") && faults[1].starts_with("line 3:"));
    }

    #[test]
    fn tables_line_up_and_steer_no_terminal() {
        let result = json!({"rows": [
            {"kind": "s2s-in", "far": "evil\u{1b}[2J.example", "state": "open"},
            {"kind": "c2s", "far": "romeo@example.com/orchard"},
        ]});
        let request = Request::Streams { limit: 10 };
        let text = render(&request, &Response::done(result), Format::Text);
        assert!(!text.contains('\u{1b}'));
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("KIND    FAR"));
        assert_eq!(lines[0].find("FAR"), lines[2].find("romeo"));
    }

    #[test]
    fn a_refusal_shows_no_empty_table() {
        let request = Request::UserList { after: String::new(), limit: 10 };
        let text = render(&request, &Response::refused("busy", "try again"), Format::Text);
        assert_eq!(text, "busy: try again\n");
    }

    #[test]
    fn passwords_are_not_shown() {
        let request =
            Request::UserAdd { address: "a@example.com".into(), password: Secret("hush".into()) };
        assert!(!format!("{request:?}").contains("hush"));
        assert!(serde_json::to_string(&request).unwrap().contains("hush"));
    }

    #[test]
    fn no_node_is_told_apart_from_no_permission() {
        let directory = tempfile::tempdir().unwrap();
        let fault = call(&directory.path().join("ctl.sock"), &Request::Status).unwrap_err();
        assert_eq!(fault.exit().code(), 69);
        assert!(fault.to_string().contains("is it running"));
        assert_eq!(CallFault::NotAllowed("x".into()).exit().code(), 77);
        assert_eq!(exit(&Response::refused("config", "")).code(), 78);
        assert_eq!(exit(&Response::refused("exists", "")).code(), 1);
    }
}
