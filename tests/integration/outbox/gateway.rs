//! A gateway with many scripted providers that records every message with the time of its
//! request.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::Instant,
};

use crate::providers::gateway::read;

/// The answer of a gateway that takes a message.
pub const TAKES: Behaviour = Behaviour::Answers(200, r#"{"ok": true, "id": "at-the-gateway"}"#);
/// The answer of one that is out of order.
pub const DOWN: Behaviour = Behaviour::Answers(503, r#"{"ok": false}"#);

/// Behaviour of a provider for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// It answers with that status and body.
    Answers(u16, &'static str),
    /// It closes the connection.
    Closes,
    /// Does not reply until the behaviour changes.
    Holds,
    /// It takes so many messages more, and keeps silent then.
    Takes(usize),
}

/// A message as it came in.
#[derive(Clone, Debug)]
pub struct Asked {
    pub provider: String,
    pub message_id: String,
    pub challenge_id: String,
    pub to: String,
    pub code: String,
    pub text: String,
    /// Name of the sending replica, if it was configured.
    pub replica: String,
    pub at: Instant,
}

/// State of all providers.
#[derive(Debug, Default)]
pub struct State {
    behaviours: BTreeMap<String, Behaviour>,
    /// Requests in the order of their arrival.
    pub asked: Vec<Asked>,
    /// Accepted requests in the order of the replies: indexes of `asked`.
    pub taken: Vec<usize>,
    /// Number of unanswered requests, by provider.
    open: BTreeMap<String, usize>,
    /// The most that there ever were.
    pub most_open: BTreeMap<String, usize>,
}

pub struct Gateway {
    address: SocketAddr,
    state: Arc<watch::Sender<State>>,
}

impl State {
    fn behaviour(&self, provider: &str) -> Behaviour {
        self.behaviours.get(provider).copied().unwrap_or(TAKES)
    }

    /// Returns the number of requests to a provider.
    pub fn count(&self, provider: &str) -> usize {
        let of_it = |asked: &&Asked| asked.provider == provider;
        self.asked.iter().filter(of_it).count()
    }

    /// Returns the number of unanswered requests to a provider.
    pub fn open(&self, provider: &str) -> usize {
        self.open.get(provider).copied().unwrap_or_default()
    }

    /// The providers that were asked to carry a challenge's code, in that order.
    pub fn providers_of(&self, challenge_id: &str) -> Vec<String> {
        let of_it = |asked: &&Asked| asked.challenge_id == challenge_id;
        let asked = self.asked.iter().filter(of_it);
        asked.map(|asked| asked.provider.clone()).collect()
    }
}

impl Gateway {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let state = Arc::new(watch::Sender::new(State::default()));
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(converse(stream, Arc::clone(&shared)));
            }
        });
        Self { address, state }
    }

    /// The configuration of the provider `name`, with more of its keys.
    pub fn provider(&self, name: &str, more: &str) -> String {
        let address = self.address;
        format!(
            r#"
[providers.{name}]
kind = "http"
url = "http://{address}/{name}"
json = {{ id = "{{message_id}}", challenge = "{{challenge_id}}", to = "{{to_e164}}", code = "{{code}}", text = "{{text}}", replica = "{{parameters.replica}}" }}
parameters = {{ replica = "" }}
conditions = [{{ pointer = "/ok", equals = true }}]
errors = [{{ pointer = "/error", equals = "nobody", class = "bad_destination" }}]
allow_private_addresses = true
{more}
"#
        )
    }

    /// Sets the behaviour of a provider; without it, the provider accepts everything.
    pub fn will(&self, provider: &str, behaviour: Behaviour) {
        self.state.send_modify(|state| {
            state.behaviours.insert(provider.to_owned(), behaviour);
        });
    }

    /// Returns the current state.
    pub fn state(&self) -> watch::Ref<'_, State> {
        self.state.borrow()
    }

    /// Waits until the state is `wanted`.
    pub async fn wait_for(&self, wanted: impl Fn(&State) -> bool) {
        let mut state = self.state.subscribe();
        let seen = state.wait_for(wanted).await;
        seen.expect("the gateway runs");
    }

    /// Waits until a provider was asked to carry a challenge's code, and returns the
    /// newest such request.
    pub async fn asked_for(&self, challenge_id: &str) -> Asked {
        let of_it = |state: &State| {
            let mut newest = state.asked.iter().rev();
            newest
                .find(|asked| asked.challenge_id == challenge_id)
                .cloned()
        };
        let mut state = self.state.subscribe();
        let seen = state.wait_for(|state| of_it(state).is_some()).await;
        of_it(&seen.expect("the gateway runs")).expect("it was just there")
    }
}

