//! Response files (`@file`) as lld reads and we write them.
//!
//! lld expands them with LLVM's `cl::ExpandResponseFiles` (llvm/lib/Support/CommandLine.cpp), from
//! a driver of its own (lld/ELF/DriverUtils.cpp). That means:
//!
//! - Quotes and backslashes are GNU's by default, Windows' with `--rsp-quoting=windows`, which
//!   counts on the command line only, not inside a response file.
//! - A file may name other files. Relative names are relative to the working directory, not to the
//!   naming file.
//! - `@file` stays as an argument when there is no such file; lld then fails on it as an input.
//!   Any other fault (a directory, no permission, a cycle) ends the expansion with an error in
//!   lld 16 and later and leaves the argument in 14. Such links fail either way, so here it is an
//!   error and the caller leaves the link to the real lld, which says it in its own words.
//! - A byte order mark is dropped, and UTF-16 is converted.
//! - Arguments are C strings: what follows a zero byte is lost.
//! - With GNU quoting an empty pair of quotes is no argument at all.
//!
//! Pipes and devices are refused, since reading them would take the bytes from the real lld.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Deepest nesting of response files that is followed. lld has no limit but its stack.
const MAX_DEPTH: usize = 64;

/// Most bytes read from all response files of a command line together; files that name one another
/// many times would grow without bound.
const MAX_BYTES: u64 = 256 << 20;

/// What a file counts for at least (bytes) toward [`MAX_BYTES`], since opening an empty one takes time too.
const MIN_BYTES: u64 = 4 << 10;

/// How a response file is split into words (`--rsp-quoting`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quoting {
    /// `posix`, the default.
    Gnu,
    /// `windows`.
    Windows,
}

/// Why response files could not be expanded.
#[derive(Debug)]
pub struct ResponseError {
    /// The file as it was named after `@`.
    pub file: PathBuf,
    /// What is wrong with it.
    pub reason: Reason,
}

/// What is wrong with a response file.
#[derive(Debug)]
pub enum Reason {
    /// It exists and can't be read; a directory, say.
    Unreadable(io::Error),
    /// A pipe, socket or device.
    NotRegular,
    /// It names itself, directly or through others.
    Recursive,
    /// Nested more than `MAX_DEPTH` deep.
    TooDeep,
    /// More than `MAX_BYTES` in all.
    TooLarge,
    /// It begins with a UTF-16 byte order mark and is not UTF-16.
    NotUtf16,
    /// It ends within quotes, under Windows quoting: what lld makes of that depends on the release.
    Unterminated,
}

impl fmt::Display for ResponseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "response file '{}': ", self.file.display())?;
        match &self.reason {
            Reason::Unreadable(error) => write!(f, "cannot read it: {error}"),
            Reason::NotRegular => write!(f, "it is not a regular file, and lld must read it too"),
            Reason::Recursive => write!(f, "it includes itself"),
            Reason::TooDeep => write!(f, "nested more than {MAX_DEPTH} deep"),
            Reason::TooLarge => write!(f, "more than {MAX_BYTES} bytes in all response files"),
            Reason::NotUtf16 => write!(f, "it has a UTF-16 byte order mark but is not UTF-16"),
            Reason::Unterminated => write!(f, "it ends within double quotes"),
        }
    }
}

impl std::error::Error for ResponseError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.reason {
            Reason::Unreadable(error) => Some(error),
            _ => None,
        }
    }
}

/// Replaces each `@file` in `args` by the words of that file, again and again, as lld does, until none is
/// left but those that name no file.
///
/// # Errors
/// A file that exists but can't be used; see [`Reason`]. One that doesn't exist is no error.
pub fn expand(args: &[OsString], quoting: Quoting) -> Result<Vec<OsString>, ResponseError> {
    let mut expansion = Expansion {
        quoting,
        bytes_left: MAX_BYTES,
        open: Vec::new(),
        expanded: Vec::new(),
    };
    for arg in args {
        expansion.push(arg.clone())?;
    }
    Ok(expansion.expanded)
}

/// The state of an expansion.
struct Expansion {
    quoting: Quoting,
    bytes_left: u64,
    /// Device and inode of the files whose words are being expanded, outermost first.
    open: Vec<(u64, u64)>,
    expanded: Vec<OsString>,
}

