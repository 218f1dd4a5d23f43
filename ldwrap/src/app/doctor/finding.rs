//! What the doctor finds, as lines for people, and the verdict.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

/// How good a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    /// It is as it should be.
    Ok,
    /// It works, and may yet not be what the user wants.
    Note,
    /// It is a problem.
    Bad,
}

/// How a line begins that puts the shim before lld.
pub(super) const EXPORT: &str = "export COMPILER_PATH=";

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) mark: Mark,
    /// What it is about, in a word or two.
    pub(super) subject: String,
    /// A sentence without a full stop.
    pub(super) text: String,
    /// What to do about it: a line to type where there is one.
    pub(super) fix: Option<String>,
    /// Whether no link at all is split because of it.
    pub(super) prevents: bool,
}

impl Finding {
    fn new(mark: Mark, subject: impl Display, text: impl Display, fix: Option<String>) -> Self {
        Self {
            mark,
            subject: one_line(&subject.to_string()),
            text: one_line(&text.to_string()),
            fix: fix.map(|fix| one_line(&fix)),
            prevents: false,
        }
    }

    pub(super) fn ok(subject: impl Display, text: impl Display) -> Self {
        Self::new(Mark::Ok, subject, text, None)
    }

    pub(super) fn note(subject: impl Display, text: impl Display, fix: Option<String>) -> Self {
        Self::new(Mark::Note, subject, text, fix)
    }

    pub(super) fn bad(subject: impl Display, text: impl Display, fix: impl Into<String>) -> Self {
        Self::new(Mark::Bad, subject, text, Some(fix.into()))
    }

    /// The same if no link is split because of it.
    pub(super) fn prevents(mut self, prevents: bool) -> Self {
        self.prevents = prevents;
        self
    }

    pub(super) fn is_bad(&self) -> bool {
        self.mark == Mark::Bad
    }

    /// Whether a setting of the shell mends it that `ldwrap run` does without.
    pub(super) fn wants_compiler_path(&self) -> bool {
        let fix = self.fix.as_ref();
        fix.is_some_and(|fix| fix.starts_with(EXPORT))
    }

    /// Its lines.
    fn shown(&self, colours: bool) -> String {
        let (mark, colour) = match self.mark {
            Mark::Ok => ("ok  ", "32"),
            Mark::Note => ("note", "33"),
            Mark::Bad => ("BAD ", "31"),
        };
        let mark = match colours {
            true => format!("\x1b[{colour}m{mark}\x1b[0m"),
            false => mark.to_owned(),
        };
        let mut text = format!("{mark} {}: {}\n", self.subject, self.text);
        if let Some(fix) = &self.fix {
            text.push_str(&format!("     -> {fix}\n"));
        }
        text
    }
}

/// What a program or server has said may have any number of lines, and characters that terminals obey.
fn one_line(text: &str) -> String {
    text.trim()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// All that is found, shown as it comes.
#[derive(Debug, Default)]
pub(super) struct Checkup {
    problems: usize,
    prevented: bool,
}

impl Checkup {
    /// Shows what was found, and counts it if it is bad.
    pub(super) fn add(&mut self, finding: Finding) {
        self.problems += usize::from(finding.is_bad());
        self.prevented |= finding.prevents;
        show(&finding);
    }

    /// Whether no link at all is split, as far as was found.
    pub(super) fn all_prevented(&self) -> bool {
        self.prevented
    }

    pub(super) fn add_all(&mut self, findings: impl IntoIterator<Item = Finding>) {
        for finding in findings {
            self.add(finding);
        }
    }

    /// Shows what was found for a compiler: it is wrong with that one only.
    pub(super) fn add_of_compiler(&mut self, findings: &[Finding], splits: bool) -> Tried {
        findings.iter().for_each(show);
        let problems = findings.iter().filter(|f| f.is_bad()).count();
        Tried { problems, splits }
    }

    /// Shows the verdict on all compilers. True if links will be split, and nothing is wrong.
    pub(super) fn conclude(&self, compilers: &[Tried]) -> bool {
        let (verdict, good) = self.verdict(compilers);
        print(&format!("{verdict}\n"));
        good
    }

    fn verdict(&self, compilers: &[Tried]) -> (String, bool) {
        let splits = !self.prevented && compilers.iter().any(|tried| tried.splits);
        // One compiler without problems is enough.
        let of_compilers = match compilers.iter().any(|tried| tried.problems == 0) {
            true => 0,
            false => compilers.iter().map(|tried| tried.problems).sum(),
        };
        let problems = self.problems + of_compilers;
        let counted = match problems {
            1 => "1 problem".to_owned(),
            n => format!("{n} problems"),
        };
        match (splits, problems) {
            (true, 0) => ("Links will be split.".into(), true),
            (true, _) => (
                format!("Links will be split, but not all is well: {counted}."),
                false,
            ),
            (false, _) => (format!("Links will not be split: {counted}."), false),
        }
    }
}

/// What came of trying a compiler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tried {
    problems: usize,
    /// Whether its links are split.
    splits: bool,
}

/// Where nobody reads it any more, the exit status still tells.
fn print(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}

fn show(finding: &Finding) {
    print(&finding.shown(io::stdout().is_terminal()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkup(problems: usize, prevented: bool) -> Checkup {
        Checkup {
            problems,
            prevented,
        }
    }

    #[test]
    fn verdicts() {
        let good = Tried {
            problems: 0,
            splits: true,
        };
        let bad = |problems| Tried {
            problems,
            splits: false,
        };
        let well = "Links will be split, but not all is well: 1 problem.";
        let one = "Links will not be split: 1 problem.";
        let four = "Links will not be split: 4 problems.";
        for (checkup, compilers, verdict) in [
            (checkup(0, false), &[good][..], "Links will be split."),
            (checkup(0, false), &[good, bad(2)], "Links will be split."),
            (checkup(1, false), &[good], well),
            (checkup(1, true), &[good], one),
            (checkup(1, false), &[bad(1), bad(2)], four),
            (checkup(1, false), &[bad(0), bad(2)], one),
            (checkup(1, false), &[], one),
        ] {
            let expected = (verdict.to_owned(), verdict == "Links will be split.");
            assert_eq!(checkup.verdict(compilers), expected);
        }
    }

    #[test]
    fn a_finding_is_a_line_and_what_mends_it_another() {
        let bad = Finding::bad("server", "no\nanswer\x1b[2J", "export A=b");
        assert_eq!(
            bad.shown(false),
            "BAD  server: no answer [2J\n     -> export A=b\n"
        );
        assert_eq!(Finding::ok("a", "b").shown(false), "ok   a: b\n");
        assert!(
            Finding::note("a", "b", None)
                .shown(true)
                .contains("\x1b[33m")
        );
    }
}
