//! Endless sequences of frames.

use super::{
    beside_good_callers,
    frames::{
        CONTINUATION, Client, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, End, HEADERS,
        NO_ERROR, PING, PROTOCOL_ERROR, REFUSED_STREAM, RESET, SETTINGS, WINDOW_UPDATE, call,
        frame, header,
    },
};

/// The streams that a client opens: odd numbers.
fn streams() -> impl Iterator<Item = u32> + Send {
    (0..1 << 29).map(|number| 2 * number + 1)
}

/// Sends the flood during calls of other callers, and returns the frames received by its client.
async fn flood(
    settings: &[(&str, &str)],
    parts: impl Iterator<Item = Vec<u8>> + Send + 'static,
) -> End {
    beside_good_callers(settings, async |replica| {
        let client = Client::connect(replica.address()).await;
        client.flood(parts).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn rapid_reset_closes_connection() {
    // CVE-2023-44487, "rapid reset".
    let parts = streams().map(|stream| {
        let open = frame(HEADERS, END_HEADERS, stream, &call());
        [open, frame(RESET, 0, stream, &8_u32.to_be_bytes())].concat()
    });
    let end = flood(&[], parts).await;
    assert_eq!(end.goaway, Some(ENHANCE_YOUR_CALM), "{end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn made_you_reset_closes_connection() {
    // CVE-2025-8671, "made you reset": the server takes them back itself.
    let too_much = (u32::MAX >> 1).to_be_bytes();
    let parts = streams().map(move |stream| {
        let open = frame(HEADERS, END_HEADERS | END_STREAM, stream, &call());
        [open, frame(WINDOW_UPDATE, 0, stream, &too_much)].concat()
    });
    let end = flood(&[], parts).await;
    assert_eq!(end.goaway, Some(ENHANCE_YOUR_CALM), "{end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_continuation_frames_close_connection() {
    // CVE-2024-27316 and its kin.
    let first = frame(HEADERS, 0, 1, &call());
    let more = header("x-padding", &"x".repeat(1_000));
    let rest = std::iter::repeat(frame(CONTINUATION, 0, 1, &more));
    let end = flood(&[], std::iter::once(first).chain(rest)).await;
    assert_eq!(end.goaway, Some(ENHANCE_YOUR_CALM), "{end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_data_frames_close_connection() {
    let open = frame(HEADERS, END_HEADERS, 1, &call());
    let rest = std::iter::repeat(frame(DATA, 0, 1, &[]).repeat(100));
    let end = flood(&[], std::iter::once(open).chain(rest)).await;
    assert_eq!(end.goaway, Some(ENHANCE_YOUR_CALM), "{end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn excess_concurrent_streams_are_rejected() {
    const OPENED: usize = 1_000;
    for (settings, most) in [
        ([].as_slice(), 100),
        (&[("OTPD_CONNECTIONS__MAX_STREAMS", "5")], 5),
    ] {
        let end = beside_good_callers(settings, async |replica| {
            let mut client = Client::connect(replica.address()).await;
            let open = |stream| frame(HEADERS, END_HEADERS, stream, &call());
            let all: Vec<u8> = streams().take(OPENED).flat_map(open).collect();
            assert!(client.write(&all).await);
            let enough = OPENED - most;
            let is_enough = |end: &End| {
                end.resets
                    .get(&REFUSED_STREAM)
                    .is_some_and(|count| *count >= enough)
            };
            let mut end = client.read_until(is_enough).await;
            // No further one follows.
            assert!(client.write(&frame(PING, 0, 0, &[7; 8])).await);
            let rest = client.read_until(|end| end.acknowledged > 0).await;
            for (code, count) in rest.resets {
                *end.resets.entry(code).or_default() += count;
            }
            end
        })
        .await;
        assert_eq!(end.resets[&REFUSED_STREAM], OPENED - most, "{end:?}");
        assert_eq!(end.goaway, None, "{end:?}");
    }
    // A client that ignores it is not read from endlessly.
    let parts = streams().map(|stream| frame(HEADERS, END_HEADERS, stream, &call()));
    let end = flood(&[], parts).await;
    assert_eq!(end.goaway, Some(ENHANCE_YOUR_CALM), "{end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn oversized_metadata_is_rejected() {
    for (count, refused) in [(15, false), (17, true), (40, true)] {
        let end = beside_good_callers(&[], async |replica| {
            let mut client = Client::connect(replica.address()).await;
            let more = header("x-padding", &"x".repeat(980)).repeat(count);
            let all = [call(), more].concat();
            let (first, rest) = all.split_at(all.len().min(16_000));
            let sent = [
                frame(HEADERS, END_STREAM, 1, first),
                frame(CONTINUATION, 0, 1, &rest[..rest.len().min(16_000)]),
                frame(
                    CONTINUATION,
                    END_HEADERS,
                    1,
                    rest.get(16_000..).unwrap_or_default(),
                ),
                // Another call on the same connection is none the worse for it.
                frame(HEADERS, END_HEADERS | END_STREAM, 3, &call()),
            ];
            assert!(client.write(&sent.concat()).await);
            client.read_until(|end| end.answers == 2).await
        })
        .await;
        let good = if refused { 1 } else { 2 };
        assert_eq!(end.good_answers, good, "{count} KB: {end:?}");
        assert_eq!(end.goaway, None, "{end:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ping_and_settings_frames_are_acknowledged_one_by_one() {
    // Enough to reach the limits on both sides: the client reads its replies, or the server stops
    // reading.
    const SENT: usize = 20_000;
    for part in [frame(PING, 0, 0, &[7; 8]), frame(SETTINGS, 0, 0, &[])] {
        let end = beside_good_callers(&[], async |replica| {
            let mut client = Client::connect(replica.address()).await;
            for _ in 0..SENT / 100 {
                assert!(client.write(&part.repeat(100)).await);
                client.read_until(|end| end.acknowledged >= 100).await;
            }
            client.read_until(|end| end.acknowledged >= 1).await
        })
        .await;
        assert_eq!(end.goaway, None, "{end:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn non_reading_client_is_disconnected() {
    let settings = [
        ("OTPD_CONNECTIONS__KEEPALIVE_INTERVAL", "200ms"),
        ("OTPD_CONNECTIONS__KEEPALIVE_TIMEOUT", "2s"),
    ];
    let cut_off = beside_good_callers(&settings, async |replica| {
        let mut client = Client::connect(replica.address()).await;
        let pings = frame(PING, 0, 0, &[7; 8]).repeat(1_000);
        // Both sides' buffers fill up, and then this waits until the connection ends.
        while client.write(&pings).await {}
        true
    })
    .await;
    assert!(cut_off);
}

#[tokio::test(flavor = "multi_thread")]
async fn protocol_errors_close_connection() {
    for part in [
        // The server's own kind of stream, a message on none, half of a header block.
        frame(HEADERS, END_HEADERS, 2, &call()),
        frame(DATA, 0, 0, b"x"),
        [frame(HEADERS, 0, 1, &call()), frame(PING, 0, 0, &[7; 8])].concat(),
    ] {
        let end = flood(&[], std::iter::once(part.clone())).await;
        assert_eq!(end.goaway, Some(PROTOCOL_ERROR), "{end:?} of {part:x?}");
    }
    // One that asks for the end gets it.
    let bye = frame(7, 0, 0, &[0; 8]);
    let end = flood(&[], std::iter::once(bye)).await;
    assert!(matches!(end.goaway, None | Some(NO_ERROR)), "{end:?}");
}
