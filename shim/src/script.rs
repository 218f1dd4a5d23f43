//! Linker scripts, as far as they name inputs.
//!
//! A script reaches lld as an input without magic number (`libc.so`), by `-T` or by
//! `--default-script`. Of all that it can say (lld/ELF/ScriptParser.cpp) only what names files matters here:
//! `INPUT`, `GROUP`, `AS_NEEDED`, `INCLUDE`, `SEARCH_DIR`, `TARGET`. The rest is skipped, which takes
//! lld's tokens (lld/ELF/ScriptLexer.cpp) and balanced brackets, but none of its expressions.
//!
//! This parser takes bytes and gives names; [`crate::inputs`] looks for the files. It refuses what lld
//! refuses at the top level, such as GNU ld's `STARTUP`.
//!
//! Known to differ from lld:
//!
//! * An `INCLUDE` within braces is not followed: there is no `INPUT` in there to be found. One at the
//!   top level has to hold whole directives, while lld splices tokens.
//! * LLVM 22 ends a word at `/*` in expressions, earlier ones do not. Here `/*` within a word never
//!   begins a comment, since in `dir/*.o` it is a pattern.
//! * An error within a directive that is skipped is not seen; lld will report it.

use std::fmt;

/// What a script says about inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// A file of an `INPUT`, `GROUP` or `AS_NEEDED`, without quotes: a path, `=path`, or `-lname`.
    Input(&'a [u8]),
    /// `SEARCH_DIR(dir)`: another `-L`, behind all others.
    SearchDir(&'a [u8]),
    /// `INCLUDE file`: a script to be read here.
    Include(&'a [u8]),
    /// `TARGET(name)`: `--format name`.
    Target(&'a [u8]),
}

/// Why a script can't be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScriptError {
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong there.
    pub what: &'static str,
}

impl fmt::Display for ScriptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

impl std::error::Error for ScriptError {}

/// A list of files that is being read.
#[derive(Clone, Copy)]
enum FileList {
    /// `INPUT(` or `GROUP(`.
    Plain,
    /// `AS_NEEDED(` within one of these.
    AsNeeded,
}

/// Reads a script from its start, command by command.
///
/// Each call of [`Parser::next_command`] reads no further than its answer, so that the caller can act
/// on a `SEARCH_DIR` before it looks for the next input, as lld does. It never recurses.
pub struct Parser<'a> {
    text: &'a [u8],
    pos: usize,
    list: Option<FileList>,
}

impl<'a> Parser<'a> {
    /// A parser of `text`, a whole script.
    pub fn new(text: &'a [u8]) -> Parser<'a> {
        Parser {
            text,
            pos: 0,
            list: None,
        }
    }

    /// The next command that says something about inputs, `None` at the end of the script.
    ///
    /// Fails on what lld would refuse, and on what can't be skipped; the parser is of no use then.
    pub fn next_command(&mut self) -> Result<Option<Command<'a>>, ScriptError> {
        loop {
            let command = match self.list {
                Some(list) => self.in_list(list)?,
                None => match self.token()? {
                    None => return Ok(None),
                    Some(token) => self.directive(token)?,
                },
            };
            if command.is_some() {
                return Ok(command);
            }
        }
    }

    /// An element of `INPUT( ... )` (`readInput`, `readAsNeeded`).
    fn in_list(&mut self, list: FileList) -> Result<Option<Command<'a>>, ScriptError> {
        match (self.required_token()?, list) {
            (b")", FileList::Plain) => self.list = None,
            (b")", FileList::AsNeeded) => self.list = Some(FileList::Plain),
            // Within AS_NEEDED it is a file of that name.
            (b"AS_NEEDED", FileList::Plain) => {
                self.expect(b"(", "( expected after AS_NEEDED")?;
                self.list = Some(FileList::AsNeeded);
            }
            (name, _) => return Ok(Some(Command::Input(unquote(name)))),
        }
        Ok(None)
    }

    /// A directive (`readLinkerScript`).
    fn directive(&mut self, token: &'a [u8]) -> Result<Option<Command<'a>>, ScriptError> {
        match token {
            b";" => {}
            b"INPUT" | b"GROUP" => {
                self.expect(b"(", "( expected after INPUT or GROUP")?;
                self.list = Some(FileList::Plain);
            }
            b"INCLUDE" => return Ok(Some(Command::Include(unquote(self.required_token()?)))),
            b"SEARCH_DIR" => return self.parenthesized().map(|n| Some(Command::SearchDir(n))),
            b"TARGET" => return self.parenthesized().map(|n| Some(Command::Target(n))),
            b"ENTRY" | b"EXTERN" | b"OUTPUT" | b"OUTPUT_ARCH" | b"OUTPUT_FORMAT"
            | b"REGION_ALIAS" | b"NOCROSSREFS" | b"NOCROSSREFS_TO" | b"ASSERT" | b"PROVIDE"
            | b"HIDDEN" | b"PROVIDE_HIDDEN" => self.skip(b"(", b")")?,
            b"MEMORY" | b"PHDRS" | b"VERSION" | b"OVERWRITE_SECTIONS" => self.skip(b"{", b"}")?,
            b"SECTIONS" => {
                self.skip(b"{", b"}")?;
                self.insert()?;
            }
            _ => self.assignment()?,
        }
        Ok(None)
    }

    /// Skips the end of `SECTIONS { ... } INSERT AFTER .text;`.
    fn insert(&mut self) -> Result<(), ScriptError> {
        let before = self.pos;
        if self.token()? != Some(b"INSERT") {
            self.pos = before;
            return Ok(());
        }
        match self.required_token()? {
            b"AFTER" | b"BEFORE" => self.required_token().map(|_| ()),
            _ => Err(self.error("AFTER or BEFORE expected after INSERT")),
        }
    }

    /// Skips what follows the symbol of an assignment (`readAssignment`): an operator, and all up to `;`.
    fn assignment(&mut self) -> Result<(), ScriptError> {
        let assigns = match self.token()? {
            Some([b'=', ..] | b"<<=" | b">>=") => true,
            Some([op, b'=']) => b"*/+-&^|".contains(op),
            _ => false,
        };
        if !assigns {
            return Err(self.error("unknown directive"));
        }
        while self.required_token()? != b";" {}
        Ok(())
    }

    /// The one word in parentheses.
    fn parenthesized(&mut self) -> Result<&'a [u8], ScriptError> {
        self.expect(b"(", "( expected")?;
        let token = self.required_token()?;
        self.expect(b")", ") expected")?;
        Ok(unquote(token))
    }

    /// Skips a bracket and all up to the one that closes it.
    fn skip(&mut self, open: &[u8], close: &[u8]) -> Result<(), ScriptError> {
        if self.required_token()? != open {
            return Err(self.error("( or { expected after a directive"));
        }
        let mut depth = 1usize;
        while depth > 0 {
            let token = self.required_token()?;
            if token == open {
                depth = depth.saturating_add(1);
            } else if token == close {
                depth -= 1;
            }
        }
        Ok(())
    }

    fn expect(&mut self, token: &[u8], what: &'static str) -> Result<(), ScriptError> {
        if self.required_token()? == token {
            Ok(())
        } else {
            Err(self.error(what))
        }
    }

    /// The next token; an error at the end of the script.
    fn required_token(&mut self) -> Result<&'a [u8], ScriptError> {
        self.token()?.ok_or_else(|| self.error("unexpected end"))
    }

    /// The next token, quotes included: a quoted word is never a keyword (`ScriptLexer::tokenize`).
    fn token(&mut self) -> Result<Option<&'a [u8]>, ScriptError> {
        self.skip_space()?;
        let rest = self.rest();
        let len = match rest {
            [] => return Ok(None),
            [b'"', quoted @ ..] => match quoted.iter().position(|&b| b == b'"') {
                Some(end) => end + 2,
                None => return Err(self.error("unclosed quote")),
            },
            [b'<', b'<', b'=', ..] | [b'>', b'>', b'=', ..] => 3,
            [
                b'*' | b'/' | b'+' | b'-' | b'<' | b'>' | b'&' | b'^' | b'|',
                b'=',
                ..,
            ] => 2,
            [b'<', b'<', ..] | [b'>', b'>', ..] | [b'&', b'&', ..] | [b'|', b'|', ..] => 2,
            _ => rest.iter().take_while(|&&b| in_word(b)).count().max(1),
        };
        self.pos = self.pos.saturating_add(len);
        Ok(rest.get(..len))
    }

    fn skip_space(&mut self) -> Result<(), ScriptError> {
        loop {
            let rest = self.rest();
            let len = match rest {
                [b'/', b'*', comment @ ..] => {
                    match comment.windows(2).position(|pair| pair == b"*/") {
                        Some(end) => end + 4,
                        None => return Err(self.error("unclosed comment")),
                    }
                }
                [b'#', ..] => match rest.iter().position(|&b| b == b'\n') {
                    Some(end) => end + 1,
                    None => rest.len(),
                },
                _ => {
                    let space = |&&b: &&u8| matches!(b, b' ' | b'\t'..=b'\r');
                    match rest.iter().take_while(space).count() {
                        0 => return Ok(()),
                        len => len,
                    }
                }
            };
            self.pos = self.pos.saturating_add(len);
        }
    }

    fn rest(&self) -> &'a [u8] {
        self.text.get(self.pos..).unwrap_or_default()
    }

    fn error(&self, what: &'static str) -> ScriptError {
        let read = self.text.get(..self.pos).unwrap_or(self.text);
        let line = read.iter().filter(|&&b| b == b'\n').count() + 1;
        ScriptError { line, what }
    }
}

