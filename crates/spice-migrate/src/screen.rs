//! The live screen of `status --watch`: what it shows, and how it is drawn. Nothing is measured here.

use std::collections::VecDeque;
use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph, Sparkline, Wrap};

/// Samples that the sparklines keep: one a second.
const KEPT: usize = 240;

/// What is shown at an instant.
#[derive(Clone, Debug, Default)]
pub(crate) struct Panel {
    /// The contexts: `old -> new`.
    pub(crate) ends: String,
    /// The time, RFC 3339.
    pub(crate) now: String,
    /// The phase of the migration.
    pub(crate) phase: String,
    /// Whether `follow` runs, and as which process.
    pub(crate) follow: String,
    /// How far the target is behind, and when the source was last heard.
    pub(crate) lag: String,
    /// What is captured and not applied.
    pub(crate) backlog: String,
    /// What is left of the source's history.
    pub(crate) headroom: String,
    /// The last result of `verify`, with its age.
    pub(crate) verdict: String,
    /// Since when writes are stopped, if they are.
    pub(crate) fence: Option<String>,
    /// Why it is not safe to cut over; `None` if it is.
    pub(crate) not_safe: Option<String>,
    /// The next command.
    pub(crate) next: String,
    /// What the sparklines follow.
    pub(crate) counters: Counters,
}

/// Counters whose growth the sparklines show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    /// Bytes that were captured since the spool began.
    pub(crate) captured: u64,
    /// Bytes of it that were applied.
    pub(crate) applied: u64,
    /// How far the target is behind, in milliseconds.
    pub(crate) lag_ms: u64,
}

/// What the sparklines show: rates in bytes a second, and the lag.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    last: Option<Counters>,
    captured: VecDeque<u64>,
    applied: VecDeque<u64>,
    lag_ms: VecDeque<u64>,
}

impl History {
    /// Adds the counters of `elapsed` after the ones before. A counter that went back, as after a
    /// resync, counts as no growth.
    pub(crate) fn add(&mut self, counters: Counters, elapsed: Duration) {
        let last = self.last.replace(counters).unwrap_or(counters);
        let millis = u64::try_from(elapsed.as_millis())
            .unwrap_or(u64::MAX)
            .max(1);
        let rate =
            |now: u64, before: u64| now.saturating_sub(before).saturating_mul(1_000) / millis;
        push(&mut self.captured, rate(counters.captured, last.captured));
        push(&mut self.applied, rate(counters.applied, last.applied));
        push(&mut self.lag_ms, counters.lag_ms);
    }
}

fn push(series: &mut VecDeque<u64>, value: u64) {
    if series.len() == KEPT {
        series.pop_front();
    }
    series.push_back(value);
}

/// How the screen is coloured. `NO_COLOR` in the environment leaves bold and reverse.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Theme {
    color: bool,
}

impl Theme {
    /// With colour, or without.
    #[must_use]
    pub(crate) fn new(color: bool) -> Self {
        Self { color }
    }

    fn of(self, color: Color) -> Style {
        match self.color {
            true => Style::default().fg(color),
            false => Style::default(),
        }
    }
}

/// Draws the screen. Complete from 80 columns and 24 rows on; a smaller one shows its upper left.
pub(crate) fn draw(frame: &mut Frame<'_>, panel: &Panel, history: &History, theme: Theme) {
    let [title, facts, charts, verdict, footer] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(8),
        Constraint::Length(7),
        Constraint::Min(6),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    draw_title(frame, title, panel);
    draw_facts(frame, facts, panel, theme);
    draw_charts(frame, charts, history, theme);
    draw_verdict(frame, verdict, panel, theme);
    frame.render_widget(Paragraph::new("q: quit"), footer);
}

fn draw_title(frame: &mut Frame<'_>, area: Rect, panel: &Panel) {
    let left = format!("spice-migrate  {}", panel.ends);
    let room = usize::from(area.width).saturating_sub(panel.now.len());
    let text = format!("{left:<room$}{}", panel.now);
    let style = Style::default().add_modifier(Modifier::REVERSED);
    frame.render_widget(Paragraph::new(text).style(style), area);
}

