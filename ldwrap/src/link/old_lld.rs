//! What lld before 18 does otherwise when it has a ThinLTO cache, and which links are therefore left to
//! it alone: it names cached objects by their entries ([`super::cached_names`]), which a linker script
//! can match, and it puts them behind those of modules that make no lookup.

use crate::jobs::bitcode::module;
use crate::jobs::modules::with_input;
use shim::cmdline::CommandLine;
use shim::inputs::{self, Visit};
use shim::kind::Kind;
use shim::options::Id;
use std::path::Path;

/// Parts of both names of an object. A linker script that has one of them in it might tell them apart.
const PARTS_OF_NAMES: [&[u8]; 5] = [b"lto", b"tmp", b"proc", b"llvm", b"cache"];

/// Whether a link comes out the same with a cache; `Err` is the reason to leave it to lld alone.
pub fn check(cmd: &CommandLine) -> Result<(), String> {
    if let Some(map) = cmd.last(Id::Map) {
        if map != "-" && std::fs::metadata(map).is_ok_and(|m| !m.is_file()) {
            return Err(format!(
                "the map {} is no plain file, and this lld names cached objects in it",
                map.to_string_lossy()
            ));
        }
    }
    // A look at what can be read once would be the last.
    if let Some(input) = cmd
        .inputs()
        .find(|i| std::fs::metadata(i).is_ok_and(|m| !m.is_file()))
    {
        return Err(format!(
            "the input {} is no plain file",
            input.to_string_lossy()
        ));
    }
    let (mut hashed, mut unhashed) = (false, false);
    let mut why = None;
    inputs::visit(cmd, &mut |input| {
        if input.kind.is_bitcode() {
            match with_input(input, |bytes| {
                module::thin_hash(bytes).map_err(|e| e.to_string())
            }) {
                Ok(None) => {}
                Ok(Some(true)) => hashed = true,
                Ok(Some(false)) => unhashed = true,
                Err(e) => why = Some(format!("{}: {e}", input.path.display())),
            }
        } else if input.kind == Kind::Text && mentions_objects(input.path) {
            why = Some(format!(
                "the linker script {} may match objects by the names that this lld gives them",
                input.path.display()
            ));
        }
        Ok(if why.is_some() {
            Visit::Stop
        } else {
            Visit::Continue
        })
    })
    .map_err(|e| e.to_string())?;
    if hashed && unhashed {
        why = why.or(Some(
            "some modules have no hash, and this lld orders their objects otherwise with a cache"
                .into(),
        ));
    }
    why.map_or(Ok(()), Err)
}

/// Whether a linker script might. One that can be read once is lld's to read.
fn mentions_objects(script: &Path) -> bool {
    if !std::fs::metadata(script).is_ok_and(|m| m.is_file()) {
        return true;
    }
    let text = std::fs::read(script).unwrap_or_default();
    PARTS_OF_NAMES
        .iter()
        .any(|part| text.windows(part.len()).any(|w| w == *part))
}
