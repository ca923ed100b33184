use authzed::v1::CheckBulkPermissionsRequestItem;

use super::*;
use crate::record::StreamKind;

fn checks() -> Vec<Check> {
    let check = |number: i32| Check {
        request: Question(CheckBulkPermissionsRequestItem {
            resource: Some(authzed::v1::ObjectReference {
                object_type: "document".to_owned(),
                object_id: number.to_string(),
            }),
            permission: "view".to_owned(),
            subject: Some(authzed::v1::SubjectReference {
                object: Some(authzed::v1::ObjectReference {
                    object_type: "user".to_owned(),
                    object_id: "eve".to_owned(),
                }),
                optional_relation: String::new(),
            }),
            context: None,
        }),
        answer: Answer::Error(Fault {
            code: number,
            message: "no".to_owned(),
            reason: None,
        }),
        other_server: None,
        inconclusive: false,
    };
    (0..3).map(check).collect()
}

fn stream() -> String {
    let header = Header {
        revision: Some("r".to_owned()),
        ..Header::new(StreamKind::Checks, "test", "2026-01-01T00:00:00Z")
    };
    let mut writer = CheckWriter::create(Vec::new(), header).unwrap();
    for check in checks() {
        writer.write(check).unwrap();
    }
    String::from_utf8(writer.finish().unwrap()).unwrap()
}

fn read(text: &str) -> Result<Vec<Check>, ReadError> {
    let mut records = RecordReader::new(text.as_bytes(), "<test>");
    let Some(Record::Header(header)) = records.next_record()? else {
        panic!("no header");
    };
    let mut reader = CheckReader::after(records, header)?;
    let mut checks = Vec::new();
    while let Some(check) = reader.next_check()? {
        checks.push(check);
    }
    assert_eq!(reader.next_check()?, None, "it stays at its end");
    Ok(checks)
}

#[test]
fn a_complete_stream_is_read() {
    assert_eq!(read(&stream()).unwrap(), checks());
}

#[test]
fn an_incomplete_or_altered_stream_is_refused() {
    let complete = stream();
    let lines: Vec<&str> = complete.split_inclusive('\n').collect();
    let cases = [
        (lines[..4].concat(), "cut"),
        ([&lines[..2], &lines[3..]].concat().concat(), "promises 3"),
        ([&lines[..2], &lines[1..]].concat().concat(), "promises 3"),
        (
            [lines[0], lines[2], lines[1], lines[3], lines[4]].concat(),
            "digest",
        ),
        (complete.replacen("\"code\":2", "\"code\":5", 1), "digest"),
        (complete.replacen("\"r\"", "\"s\"", 1), "header altered"),
        (format!("{complete}{}", lines[1]), "after the trailer"),
        (
            complete.replacen("\"checks\":3", "\"checks\":3,\"updates\":3", 1),
            "not the trailer",
        ),
        (
            complete.replacen("\"checks\":3", "\"relationships\":3", 1),
            "not the trailer",
        ),
    ];
    for (text, what) in cases {
        assert_ne!(text, complete, "{what}");
        let error = read(&text).unwrap_err().to_string();
        assert!(error.contains(what), "{error}: {text}");
    }
}
