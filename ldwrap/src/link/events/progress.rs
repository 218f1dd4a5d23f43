//! One line on the terminal that shows how far a link is.
//!
//! lld writes to the same terminal, and so do make and other links. So the line is gone before lld's own calls to
//! write are let go, and comes back only when lld's line is complete. The cursor stays at its beginning, as cargo's
//! does: what others write goes over it. Of the links on one terminal, the one that has its lock draws.

use super::{Counts, WaitsFor};
use crate::admit::{Resource, Slot, Slots};
use crate::sys::sync::lock;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::fstat;
use shim::config::ShowProgress;
use shim::user_dir::user_dir;
use std::ffi::OsStr;
use std::io::{self, IsTerminal, Write as _};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A link that is shorter shows nothing.
const AFTER: Duration = Duration::from_secs(1);
/// How often the line is drawn.
const EVERY: Duration = Duration::from_millis(200);
/// When it comes back after lld has written something.
const AFTER_OUTPUT: Duration = Duration::from_millis(400);
/// How often other links on the terminal are counted, and how many at most.
const COUNT_EVERY: Duration = Duration::from_millis(500);
const MOST_LINKS: usize = 16;
/// A link that is not at work leaves the line to others after this time, for that time.
const LEAVE_AFTER: Duration = Duration::from_millis(300);
const LEAVE_FOR: Duration = Duration::from_millis(600);
/// The line's width where the terminal does not tell its own.
const WIDTH: u16 = 80;
/// An output's name is cut to so many characters.
const LONGEST_NAME: usize = 24;
/// Clears the line on which the cursor is; the cursor stays at its beginning.
const CLEAR: &str = "\r\x1b[K";

/// The line of one link.
#[derive(Debug)]
pub struct Progress {
    name: String,
    /// Where objects from elsewhere are made: `server`, `distributor` or `clang`.
    elsewhere: &'static str,
    bar: ProgressBar,
    line: Line,
    next: Instant,
    terminal: Option<Terminal>,
    /// Whether the line is there.
    shown: bool,
    /// Whether lld has written a part of a line.
    line_is_open: bool,
    /// Which of lld's streams are on this terminal: standard output and standard error.
    on_terminal: [bool; 2],
}

impl Progress {
    /// Of a link with this output, if it is to have one. `logs` says whether a log goes to standard error.
    #[must_use]
    pub fn new(
        wanted: ShowProgress,
        logs: bool,
        output: &OsStr,
        elsewhere: &'static str,
    ) -> Option<Self> {
        let stderr = io::stderr();
        let always = wanted == ShowProgress::Always;
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let fitting = stderr.is_terminal() && !dumb && !logs;
        if wanted == ShowProgress::Never || !(always || fitting) {
            return None;
        }
        let file = fstat(stderr.as_fd()).ok()?;
        let stdout = fstat(io::stdout().as_fd());
        let same = stdout.is_ok_and(|s| (s.st_dev, s.st_ino) == (file.st_dev, file.st_ino));
        let name = format!("{:x}-{:x}", file.st_rdev, file.st_ino);
        let line = Line::default();
        let target = ProgressDrawTarget::term_like(Box::new(line.clone()));
        let now = Instant::now();
        Some(Self {
            name: short_name(output),
            elsewhere,
            bar: ProgressBar::with_draw_target(None, target),
            line,
            next: if always { now } else { now + AFTER },
            terminal: stderr.is_terminal().then(|| Terminal::new(&name)).flatten(),
            shown: false,
            line_is_open: false,
            on_terminal: [same, true],
        })
    }

    /// When there is something to do next.
    pub(super) fn next_tick(&self) -> Instant {
        self.next
    }

    /// Draws the line, if it is time.
    pub(super) fn tick(&mut self, counts: &Counts) {
        let waits_here = matches!(counts.waits_for, Some(WaitsFor::Resource(_)));
        if self.is_due(counts.running > 0 || !waits_here) {
            let begun = counts.done + counts.running + counts.waiting > 0;
            let total = counts.total.filter(|_| begun);
            let text = describe(counts, self.elsewhere);
            self.draw(total, counts.at_most, counts.done, text);
        }
    }

