//! What a running otpd tells Prometheus.

use std::collections::{BTreeMap, BTreeSet};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::Replica;

/// All series, by the names of their metrics.
#[derive(Debug)]
pub struct Scrape {
    pub text: String,
    series: BTreeMap<String, Vec<BTreeMap<String, String>>>,
}

impl Scrape {
    /// Asks a replica that was started with `OTPD_OPERATIONS_LISTEN`.
    pub async fn of(replica: &Replica) -> Self {
        let line = replica.wait_for_line(" operations=").await;
        let (_, rest) = line.split_once(" operations=").expect("it is there");
        let address = rest.split(' ').next().expect("it has an address");
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        let request = "GET /metrics HTTP/1.1\r\nhost: otpd\r\nconnection: close\r\n\r\n";
        let asked = stream.write_all(request.as_bytes()).await;
        asked.expect("it reads");
        let mut reply = String::new();
        let told = stream.read_to_string(&mut reply).await;
        told.expect("it answers in UTF-8");
        let (head, body) = reply.split_once("\r\n\r\n").expect("it speaks HTTP");
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        Self::read(body)
    }

    /// The same, once it is as it is wanted.
    pub async fn once(replica: &Replica, wanted: impl Fn(&Self) -> bool) -> Self {
        loop {
            let scrape = Self::of(replica).await;
            if wanted(&scrape) {
                return scrape;
            }
        }
    }

    fn read(text: &str) -> Self {
        let mut series: BTreeMap<String, Vec<_>> = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, labels) = match line.split_once('{') {
                Some((name, rest)) => {
                    let (labels, _) = rest.split_once("} ").expect("a value follows");
                    (name, labels)
                }
                None => (line.split(' ').next().expect("it has a name"), ""),
            };
            let pairs = labels.split("\",").filter(|pair| !pair.is_empty());
            let labels = pairs.map(|pair| {
                let (label, value) = pair.split_once("=\"").expect("a label has a value");
                (label.to_owned(), value.trim_end_matches('"').to_owned())
            });
            series
                .entry(name.to_owned())
                .or_default()
                .push(labels.collect());
        }
        Self {
            text: text.to_owned(),
            series,
        }
    }

    /// Whether there is such a series.
    pub fn has(&self, metric: &str, label: &str, value: &str) -> bool {
        self.values(metric, label).contains(value)
    }

    /// Whether there is any series of that name; a histogram has it before `_bucket`.
    pub fn knows(&self, metric: &str) -> bool {
        let buckets = format!("{metric}_bucket");
        self.series.contains_key(metric) || self.series.contains_key(&buckets)
    }

    /// The values of a label.
    pub fn values(&self, metric: &str, label: &str) -> BTreeSet<&str> {
        let all = self.series.get(metric).into_iter().flatten();
        all.filter_map(|labels| labels.get(label))
            .map(String::as_str)
            .collect()
    }

    /// The value that a series has; the first one whose labels are these.
    pub fn value(&self, metric: &str, labels: &str) -> Option<f64> {
        let start = format!("{metric}{{{labels}}} ");
        let line = self.text.lines().find(|line| line.starts_with(&start))?;
        line.rsplit(' ').next()?.parse().ok()
    }
}
