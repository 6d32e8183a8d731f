//! The admin port: `/health`, `/ready` and `/metrics`, by GET, and nothing else.
//!
//! They show states and counters only, so they ask for no token; the port is on loopback unless
//! the configuration says otherwise. Does **not** change anything: changes go over the control
//! socket.

use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, Semaphore};
use tokio::task::spawn_local;
use tokio::time::sleep;

use super::metrics;
use crate::control::{Node, Phase};
use crate::limits::{ADMIN_CONNS_MAX, ADMIN_REQUEST_MS_MAX};

/// A shard that said nothing for longer is not healthy.
pub(crate) const HEALTH_AGE: Duration = Duration::from_secs(5);
/// A scrape waits this long for the shards' answers, then shows what they said before.
const SCRAPE: Duration = Duration::from_secs(1);
/// Scrapes closer together share one text.
const SCRAPE_APART: Duration = Duration::from_millis(200);
/// After an accept that failed, most likely for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

type Answer = Response<Full<Bytes>>;

/// What the connections share.
struct Port {
    node: Rc<Node>,
    last: Mutex<Option<(Instant, Bytes)>>,
}

/// Serves the admin port until the control thread ends.
pub(crate) async fn serve(node: Rc<Node>, listener: TcpListener) {
    let port = Rc::new(Port { node, last: Mutex::new(None) });
    let room = Arc::new(Semaphore::new(ADMIN_CONNS_MAX));
    loop {
        // With no room left the next connection waits in the kernel's queue.
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        let Ok((conn, _)) = listener.accept().await else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let port = Rc::clone(&port);
        spawn_local(async move {
            let service = service_fn(|request| answer(Rc::clone(&port), request));
            // A far end that misbehaves loses its connection; there is nobody to tell.
            drop(
                http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(Duration::from_millis(ADMIN_REQUEST_MS_MAX))
                    .max_buf_size(16_384)
                    .serve_connection(TokioIo::new(conn), service)
                    .await,
            );
            drop(place);
        });
    }
}

async fn answer(port: Rc<Port>, request: Request<Incoming>) -> Result<Answer, Infallible> {
    let known = matches!(request.uri().path(), "/health" | "/ready" | "/metrics");
    let mut answer = match (request.method(), request.uri().path()) {
        (&Method::GET, "/health") => health(&port.node, Instant::now()),
        (&Method::GET, "/ready") => ready(&port.node),
        (&Method::GET, "/metrics") => scrape(&port).await,
        _ if known => {
            let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".into());
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
            answer
        }
        _ => plain(StatusCode::NOT_FOUND, "/health, /ready, /metrics\n".into()),
    };
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if matches!(port.node.phase(), Phase::Stopping(_) | Phase::Cut) {
        // So that balancers that keep connections notice.
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(answer)
}

fn typed(status: StatusCode, kind: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

fn plain(status: StatusCode, text: String) -> Answer {
    typed(status, "text/plain; charset=utf-8", text.into())
}

fn states(good: bool, body: &serde_json::Value) -> Answer {
    let status = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    typed(status, "application/json", format!("{body}\n").into())
}

/// Whether restarting would help: every shard has turned lately. That control has is shown by the
/// answer.
fn health(node: &Node, now: Instant) -> Answer {
    let mut good = true;
    let mut shards = Vec::new();
    let stopping = matches!(node.phase(), Phase::Stopping(_) | Phase::Cut);
    node.reports.each(|shard, latest| {
        let age = now.duration_since(latest.answered.unwrap_or(node.started));
        let fine = if latest.ended { stopping } else { age <= HEALTH_AGE };
        good &= fine;
        let state = match (latest.ended, fine) {
            (true, _) => "ended",
            (false, true) => "ok",
            (false, false) => "silent",
        };
        shards.push(json!({"shard": shard.0, "state": state, "age_ms": age.as_millis() as u64}));
    });
    states(good, &json!({"status": if good { "ok" } else { "failing" }, "shards": shards}))
}

/// Whether clients and peers should come here. A reload does not change it.
fn ready(node: &Node) -> Answer {
    let (good, state) = match node.phase() {
        Phase::Starting => (false, "starting"),
        Phase::Ready => (true, "ready"),
        Phase::Stopping(_) | Phase::Cut => (false, "stopping"),
    };
    states(good, &json!({"status": state, "config_version": node.settings().version}))
}

async fn scrape(port: &Port) -> Answer {
    const KIND: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let mut last = port.last.lock().await;
    if let Some((at, text)) = last.as_ref()
        && at.elapsed() < SCRAPE_APART
    {
        return typed(StatusCode::OK, KIND, text.clone());
    }
    port.node.gather(false, SCRAPE).await;
    match metrics::write(&port.node) {
        Ok(text) => {
            let text = Bytes::from(text);
            *last = Some((Instant::now(), text.clone()));
            typed(StatusCode::OK, KIND, text)
        }
        Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, "the metrics can't be written\n".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::testing;
    use crate::shard::Report;
    use crate::shard::kernel::{ShardId, Ticket};

    #[test]
    fn a_silent_shard_makes_the_node_unhealthy() {
        let directory = tempfile::tempdir().unwrap();
        let node = testing::node(&directory);
        let start = node.started;
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(health(&node, at(1)).status(), StatusCode::OK);
        assert_eq!(health(&node, at(6)).status(), StatusCode::SERVICE_UNAVAILABLE);
        for shard in [0, 1] {
            node.reports.take(ShardId(shard), Ticket(0), Report::default(), at(6));
        }
        assert_eq!(health(&node, at(10)).status(), StatusCode::OK);
        node.reports.take(ShardId(0), Ticket(0), Report::default(), at(10));
        assert_eq!(health(&node, at(12)).status(), StatusCode::SERVICE_UNAVAILABLE);
        node.reports.take(ShardId(1), Ticket(0), Report::default(), at(12));
        node.reports.end(ShardId(1));
        assert_eq!(health(&node, at(12)).status(), StatusCode::SERVICE_UNAVAILABLE);
    }
}
