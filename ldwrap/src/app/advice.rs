//! What works as it is set, and yet may not be what its user wants.

use shim::config::{Config, Executor};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// One such thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advice {
    /// What it is, without a full stop.
    pub what: String,
    /// What to do if it is not what its user wants.
    pub fix: String,
}

/// Of the server: credentials that everyone on the way can read.
pub fn on_server(config: &Config) -> Option<Advice> {
    let server = &config.server;
    let named = [
        ("LDWRAP_REMOTE_HEADERS", &server.headers),
        ("LDWRAP_REMOTE_CREDENTIAL_HELPER", &server.credential_helper),
    ];
    let (name, _) = named.iter().find(|(_, set)| set.is_some())?;
    let host = server.endpoint.strip_prefix("http://")?;
    let here = ["localhost:", "127.", "[::1]:"];
    let leaves = !here.iter().any(|local| host.starts_with(local));
    (config.executor() == Executor::Remote && leaves).then(|| Advice {
        what: format!(
            "LDWRAP_REMOTE begins with grpc://, so that what {name} gives is sent unencrypted"
        ),
        fix: "say grpcs:// if the server has TLS".into(),
    })
}

/// Of the cache: who else can write to it.
pub fn on_cache(config: &Config) -> Option<Advice> {
    let dir = config
        .cache_dir
        .as_ref()
        .filter(|_| config.cache_size > 0)?;
    // Objects are found by name: who can write to either can exchange one.
    let dirs = [dir.join("objects"), dir.clone()];
    dirs.iter().find_map(|dir| writers(dir))
}

/// Who but this user can write to a directory, if anyone.
fn writers(dir: &Path) -> Option<Advice> {
    let metadata = std::fs::metadata(dir).ok()?;
    let dir = dir.display();
    let trust = "who can thereby change what your links produce";
    let owner = metadata.uid();
    if owner != nix::unistd::geteuid().as_raw() && owner != 0 {
        Some(Advice {
            what: format!("{dir} belongs to user {owner}, {trust}"),
            fix: "set LDWRAP_CACHE_DIR to a directory of your own".into(),
        })
    } else if metadata.mode() & 0o022 != 0 {
        Some(Advice {
            what: format!("{dir} can be written by other users, {trust}"),
            fix: format!("chmod go-w {dir}"),
        })
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::{PermissionsExt, chown};

    #[test]
    fn credentials_without_encryption() {
        let mut config = Config::default();
        config.server.endpoint = "http://farm:1".into();
        config.executor = Some(Executor::Remote);
        assert_eq!(on_server(&config), None);
        config.server.headers = Some("headers".into());
        let advice = on_server(&config).unwrap();
        assert!(advice.what.contains("LDWRAP_REMOTE_HEADERS"));
        for safe in ["https://farm:1", "http://localhost:1", "http://127.0.0.1:1"] {
            config.server.endpoint = safe.into();
            assert_eq!(on_server(&config), None, "{safe}");
        }
    }

    #[test]
    fn a_cache_that_others_can_write() {
        let dir = tempfile::tempdir().unwrap();
        let objects = dir.path().join("objects");
        std::fs::create_dir(&objects).unwrap();
        let config = Config {
            cache_dir: Some(dir.path().to_owned()),
            cache_size: 1,
            ..Config::default()
        };
        for (path, mode, noted) in [
            (dir.path(), 0o700, false),
            (dir.path(), 0o755, false),
            (&objects, 0o775, true),
            (&objects, 0o700, false),
            (dir.path(), 0o1777, true),
        ] {
            set_permissions(path, Permissions::from_mode(mode)).unwrap();
            assert_eq!(on_cache(&config).is_some(), noted, "{mode:o}");
        }
        if nix::unistd::geteuid().is_root() {
            set_permissions(dir.path(), Permissions::from_mode(0o700)).unwrap();
            chown(&objects, Some(65534), None).unwrap();
            let advice = on_cache(&config).unwrap();
            assert!(advice.what.contains("belongs to user 65534"), "{advice:?}");
        }
    }
}
