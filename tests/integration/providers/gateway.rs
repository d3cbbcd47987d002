//! A gateway that records requests and responds from a script.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer};
use tokio::{
    io::{
        AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _,
        BufReader,
    },
    net::{TcpListener, TcpSocket},
    sync::mpsc,
};
use tokio_rustls::TlsAcceptor;

/// Reaction of the gateway to a request.
#[derive(Clone, Debug)]
pub enum Reply {
    /// It answers with that status and body.
    Answer(u16, String),
    /// It sends the caller elsewhere.
    Redirect(String),
    /// It closes the connection.
    Close,
    /// It keeps silent.
    Hang,
    /// It begins a body, and keeps silent then.
    HangInBody,
    /// It begins a body, and closes the connection then.
    CloseInBody,
}

/// A request as it came in.
#[derive(Debug)]
pub struct Recorded {
    pub method: String,
    pub path: String,
    pub query: BTreeMap<String, String>,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

pub struct Gateway {
    address: SocketAddr,
    script: Arc<Mutex<VecDeque<Reply>>>,
    requests: mpsc::UnboundedReceiver<Recorded>,
}

impl Gateway {
    pub async fn start() -> Self {
        Self::serve(None).await
    }

    /// One with a certificate for `name`, which is written to `certificate`.
    pub async fn with_tls(name: &str, certificate: &Path) -> Self {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed([name.to_owned()]).expect("a name");
        std::fs::write(certificate, cert.pem()).expect("the directory takes files");
        let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has them")
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)
            .expect("they belong together");
        Self::serve(Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn serve(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let script = Arc::<Mutex<VecDeque<Reply>>>::default();
        let (sender, requests) = mpsc::unbounded_channel();
        let replies = Arc::clone(&script);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, replies, sender) = (tls.clone(), Arc::clone(&replies), sender.clone());
                tokio::spawn(async move {
                    match tls {
                        None => converse(stream, &replies, &sender).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                converse(stream, &replies, &sender).await;
                            }
                        }
                    }
                });
            }
        });
        Self {
            address,
            script,
            requests,
        }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// `http://127.0.0.1:PORT` and `path`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Adds a reaction to the script, for the next request without one.
    pub fn will(&self, reply: Reply) {
        self.script
            .lock()
            .expect("lock is not poisoned")
            .push_back(reply);
    }

    pub fn will_answer(&self, status: u16, body: &str) {
        self.will(Reply::Answer(status, body.to_owned()));
    }

    /// The next request, once it has come in.
    pub async fn request(&mut self) -> Recorded {
        self.requests.recv().await.expect("the gateway runs")
    }

    /// Returns true if there is no unread request.
    pub fn is_idle(&mut self) -> bool {
        self.requests.try_recv().is_err()
    }
}

/// A port without a listener, reserved so that no other process can listen on it.
pub struct Nobody(TcpSocket);

impl Nobody {
    pub fn new() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        socket.bind(any).expect("a free port");
        Self(socket)
    }

    pub fn port(&self) -> u16 {
        self.0.local_addr().expect("it is bound").port()
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port())
    }
}

/// The pairs of a form or query.
pub fn pairs(encoded: &str) -> BTreeMap<String, String> {
    url::form_urlencoded::parse(encoded.as_bytes())
        .into_owned()
        .collect()
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    script: &Mutex<VecDeque<Reply>>,
    requests: &mpsc::UnboundedSender<Recorded>,
) {
    let mut stream = BufReader::new(stream);
    while let Some(request) = read(&mut stream).await {
        let reply = script.lock().expect("lock is not poisoned").pop_front();
        let reply = reply.unwrap_or(Reply::Answer(500, "no reply was scripted".to_owned()));
        // The test may have ended.
        let _ = requests.send(request);
        let text = match &reply {
            Reply::Answer(status, body) => {
                let length = body.len();
                format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n\r\n{body}")
            }
            Reply::Redirect(to) => {
                format!("HTTP/1.1 302 X\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n")
            }
            Reply::Close | Reply::Hang => String::new(),
            Reply::HangInBody | Reply::CloseInBody => {
                "HTTP/1.1 200 X\r\ncontent-length: 100\r\n\r\n{\"a\":".to_owned()
            }
        };
        if stream.write_all(text.as_bytes()).await.is_err() || stream.flush().await.is_err() {
            return;
        }
        match reply {
            Reply::Answer(..) | Reply::Redirect(_) => {}
            Reply::Close | Reply::CloseInBody => return,
            Reply::Hang | Reply::HangInBody => return std::future::pending().await,
        }
    }
}

/// The next request on a connection, if there is one.
pub async fn read<S: AsyncRead + Unpin>(stream: &mut BufReader<S>) -> Option<Recorded> {
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_owned();
        if line.is_empty() {
            break;
        }
        head.push(line);
    }
    let (first, headers) = head.split_first()?;
    let mut words = first.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let headers: BTreeMap<String, String> = headers
        .iter()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let length = headers.get("content-length").map(|length| length.parse());
    let mut body = vec![0; length.unwrap_or(Ok(0)).ok()?];
    stream.read_exact(&mut body).await.ok()?;
    Some(Recorded {
        method,
        path: path.to_owned(),
        query: pairs(query),
        headers,
        body: String::from_utf8(body).ok()?,
    })
}
