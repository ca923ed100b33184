//! Memory that does not grow with what is moved.

use std::fs::File;
use std::io::BufWriter;

use spice_record::{ExpiryPrecision, SnapshotWriter};
use testdata::Sample;

use super::PATIENCE;
use crate::copy::{export, import, summary};
use crate::support::running::Finished;
use crate::support::spicedb::{Datastore, Server};
use crate::support::{folder, repeat};

const LIMIT_KIB: u64 = 40 << 10;

#[test]
fn memory_of_export_and_import_stays_below_40_mib() {
    let folder = folder();
    let path = folder.path().join("stream.ndjson");
    for relationships in [100_000, repeat(300_000, 2_000_000)] {
        let sample = Sample::rich(relationships.into());
        let file = BufWriter::new(File::create(&path).unwrap());
        let precision = ExpiryPrecision::default();
        let mut stream = SnapshotWriter::create(file, sample.header(), precision).unwrap();
        for relationship in sample.iter() {
            stream.write(&relationship).unwrap();
        }
        drop(stream.finish().unwrap().1.into_inner().unwrap());
        let server = Server::start(Datastore::Postgres);
        let imported = import(&server).arg(&path).timeout(PATIENCE * 2).run();
        let imported = imported.expect_success();
        assert_eq!(summary(&imported)["loaded"], relationships);
        assert_small(&imported, relationships);
        // To the same file: the oracle of this is the digest in the trailer.
        let exported = export(&server)
            .output_file(&path)
            .timeout(PATIENCE * 2)
            .run()
            .expect_success();
        assert_small(&exported, relationships);
        let digest = summary(&imported)["digest"].clone();
        assert!(exported.stderr.contains(digest.as_str().unwrap()));
    }
}

#[track_caller]
fn assert_small(finished: &Finished, relationships: u32) {
    let Finished { name, peak_kib, .. } = finished;
    assert!(
        *peak_kib > 0 && *peak_kib <= LIMIT_KIB,
        "{name} of {relationships}: {peak_kib} KiB"
    );
}
