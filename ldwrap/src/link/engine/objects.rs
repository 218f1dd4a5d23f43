//! Objects that lld makes: where it writes them, and which of them are kept.
//!
//! Objects are put into the cache some at a time, and only while all files that lld has read are as they
//! were when it opened them: lld maps its inputs, so that a backend would read what has been written
//! there since, under a key that was computed before. An object whose thread has written to standard
//! output or error meanwhile is not kept, since a hit would lose the message; and neither is one whose
//! thread has opened a file that no key covers (`.incbin`).

use super::{Engine, passes_signals};
use crate::cache::context::{self, Context};
use crate::cache::files::Identity;
use crate::link::attribution::Module;
use crate::link::cache_writer::CacheWriter;
use crate::link::import_orders::NewRecord;
use crate::link::inputs_read::InputsRead;
use crate::watch::Unanswered;
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// What the C library's allocator reads in any thread (`check_may_shrink_heap` and `__get_nprocs` of
/// glibc): the objects know nothing of it.
const ALLOCATOR: [&[u8]; 3] = [
    b"/proc/sys/vm/overcommit_memory",
    b"/sys/devices/system/cpu/online",
    b"/proc/stat",
];

impl Engine<'_> {
    /// What keys begin with, when lld has loaded all that it runs.
    pub(super) fn make_context(&mut self, thread: u32) -> io::Result<Option<Context>> {
        let Some(cache) = self.cache else {
            self.inputs = InputsRead::default();
            return Ok(None);
        };
        let programs = context::programs(thread)?;
        self.orders.check(&self.inputs)?;
        if let Some(history) = self.link.history.filter(|_| self.orders.are_from_shards()) {
            let file = history.import_orders();
            self.new_record = Some(NewRecord::new(file, self.orders_of, &self.inputs));
        }
        let (options, covered) = self.options.with_content(self.link.files)?;
        let context = Context::of(&programs, &options, self.link.files)?;
        for (path, identity) in &covered {
            self.inputs.add(path, *identity);
        }
        self.covered = covered;
        for program in &programs {
            // The loader has opened libraries under our eyes, by some name; it is the file itself that
            // is not to change any more.
            let identity = Identity::of_path(program)?;
            self.inputs.add(program.as_os_str().as_bytes(), identity);
        }
        if !self.inputs.are_unchanged() {
            return Err(io::Error::other("lld's own files have changed meanwhile"));
        }
        self.looked_at = self.inputs.count();
        let inputs = std::mem::take(&mut self.inputs);
        self.cache_writer = Some(CacheWriter::new(cache.clone(), inputs));
        Ok(Some(context))
    }

    /// lld has code to write.
    pub(super) fn begin_object(&mut self, id: u64, name: Vec<u8>) -> Result<(), Unanswered> {
        let object = memfd_create(c"ldwrap object", MFdFlags::MFD_CLOEXEC);
        let object = File::from(object.map_err(|e| Unanswered(e.into()))?);
        self.listener.hand_over(id, object.as_fd())?;
        self.new_objects.insert(name, object);
        Ok(())
    }

    /// A thread writes its module's shard, which nobody is to see.
    pub(super) fn begin_shard(&mut self, id: u64, thread: u32) -> Result<(), Unanswered> {
        let shard = match self.orders.begin_shard(thread).map_err(Unanswered)? {
            Some(shard) => shard,
            None => File::options()
                .write(true)
                .open("/dev/null")
                .map_err(Unanswered)?,
        };
        self.listener.hand_over(id, shard.as_fd())
    }

    /// Whether lld makes the temporary file under whose name it begins its output (`FileOutputBuffer`,
    /// llvm/lib/Support/FileOutputBuffer.cpp).
    pub(super) fn is_temporary_output(&self, path: &[u8], flags: i32) -> bool {
        let output = self.link.cmd.output().as_bytes();
        let tail = path
            .strip_prefix(output)
            .and_then(|p| p.strip_prefix(b".tmp"));
        let makes = libc::O_CREAT | libc::O_EXCL;
        flags & makes == makes && tail.is_some_and(|tail| tail.iter().all(u8::is_ascii_hexdigit))
    }

    /// An object is whole, under this key of lld's.
    pub(super) fn end_object(&mut self, thread: u32, key: Vec<u8>, object: Option<File>) {
        self.objects_there = Instant::now();
        let Some(made) = self.backends.made(thread).filter(|made| made.key == key) else {
            return;
        };
        let goes_on = || passes_signals(self.link.signals, &self.child);
        let good = self.output.show_noted(thread, goes_on);
        if let Some(object) = object.as_ref().filter(|_| good) {
            self.take(&made.module, object);
        }
        let bytes = object.as_ref().and_then(|object| object.metadata().ok());
        self.events
            .compiled(thread, &made, bytes.map_or(0, |m| m.len()));
        let object = object.filter(|_| made.pure);
        if let Some((exchange, module)) = self.exchange(&made.module) {
            exchange.done_here(
                module,
                object.as_ref().map(|object| (object, made.processor_time)),
            );
        }
        if let Some(object) = object {
            self.keep_later(key, object, Some(made.processor_time));
        }
    }

    /// An object goes to who takes them, before lld has it.
    pub(super) fn take(&mut self, module: &Option<Module>, object: &File) {
        if let (Some(receiver), Some(Module::Named(identifier))) = (self.link.objects, module) {
            self.all_taken |= !receiver.take(identifier, object);
        }
    }

    /// An object, which took so long to compile, is for the cache, if there is one.
    pub(super) fn keep_later(&mut self, key: Vec<u8>, object: File, took: Option<Duration>) {
        if matches!(self.context, Some(Some(_))) {
            if self.waiting.is_empty() {
                self.kept_at = Instant::now();
            }
            self.waiting.push((key, object, took));
        }
    }

    /// lld opens a file to read it.
    pub(super) fn note_read(&mut self, thread: u32, path: Vec<u8>) {
        if ALLOCATOR.contains(&path.as_slice()) {
            return;
        }
        if self.backends.compiles(thread) && !self.covered.contains_key(&path) {
            log::info!("{}: read by a backend", String::from_utf8_lossy(&path));
            self.backends.taint(thread);
        }
        // All that backends read is open before the first of them begins. Later on lld reads what is of
        // no concern to them, among that its own old output while that is being replaced.
        let exchange = self.link.exchange;
        if self.context.is_none() && (self.cache.is_some() || exchange.is_some()) {
            let noted = self.inputs.note(&path);
            if let Some(((identity, steady), (exchange, _))) = noted.zip(exchange) {
                exchange.opens(Path::new(OsStr::from_bytes(&path)), identity, steady);
            }
        }
    }

    /// Gives the objects that wait to the cache.
    pub(super) fn keep(&mut self) {
        self.kept_at = Instant::now();
        if self.waiting.is_empty() {
            return;
        }
        let waiting = std::mem::take(&mut self.waiting).into_iter();
        if let (Some(Some(context)), Some(cache_writer)) = (&self.context, &mut self.cache_writer) {
            let orders = &self.orders;
            let keyed = waiting.filter_map(|(key, object, took)| {
                Some((context.key(&key, orders.of(&key)?), object, took))
            });
            cache_writer.keep(keyed.collect());
        }
    }
}
