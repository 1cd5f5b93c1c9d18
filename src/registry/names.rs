//! Looking up the addresses of hosts by name, off the threads that serve everyone.
//!
//! The system's resolver cannot be told to stop: it keeps its thread until it gives up, which takes longer than a
//! connection may. Names come from pods, and from where registries redirect to. So look-ups have threads of their
//! own: one for a name at a time, whoever waits for it, and at most [`THREADS`].
//!
//! Where none is left nobody is asked, at once ([`Busy`]). That is our lack and no silence of a registry: no
//! reason to let anything pass (rule D4).

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::Shared;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::{Semaphore, oneshot};

/// Looks names up. Shared by all clients.
#[derive(Clone)]
pub(super) struct Names {
    look_up: fn(&str) -> io::Result<Vec<SocketAddr>>,
    threads: Arc<Semaphore>,
    flights: Arc<Mutex<HashMap<String, Flight>>>,
}

/// One look-up, for all who wait for it.
type Flight = Shared<oneshot::Receiver<Result<Vec<SocketAddr>, Arc<io::Error>>>>;

/// No thread is left to look a name up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many names are looked up")]
pub(super) struct Busy;

impl Names {
    /// By the system's resolver.
    pub(super) fn of_system() -> Self {
        Self::of(by_system, THREADS)
    }

    fn of(look_up: fn(&str) -> io::Result<Vec<SocketAddr>>, threads: usize) -> Self {
        Self { look_up, threads: Arc::new(Semaphore::new(threads)), flights: Arc::default() }
    }

    fn flight(&self, name: &str) -> Result<Flight, Busy> {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(name) {
            return Ok(flight.clone());
        }
        let thread = Arc::clone(&self.threads).try_acquire_owned().map_err(|_| Busy)?;
        let (tell, told) = oneshot::channel();
        let (look_up, others, key) = (self.look_up, Arc::clone(&self.flights), name.to_owned());
        let work = move || {
            let found = look_up(&key).map_err(Arc::new);
            others.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
            drop(thread);
            // Nobody may wait any more.
            drop(tell.send(found));
        };
        let builder = std::thread::Builder::new().name("name".to_owned()).stack_size(STACK);
        builder.spawn(work).map_err(|_| Busy)?;
        let flight = told.shared();
        flights.insert(name.to_owned(), flight.clone());
        Ok(flight)
    }
}

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        let flight = self.flight(name.as_str());
        Box::pin(async move {
            let found = flight?.await.map_err(|_| Busy)??;
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// Where no descriptor is left, some modules of the resolver call a name unknown that they could not ask about:
/// that must not pass for the registry's (rule D4).
fn by_system(name: &str) -> io::Result<Vec<SocketAddr>> {
    let found = (name, 0).to_socket_addrs().map(Iterator::collect);
    found.map_err(|error| match (error.raw_os_error(), File::open("/dev/null")) {
        (None, Err(lack)) => lack,
        (None, Ok(_)) | (Some(_), _) => error,
    })
}

/// A kubelet that pulls five images a second, each of a name that nobody answers for half a minute, and more.
const THREADS: usize = 256;
/// The system's resolver needs some tens of KiB; its modules may need more.
const STACK: usize = 512 * 1024;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::outcome::{Contact, Fault, FaultReason};
    use crate::registry::cause::Cause;
    use crate::registry::http::Step;

    fn client(names: Names) -> reqwest::Client {
        reqwest::Client::builder().no_proxy().dns_resolver(names).build().unwrap()
    }

    #[tokio::test]
    async fn d4_a_name_that_nobody_had_time_to_look_up_is_our_lack_and_no_silence() {
        let ask = |names| async { client(names).get("http://registry.test/").send().await.unwrap_err() };
        let lack = ask(Names::of(|_| unreachable!("no thread is left"), 0)).await;
        assert_eq!(Cause::of(&lack), Cause::Lack);
        let unknown = ask(Names::of(|_| Err(io::Error::other("no such name")), 1)).await;
        assert_eq!(Cause::of(&unknown), Cause::Name);
        let no_descriptor = ask(Names::of(|_| Err(io::Error::from_raw_os_error(nix::libc::EMFILE)), 1)).await;
        assert_eq!(Cause::of(&no_descriptor), Cause::Lack);
        for (error, contact, words) in [
            (lack, Contact::Answered, "this machine lacks what a connection takes"),
            (unknown, Contact::None, "registry's name does not resolve"),
        ] {
            let step = Step::new("a test");
            step.set_asked();
            let message = format!("a test: {words}");
            let expected = Fault { contact, ..Fault::new(FaultReason::RegistryUnreachable, message) };
            assert_eq!(step.transport_fault(&error), expected);
        }
    }

    /// In a process of its own, which opens all that it may.
    #[test]
    fn d4_the_systems_resolver_says_what_it_lacks() {
        const ALONE: &str = "PULLGATE_TEST_WITHOUT_DESCRIPTORS";
        if std::env::var_os(ALONE).is_some() {
            let mut held: Vec<_> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
            let lack = |name| by_system(name).err().and_then(|error| error.raw_os_error());
            assert_eq!(["localhost", "registry.invalid"].map(lack), [Some(nix::libc::EMFILE); 2]);
            // With some left again it is found, or a lack still.
            let mut later = std::iter::repeat_with(|| {
                held.pop();
                by_system("localhost")
            });
            let told: Vec<_> = later.by_ref().take(8).collect();
            assert!(told.iter().all(|told| told.as_ref().map_or_else(
                |error| error.raw_os_error() == Some(nix::libc::EMFILE),
                |found| !found.is_empty()
            )));
            assert!(told.last().is_some_and(Result::is_ok), "{told:?}");
            println!("told");
            return;
        }
        let mut alone = std::process::Command::new("prlimit");
        alone.arg("--nofile=64:64").arg(std::env::current_exe().unwrap()).env(ALONE, "1");
        alone.args([
            "--exact",
            "--nocapture",
            "registry::names::tests::d4_the_systems_resolver_says_what_it_lacks",
        ]);
        let output = alone.output().unwrap();
        assert!(
            output.status.success() && output.stdout.windows(4).any(|part| part == b"told"),
            "{output:?}"
        );
    }

    #[tokio::test]
    async fn a_name_is_looked_up_once_for_all_who_wait_and_its_thread_is_given_back() {
        static LOOKED_UP: AtomicUsize = AtomicUsize::new(0);
        static HELD: Mutex<()> = Mutex::new(());
        let names = Names::of(
            |_| {
                LOOKED_UP.fetch_add(1, Ordering::SeqCst);
                drop(HELD.lock());
                Ok(vec![SocketAddr::from(([127, 0, 0, 1], 0))])
            },
            1,
        );
        let flights: Vec<_> = {
            let _held = HELD.lock().unwrap();
            let flights = (0..20).map(|_| names.flight("a.test").unwrap()).collect();
            assert_eq!(names.flight("b.test").err(), Some(Busy));
            flights
        };
        for found in futures_util::future::join_all(flights).await {
            assert_eq!(found.unwrap().unwrap(), [SocketAddr::from(([127, 0, 0, 1], 0))]);
        }
        assert_eq!(LOOKED_UP.load(Ordering::SeqCst), 1);
        names.flight("b.test").unwrap().await.unwrap().unwrap();
    }
}
