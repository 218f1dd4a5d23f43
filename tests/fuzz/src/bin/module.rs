//! A bitcode file, read: what it says does not depend on how it is written down.

#![no_main]

use ldwrap::jobs::bitcode::module::{self, LtoKind, Module};
use ldwrap::jobs::bitcode::{MAGIC, WRAPPER_MAGIC, unwrap};
use ldwrap_fuzz::tree;
use libfuzzer_sys::{fuzz_mutator, fuzz_target};

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    tree::mutate(data, size, max_size, seed)
});

fuzz_target!(|data: &[u8]| {
    let modules = module::scan(data);
    if let Ok(modules) = &modules {
        let thin = modules.iter().any(|m| m.kind == LtoKind::Thin);
        assert_eq!(module::has_thin(data), Ok(thin));
        let within = data.as_ptr_range();
        for name in modules.iter().flat_map(|m| &m.globals).map(|g| g.name) {
            let name = name.as_ptr_range();
            assert!(name.is_empty() || within.start <= name.start && name.end <= within.end);
        }
    } else {
        let _ = module::has_thin(data);
    }
    if data.starts_with(&MAGIC.to_le_bytes()) {
        let mut wrapped = Vec::new();
        for word in [WRAPPER_MAGIC, 0, 20, data.len() as u32, 7] {
            wrapped.extend(word.to_le_bytes());
        }
        wrapped.extend(data);
        wrapped.extend([0; 8]);
        assert_eq!(unwrap(&wrapped), Ok(data));
        assert_eq!(said(&module::scan(&wrapped)), said(&modules));
    }
    if let Ok(bitcode) = unwrap(data)
        && let Ok(nodes) = tree::decode(bitcode)
        && let Some(again) = tree::encode(&nodes)
    {
        assert_eq!(tree::decode(&again).as_ref(), Ok(&nodes));
        assert_eq!(said(&module::scan(&again)), said(&modules));
    }
});

fn said(modules: &Result<Vec<Module<'_>>, impl Sized>) -> Option<String> {
    modules.as_ref().ok().map(|m| format!("{m:?}"))
}
