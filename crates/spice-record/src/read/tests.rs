use super::{MAX_LINE_VALUES, RecordReader, check_line, values};

#[test]
fn values_inside_strings_do_not_count() {
    assert_eq!(values(br#"{"a":[1,2,{"b":"[,\"{"}]}"#), 5);
}

#[test]
fn a_line_of_many_values_is_refused_however_short_it_is() {
    let many = format!("{{\"transaction\":[{}]}}", "0,".repeat(MAX_LINE_VALUES + 1));
    assert!(check_line(many.as_bytes()).is_err());
    let text = format!(
        "{{\"transaction\":\"{}\"}}",
        "0,".repeat(MAX_LINE_VALUES + 1)
    );
    assert!(check_line(text.as_bytes()).is_ok());
}

#[test]
fn lines_are_bounded_by_their_kind_before_they_end() {
    for (start, mib) in [
        ("{\"relationship\":", 4),
        (" { \"update\":", 4),
        ("{\"header\":", 8),
    ] {
        // 20 MiB without an end.
        let input = format!("{start}\"{}", "x".repeat(20 << 20));
        let error = RecordReader::new(input.as_bytes(), "test")
            .next_record()
            .unwrap_err();
        assert!(
            error
                .to_string()
                .contains(&format!("longer than {mib} MiB")),
            "{error}"
        );
    }
}

#[test]
fn blank_lines_do_not_go_on_for_ever() {
    let input = "\n".repeat(2 << 20);
    let error = RecordReader::new(input.as_bytes(), "test")
        .next_record()
        .unwrap_err();
    assert!(error.to_string().contains("blank"), "{error}");
}

#[test]
fn arrays_are_no_objects() {
    for line in [
        r#"{"checkpoint":["a"]}"#,
        r#"{"trailer":[1]}"#,
        r#"{"update":["OPERATION_TOUCH",{}]}"#,
        r#"{"relationship":[["document","a"],"viewer",[["user","b"]]]}"#,
        r#"{"relationship":{"resource":["document","a"],"relation":"viewer","subject":{"object":{"objectType":"user","objectId":"b"}}}}"#,
        r#"{"transaction":{"revision":"a","updates":[["OPERATION_TOUCH",{}]]}}"#,
    ] {
        let input = format!("{line}\n");
        assert!(
            RecordReader::new(input.as_bytes(), "test")
                .next_record()
                .is_err(),
            "{line}"
        );
    }
}
