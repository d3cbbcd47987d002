//! Fixed text of docs/reliability.md.

pub const HEAD: &str = "\
# Promises and their tests

<!-- Written by UPDATE_DOCS=1 cargo test --test safety_net reliability_report, from
tests/safety_net/reliability_report/promises.toml and the counts in
tests/safety_net/reliability_report/results, which scripts/safety-net --long and
scripts/long-run write. -->

Most promises of otpd are checked in two ways. Both use a **model** of the rules
(`crates/otpd-model`), which was written separately from the service, from the design
alone, and is half as long. The property tests of the rules use the same model,
and the Python fake replays calls with its replies (`tests/corpus/rules.json`):

- **The model's sequences**: server and model are driven by the same random commands
  (sends, correct, wrong and late codes, cancellations, statuses, repeated requests,
  several callers, purposes, replicas and client networks, clock jumps forward and
  back, rotation of the sealing key), on PostgreSQL and on SQLite, with a simulated clock.
  Every reply is compared, to the millisecond. A failing sequence is reduced to the
  shortest one and stored in `tests/safety_net/regressions`.
- **The histories**: callers of three replicas record their requests, replies and times,
  while replicas are killed and paused, PostgreSQL crashes, connections on both sides of a
  replica are cut, slow, stalled and half-open, and wall clocks jump. A checker then
  searches for an order of the calls that explains every reply under the model
  (linearizability; a call without a reply may have happened or not). Other invariants need
  no search: one verification per code, no more failed attempts than allowed, no limit
  exceeded, a message for each acknowledged send. One of the surviving replicas must hand
  over each message unless its code dies first, and no message of a dead code may be
  handed over; triggers in the database record the ends of messages and codes.
  A second kind of history is recorded while PostgreSQL is killed twenty times. Between the
  kills it is restarted and read-only, fails or delays every write, aborts transactions, and
  ends sessions and statements; this run also counts log lines
  (`scripts/long-run database 20` runs it alone).

A short form of both is part of the gate. The long form is one command, which writes this
page; `SAFETY_NET_SEED` repeats a run:

<!-- not run: takes an hour; the step tests runs the short form -->
```sh
scripts/safety-net --long
```

## The promises

Each promise is listed with the tests that fail if it is broken, and with the counts of the
last long run, if there is one. The gate runs every test, and the short form of the safety net.
Most tests of behaviour that depends on the store run on PostgreSQL and on SQLite.
";

pub const PROMISES_HEAD: &str = "\
| promise | tests | last long run |
|---|---|---|
";

/// Long runs of the safety net, by the names of their results.
pub const RUNS_OF_THE_NET: [&str; 4] = [
    "stateful_postgres",
    "stateful_sqlite",
    "history",
    "database",
];

pub const RUNS: &str = "
## The last long run

| | model, PostgreSQL | model, SQLite | histories | histories, database faults |
|---|--:|--:|--:|--:|
";

/// Other long runs on demand, with the names of their results.
pub const LONG_RUNS: [(&str, &str); 4] = [
    (
        "\
### Replicas killed under load

`scripts/long-run kills` kills a replica with SIGKILL at random moments, also between a provider's
reply and the record of it, while callers send and cancel through it and another replica.
A gateway counts the messages that it receives.",
        "kills",
    ),
    (
        "\
### A pooler in transaction mode

`scripts/long-run pooler` records histories while PgBouncer, in transaction mode, is between the
replicas and PostgreSQL. PostgreSQL is killed repeatedly, PgBouncer is restarted, and the database
fails in every other way in between.",
        "pooler",
    ),
    (
        "\
### A backlog

`scripts/long-run backlog` queues messages while every provider is down, and then lets the
providers recover. It checks the memory, the order, and the delay of a new message.",
        "backlog",
    ),
    (
        "\
### Overload

`scripts/long-run flood` offers four times the capacity of the store, over a slow network to it,
with a light caller and health checks at the same time.",
        "flood",
    ),
];

pub const SEEDED_BUGS: &str = "
## Seeded bugs

Seeded bugs test the safety net itself: each is a patch in `tests/safety_net/seeded_bugs`,
applied to a copy of the source. The short form must find it, or the races for one rate limit in
`tests/integration/limit_races.rs`. `scripts/seeded-bugs` runs all of them, or the named ones.

| seeded bug | found by | after |
|---|---|--:|
";

pub const MUTANTS: &str = "
## Mutation testing

`scripts/mutants` makes every small change that cargo-mutants knows to the rules
(`crates/otpd-rules`) and to the engine (`src/engine`), one at a time: a reversed
comparison, a removed branch, a function that returns at once. The unit tests of the part alone
must detect it. Equivalent mutants are explained below; any other undetected mutant fails the run.

";

pub const CAUGHT_HEAD: &str = "
## Faults found

Faults of otpd that the safety net found. Each is fixed and has a regression test.

| fault | found by | regression test |
|---|---|---|
";

pub const TAIL: &str = "
## Limits

- A crash of PostgreSQL is a crash of its processes, not of the machine: durability on the
  disk is PostgreSQL's own promise, and the test's database is in memory.
- Histories run on PostgreSQL. On SQLite replicas share one file and one machine; it is
  covered by the model's sequences and the races in the gate.
- A limit that several recipients share may refuse a request that would have passed an
  instant later, because a request that consumes the limit and is then refused refunds it.
  The checker accepts such refusals if enough calls came before.
- A call without a reply may have happened or not. The checker tries both, so such a call is
  checked less strictly than others.
- A message may go out twice: if a replica dies or loses the database during an attempt, or
  the provider's answer is lost, it is sent again, up to the bound on copies.
- Messages are checked up to the provider, which in the histories is the log.
- Constant-time comparison is not measured: codes and tokens are compared by the crate
  `subtle`, which is made for that.
- Nothing here was run on several machines, on Kubernetes or for days.
";
