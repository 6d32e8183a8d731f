//! The control socket: who may open the file may run the node.
//!
//! A unix socket of mode 0600 or 0660; there is no other check, so the file system's rights are
//! the whole of it. Every change leaves one audit line. Does **not** stream: each request has one
//! answer, bounded in rows.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use super::protocol::{Request, Response};
use super::records;
use crate::control::accounts::Refusal;
use crate::control::notices::push_value;
use crate::control::{Node, Phase, Socket};
use crate::home::record::List;
use crate::limits::{CTL_CONNS_MAX, CTL_LINE_BYTES_MAX, CTL_STREAMS_MAX};
use crate::policy::Pattern;

/// A client that says nothing for longer loses its place.
const IDLE: Duration = Duration::from_secs(60);
/// How long the shards have to answer.
const GATHER: Duration = Duration::from_secs(1);
/// After an accept that failed, most likely for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The socket's file; goes away with this value.
pub(crate) struct Bound(PathBuf);

impl Drop for Bound {
    fn drop(&mut self) {
        // Gone already is as good.
        drop(fs::remove_file(&self.0));
    }
}

/// Makes the socket. It appears under its name only with its rights set; one that a dead process
/// left is replaced, one that somebody serves is not.
pub(crate) fn bind(socket: &Socket) -> io::Result<(UnixListener, Bound)> {
    let path = &socket.path;
    let named = |error: io::Error, what: &str| {
        io::Error::new(error.kind(), format!("control socket {}: {what}: {error}", path.display()))
    };
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        let text = format!(
            "control socket {}: another tandem serves it; stop that one or name another path",
            path.display()
        );
        return Err(io::Error::new(io::ErrorKind::AddrInUse, text));
    }
    let mut early = path.as_os_str().to_owned();
    early.push(format!(".{}", std::process::id()));
    let early = PathBuf::from(early);
    // Left by a process of the same number, if it is there at all.
    drop(fs::remove_file(&early));
    let listener = UnixListener::bind(&early)
        .map_err(|it| named(it, "can't be made (does its directory exist, may we write it?)"))?;
    let placed = fs::set_permissions(&early, Permissions::from_mode(socket.mode))
        .and_then(|()| fs::rename(&early, path));
    if let Err(error) = placed {
        drop(fs::remove_file(&early));
        return Err(named(error, "can't be put in its place"));
    }
    Ok((listener, Bound(path.clone())))
}

/// Serves the socket until the control thread ends.
pub(crate) async fn serve(node: Rc<Node>, listener: UnixListener) {
    let room = Arc::new(Semaphore::new(CTL_CONNS_MAX));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        let Ok((conn, _)) = listener.accept().await else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let node = Rc::clone(&node);
        spawn_local(async move {
            // A client that went away has nobody to be told.
            drop(converse(&node, conn).await);
            drop(place);
        });
    }
}

async fn converse(node: &Rc<Node>, conn: UnixStream) -> io::Result<()> {
    let uid = conn.peer_cred()?.uid();
    let (read, mut write) = conn.into_split();
    let mut read = BufReader::new(read);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut bounded = (&mut read).take(CTL_LINE_BYTES_MAX as u64);
        let Ok(len) = timeout(IDLE, bounded.read_until(b'\n', &mut line)).await else {
            return Ok(());
        };
        if len? == 0 {
            return Ok(());
        }
        let whole = line.last() == Some(&b'\n');
        let response = match serde_json::from_slice::<Request>(&line) {
            _ if !whole && line.len() >= CTL_LINE_BYTES_MAX => Response::refused(
                "too_many",
                format!("a request has at most {CTL_LINE_BYTES_MAX} octets"),
            ),
            Ok(request) => serve_one(node, request, uid).await,
            Err(error) => Response::refused("malformed", format!("no request: {error}")),
        };
        let mut text = serde_json::to_vec(&response)?;
        text.push(b'\n');
        write.write_all(&text).await?;
        if !whole {
            return Ok(());
        }
    }
}

async fn serve_one(node: &Rc<Node>, request: Request, uid: u32) -> Response {
    let (op, changes, about) = (request.op(), request.changes(), about(&request));
    let response = match perform(node, request).await {
        Ok(result) => Response::done(result),
        Err(refusal) => Response::refused(refusal.reason, refusal.text),
    };
    if changes {
        let result = response.error.as_ref().map_or("ok", |it| it.reason.as_str());
        tracing::info!("event=audit op={op} uid={uid} about={about} result={result}");
    }
    response
}

/// Whom a change is about, escaped for the log.
fn about(request: &Request) -> String {
    let mut text = String::new();
    match request {
        Request::UserAdd { address, .. }
        | Request::UserPasswd { address, .. }
        | Request::UserDelete { address } => push_value(&mut text, address),
        Request::UserAllow { address, pattern }
        | Request::UserBlock { address, pattern }
        | Request::UserUnlist { address, pattern } => {
            push_value(&mut text, address);
            text.push_str(" pattern=");
            push_value(&mut text, pattern);
        }
        Request::UserImport { users } => text.push_str(&format!("{} users", users.len())),
        _ => text.push('-'),
    }
    text
}

