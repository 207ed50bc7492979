//! A start with many stored objects, after kill -9.

use futures::future::join_all;

use crate::number;
use crate::process::{Disk, Folder, Process};
use crate::support::keeper::KEEPER;
use crate::support::{self, Random};

/// Stores many objects, kills the server, and starts it again.
pub(crate) fn start() {
    let objects = number("STUBBORN_OBJECTS", 2_000);
    support::run(async {
        let folder = Folder::new("many");
        let mut server = Process::start(&folder, Disk::Honest, 0);
        let client = server.connect().await;
        let say = async |client: &stubborn::Client, n: u64, path: String| {
            let stub = client.namespace(KEEPER).get_by_name(&format!("many-{n}"));
            let answer = stub.fetch(format!("http://do/{path}")).await.unwrap();
            answer.into_body().text().await.unwrap()
        };
        for first in (0..objects).step_by(500) {
            let batch = first..(first + 500).min(objects);
            join_all(batch.map(|n| say(&client, n, format!("put.k.{n}")))).await;
        }
        server.kill();
        let server = Process::start(&folder, Disk::Honest, 0);
        println!("    start with {objects} objects after kill -9: {:?}", server.took);
        let client = server.connect().await;
        let mut random = Random::seeded(objects);
        for _ in 0..200 {
            let n = random.below(objects);
            assert_eq!(say(&client, n, "get.k".to_owned()).await, n.to_string());
        }
    });
}
