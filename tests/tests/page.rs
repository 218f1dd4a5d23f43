//! `ldwrap report`: its page, in a real browser.

use ldwrap_tests::browser::Browser;
use ldwrap_tests::{Session, llvm_22_with_shim};
use serde_json::{Value, json};

/// What a page of 5,000 modules may take until all of it is shown, in milliseconds: five times what it is to take, since
/// others use the machine.
const SHOWN_WITHIN_MS: u64 = 10_000;

/// Runs a command with the settings of a user who has made none; gives its standard output and error.
fn tool(s: &Session, command: &str, succeeds: bool) -> (String, String) {
    let mut c = s.bash(command);
    s.use_shim_by_default(&mut c);
    let out = c.output().expect("bash");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&out.stdout), text(&out.stderr));
    assert_eq!(
        out.status.success(),
        succeeds,
        "{command}: {stdout}{stderr}"
    );
    (stdout, stderr)
}

fn open(s: &Session, page: &str) -> Browser {
    let mut b = Browser::open(&s.dir().join(page));
    b.wait_for("document.documentElement?.dataset.shownAfterMs");
    b
}

/// The texts of a column of a table, by its place.
fn column(b: &mut Browser, table: &str, number: usize) -> Vec<String> {
    let cells = format!("[...document.querySelectorAll('#{table} tbody tr')]");
    let texts = b.get(&format!(
        "{cells}.map((row) => row.cells[{number}].textContent)"
    ));
    let texts = texts.as_array().expect("a list").iter();
    texts
        .map(|text| text.as_str().unwrap_or_default().to_owned())
        .collect()
}

/// A trace of a link with this many modules on eight threads. Module N takes N times 10 us, and each tenth waits.
fn trace(modules: usize) -> Value {
    let mut events = vec![
        json!({"ph": "M", "name": "process_name", "pid": 1, "args": {"name": "app"}}),
        json!({"ph": "X", "cat": "phase", "name": "backends", "ts": 0, "dur": 20_000_000, "pid": 1, "tid": 1}),
    ];
    let mut ends = [0_usize; 8];
    for n in 0..modules {
        let (thread, name) = (n % ends.len(), format!("src/m{n}.o"));
        let (start, took) = (ends[thread], n * 10 + 1);
        let (source, waited) = (["lld", "cache", "remote"][n % 3], took / 2);
        let mut args = json!({"module": name, "source": source, "bytes": n * 100});
        if n % 10 == 9 {
            args["waited_us"] = waited.into();
            args["imports"] = json!([format!("src/m{}.o", n - 1)]);
            events.push(json!({"ph": "X", "cat": "wait", "name": "slot", "ts": start, "dur": waited, "pid": 1,
                "tid": 2 + thread, "args": {"module": name, "for": "slot"}}));
        }
        events.push(
            json!({"ph": "X", "cat": "backend", "name": name, "ts": start, "dur": took, "pid": 1,
            "tid": 2 + thread, "args": args}),
        );
        ends[thread] = start + took + 5;
    }
    json!({"traceEvents": events, "otherData": {"output": "bin/app", "total_us": 21_000_000, "lld": "22.1.8"}})
}

#[test]
fn links_and_what_became_of_them() {
    llvm_22_with_shim(|s| {
        s.write(
            "main.c",
            "int two(int); int main(void) { return two(2) - 4; }\n",
        );
        s.write("two.c", "int two(int n) { return n * 2; }\n");
        s.compile("clang-$N -c -O2 -flto=thin main.c two.c");
        // A link through ldwrap, one that is left to lld, and a line that was torn.
        let link = "clang-$N -flto=thin -fuse-ld=lld main.o two.o -o";
        tool(
            s,
            &format!(
                "export LDWRAP_REPORT=$PWD/report LDWRAP_CACHE_SIZE=0
                LDWRAP_SPLIT=always {link} app; {link} small; echo '{{\"action\":\"sp' >> report
                $LDWRAP report -o page.html 2> notes"
            ),
            true,
        );
        let note = "skipped 1 line that no link wrote";
        assert!(s.read("notes").contains(note), "{}", s.read("notes"));
        let mut b = open(s, "page.html");
        let text = b.text("document.body.innerText");
        for said in [
            "2 links: 1 through ldwrap, 1 left to lld.",
            "2 modules, 0 of them (0 %) from a cache.",
            "No trace was given.",
            note,
        ] {
            assert!(text.contains(said), "{said}: {text}");
        }
        assert_eq!(column(&mut b, "links", 0), ["small", "app"]);
        assert_eq!(
            column(&mut b, "links", 2),
            ["left to lld", "through ldwrap"]
        );
        let phases = b.text("document.getElementById('all-phases').innerText");
        assert!(phases.contains("Until lld had its last object"), "{phases}");
        assert_eq!(b.troubles, [""; 0]);
    });
}