/// Action for a request.
enum Done {
    Answer(u16, &'static str),
    Close,
}

/// A request that waits for an answer.
struct Open<'a> {
    state: &'a watch::Sender<State>,
    provider: String,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.state.send_modify(|state| {
            *state.open.entry(self.provider.clone()).or_default() -= 1;
        });
    }
}

async fn converse(stream: TcpStream, state: Arc<watch::Sender<State>>) {
    // Replies are small, and must not wait for an acknowledgement of the other side.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let mut stream = BufReader::new(stream);
    while let Some(request) = read(&mut stream).await {
        let at = Instant::now();
        let provider = request.path.trim_start_matches('/').to_owned();
        let body: Value = serde_json::from_str(&request.body).expect("it is JSON");
        let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
        let asked = Asked {
            provider: provider.clone(),
            message_id: text("id"),
            challenge_id: text("challenge"),
            to: text("to"),
            code: text("code"),
            text: text("text"),
            replica: text("replica"),
            at,
        };
        let mut number = 0;
        state.send_modify(|state| {
            number = state.asked.len();
            state.asked.push(asked);
            let open = state.open.entry(provider.clone()).or_default();
            *open += 1;
            let most = state.most_open.entry(provider.clone()).or_default();
            *most = (*most).max(*open);
        });
        let open = Open {
            state: &state,
            provider: provider.clone(),
        };
        let done = tokio::select! {
            done = decide(&state, &provider, number) => done,
            // A client sends no second request before the reply to the first one.
            _ = stream.fill_buf() => return,
        };
        // After a reply, the client may send the next request at once.
        drop(open);
        let Done::Answer(status, body) = done else {
            return;
        };
        let length = body.len();
        let text = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n\r\n{body}");
        if stream.write_all(text.as_bytes()).await.is_err() || stream.flush().await.is_err() {
            return;
        }
    }
}

/// Waits until the provider has an action, and records accepted requests.
async fn decide(state: &watch::Sender<State>, provider: &str, number: usize) -> Done {
    let silent = |behaviour| matches!(behaviour, Behaviour::Holds | Behaviour::Takes(0));
    let mut changes = state.subscribe();
    loop {
        let talks = |state: &State| !silent(state.behaviour(provider));
        if changes.wait_for(talks).await.is_err() {
            return Done::Close;
        }
        let mut done = None;
        state.send_modify(|state| {
            done = match state.behaviour(provider) {
                Behaviour::Holds | Behaviour::Takes(0) => None,
                Behaviour::Closes => Some(Done::Close),
                Behaviour::Takes(more) => {
                    let left = Behaviour::Takes(more - 1);
                    state.behaviours.insert(provider.to_owned(), left);
                    state.taken.push(number);
                    let Behaviour::Answers(status, body) = TAKES else {
                        unreachable!("it is a constant");
                    };
                    Some(Done::Answer(status, body))
                }
                Behaviour::Answers(status, body) => {
                    if state.behaviour(provider) == TAKES {
                        state.taken.push(number);
                    }
                    Some(Done::Answer(status, body))
                }
            };
        });
        if let Some(done) = done {
            return done;
        }
    }
}