impl Expansion {
    fn push(&mut self, arg: OsString) -> Result<(), ResponseError> {
        let Some(name) = arg.as_bytes().strip_prefix(b"@") else {
            self.expanded.push(arg);
            return Ok(());
        };
        let path = Path::new(OsStr::from_bytes(name)).to_path_buf();
        let fail = |reason| ResponseError {
            file: path.clone(),
            reason,
        };
        // `@` alone is the working directory to lld, hence an error like any directory.
        let target = if name.is_empty() {
            Path::new(".")
        } else {
            path.as_path()
        };
        let metadata = match fs::metadata(target) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.expanded.push(arg);
                return Ok(());
            }
            Err(error) => return Err(fail(Reason::Unreadable(error))),
        };
        if !metadata.is_file() && !metadata.is_dir() {
            return Err(fail(Reason::NotRegular));
        }
        let identity = (metadata.dev(), metadata.ino());
        if self.open.contains(&identity) {
            return Err(fail(Reason::Recursive));
        }
        if self.open.len() >= MAX_DEPTH {
            return Err(fail(Reason::TooDeep));
        }
        let mut bytes = Vec::new();
        fs::File::open(target)
            .and_then(|file| {
                let limit = self.bytes_left.saturating_add(1);
                file.take(limit).read_to_end(&mut bytes)
            })
            .map_err(|error| fail(Reason::Unreadable(error)))?;
        self.bytes_left = u64::try_from(bytes.len())
            .ok()
            .and_then(|read| self.bytes_left.checked_sub(read.max(MIN_BYTES)))
            .ok_or_else(|| fail(Reason::TooLarge))?;
        let words = words(&bytes, self.quoting).map_err(fail)?;
        self.open.push(identity);
        for word in words {
            self.push(word)?;
        }
        self.open.pop();
        Ok(())
    }
}

/// The words of one response file: byte order mark, then quoting.
fn words(bytes: &[u8], quoting: Quoting) -> Result<Vec<OsString>, Reason> {
    let utf8;
    let text = match bytes {
        [0xff, 0xfe, rest @ ..] => {
            utf8 = utf16_to_utf8(rest, u16::from_le_bytes).ok_or(Reason::NotUtf16)?;
            utf8.as_bytes()
        }
        [0xfe, 0xff, rest @ ..] => {
            utf8 = utf16_to_utf8(rest, u16::from_be_bytes).ok_or(Reason::NotUtf16)?;
            utf8.as_bytes()
        }
        [0xef, 0xbb, 0xbf, rest @ ..] => rest,
        _ => bytes,
    };
    match quoting {
        Quoting::Gnu => Ok(tokenize_gnu(text)),
        Quoting::Windows => {
            let (words, terminated) = tokenize_windows(text);
            terminated.then_some(words).ok_or(Reason::Unterminated)
        }
    }
}

