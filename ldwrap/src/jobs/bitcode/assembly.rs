//! Whether assembly in a module may read files when it is compiled: by a directive that is in its text, or by one that
//! is put together while it is assembled.
//!
//! The name of a directive that is not in the text as it stands has parts that meet at a sign: `\` in the body of a
//! macro or loop, a quote in an argument (strings lose theirs, `AsmParser::expandMacro`,
//! llvm/lib/MC/MCParser/AsmParser.cpp), `$` for operands and alternatives of what is inline in a function
//! (llvm/lib/CodeGen/AsmPrinter/AsmPrinterInlineAsm.cpp). The first of its parts is the dot or `.in`, say, or is put in
//! itself: that is what is looked for before a sign. Who is suspected wrongly is compiled by lld, no more.

/// Directives that read files; and the one after which parts of a macro meet without a sign.
const WORDS: [&[u8]; 3] = [b"incbin", b"include", b"altmacro"];

/// Whether assembly, a number for each character, may read files. The case of directives does not matter.
pub(super) fn may_read_files(text: &[u64]) -> bool {
    let lower = |&c: &u64| u8::try_from(c).map_or(0, |c| c.to_ascii_lowercase());
    let text: Vec<u8> = text.iter().map(lower).collect();
    let has = |word: &&[u8]| text.windows(word.len()).any(|part| part == *word);
    WORDS.iter().any(has)
        || (0..text.len()).any(|at| match text.split_at(at) {
            (before, [b'\\' | b'$', ..]) => may_begin_directive(before),
            ([.., left], [b'"', right, ..]) => may_meet(*left) && may_meet(*right),
            _ => false,
        })
}

/// Whether what is put in behind `before` may go on with the name of a directive.
fn may_begin_directive(before: &[u8]) -> bool {
    let outside = before.iter().rposition(|&c| !is_identifier(c));
    let identifier = before.get(outside.map_or(0, |at| at + 1)..);
    let identifier = identifier.unwrap_or_default();
    if identifier.is_empty() {
        // Put in just before.
        return [&b"\\()"[..], b"$)", b"}"]
            .iter()
            .any(|end| before.ends_with(end));
    }
    let dot = identifier.iter().rposition(|c| b".$".contains(c));
    let name = identifier.get(dot.map_or(0, |at| at + 1)..);
    let name = name.unwrap_or_default();
    let is_argument = outside.is_some_and(|at| before.get(at) == Some(&b'\\'));
    match dot.and_then(|at| identifier.get(at)) {
        _ if is_argument => true,
        Some(b'.') if name.is_empty() => true,
        // An operand.
        Some(b'$') if !name.is_empty() => true,
        _ => !name.is_empty() && WORDS.iter().any(|word| word.starts_with(name)),
    }
}

/// As the assembler has it (`isIdentifierChar`).
fn is_identifier(c: u8) -> bool {
    c.is_ascii_alphanumeric() || b"_$.".contains(&c)
}

/// Whether a name may go on across a quote with this beside it.
fn may_meet(c: u8) -> bool {
    is_identifier(c) || b"\\\")}".contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn may_read(text: &str) -> bool {
        may_read_files(&text.bytes().map(u64::from).collect::<Vec<_>>())
    }

    #[test]
    fn directives_that_read_files() {
        for text in [
            ".incbin \"x\"",
            "a: .INCLUDE \"x\"",
            ".macro embed kind, file\n.\\kind \"\\file\"\n.endm\nembed inc, x",
            "embed kind=incbin",
            ".rept 1\n.inc\\()bin \"x\"\n.endr",
            ".In\\a \"x\"",
            "\\a\\b \"x\"",
            "\\()\\a",
            "\\a.b\\c",
            "embed .inc\"bin\", x",
            "embed \"inc\"\"bin\", x",
            "outer \\a\"bin\"",
            ".$0 \"x\"",
            ".inc${0:c} \"x\"",
            ".inc$(bin$|x$) \"x\"",
            "$0$1",
            "${0:c}$1",
            ".altmacro",
        ] {
            assert!(may_read(text), "{text}");
        }
    }

    #[test]
    fn directives_that_do_not() {
        for text in [
            "",
            "\\",
            "\"",
            ".pushsection .text.asm,\"ax\"\n.globl f\nf: lea 4(%rdi),%eax\nret\n.popsection",
            ".section .note,\"a\",@note\n.asciz \"\"\n.string \"some text\\n\"",
            ".irp num,0,1,2\n.equ .L__gpr_num_x\\num, \\num\n.endr",
            ".macro type reg:req\n.ifc \\reg, %rax\n.long \\reg + \\@\n.endif\n.endm",
            "addl $1, $0\n\tmov $$5, ${2:k}\n.L_here_${:uid}: call ${3:P}",
        ] {
            assert!(!may_read(text), "{text}");
        }
    }
}
