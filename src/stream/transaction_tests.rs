//! A worker that follows the answers commits each input once, whatever the calls say.

use proptest::prelude::*;

use super::*;

const TIMEOUT: Duration = Duration::from_secs(10);

fn ended() -> impl Strategy<Value = Result<(), ErrorKind>> {
    prop_oneof![
        4 => Just(Ok(())),
        1 => Just(Err(ErrorKind::Retriable)),
        1 => Just(Err(ErrorKind::TimedOut)),
        1 => Just(Err(ErrorKind::Abortable)),
        1 => Just(Err(ErrorKind::Fatal)),
        1 => Just(Err(ErrorKind::Fenced)),
        1 => Just(Err(ErrorKind::Authorization)),
        1 => Just(Err(ErrorKind::QueueFull)),
    ]
}

/// What the broker really has, beside what the worker believes.
#[derive(Debug, Default)]
struct Truth {
    /// Inputs whose answers lie in the open transaction.
    pending: u64,
    /// Inputs whose answers are committed.
    committed: u64,
    /// Where reading goes on.
    position: u64,
}

proptest! {
    /// A worker that follows the answers commits each input once, whatever the calls say and
    /// whatever came of them, and never uses a producer again whose outcome is unknown.
    #[test]
    fn every_input_is_committed_once(
        script in prop::collection::vec((ended(), any::<bool>(), 0_u64..20), 1..200)
    ) {
        let mut now = Instant::now();
        let mut transaction = Transaction::default();
        let mut truth = Truth::default();
        let mut script = script.into_iter();
        'cycles: loop {
            for call in [Call::Begin, Call::SendOffsets, Call::Commit] {
                if call == Call::SendOffsets {
                    truth.pending = 10;
                    truth.position += 10;
                }
                let start = now;
                loop {
                    let Some((ended, took_effect, seconds)) = script.next() else { break 'cycles };
                    now += Duration::from_secs(seconds);
                    // Whether a commit that did not answer took effect, nobody is told.
                    let unknown = matches!(ended, Err(ErrorKind::TimedOut | ErrorKind::Fenced));
                    if call == Call::Commit && (ended.is_ok() || unknown && took_effect) {
                        truth.committed += std::mem::take(&mut truth.pending);
                    }
                    match transaction.after(call, ended, now - start, TIMEOUT, now) {
                        Next::GoOn => {
                            prop_assert!(ended.is_ok());
                            break;
                        }
                        Next::Again => {
                            prop_assert!(!unknown && now - start < TIMEOUT);
                        }
                        Next::Abort => {
                            prop_assert_eq!(ended, Err(ErrorKind::Abortable));
                            // Only what was not committed is thrown away.
                            let aborted = transaction.after(
                                Call::Abort, Ok(()), Duration::ZERO, TIMEOUT, now);
                            prop_assert_eq!(aborted, Next::GoOn);
                            prop_assert!(!transaction.is_open());
                            truth.pending = 0;
                            truth.position = truth.committed;
                            continue 'cycles;
                        }
                        Next::Rebuild { .. } => {
                            // The next producer ends what is open; committed offsets are read.
                            prop_assert!(!transaction.is_open());
                            transaction = Transaction::default();
                            truth.pending = 0;
                            truth.position = truth.committed;
                            continue 'cycles;
                        }
                    }
                }
            }
            prop_assert!(!transaction.is_open());
            prop_assert_eq!(truth.committed, truth.position);
        }
    }

    /// No error is answered by going on, and an abort that fails is never followed by another.
    #[test]
    fn errors_never_go_on(error in ended(), call in 0..5_usize, spent in 0_u64..20) {
        let calls = [Call::Init, Call::Begin, Call::SendOffsets, Call::Commit, Call::Abort];
        let now = Instant::now();
        let mut transaction = Transaction::default();
        transaction.after(Call::Begin, Ok(()), Duration::ZERO, TIMEOUT, now);
        let spent = Duration::from_secs(spent);
        let next = transaction.after(calls[call], error, spent, TIMEOUT, now);
        prop_assert_eq!(next == Next::GoOn, error.is_ok());
        if calls[call] == Call::Abort {
            prop_assert_ne!(next, Next::Abort);
        }
        // Starting may take for ever; everything else ends.
        if calls[call] != Call::Init && spent >= TIMEOUT {
            prop_assert_ne!(next, Next::Again);
        }
    }
}

#[test]
fn an_expired_transaction_is_no_fencing_by_another() {
    let now = Instant::now();
    let open = |age: Duration| {
        let mut transaction = Transaction::default();
        transaction.after(Call::Begin, Ok(()), Duration::ZERO, TIMEOUT, now);
        let ended = Err(ErrorKind::Fenced);
        transaction.after(Call::Commit, ended, Duration::ZERO, TIMEOUT, now + age)
    };
    let second = Duration::from_secs(1);
    assert_eq!(open(second), Next::Rebuild { fenced: true });
    assert_eq!(open(TIMEOUT), Next::Rebuild { fenced: false });
}

#[test]
fn a_failed_delivery_aborts_unless_the_producer_is_lost() {
    let now = Instant::now();
    for (error, next) in [
        (ErrorKind::TimedOut, Next::Abort),
        (ErrorKind::TooLarge, Next::Abort),
        (ErrorKind::MissingTopic, Next::Abort),
        (ErrorKind::Fatal, Next::Rebuild { fenced: false }),
        (ErrorKind::Fenced, Next::Rebuild { fenced: true }),
    ] {
        let mut transaction = Transaction::default();
        assert_eq!(transaction.after_delivery(error, TIMEOUT, now), next);
    }
}

#[test]
fn a_delivery_that_times_out_again_costs_the_producer() {
    let now = Instant::now();
    let mut transaction = Transaction::default();
    let call = |transaction: &mut Transaction, call| {
        transaction.after(call, Ok(()), Duration::ZERO, TIMEOUT, now);
    };
    let times_out = |transaction: &mut Transaction| {
        call(transaction, Call::Begin);
        let next = transaction.after_delivery(ErrorKind::Retriable, TIMEOUT, now);
        if next == Next::Abort {
            call(transaction, Call::Abort);
        }
        next
    };
    assert_eq!(times_out(&mut transaction), Next::Abort);
    transaction.after(Call::Begin, Ok(()), Duration::ZERO, TIMEOUT, now);
    transaction.after(Call::Commit, Ok(()), Duration::ZERO, TIMEOUT, now);
    assert_eq!(
        times_out(&mut transaction),
        Next::Abort,
        "one was committed"
    );
    assert_eq!(times_out(&mut transaction), Next::Rebuild { fenced: false });
    assert!(!transaction.is_open());
}

#[test]
fn three_take_overs_within_a_minute_are_too_many() {
    let start = Instant::now();
    let at = |seconds: u64| start + Duration::from_secs(seconds);
    let count = |times: &[u64]| {
        let mut fencings = Fencings::default();
        times.iter().filter(|t| fencings.too_many(at(**t))).count()
    };
    assert_eq!(count(&[0, 1, 2, 3]), 0, "one take-over");
    assert_eq!(count(&[0, 10, 20]), 1);
    assert_eq!(count(&[0, 40, 80, 120]), 0, "slow");
}
