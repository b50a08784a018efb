//! A small HTTP server for tests of downloads: answers by path, ranges or none, and every way of going wrong.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::http::{Client, Patience};
use super::sources::{Places, pip};
use super::url::Url;

/// What is served at a path.
#[derive(Clone)]
pub struct Page {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Whether `Range` is honoured.
    pub ranges: bool,
    /// A part has at most so many bytes.
    pub part_max: usize,
    /// Whether answers say how long they are.
    pub length: bool,
    /// The first answers end after so many bytes of the body; then the connection is closed.
    pub cuts: Vec<usize>,
    /// The first answers have this status and no body.
    pub failures: Vec<u16>,
    /// Before the body.
    pub delay: Duration,
    /// Sends a byte now and then, for ever.
    pub drip: bool,
    /// Asked for a part, it answers so, word for word, whatever was asked.
    pub part: Option<&'static str>,
}

impl Page {
    pub fn new(body: impl Into<Vec<u8>>) -> Page {
        Page {
            status: 200,
            headers: Vec::new(),
            body: body.into(),
            ranges: true,
            part_max: usize::MAX,
            length: true,
            cuts: Vec::new(),
            failures: Vec::new(),
            delay: Duration::ZERO,
            drip: false,
            part: None,
        }
    }

    pub fn header(mut self, name: &str, value: &str) -> Page {
        self.headers.push((name.to_string(), value.to_string()));
        self
    }

    pub fn redirect(to: &str) -> Page {
        Page { status: 302, ..Page::new("") }.header("location", to)
    }
}

/// A request as it came: path, and headers in small letters.
#[derive(Clone, Debug)]
pub struct Seen {
    pub path: String,
    pub headers: HashMap<String, String>,
}

type Pages = Arc<Mutex<HashMap<String, Page>>>;

pub struct Server {
    pub url: String,
    pages: Pages,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    pub fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let pages = Pages::default();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (shared, record) = (pages.clone(), seen.clone());
        // Ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (pages, seen) = (shared.clone(), record.clone());
                std::thread::spawn(move || answer(&stream, &pages, &seen));
            }
        });
        Server { url, pages, seen }
    }

    pub fn serve(&self, path: &str, page: Page) {
        self.pages.lock().unwrap().insert(path.to_string(), page);
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub fn url_of(&self, path: &str) -> Url {
        Url::parse(&format!("{}{path}", self.url)).unwrap()
    }

    /// Every service at this server.
    pub fn places(&self) -> Places {
        Places {
            hub: self.url.clone(),
            hub_token: Some("secret".to_string()),
            modelscope: self.url.clone(),
            pip: Ok(pip::Indexes { urls: vec![self.url_of("/simple")], certificates: None }),
        }
    }
}

/// Impatient enough for tests.
pub const PATIENCE: Patience = Patience {
    connect: Duration::from_secs(5),
    stall: Duration::from_millis(500),
    slow: Duration::from_secs(1),
    page: Duration::from_secs(1),
    unannounced_bytes_max: 1 << 20,
    retries_max: 2,
    backoff: Duration::from_millis(1),
};

pub fn client() -> Client {
    Client::new(PATIENCE, None).unwrap()
}

/// One request a connection, so that a cut is a cut.
fn answer(stream: &TcpStream, pages: &Pages, seen: &Mutex<Vec<Seen>>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let Some(Ok(first)) = lines.next() else { return };
    let path = first.split(' ').nth(1).unwrap_or("/").to_string();
    let mut headers = HashMap::new();
    for line in lines.map_while(Result::ok).take_while(|line| !line.is_empty()) {
        if let Some((name, value)) = line.split_once(':') {
            headers.insert(name.to_ascii_lowercase(), value.trim().to_string());
        }
    }
    seen.lock().unwrap().push(Seen { path: path.clone(), headers: headers.clone() });
    let (page, failure, cut) = {
        let mut pages = pages.lock().unwrap();
        let Some(page) = pages.get_mut(&path) else {
            drop(pages);
            return write(stream, "404 Not Found", &[], b"", None);
        };
        let failure = (!page.failures.is_empty()).then(|| page.failures.remove(0));
        let cut = (failure.is_none() && !page.cuts.is_empty()).then(|| page.cuts.remove(0));
        (page.clone(), failure, cut)
    };
    if let Some(status) = failure {
        return write(stream, &format!("{status} Failure"), &[], b"", None);
    }
    let etag = page.headers.iter().find(|(name, _)| name == "etag").map(|(_, value)| value.clone());
    let unchanged = headers.get("if-range").is_none_or(|tag| Some(tag) == etag.as_ref());
    let from: Option<usize> =
        headers.get("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    let total = page.body.len();
    std::thread::sleep(page.delay);
    if page.drip {
        return drip(stream);
    }
    if let Some(part) = page.part.filter(|_| from.is_some()) {
        let mut stream = stream;
        // A client that has gone is one of the things tested.
        let _ = stream.write_all(part.as_bytes());
        return;
    }
    match from.filter(|_| page.ranges && unchanged) {
        Some(from) if from >= total => {
            let range = [("content-range".to_string(), format!("bytes */{total}"))];
            write(stream, "416 Range Not Satisfiable", &range, b"", None);
        }
        Some(from) => {
            let mut headers = page.headers.clone();
            let end = total.min(from.saturating_add(page.part_max));
            headers.push(("content-range".to_string(), format!("bytes {from}-{}/{total}", end - 1)));
            write(stream, "206 Partial Content", &headers, &page.body[from..end], cut);
        }
        None if !page.length => write_body(stream, "200 OK", &page.headers, &page.body, cut),
        None => write(stream, &format!("{} Status", page.status), &page.headers, &page.body, cut),
    }
}

/// Until the client has enough.
fn drip(mut stream: &TcpStream) {
    let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 1000000\r\netag: \"drip\"\r\n\r\n";
    let mut sent = stream.write_all(head.as_bytes());
    while sent.is_ok() {
        std::thread::sleep(Duration::from_millis(50));
        sent = stream.write_all(b"\n");
    }
}

fn write(stream: &TcpStream, status: &str, headers: &[(String, String)], body: &[u8], cut: Option<usize>) {
    let mut headers = headers.to_vec();
    headers.push(("content-length".to_string(), body.len().to_string()));
    write_body(stream, status, &headers, body, cut);
}

fn write_body(
    mut stream: &TcpStream,
    status: &str,
    headers: &[(String, String)],
    body: &[u8],
    cut: Option<usize>,
) {
    let mut head = format!("HTTP/1.1 {status}\r\nconnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    let sent = &body[..cut.unwrap_or(body.len()).min(body.len())];
    // A client that has gone is one of the things tested.
    let _ =
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(sent)).and_then(|()| stream.flush());
}
