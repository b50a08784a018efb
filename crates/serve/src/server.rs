//! The life of a server: bind, accept, drain, end.

use std::fmt::Display;
use std::future::pending;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_io_timeout::TimeoutStream;
use tracing::{info, warn};

use crate::error::ServeError;
use crate::http::{App, router};
use crate::jobs;
use crate::open_inference;
use crate::services::Services;
use crate::settings::ServeSettings;
use crate::signals::Shutdown;

/// Bytes of a request's line and headers.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Calls at once on one connection of gRPC.
const STREAMS_MAX: u32 = 128;
/// Before accepting again where the system had no more file handles.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// For the last bytes of answers to reach their clients once all work is done.
const FLUSH_MAX: Duration = Duration::from_secs(5);
/// Stands for "no limit yet".
const FAR_AWAY: Duration = Duration::from_secs(365 * 24 * 3600);

/// Who called, in the extensions of a request.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

impl Peer {
    /// `None` where a request came over no connection.
    pub fn of<B>(request: &Request<B>) -> Option<Peer> {
        request.extensions().get().copied()
    }
}

/// A server that listens but doesn't answer yet.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    grpc: Option<(TcpListener, SocketAddr)>,
    app: Arc<App>,
}

/// What is spoken on a connection.
#[derive(Clone, Copy)]
enum Wire {
    Http,
    Grpc,
}

impl Server {
    /// Listens as `settings` say. Models are given to `services` at any time, before or after.
    ///
    /// # Errors
    /// Settings that would let strangers in, a port in use, an address that isn't ours.
    pub async fn bind(settings: ServeSettings, services: Services) -> Result<Server, ServeError> {
        settings.check()?;
        let (listener, address) = bind(settings.listen).await?;
        let grpc = match settings.grpc_listen {
            Some(listen) => Some(bind(listen).await?),
            None => None,
        };
        Ok(Server { listener, address, grpc, app: App::new(settings, services) })
    }

    /// Where it listens, with the port that it got.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same of gRPC.
    pub fn grpc_address(&self) -> Option<SocketAddr> {
        self.grpc.as_ref().map(|(_, address)| *address)
    }

