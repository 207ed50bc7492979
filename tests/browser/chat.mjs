// Two people in a room, each in a tab of headless Chromium, against the real program:
//
//     node tests/browser/chat.mjs PROGRAM SCREENSHOT.png
//
// What one types the other sees; after the server has stopped and begun anew both are back, and nothing is lost.

import assert from "node:assert/strict";
import { end, makeFolder, openBrowser, startServer } from "./chromium.mjs";

const [program, screenshot] = process.argv.slice(2);

try {
  const folder = await makeFolder();
  const first = await startServer(program, ["--data", folder]);
  const browser = await openBrowser();
  const problems = [];
  const [ann, bob] = [await join("ann", 900), await join("bob", 400)];
  await ann.until("two are here", `texts("#state")[0] === "2 are here"`);
  await say(ann, "hello, bob");
  await bob.until("bob sees what ann says", `texts("li").includes("annhello, bob")`);
  await say(bob, "<b>hello</b>, ann");
  await ann.until("ann sees what bob says, as he wrote it", `texts("li").includes("bob<b>hello</b>, ann")`);
  assert.equal(await ann.run(`document.querySelectorAll("li b").length`), 2, "a name is bold, and nothing that was said");

  await first.stop();
  await ann.until("ann sees that the server is gone", `texts("#state")[0].includes("connection lost")`);
  await say(bob, "said while nobody could hear it");
  await startServer(program, ["--data", folder], new URL(first.url).host);
  await ann.until("ann sees what bob said meanwhile", `texts("li").length === 3 && texts("li")[2] === "bobsaid while nobody could hear it"`);
  await bob.until("bob sees it once", `texts("li").length === 3 && texts("#state")[0] === "2 are here"`);
  await say(ann, "we are back");
  await bob.until("the room goes on", `texts("li").join("|") === "annhello, bob|bob<b>hello</b>, ann|bobsaid while nobody could hear it|annwe are back"`);
  await ann.until("nothing is wider than its window", `document.documentElement.scrollWidth <= innerWidth`);
  await bob.until("nor where it is narrow", `document.documentElement.scrollWidth <= innerWidth`);
  await ann.picture(screenshot);
  await bob.picture(screenshot.replace(".png", "-narrow.png"));
  assert.deepEqual(problems, [], "the browser complains of nothing");
  console.log("the chat: as expected");

  /// Opens a tab of somebody, so many pixels wide.
  async function join(name, width) {
    const page = await browser.openPage(screenshot);
    page.on("Runtime.exceptionThrown", ({ exceptionDetails: why }) => problems.push(why.exception?.description ?? why.text));
    await page.send("Runtime.enable");
    await page.send("Emulation.setDeviceMetricsOverride", { width, height: 640, deviceScaleFactor: 1, mobile: false });
    await page.send("Page.navigate", { url: first.url + "/ROOM/lobby/" });
    await page.until(name + " is in", `/here/.test(texts("#state")[0])`);
    await page.run(`document.querySelector("#name").value = ${JSON.stringify(name)}`);
    return page;
  }

  /// Types a line, as people do.
  async function say(page, text) {
    await page.run(`document.querySelector("#text").focus()`);
    await page.send("Input.insertText", { text });
    await page.key("Enter");
  }
} finally {
  await end();
}
