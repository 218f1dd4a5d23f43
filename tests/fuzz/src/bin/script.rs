//! Linker scripts: names are parts of the text, in order.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shim::script::{Command, Parser};

fuzz_target!(|data: &[u8]| {
    let mut parser = Parser::new(data);
    let mut at = data.as_ptr();
    loop {
        match parser.next_command() {
            Ok(Some(
                Command::Input(name)
                | Command::SearchDir(name)
                | Command::Include(name)
                | Command::Target(name),
            )) => {
                let name = name.as_ptr_range();
                assert!(at <= name.start && name.end <= data.as_ptr_range().end);
                at = name.end;
            }
            Ok(None) => break,
            Err(e) => {
                assert!(e.line <= 1 + data.iter().filter(|&&b| b == b'\n').count());
                break;
            }
        }
    }
});