    /// Answers until told to stop: then takes no new work, lets running answers end, and returns.
    ///
    /// # Errors
    /// Answers that were cut, by the time limit or a second request to stop.
    pub async fn run(self, mut shutdown: Shutdown) -> Result<(), ServeError> {
        let Server { listener, grpc, app, .. } = self;
        let routers = [router(app.clone()), open_inference::grpc::router(app.clone())];
        jobs::start(&app);
        let connections = Arc::new(Semaphore::new(app.settings.connections_max));
        let graceful = GracefulShutdown::new();
        let mut deadline = Instant::now() + FAR_AWAY;
        let accept = async || {
            // The semaphore is never closed.
            let place = connections.clone().acquire_owned().await.ok();
            let grpc = async {
                match &grpc {
                    Some((listener, _)) => listener.accept().await,
                    None => pending().await,
                }
            };
            let (accepted, wire) = tokio::select! {
                accepted = listener.accept() => (accepted, Wire::Http),
                accepted = grpc => (accepted, Wire::Grpc),
            };
            accepted.map(|(stream, peer)| (stream, Peer(peer), place, wire))
        };
        loop {
            let draining = app.gate.is_closed();
            tokio::select! {
                accepted = accept() => match accepted {
                    Ok((stream, peer, place, wire)) => {
                        serve(stream, peer, place, wire, &routers[wire as usize], &graceful, &app.settings);
                    }
                    Err(error) => {
                        warn!("accepting a connection: {error}");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(()) = shutdown.recv() => {
                    let running = app.gate.inside();
                    if draining {
                        return Err(ServeError::Interrupted { running });
                    }
                    info!("stopping: {running} running answers end first; a second signal stops at once");
                    app.gate.close();
                    deadline = Instant::now() + app.settings.drain_max;
                }
                () = app.gate.empty(), if draining => break,
                () = sleep_until(deadline) => {
                    let seconds = app.settings.drain_max.as_secs();
                    return Err(ServeError::DrainTimeout { running: app.gate.inside(), seconds });
                }
            }
        }
        drop((listener, grpc));
        if timeout(FLUSH_MAX, graceful.shutdown()).await.is_err() {
            warn!("some clients did not take the end of their answers");
        }
        Ok(())
    }
}

async fn bind(listen: SocketAddr) -> Result<(TcpListener, SocketAddr), ServeError> {
    let failed = |cause: std::io::Error| match cause.kind() {
        ErrorKind::AddrInUse => ServeError::PortInUse { listen },
        _ => ServeError::Bind { listen, cause },
    };
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

/// Answers one connection's requests in a task of its own. When the client goes away, what it waited for is
/// dropped.
fn serve(
    stream: TcpStream,
    peer: Peer,
    place: Option<tokio::sync::OwnedSemaphorePermit>,
    wire: Wire,
    router: &Router,
    graceful: &GracefulShutdown,
    settings: &ServeSettings,
) {
    // Tokens are small and each is wanted at once.
    if let Err(error) = stream.set_nodelay(true) {
        warn!("setting TCP_NODELAY: {error}");
    }
    let answering = TowerToHyperService::new(router.clone());
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        answering.call(request)
    });
    let stream = TokioIo::new(patient(stream, settings.write_timeout));
    match wire {
        Wire::Http => {
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new())
                .header_read_timeout(settings.header_timeout)
                .max_buf_size(HEAD_BYTES_MAX);
            spawn(graceful.watch(http.serve_connection(stream, service)), place);
        }
        Wire::Grpc => {
            let mut http = http2::Builder::new(TokioExecutor::new());
            // A client that doesn't answer to a ping within the timeout is gone.
            http.timer(TokioTimer::new())
                .keep_alive_interval(settings.header_timeout)
                .keep_alive_timeout(settings.write_timeout)
                .max_header_list_size(HEAD_BYTES_MAX as u32)
                .max_concurrent_streams(STREAMS_MAX)
                .adaptive_window(true);
            spawn(graceful.watch(http.serve_connection(stream, service)), place);
        }
    }
}

/// Goes on with a connection in a task of its own; `place` is held until its end.
fn spawn<E: Display>(
    connection: impl Future<Output = Result<(), E>> + Send + 'static,
    place: Option<tokio::sync::OwnedSemaphorePermit>,
) {
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!("a connection ended: {error}");
        }
        drop(place);
    });
}