#[test]
fn what_is_typed_wrongly() {
    llvm_22_with_shim(|s| {
        let page = "ldwrap report -o page.html";
        // Standard output is a terminal.
        let (said, _) = tool(s, "script -qec '$LDWRAP report x' /dev/null", false);
        assert!(said.contains(page), "{said}");
        let (_, said) = tool(s, "$LDWRAP report no-such-file -o page.html", false);
        assert!(said.contains("no-such-file: No such file"), "{said}");
        let (_, said) = tool(s, "$LDWRAP report -o page.html", false);
        assert!(said.contains("set LDWRAP_REPORT=FILE"), "{said}");
        let (_, said) = tool(s, "LDWRAP_REPORT=later $LDWRAP report -o page.html", false);
        assert!(said.contains("later is not there yet"), "{said}");
        assert!(!s.exists("page.html"));
        // The terminal is no obstacle when a file is named, nor is an empty report.
        s.write("empty", "");
        tool(
            s,
            "script -qec '$LDWRAP report empty -o page.html' /dev/null",
            true,
        );
        let mut b = open(s, "page.html");
        let text = b.text("document.body.innerText");
        assert!(text.contains("empty: no link in it"), "{text}");
        assert!(text.contains("No report was given"), "{text}");
    });
}

#[test]
fn names_are_text_whatever_they_are() {
    llvm_22_with_shim(|s| {
        let name = "</script><script>document.title='run'</script><img src=x onerror=\"document.title='run'\">.o";
        let mut hostile = trace(3);
        for event in hostile["traceEvents"].as_array_mut().expect("events") {
            event["name"] = name.into();
            event["args"] = json!({"name": name, "module": name, "source": name, "for": name, "imports": [name]});
        }
        hostile["otherData"] = json!({"output": name, "lld": name, "total_us": name});
        s.write("trace.json", hostile.to_string());
        let line = json!({"action": "split", "output": name, "reason": name, "executor": name,
            "phases_ms": {name: 1}, "complaints": [name], "remote": {"trouble": name}});
        s.write("report", format!("{line}\n{name}\n"));
        tool(s, "$LDWRAP report trace.json report > page.html", true);
        let mut b = open(s, "page.html");
        assert_eq!(b.text("document.title"), "ldwrap report");
        assert_eq!(b.get("document.querySelectorAll('main img').length"), 0);
        assert_eq!(column(&mut b, "modules", 0), [name; 3]);
        assert_eq!(column(&mut b, "links", 0), [name]);
        assert_eq!(b.troubles, [""; 0]);
        // Nor would the page's policy let such a script run.
        b.get("document.body.appendChild(Object.assign(document.createElement('script'), {textContent: \"document.title='run'\"})), 0");
        assert_eq!(b.text("document.title"), "ldwrap report");
    });
}

