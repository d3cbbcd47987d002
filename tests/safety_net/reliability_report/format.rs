//! The parts of the page that no run writes.

pub const HEAD: &str = "\
# What is promised, and what tries to break it

<!-- Written by UPDATE_DOCS=1 cargo test --test safety_net reliability_report, from the promises in
tests/safety_net/reliability_report/promises.rs and the figures in tests/safety_net/reliability_report/results,
which scripts/safety-net --long and scripts/long-run keep. -->

Two things stand behind most promises of otpd, and both know the rules from a **model**
(`tests/safety_net/model`), written apart from the code that serves, from the design
alone, and half as long:

- **The model's sequences**: server and model are driven by the same random commands
  (sends, right, wrong and late answers, cancellations, statuses, repeated requests,
  several callers, purposes, replicas and client networks, moves of the clock forward and
  back, rotation of the sealing key), on PostgreSQL and on SQLite, with a clock that
  stands still until it is moved. Every reply is compared, to the millisecond. A
  difference is shortened to its shortest sequence and kept in
  `tests/safety_net/regressions`.
- **The histories**: callers of three replicas write down what they asked, when, and what
  they were told, while replicas are killed and paused, PostgreSQL crashes, connections on
  both sides of a replica are cut, slow, held back and half-open, and wall clocks jump. A
  checker then looks for an order of the calls that explains every answer under the
  model (linearizability; a call without an answer may have happened or not). Beside it
  stand counts that need no search: one verification per code, no more wrong verdicts
  than allowed, no limit exceeded, a message for each send that was acknowledged.
  Each message must be handed over, by whichever replica is left, unless its code dies
  first, and none of a dead code may be; triggers in the database write down how messages
  end and when codes die.
  A second kind of history is recorded while PostgreSQL is killed twenty times, and
  between its deaths is restarted and read-only, fails or holds up every write, gives
  transactions up, and ends sessions and statements; there the lines of the logs are
  counted, too (`scripts/long-run database 20` runs it alone).

A short form of both is part of the gate. The long form is one command, which takes the
seed of a run to be repeated from `SAFETY_NET_SEED`, and writes this page:

<!-- not run: takes an hour; the step tests runs the short form -->
```sh
scripts/safety-net --long
```

## The promises

Each beside the tests that would fail if it were not kept, and the figures of the last long
run where there is one. The gate runs every test, and the net in short.
";

pub const PROMISES_HEAD: &str = "\
| promise | what tries to break it | last long run |
|---|---|---|
";

/// The runs of the net itself, by the names of what they keep.
pub const RUNS_OF_THE_NET: [&str; 4] = [
    "stateful_postgres",
    "stateful_sqlite",
    "history",
    "database",
];

pub const RUNS: &str = "
## The last long run

| | model, PostgreSQL | model, SQLite | histories | histories, faults of the database |
|---|--:|--:|--:|--:|
";

/// Other tests that run for long on demand, with the names of what they keep.
pub const LONG_RUNS: [(&str, &str); 3] = [
    (
        "\
### Replicas killed under load

`scripts/long-run kills` kills a replica with SIGKILL at random moments, between a provider's
answer and the note of it as well, while callers send and cancel through it and its neighbour.
A gateway counts what reaches it.",
        "kills",
    ),
    (
        "\
### A backlog

`scripts/long-run backlog` queues messages while every provider is down, and lets the providers
come back. Memory, order and what a new message has to wait for are bounded.",
        "backlog",
    ),
    (
        "\
### A flood

`scripts/long-run flood` offers four times what the store takes, over a slow network to it, with
a quiet caller and health checks beside the flood.",
        "flood",
    ),
];

pub const PLANTED: &str = "
## The net is checked as well

A net that finds nothing may have holes. So bugs are seeded: each is a patch in
`tests/safety_net/seeded_bugs`, applied to a copy of the source, and the short form must find
it. `scripts/seeded-bugs` does that for all of them, or for those that it is given.

| seeded bug | found by | after |
|---|---|--:|
";

pub const MUTANTS: &str = "
## The rules' own tests are checked as well

`scripts/mutants` makes every small change that cargo-mutants knows to the rules
(`crates/otpd-rules`) and to the engine (`src/engine`), one at a time: a comparison turned
round, a branch gone, a function that returns at once. The unit tests of the part alone must
notice. What none can notice is explained below; anything else that goes unnoticed fails the
run.

";

pub const CAUGHT_HEAD: &str = "
## What the net caught

Faults that were in otpd, found by the net, and mended; each has a test of its own now.

| fault | found by | held off by |
|---|---|---|
";

pub const TAIL: &str = "
## What it does not show

- A crash of PostgreSQL is one of its processes, not of the machine: that a commit is on
  the disk is PostgreSQL's own promise, and the test's database lies in memory.
- Histories run on PostgreSQL. On SQLite replicas share one file and one machine; there
  the model's sequences run, and the races in the gate.
- A limit that several recipients share may refuse a request that an instant later would
  have passed: one that takes its share and is then refused gives it back. The checker
  bears with such refusals, and counts that enough calls came before.
- A call that was never answered may have happened or not. The checker tries both, and so
  holds less against such a call than against others.
- A message may go out twice: if a replica dies or loses the database during an attempt, or
  the provider's answer is lost, it is sent again, up to the bound on copies.
- What is judged of messages ends at the provider, which in the histories is the log.
- That a comparison takes the same time whatever is compared is not measured: codes and
  tokens are compared by the crate `subtle`, which is made for that.
- Nothing here was run on several machines, on Kubernetes or for days.
";
