//! Pairs over HTTP/1.1, written on plain sockets. A client library would use more of the
//! two cores than some of the services do.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use rand::{Rng as _, SeedableRng as _, rngs::SmallRng};
use serde_json::json;
use tokio::{
    io::{self, AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::Instant,
};

use super::{Outcome, latency::Latencies};

/// Header in which the services return a code.
const CODE_HEADER: &str = "x-otp-code";
/// Maximum length of a response.
const MAX_BYTES: usize = 64 * 1024;

#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    #[arg(long)]
    address: SocketAddr,
    /// Number of concurrent pairs, each over a connection of its own.
    #[arg(long)]
    in_flight: u32,
    #[arg(long)]
    seconds: f64,
    #[arg(long)]
    send_path: String,
    #[arg(long)]
    verify_path: String,
    #[arg(long)]
    phone_field: String,
    #[arg(long)]
    code_field: String,
}

/// Results of one caller, or of all.
#[derive(Debug, Default)]
struct Tally {
    pairs: u64,
    send: Latencies,
    verify: Latencies,
    failures: BTreeMap<String, u64>,
}

pub async fn run(options: &Options) -> Outcome {
    let started = Instant::now();
    let end = started + Duration::from_secs_f64(options.seconds);
    let mut callers = JoinSet::new();
    for caller in 0..options.in_flight {
        callers.spawn(call(options.clone(), end, u64::from(caller)));
    }
    let mut all = Tally::default();
    while let Some(tally) = callers.join_next().await {
        let tally = tally?;
        all.pairs += tally.pairs;
        all.send.merge(tally.send);
        all.verify.merge(tally.verify);
        for (failure, count) in tally.failures {
            *all.failures.entry(failure).or_default() += count;
        }
    }
    let report = json!({
        "seconds": started.elapsed().as_secs_f64(),
        "pairs": all.pairs,
        "send": all.send.summary(),
        "verify": all.verify.summary(),
        "failures": all.failures,
    });
    println!("{report}");
    Ok(())
}

/// Runs one caller: one pair after the other until the end.
async fn call(options: Options, end: Instant, number: u64) -> Tally {
    let mut tally = Tally::default();
    // Phone numbers may be guessable, but no two runs may have the same.
    let mut random = SmallRng::seed_from_u64(seed(number));
    let mut connection = Connection::new(options.address);
    while Instant::now() < end {
        if let Err(failure) = pair(&options, &mut connection, &mut random, &mut tally).await {
            *tally.failures.entry(failure).or_default() += 1;
            connection.close();
        }
    }
    tally
}

fn seed(number: u64) -> u64 {
    otpd::keys::os_rng().next_u64() ^ number
}

async fn pair(
    options: &Options,
    connection: &mut Connection,
    random: &mut SmallRng,
    tally: &mut Tally,
) -> Result<(), String> {
    let phone = format!("+7999{:07}", random.next_u32() % 10_000_000);
    let Options {
        phone_field,
        code_field,
        ..
    } = options;

    let asked_at = Instant::now();
    let body = format!(r#"{{"{phone_field}":"{phone}"}}"#);
    let reply = connection.post(&options.send_path, &body).await?;
    tally.send.add(asked_at.elapsed());
    let code = reply.code.ok_or(format!("send {}", reply.status))?;

    let asked_at = Instant::now();
    let body = format!(r#"{{"{phone_field}":"{phone}","{code_field}":"{code}"}}"#);
    let reply = connection.post(&options.verify_path, &body).await?;
    tally.verify.add(asked_at.elapsed());
    if reply.status != 200 {
        return Err(format!("verify {}", reply.status));
    }
    tally.pairs += 1;
    Ok(())
}

/// Connection that is kept as long as the service keeps it.
struct Connection {
    address: SocketAddr,
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
}

struct Reply {
    status: u16,
    code: Option<String>,
}

/// Relevant part of a head.
struct Head {
    reply: Reply,
    body_at: usize,
    body: Body,
    closes: bool,
}

enum Body {
    Bytes(usize),
    Chunked,
    UntilClosed,
}

impl Connection {
    fn new(address: SocketAddr) -> Self {
        Self {
            address,
            stream: None,
            buffer: Vec::with_capacity(4_096),
        }
    }

    fn close(&mut self) {
        self.stream = None;
    }

    async fn post(&mut self, path: &str, body: &str) -> Result<Reply, String> {
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        );
        self.exchange(request.as_bytes())
            .await
            .map_err(|error| error.kind().to_string())
    }

    async fn exchange(&mut self, request: &[u8]) -> io::Result<Reply> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => connect(self.address).await?,
        };
        stream.write_all(request).await?;
        self.buffer.clear();
        let head = loop {
            if let Some(head) = parse(&self.buffer)? {
                break head;
            }
            if self.read(&mut stream).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        };
        while !is_whole(&head, &self.buffer) {
            if self.read(&mut stream).await? == 0 {
                if matches!(head.body, Body::UntilClosed) {
                    break;
                }
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        if !head.closes {
            self.stream = Some(stream);
        }
        Ok(head.reply)
    }

    async fn read(&mut self, stream: &mut TcpStream) -> io::Result<usize> {
        if self.buffer.len() > MAX_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        stream.read_buf(&mut self.buffer).await
    }
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Parses the head of a response; `None` if it is not complete.
fn parse(bytes: &[u8]) -> io::Result<Option<Head>> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let malformed = || io::Error::from(io::ErrorKind::InvalidData);
    let text = std::str::from_utf8(&bytes[..end]).map_err(|_| malformed())?;
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1));
    let mut head = Head {
        reply: Reply {
            status: status
                .and_then(|status| status.parse().ok())
                .ok_or_else(malformed)?,
            code: None,
        },
        body_at: end + 4,
        body: Body::UntilClosed,
        closes: false,
    };
    for line in lines {
        let (name, value) = line.split_once(':').ok_or_else(malformed)?;
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => {
                head.body = Body::Bytes(value.parse().map_err(|_| malformed())?);
            }
            "transfer-encoding" => head.body = Body::Chunked,
            "connection" => head.closes |= value.eq_ignore_ascii_case("close"),
            CODE_HEADER => head.reply.code = Some(value.to_owned()),
            _ => {}
        }
    }
    head.closes |= matches!(head.body, Body::UntilClosed);
    Ok(Some(head))
}

fn is_whole(head: &Head, buffer: &[u8]) -> bool {
    match head.body {
        Body::Bytes(bytes) => buffer.len() >= head.body_at + bytes,
        Body::Chunked => buffer.ends_with(b"0\r\n\r\n"),
        Body::UntilClosed => false,
    }
}
