use super::*;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;

struct Case {
    dir: tempfile::TempDir,
    cache: Cache,
}

fn key(n: u8) -> Key {
    [n; 32]
}

impl Case {
    fn new(limit: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path(), limit);
        Self { dir, cache }
    }
    fn put(&self, n: u8, content: &[u8]) {
        let object = self.dir.path().join("object");
        fs::write(&object, content).unwrap();
        let took = (n % 2 == 1).then_some(Duration::from_millis(700 * u64::from(n)));
        self.cache
            .put(&key(n), &File::open(&object).unwrap(), took)
            .unwrap();
    }
    fn get(&self, n: u8) -> Option<Vec<u8>> {
        let to = self.dir.path().join("out");
        let _ = fs::remove_file(&to);
        let found = self.cache.get(&key(n), &to);
        assert_eq!(found.is_some(), to.exists());
        found.map(|_| fs::read(&to).unwrap())
    }
    fn only(&self, kind: &str) -> PathBuf {
        let mut found = Vec::new();
        self.cache
            .for_each_entry(kind, |p, _| found.push(p))
            .unwrap();
        assert_eq!(found.len(), 1);
        found.remove(0)
    }
}

#[test]
fn what_is_put_in_comes_out() {
    let c = Case::new(0);
    assert_eq!(c.get(1), None);
    c.put(1, b"object");
    c.put(2, b"object");
    c.put(3, b"");
    assert_eq!(c.get(1).as_deref(), Some(&b"object"[..]));
    assert_eq!(c.get(2).as_deref(), Some(&b"object"[..]));
    assert_eq!(c.get(3).as_deref(), Some(&b""[..]));
    assert_eq!(c.get(4), None);
    let stats = c.cache.stats().unwrap();
    assert_eq!((stats.keys, stats.objects, stats.bytes), (3, 2, 6));
    let found = |n| c.cache.find(&key(n)).map(|o| (o.bytes, o.took));
    assert_eq!(found(1), Some((6, Some(Duration::from_millis(700)))));
    assert_eq!(found(2), Some((6, None)));
    let mode = fs::metadata(c.dir.path().join("objects")).unwrap();
    assert_eq!(mode.permissions().mode() & 0o777, 0o700);
}

#[test]
fn damage_is_a_miss_and_goes() {
    for (kind, content) in [
        ("o", &b"damaged"[..]),
        ("o", b"objecX"),
        ("o", b"objec"),
        ("o", b""),
        ("k", b"nonsense"),
        ("k", b"a.b.c"),
        ("k", b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA.6.AAAAAAAAAAA.x"),
        ("k", b"\xff\xfe"),
    ] {
        let c = Case::new(0);
        c.put(1, b"object");
        let entry = c.only(kind);
        if kind == "k" {
            fs::remove_file(&entry).unwrap();
            symlink(OsStr::from_bytes(content), &entry).unwrap();
        } else {
            fs::write(&entry, content).unwrap();
        }
        assert_eq!(c.get(1), None, "{kind} {content:?}");
        c.put(1, b"object");
        assert_eq!(
            c.get(1).as_deref(),
            Some(&b"object"[..]),
            "{kind} {content:?}"
        );
    }
    let c = Case::new(0);
    c.put(1, b"object");
    fs::remove_file(c.only("o")).unwrap();
    assert_eq!(c.get(1), None);
    assert_eq!(c.cache.stats().unwrap(), Stats::default());
}

#[test]
fn the_least_recently_used_go_first() {
    let c = Case::new(1000);
    for n in 0..10 {
        c.put(n, &[n; 100]);
        let at = SystemTime::now() - Duration::from_secs(1000 - u64::from(n));
        let object = fs::read_link(c.cache.key_path(&key(n))).unwrap();
        let object = StoredObject::parse(object.to_str().unwrap()).unwrap();
        let object = c.cache.object_path(&object);
        let times = FileTimes::new().set_modified(at);
        File::open(object).unwrap().set_times(times).unwrap();
    }
    c.cache.finish_link().unwrap();
    assert_eq!(c.cache.stats().unwrap().objects, 10);
    // Used now, though it is the oldest.
    assert!(c.get(0).is_some());
    c.put(10, &[10; 100]);
    c.cache.finish_link().unwrap();
    let stats = c.cache.stats().unwrap();
    assert_eq!((stats.objects, stats.keys, stats.bytes), (9, 9, 900));
    assert!(c.get(0).is_some() && c.get(10).is_some());
    assert!(c.get(1).is_none() && c.get(2).is_none());
    // The total is right again.
    assert_eq!(c.cache.update_size(|n| n).unwrap(), 900);
}

#[test]
fn keys_of_an_object_are_bounded() {
    let c = Case::new(2000);
    for n in 0..20 {
        c.put(n, b"object");
    }
    c.cache.finish_link().unwrap();
    let stats = c.cache.stats().unwrap();
    assert_eq!((stats.objects, stats.keys, stats.bytes), (1, 8, 6));
    assert_eq!(c.cache.update_size(|n| n).unwrap(), 6);
}

#[test]
fn a_lock_that_is_held_is_not_waited_for() {
    let c = Case::new(2000);
    c.put(1, b"object");
    let file = File::create(c.dir.path().join("objects/size")).unwrap();
    let held = Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, e)| e)
        .unwrap();
    assert!(c.cache.finish_link().is_err());
    drop(held);
    assert!(c.get(1).is_some());
}

#[test]
fn pruning_puts_a_wrong_count_right_and_clears_up() {
    let c = Case::new(1000);
    c.put(1, b"object");
    fs::write(c.dir.path().join("objects/size"), "99999").unwrap();
    let dir = c.only("o").parent().unwrap().to_owned();
    fs::write(dir.join(".new-young"), "").unwrap();
    fs::write(dir.join(".new-old"), "").unwrap();
    let long_ago = FileTimes::new().set_modified(SystemTime::UNIX_EPOCH);
    File::options()
        .write(true)
        .open(dir.join(".new-old"))
        .unwrap()
        .set_times(long_ago)
        .unwrap();
    c.cache.finish_link().unwrap();
    assert_eq!(c.cache.update_size(|n| n).unwrap(), 6);
    assert!(dir.join(".new-young").exists() && !dir.join(".new-old").exists());
    // Earlier versions spread entries over directories.
    fs::create_dir(dir.join("A")).unwrap();
    fs::write(dir.join("A/object"), "").unwrap();
    let (left, removed) = c.cache.prune(0).unwrap();
    assert_eq!((left.objects, removed.objects, removed.keys), (0, 1, 1));
    assert!(!dir.join("A").exists());
}
