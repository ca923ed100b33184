//! SIGINT, SIGTERM, SIGHUP and SIGUSR1, which is SIGTERM without hurry; and a reader of stdout that leaves.
//!
//! The first one asks the program to stop where it can; a second one ends it at once. A program that
//! stopped because it was asked to dies of the real signal afterwards ([`crate::run`]), so that a
//! shell loop around it ends too.
//!
//! A thread of its own listens, so that nothing which blocks the main task blocks this. A program that has
//! not ended [`Shutdown::grace`] after a signal is ended by that thread, as it would have ended itself:
//! unfinished files are removed, what it has saved stays saved. Without hurry nothing is forced.

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileTypeExt as _;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use signal_hook::consts::{SIGHUP, SIGINT, SIGUSR1};
use signal_hook::iterator::Signals;
use tokio::sync::watch;

use crate::exit::Exit;
use crate::{cleanup, lock, stdio};

pub(crate) use signal_hook::consts::SIGPIPE;
/// The polite request to stop.
pub use signal_hook::consts::SIGTERM;

/// How long a program may take to end that has nothing to bring to its end.
const GRACE: Duration = Duration::from_millis(500);
/// How long the last words of [`Shutdown::on_forced_end`] may take: a slow disk must not cost them.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// The signal that asked for the end in a hurry, for what blocks its thread; 0 for none.
static HURRY: AtomicI32 = AtomicI32::new(0);

/// Whether the program was asked to stop, and by which signal.
#[derive(Clone, Debug)]
pub struct Shutdown {
    requests: watch::Receiver<Option<Request>>,
    forced: Arc<Forced>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Request {
    number: i32,
    patient: bool,
}

/// How a program ends whose main task does not answer.
struct Forced {
    grace_millis: AtomicU64,
    /// What SIGTERM means to the program.
    on_sigterm: Exit,
    last_words: Mutex<Option<LastWords>>,
}

type LastWords = Box<dyn FnOnce() -> Option<Exit> + Send>;

impl std::fmt::Debug for Forced {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Forced").finish_non_exhaustive()
    }
}

impl Shutdown {
    /// Starts to listen. `on_sigterm` is how the program ends on SIGTERM; `reader` asks to notice also
    /// that nobody can read stdout any more, which counts as SIGPIPE: a program that has nothing to write
    /// would live on for ever.
    ///
    /// # Errors
    ///
    /// Where the operating system refuses signal handlers or a thread.
    pub fn listen(on_sigterm: Exit, reader: bool) -> io::Result<Self> {
        let (sender, requests) = watch::channel(None);
        let forced = Arc::new(Forced {
            grace_millis: AtomicU64::new(millis(GRACE)),
            on_sigterm,
            last_words: Mutex::new(None),
        });
        let listener = Listener {
            sender: Arc::new(sender),
            forced: Arc::clone(&forced),
        };
        let numbers = [SIGINT, SIGTERM, SIGUSR1].into_iter();
        let mut signals = Signals::new(numbers.chain((!is_hangup_ignored()).then_some(SIGHUP)))?;
        if reader {
            let listener = listener.clone();
            spawn("stdout", move || {
                if reader_leaves() {
                    listener.hears(SIGPIPE);
                }
            })?;
        }
        spawn("signals", move || {
            for number in signals.forever() {
                listener.hears(number);
            }
        })?;
        Ok(Self { requests, forced })
    }

    /// One that no signal reaches, and a function that acts as a signal: with its number, and whether it is
    /// patient. For tests.
    pub fn simulated() -> (Self, impl Fn(i32, bool)) {
        let (sender, requests) = watch::channel(None);
        let forced = Arc::new(Forced {
            grace_millis: AtomicU64::new(millis(GRACE)),
            on_sigterm: Exit::Done,
            last_words: Mutex::new(None),
        });
        let send = move |number, patient| {
            sender.send_replace(Some(Request { number, patient }));
        };
        (Self { requests, forced }, send)
    }

    /// The signal that asked for the end, if one did.
    #[must_use]
    pub fn signal(&self) -> Option<i32> {
        self.requests.borrow().map(|request| request.number)
    }

    /// Waits until the end is not only asked for but in a hurry: what is under way may be dropped.
    pub async fn in_a_hurry(&self) -> i32 {
        self.wait_for(|request| !request.patient).await
    }

    /// Waits until a signal asks for the end, and returns it; SIGTERM for SIGUSR1.
    pub async fn requested(&self) -> i32 {
        self.wait_for(|_| true).await
    }

    /// From now on the program brings something to its end after a signal, and may take so long for it.
    pub fn grace(&self, grace: Duration) {
        let grace = millis(grace);
        self.forced.grace_millis.store(grace, Ordering::Relaxed);
    }

    /// What has to be saved even if the main task is blocked and the end is forced. It can say how the
    /// program ends then.
    pub fn on_forced_end(&self, last_words: impl FnOnce() -> Option<Exit> + Send + 'static) {
        *lock(&self.forced.last_words) = Some(Box::new(last_words));
    }

    async fn wait_for(&self, is_it: impl Fn(&Request) -> bool) -> i32 {
        let mut receiver = self.requests.clone();
        let request = receiver.wait_for(|request| request.as_ref().is_some_and(&is_it));
        match request.await.map(|request| *request) {
            Ok(Some(request)) => request.number,
            // The listener lives as long as the process.
            _ => std::future::pending().await,
        }
    }
}

