//! A page in headless Chromium, asked and driven by the DevTools protocol over its pipe
//! (`--remote-debugging-pipe`: messages of JSON, each with a NUL behind it): no driver, no port, no dependency.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// The time limit of a call.
const PATIENCE: Duration = Duration::from_secs(60);

/// A browser with one page. It ends when this goes.
pub struct Browser {
    process: Child,
    to: ChildStdin,
    from: Receiver<Value>,
    session: Option<String>,
    calls: u64,
    /// Exceptions of the page's, and what its policy kept from being loaded or run.
    pub troubles: Vec<String>,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Opens a file. Panics if there is no chromium: a test that lacks a tool fails.
    pub fn open(page: &Path) -> Browser {
        let profile = tempfile::tempdir().expect("a directory for the browser");
        // It reads from descriptor 3 and writes to 4. Without its sandbox: that needs rights that root in a container lacks, and
        // the page is ours.
        let command = "command -v chromium >/dev/null || exit 127; \
             exec chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run \
             --remote-debugging-pipe --user-data-dir=\"$1\" 3<&0 4>&1 </dev/null >/dev/null 2>\"$1/log\"";
        let mut process = Command::new("bash")
            .args(["-c", command, "browser"])
            .arg(profile.path())
            .env("HOME", profile.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("bash");
        let to = process.stdin.take().expect("a pipe");
        let mut replies = BufReader::new(process.stdout.take().expect("a pipe"));
        let (send, from) = channel();
        std::thread::spawn(move || {
            let mut message = Vec::new();
            while replies.read_until(0, &mut message).is_ok_and(|n| n > 0) {
                message.pop();
                let Ok(value) = serde_json::from_slice(&message) else {
                    return;
                };
                if send.send(value).is_err() {
                    return;
                }
                message.clear();
            }
        });
        let mut browser = Browser {
            process,
            to,
            from,
            session: None,
            calls: 0,
            troubles: Vec::new(),
            _profile: profile,
        };
        browser.go_to(page);
        browser
    }

    fn go_to(&mut self, page: &Path) {
        let target = self.call("Target.createTarget", &json!({"url": "about:blank"}));
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let session = self.call("Target.attachToTarget", &attach);
        self.session = session["sessionId"].as_str().map(str::to_owned);
        let size = json!({"width": 1280, "height": 900, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", &size);
        for domain in [
            "Page.enable",
            "Runtime.enable",
            "Log.enable",
            "Network.enable",
        ] {
            self.call(domain, &json!({}));
        }
        let url = format!("file://{}", page.display());
        self.call("Page.navigate", &json!({"url": url}));
    }

    /// Calls a method of the protocol, and gives its result.
    pub fn call(&mut self, method: &str, params: &Value) -> Value {
        self.calls += 1;
        let mut message = json!({"id": self.calls, "method": method, "params": params});
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        let sent = self.to.write_all(format!("{message}\0").as_bytes());
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let reply = match self.from.recv_timeout(left) {
                Ok(reply) if sent.is_ok() => reply,
                _ => self.fail(method),
            };
            if reply["id"] == self.calls {
                assert!(reply.get("error").is_none(), "{method}: {reply}");
                return reply["result"].clone();
            }
            let is_trouble = match reply["method"].as_str() {
                Some("Runtime.exceptionThrown") => true,
                Some("Log.entryAdded") => reply["params"]["entry"]["level"] == "error",
                Some("Network.requestWillBeSent") => {
                    let url = reply["params"]["request"]["url"].as_str();
                    !url.is_some_and(|url| url.starts_with("file:"))
                }
                _ => false,
            };
            if is_trouble {
                self.troubles.push(reply["params"].to_string());
            }
        }
    }

    fn fail(&mut self, method: &str) -> ! {
        let ended = self.process.try_wait().ok().flatten();
        if ended.is_some_and(|status| status.code() == Some(127)) {
            panic!("no chromium: run scripts/setup --tests");
        }
        panic!("chromium does not answer {method} ({ended:?})");
    }

    /// The value of a JavaScript expression in the page.
    pub fn get(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "returnByValue": true});
        let reply = self.call("Runtime.evaluate", &params);
        assert!(
            reply.get("exceptionDetails").is_none(),
            "{expression}: {reply}"
        );
        reply["result"]["value"].clone()
    }

    /// The text of a JavaScript expression in the page.
    pub fn text(&mut self, expression: &str) -> String {
        match self.get(expression) {
            Value::String(text) => text,
            other => panic!("{expression} is no text but {other}"),
        }
    }

    /// Waits until an expression is something, and gives that.
    pub fn wait_for(&mut self, expression: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let value = self.get(expression);
            if !matches!(value, Value::Null | Value::Bool(false)) {
                return value;
            }
            assert!(Instant::now() < deadline, "never: {expression}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Presses keys, as a keyboard does: characters, and names such as `Tab`; `Shift+` may stand before one.
    pub fn press(&mut self, keys: &[&str]) {
        for &key in keys {
            let (modifiers, key) = match key.strip_prefix("Shift+") {
                Some(key) => (8, key),
                None => (0, key),
            };
            // What a key does by itself in a page depends on its code.
            let code = match key {
                "Tab" => 9,
                "Enter" => 13,
                " " => 32,
                "ArrowLeft" => 37,
                "ArrowUp" => 38,
                "ArrowRight" => 39,
                "ArrowDown" => 40,
                _ => 0,
            };
            let mut event = json!({"type": "keyDown", "key": key, "windowsVirtualKeyCode": code, "modifiers": modifiers});
            match key {
                "Enter" => event["text"] = "\r".into(),
                one if one.chars().count() == 1 => event["text"] = one.into(),
                _ => {}
            }
            self.call("Input.dispatchKeyEvent", &event);
            event["type"] = "keyUp".into();
            self.call("Input.dispatchKeyEvent", &event);
        }
    }

    /// Clicks at a place of the window.
    pub fn click(&mut self, x: f64, y: f64) {
        for what in ["mouseMoved", "mousePressed", "mouseReleased"] {
            let event = json!({"type": what, "x": x, "y": y, "button": "left", "clickCount": 1});
            self.call("Input.dispatchMouseEvent", &event);
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Asked to close, it ends its own processes before its directory goes.
        let close = json!({"id": self.calls + 1, "method": "Browser.close"});
        let _ = self.to.write_all(format!("{close}\0").as_bytes());
        let deadline = Instant::now() + Duration::from_secs(5);
        while self.process.try_wait().is_ok_and(|ended| ended.is_none()) {
            if Instant::now() > deadline {
                let _ = self.process.kill();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