    /// The same while lld is not started yet.
    pub(super) fn tick_while_others_link(&mut self) {
        if self.is_due(false) {
            self.draw(None, false, 0, "waits for other large links".into());
        }
    }

    /// Whether it is time to draw. A link that is not at work leaves the line to others that may be.
    fn is_due(&mut self, at_work: bool) -> bool {
        let now = Instant::now();
        if now < self.next {
            return false;
        }
        self.next = now + EVERY;
        let terminal = self.terminal.as_mut();
        let may = terminal.is_none_or(|terminal| terminal.may_draw(at_work));
        if !may {
            self.clear();
            if let Some(terminal) = &mut self.terminal {
                terminal.draws = None;
            }
        }
        may && !self.line_is_open && can_write()
    }

    fn draw(&mut self, total: Option<usize>, at_most: bool, done: usize, message: String) {
        let template = match total {
            Some(_) if at_most => "{prefix} [{bar:10}] {pos} of up to {len}, {wide_msg}",
            Some(_) => "{prefix} [{bar:10}] {pos}/{len} {wide_msg}",
            None => "{prefix} {wide_msg}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style.progress_chars("=> "));
        }
        let prefix = match self.terminal.as_ref().map_or(0, |t| t.others) {
            0 => self.name.clone(),
            1 => format!("{} (+1 link)", self.name),
            others => format!("{} (+{others} links)", self.name),
        };
        lock(&self.line.0).width = width().unwrap_or(WIDTH).max(20) - 1;
        self.bar.set_prefix(prefix);
        self.bar.set_message(message);
        self.bar.update(|state| {
            state.set_pos(done as u64);
            state.set_len(total.unwrap_or(0).max(done) as u64);
        });
        let text = std::mem::take(&mut lock(&self.line.0).text);
        self.shown = true;
        write(&format!("\r{}\x1b[K\r", text.trim_end()));
    }

    /// lld is about to write something, which ends a line or not.
    pub(super) fn give_way(&mut self, stream: usize, ends_line: bool) {
        if self.on_terminal.get(stream) != Some(&true) {
            return;
        }
        let others = self.terminal.as_mut().is_some_and(Terminal::others_draw);
        if self.shown {
            self.clear();
        } else if others && !self.line_is_open {
            write(CLEAR);
        }
        self.line_is_open = !ends_line;
        self.next = self.next.max(Instant::now() + AFTER_OUTPUT);
    }

