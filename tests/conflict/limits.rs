//! Targets with limits of their own.

use testdata::Sample;

use crate::copy::{import, stream_of, summary};
use crate::support::spicedb::{Datastore, Server};

#[test]
fn target_with_small_pages_is_compared_all_the_same() {
    let target = Server::builder(Datastore::Memory)
        .flag("--max-bulk-export-relationships-limit=100")
        .start();
    // Few enough for a page to be asked for by its size.
    let stream = stream_of(Sample::rich(3_000));
    import(&target).input(stream.clone()).run().expect_success();
    for policy in ["skip", "touch", "fail"] {
        let again = import(&target)
            .args(["--on-conflict", policy])
            .input(stream.clone())
            .run()
            .expect_success();
        assert_eq!(summary(&again)["present"], 3_000, "{policy}");
    }
}
