//! A sample of a link's objects, for links of thousands.
//!
//! A look at an object costs three system calls. A link of thousands of objects of which less than one in
//! [`MAX_STRIDE`] is bitcode would not become faster by what we do, so it need not be recognized.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// Up to this many objects, all are looked at.
pub(super) const ALL_UP_TO: usize = 128;
/// Of this many objects in a row, at least one is looked at.
pub(super) const MAX_STRIDE: usize = 128;

/// Picks a sample of objects: evenly spaced ones, and one of each directory that has several in a row,
/// since a build mostly compiles all of a directory with the same options.
///
/// Runs for each of perhaps ten thousand arguments, so it counts down rather than divides, and compares the
/// directory only at every `DIR_STRIDE`th object.
#[derive(Clone, Copy)]
pub(super) struct Sampler<'a> {
    stride: usize,
    /// Objects until the next evenly spaced one.
    left: usize,
    /// The directory of the last object that was picked for it.
    dir: &'a [u8],
    /// How many may still be picked for their directory.
    dirs_left: usize,
}

impl<'a> Sampler<'a> {
    const DIR_STRIDE: usize = 8;

    /// A sampler of a row of `count` objects.
    pub(super) fn of(count: usize) -> Self {
        Sampler {
            stride: (count / ALL_UP_TO).clamp(1, MAX_STRIDE),
            left: 0,
            dir: b"",
            dirs_left: ALL_UP_TO,
        }
    }

    /// Whether all objects of the row are in the sample.
    pub(super) fn takes_all(&self) -> bool {
        self.stride == 1
    }

    /// Whether the next object of the row is in the sample.
    pub(super) fn picks(&mut self, object: &'a [u8]) -> bool {
        if self.left == 0 {
            self.left = self.stride - 1;
            return true;
        }
        self.left -= 1;
        self.left % Self::DIR_STRIDE == 0 && self.dirs_left > 0 && self.is_in_new_directory(object)
    }

    fn is_in_new_directory(&mut self, object: &'a [u8]) -> bool {
        let dir_len = object.iter().rposition(|&b| b == b'/').unwrap_or(0);
        let dir = object.get(..dir_len).unwrap_or_default();
        let new = dir != self.dir;
        if new {
            self.dir = dir;
            self.dirs_left -= 1;
        }
        new
    }
}

/// The arguments of a command line; where there are very many, only a sample of its objects, since parsing
/// costs an allocation for each. What follows an option may be its value and is never left out.
pub fn sample_args<'a>(args: impl ExactSizeIterator<Item = &'a OsStr>) -> Vec<OsString> {
    let count = args.len();
    if count <= 4 * ALL_UP_TO {
        return args.map(OsStr::to_os_string).collect();
    }
    let mut sampler = Sampler::of(count);
    let mut after_option = true;
    let mut kept = Vec::new();
    for arg in args {
        if after_option || !is_object_name(arg) || sampler.picks(arg.as_bytes()) {
            kept.push(arg.to_os_string());
        }
        after_option = arg.as_bytes().starts_with(b"-");
    }
    kept
}

/// Whether a file goes by an object's name. Only such files are sampled.
pub(super) fn is_object_name(name: &OsStr) -> bool {
    name.as_bytes().ends_with(b".o")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_everything_of_few_and_evenly_spaced_of_many() {
        let picked = |names: &[String]| -> Vec<usize> {
            let mut s = Sampler::of(names.len());
            (0..names.len())
                .filter(|&i| s.picks(names[i].as_bytes()))
                .collect()
        };
        let few: Vec<String> = (0..ALL_UP_TO).map(|i| format!("{i}.o")).collect();
        assert_eq!(picked(&few).len(), ALL_UP_TO);
        let mut many: Vec<String> = (0..10_000).map(|i| format!("{i}.o")).collect();
        let some = picked(&many);
        assert!(some.len() <= 2 * ALL_UP_TO, "{}", some.len());
        assert!(some.windows(2).all(|w| w[1] - w[0] <= MAX_STRIDE));
        // Some objects of another directory, between two that are looked at.
        for (i, name) in many.iter_mut().enumerate().skip(5001).take(8) {
            *name = format!("lto/{i}.o");
        }
        assert!(picked(&many).iter().any(|i| (5001..5009).contains(i)));
    }
}
