// Headless Chromium, and the program that it looks at.
//
// Chromium is spoken to by its own protocol over a pipe, so that nothing needs to be installed beside it. CHROMIUM
// says which one; the default is `chromium`.

import { spawn } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

export const PATIENCE_MS = 20_000;
const ended = [];

/// Ends all that was begun, the last first.
export async function end() {
  for (const one of ended.reverse()) await one();
}

/// Makes a folder that is removed at the end.
export async function makeFolder() {
  const folder = await mkdtemp(join(tmpdir(), "stubborn-browser-"));
  ended.push(() => rm(folder, { recursive: true, force: true, maxRetries: 5 }));
  return folder;
}

/// Starts the program; returns where it serves HTTP, and what stops it in order.
export async function startServer(program, options, http = "127.0.0.1:0") {
  const arguments_ = ["serve", ...options, "--listen", "127.0.0.1:0", "--http", http];
  const server = spawn(program, arguments_, { stdio: ["ignore", "pipe", "ignore"] });
  const gone = new Promise((resolve) => server.on("exit", resolve));
  const stop = async () => { server.kill(); await gone; };
  ended.push(stop);
  const line = await within("the server begins", new Promise((resolve, reject) => {
    let said = "";
    server.stdout.on("data", (data) => { said += data; if (said.includes("\n")) resolve(said); });
    server.on("exit", () => reject(new Error("the server ended: " + said)));
  }));
  return { url: "http://" + /http=(\S+)/.exec(line)[1], stop };
}

/// Starts Chromium with a folder of its own.
export async function openBrowser() {
  const folder = await makeFolder();
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
      listeners.filter(([name, , from]) => name === message.method && from === message.sessionId).forEach(([, listen]) => listen(message.params));
    }
  });
  const send = (method, params = {}, sessionId) => within(method, new Promise((resolve, reject) => {
    count += 1;
    waiting.set(count, { resolve, reject });
    commands.write(JSON.stringify({ id: count, method, params, sessionId }) + "\0");
  }));
  /// Opens a tab; `screenshot` is where its picture is if it is not as expected.
  const openPage = async (screenshot) => {
    const { targetId } = await send("Target.createTarget", { url: "about:blank" });
    const { sessionId } = await send("Target.attachToTarget", { targetId, flatten: true });
    const page = {
      send: (method, params) => send(method, params, sessionId),
      on: (name, listen) => listeners.push([name, listen, sessionId]),
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
  };
  return { openPage };
}

/// Waits for `promise`, not for ever.
export function within(what, promise) {
  let timer;
  const late = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error(what + ": too late")), PATIENCE_MS); });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}
