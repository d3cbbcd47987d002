//! A network proxy with faults, between otpd and its database or its callers.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpSocket, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

use super::Database;

/// Maximum number of connections that wait to be accepted.
const BACKLOG: u32 = 1_024;

/// Size of the pieces of a slow connection, with a pause before each piece.
const SLOW_PIECE: usize = 256;
const SLOW_PAUSE: Duration = Duration::from_millis(10);

/// A TCP proxy before a server, such as a PostgreSQL database. Each switch holds from the moment its
/// method returns: no byte that is sent later still passes under the old state.
pub struct Proxy {
    url: String,
    address: SocketAddr,
    state: watch::Sender<State>,
    opened: Arc<AtomicU64>,
    replies_lost: Arc<AtomicU64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Traffic {
    Forwarded,
    Refused,
    Hung,
}

#[derive(Clone, Copy, Debug)]
struct State {
    traffic: Traffic,
    /// Connections with a lower number are closed.
    cut_below: u64,
    /// Connections with a lower number stay silent in any mode.
    lost_below: u64,
    /// Port of the client whose connection is closed instead of forwarding the next bytes of the
    /// server.
    loses_reply: Option<u16>,
    /// True if bytes are forwarded slowly.
    slow: bool,
    /// Additional latency of all bytes.
    latency: Duration,
}

impl State {
    fn closes(self, connection: u64) -> bool {
        self.traffic == Traffic::Refused || connection < self.cut_below
    }

    fn forwards(self, connection: u64) -> bool {
        self.traffic == Traffic::Forwarded
            && connection >= self.cut_below
            && connection >= self.lost_below
    }
}

impl Proxy {
    /// A proxy that forwards to the server of `database`.
    pub fn forwarding(database: &Database) -> Self {
        Self::before_database(database, Traffic::Forwarded)
    }

    /// Starts a proxy that refuses connections until its mode changes.
    pub fn refusing(database: &Database) -> Self {
        Self::before_database(database, Traffic::Refused)
    }

    /// A proxy that forwards to `server`.
    pub fn before(server: SocketAddr) -> Self {
        Self::start(server, Traffic::Forwarded)
    }

    /// Returns its address.
    #[allow(dead_code, reason = "the safety net uses it")]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn before_database(database: &Database, traffic: Traffic) -> Self {
        let database = database.replica_url();
        let (before, server, name) = take_apart(&database);
        let proxy = Self::start(server, traffic);
        Self {
            url: format!("{before}@{}/{name}", proxy.address),
            ..proxy
        }
    }