fn utf16_to_utf8(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Option<String> {
    let pairs = bytes.chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    let units = pairs.filter_map(|pair| pair.try_into().ok()).map(unit);
    char::decode_utf16(units)
        .collect::<Result<String, _>>()
        .ok()
}

/// A finished word as lld keeps it: a C string.
fn c_string(mut word: Vec<u8>) -> OsString {
    if let Some(end) = word.iter().position(|&byte| byte == 0) {
        word.truncate(end);
    }
    OsString::from_vec(word)
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// Splits text as lld does by default (`cl::TokenizeGNUCommandLine`): blanks separate, single and
/// double quotes protect, and a backslash takes the next byte literally, within either kind of
/// quotes too. An open quote ends with the text. Nothing between quotes is no word.
#[must_use]
pub fn tokenize_gnu(text: &[u8]) -> Vec<OsString> {
    let mut words = Vec::new();
    let mut word = Vec::new();
    let mut quote = None;
    let mut bytes = text.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match (byte, quote) {
            // As the last byte of the text a backslash is itself.
            (b'\\', _) => word.push(bytes.next().unwrap_or(b'\\')),
            (_, Some(open)) if byte == open => quote = None,
            (_, Some(_)) => word.push(byte),
            (b'"' | b'\'', None) => quote = Some(byte),
            (_, None) if is_blank(byte) => {
                if !word.is_empty() {
                    words.push(c_string(std::mem::take(&mut word)));
                }
            }
            (_, None) => word.push(byte),
        }
    }
    if !word.is_empty() {
        words.push(c_string(word));
    }
    words
}

/// Splits text as lld does with `--rsp-quoting=windows` (`cl::TokenizeWindowsCommandLine`): only
/// double quotes protect, two of them within quotes are one, and backslashes are themselves except
/// before a double quote, where two stand for one and an odd last one makes the quote literal.
///
/// The words, and whether the last one's quotes were closed.
fn tokenize_windows(text: &[u8]) -> (Vec<OsString>, bool) {
    let mut words = Vec::new();
    // Some once a word has begun, be it an empty pair of quotes.
    let mut word: Option<Vec<u8>> = None;
    let mut quoted = false;
    let mut rest = text;
    while let [byte, after @ ..] = rest {
        rest = after;
        match *byte {
            b'\\' => {
                let more = rest.iter().take_while(|&&byte| byte == b'\\').count();
                rest = rest.get(more..).unwrap_or_default();
                let run = more.saturating_add(1);
                let word = word.get_or_insert_default();
                if let [b'"', after @ ..] = rest {
                    word.extend(std::iter::repeat_n(b'\\', run / 2));
                    if run % 2 == 1 {
                        word.push(b'"');
                        rest = after;
                    }
                } else {
                    word.extend(std::iter::repeat_n(b'\\', run));
                }
            }
            b'"' if quoted => {
                if let [b'"', after @ ..] = rest {
                    word.get_or_insert_default().push(b'"');
                    rest = after;
                } else {
                    quoted = false;
                }
            }
            b'"' => {
                word.get_or_insert_default();
                quoted = true;
            }
            byte if !quoted && (byte == 0 || is_blank(byte)) => {
                words.extend(word.take().map(c_string));
            }
            byte => word.get_or_insert_default().push(byte),
        }
    }
    words.extend(word.map(c_string));
    (words, !quoted)
}

/// One argument as a word for a response file that lld (with GNU quoting) reads back as exactly
/// these bytes. Separate words with blanks or newlines.
///
/// An empty argument becomes a zero byte: lld drops empty quotes, but a word that begins with zero
/// is one whose C string is empty. An argument that begins with `@` can't be protected from being
/// expanded: if it names a file, lld reads that file, as it does on the command line.
fn quote_gnu(arg: &OsStr) -> Vec<u8> {
    let bytes = arg.as_bytes();
    if bytes.is_empty() {
        return vec![0];
    }
    // Bytes outside ASCII are quoted too: at the start of a file they could be a byte order mark.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./=+,:@%".contains(&byte);
    if bytes.iter().all(|&byte| plain(byte)) {
        return bytes.to_vec();
    }
    let mut quoted = Vec::with_capacity(bytes.len().saturating_add(2));
    quoted.push(b'"');
    for &byte in bytes {
        if byte == b'"' || byte == b'\\' {
            quoted.push(b'\\');
        }
        quoted.push(byte);
    }
    quoted.push(b'"');
    quoted
}

/// The bytes of a response file that lld (with GNU quoting) reads back as `args`, a line each.
#[must_use]
pub fn write_gnu<'a>(args: impl IntoIterator<Item = &'a OsStr>) -> Vec<u8> {
    let mut text = Vec::new();
    for arg in args {
        text.extend(quote_gnu(arg));
        text.push(b'\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use fastrand::Rng;

    fn strings(words: Vec<OsString>) -> Vec<String> {
        words
            .into_iter()
            .map(|word| word.into_string().unwrap())
            .collect()
    }

    #[test]
    fn gnu_words() {
        for (text, expected) in [
            ("", vec![]),
            (" \t\r\n ", vec![]),
            ("a b\nc", vec!["a", "b", "c"]),
            ("'a b'\"c d\"e", vec!["a bc de"]),
            ("a\\ b \\\"c\\' \\\\", vec!["a b", "\"c'", "\\"]),
            ("'a\\'b' \"a\\\"b\" \"a'b\"", vec!["a'b", "a\"b", "a'b"]),
            ("'' \"\" a''", vec!["a"]),
            ("\"open and end", vec!["open and end"]),
            ("end\\", vec!["end\\"]),
            ("'end\\", vec!["end\\"]),
            ("a\0b c", vec!["a", "c"]),
            ("\0 a", vec!["", "a"]),
        ] {
            assert_eq!(strings(tokenize_gnu(text.as_bytes())), expected, "{text:?}");
        }
    }

    #[test]
    fn windows_words() {
        for (text, expected) in [
            ("", vec![]),
            (r"a\b 'c d'", vec![r"a\b", "'c", "d'"]),
            (r#""a b"c"#, vec!["a bc"]),
            (r#"\" \\" x" \\\"#, vec!["\"", r"\ x", r"\\\"]),
            (r#""a""b" """#, vec![r#"a"b"#, ""]),
            ("\"\" x", vec!["", "x"]),
            ("a\0b", vec!["a", "b"]),
            (r#""\\" y"#, vec![r"\", "y"]),
        ] {
            assert_eq!(
                strings(tokenize_windows(text.as_bytes()).0),
                expected,
                "{text:?}"
            );
        }
    }

    fn nasty_arg(random: &mut Rng) -> OsString {
        const NASTY: &[u8] = b"\\\\\"\"''  \t\r\n@a=-\xef\xbb\xbf\xff\xfe\x01";
        let len = random.usize(..9);
        let byte = |_| NASTY[random.usize(..NASTY.len())];
        OsString::from_vec((0..len).map(byte).collect())
    }

    #[test]
    fn quoted_words_read_back_as_they_were() {
        let mut random = Rng::with_seed(1);
        for _ in 0..20_000 {
            let count = random.usize(..5);
            let args: Vec<OsString> = (0..count).map(|_| nasty_arg(&mut random)).collect();
            let text = write_gnu(args.iter().map(OsString::as_os_str));
            assert_eq!(
                words(&text, Quoting::Gnu).unwrap(),
                args,
                "{}",
                text.escape_ascii()
            );
        }
    }

    #[test]
    fn every_text_has_words() {
        let mut random = Rng::with_seed(42);
        for _ in 0..20_000 {
            let text = nasty_arg(&mut random);
            assert!(tokenize_gnu(text.as_bytes()).len() <= text.len());
            assert!(tokenize_windows(text.as_bytes()).0.len() <= text.len());
        }
    }

    /// A directory of its own for one test, removed at its end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("shim-rsp-{}-{name}", std::process::id()));
            fs::create_dir_all(&dir).unwrap();
            Scratch(dir)
        }

        fn file(&self, name: &str, text: impl AsRef<[u8]>) -> OsString {
            let path = self.0.join(name);
            fs::write(&path, text).unwrap();
            let mut arg = OsString::from("@");
            arg.push(&path);
            arg
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn nested_and_missing_files() {
        let scratch = Scratch::new("nested");
        let inner = scratch.file("inner", "x 'y z'");
        let mut text = b"a @no-such-file ".to_vec();
        text.extend(inner.as_bytes());
        text.extend(b" b");
        let outer = scratch.file("outer", text);
        let args = [outer.clone(), "c".into(), inner.clone()];
        let expanded = expand(&args, Quoting::Gnu).unwrap();
        assert_eq!(
            expanded,
            ["a", "@no-such-file", "x", "y z", "b", "c", "x", "y z"].map(OsString::from)
        );
    }

    #[test]
    fn hostile_files_are_refused() {
        let scratch = Scratch::new("hostile");
        let reason = |arg: OsString| expand(&[arg], Quoting::Gnu).unwrap_err().reason;
        let dir = {
            let mut arg = OsString::from("@");
            arg.push(&scratch.0);
            arg
        };
        assert!(matches!(reason(dir), Reason::Unreadable(_)));
        assert!(matches!(reason("@".into()), Reason::Unreadable(_)));
        assert!(matches!(reason("@/dev/null".into()), Reason::NotRegular));
        let cycle = scratch.0.join("cycle");
        let text = [b"@", cycle.as_os_str().as_bytes()].concat();
        assert!(matches!(
            reason(scratch.file("cycle", text)),
            Reason::Recursive
        ));
        assert!(matches!(
            reason(scratch.file("odd", b"\xff\xfea")),
            Reason::NotUtf16
        ));
        assert!(matches!(
            reason(scratch.file("lone", b"\xff\xfe\x00\xd8")),
            Reason::NotUtf16
        ));
        // A chain one deeper than allowed.
        let mut arg = scratch.file("deep", "x");
        for level in 0..MAX_DEPTH {
            arg = scratch.file(&format!("deep{level}"), arg.as_bytes());
        }
        assert!(matches!(reason(arg), Reason::TooDeep));
        // Empty files, very many times.
        let text = [scratch.file("empty", "").as_bytes(), b" "].concat();
        let times = usize::try_from(MAX_BYTES / MIN_BYTES).unwrap();
        let many = scratch.file("many", text.repeat(times));
        assert!(matches!(reason(many), Reason::TooLarge));
    }

    #[test]
    fn byte_order_marks() {
        let scratch = Scratch::new("bom");
        for (name, text) in [
            ("utf8", &b"\xef\xbb\xbfa b"[..]),
            ("le", b"\xff\xfea\0 \0b\0"),
            ("be", b"\xfe\xff\0a\0 \0b"),
        ] {
            let expanded = expand(&[scratch.file(name, text)], Quoting::Gnu).unwrap();
            assert_eq!(expanded, ["a", "b"].map(OsString::from), "{name}");
        }
    }
}
