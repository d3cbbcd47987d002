//! Client of HTTP/1.1 that writes requests byte by byte as a test wants them.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};

/// Connection to a server.
pub struct Http1(BufReader<TcpStream>);

/// Complete response.
#[derive(Clone, Debug)]
pub struct HttpReply {
    pub status: u16,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl HttpReply {
    /// Value of a header; empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value)
    }

    /// Body as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        let text = String::from_utf8_lossy(&self.body);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {self:?}: {text}"))
    }

    /// Detail of an error by its type, as it is shown.
    #[track_caller]
    pub fn detail(&self, name: &str) -> serde_json::Value {
        let json = self.json();
        let details = json["details"].as_array().cloned().unwrap_or_default();
        let found = details.into_iter().find(|detail| detail["type"] == name);
        found.unwrap_or_default()
    }

    /// Reason of an error of the contract.
    #[track_caller]
    pub fn reason(&self) -> String {
        let reason = &self.detail("google.rpc.ErrorInfo")["debug"]["reason"];
        reason.as_str().unwrap_or_default().to_owned()
    }
}

impl Http1 {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("it listens");
        stream.set_nodelay(true).expect("it is a TCP socket");
        Self(BufReader::new(stream))
    }

    /// Writes `bytes`; false, once the server has closed the connection.
    pub async fn write(&mut self, bytes: &[u8]) -> bool {
        self.0.get_mut().write_all(bytes).await.is_ok()
    }

    /// Reads one response; none at the end of the connection.
    pub async fn reply(&mut self) -> Option<HttpReply> {
        loop {
            let reply = self.any_reply().await?;
            if reply.status != 100 {
                return Some(reply);
            }
        }
    }

    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.0.read_line(&mut line).await;
        (read.ok()? > 0).then(|| line.trim_end().to_owned())
    }

    async fn any_reply(&mut self) -> Option<HttpReply> {
        let first = self.line().await?;
        if !first.starts_with("HTTP/1.") {
            // HTTP/2, from a server that serves nothing else.
            return None;
        }
        let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status line: {first:?}"));
        let mut headers = Vec::new();
        loop {
            let line = self.line().await?;
            let Some((name, value)) = line.split_once(':') else {
                assert_eq!(line, "");
                break;
            };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut reply = HttpReply {
            status,
            headers,
            body: Vec::new(),
        };
        if reply.header("transfer-encoding") == "chunked" {
            loop {
                let size = self.line().await?;
                let size = usize::from_str_radix(&size, 16).expect("a size in hex");
                let mut chunk = vec![0; size + 2];
                self.0.read_exact(&mut chunk).await.ok()?;
                reply.body.extend(&chunk[..size]);
                if size == 0 {
                    return Some(reply);
                }
            }
        }
        let length = reply.header("content-length").parse().unwrap_or_default();
        reply.body.resize(length, 0);
        self.0.read_exact(&mut reply.body).await.ok()?;
        Some(reply)
    }

    /// Reads the rest of the connection; true, if it ends without a reset.
    pub async fn ends(&mut self) -> bool {
        let mut rest = Vec::new();
        let end = self.0.read_to_end(&mut rest).await;
        assert_eq!(String::from_utf8_lossy(&rest), "");
        end.is_ok()
    }
}

/// Returns a POST request in JSON with more headers.
pub fn post(path: &str, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let length = body.len().to_string();
    let all = [
        ("host", "localhost"),
        ("content-type", "application/json"),
        ("content-length", &length),
    ];
    let all = all
        .iter()
        .filter(|(name, _)| !headers.iter().any(|(known, _)| known == name));
    raw(
        "POST",
        path,
        &all.chain(headers).copied().collect::<Vec<_>>(),
        body,
    )
}

/// Returns a request with these headers and no others.
pub fn raw(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let headers: Vec<_> = headers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    let headers = headers.concat();
    format!("{method} {path} HTTP/1.1\r\n{headers}\r\n{body}").into_bytes()
}

/// Path of a method of the contract.
pub fn path(method: &str) -> String {
    format!("/otp.v1.OtpService/{method}")
}

/// Calls a method once, on a connection of its own.
pub async fn call(
    address: SocketAddr,
    method: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> HttpReply {
    exchange(address, &post(&path(method), headers, body)).await
}

/// Sends a request, and returns the response.
pub async fn exchange(address: SocketAddr, request: &[u8]) -> HttpReply {
    let mut client = Http1::connect(address).await;
    client.write(request).await;
    client.reply().await.expect("there is a response")
}
