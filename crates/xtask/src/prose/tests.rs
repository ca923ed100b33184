use super::words::Words;
use super::{Finding, help, markdown};

const STYLE: &str = "\
# Style

```words
whole   -> complete
goes on -> resumes
, too.  -> also
```

Everything else is prose: more -> less
";

fn words() -> Words {
    Words::parse(STYLE).expect("a list of words")
}

fn in_markdown(text: &str) -> Vec<Finding> {
    markdown::check(text, &words())
}

/// The numbers of the lines that are found.
fn lines(found: &[Finding]) -> Vec<usize> {
    found.iter().map(|finding| finding.line).collect()
}

/// A line of words with exactly so many columns.
fn line(columns: usize) -> String {
    "ab "
        .repeat(columns)
        .chars()
        .take(columns - 1)
        .collect::<String>()
        + "x"
}

#[test]
fn line_of_80_columns_passes_and_of_81_fails() {
    assert_eq!(in_markdown(&line(80)), []);
    assert_eq!(
        in_markdown(&line(81)),
        [Finding::new(1, "81 columns, at most 80")]
    );
}

#[test]
fn columns_are_characters_not_bytes() {
    assert_eq!(in_markdown(&"→ ".repeat(40)), []);
    assert_eq!(lines(&in_markdown(&"→ ".repeat(41))), [1]);
}

#[test]
fn tables_and_code_may_be_wide() {
    let wide = line(120);
    assert_eq!(in_markdown(&format!("| {wide} |")), []);
    assert_eq!(
        in_markdown(&format!("text\n\n    {wide}\n    {wide}\n")),
        []
    );
    assert_eq!(in_markdown(&format!("```sh\n{wide}\n```\ntext")), []);
    assert_eq!(
        in_markdown(&format!("- item\n  ~~~\n  {wide}\n  ~~~\n")),
        []
    );
}

#[test]
fn text_after_code_is_text_again() {
    let wide = line(120);
    let fenced = format!("```\n{wide}\n```\n{wide}\n");
    assert_eq!(lines(&in_markdown(&fenced)), [4]);
    let indented = format!("    {wide}\n\n{wide}\n");
    assert_eq!(lines(&in_markdown(&indented)), [3]);
}

#[test]
fn indented_line_of_a_paragraph_is_no_code() {
    let wide = line(90);
    assert_eq!(lines(&in_markdown(&format!("- item\n    {wide}\n"))), [2]);
}

#[test]
fn headings_and_items_may_not_be_wide() {
    let wide = line(90);
    for mark in ["#", "-", "*", "1."] {
        assert_eq!(
            lines(&in_markdown(&format!("{mark} {wide}"))),
            [1],
            "{mark}"
        );
    }
}

#[test]
fn line_with_only_a_link_may_be_wide() {
    let address = format!("https://example.com/{}", "x".repeat(90));
    for only in [
        address.clone(),
        format!("- {address}"),
        format!("[a few words]({address})."),
        format!("[name]: {address}"),
    ] {
        assert_eq!(in_markdown(&only), [], "{only}");
    }
    for more in [
        format!("see {address}"),
        format!("[words]({address}) and more"),
        format!("[a] {} [b](c)", line(80)),
    ] {
        assert_eq!(lines(&in_markdown(&more)), [1], "{more}");
    }
}

#[test]
fn refused_word_is_named_with_its_line_and_replacement() {
    assert_eq!(
        in_markdown("Fine.\n\nThe Whole stream\n"),
        [Finding::new(3, "\"whole\": write complete")]
    );
}

#[test]
fn only_entire_words_are_refused() {
    assert_eq!(
        in_markdown("wholesale, unwhole, whole-hearted, whole_2"),
        []
    );
    for text in ["whole", "(whole)", "a whole.", "*whole*", "# Whole"] {
        assert_eq!(lines(&in_markdown(text)), [1], "{text}");
    }
}

#[test]
fn phrase_is_found_across_a_line_break() {
    let found = in_markdown("one\nit goes\non behind the fence\n");
    assert_eq!(found, [Finding::new(2, "\"goes on\": write resumes")]);
}

#[test]
fn phrase_does_not_reach_into_another_block() {
    assert_eq!(in_markdown("it goes\n\non the disk\n"), []);
    assert_eq!(in_markdown("it goes\n- on the disk\n"), []);
    assert_eq!(in_markdown("| it goes |\n| on the disk |\n"), []);
}

#[test]
fn punctuation_belongs_to_a_phrase() {
    assert_eq!(lines(&in_markdown("This is refused, too.")), [1]);
    assert_eq!(in_markdown("A page, too large, is split."), []);
}

#[test]
fn words_in_code_and_in_link_targets_are_not_prose() {
    for text in [
        "the field `whole` and ``a ` whole``",
        "[text](whole.md)",
        "`a span over\na whole break`",
        "    whole",
        "```\nwhole\n```",
    ] {
        assert_eq!(in_markdown(text), [], "{text}");
    }
    for text in [
        "`code` whole `code`",
        "[whole](a.md)",
        "a ` whole",
        "a] whole",
    ] {
        assert_eq!(lines(&in_markdown(text)), [1], "{text}");
    }
}

#[test]
fn words_in_tables_are_prose() {
    assert_eq!(lines(&in_markdown("| a |\n|---|\n| whole |\n")), [3]);
}

#[test]
fn several_words_of_a_page_come_in_order() {
    let found = in_markdown("whole\n\nit goes on, whole\n");
    assert_eq!(lines(&found), [1, 3, 3]);
}

#[test]
fn example_of_76_columns_passes_and_of_77_fails() {
    let page = |example: &str| format!("Examples:\n{example}\n\nDo it\n\n{}\n", line(100));
    assert_eq!(help::check(&page(&line(76)), &words()), []);
    assert_eq!(
        help::check(&page(&line(77)), &words()),
        [Finding::new(2, "77 columns, at most 76")]
    );
}

#[test]
fn refused_words_are_found_in_help_but_not_in_flags() {
    let page =
        "Examples:\n  do it   # is it whole?\n\nUsage\n\n  --whole\n      It goes\n      on\n";
    assert_eq!(lines(&help::check(page, &words())), [2, 7]);
}

#[test]
fn style_without_a_list_is_an_error() {
    for style in ["", "```words\n```\n", "```\nwhole -> all\n```\n"] {
        assert!(Words::parse(style).is_err(), "{style:?}");
    }
}

#[test]
fn line_of_the_list_without_a_replacement_is_an_error() {
    for line in ["whole", "-> complete"] {
        assert!(
            Words::parse(&format!("```words\n{line}\n```\n")).is_err(),
            "{line}"
        );
    }
}