fn in_word(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"_.$/\\~=+[]*?-!^:".contains(&b)
}

fn unquote(token: &[u8]) -> &[u8] {
    match token {
        [b'"', name @ .., b'"'] => name,
        _ => token,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &[u8]) -> Result<Vec<Command<'_>>, ScriptError> {
        let mut parser = Parser::new(text);
        let mut commands = Vec::new();
        while let Some(command) = parser.next_command()? {
            commands.push(command);
        }
        Ok(commands)
    }

    fn input(name: &str) -> Command<'_> {
        Command::Input(name.as_bytes())
    }

    #[test]
    fn the_script_of_glibc() {
        let text = b"/* GNU ld script\n*/\nOUTPUT_FORMAT(elf64-x86-64)\n\
            GROUP ( /lib/libc.so.6 /usr/lib/libc_nonshared.a  AS_NEEDED ( /lib64/ld-linux.so.2 ) -lm)\n";
        assert_eq!(
            all(text).unwrap(),
            [
                input("/lib/libc.so.6"),
                input("/usr/lib/libc_nonshared.a"),
                input("/lib64/ld-linux.so.2"),
                input("-lm"),
            ]
        );
    }

    #[test]
    fn directives_in_order() {
        let text = b"SEARCH_DIR(\"a dir\");SEARCH_DIR(=/lib)INCLUDE \"x y\" TARGET(binary)INPUT(a.o)INPUT()";
        assert_eq!(
            all(text).unwrap(),
            [
                Command::SearchDir(b"a dir"),
                Command::SearchDir(b"=/lib"),
                Command::Include(b"x y"),
                Command::Target(b"binary"),
                input("a.o"),
            ]
        );
    }

    #[test]
    fn everything_else_is_skipped() {
        let text = br#"
            ENTRY(_start) EXTERN(a b "c d") OUTPUT("a.out") OUTPUT_ARCH(i386:x86-64);
            OUTPUT_FORMAT("elf64-x86-64", "elf64-x86-64", "elf64-x86-64")
            MEMORY { ram (wx) : ORIGIN = 0x1000, LENGTH = 64K INCLUDE mem.t }
            REGION_ALIAS("alias", ram)
            PHDRS { text PT_LOAD FILEHDR PHDRS FLAGS(0x1 | 0x4); }
            VERSION { V1 { global: "INPUT(x)"; extern "C++" { "f(int)"; }; local: *; }; }
            SECTIONS {
              . = SIZEOF_HEADERS; /* } */
              .text : { *(.text .text.*) KEEP(*(SORT(.init_array.*))) dir/*.o(.x) "}"(.y) } :text =0x9090
              /DISCARD/ : { *(.note) }
              INPUT = 5;
            } INSERT AFTER .data;
            OVERWRITE_SECTIONS { .bss : { *(.bss) } }
            a = b ? 1 : ((2)); b += 3; c <<= 1; . =5; "quoted" = 1; HIDDEN(h = 1);
            PROVIDE_HIDDEN(p = ADDR(.text)); ASSERT(1 == 1, "no; not ) that") ASSERT(1, "x");
            NOCROSSREFS(.a .b)
            # a comment; INPUT(no.o)
            INPUT(yes.o) # and one at the end"#;
        assert_eq!(all(text).unwrap(), [input("yes.o")]);
    }

    #[test]
    fn names_are_bytes() {
        let text = b"INPUT(\"\xff\xfe (x)\" a+b~c.o lib[1]*.o \"\" ,)";
        let names: Vec<_> = all(text)
            .unwrap()
            .into_iter()
            .map(|command| match command {
                Command::Input(name) => name,
                _ => panic!("no input: {command:?}"),
            })
            .collect();
        let want: [&[u8]; 5] = [b"\xff\xfe (x)", b"a+b~c.o", b"lib[1]*.o", b"", b","];
        assert_eq!(names, want);
    }

    #[test]
    fn as_needed_does_not_nest() {
        let text = b"INPUT(AS_NEEDED(a AS_NEEDED) b \"AS_NEEDED\")";
        let names = ["a", "AS_NEEDED", "b", "AS_NEEDED"].map(input);
        assert_eq!(all(text).unwrap(), names);
    }

    #[test]
    fn what_lld_refuses() {
        for (text, what) in [
            (&b"STARTUP(a.o)"[..], "unknown directive"),
            (b"foo=1;", "unknown directive"),
            (b"\x01\x02", "unknown directive"),
            (b"INPUT a.o", "( expected after INPUT or GROUP"),
            (b"INPUT(a.o", "unexpected end"),
            (b"SECTIONS { .text : { }", "unexpected end"),
            (b"a = 1", "unexpected end"),
            (b"INPUT(\"a.o)", "unclosed quote"),
            (b"/* ", "unclosed comment"),
            (b"/*/", "unclosed comment"),
            (
                b"SECTIONS {} INSERT .text;",
                "AFTER or BEFORE expected after INSERT",
            ),
            (b"SEARCH_DIR(a b)", ") expected"),
        ] {
            assert_eq!(
                all(text).unwrap_err().what,
                what,
                "{:?}",
                text.escape_ascii()
            );
        }
        assert_eq!(all(b"\n\nfoo bar").unwrap_err().line, 3);
    }

    /// Scripts cut, spliced and overwritten at random: an answer, in linear time, and names that are
    /// parts of the text.
    #[test]
    fn hostile_scripts() {
        let seeds: [&[u8]; 4] = [
            b"GROUP ( /lib/libc.so.6 AS_NEEDED ( \"a b\" -lm ) ) SEARCH_DIR(=x)",
            b"SECTIONS { .text : { *(.text) } } INSERT AFTER .x; INPUT(a)",
            b"/* c */ # d\nINCLUDE x; a <<= 1; VERSION { V { local: *; }; } INPUT(b)",
            b"{{{{((((\"\"\"\"))))}}}}",
        ];
        let mut random = fastrand::Rng::with_seed(1);
        let mut below = |n: usize| random.usize(..n);
        for _ in 0..20_000 {
            let mut text = seeds[below(seeds.len())].to_vec();
            for _ in 0..=below(6) {
                let at = below(text.len());
                match below(4) {
                    0 => text[at] = b"(){}\"/*#;=\n\0\xff AI"[below(16)],
                    1 => text.truncate(at.max(1)),
                    2 => {
                        let piece = seeds[below(seeds.len())];
                        let piece = &piece[..below(piece.len())];
                        text.splice(at..at, piece.iter().copied());
                    }
                    _ => text[at] = below(256) as u8,
                }
            }
            let _ = all(&text);
        }
    }
}
