//! Connect, namespace, get by name and fetch cost one round trip together.

use std::time::Duration;

use stubborn::{Client, Limits};

use crate::support::network::{Network, Weather};
use crate::support::run;
use crate::support::server::{self, PLAIN, TYPED};

#[test]
fn a_first_fetch_takes_one_round_trip_from_an_open_connection() {
    run(async {
        let (_server, address) = server::start(2, Limits::default()).await;
        let each_way = Duration::from_millis(50);
        let network = Network::to(&address, Weather::Far(each_way)).await;
        for (namespace, name) in
            [(PLAIN, "a"), (PLAIN, "b"), (TYPED, "a"), (TYPED, "b"), (TYPED, "c")]
        {
            let client = Client::connect(network.address()).await.unwrap();
            let begun = tokio::time::Instant::now();
            let stub = client.namespace(namespace).get_by_name(name);
            stub.fetch("http://do/whoami").await.unwrap();
            let trips = begun.elapsed().as_secs_f64() / (2.0 * each_way.as_secs_f64());
            assert!((1.0..1.5).contains(&trips), "{namespace} {name}: {trips:.2} round trips");
        }
    });
}