async fn perform(node: &Rc<Node>, request: Request) -> Result<Value, Refusal> {
    Ok(match request {
        Request::Status => status(node).await?,
        Request::UserAdd { address, password } => {
            json!({"address": node.add_user(&address, password.0).await?.bare()})
        }
        Request::UserPasswd { address, password } => {
            json!({"address": node.set_password(&address, password.0).await?.bare()})
        }
        Request::UserDelete { address } => {
            json!({"address": node.delete_user(&address).await?.bare()})
        }
        Request::UserList { after, limit } => users(node, after, limit).await?,
        Request::UserImport { users } => {
            let users = users.into_iter().map(|(address, password)| (address, password.0));
            let imported = node.import_users(users.collect()).await?;
            let refused: Vec<Value> = imported
                .refused
                .iter()
                .map(|(address, text)| json!({"address": address, "text": text}))
                .collect();
            json!({"added": imported.added, "existed": imported.existed, "refused": refused})
        }
        Request::UserAllow { address, pattern } => {
            records::enlist(node, &address, List::Allowed, &pattern).await?
        }
        Request::UserBlock { address, pattern } => {
            records::enlist(node, &address, List::Blocked, &pattern).await?
        }
        Request::UserUnlist { address, pattern } => {
            records::unlist(node, &address, &pattern).await?
        }
        Request::UserLists { address, after, limit } => {
            records::lists(node, &address, &after, limit).await?
        }
        Request::UserRoster { address, after, limit } => {
            records::roster(node, &address, &after, limit).await?
        }
        Request::Domains => domains(node),
        Request::Streams { limit } => streams(node, limit).await,
        Request::Reload => {
            let changes =
                node.reload("ctl").await.map_err(|text| Refusal { reason: "config", text })?;
            json!({"config_version": node.settings().version, "changes": changes})
        }
        Request::Stop => {
            node.stop("ctl");
            json!({"phase": phase(node)})
        }
    })
}

fn phase(node: &Node) -> &'static str {
    match node.phase() {
        Phase::Starting => "starting",
        Phase::Ready => "ready",
        Phase::Stopping(_) | Phase::Cut => "stopping",
    }
}

async fn status(node: &Node) -> Result<Value, Refusal> {
    let (_, silent) = node.gather(false, GATHER).await;
    let accounts = node.store.count().await?;
    let now = Instant::now();
    let mut shards = Vec::new();
    node.reports.each(|shard, latest| {
        let age = latest.answered.map(|it| now.duration_since(it).as_millis() as u64);
        let state = if latest.ended {
            "ended"
        } else if age.is_some() {
            "ok"
        } else {
            "silent"
        };
        shards.push(json!({"shard": shard.0, "state": state, "answered_ms_ago": age}));
    });
    let settings = node.settings();
    Ok(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "phase": phase(node),
        "uptime_seconds": node.started.elapsed().as_secs(),
        "config_version": settings.version,
        "domains": settings.domains.len(),
        "store": node.store.engine(),
        "accounts": accounts,
        "shards_silent": silent,
        "rows": shards,
    }))
}

async fn users(node: &Node, after: String, limit: usize) -> Result<Value, Refusal> {
    let page = node.store.list(after, limit).await?;
    // A full page may have another one behind it.
    let next = (page.len() >= limit).then(|| page.last().map(|it| it.address.clone())).flatten();
    let rows: Vec<Value> = page
        .iter()
        .map(|it| json!({"address": it.address, "created": it.created / 1_000_000}))
        .collect();
    Ok(json!({"rows": rows, "next": next}))
}

fn domains(node: &Node) -> Value {
    let settings = node.settings();
    let mut rows: Vec<Value> = settings
        .domains
        .iter()
        .map(|it| json!({"domain": it.name, "kind": "local", "allow": true, "plain": it.plain}))
        .collect();
    for (pattern, rule) in settings.policy.rules() {
        let domain = pattern_text(pattern);
        rows.push(json!({"domain": domain, "kind": "rule", "allow": rule.allow}));
    }
    let allow = settings.policy.default.allow;
    rows.push(json!({"domain": "(others)", "kind": "default", "allow": allow}));
    json!({"rows": rows})
}

/// A pattern as the configuration writes it.
fn pattern_text(pattern: &Pattern) -> String {
    match pattern {
        Pattern::Exact(domain) => domain.clone(),
        Pattern::Label { before, after, parent } => format!("{before}*{after}.{parent}"),
        Pattern::Below(domain) => format!(".{domain}"),
        Pattern::Any => "*".into(),
    }
}

async fn streams(node: &Node, limit: usize) -> Value {
    let (mut all, silent) = node.gather(true, GATHER).await;
    all.sort_by(|a, b| (a.kind, &a.far, &a.remote).cmp(&(b.kind, &b.far, &b.remote)));
    let total = all.len();
    let rows: Vec<Value> = all
        .iter()
        .take(limit.min(CTL_STREAMS_MAX))
        .map(|it| {
            json!({
                "kind": it.kind, "far": it.far, "near": it.near, "state": it.state,
                "remote": it.remote, "tls": it.tls, "age_seconds": it.age_seconds,
                "outbox_bytes": it.outbox_bytes,
            })
        })
        .collect();
    json!({"rows": rows, "total": total, "shards_silent": silent})
}