/// The signal for which whatever blocks its thread should give up.
pub(crate) fn hurry() -> Option<i32> {
    Some(HURRY.load(Ordering::Relaxed)).filter(|number| *number != 0)
}

/// Hears signals, on threads of its own.
#[derive(Clone)]
struct Listener {
    sender: Arc<watch::Sender<Option<Request>>>,
    forced: Arc<Forced>,
}

/// What a signal means.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Nothing,
    Ask(Request),
    EndNow,
}

/// The first signal asks, the second ends at once. A reader of stdout that leaves is no second signal: in
/// a pipe that a signal ends it comes with the first. After "without hurry" the next one may still be
/// polite.
fn heard(before: Option<Request>, number: i32) -> Heard {
    let request = match number {
        SIGUSR1 => Request {
            number: SIGTERM,
            patient: true,
        },
        number => Request {
            number,
            patient: false,
        },
    };
    match before {
        Some(_) if number == SIGPIPE => Heard::Nothing,
        Some(before) if !before.patient && before.number != SIGPIPE => Heard::EndNow,
        _ => Heard::Ask(request),
    }
}

impl Listener {
    fn hears(&self, number: i32) {
        let before = *self.sender.borrow();
        match heard(before, number) {
            Heard::Nothing => {}
            Heard::EndNow => end(Exit::Signal(match number {
                SIGUSR1 => SIGTERM,
                number => number,
            })),
            Heard::Ask(request) => {
                self.sender.send_replace(Some(request));
                if !request.patient {
                    HURRY.store(request.number, Ordering::Relaxed);
                    let forced = Arc::clone(&self.forced);
                    // Without a thread there is no force.
                    let _ = spawn("end", move || forced.end(request.number));
                }
            }
        }
    }
}

impl Forced {
    /// Ends the process, unless it has ended by itself before its grace is over.
    fn end(&self, number: i32) {
        let began = Instant::now();
        while millis(began.elapsed()) < self.grace_millis.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(10));
        }
        let mut exit = match number {
            SIGTERM => self.on_sigterm,
            number => Exit::Signal(number),
        };
        if let Some(last_words) = lock(&self.last_words).take() {
            let (sender, receiver) = mpsc::channel();
            let speaking = spawn("last words", move || {
                let _ = sender.send(last_words());
            });
            if speaking.is_ok()
                && let Ok(Some(other)) = receiver.recv_timeout(LAST_WORDS)
                && number == SIGTERM
            {
                exit = other;
            }
        }
        end(exit);
    }
}

/// Ends the process from a thread that is not the main one.
#[expect(
    clippy::disallowed_methods,
    reason = "the main thread is blocked; what its destructors would do is done"
)]
fn end(exit: Exit) {
    cleanup::clear();
    if let Exit::Signal(number) = exit {
        let _ = signal_hook::low_level::emulate_default_handler(number);
    }
    std::process::exit(exit.number().into());
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let builder = std::thread::Builder::new().name(name.to_owned());
    builder.spawn(work).map(drop)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Whether SIGHUP was ignored when the process began, by nohup for example: then it stays ignored. Where
/// that cannot be known nothing is changed.
fn is_hangup_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_none_or(|mask| mask & (1 << (SIGHUP - 1)) != 0)
}

/// Waits until nobody can read stdout any more; `false` where that cannot be: it is no pipe.
fn reader_leaves() -> bool {
    let Ok(stdout) = stdio::stdout_file() else {
        return false;
    };
    let is_pipe = stdout.metadata().is_ok_and(|metadata| {
        let kind = metadata.file_type();
        kind.is_fifo() || kind.is_socket()
    });
    if !is_pipe {
        return false;
    }
    loop {
        // Errors and hangups are reported unasked.
        let mut fds = [PollFd::from_borrowed_fd(stdout.as_fd(), PollFlags::empty())];
        match poll(&mut fds, None) {
            Ok(_) if fds[0].revents().intersects(PollFlags::ERR | PollFlags::HUP) => return true,
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Heard, Request, SIGHUP, SIGINT, SIGPIPE, SIGTERM, SIGUSR1, heard};

    #[test]
    fn first_signal_asks_and_the_second_ends_at_once() {
        let request = |number, patient| Request { number, patient };
        let ask = |number, patient| Heard::Ask(request(number, patient));
        let (term, usr1) = (request(SIGTERM, false), request(SIGTERM, true));
        let pipe = request(SIGPIPE, false);
        for (before, number, expected) in [
            (None, SIGTERM, ask(SIGTERM, false)),
            (None, SIGINT, ask(SIGINT, false)),
            (None, SIGHUP, ask(SIGHUP, false)),
            (None, SIGUSR1, ask(SIGTERM, true)),
            (None, SIGPIPE, ask(SIGPIPE, false)),
            (Some(term), SIGTERM, Heard::EndNow),
            (Some(term), SIGINT, Heard::EndNow),
            (Some(term), SIGUSR1, Heard::EndNow),
            (Some(usr1), SIGTERM, ask(SIGTERM, false)),
            (Some(usr1), SIGUSR1, ask(SIGTERM, true)),
            // The end of a pipe is no second signal, and the first one after it is no second either.
            (Some(term), SIGPIPE, Heard::Nothing),
            (Some(usr1), SIGPIPE, Heard::Nothing),
            (Some(pipe), SIGTERM, ask(SIGTERM, false)),
        ] {
            assert_eq!(heard(before, number), expected, "{before:?} {number}");
        }
    }
}
