//! `status --watch`: measures again and again, and shows that on a terminal. Off a terminal it prints a
//! line every 10 s. No server is asked.

use std::io::{self, IsTerminal as _};
use std::time::{Duration, Instant as Clock};

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};

use crate::cli::Status;
use crate::rows::Rows;
use crate::screen::{self, Counters, History, Panel, Theme};
use crate::session::Session;
use crate::status::{self, Snapshot};
use crate::suite::{CommandError, Exit, Outcome, stdio};
use crate::time::Instant;

/// How often the screen is measured and drawn; less often where measuring takes long.
const REFRESH: Duration = Duration::from_secs(1);
/// Of the time, at most one part in so many is spent measuring: a large backlog is read each time.
const SHARE: u32 = 10;
/// How often a line is printed off a terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// How soon a key or a signal is noticed.
const NOTICE: Duration = Duration::from_millis(100);

/// Shows the status until it is asked to end.
///
/// # Errors
///
/// Those of the state, and of a terminal that cannot be used.
pub(crate) fn run(session: &Session, flags: &Status) -> Outcome<Exit> {
    match io::stdout().is_terminal() {
        true => on_terminal(session, flags),
        false => as_lines(session, flags),
    }
}

fn on_terminal(session: &Session, flags: &Status) -> Outcome<Exit> {
    // Before the screen is taken: an error has to be readable.
    let mut panel = measure(session, flags)?;
    let mut terminal = ratatui::try_init().map_err(|error| cannot_draw(session, &error))?;
    let shown = show(session, flags, &mut terminal, &mut panel);
    ratatui::restore();
    shown
}

fn show(
    session: &Session,
    flags: &Status,
    terminal: &mut DefaultTerminal,
    panel: &mut Panel,
) -> Outcome<Exit> {
    let has_color = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let theme = Theme::new(has_color);
    let mut history = History::default();
    history.add(panel.counters, REFRESH);
    let mut measured = Clock::now();
    let mut pause = REFRESH;
    loop {
        if measured.elapsed() >= pause {
            let began = Clock::now();
            *panel = measure(session, flags)?;
            history.add(panel.counters, measured.elapsed());
            pause = REFRESH.max(began.elapsed() * SHARE);
            measured = began;
        }
        terminal
            .draw(|frame| screen::draw(frame, panel, &history, theme))
            .map_err(|error| cannot_draw(session, &error))?;
        if let Some(number) = session.shutdown.signal() {
            return Ok(Exit::Signal(number));
        }
        if quits().map_err(|error| cannot_draw(session, &error))? {
            return Ok(Exit::Done);
        }
    }
}

/// Waits a moment for a key; `true` for one that ends the screen.
fn quits() -> io::Result<bool> {
    if !event::poll(NOTICE)? {
        return Ok(false);
    }
    let Event::Key(key) = event::read()? else {
        return Ok(false);
    };
    let is_interrupt =
        key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    let is_quit = matches!(key.code, KeyCode::Char('q') | KeyCode::Esc);
    Ok(key.kind == KeyEventKind::Press && (is_quit || is_interrupt))
}

fn as_lines(session: &Session, flags: &Status) -> Outcome<Exit> {
    loop {
        stdio::print_line(&screen::line(&measure(session, flags)?))?;
        let printed = Clock::now();
        while printed.elapsed() < LINE_EVERY {
            if let Some(number) = session.shutdown.signal() {
                return Ok(Exit::Signal(number));
            }
            std::thread::sleep(NOTICE);
        }
    }
}

fn measure(session: &Session, flags: &Status) -> Outcome<Panel> {
    let state = session.reload()?;
    let snapshot = Snapshot::measure(&session.store, &state, Instant::now());
    let policy = flags.safety.policy(&state);
    let reason = status::reason(session, &state, &snapshot, &policy);
    let rows = Rows::of(session, &state, &snapshot);
    let next = match &reason {
        Some(reason) => status::way_on(session, &state, &snapshot, reason),
        None => flags.safety.cutover(session),
    };
    let captured = snapshot.view.captured_bytes;
    let lag_ms = u64::try_from(snapshot.lag.behind.as_millis()).unwrap_or(u64::MAX);
    Ok(Panel {
        ends: format!("{} -> {}", state.source.context, state.target.context),
        now: snapshot.now.to_string(),
        phase: rows.phase,
        follow: rows.follow,
        lag: rows.lag,
        backlog: rows.backlog,
        headroom: rows.headroom,
        verdict: rows.verdict,
        fence: rows.fence,
        not_safe: reason.map(|reason| reason.why),
        next: next.trim_start_matches("next: ").to_owned(),
        counters: Counters {
            captured,
            applied: captured.saturating_sub(snapshot.view.backlog_bytes),
            lag_ms,
        },
    })
}

fn cannot_draw(session: &Session, error: &io::Error) -> CommandError {
    CommandError::new(Exit::Failed, format!("cannot use the terminal: {error}")).hint(format!(
        "without a screen: {}",
        session.words.step("status")
    ))
}