/// A stream whose writes fail once the client has taken nothing for `limit`, which frees what the connection held.
fn patient<S: AsyncRead + AsyncWrite>(stream: S, limit: Duration) -> Pin<Box<TimeoutStream<S>>> {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(limit));
    Box::pin(stream)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::sync::mpsc;
    use tokio::task::JoinHandle;

    use super::*;

    struct Started {
        address: SocketAddr,
        app: Arc<App>,
        stop: mpsc::Sender<()>,
        running: JoinHandle<Result<(), ServeError>>,
    }

    async fn start(settings: ServeSettings) -> Started {
        let settings = ServeSettings { listen: "127.0.0.1:0".parse().unwrap(), ..settings };
        let server = Server::bind(settings, Services::announce([]).unwrap()).await.unwrap();
        let (stop, shutdown) = mpsc::channel(2);
        let (address, app) = (server.address(), server.app.clone());
        Started { address, app, stop, running: tokio::spawn(server.run(shutdown)) }
    }

    impl Started {
        /// Sends `text` on a new connection and returns all that comes back until the server closes it.
        async fn send(&self, text: &str) -> String {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            stream.write_all(text.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.unwrap();
            String::from_utf8(answer).unwrap()
        }
    }

    const READY: &str = "GET /ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

    #[tokio::test]
    async fn a_port_in_use_says_what_to_do() {
        let first = start(ServeSettings::default()).await;
        let settings = ServeSettings { listen: first.address, ..ServeSettings::default() };
        let second = Server::bind(settings, Services::announce([]).unwrap()).await;
        let message = second.map(|_| ()).unwrap_err().to_string();
        let (address, port) = (first.address, first.address.port());
        let expected = format!(
            "cannot listen on {address}: another program uses port {port}; stop it, or choose another port (0 takes a free one)"
        );
        assert_eq!(message, expected);
    }

    #[tokio::test]
    async fn stopping_lets_running_work_end_and_takes_no_new_work() {
        let server = start(ServeSettings::default()).await;
        assert!(server.send(READY).await.starts_with("HTTP/1.1 200"));
        let permit = server.app.gate.enter().unwrap();
        server.stop.send(()).await.unwrap();
        while !server.app.gate.is_closed() {
            tokio::task::yield_now().await;
        }
        assert!(server.send(READY).await.starts_with("HTTP/1.1 503"));
        assert!(!server.running.is_finished());
        drop(permit);
        assert!(server.running.await.unwrap().is_ok());
        assert!(TcpStream::connect(server.address).await.is_err());
    }

    #[tokio::test]
    async fn a_second_request_to_stop_ends_at_once() {
        let server = start(ServeSettings::default()).await;
        let _permit = server.app.gate.enter().unwrap();
        server.stop.send(()).await.unwrap();
        server.stop.send(()).await.unwrap();
        assert!(matches!(server.running.await.unwrap(), Err(ServeError::Interrupted { running: 1 })));
    }

    #[tokio::test]
    async fn answers_that_never_end_are_cut_at_the_limit() {
        let settings = ServeSettings { drain_max: Duration::from_millis(50), ..ServeSettings::default() };
        let server = start(settings).await;
        let _permit = server.app.gate.enter().unwrap();
        server.stop.send(()).await.unwrap();
        assert!(matches!(server.running.await.unwrap(), Err(ServeError::DrainTimeout { running: 1, .. })));
    }

    #[tokio::test]
    async fn slow_clients_lose_their_connection() {
        let settings = ServeSettings {
            header_timeout: Duration::from_millis(100),
            body_timeout: Duration::from_millis(100),
            ..ServeSettings::default()
        };
        let server = start(settings).await;
        // Nothing, half a header, and an idle connection after an answer: all are closed, else `send` would hang.
        server.send("").await;
        server.send("GET /ready HTTP/1.1\r\nhost:").await;
        assert!(server.send(&READY.replace("close", "keep-alive")).await.starts_with("HTTP/1.1 200"));
        let half = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{";
        assert!(server.send(half).await.starts_with("HTTP/1.1 408"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_fails_once_nothing_was_taken_for_the_limit() {
        let limit = Duration::from_secs(30);
        let (ours, mut theirs) = duplex(4);
        let mut ours = patient(ours, limit);
        let slowly = tokio::spawn(async move {
            // Slow, but it goes on: each wait is shorter than the limit, all together are longer.
            for _ in 0..5 {
                tokio::time::sleep(limit / 2).await;
                theirs.read_exact(&mut [0; 4]).await.unwrap();
            }
            theirs
        });
        ours.write_all(&[1; 24]).await.unwrap();
        let _theirs = slowly.await.unwrap();
        assert_eq!(ours.write_all(&[1; 24]).await.unwrap_err().kind(), ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn clients_that_take_nothing_lose_their_connection() {
        let settings =
            ServeSettings { write_timeout: Duration::from_millis(100), ..ServeSettings::default() };
        let server = start(settings).await;
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let asking = async {
            // Answers pile up until no buffer takes more; the server's end then breaks this loop.
            while stream.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n").await.is_ok() {}
        };
        timeout(Duration::from_secs(60), asking).await.unwrap();
    }

    #[tokio::test]
    async fn connections_beyond_the_limit_wait() {
        let server = start(ServeSettings { connections_max: 1, ..ServeSettings::default() }).await;
        let first = TcpStream::connect(server.address).await.unwrap();
        let waiting = timeout(Duration::from_millis(100), server.send(READY)).await;
        assert!(waiting.is_err());
        drop(first);
        assert!(server.send(READY).await.starts_with("HTTP/1.1 200"));
    }
}
