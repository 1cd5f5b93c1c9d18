//! Cold `verify` of a registry that is further away: what counts there is how many requests wait for one
//! another. A relay adds the round trip to each request and its answer; it is the same for all.

use std::{
    fs,
    time::{Duration, Instant},
};

use crate::{
    kit::{
        self, Node, Space,
        front::{Behind, Front},
        image::Image,
        policy::Policy,
        proxy::{Action, Proxy},
        registry::Registry,
        sigstore::PrivateSigstore,
        tools,
    },
    node::program,
    report::{Row, Samples, time},
    verify::{Case, Contender, cases, offline},
};

/// Added round trips. The first and the last also give the number of steps.
pub(crate) const TRIPS: [Duration; 3] =
    [Duration::ZERO, Duration::from_millis(20), Duration::from_millis(80)];
const RUNS: usize = 7;

pub(crate) fn delay(node: &Node) -> Vec<Row> {
    // The form that each cosign writes by itself, in a registry that has a place for it.
    let (tags, referrers) = (Registry::docker(), Registry::olareg());
    let (to_tags, to_referrers) = (Road::to(&tags), Road::to(&referrers));
    let tagged = to_tags.name(&Space::on(&tags).image("app").push("1"));
    node.key.sign(&tagged);
    let bundled = to_referrers.name(&Space::on(&referrers).image("app").push("1"));
    node.key.sign_bundle(&bundled);

    let folder = kit::folder();
    let (policy, key) = (folder.join("policy.yaml"), folder.join("cosign.pub"));
    let document = Policy::new("keyed", "*").key(node.key).document();
    fs::write(&policy, format!("{document:#}\n")).expect("a policy");
    fs::write(&key, &node.key.public).expect("a key");
    let (policy, key) = (policy.display().to_string(), key.display().to_string());
    let ours = || {
        let mut command = offline(&program(), &folder);
        command.args(["verify", "-p", &policy]);
        Contender { name: "pullgate", command }
    };
    let cosign = |name, file, more: &[&str]| {
        let mut command = offline(&tools().join("bin").join(file), &folder);
        command.args(["verify", "--key", &key, "--insecure-ignore-tlog=true"]).args(more);
        Contender { name, command }
    };
    let mut rows = measure(
        "signature at its tag",
        &to_tags,
        &tagged,
        &[
            ours(),
            cosign("cosign 2", "cosign-2", &[]),
            cosign("cosign 3", "cosign-3", &["--new-bundle-format=false"]),
        ],
    );
    let bundles = [ours(), cosign("cosign 3", "cosign-3", &[])];
    rows.extend(measure("bundle among the referrers", &to_referrers, &bundled, &bundles));
    let Some(sigstore) = PrivateSigstore::available("delay") else {
        rows.push(Row::missing("the same of each kind", "the private Sigstore is not installed"));
        return rows;
    };
    for Case { kind, image, contenders } in cases(node, sigstore, &referrers, &to_referrers) {
        rows.extend(measure(&kind, &to_referrers, &image, &contenders));
    }
    rows
}

/// A row for each distance, and one of what does not depend on it.
fn measure(kind: &str, road: &Road, image: &Image, contenders: &[Contender]) -> Vec<Row> {
    let walls: Vec<Vec<Duration>> =
        TRIPS.iter().map(|trip| at_distance(*trip, road, image, contenders)).collect();
    let mut rows: Vec<Row> = TRIPS
        .iter()
        .zip(&walls)
        .map(|(trip, walls)| {
            let beside =
                contenders.iter().zip(walls).map(|(one, wall)| format!("{}: {}", one.name, time(*wall)));
            let figure = beside.collect::<Vec<_>>().join(", ");
            Row::plain(format!("cold `verify`, {kind}, {} ms further away", trip.as_millis()), figure)
        })
        .collect();
    let (nearest, furthest) = (&walls[0], &walls[TRIPS.len() - 1]);
    let figures = contenders.iter().enumerate().map(|(number, contender)| {
        let requests = road.requests(|| contender.succeed(&image.by_tag()));
        let added = furthest[number].saturating_sub(nearest[number]);
        let steps = added.as_secs_f64() / (TRIPS[TRIPS.len() - 1] - TRIPS[0]).as_secs_f64();
        format!("{}: {requests} in {steps:.1} steps", contender.name)
    });
    let figures = figures.collect::<Vec<_>>().join(", ");
    rows.push(Row::plain(
        format!("cold `verify`, {kind}, requests and steps (one after the other)"),
        figures,
    ));
    rows
}

/// The median time of each, in turn.
fn at_distance(trip: Duration, road: &Road, image: &Image, contenders: &[Contender]) -> Vec<Duration> {
    road.set_distance(trip);
    let mut walls: Vec<_> = contenders.iter().map(|_| Vec::new()).collect();
    for _ in 0..RUNS {
        for (contender, times) in contenders.iter().zip(&mut walls) {
            let start = Instant::now();
            contender.succeed(&image.by_tag());
            times.push(start.elapsed());
        }
    }
    walls.into_iter().map(|times| Samples::new(times).median()).collect()
}

/// The one address at which a registry is nearer, further away, or counted. Images are signed under it: a
/// signature says the name, and a payload that says another has to be fetched.
pub(crate) struct Road {
    front: Front,
    registry: String,
    proxy: Proxy,
}

impl Road {
    pub(crate) fn to(registry: &Registry) -> Self {
        let host = registry.host().to_owned();
        let front = Front::before(Behind::Host(host.clone()));
        Self { front, registry: host, proxy: Proxy::before(registry, |_| Action::Pass) }
    }

    /// An image of the registry under this address.
    pub(crate) fn name(&self, image: &Image) -> Image {
        let path = image.repository.split_once('/').expect("host/repository").1;
        image.at(format!("{}/{path}", self.front.host()))
    }

    /// From now on; the relay is there at any distance.
    pub(crate) fn set_distance(&self, trip: Duration) {
        self.front.put(Behind::Distant(self.registry.clone(), trip));
    }

    /// How many requests `work` sends; after that the registry is near.
    pub(crate) fn requests(&self, work: impl FnOnce()) -> usize {
        self.front.put(Behind::Host(self.proxy.host().to_owned()));
        let before = self.proxy.seen().len();
        work();
        let sent = self.proxy.seen().len() - before;
        self.set_distance(Duration::ZERO);
        sent
    }
}
