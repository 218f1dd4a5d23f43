//! Which symbols are local to the output, beyond what each shard says of its own.
//!
//! In-process, a backend looks any symbol up in the full index; a shard has only the symbols of its
//! module and of what it imports, so what is merely declared is missing (docs/lld.md, "Locality of
//! declarations"). The thin link's answer for every symbol is in some shard: in that of the module that
//! defines it.

use crate::jobs::bitcode::shard::Shard;
use crate::jobs::modules::SymbolLocality;
use std::collections::{HashMap, HashSet};

/// GUIDs that are local to the output (`FinalDefinitionInLinkageUnit` in lld's resolution, as far as
/// the thin link let it stand).
#[derive(Debug)]
pub struct Locality {
    local: HashSet<u64>,
}

impl Locality {
    /// Gathers it from all shards, each with its own module's number in it, and from the summaries of
    /// regular-LTO parts, which the thin link has in the index as they are (`LTO::addModule`).
    ///
    /// A symbol with several summaries is local only if all say so
    /// (`ModuleSummaryIndex::propagateAttributes`).
    #[must_use]
    pub fn of<'a>(
        shards: impl Iterator<Item = (&'a Shard<'a>, u64)>,
        regular_lto: impl Iterator<Item = &'a SymbolLocality>,
    ) -> Self {
        let mut all: HashMap<u64, bool> = HashMap::new();
        let mut add = |guid: u64, local: bool| {
            let known = all.entry(guid).or_insert(true);
            *known &= local;
        };
        for (shard, own) in shards {
            for s in shard.summaries.iter().filter(|s| s.module == own) {
                add(s.guid, s.dso_local);
            }
        }
        for symbol in regular_lto {
            add(symbol.guid, symbol.dso_local);
        }
        Self {
            local: all
                .into_iter()
                .filter_map(|(g, local)| local.then_some(g))
                .collect(),
        }
    }

    /// Those of `guids` that are local and not in `have`; sorted, each once.
    #[must_use]
    pub fn missing(&self, guids: impl Iterator<Item = u64>, have: &HashSet<u64>) -> Vec<u64> {
        let mut found: Vec<u64> = guids
            .filter(|g| self.local.contains(g) && !have.contains(g))
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }
}
