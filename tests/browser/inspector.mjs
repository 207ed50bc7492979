// The inspector in headless Chromium, against the real program:
//
//     node tests/browser/inspector.mjs PROGRAM SCREENSHOT.png

import assert from "node:assert/strict";
import { end, openBrowser, startServer } from "./chromium.mjs";

const [program, screenshot] = process.argv.slice(2);

try {
  const { url: server } = await startServer(program, ["--in-memory"]);
  const put = await putData(server);
  await look(await openBrowser(), server, put);
  console.log("the inspector: as expected");
} finally {
  await end();
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

async function look(browser, server, { hostile }) {
  const page = await browser.openPage(screenshot);
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
  await page.key("5");
  await page.until("its troubles are there", `texts(".event").some((text) => text.includes("the till is <b>empty</b>"))`);
  await page.until("so are the last events", `texts(".recent").some((text) => /fetch (failed )?[0-9.]+ (µs|ms)/.test(text))`);
  await page.picture(screenshot.replace(".png", "-events.png"));
  busy = false;
  await load;

  // A room with somebody in it, and a narrow window.
  const member = await browser.openPage(screenshot);
  await member.send("Page.navigate", { url: server + "/ROOM/lobby/" });
  await member.until("a member is in", `/here/.test(texts("#state")[0])`);
  // A page that is not seen asks for nothing.
  await page.send("Page.bringToFront");
  const room = await (await fetch(server + "/_stubborn/api/objects?namespace=ROOM&find=lobby")).json();
  await page.send("Page.navigate", { url: "about:blank" });
  await page.send("Page.navigate", { url: `${server}/_stubborn/#/ROOM/${room.objects[0].id}/sockets` });
  await page.until("its WebSocket is there", `texts(".sockets tbody tr").length === 1 && texts(".facts").join().includes("WebSockets 1") && texts("#namespaces a").length > 3`);
  await page.picture(screenshot.replace(".png", "-sockets.png"));
  await page.send("Emulation.setDeviceMetricsOverride", { width: 400, height: 860, deviceScaleFactor: 1, mobile: false });
  await page.until("nothing is wider than a narrow window", `document.documentElement.scrollWidth <= 400`);
  await page.picture(screenshot.replace(".png", "-narrow.png"));
  await page.send("Emulation.setDeviceMetricsOverride", { width: 1400, height: 860, deviceScaleFactor: 1, mobile: false });
  await member.send("Page.navigate", { url: "about:blank" });

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
