//! Benchmarks of the rules, without a store and without a network: `cargo bench --bench
//! rules`. With names as arguments it runs only those that contain one of them.

use std::{collections::BTreeMap, hint::black_box, net::IpAddr, time::Duration};

use criterion::{BatchSize, Criterion, Throughput};
use otpd::keys::{KeyRing, SystemRandom, os_rng};
use otpd_rules::{
    AttemptLog, CallerName, ChallengeNonce, ChallengeSecret, ChallengeSelector, ChallengeState,
    Channel, ChannelSet, IdempotencyLog, MessageId, MessagePayload, MessageRequest, MessageState,
    OtpCode, OutboxMessage, Purpose, PurposePolicy, Quota, RateLimitKind, RateLimitState,
    Recipient, Record, RecordKey, RecordedOutcome, Region, RequestFingerprint, SendRequest,
    SubmittedCode, Timestamp, VerifyRequest, send, verify,
};

/// Regions whose phone numbers are parsed, of many calling codes and plans.
const REGIONS: [&str; 20] = [
    "RU", "KZ", "US", "DE", "GB", "FR", "UA", "TR", "KR", "CN", "CO", "PE", "BD", "PK", "EG", "IR",
    "SE", "BE", "DK", "CH",
];
/// Written phone numbers, from the corpus of the tests.
const PHONES: &str = include_str!("../tests/corpus/phones.tsv");
const NOW: Timestamp = Timestamp::from_milliseconds(1_800_000_000_000);
const RECIPIENT: &str = "+79991234567";

fn main() {
    let mut criterion = Criterion::default()
        .measurement_time(Duration::from_secs(3))
        .configure_from_args();
    rules(&mut criterion);
    limits(&mut criterion);
    recipients(&mut criterion);
    codes(&mut criterion);
    keys(&mut criterion);
    memory(&mut criterion);
    criterion.final_summary();
}

/// Inputs of a request besides a record.
struct World {
    policy: PurposePolicy,
    caller: CallerName,
    recipient: Recipient,
    purpose: Purpose,
    variables: BTreeMap<String, String>,
    random: SystemRandom,
}

impl World {
    fn new() -> Self {
        Self {
            policy: PurposePolicy::default(),
            caller: CallerName::new("crm"),
            recipient: Recipient::from_canonical(RECIPIENT.to_owned()),
            purpose: Purpose::default(),
            variables: BTreeMap::new(),
            random: os_rng(),
        }
    }

    /// Returns a limit by client address, in the state of a used one.
    fn limit(&self, name: RateLimitKind) -> RateLimitState {
        RateLimitState {
            name,
            rate: self
                .policy
                .rate(name)
                .expect("the default policy has limits by client address"),
            full_at: Some(NOW.saturating_add(Duration::from_mins(1))),
            paid: false,
        }
    }

    /// Sends a code, and returns the record and the code.
    fn send(&mut self) -> (Record, OtpCode) {
        let request = SendRequest {
            identity: identity(1),
            caller: self.caller.clone(),
            recipient: self.recipient.clone(),
            purpose: self.purpose.clone(),
            channel: Channel::Sms,
            test: None,
            barred: None,
            message: Some(MessageRequest {
                id: MessageId([7; 16]),
                lease: Some(Duration::from_secs(15)),
                locale: "en".to_owned(),
                variables: self.variables.clone(),
                client_ip: Some(client_ip()),
            }),
            keeps_channels: false,
        };
        let limits = [self.limit(RateLimitKind::IpSendsPerHour)];
        let decision = send(None, &limits, &request, &self.policy, NOW, &mut self.random);
        let sent = decision.outcome.expect("the first send is allowed");
        let record = decision.record.expect("a send is written");
        (record, sent.code.expect("a first send returns the code"))
    }

    /// Verifies `typed`, two seconds after the send.
    fn verify(&self, record: Record, typed: &SubmittedCode) -> Record {
        let request = VerifyRequest {
            identity: identity(2),
            code: typed.clone(),
            challenge: ChallengeSelector::Newest,
            receipt: false,
        };
        let limits = [self.limit(RateLimitKind::IpFailuresPerHour)];
        let now = NOW.saturating_add(Duration::from_secs(2));
        let decision = verify(Some(record), &limits, &request, &self.policy, now);
        assert!(decision.outcome.is_ok(), "the code is live");
        decision.record.expect("an attempt is written")
    }
}

fn identity(request: u8) -> RequestFingerprint {
    RequestFingerprint {
        id: [request; 16],
        fields: [3; 16],
        writer: u64::MAX / u64::from(request),
        named: true,
    }
}

fn client_ip() -> IpAddr {
    IpAddr::from([203, 0, 113, 7])
}

fn typed(digits: &str) -> SubmittedCode {
    SubmittedCode::parse(digits).expect("digits can be typed")
}

fn rules(criterion: &mut Criterion) {
    let mut world = World::new();
    criterion.bench_function("send a first code", |bencher| bencher.iter(|| world.send()));
    let (record, code) = world.send();
    let right = typed(code.expose());
    let wrong = typed(if code.expose() == "000000" {
        "000001"
    } else {
        "000000"
    });
    for (name, typed) in [("verify, right", &right), ("verify, wrong", &wrong)] {
        criterion.bench_function(name, |bencher| {
            bencher.iter_batched(
                || record.clone(),
                |record| world.verify(record, typed),
                BatchSize::SmallInput,
            );
        });
    }
}

