//! What is promised and what tries to break it; and what was broken.

pub const STATEFUL: &[&str] = &[
    "every_answer_on_postgres_is_the_models",
    "every_answer_on_sqlite_is_the_models",
];
pub const HISTORY: &str = "some_order_of_calls_explains_every_answer";

/// What is promised, and the tests that try to break it besides the safety net; `true`
/// where that also covers it by model, by history.
pub const PROMISES: &[(&str, bool, bool, &[&str])] = &[
    (
        "All state is in the shared store: any number of replicas behave as one",
        true,
        true,
        &["a_thousand_codes_sent_on_one_replica_are_verified_on_another"],
    ),
    (
        "A code comes from the system's random source, every value equally likely",
        false,
        false,
        &[
            "a_million_codes_are_unbiased",
            "words_that_would_favour_low_codes_are_drawn_again",
        ],
    ),
    (
        "It works once: of simultaneous right answers exactly one verifies",
        true,
        true,
        &["of_many_right_answers_one_verifies"],
    ),
    (
        "Exactly `max_attempts` answers are judged per code, and the right one as the last is accepted",
        true,
        true,
        &[
            "of_many_wrong_answers_five_are_judged",
            "the_right_code_is_accepted_as_the_fifth_answer",
        ],
    ),
    (
        "A resend repeats the code, and extends neither its life nor its attempts",
        true,
        true,
        &[
            "codes_live_and_die_by_the_rules_on_postgres",
            "codes_live_and_die_by_the_rules_on_sqlite",
        ],
    ),
    (
        "Sending again too soon is refused with the exact wait",
        true,
        true,
        &["the_cool_down_ends_and_a_code_is_replaced_to_the_millisecond"],
    ),
    (
        "Wrong answers count across codes: each further wait is twice as long, and in the end the record is shut",
        true,
        true,
        &[
            "every_fifth_wrong_answer_delays_the_next_twice_as_long",
            "from_the_hundredth_on_the_record_is_shut_for_thirty_days",
        ],
    ),
    (
        "A limit is never exceeded, over all replicas, and a refused request leaves none poorer",
        true,
        true,
        &[
            "a_limit_is_never_exceeded_and_its_waits_are_exact",
            "waits_limits_and_memory_hold_together",
        ],
    ),
    (
        "The same request gets its first answer again; the same id with other fields is refused",
        true,
        true,
        &["the_same_request_is_recalled_for_as_long_as_promised"],
    ),
    (
        "A writer that lost its acknowledgement recognises its own write",
        false,
        true,
        &[],
    ),
    (
        "No decision uses a replica's wall clock",
        true,
        true,
        &["the_wall_clock_of_one_process_is_moved"],
    ),
    (
        "After a step back of the store's clock a code is dead, and waits last at most their own length",
        true,
        false,
        &["after_a_step_back_of_the_clock_the_wait_is_told_once_by_any_request"],
    ),
    (
        "Sweeping changes no answer",
        true,
        true,
        &[
            "only_what_no_answer_depends_on_is_swept_on_postgres",
            "only_what_no_answer_depends_on_is_swept_on_sqlite",
        ],
    ),
    (
        "A recipient is one however it is written, and so is a code",
        true,
        false,
        &[
            "every_form_of_the_corpus_is_read_right",
            "every_decimal_digit_of_unicode_is_read",
        ],
    ),
    (
        "A code for one purpose, or of one caller, is unknown to every other",
        true,
        false,
        &[
            "purposes_have_codes_and_policies_of_their_own_on_postgres",
            "record_keys_differ_in_each_field_and_by_the_key",
        ],
    ),
    (
        "The sealing key rotates without a code being lost",
        true,
        false,
        &["the_first_sealing_key_seals_and_all_of_them_open"],
    ),
    (
        "A send that was acknowledged has a message, and it is handed over unless its code dies first",
        false,
        true,
        &["what_was_acknowledged_is_sent_whatever_is_killed"],
    ),
    (
        "No message goes out of a code that is known to be dead",
        false,
        true,
        &["what_carries_a_dead_code_is_dropped_and_not_tried_again"],
    ),
    (
        "A stolen database or log shows no code and no recipient",
        false,
        false,
        &[
            "a_dump_and_a_text_log_show_no_code_and_no_recipient",
            "an_sqlite_file_and_a_json_log_show_no_code_and_no_recipient",
        ],
    ),
    (
        "A database that fails is told at once, and used again when it is back",
        false,
        true,
        &[
            "a_database_that_hangs_is_told_and_found_again",
            "after_a_restart_no_request_needs_more_than_one_retry",
            "no_end_of_the_server_loses_what_was_acknowledged",
            "a_database_that_takes_no_writes_counts_as_absent_whatever_its_reason",
            "a_promoted_standby_takes_over_and_nothing_acknowledged_is_lost",
        ],
    ),
    (
        "What runs at SIGTERM is finished, and nothing holds up the end",
        true,
        false,
        &[
            "what_runs_at_sigterm_is_finished",
            "a_probe_that_hangs_does_not_hold_up_the_end",
        ],
    ),
];

/// Faults of otpd that the net found, and what holds them off now.
pub const CAUGHT: &[(&str, &str, &str)] = &[
    (
        "A replica hung at SIGTERM, for ever, where a sweep or a probe was running: its connection was never given back, and closing the store waited for it.",
        "the model's sequences, at a rotation of keys under frequent sweeps",
        "a_probe_that_hangs_does_not_hold_up_the_end",
    ),
    (
        "A request that paid a shared limit, lost its race and was then refused gave back more than was still taken, so that others could exceed the limit.",
        "the histories, by their count of sends per client network, when time passed during a call",
        "what_was_refilled_meanwhile_is_not_given_back_as_well",
    ),
    (
        "A write that was tried to see whether the database takes any again could leave a transaction open, on a connection that requests then used: what they wrote was acknowledged and lost. (It was found before a release had it.)",
        "the histories with faults of the database, by a send that was acknowledged and had no message",
        "no_fault_of_the_database_costs_an_answer_or_a_code",
    ),
];
