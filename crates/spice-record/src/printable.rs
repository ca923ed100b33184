//! Which characters are shown as they are, on a terminal and in the text formats of others.

/// Whether a terminal shows a character at its place and does nothing else, and YAML of every version takes it as
/// it is. Others control the terminal, change the direction of text, end a line, are invisible, or are no
/// characters.
#[must_use]
pub fn is_printable(character: char) -> bool {
    !character.is_control()
        && !matches!(
            character,
            '\u{ad}' | '\u{61c}' | '\u{180e}'          // soft hyphen, Arabic letter mark, vowel separator
            | '\u{200b}'..='\u{200f}'                  // zero width, left-to-right and right-to-left marks
            | '\u{2028}'..='\u{202e}'                  // line and paragraph separator, bidi
            | '\u{2060}'..='\u{206f}'                  // word joiner, bidi isolates
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}'     // byte order mark, interlinear annotations
            | '\u{fffe}' | '\u{ffff}'                  // no characters
            | '\u{e0000}'..='\u{e007f}' // tags
        )
}
