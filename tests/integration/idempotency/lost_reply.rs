//! Lost replies, replicas and acknowledgements.

use std::{future::Future, time::Duration};

use otpd::grpc::v1::VerifyOutcome;
use sqlx::Connection as _;
use tonic::{Status, transport::Endpoint};

use super::{
    Client, attempts_remaining, cancel, cancel_request, messages, send, send_request, verify,
    verify_request,
};
use crate::support::{Database, Proxy, Replica, Typed, reason};

/// Messages that are not final.
const UNSENT: &str = "SELECT count(*) FROM otp_message WHERE due_at IS NOT NULL";

/// Starts a replica that reaches the database through `proxy` by one connection, which has written
/// before, by each statement that a call may write with: the first write by a statement is preceded
/// by its preparation, which would be delayed or lost instead.
async fn start_behind(proxy: &Proxy, database: &Database, more: &[(&str, &str)]) -> Replica {
    let one = [
        ("OTPD_STORE__MAX_CONNECTIONS", "1"),
        ("OTPD_STORE__TIMEOUT", "10m"),
    ];
    let environment = [&one, more].concat();
    let replica = Replica::launch(proxy.url(), database, &environment).await;
    replica.wait_for_line("Store available").await;
    let mut request = send_request("");
    request.recipient = format!("earlier-{}@example.com", replica.address().port());
    let mut cancelled = cancel_request("");
    cancelled.recipient.clone_from(&request.recipient);
    send(replica.client(), request).await;
    assert!(cancel(replica.client(), cancelled).await);
    replica
}

/// Replica whose replies can be lost, and whose next call is made over a network that fails before
/// the reply.
struct Doomed {
    replica: Replica,
    proxy: Proxy,
}

impl Doomed {
    async fn start(database: &Database) -> Self {
        let replica = Replica::start(database).await;
        let proxy = Proxy::before(replica.address());
        Self { replica, proxy }
    }

