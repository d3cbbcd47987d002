//! A server's operations listener, for scrapers and operators.

use std::{collections::BTreeMap, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::Replica;

/// Enables the operations listener on a free port.
pub const OPERATIONS: (&str, &str) = ("OTPD_OPERATIONS_LISTEN", "127.0.0.1:0");

/// Metrics scraped at one moment.
#[derive(Debug)]
pub struct Scrape {
    pub text: String,
    /// The kind of each metric.
    pub kinds: BTreeMap<String, String>,
    /// The value of each series, by its name and labels as they were written.
    pub series: BTreeMap<String, String>,
}

impl Scrape {
    fn read(text: String) -> Self {
        let mut scrape = Self {
            text: String::new(),
            kinds: BTreeMap::new(),
            series: BTreeMap::new(),
        };
        for line in text.lines() {
            if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').expect("a name and a kind");
                scrape.kinds.insert(name.to_owned(), kind.to_owned());
            } else if !line.starts_with('#') {
                let (series, value) = line.rsplit_once(' ').expect("a series and its value");
                value.parse::<f64>().expect("a number");
                scrape.series.insert(series.to_owned(), value.to_owned());
            }
        }
        Self { text, ..scrape }
    }

    /// Returns the value of a counter; 0 if there is none yet.
    pub fn value(&self, series: &str) -> u64 {
        let value = self.series.get(series);
        let value = value.map(|value| value.strip_suffix(".0").unwrap_or(value));
        value.map_or(0, |value| value.parse().expect("a whole number"))
    }
}

impl Replica {
    /// Returns the address of its operations listener.
    pub fn operations(&self) -> SocketAddr {
        let log = self.log();
        let first = log.lines().find(|line| line.contains("address"));
        let first = first.expect("its log contains the address");
        let (_, rest) = first.split_once("operations").expect("it was configured");
        let rest = &rest[rest.find("127.0.0.1:").expect("on loopback")..];
        let end = rest.find([' ', '"']).unwrap_or(rest.len());
        rest[..end].parse().expect("an address")
    }

    /// Scrapes its metrics.
    pub async fn scrape(&self) -> Scrape {
        let (status, text) = self.operate("GET", "/metrics", "").await;
        assert_eq!(status, 200, "{text}");
        Scrape::read(text)
    }

    /// Scrapes its metrics until they are `wanted`.
    pub async fn scrape_until(&self, wanted: impl Fn(&Scrape) -> bool) -> Scrape {
        loop {
            let scrape = self.scrape().await;
            if wanted(&scrape) {
                return scrape;
            }
        }
    }

    /// Asks the operations listener something; returns the status and the body.
    pub async fn operate(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.operations())
            .await
            .expect("it listens");
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: otpd\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        let sent = stream.write_all(request.as_bytes()).await;
        sent.expect("it reads");
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .await
            .expect("it answers in text");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        (status.expect("a status"), body.to_owned())
    }
}
