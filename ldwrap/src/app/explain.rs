//! How two files differ, in the terms of the person who linked them: section and symbol for ELF, line
//! for text.

use object::{Object, ObjectSection, ObjectSymbol, SectionKind};
use std::collections::{HashMap, HashSet};

/// More than these are counted, not told.
const MAX_SECTIONS: usize = 3;
/// Lines of text are cut here.
const MAX_LINE: usize = 200;

/// The first differences between lld's own file and the split's; none if they are equal.
#[must_use]
pub fn differences(plain: &[u8], split: &[u8]) -> Vec<String> {
    if plain == split {
        return Vec::new();
    }
    if let (Ok(a), Ok(b)) = (object::File::parse(plain), object::File::parse(split)) {
        let told = of_elf(&a, &b);
        if !told.is_empty() {
            return told;
        }
    } else if let (Ok(a), Ok(b)) = (std::str::from_utf8(plain), std::str::from_utf8(split)) {
        return of_text(a, b);
    }
    let at = first(plain, split);
    let sizes = if plain.len() == split.len() {
        String::new()
    } else {
        format!(
            "{} bytes with lld alone, {} split; ",
            plain.len(),
            split.len()
        )
    };
    vec![format!("{sizes}the first difference is at byte {at:#x}")]
}

/// Where two byte strings that differ do so first.
fn first(a: &[u8], b: &[u8]) -> usize {
    a.iter()
        .zip(b)
        .position(|(a, b)| a != b)
        .unwrap_or(a.len().min(b.len()))
}

fn of_text(plain: &str, split: &str) -> Vec<String> {
    let (mut a, mut b) = (plain.lines(), split.lines());
    let mut number = 0;
    loop {
        number += 1;
        let (a, b) = (a.next(), b.next());
        if a != b || a.is_none() {
            let show = |line: Option<&str>| {
                line.map_or_else(
                    || "nothing".to_owned(),
                    |line| format!("{:?}", line.chars().take(MAX_LINE).collect::<String>()),
                )
            };
            return vec![format!(
                "line {number}: {} with lld alone, {} split",
                show(a),
                show(b)
            )];
        }
    }
}

/// A section's name, and which of that name it is.
type Key = (String, usize);

struct Section<'d> {
    key: Key,
    address: u64,
    size: u64,
    data: &'d [u8],
    /// Code before data before what follows from them: tables of symbols, relocations, notes.
    rank: u8,
    index: object::SectionIndex,
}

fn sections<'d>(file: &object::File<'d>) -> Vec<Section<'d>> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    file.sections()
        .map(|section| {
            let name = String::from_utf8_lossy(section.name_bytes().unwrap_or_default());
            let nth = seen.entry(name.clone().into_owned()).or_default();
            *nth += 1;
            Section {
                key: (name.into_owned(), *nth),
                address: section.address(),
                size: section.size(),
                data: section.data().unwrap_or_default(),
                rank: match section.kind() {
                    SectionKind::Text => 0,
                    SectionKind::Note | SectionKind::Metadata | SectionKind::Elf(_) => 2,
                    _ => 1,
                },
                index: section.index(),
            }
        })
        .collect()
}

/// What differs between two ELF files; nothing if it is in none of their sections.
fn of_elf(plain: &object::File<'_>, split: &object::File<'_>) -> Vec<String> {
    let (a, b) = (sections(plain), sections(split));
    let in_b: HashMap<&Key, &Section<'_>> = b.iter().map(|s| (&s.key, s)).collect();
    let in_a: HashSet<&Key> = a.iter().map(|s| &s.key).collect();
    let mut told = Vec::new();
    for section in &a {
        let name = &section.key.0;
        let text = match in_b.get(&section.key) {
            None => format!("section {name} is there with lld alone only"),
            Some(other) if other.size == section.size && other.data == section.data => continue,
            Some(other) => {
                let at = first(section.data, other.data);
                let sizes = if section.size == other.size {
                    String::new()
                } else {
                    format!(
                        ": {} bytes with lld alone, {} split",
                        section.size, other.size
                    )
                };
                let symbol = symbol_at(plain, section, at)
                    .map_or_else(String::new, |symbol| format!(", in {symbol}"));
                format!("section {name}{sizes}: differs first at +{at:#x}{symbol}")
            }
        };
        told.push((section.rank, text));
    }
    for section in b.iter().filter(|s| !in_a.contains(&s.key)) {
        let text = format!("section {} is there in the split link only", section.key.0);
        told.push((section.rank, text));
    }
    told.sort_by_key(|(rank, _)| *rank);
    let more = told.len().saturating_sub(MAX_SECTIONS);
    let mut told: Vec<String> = told.into_iter().map(|(_, text)| text).collect();
    told.truncate(MAX_SECTIONS);
    if more > 0 {
        told.push(format!("and {more} more sections"));
    }
    told
}

/// The symbol that covers an offset of a section, or the nearest before it.
fn symbol_at(file: &object::File<'_>, section: &Section<'_>, at: usize) -> Option<String> {
    let address = section.address + u64::try_from(at).ok()?;
    file.symbols()
        .chain(file.dynamic_symbols())
        .filter(|s| s.section_index() == Some(section.index))
        .filter(|s| s.address() <= address && !s.name_bytes().unwrap_or_default().is_empty())
        .max_by_key(ObjectSymbol::address)
        .map(|s| String::from_utf8_lossy(s.name_bytes().unwrap_or_default()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_files_have_no_differences() {
        assert!(differences(b"same", b"same").is_empty());
    }

    #[test]
    fn text_is_told_by_line() {
        assert_eq!(
            differences(b"a\nb\nc\n", b"a\nx\nc\n"),
            [r#"line 2: "b" with lld alone, "x" split"#]
        );
        assert_eq!(
            differences(b"a\nb\n", b"a\n"),
            [r#"line 2: "b" with lld alone, nothing split"#]
        );
        // The same lines, ended in other ways.
        assert_eq!(differences(b"a\n", b"a\r\n").len(), 1);
    }

    #[test]
    fn bytes_are_told_by_position() {
        assert_eq!(
            differences(b"\xffab", b"\xffac\0"),
            ["3 bytes with lld alone, 4 split; the first difference is at byte 0x2"]
        );
        // Half an ELF file is bytes too.
        assert_eq!(differences(b"\x7fELF\x02\xff", b"\x7fELF\x01\xff").len(), 1);
    }
}
