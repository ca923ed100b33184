//! Lists of relationships that no server has written: what makes a stream of them, and what is refused.

use super::*;

#[test]
fn lines_made_by_hand_become_a_stream() {
    let folder = Folder::new();
    let complete = String::from_utf8(sealed(milliseconds(50))).unwrap();
    let lines: Vec<&str> = complete.lines().collect();
    let inner = lines[1..lines.len() - 1].join("\n") + "\n";
    folder.file("lines", &inner);
    folder.file("schema", "definition user {}\n");
    folder.refused(
        "lines",
        "",
        Exit::BadData,
        "spice-convert --no-trailer seals it",
    );
    folder.converted("lines", "sealed", "--no-trailer");
    let (header, relationships) = stream(&folder.path("sealed"));
    assert_eq!(relationships.concat(), inner);
    assert_eq!((header.revision, header.schema), (None, None));
    let flags = format!(
        "--no-trailer --schema-file {}",
        folder.path("schema").display()
    );
    folder.converted("lines", "sealed", &flags);
    let schema = stream(&folder.path("sealed")).0.schema;
    assert_eq!(schema.as_deref(), Some("definition user {}\n"));
    // With its header, but filtered: no snapshot of that revision.
    folder.file("filtered", format!("{}\n{}\n", lines[0], lines[1]));
    folder.converted("filtered", "sealed", "--no-trailer");
    let (header, relationships) = stream(&folder.path("sealed"));
    assert_eq!(relationships.len(), 1);
    assert_eq!(header.revision, None);
    assert_eq!(header.schema.as_deref(), Some(testdata::SCHEMA));
}

#[test]
fn what_no_server_can_hold_is_refused_by_its_line() {
    let folder = Folder::new();
    let line = |subject: &str| {
        format!(
            "{{\"relationship\":{{\"resource\":{{\"objectType\":\"doc\",\"objectId\":\"1\"}},\"relation\":\"viewer\",\
             \"subject\":{{\"object\":{{\"objectType\":\"user\",\"objectId\":\"{subject}\"}}}}}}}}\n"
        )
    };
    for (id, named) in [
        ("a b", "subject id \"a b\""),
        ("", "subject id \"\""),
        ("a\\nb", "subject id"),
    ] {
        folder.file("list", line("ann") + &line(id));
        folder.refused("list", "--no-trailer", Exit::BadData, named);
        folder.refused("list", "--no-trailer", Exit::BadData, "list: line 2");
    }
    // As SpiceDB's own tables have it.
    let plain = line("ann");
    let dots = plain.replace("}}}\n", ",\"optionalRelation\":\"...\"}}}\n");
    folder.file("list", plain.clone() + &dots);
    folder.refused(
        "list",
        "--no-trailer",
        Exit::BadData,
        "line 2 repeats the relationship of line 1",
    );
    folder.file("dots", &dots);
    folder.file(
        "schema",
        "definition user {}\ndefinition doc {\n relation viewer: user\n}\n",
    );
    let schema = format!(
        "--no-trailer --to zedbackup --schema-file {}",
        folder.path("schema").display()
    );
    folder.converted("dots", "zed", &schema);
    folder.converted("zed", "back", "");
    assert_eq!(stream(&folder.path("back")).1.concat(), plain);
    let nameless = plain.replace("}}}\n", "},\"optionalCaveat\":{\"caveatName\":\"\"}}}\n");
    folder.file("list", nameless);
    folder.refused(
        "list",
        "--no-trailer",
        Exit::BadData,
        "a caveat without a name",
    );
}

#[test]
fn repeated_relationship_is_refused_with_both_places() {
    let folder = Folder::new();
    let text = "// ours\ndocument:a#viewer@user:b\n\ndocument:a#viewer@user:b[c]\n";
    folder.file("text", text);
    folder.file(
        "yaml",
        "relationships: |-\n  document:a#viewer@user:b\n  document:a#viewer@user:b#...\n",
    );
    let line = |id: &str| {
        format!(
            r#"{{"relationship":{{"resource":{{"objectType":"document","objectId":"{id}"}},"relation":"viewer","subject":{{"object":{{"objectType":"user","objectId":"b"}}}}}}}}"#
        ) + "\n"
    };
    folder.file("lines", [line("a"), line("b"), line("a")].concat());
    let places = "line 4 repeats the relationship of line 2";
    folder.refused("text", "", Exit::BadData, places);
    let places = "line 2 of its relationships repeats the relationship of line 1";
    folder.refused("yaml", "--to text", Exit::BadData, places);
    let places = "line 3 repeats the relationship of line 1";
    folder.refused("lines", "--no-trailer", Exit::BadData, places);
}
