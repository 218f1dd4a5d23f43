//! Writes a graph in the format that is asked for.

use super::graph::{Format, Graph, final_command, json, shell, suffixed, write_file};
use super::{make, ninja};

/// Writes a graph. It is written although nothing has changed: its time tells that it is newer than all inputs.
pub(crate) fn write(graph: &Graph<'_>, format: Format) -> Result<(), String> {
    let exe = std::env::current_exe().map_err(|e| format!("cannot tell where ldwrap is: {e}"))?;
    let last = final_command(graph, &exe)?;
    let text = match format {
        Format::Make => make::graph(graph, &shell(&[exe]), &shell(&last))?,
        Format::Ninja => ninja::graph(graph, &shell(&[exe]), &shell(&last))?,
        Format::Json => json(graph, &last)?.into_bytes(),
    };
    if format == Format::Ninja {
        write_file(&suffixed(graph.file, ".d"), &make::depfile(graph)?)?;
    }
    write_file(graph.file, &text)
}