fn draw_facts(frame: &mut Frame<'_>, area: Rect, panel: &Panel, theme: Theme) {
    let mut rows = vec![
        (
            "phase",
            &panel.phase,
            Style::default().add_modifier(Modifier::BOLD),
        ),
        ("follow", &panel.follow, Style::default()),
        ("lag", &panel.lag, Style::default()),
        ("backlog", &panel.backlog, Style::default()),
        ("headroom", &panel.headroom, Style::default()),
        ("verify", &panel.verdict, Style::default()),
    ];
    if let Some(fence) = &panel.fence {
        let style = theme.of(Color::Yellow).add_modifier(Modifier::BOLD);
        rows.push(("fence", fence, style));
    }
    let lines: Vec<Line<'_>> = rows
        .into_iter()
        .map(|(name, value, style)| {
            Line::from(vec![
                Span::styled(format!("{name:<10}"), theme.of(Color::Cyan)),
                Span::styled(value.as_str(), style),
            ])
        })
        .collect();
    let block = Block::default().borders(Borders::BOTTOM);
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn draw_charts(frame: &mut Frame<'_>, area: Rect, history: &History, theme: Theme) {
    let rows: [Rect; 3] = Layout::vertical([Constraint::Length(2); 3]).areas(area);
    let series = [
        ("captured", &history.captured, bytes as fn(u64) -> String),
        ("applied", &history.applied, bytes),
        ("lag", &history.lag_ms, millis),
    ];
    for (row, (name, values, text)) in rows.into_iter().zip(series) {
        let [label, chart] =
            Layout::horizontal([Constraint::Length(22), Constraint::Min(10)]).areas(row);
        let newest = text(values.back().copied().unwrap_or_default());
        let label_text = Line::from(vec![
            Span::styled(format!("{name:<10}"), theme.of(Color::Cyan)),
            Span::raw(newest),
        ]);
        frame.render_widget(Paragraph::new(label_text), label);
        // The newest samples, so that the right edge is now.
        let shown: Vec<u64> = values
            .iter()
            .skip(values.len().saturating_sub(usize::from(chart.width)))
            .copied()
            .collect();
        let sparkline = Sparkline::default()
            .data(&shown)
            .style(theme.of(Color::Green));
        frame.render_widget(sparkline, chart);
    }
}

fn draw_verdict(frame: &mut Frame<'_>, area: Rect, panel: &Panel, theme: Theme) {
    let (first, color) = match &panel.not_safe {
        None => ("SAFE TO CUT OVER".to_owned(), Color::Green),
        Some(why) => (format!("NOT SAFE: {why}"), Color::Red),
    };
    let lines = vec![
        Line::styled(first, theme.of(color).add_modifier(Modifier::BOLD)),
        Line::raw(""),
        Line::from(vec![
            Span::styled("next: ", theme.of(Color::Cyan)),
            Span::raw(panel.next.as_str()),
        ]),
    ];
    let block = Block::default().borders(Borders::TOP);
    let text = Paragraph::new(lines).block(block).wrap(Wrap { trim: true });
    frame.render_widget(text, area);
}

/// The same on one line, for where there is no terminal.
#[must_use]
pub(crate) fn line(panel: &Panel) -> String {
    let safe = match &panel.not_safe {
        None => "safe to cut over".to_owned(),
        Some(why) => format!("not safe: {why}"),
    };
    format!(
        "{}  {}; lag {}; backlog {}; headroom {}; {safe}",
        panel.now, panel.phase, panel.lag, panel.backlog, panel.headroom
    )
}

fn bytes(rate: u64) -> String {
    match rate {
        0..1_024 => format!("{rate} B/s"),
        1_024..1_048_576 => format!("{} KiB/s", rate >> 10),
        _ => format!("{} MiB/s", rate >> 20),
    }
}

fn millis(ms: u64) -> String {
    format!("{}.{} s", ms / 1_000, ms % 1_000 / 100)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::style::Color;

    use super::{Counters, History, KEPT, Panel, Theme, draw, line};

    fn panel() -> Panel {
        Panel {
            ends: "old -> new".into(),
            now: "2026-11-26T03:00:00Z".into(),
            phase: "following since 2026-11-25T22:00:00Z".into(),
            follow: "runs, process 4350".into(),
            lag: "0.2 s behind; old was last heard 0.6 s ago".into(),
            backlog: "12 transactions, 4096 bytes".into(),
            headroom: "23 h 58 min of 24h".into(),
            verdict: "equal, 12 min ago".into(),
            next: "spice-migrate cutover".into(),
            ..Panel::default()
        }
    }

    fn drawn(panel: &Panel, history: &History, color: bool, size: (u16, u16)) -> (String, bool) {
        let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).unwrap();
        let theme = Theme::new(color);
        terminal
            .draw(|frame| draw(frame, panel, history, theme))
            .unwrap();
        let buffer = terminal.backend().buffer();
        let mut text = String::new();
        let mut colored = false;
        for y in 0..buffer.area.height {
            for x in 0..buffer.area.width {
                let cell = &buffer[(x, y)];
                colored |= cell.fg != Color::Reset || cell.bg != Color::Reset;
                text.push_str(cell.symbol());
            }
            text.push('\n');
        }
        (text, colored)
    }

    #[test]
    fn everything_fits_80_columns_and_24_rows() {
        let panel = Panel {
            fence: Some("confirmed 3 s ago: writes to old are stopped".into()),
            not_safe: Some("follow is not running".into()),
            ..panel()
        };
        let (text, _) = drawn(&panel, &History::default(), true, (80, 24));
        for expected in [
            "old -> new",
            "2026-11-26T03:00:00Z",
            "following since",
            "process 4350",
            "12 transactions",
            "23 h 58 min of 24h",
            "equal, 12 min ago",
            "confirmed 3 s ago",
            "NOT SAFE: follow is not running",
            "next: spice-migrate cutover",
            "captured",
            "q: quit",
        ] {
            assert!(text.contains(expected), "{expected}:\n{text}");
        }
    }

    #[test]
    fn safe_is_shown_as_safe_only_without_a_reason() {
        let (text, _) = drawn(&panel(), &History::default(), true, (80, 24));
        assert!(text.contains("SAFE TO CUT OVER") && !text.contains("NOT SAFE"));
    }

    #[test]
    fn no_cell_is_coloured_under_no_color() {
        let mut history = History::default();
        history.add(Counters::default(), Duration::from_secs(1));
        assert!(drawn(&panel(), &history, true, (80, 24)).1);
        assert!(!drawn(&panel(), &history, false, (80, 24)).1);
    }

    #[test]
    fn rates_are_per_second_and_never_negative() {
        let mut history = History::default();
        let at = |captured, applied| Counters {
            captured,
            applied,
            lag_ms: 0,
        };
        history.add(at(1_000, 500), Duration::from_secs(1));
        history.add(at(3_000, 500), Duration::from_millis(500));
        // After a resync the spool begins again.
        history.add(at(10, 0), Duration::from_secs(1));
        assert_eq!(history.captured, [0, 4_000, 0]);
        assert_eq!(history.applied, [0, 0, 0]);
    }

    #[test]
    fn history_is_bounded() {
        let mut history = History::default();
        for captured in 0..3 * KEPT as u64 {
            let counters = Counters {
                captured,
                ..Counters::default()
            };
            history.add(counters, Duration::from_secs(1));
        }
        assert_eq!(history.captured.len(), KEPT);
    }

    #[test]
    fn any_size_of_terminal_is_drawn() {
        for size in [(1, 1), (20, 5), (80, 24), (300, 100)] {
            drawn(&panel(), &History::default(), true, size);
        }
    }

    #[test]
    fn line_without_a_terminal_names_phase_lag_and_verdict() {
        let text = line(&panel());
        assert!(
            text.contains("following since") && text.contains("safe to cut over"),
            "{text}"
        );
        assert!(!text.contains('\n'));
    }
}
