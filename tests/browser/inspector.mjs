// The inspector in headless Chromium, against the real program:
//
//     node tests/browser/inspector.mjs PROGRAM SCREENSHOT.png
//
// Chromium is spoken to by its own protocol over a pipe, so that nothing needs to be installed beside it. CHROMIUM
// says which one; the default is `chromium`.

import { spawn } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import assert from "node:assert/strict";

const [program, screenshot] = process.argv.slice(2);
const PATIENCE_MS = 20_000;
const ended = [];

try {
  const server = await startServer();
  const put = await putData(server);
  const page = await openPage();
  await look(page, server, put);
  console.log("the inspector: as expected");
} finally {
  for (const end of ended.reverse()) await end();
}

/// Starts the program; returns where it serves HTTP.
async function startServer() {
  const arguments_ = ["serve", "--in-memory", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"];
  const server = spawn(program, arguments_, { stdio: ["ignore", "pipe", "ignore"] });
  ended.push(() => { server.kill(); });
  const line = await within("the server begins", new Promise((resolve, reject) => {
    let said = "";
    server.stdout.on("data", (data) => { said += data; if (said.includes("\n")) resolve(said); });
    server.on("exit", () => reject(new Error("the server ended: " + said)));
  }));
  return "http://" + /http=(\S+)/.exec(line)[1];
}

/// Stores what the page is to show, and lets something go wrong.
async function putData(server) {
  const hostile = "<img src=x onerror=\"document.title='owned'\">\u202eevil";
  const asked = async (method, path, body) => {
    const response = await fetch(server + path, { method, body });
    assert.ok(response.ok, `${method} ${path}: ${response.status} ${await response.text()}`);
  };
  for (let n = 0; n < 30; n += 1) await asked("POST", `/COUNTER/visits-${n}/?by=${n}`);
  await asked("PUT", "/KV/cart/apples", "three green ones");
  await asked("PUT", "/KV/cart/%3Cscript%3Ealert(1)%3C/script%3E", hostile);
  await asked("PUT", "/KV/cart/long", "a long value ".repeat(80));
  await asked("POST", "/ROOM/lobby/?from=ann", "hello, everybody");
  await asked("PUT", "/PROBE/shop/put?key=cart", JSON.stringify({ items: [["tea", 2]], note: hostile }));
  const sql = (text) => asked("POST", "/PROBE/shop/sql", JSON.stringify({ sql: text }));
  await sql("CREATE TABLE fruit (name TEXT PRIMARY KEY, price REAL, stock INTEGER)");
  await sql("INSERT INTO fruit VALUES ('apple', 1.25, 40), ('quince', 3.5, 9007199254740993), ('<b>pear</b>', 2, NULL)");
  await asked("POST", "/PROBE/shop/alarm?in_ms=3600000");
  await fetch(server + "/PROBE/shop/throw?message=the%20till%20is%20%3Cb%3Eempty%3C/b%3E");
  await fetch(server + "/PROBE/broken/panic?message=out%20of%20quinces");
  return { hostile };
}

async function look(page, server, { hostile }) {
  const problems = [];
  page.on("Runtime.exceptionThrown", ({ exceptionDetails: why }) => problems.push(why.exception?.description ?? why.text));
  page.on("Log.entryAdded", ({ entry }) => problems.push(`${entry.text} ${entry.url ?? ""}`));
  await page.send("Runtime.enable");
  await page.send("Log.enable");
  await page.send("Emulation.setDeviceMetricsOverride", { width: 1400, height: 860, deviceScaleFactor: 1, mobile: false });
  await page.send("Page.navigate", { url: server + "/_stubborn/" });

  await page.until("it lists namespaces", `texts("#namespaces a").join().includes("COUNTER")`);
  await page.until("it tells of what went wrong", `texts(".event").some((text) => text.includes("out of quinces"))`);

  // By keyboard: a namespace, a search for a name, and its storage.
  await page.run(`document.querySelector("#namespaces a[href='#/PROBE']").click()`);
  await page.until("it lists objects", `texts("#objects .list a").some((text) => text.includes("shop"))`);
  await page.key("/");
  await page.send("Input.insertText", { text: "shop" });
  await page.key("Enter");
  await page.until("a search finds the object", `texts("#objects .list a").length === 1 && /^#.PROBE.[0-9a-f]{64}$/.test(location.hash)`);
  await page.until("its key and value are there", `texts(".pairs tr").some((text) => text.includes("cart") && text.includes('tea'))`);
  await page.run(`document.querySelector("#find").blur()`);
  await page.key("2");
  await page.until("its table is there", `texts(".bar button").includes("fruit")`);
  await page.run(`document.querySelector("#statement").focus()`);
  await page.send("Input.insertText", { text: "SELECT name, price, stock FROM fruit ORDER BY price" });
  await page.run(`document.querySelector("#run").click()`);
  await page.until("the rows are there", `texts("#result td").join("|").startsWith("apple|1.25|40|<b>pear</b>|2|null|quince|3.5|9007199254740993")`);

  // What is live: with requests under way there is a rate and a latency.
  let busy = true;
  const load = (async () => {
    for (let n = 0; busy; n += 1) {
      await fetch(`${server}/PROBE/shop/${n % 40 === 7 ? "throw?message=now%20and%20then" : n % 3 ? "whoami" : "sleep?ms=" + (n % 9)}`);
    }
  })();
  await page.until("there is a rate", `parseFloat(texts("#plot-rate")[0]) > 0 && /µs|ms/.test(texts("#plot-p99")[0])`);
  await page.until("there are errors", `document.querySelector("#plot-errors").closest(".plot").matches(".alert")`);
  await new Promise((done) => setTimeout(done, 6_000));
  await page.picture(screenshot);
  await page.run(`document.activeElement.blur()`);
  await page.key("3");
  await page.until("its alarm is there", `/in (59|60) min/.test(texts("dd").join())`);
  await page.key("4");
  await page.until("its troubles are there", `texts(".event").some((text) => text.includes("the till is <b>empty</b>"))`);
  await page.picture(screenshot.replace(".png", "-events.png"));
  busy = false;
  await load;

  // A deep link, in the dark, to what wants to be taken for a part of the page.
  const found = await (await fetch(server + "/_stubborn/api/objects?namespace=KV&find=cart")).json();
  await page.send("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value: "dark" }] });
  await page.send("Page.navigate", { url: "about:blank" });
  await page.send("Page.navigate", { url: `${server}/_stubborn/#/KV/${found.objects[0].id}` });
  await page.until("a deep link opens", `texts(".pairs tr").some((text) => text.includes("three green ones"))`);
  const shown = await page.run(`texts(".pairs td").join("\\n")`);
  assert.ok(shown.includes("<img src=x") && shown.includes("%3Cscript%3E"), shown);
  assert.ok(!shown.includes("\u202e") && hostile.includes("\u202e"), "what turns the text around is visible");
  assert.equal(await page.run(`document.querySelectorAll("#detail img, #detail script, #detail b:not(.facts b)").length`), 0);
  assert.equal(await page.run(`document.title`), "stubborn inspector");
  await page.picture(screenshot.replace(".png", "-dark.png"));
  assert.deepEqual(problems, [], "the browser complains of nothing");
}

/// Starts Chromium with a folder of its own, and opens a page.
async function openPage() {
  const folder = await mkdtemp(join(tmpdir(), "inspector-"));
  const flags = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    `--user-data-dir=${folder}`, "--remote-debugging-pipe", "about:blank",
  ];
  const browser = spawn(process.env.CHROMIUM ?? "chromium", flags, { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"], detached: true });
  const gone = new Promise((resolve) => browser.on("exit", resolve));
  ended.push(async () => {
    try { process.kill(-browser.pid, "SIGKILL"); } catch { /* It has ended by itself. */ }
    await gone;
    await rm(folder, { recursive: true, force: true, maxRetries: 5 });
  });
  const [, , , commands, events] = browser.stdio;
  const waiting = new Map();
  const listeners = [];
  let count = 0, heard = "";
  events.on("data", (data) => {
    heard += data;
    const messages = heard.split("\0");
    heard = messages.pop();
    for (const message of messages.map((text) => JSON.parse(text))) {
      const told = waiting.get(message.id);
      waiting.delete(message.id);
      if (told && message.error) told.reject(new Error(JSON.stringify(message.error)));
      else if (told) told.resolve(message.result);
      listeners.filter(([name]) => name === message.method).forEach(([, listen]) => listen(message.params));
    }
  });
  const send = (method, params = {}, sessionId) => within(method, new Promise((resolve, reject) => {
    count += 1;
    waiting.set(count, { resolve, reject });
    commands.write(JSON.stringify({ id: count, method, params, sessionId }) + "\0");
  }));
  const { targetId } = await send("Target.createTarget", { url: "about:blank" });
  const { sessionId } = await send("Target.attachToTarget", { targetId, flatten: true });
  const page = {
    send: (method, params) => send(method, params, sessionId),
    on: (name, listen) => listeners.push([name, listen]),
    async run(expression) {
      const helper = `const texts = (selector) => [...document.querySelectorAll(selector)].map((one) => one.innerText.replace(/\\s+/g, " ").trim());`;
      const { result, exceptionDetails } = await page.send("Runtime.evaluate", { expression: `(() => { ${helper} return (${expression}); })()`, returnByValue: true });
      if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
      return result.value;
    },
    async until(what, expression) {
      const end = Date.now() + PATIENCE_MS;
      while (Date.now() < end) {
        if (await page.run(expression).catch(() => false)) return console.log("  " + what);
        await new Promise((done) => setTimeout(done, 50));
      }
      await page.picture(screenshot);
      throw new Error(`${what}: not within ${PATIENCE_MS} ms; the page is ${await page.run("document.body.innerText")}`);
    },
    async key(key) {
      const text = key === "Enter" ? "\r" : key;
      const windowsVirtualKeyCode = key === "Enter" ? 13 : undefined;
      await page.send("Input.dispatchKeyEvent", { type: "keyDown", key, text, windowsVirtualKeyCode });
      await page.send("Input.dispatchKeyEvent", { type: "keyUp", key, windowsVirtualKeyCode });
    },
    async picture(path) {
      const { data } = await page.send("Page.captureScreenshot", { format: "png" });
      await writeFile(path, Buffer.from(data, "base64"));
    },
  };
  return page;
}

function within(what, promise) {
  let timer;
  const late = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error(what + ": too late")), PATIENCE_MS); });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}