#[test]
fn five_thousand_modules() {
    llvm_22_with_shim(|s| {
        s.write("traces/app-1.json", trace(5000).to_string());
        s.write("traces/torn.json", "{\"traceEvents\": [");
        tool(s, "$LDWRAP report traces -o page.html", true);
        let mut b = open(s, "page.html");
        let shown = b.text("document.documentElement.dataset.shownAfterMs");
        eprintln!("5,000 modules are shown after {shown} ms");
        assert!(shown.parse::<u64>().is_ok_and(|ms| ms < SHOWN_WITHIN_MS));
        let facts = b.text("document.getElementById('facts').innerText");
        assert!(facts.contains("5,000"), "{facts}");

        // The slowest first; the other end; by name, whose numbers count as numbers.
        let first = |b: &mut Browser, column_at| column(b, "modules", column_at).remove(0);
        assert_eq!(first(&mut b, 0), "src/m4999.o");
        let head = |n: usize| {
            format!(
                "document.querySelectorAll('#modules th button')[{n}].click(), performance.now()"
            )
        };
        let before = b.get("performance.now()").as_f64();
        let after = b.get(&head(3)).as_f64();
        eprintln!(
            "they are sorted in {:?} ms",
            after.zip(before).map(|(a, b)| a - b)
        );
        assert_eq!(first(&mut b, 0), "src/m0.o");
        b.get(&head(0));
        assert_eq!(
            column(&mut b, "modules", 0)[9..11],
            ["src/m9.o", "src/m10.o"]
        );
        assert_eq!(
            b.text("document.querySelectorAll('#modules th')[0].ariaSort"),
            "ascending"
        );
        b.get(&head(0));
        assert_eq!(first(&mut b, 0), "src/m4999.o");

        // Every word has to be there, and the choice holds too.
        b.get("{ const i = document.querySelector('#modules input'); i.focus(); i.select(); }");
        b.press(&["S", "R", "C", " ", "m", "4", "9", "9"]);
        let said = "document.querySelector('#modules [role=status]').textContent";
        assert_eq!(b.text(said), "11 of 5,000 modules");
        b.get("{ const c = document.querySelector('#modules select'); c.value = 'from a cache'; c.dispatchEvent(new Event('change')); }");
        assert_eq!(b.text(said), "5 of 5,000 modules");
        assert_eq!(column(&mut b, "modules", 1), ["from a cache"; 5]);
        b.press(&["x"]);
        assert_eq!(b.text(said), "0 of 5,000 modules");

        // Waits: each tenth module, half of its time.
        assert_eq!(column(&mut b, "waits", 0), ["a free slot on this machine"]);
        assert_eq!(column(&mut b, "waits", 1), ["500"]);
        assert_eq!(column(&mut b, "waits", 4), ["src/m4999.o"]);
        assert_eq!(b.troubles, [""; 0]);
    });
}