    /// Makes a call whose reply is lost, after the log has `step`, and kills the replica; returns
    /// its log.
    async fn lose<T, F>(
        self,
        database: &Database,
        step: &str,
        call: impl FnOnce(Client) -> F,
    ) -> String
    where
        T: Send + std::fmt::Debug + 'static,
        F: Future<Output = Result<T, Status>> + Send + 'static,
    {
        let lock = database.lock_writes().await;
        let channel = Endpoint::from_shared(self.proxy.url().to_owned())
            .expect("a URL")
            .connect_lazy();
        let call = tokio::spawn(call(Client::new(channel)));
        // The request has arrived; the reply will not.
        database.held_up_writer().await;
        self.proxy.hang();
        lock.close().await.expect("the lock is given up");
        self.replica.wait_for_line(step).await;
        self.replica.signal("KILL");
        let (_, log) = self.replica.end().await;
        self.proxy.cut();
        let lost = call.await.expect("it ends");
        lost.expect_err("the reply was lost");
        log
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_after_lost_reply_is_replayed_by_any_replica() {
    let database = Database::postgres().await;
    let other = Replica::start(&database).await;

    let doomed = Doomed::start(&database).await;
    let message = "[OTP] Generated OTP: ";
    let log = doomed
        .lose(&database, message, |mut client| async move {
            client.send_otp(send_request("send")).await
        })
        .await;
    let sent = send(other.client(), send_request("send")).await;
    assert!(!sent.resent);
    let (_, code) = log.split_once(message).expect("it was waited for");
    let code = code[..6].to_owned();
    assert!(log.contains(&format!("challenge_id={} ", sent.challenge_id)));

    let doomed = Doomed::start(&database).await;
    // After a restart, too.
    assert_eq!(
        send(doomed.replica.client(), send_request("send")).await,
        sent
    );
    let wrong = Typed::Mistyped.text(&code);
    let request = verify_request(&wrong, "wrong");
    let second = doomed
        .lose(&database, "wrong code", |mut client| async move {
            client.verify_otp(request).await
        })
        .await;
    let verdict = verify(other.client(), verify_request(&wrong, "wrong")).await;
    assert_eq!(
        (verdict.outcome(), verdict.attempts_remaining),
        (VerifyOutcome::WrongCode, 4)
    );
    assert_eq!(attempts_remaining(other.client()).await, 4);

    let doomed = Doomed::start(&database).await;
    assert_eq!(
        verify(doomed.replica.client(), verify_request(&wrong, "wrong")).await,
        verdict
    );
    let request = verify_request(&code, "right");
    let third = doomed
        .lose(
            &database,
            "OTP verified successfully",
            |mut client| async move { client.verify_otp(request).await },
        )
        .await;
    let last = Replica::start(&database).await;
    let verified = verify(other.client(), verify_request(&code, "right")).await;
    assert!(verified.verified);
    assert_eq!(
        verify(last.client(), verify_request(&code, "right")).await,
        verified
    );
    let late = verify(other.client(), verify_request(&code, "late")).await;
    assert_eq!(late.outcome(), VerifyOutcome::NotFound);

    let logs = [log, second, third];
    assert_eq!(
        messages(&[&other, &last], &logs, &sent.challenge_id).await,
        1
    );

    // After a success a code may be sent at once.
    let anew = send(other.client(), send_request("anew")).await;
    let doomed = Doomed::start(&database).await;
    let fourth = doomed
        .lose(&database, "OTP cancelled", |mut client| async move {
            client.cancel_otp(cancel_request("cancel")).await
        })
        .await;
    assert!(cancel(other.client(), cancel_request("cancel")).await);
    assert!(cancel(last.client(), cancel_request("cancel")).await);
    assert!(!cancel(last.client(), cancel_request("late")).await);
    assert_eq!(
        messages(&[&last], &[other.log(), fourth], &anew.challenge_id).await,
        1
    );
}

/// Makes a call on a replica that is killed when the write is done and its
/// acknowledgement is on the way.
async fn kill_after_commit<T, F>(
    database: &Database,
    committed: &'static str,
    call: impl FnOnce(Client) -> F,
) -> String
where
    T: Send + std::fmt::Debug + 'static,
    F: Future<Output = Result<T, Status>> + Send + 'static,
{
    let proxy = Proxy::forwarding(database);
    let replica = start_behind(&proxy, database, &[]).await;
    let lock = database.lock_writes().await;
    let call = tokio::spawn(call(replica.client()));
    database.held_up_writer().await;
    proxy.hang();
    lock.close().await.expect("the lock is given up");
    database.wait_for_number(committed, 1).await;
    replica.signal("KILL");
    let (_, log) = replica.end().await;
    call.await.expect("it ends").expect_err("no reply arrives");
    log
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_after_crash_between_commit_and_reply_is_replayed() {
    let database = Database::postgres().await;
    let other = Replica::start(&database).await;
    let stored = "SELECT count(*) - 1 FROM otp_record";
    let sending = kill_after_commit(&database, stored, |mut client| async move {
        client.send_otp(send_request("send")).await
    });
    let log = sending.await;
    let sent = send(other.client(), send_request("send")).await;
    assert!(!sent.resent);
    assert_eq!(send(other.client(), send_request("send")).await, sent);
    let status = other.client().send_otp(send_request("another")).await;
    assert_eq!(
        reason(&status.expect_err("it is refused")),
        "RESEND_TOO_SOON"
    );
    // It died before it could send the message. Another replica does so once, after the lease has
    // ended.
    assert!(!log.contains(&sent.challenge_id), "{log}");
    database.advance_clock(Duration::from_secs(11)).await;
    other.code(&sent.challenge_id).await;
    database.wait_for_number(UNSENT, 0).await;
    database.advance_clock(Duration::from_mins(1)).await;
    assert_eq!(messages(&[&other], &[], &sent.challenge_id).await, 1);

    // The same with a verification of a known code.
    assert!(cancel(other.client(), cancel_request("")).await);
    database.advance_clock(Duration::from_mins(2)).await;
    let sent = send(other.client(), send_request("")).await;
    let code = other.code(&sent.challenge_id).await;
    let request = verify_request(&code, "right");
    let verified = "SELECT count(*) FROM otp_record WHERE state = 'spent'";
    kill_after_commit(&database, verified, |mut client| async move {
        client.verify_otp(request).await
    })
    .await;
    assert!(
        verify(other.client(), verify_request(&code, "right"))
            .await
            .verified
    );
    let late = verify(other.client(), verify_request(&code, "late")).await;
    assert_eq!(late.outcome(), VerifyOutcome::NotFound);
}

/// The acknowledgement of the write of a call is lost with its connection; the caller
/// gets an ordinary reply all the same.
async fn unacknowledged<T, F>(
    database: &Database,
    (replica, proxy): (&Replica, &Proxy),
    call: impl FnOnce(Client) -> F,
) -> T
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let lost = proxy.replies_lost();
    let lock = database.lock_writes().await;
    let call = tokio::spawn(call(replica.client()));
    proxy.lose_reply(database.held_up_writer().await);
    lock.close().await.expect("the lock is given up");
    let reply = call.await.expect("it is an ordinary reply");
    assert_eq!(proxy.replies_lost(), lost + 1);
    reply
}

#[tokio::test(flavor = "multi_thread")]
async fn writer_recognizes_its_write_after_lost_acknowledgement() {
    const CLIENT_IP: &str = "203.0.113.7";
    let database = Database::postgres().await;
    let proxy = Proxy::forwarding(&database);
    let limits = [
        ("OTPD_POLICY__IP_SENDS_PER_HOUR", "2"),
        ("OTPD_POLICY__IP_FAILURES_PER_HOUR", "2"),
    ];
    let replica = start_behind(&proxy, &database, &limits).await;
    let way = (&replica, &proxy);

    // No request has an id of the caller's.
    let mut request = send_request("");
    request.client_ip = CLIENT_IP.to_owned();
    let sent = unacknowledged(&database, way, |client| send(client, request.clone())).await;
    assert!(!sent.resent);
    let code = replica.code(&sent.challenge_id).await;
    let mut wrong = verify_request(&Typed::Mistyped.text(&code), "");
    wrong.client_ip = CLIENT_IP.to_owned();
    let verdict = unacknowledged(&database, way, |client| verify(client, wrong.clone())).await;
    assert_eq!(verdict.attempts_remaining, 4);
    assert_eq!(attempts_remaining(replica.client()).await, 4);
    // The limits were paid once: each leaves room for one more, and no more than that.
    assert_eq!(
        verify(replica.client(), wrong.clone())
            .await
            .attempts_remaining,
        3
    );
    let status = replica.client().verify_otp(wrong).await;
    assert_eq!(reason(&status.expect_err("it is refused")), "VERIFY_LIMIT");
    request.recipient = "+79991234568".to_owned();
    send(replica.client(), request.clone()).await;
    request.recipient = "+79991234569".to_owned();
    let status = replica.client().send_otp(request).await;
    assert_eq!(reason(&status.expect_err("it is refused")), "SEND_LIMIT");

    let right = verify_request(&code, "");
    let verified = unacknowledged(&database, way, |client| verify(client, right)).await;
    assert!(verified.verified);
    assert_eq!(messages(&[&replica], &[], &sent.challenge_id).await, 1);
    // The message is not left for another replica either.
    database.wait_for_number(UNSENT, 0).await;
    let other = Replica::start(&database).await;
    database.advance_clock(Duration::from_secs(61)).await;
    assert_eq!(
        messages(&[&replica, &other], &[], &sent.challenge_id).await,
        1
    );

    let anew = send(replica.client(), send_request("")).await;
    let cancelled = unacknowledged(&database, way, |client| cancel(client, cancel_request("")));
    assert!(cancelled.await);
    replica.code(&anew.challenge_id).await;
}
