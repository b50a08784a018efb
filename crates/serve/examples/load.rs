//! A load generator for `bench/tensors`: so many connections send one body again and again, each when its answer has
//! come. `load ADDRESS PATH BODY_FILE CONNECTIONS SECONDS` prints requests a second and latencies as JSON.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Left out of the count at the beginning.
const WARM_UP: Duration = Duration::from_secs(1);
const ANSWER_BYTES_MAX: usize = 1 << 20;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, path, body, connections, seconds] = arguments.as_slice() else {
        return Err("ADDRESS PATH BODY_FILE CONNECTIONS SECONDS".into());
    };
    let body = std::fs::read(body)?;
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let request = Arc::new([head.as_bytes(), &body].concat());
    let (connections, seconds): (usize, u64) = (connections.parse()?, seconds.parse()?);
    let begin = Instant::now() + WARM_UP;
    let end = begin + Duration::from_secs(seconds);
    let tasks: Vec<_> =
        (0..connections).map(|_| tokio::spawn(ask(address.clone(), request.clone(), begin, end))).collect();
    let mut micros: Vec<u64> = Vec::new();
    for task in tasks {
        micros.extend(task.await??);
    }
    micros.sort_unstable();
    let at = |share: f64| micros.get((micros.len() as f64 * share) as usize).copied().unwrap_or(0);
    let text = format!(
        "{{\"requests_per_second\": {:.0}, \"p50_us\": {}, \"p99_us\": {}, \"max_us\": {}}}\n",
        micros.len() as f64 / seconds as f64,
        at(0.5),
        at(0.99),
        micros.last().copied().unwrap_or(0)
    );
    Ok(std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes())?)
}

/// Latencies, in microseconds, of what one connection asked between `begin` and `end`.
async fn ask(
    address: String,
    request: Arc<Vec<u8>>,
    begin: Instant,
    end: Instant,
) -> Result<Vec<u64>, Error> {
    let mut stream = TcpStream::connect(&address).await?;
    stream.set_nodelay(true)?;
    let mut latencies = Vec::new();
    let mut answer = Vec::with_capacity(1 << 16);
    while Instant::now() < end {
        let sent = Instant::now();
        stream.write_all(&request).await?;
        answer.clear();
        let length = loop {
            if stream.read_buf(&mut answer).await? == 0 {
                return Err("the server closed the connection".into());
            }
            if let Some(length) = whole(&answer)? {
                break length;
            }
        };
        if length != answer.len() || !answer.starts_with(b"HTTP/1.1 200") {
            return Err(format!("unexpected: {}", String::from_utf8_lossy(&answer)).into());
        }
        if sent >= begin {
            latencies.push(sent.elapsed().as_micros() as u64);
        }
    }
    Ok(latencies)
}

/// The length of an answer that has come whole.
fn whole(answer: &[u8]) -> Result<Option<usize>, Error> {
    if answer.len() > ANSWER_BYTES_MAX {
        return Err("the answer is too long".into());
    }
    let Some(head) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let text = std::str::from_utf8(&answer[..head])?.to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.ok_or("an answer without Content-Length")?.trim().parse()?;
    let all = head + 4 + length;
    Ok((answer.len() >= all).then_some(all))
}