#[test]
fn timeline_by_mouse_and_keyboard() {
    llvm_22_with_shim(|s| {
        s.write("app.json", trace(200).to_string());
        tool(s, "$LDWRAP report app.json -o page.html", true);
        let mut b = open(s, "page.html");
        let name = "document.querySelector('#detail .name').textContent";
        let span = "Math.round(timeline.span)";
        let whole = b.get(span);
        assert_eq!(whole, 21_000_000);
        assert_eq!(b.text(name), "src/m199.o", "the slowest at first");
        let imports = b.text("document.getElementById('detail').innerText");
        assert!(imports.contains("Imports from 1 module:") && imports.contains("m198.o"));

        // From bar to bar and from thread to thread. Thread N has the modules N, N + 8, N + 16 ...
        b.get("document.getElementById('lanes').focus()");
        b.press(&["ArrowLeft"]);
        assert_eq!(b.text(name), "src/m191.o");
        b.press(&["ArrowLeft", "ArrowRight", "ArrowRight", "ArrowRight"]);
        assert_eq!(b.text(name), "src/m199.o", "it is the last");
        b.press(&["ArrowUp"]);
        assert_eq!(b.text(name), "src/m198.o");
        let current = "document.querySelector('#modules tr[aria-current]').cells[0].textContent";
        assert_eq!(b.text(current), "src/m198.o");
        b.press(&["+", "+", "+"]);
        assert_eq!(b.get(span), 2_625_000);
        let from = b.get("timeline.from").as_f64();
        b.press(&["Shift+ArrowRight"]);
        assert!(b.get("timeline.from").as_f64() > from);
        b.press(&["0"]);
        assert_eq!(b.get(span), whole);

        // Bars are where they should be: a click on one says which it is, and the canvas has its colour there.
        let place = "{ const e = timeline.view.backends.find(({ name }) => name === 'src/m196.o'); timeline.look(e.start - 100, 4000); \
             document.getElementById('lanes').scrollIntoView(); const box = timeline.canvas.getBoundingClientRect(); \
             [box.left + timeline.x(e.start + e.length / 2), box.top + timeline.top(e.lane) + 8] }";
        let at = b.get(place);
        let (x, y) = (at[0].as_f64().expect("x"), at[1].as_f64().expect("y"));
        b.click(x, y);
        assert_eq!(b.text(name), "src/m196.o");
        let colour = format!(
            "{{ const box = timeline.canvas.getBoundingClientRect(); \
             const [r, g, b] = timeline.context.getImageData({x} - box.left, {y} - box.top, 1, 1).data; `rgb(${{r}}, ${{g}}, ${{b}})` }}"
        );
        let of_source =
            "getComputedStyle(document.querySelectorAll('#legend .swatch')[0]).backgroundColor";
        assert_eq!(b.text(&colour), b.text(of_source), "196 is from the cache");

        // A table's head and rows, by Tab, Enter and arrows.
        b.get("document.querySelector('#modules select').focus()");
        b.press(&["Tab", "Enter"]);
        let first = "document.querySelector('#modules tbody tr').cells[0].textContent";
        assert_eq!(b.text(first), "src/m0.o");
        b.get("document.querySelector('#modules tbody button').focus()");
        b.press(&["ArrowDown", "Enter"]);
        assert_eq!(b.text(name), "src/m1.o");
        assert_eq!(b.troubles, [""; 0]);
    });
}

#[test]
fn light_and_dark() {
    llvm_22_with_shim(|s| {
        s.write("app.json", trace(20).to_string());
        s.write("report", "{\"action\":\"split\",\"output\":\"app\"}\n");
        tool(s, "$LDWRAP report app.json report -o page.html", true);
        let mut b = open(s, "page.html");
        let prefer = |b: &mut Browser, scheme: &str| {
            let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
            b.call("Emulation.setEmulatedMedia", &features);
        };
        // As a page has it: light if the ground is lighter than the text.
        let is_dark = "{ const light = (c) => c.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + Number(b), 0); \
             const s = getComputedStyle(document.body); light(s.backgroundColor) < light(s.color) }";
        // The canvas is drawn in the colours of then.
        let title = "timeline.colours('--quiet') === getComputedStyle(document.getElementById('sources')).color";
        prefer(&mut b, "light");
        assert_eq!(b.get(is_dark), false);
        prefer(&mut b, "dark");
        assert_eq!(b.get(is_dark), true);
        b.wait_for(title);
        // The switch, by keyboard, wins over the system.
        b.get("document.querySelector('#theme input').focus()");
        b.press(&["ArrowRight"]);
        assert_eq!(b.get(is_dark), false);
        b.wait_for(title);
        prefer(&mut b, "light");
        b.press(&["ArrowRight"]);
        assert_eq!(b.get(is_dark), true);
        b.wait_for(title);
        // Text can be read: WCAG's contrast of 4.5 in both.
        let contrast = "{ const l = (c) => c.match(/\\d+/g).slice(0, 3).map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4) \
               .reduce((sum, v, n) => sum + v * [0.2126, 0.7152, 0.0722][n], 0); \
             const s = getComputedStyle(document.getElementById('sources')); const g = getComputedStyle(document.body).backgroundColor; \
             const [a, b] = [l(s.color), l(g)].sort(); (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) }";
        assert!(b.get(contrast).as_f64().is_some_and(|c| c >= 4.5));
        b.press(&["ArrowLeft"]);
        assert!(b.get(contrast).as_f64().is_some_and(|c| c >= 4.5));
        assert_eq!(b.troubles, [""; 0]);
    });
}
