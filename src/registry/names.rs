//! Looking up the addresses of hosts by name, off the threads that serve everyone.
//!
//! The system's resolver cannot be told to stop: it keeps its thread until it gives up, which takes longer than a
//! connection may. Names come from pods, and from where registries redirect to. So look-ups have threads of their
//! own: one for a name at a time, whoever waits for it, and at most [`THREADS`].
//!
//! Where none is left nobody is asked, at once ([`Busy`]). That is our lack and no silence of a registry: no
//! reason to let anything pass (rule D4).

use std::collections::HashMap;
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
        Self::of(|name| (name, 0).to_socket_addrs().map(Iterator::collect), THREADS)
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
