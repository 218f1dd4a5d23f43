//! `ldwrap cache`: a look at the local cache of objects, and making it smaller.

use crate::cache::objects::Cache;
use clap::Subcommand;
use shim::config::Config;
use shim::settings::bytes;

/// What is to be done with it.
#[derive(Debug, Subcommand)]
pub enum CacheCommand {
    /// Say what is in it
    Stats,
    /// Remove what was not used for longest
    Prune {
        /// How much to leave, such as 2G; LDWRAP_CACHE_SIZE if not given
        #[arg(long, value_name = "SIZE")]
        keep: Option<String>,
    },
    /// Remove all objects
    Clear,
}

/// Does it, and says on standard output what was done.
pub fn run(what: &CacheCommand, config: &Config) -> Result<(), String> {
    let dir = config
        .cache_dir
        .as_ref()
        .ok_or("there is no cache directory: set HOME, XDG_CACHE_HOME or LDWRAP_CACHE_DIR")?;
    let limit = config.cache_size;
    let cache = Cache::new(dir, limit);
    let fail = |e: std::io::Error| format!("the cache in {}: {e}", dir.display());
    let removed = match what {
        CacheCommand::Stats => {
            let stats = cache.stats().map_err(fail)?;
            return super::print(format!(
                "directory  {}\nobjects    {}\nkeys       {}\nsize       {} of {}\n",
                dir.display(),
                stats.objects,
                stats.keys,
                size(stats.bytes),
                size(limit)
            ));
        }
        CacheCommand::Prune { keep } => {
            let keep = match keep {
                None => limit,
                Some(text) => bytes(text)
                    .ok_or_else(|| format!("--keep {text}: expected a size such as 2G"))?,
            };
            cache.prune(keep)
        }
        CacheCommand::Clear => cache.prune(0),
    };
    let (left, removed) = removed.map_err(fail)?;
    super::print(format!(
        "removed {} objects, {}; {} objects, {} are left\n",
        removed.objects,
        size(removed.bytes),
        left.objects,
        size(left.bytes)
    ))
}

/// A number of bytes for people.
pub(crate) fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["bytes", "KiB", "MiB"] {
        if value < 1024.0 {
            return match unit {
                "bytes" => format!("{bytes} {unit}"),
                _ => format!("{value:.1} {unit}"),
            };
        }
        value /= 1024.0;
    }
    format!("{value:.1} GiB")
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_are_for_people() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (1536, "1.5 KiB"),
            (10 << 30, "10.0 GiB"),
            (1 << 20, "1.0 MiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
