//! Who gets the result of a flight, and what becomes of it as waiters come and leave.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt as _;
use tokio::sync::{Barrier, Notify, Semaphore};

use super::*;

fn who(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

#[tokio::test]
async fn f1_fifty_waiters_share_one_allowing_run() {
    let flights = Arc::new(Flights::<u8, bool>::new());
    let runs = Arc::new(AtomicUsize::new(0));
    let gate = Arc::new(Barrier::new(51));
    let tasks: Vec<_> = (0..50)
        .map(|n| {
            let (flights, runs, gate) = (flights.clone(), runs.clone(), gate.clone());
            tokio::spawn(async move {
                let work = || {
                    let (runs, gate) = (runs.clone(), gate.clone());
                    async move {
                        runs.fetch_add(1, Ordering::SeqCst);
                        gate.wait().await;
                        true
                    }
                };
                let join = flights.join(1, who(&format!("user {n}")), |_| Sharing::Everybody, work);
                let waited = async {
                    gate.wait().await;
                    std::future::pending::<()>().await;
                };
                tokio::select! { value = join => value, () = waited => None }
            })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), Some(true));
    }
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn f1_pitfall_28_a_denial_is_not_shared_with_other_credentials() {
    let flights = Flights::<u8, &'static str>::new();
    let started = Arc::new(Notify::new());
    let go = Arc::new(Notify::new());
    let first = flights.join(
        1,
        who("a"),
        |_| Sharing::SameCredentials,
        || {
            let (started, go) = (started.clone(), go.clone());
            async move {
                started.notify_one();
                go.notified().await;
                "denied a"
            }
        },
    );
    let second = async {
        started.notified().await;
        let other = flights.join(1, who("b"), |_| Sharing::SameCredentials, || async { "allowed b" });
        go.notify_one();
        other.await
    };
    assert_eq!(tokio::join!(first, second), (Some("denied a"), Some("allowed b")));
}

#[tokio::test]
async fn pitfall_21_a_panic_is_no_result() {
    let flights = Flights::<u8, bool>::new();
    let value = flights.join(1, who("a"), |_| Sharing::Everybody, || async { panic!("broken") }).await;
    assert_eq!(value, None);
}

#[tokio::test]
async fn e5_the_last_waiter_to_leave_ends_the_work() {
    struct OnDrop(Arc<Notify>);
    impl Drop for OnDrop {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }
    let flights = Flights::<u8, bool>::new();
    let (started, ended) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let join = flights.join(
        1,
        who("a"),
        |_| Sharing::Everybody,
        || {
            let (started, guard) = (started.clone(), OnDrop(ended.clone()));
            async move {
                let _guard = guard;
                started.notify_one();
                std::future::pending::<bool>().await
            }
        },
    );
    tokio::select! { _ = join => unreachable!("never ends"), () = started.notified() => {} }
    ended.notified().await;
}

/// Work that ends when it is let.
#[derive(Clone)]
struct Work {
    runs: Arc<AtomicUsize>,
    go: Arc<Semaphore>,
}

impl Work {
    fn new() -> Self {
        Self { runs: Arc::default(), go: Arc::new(Semaphore::new(0)) }
    }

    fn run(&self, result: &'static str) -> impl Future<Output = &'static str> + Send + use<> {
        let Self { runs, go } = self.clone();
        async move {
            runs.fetch_add(1, Ordering::SeqCst);
            drop(go.acquire().await);
            result
        }
    }

    fn runs(&self) -> usize {
        self.runs.load(Ordering::SeqCst)
    }

    fn let_go(&self) {
        self.go.add_permits(1);
    }
}

fn everybody(_: &&'static str) -> Sharing {
    Sharing::Everybody
}

fn same_credentials(_: &&'static str) -> Sharing {
    Sharing::SameCredentials
}

fn waiters(flights: &Flights<u8, &'static str>) -> Option<usize> {
    flights.slots.lock().unwrap().get(&1).map(|slot| slot.waiters)
}

#[tokio::test]
async fn f1_whoever_began_a_flight_may_leave_while_others_wait() {
    let (flights, work) = (Flights::new(), &Work::new());
    let join = |name| Box::pin(flights.join(1, who(name), everybody, || work.run("allowed")));
    let (mut first, mut second) = (join("a"), join("b"));
    assert_eq!((first.as_mut().now_or_never(), second.as_mut().now_or_never()), (None, None));
    tokio::task::yield_now().await;
    assert_eq!((work.runs(), waiters(&flights)), (1, Some(2)));
    drop(first);
    work.let_go();
    assert_eq!(second.await, Some("allowed"));
    assert_eq!((work.runs(), waiters(&flights)), (1, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn f1_waiters_that_leave_under_load_cost_the_others_nothing() {
    const WAITERS: usize = 200;
    let (flights, work) = (Arc::new(Flights::new()), Work::new());
    let tasks: Vec<_> = (0..WAITERS)
        .map(|n| {
            let (flights, work) = (flights.clone(), work.clone());
            tokio::spawn(async move {
                flights.join(1, who(&format!("user {n}")), everybody, || work.run("allowed")).await
            })
        })
        .collect();
    while waiters(&flights) != Some(WAITERS) {
        tokio::task::yield_now().await;
    }
    // Whoever began it is among those who leave: of each two only one stays.
    let (leave, stay): (Vec<_>, Vec<_>) = tasks.into_iter().enumerate().partition(|(n, _)| n % 2 == 0);
    for (_, task) in leave {
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
    }
    assert_eq!(waiters(&flights), Some(WAITERS / 2));
    work.let_go();
    for (_, task) in stay {
        assert_eq!(task.await.unwrap(), Some("allowed"));
    }
    assert_eq!((work.runs(), waiters(&flights)), (1, None));
}

#[tokio::test]
async fn f1_after_the_last_waiter_left_the_next_begins_anew() {
    let (flights, work) = (Flights::new(), &Work::new());
    let join = |result| Box::pin(flights.join(1, who("a"), everybody, move || work.run(result)));
    let mut cancelled = join("of the cancelled");
    assert_eq!(cancelled.as_mut().now_or_never(), None);
    drop(cancelled);
    assert_eq!(waiters(&flights), None);
    let mut next = join("of the next");
    assert_eq!(next.as_mut().now_or_never(), None);
    work.let_go();
    assert_eq!(next.await, Some("of the next"));
}

#[tokio::test]
async fn f1_who_leaves_a_finished_flight_late_does_not_end_the_next_one() {
    let (flights, work) = (Flights::new(), &Work::new());
    let join = |result| Box::pin(flights.join(1, who("a"), everybody, move || work.run(result)));
    let mut late = join("first");
    assert_eq!(late.as_mut().now_or_never(), None);
    work.let_go();
    // It ends, and its waiter does not look yet.
    let mut result = flights.slots.lock().unwrap()[&1].result.clone();
    assert_eq!(*result.wait_for(Option::is_some).await.unwrap(), Some("first"));
    work.go.forget_permits(1);
    let mut next = join("second");
    assert_eq!(next.as_mut().now_or_never(), None);
    drop(late);
    assert_eq!(waiters(&flights), Some(1));
    work.let_go();
    assert_eq!(next.await, Some("second"));
}

#[tokio::test]
async fn f1_pitfall_28_each_credential_gets_its_own_denial() {
    let (flights, work) = (Flights::new(), &Work::new());
    let join =
        |name, result| Box::pin(flights.join(1, who(name), same_credentials, move || work.run(result)));
    let mut joined = [join("a", "of a"), join("b", "of b"), join("c", "of c"), join("a", "of a again")];
    for join in &mut joined {
        assert_eq!(join.as_mut().now_or_never(), None);
    }
    work.let_go();
    let [a, b, c, again] = joined;
    assert_eq!(tokio::join!(a, b, c, again), (Some("of a"), Some("of b"), Some("of c"), Some("of a")));
    assert_eq!((work.runs(), waiters(&flights)), (3, None));
}

#[tokio::test]
async fn pitfall_21_a_panic_is_the_fault_of_equal_credentials_alone() {
    let (flights, work) = (Flights::new(), &Work::new());
    let join = |name, result: Option<&'static str>| {
        Box::pin(flights.join(1, who(name), everybody, move || {
            let work = work.run(result.unwrap_or_default());
            async move {
                let done = work.await;
                assert!(result.is_some(), "broken");
                done
            }
        }))
    };
    let mut joined = [join("a", None), join("b", Some("of b")), join("a", Some("never run"))];
    for join in &mut joined {
        assert_eq!(join.as_mut().now_or_never(), None);
    }
    work.let_go();
    let [first, other, same] = joined;
    assert_eq!(tokio::join!(first, other, same), (None, Some("of b"), None));
    assert_eq!(waiters(&flights), None);
}

#[tokio::test]
async fn f1_a_late_seat_is_not_one_of_a_later_flight() {
    let flights = Flights::<u8, bool>::new();
    let never = || std::future::pending::<bool>();
    // The flight before has ended, another took its place and went too.
    let late = flights.board(&1, who("a"), &|| async { true });
    late.result.clone().wait_for(Option::is_some).await.unwrap();
    drop(flights.board(&1, who("a"), &never));
    let seat = flights.board(&1, who("a"), &never);
    drop(late);
    tokio::task::yield_now().await;
    assert!(seat.result.has_changed().is_ok(), "its work goes on");
}
