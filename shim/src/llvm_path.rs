//! Paths as LLVM composes and takes them apart (llvm/lib/Support/Path.cpp, POSIX style).
//!
//! What lld opens and prints is a path that LLVM composed, so these follow LLVM byte for byte; std's
//! functions normalize where LLVM does not.

/// `sys::path::append`: joins with one slash, and drops the component's own if the path has one.
pub(crate) fn append(path: &mut Vec<u8>, component: &[u8]) {
    if path.ends_with(b"/") {
        let skip = component.iter().take_while(|&&b| b == b'/').count();
        path.extend_from_slice(component.get(skip..).unwrap_or_default());
        return;
    }
    if !path.is_empty() && !component.starts_with(b"/") {
        path.push(b'/');
    }
    path.extend_from_slice(component);
}

/// `sys::path::parent_path`: empty for a bare name and for the root.
pub(crate) fn parent_path(path: &[u8]) -> &[u8] {
    let is_slash = |i: usize| path.get(i) == Some(&b'/');
    let mut end = filename_pos(path);
    let was_slash = is_slash(end);
    let root = root_dir_start(path);
    while end > 0 && root.is_none_or(|root| end > root) && is_slash(end - 1) {
        end -= 1;
    }
    if root == Some(end) && !was_slash {
        end += 1;
    }
    path.get(..end).unwrap_or(path)
}

/// `sys::path::filename`: the last component; `.` for a path that ends in a slash.
pub(crate) fn filename(path: &[u8]) -> &[u8] {
    let is_slash = |i: usize| path.get(i) == Some(&b'/');
    let root = root_dir_start(path);
    let mut end = path.len();
    while end > 0 && root != Some(end - 1) && is_slash(end - 1) {
        end -= 1;
    }
    if path.ends_with(b"/") && root.is_none_or(|root| end > root + 1) {
        return b".";
    }
    let front = path.get(..end).unwrap_or(path);
    front.get(filename_pos(front)..).unwrap_or_default()
}

/// Where the last component begins.
fn filename_pos(path: &[u8]) -> usize {
    if path.ends_with(b"/") {
        return path.len() - 1;
    }
    match path.iter().rposition(|&b| b == b'/') {
        None => 0,
        Some(1) if path.starts_with(b"//") => 0,
        Some(slash) => slash + 1,
    }
}

/// Where the root directory's slash is: behind the name for `//net/x`.
fn root_dir_start(path: &[u8]) -> Option<usize> {
    if let [b'/', b'/', third, _, ..] = path {
        if *third != b'/' {
            return Some(path.iter().skip(2).position(|&b| b == b'/')? + 2);
        }
    }
    path.starts_with(b"/").then_some(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_as_llvm_composes_them() {
        let parents = [
            ("a", ""),
            ("a/b", "a"),
            ("/a", "/"),
            ("/", ""),
            ("a/", "a"),
            ("a//b", "a"),
            ("//net/x", "//net/"),
            ("", ""),
            ("/a/b", "/a"),
        ];
        for (path, parent) in parents {
            assert_eq!(parent_path(path.as_bytes()), parent.as_bytes(), "{path}");
        }
        let files = [
            ("a", "a"),
            ("a/b", "b"),
            ("/a", "a"),
            ("/", "/"),
            ("a/", "."),
            ("a/b//", "."),
            ("", ""),
            ("a//b", "b"),
        ];
        for (path, file) in files {
            assert_eq!(filename(path.as_bytes()), file.as_bytes(), "{path}");
        }
        for (dir, name, path) in [
            ("", "x", "x"),
            ("a", "x", "a/x"),
            ("a/", "x", "a/x"),
            ("a/", "//x", "a/x"),
            ("a", "/x", "a/x"),
            ("", "/x", "/x"),
            ("a", "", "a/"),
        ] {
            let mut bytes = dir.as_bytes().to_vec();
            append(&mut bytes, name.as_bytes());
            assert_eq!(bytes, path.as_bytes(), "{dir} {name}");
        }
    }
}