    fn clear(&mut self) {
        if self.shown {
            self.shown = false;
            write(CLEAR);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

/// What is behind the bar.
fn describe(counts: &Counts, elsewhere: &str) -> String {
    let Counts {
        done,
        cached,
        running,
        waiting,
        ..
    } = *counts;
    let idle = running == 0 && waiting == 0;
    if idle && done == 0 {
        return "lld reads its inputs".into();
    }
    if idle && (counts.at_most || counts.total.is_none_or(|total| done >= total)) {
        return "lld writes its output".into();
    }
    let mut words = Vec::new();
    if counts.total.is_none() {
        words.push(format!("{done} modules"));
    }
    if running > 0 {
        words.push(format!("{running} compiling"));
    }
    if let Some(what) = counts.waits_for {
        let what = match what {
            WaitsFor::Resource(Resource::Slot) => "a processor",
            WaitsFor::Resource(Resource::Token) => "a token of the jobserver",
            WaitsFor::Resource(Resource::Memory) => "memory",
            WaitsFor::Elsewhere if elsewhere == "clang" => "clang",
            WaitsFor::Elsewhere => &format!("the {elsewhere}"),
        };
        words.push(match waiting {
            1 => format!("1 waits for {what}"),
            _ => format!("{waiting} wait for {what}"),
        });
    }
    words.extend(time_left(counts));
    if cached > 0 {
        words.push(format!("{cached} cached"));
    }
    if counts.elsewhere > 0 {
        words.push(match elsewhere {
            "clang" => format!("{} by clang", counts.elsewhere),
            _ => format!("{} from the {elsewhere}", counts.elsewhere),
        });
    }
    words.join(", ")
}

/// How long what is left takes at most, on as many threads as compile now, by what modules took lately: they come
/// largest first (`generateModulesOrdering`, llvm/lib/LTO/LTO.cpp). At the beginning that is of no use.
fn time_left(counts: &Counts) -> Option<String> {
    let total = counts.total.filter(|total| counts.done > total / 4)?;
    let left = total.checked_sub(counts.done)?;
    let usual = counts
        .usual
        .filter(|_| counts.running > 0 && left > counts.running)?;
    let seconds =
        (usual * u32::try_from(left).ok()? / u32::try_from(counts.running).ok()?).as_secs() + 1;
    Some(match seconds {
        0..100 => format!("< {seconds} s left"),
        _ => format!("< {} min left", seconds.div_ceil(60)),
    })
}

/// The end of an output's name, without what a terminal would not show as a character.
fn short_name(output: &OsStr) -> String {
    let name = Path::new(output).file_name().unwrap_or(output);
    let name = name.to_string_lossy().replace(char::is_control, "?");
    let skip = name.chars().count().saturating_sub(LONGEST_NAME);
    name.chars().skip(skip).collect()
}

/// A terminal that several links may share.
#[derive(Debug)]
struct Terminal {
    /// The link that draws.
    first: Slots,
    draws: Option<Slot>,
    /// All links.
    links: Slots,
    place: Option<Slot>,
    counted: Option<Instant>,
    /// How many there are beside this one.
    others: usize,
    /// Until when others, that are at work, may take the line.
    leaves_until: Option<Instant>,
}

impl Terminal {
    /// By its name, which is the same for all links on it.
    fn new(name: &str) -> Option<Self> {
        let dir = user_dir().ok()?;
        Some(Self {
            first: Slots::new(&dir, format!("terminal-{name}"), 1),
            draws: None,
            links: Slots::new(&dir, format!("links-{name}"), MOST_LINKS),
            place: None,
            counted: None,
            others: 0,
            leaves_until: None,
        })
    }

    /// Whether this link is to draw.
    fn may_draw(&mut self, at_work: bool) -> bool {
        let now = Instant::now();
        if self
            .leaves_until
            .is_some_and(|until| !at_work && now < until)
        {
            return false;
        }
        if self.place.is_none() {
            self.place = self.links.try_take(false).ok().flatten();
        }
        if self.draws.is_none() {
            self.draws = self.first.try_take(true).ok().flatten();
        }
        if self.draws.is_none() || !in_foreground() {
            return false;
        }
        if self.counted.is_none_or(|at| now - at > COUNT_EVERY) {
            self.counted = Some(now);
            let own = usize::from(self.place.is_some());
            self.others = self.links.users(true).len().saturating_sub(own);
        }
        if !at_work
            && self.others > 0
            && self
                .leaves_until
                .is_none_or(|until| now > until + LEAVE_AFTER)
        {
            self.leaves_until = Some(now + LEAVE_FOR);
        }
        self.leaves_until
            .is_none_or(|until| at_work || now >= until)
    }

    /// Whether another link may have drawn a line that is still there.
    fn others_draw(&mut self) -> bool {
        self.draws.is_none() && !matches!(self.first.try_take(false), Ok(Some(_)))
    }
}

/// Whether our job is in the foreground of its terminal, or that cannot be told.
fn in_foreground() -> bool {
    nix::unistd::tcgetpgrp(io::stderr())
        .map_or(true, |foreground| foreground == nix::unistd::getpgrp())
}

/// The width of the terminal, in characters.
fn width() -> Option<u16> {
    // SAFETY: all-zero values of this plain struct are valid.
    let mut size: libc::winsize = unsafe { std::mem::zeroed() };
    // SAFETY: the ioctl writes one winsize.
    let result = unsafe { libc::ioctl(libc::STDERR_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    (result == 0 && size.ws_col > 0).then_some(size.ws_col)
}

/// Whether standard error takes what is written now: a terminal that was stopped (Ctrl-S) must not hold up a link.
fn can_write() -> bool {
    let stderr = io::stderr();
    let mut fds = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|n| n > 0)
}

fn write(text: &str) {
    if can_write() {
        // Whether anybody sees it is not the link's concern.
        let _ = io::stderr().write_all(text.as_bytes());
    }
}

/// What indicatif draws, in memory: it is to be written at once, with the cursor at its beginning.
#[derive(Debug, Clone, Default)]
struct Line(Arc<Mutex<LineText>>);

#[derive(Debug, Default)]
struct LineText {
    width: u16,
    text: String,
}

impl TermLike for Line {
    fn width(&self) -> u16 {
        lock(&self.0).width
    }
    fn move_cursor_up(&self, _: usize) -> io::Result<()> {
        Ok(())
    }
    fn move_cursor_down(&self, _: usize) -> io::Result<()> {
        Ok(())
    }
    fn move_cursor_right(&self, _: usize) -> io::Result<()> {
        Ok(())
    }
    fn move_cursor_left(&self, _: usize) -> io::Result<()> {
        Ok(())
    }
    fn write_line(&self, text: &str) -> io::Result<()> {
        self.write_str(text)
    }
    fn write_str(&self, text: &str) -> io::Result<()> {
        match text {
            "\r" => lock(&self.0).text.clear(),
            text => lock(&self.0).text.push_str(text),
        }
        Ok(())
    }
    fn clear_line(&self) -> io::Result<()> {
        lock(&self.0).text.clear();
        Ok(())
    }
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_clean() {
        assert_eq!(short_name(OsStr::new("out/redis-server")), "redis-server");
        assert_eq!(short_name(OsStr::new("a\x1b[2J\nb")), "a?[2J?b");
        assert_eq!(short_name(OsStr::new(&"x".repeat(300))).len(), LONGEST_NAME);
    }

    #[test]
    fn what_a_link_does() {
        let mut counts = Counts::default();
        let says = |counts: &Counts| describe(counts, "server");
        assert_eq!(says(&counts), "lld reads its inputs");
        counts.running = 2;
        counts.done = 3;
        counts.cached = 1;
        assert_eq!(says(&counts), "3 modules, 2 compiling, 1 cached");
        counts.total = Some(13);
        counts.usual = Some(Duration::from_millis(2100));
        counts.waiting = 4;
        counts.waits_for = Some(WaitsFor::Resource(Resource::Memory));
        assert_eq!(says(&counts), "2 compiling, 4 wait for memory, 1 cached");
        counts.done = 5;
        assert_eq!(
            says(&counts),
            "2 compiling, 4 wait for memory, < 9 s left, 1 cached"
        );
        counts.running = 0;
        counts.waits_for = Some(WaitsFor::Elsewhere);
        assert_eq!(says(&counts), "4 wait for the server, 1 cached");
        counts.elsewhere = 2;
        assert_eq!(
            describe(&counts, "distributor"),
            "4 wait for the distributor, 1 cached, 2 from the distributor"
        );
        assert_eq!(
            describe(&counts, "clang"),
            "4 wait for clang, 1 cached, 2 by clang"
        );
        counts.elsewhere = 0;
        counts.waiting = 0;
        counts.done = 13;
        assert_eq!(says(&counts), "lld writes its output");
    }

    #[test]
    fn the_line_fits() {
        let line = Line::default();
        let target = ProgressDrawTarget::term_like(Box::new(line.clone()));
        let bar = ProgressBar::with_draw_target(Some(100), target);
        let template = "{prefix} [{bar:10}] {pos}/{len} {wide_msg}";
        bar.set_style(
            ProgressStyle::with_template(template)
                .unwrap()
                .progress_chars("=> "),
        );
        lock(&line.0).width = 50;
        bar.set_message("a long message that has no room on a line like this");
        bar.update(|state| state.set_pos(50));
        let text = std::mem::take(&mut lock(&line.0).text);
        assert!(text.contains("[=====>    ] 50/100 a long"), "{text}");
        assert_eq!(text.chars().count(), 50, "{text}");
    }
}