fn limits(criterion: &mut Criterion) {
    let rate = Quota::new(60, Duration::from_hours(1)).expect("60 is not off");
    let mut group = criterion.benchmark_group("consume a cell of a limit");
    for (name, ahead) in [("available", 1), ("exhausted", 60)] {
        let full_at = Some(NOW.saturating_add(Duration::from_mins(ahead)));
        group.bench_function(name, |bencher| {
            bencher.iter(|| rate.consume(black_box(full_at), NOW));
        });
    }
    group.finish();
}

/// All forms of the corpus that are valid in one of the regions.
fn recipients(criterion: &mut Criterion) {
    let forms: Vec<(Region, &str)> = PHONES.lines().filter_map(valid_form).collect();
    let count = u64::try_from(forms.len()).expect("a length in memory fits 64 bits");
    let mut group = criterion.benchmark_group("parse recipients");
    group.throughput(Throughput::Elements(count));
    group.bench_function("phone numbers of 20 regions", |bencher| {
        bencher.iter(|| {
            for (region, written) in &forms {
                Recipient::parse(black_box(written), Some(*region)).expect("the form is valid");
            }
        });
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function("an e-mail address", |bencher| {
        bencher.iter(|| Recipient::parse(black_box("Someone.Else@Example.COM"), None));
    });
    group.finish();
}

fn valid_form(line: &str) -> Option<(Region, &str)> {
    let mut fields = line.split('\t');
    let (region, written, expected) = (fields.next()?, fields.next()?, fields.next()?);
    let read = REGIONS.contains(&region) && expected.starts_with('+');
    Some((region.parse().ok().filter(|_| read)?, written))
}

fn codes(criterion: &mut Criterion) {
    let mut random = os_rng();
    criterion.bench_function("generate a code", |bencher| {
        bencher.iter(|| OtpCode::generate(6, &mut random));
    });
    criterion.bench_function("parse a submitted code", |bencher| {
        bencher.iter(|| SubmittedCode::parse(black_box("123 456")));
    });
}

fn keys(criterion: &mut Criterion) {
    let mut random = os_rng();
    let ring = KeyRing::parse(&KeyRing::generate(&mut random)).expect("a new key ring is valid");
    let mut world = World::new();
    let (record, code) = world.send();
    criterion.bench_function("key of a record", |bencher| {
        bencher
            .iter(|| ring.record_key(&world.caller, black_box(&world.recipient), &world.purpose));
    });
    let key = ring.record_key(&world.caller, &world.recipient, &world.purpose);
    let nonce = record.challenge.nonce;
    let secret = ChallengeSecret {
        code,
        recipient: world.recipient.clone(),
        is_test: false,
        channels: ChannelSet::EMPTY,
    };
    criterion.bench_function("seal a secret", |bencher| {
        bencher.iter(|| ring.seal(&key, &nonce, &secret, &mut random));
    });
    let sealed = record
        .map_secret(|secret| ChallengeState::Live(ring.seal(&key, &nonce, &secret, &mut random)));
    criterion.bench_function("open a record", |bencher| {
        bencher.iter_batched(
            || sealed.clone(),
            |record| ring.open_record(&key, record),
            BatchSize::SmallInput,
        );
    });
    contents(criterion, &ring, &world, key, &secret);
}

fn contents(
    criterion: &mut Criterion,
    ring: &KeyRing,
    world: &World,
    key: RecordKey,
    secret: &ChallengeSecret,
) {
    let mut random = os_rng();
    let message = OutboxMessage {
        id: MessageId([7; 16]),
        challenge: ChallengeNonce([5; 16]),
        channel: Channel::Sms,
        predecessors: 0,
        state: MessageState::Sending(MessagePayload {
            recipient: secret.recipient.clone(),
            code: secret.code.clone(),
            locale: "en".to_owned(),
            variables: BTreeMap::new(),
            client_ip: Some(client_ip()),
        }),
        provider: String::new(),
        history: AttemptLog::default(),
        created_at: NOW,
        updated_at: NOW,
        expires_at: NOW,
        due_at: Some(NOW),
    };
    criterion.bench_function("seal a content", |bencher| {
        bencher.iter_batched(
            || message.clone(),
            |message| ring.seal_message(&key, message, &mut random),
            BatchSize::SmallInput,
        );
    });
    let sealed = ring.seal_message(&key, message, &mut random);
    criterion.bench_function("open a message", |bencher| {
        bencher.iter_batched(
            || sealed.clone(),
            |message| ring.open_message(&key, &world.caller, &world.purpose, message),
            BatchSize::SmallInput,
        );
    });
}

/// Look-ups of request ids in a record with as many as its own limits allow within the
/// retention, and in a full one.
fn memory(criterion: &mut Criterion) {
    let policy = PurposePolicy::default();
    let outcome = RecordedOutcome::Verified {
        challenge: ChallengeNonce([5; 16]),
        at: NOW,
    };
    let mut group = criterion.benchmark_group("request ids");
    for remembered in [2_u8, 25, 255] {
        let memory = (0..remembered).fold(IdempotencyLog::default(), |memory, request| {
            memory.record(&identity(request.saturating_add(1)), outcome, &policy, NOW)
        });
        let unknown = RequestFingerprint {
            id: [0; 16],
            ..identity(1)
        };
        group.bench_function(format!("look up one of {remembered}"), |bencher| {
            bencher.iter(|| memory.lookup(black_box(&unknown), NOW));
        });
        group.bench_function(format!("record one after {remembered}"), |bencher| {
            bencher.iter_batched(
                || memory.clone(),
                |memory| memory.record(&unknown, outcome, &policy, NOW),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}
