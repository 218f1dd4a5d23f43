//! Lookups: answered from a cache or with an object from elsewhere, held, or let go to compile.

use super::Engine;
use crate::admit::{POLL_INTERVAL, Permit};
use crate::cache::objects::CachedObject;
use crate::jobs::outcome::FinishedObject;
use crate::link::attribution::Module;
use crate::link::backends::HeldLookup;
use crate::link::exchange::Exchange;
use crate::watch::Unanswered;
use std::fs::File;
use std::os::fd::AsFd;
use std::time::Instant;

impl Engine<'_> {
    /// A thread looks for its module's object.
    pub(super) fn lookup(&mut self, id: u64, thread: u32, key: Vec<u8>) -> Result<(), Unanswered> {
        if self.context.is_none() {
            let context = self.make_context(thread).unwrap_or_else(|e| {
                log::warn!("the cache is not used: {e}");
                None
            });
            self.context = Some(context);
            if let Some((exchange, _)) = self.link.exchange {
                exchange.all_open();
            }
        }
        let again = self.backends.arrives(thread).filter(|held| held.key == key);
        let module = match again {
            Some(held) => held.module,
            None => {
                let module = self
                    .names_modules
                    .then(|| self.attribution.lookup(thread, &key));
                let module = module.flatten();
                self.orders.looked_up(thread, &key, module.as_ref());
                self.events.looked_up(thread, module.as_ref());
                module
            }
        };
        if !self.keys.contains(&key) {
            self.keys.insert(key.clone());
        }
        if self.is_unwanted(&module) {
            return self.give_nothing(id);
        }
        let held = HeldLookup::new(id, thread, key, module);
        if self.lookup_dir.has(&held.key) {
            self.found(&held, None);
            return self.listener.proceed(id);
        }
        if let Some(object) = self.find(&held.key) {
            self.found(&held, Some(&object));
            self.take(&held.module, &object.file);
            return self.listener.hand_over(id, object.file.as_fd());
        }
        if let Some((exchange, module)) = self.exchange(&held.module) {
            if let Some(object) = exchange.object(module) {
                return self.give(held, &object);
            }
            exchange.missed(module);
        }
        self.backends.hold(held);
        self.admit()
    }

    /// Whether nobody takes the object of a module, where they are taken.
    fn is_unwanted(&self, module: &Option<Module>) -> bool {
        self.link.objects.is_some_and(|receiver| match module {
            Some(Module::Named(identifier)) => !receiver.wants(identifier),
            _ => true,
        })
    }

    /// Lets lld go on without an object: it has no output to put one into.
    fn give_nothing(&mut self, id: u64) -> Result<(), Unanswered> {
        let none = File::open("/dev/null").map_err(Unanswered)?;
        self.listener.hand_over(id, none.as_fd())
    }

    /// Those who make objects elsewhere, for a lookup whose module they may know.
    pub(super) fn exchange<'m>(
        &self,
        module: &'m Option<Module>,
    ) -> Option<(&Exchange, &'m Module)> {
        self.link.exchange.map(|(e, _)| e).zip(module.as_ref())
    }

    /// What our cache has for a key of lld's.
    fn find(&self, key: &[u8]) -> Option<CachedObject> {
        let Some(Some(context)) = &self.context else {
            return None;
        };
        self.cache?.find(&context.key(key, self.orders.of(key)?))
    }

    /// A cache has the object of a lookup: ours, or the user's.
    fn found(&mut self, held: &HeldLookup, object: Option<&CachedObject>) {
        self.objects_there = Instant::now();
        self.hits += 1;
        self.events.cached(held.thread, object);
        if let Some((exchange, module)) = self.exchange(&held.module) {
            exchange.done_here(module, None);
        }
    }

    /// Gives a lookup an object that was made elsewhere.
    fn give(&mut self, held: HeldLookup, object: &FinishedObject) -> Result<(), Unanswered> {
        let opened = File::open(&object.path).and_then(|mut file| {
            if self.lookup_dir.is_users() {
                self.lookup_dir.add(&held.key, &mut file)?;
            }
            Ok((file.metadata()?.len(), file))
        });
        let (bytes, file) = match opened {
            Ok(opened) => opened,
            Err(e) => {
                log::warn!("{} is left to lld: {e}", object.path.display());
                if let Some((exchange, module)) = self.exchange(&held.module) {
                    exchange.leave_to_lld(module);
                }
                self.backends.hold(held);
                self.backends.choose_anew();
                return self.admit();
            }
        };
        self.objects_there = Instant::now();
        self.given += 1;
        self.events.given(held.thread, object, bytes);
        self.take(&held.module, &file);
        if self.lookup_dir.is_users() {
            return self.listener.proceed(held.id);
        }
        self.listener.hand_over(held.id, file.as_fd())?;
        self.keep_later(held.key, file, object.took);
        Ok(())
    }

    /// There is something new from elsewhere.
    pub(super) fn hear_from_elsewhere(&mut self) -> Result<(), Unanswered> {
        let Some((exchange, _)) = self.link.exchange else {
            return Ok(());
        };
        let (arrived, chooses_anew) = exchange.arrived();
        if chooses_anew {
            self.backends.choose_anew();
        }
        for arrived in &arrived {
            if let Some(held) = self.backends.take_held(|module| arrived.is_of(module)) {
                self.give(held, &arrived.object)?;
            }
        }
        self.admit()
    }

    /// Lets lookups go for which there are permits.
    fn admit(&mut self) -> Result<(), Unanswered> {
        let exchange = self.link.exchange.map(|(exchange, _)| exchange);
        let choose = |held: &[HeldLookup]| match exchange {
            // The last to come: its thread has just compiled something, and finds its memory where it was
            // (with very many threads, few of them do it all).
            None => held.len().checked_sub(1),
            Some(exchange) => exchange.choose(held),
        };
        while self.backends.may_choose() {
            let Some((held, permit)) = self.backends.next_to_begin(choose) else {
                break;
            };
            self.begin(held, permit)?;
        }
        self.events
            .waits(self.backends.held(), self.backends.running());
        if let Some(exchange) = exchange {
            if self.backends.are_too_many() {
                // All processors are busy, and there is more to do.
                exchange.want_jobs(false);
            }
        }
        Ok(())
    }

    /// A thread may compile; unless another link has made its object meanwhile.
    fn begin(&mut self, held: HeldLookup, permit: Permit) -> Result<(), Unanswered> {
        if held.since.elapsed() > POLL_INTERVAL {
            if let Some(object) = self.find(&held.key) {
                self.found(&held, Some(&object));
                self.take(&held.module, &object.file);
                self.backends.give_back_unused(permit);
                return self.listener.hand_over(held.id, object.file.as_fd());
            }
        }
        if let Some((exchange, module)) = self.exchange(&held.module) {
            exchange.begun_here(module);
        }
        self.compiled += 1;
        self.events.compiles(held.thread, held.since.elapsed());
        let id = held.id;
        self.backends.begin(held, permit);
        if self.lookup_dir.is_users() {
            return self.listener.proceed(id);
        }
        self.listener.fail(id, libc::ENOENT)
    }

    /// Looks whether lookups may go on, if it is time.
    pub(super) fn look(&mut self) -> Result<(), Unanswered> {
        if self.backends.look() {
            self.admit()?;
            self.backends.looked();
        }
        self.backends.schedule();
        Ok(())
    }
}