    fn start(server: SocketAddr, traffic: Traffic) -> Self {
        let socket = reserve(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a free port");
        let address = socket.local_addr().expect("it is bound");
        let (sender, state) = watch::channel(State {
            traffic,
            cut_below: 0,
            lost_below: 0,
            loses_reply: None,
            slow: false,
            latency: Duration::ZERO,
        });
        let port = match traffic {
            Traffic::Refused => Port::Reserved(socket),
            _ => Port::Listening(socket.listen(BACKLOG).expect("the port is ours")),
        };
        let proxy = Self {
            url: format!("http://{address}"),
            address,
            state: sender,
            opened: Arc::default(),
            replies_lost: Arc::default(),
        };
        let way = Way {
            server,
            replies_lost: Arc::clone(&proxy.replies_lost),
        };
        let opened = Arc::clone(&proxy.opened);
        tokio::spawn(accept(port, address, way, state, opened));
        proxy
    }

    /// Returns the URL of the server through this proxy.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Forwards all bytes, including those that were held back.
    pub fn forward(&self) {
        self.switch(Traffic::Forwarded);
    }

    /// Closes all connections and takes no new ones.
    pub fn refuse(&self) {
        self.cut();
        self.switch(Traffic::Refused);
    }

    /// Takes connections, and holds back every byte on all of them.
    pub fn hang(&self) {
        self.switch(Traffic::Hung);
    }

    /// Closes all connections, once, like a restart of the database.
    pub fn cut(&self) {
        let opened = self.opened.load(Ordering::SeqCst);
        self.state.send_modify(|state| state.cut_below = opened);
    }

    /// Holds back every byte of the current connections permanently, like a database whose address
    /// moved to another machine.
    pub fn lose(&self) {
        let opened = self.opened.load(Ordering::SeqCst);
        self.state.send_modify(|state| state.lost_below = opened);
    }

    /// Closes the connection of the client's `port` instead of forwarding the next bytes of the
    /// server.
    pub fn lose_reply(&self, port: u16) {
        self.state
            .send_modify(|state| state.loses_reply = Some(port));
    }

    /// Returns the number of lost replies.
    pub fn replies_lost(&self) -> u64 {
        self.replies_lost.load(Ordering::SeqCst)
    }

    /// Lets bytes trickle from now on, or flow again.
    #[allow(dead_code, reason = "the safety net uses it")]
    pub fn slow(&self, slow: bool) {
        self.state.send_modify(|state| state.slow = slow);
    }

    /// Adds a latency to all bytes in both directions.
    pub fn delay(&self, latency: Duration) {
        self.state.send_modify(|state| state.latency = latency);
    }

    fn switch(&self, traffic: Traffic) {
        let opened = self.opened.load(Ordering::SeqCst);
        self.state.send_modify(|state| {
            // A connection that was accepted meanwhile must not be used later.
            if state.traffic == Traffic::Refused {
                state.cut_below = opened;
            }
            state.traffic = traffic;
        });
    }
}

/// Splits the URL of a database into the parts before the server, the server, and the name.
fn take_apart(url: &str) -> (&str, SocketAddr, &str) {
    let (before, rest) = url.split_once('@').expect("the URL names a user");
    let (server, database) = rest.split_once('/').expect("the URL names a database");
    let server = server.parse().expect("the server has an IP address");
    (before, server, database)
}

/// Target of the connections.
#[derive(Clone)]
struct Way {
    server: SocketAddr,
    replies_lost: Arc<AtomicU64>,
}

/// The port of the proxy: kept, but refusing; or open.
enum Port {
    Reserved(TcpSocket),
    Listening(TcpListener),
}

/// Reserves a port, so that no other process gets it; it refuses connections.
fn reserve(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Accepts connections until the proxy is dropped.
async fn accept(
    mut port: Port,
    address: SocketAddr,
    way: Way,
    mut state: watch::Receiver<State>,
    opened: Arc<AtomicU64>,
) {
    let refused = |state: &State| state.traffic == Traffic::Refused;
    loop {
        port = match port {
            Port::Reserved(socket) => {
                if state.wait_for(|state| !refused(state)).await.is_err() {
                    return;
                }
                Port::Listening(socket.listen(BACKLOG).expect("the port is ours"))
            }
            Port::Listening(listener) => loop {
                tokio::select! {
                    alive = async { state.wait_for(refused).await.is_ok() } => {
                        if !alive {
                            return;
                        }
                        drop(listener);
                        break Port::Reserved(reserve(address).expect("the port was just ours"));
                    }
                    accepted = listener.accept() => {
                        let (client, _) = accepted.expect("the listener is open");
                        let number = opened.fetch_add(1, Ordering::SeqCst);
                        tokio::spawn(carry(number, client, way.clone(), state.clone()));
                    }
                }
            },
        };
    }
}

/// Carries one connection until an end closes it or it is cut.
async fn carry(number: u64, client: TcpStream, way: Way, mut state: watch::Receiver<State>) {
    let pumped = state.clone();
    let both_ways = async {
        held_back(number, &mut pumped.clone()).await?;
        let server = TcpStream::connect(way.server).await?;
        let port = server.local_addr()?.port();
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        tokio::try_join!(
            pump(number, from_client, to_server, pumped.clone(), || true),
            pump(number, from_server, to_client, pumped.clone(), || {
                let lost = pumped.borrow().loses_reply == Some(port);
                way.replies_lost
                    .fetch_add(u64::from(lost), Ordering::SeqCst);
                !lost
            }),
        )
    };
    tokio::select! {
        // Either way both connections are dropped, which is all that is to be done.
        _ = both_ways => {}
        _ = state.wait_for(|state| state.closes(number)) => {}
    }
}

async fn pump(
    number: u64,
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut state: watch::Receiver<State>,
    may_pass: impl Fn() -> bool,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let length = from.read(&mut buffer).await?;
        // Also the news that an end was closed are held back.
        held_back(number, &mut state).await?;
        if !may_pass() {
            return Err(io::Error::other("lost on its way"));
        }
        if length == 0 {
            return to.shutdown().await;
        }
        let State { slow, latency, .. } = *state.borrow();
        if !latency.is_zero() {
            // Not a wait of a test: the latency of the simulated network.
            tokio::time::sleep(latency).await;
            // Bytes that have arrived meanwhile belong to the same message.
            to.write_all(&buffer[..length]).await?;
            while let Ok(length @ 1..) = from.try_read(&mut buffer) {
                to.write_all(&buffer[..length]).await?;
            }
            continue;
        }
        let piece = if slow { SLOW_PIECE } else { length };
        for piece in buffer[..length].chunks(piece) {
            if slow {
                // The latency of the simulated network, too.
                tokio::time::sleep(SLOW_PAUSE).await;
            }
            to.write_all(piece).await?;
        }
    }
}

/// Waits until the connection `number` is forwarded.
async fn held_back(number: u64, state: &mut watch::Receiver<State>) -> io::Result<()> {
    match state.wait_for(|state| state.forwards(number)).await {
        Ok(_) => Ok(()),
        Err(_) => Err(io::Error::other("the proxy is gone")),
    }
}
