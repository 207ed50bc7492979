"use strict";
// What others wrote (names, keys, values, messages) goes into the page as text nodes and attributes only.

const POLL_MS = 1000;
const SAMPLES = 120;
const WINDOW = 5;
const TABS = ["storage", "sql", "alarm", "sockets", "events"];
const SVG = "http://www.w3.org/2000/svg";

const at = (selector) => document.querySelector(selector);
let token = "";
let server = { namespaces: [], bounds_us: [] };
let route = { namespace: null, id: null, tab: "storage" };
let samples = [];
let objects = { list: [], cursor: null, find: "", pages: 0 };
let detail = null;
let turn = 0;
let drafts = new Map();

/// Makes an element. Children that are not elements are text.
function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/// Makes what can't be seen, or turns the text around, visible.
function visible(text) {
  const hidden = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g;
  return text.replace(hidden, (one) => "\\u{" + one.codePointAt(0).toString(16) + "}");
}

const called = (object) => object.name === null ? object.id.slice(0, 12) + "…" : object.name === "" ? '""' : visible(object.name);

async function ask(path, parameters, body) {
  const query = Object.entries(parameters || {}).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const text = query.map(([name, value]) => name + "=" + encodeURIComponent(value)).join("&");
  const headers = {};
  if (token) headers.authorization = "Bearer " + token;
  if (body) headers["content-type"] = "application/json";
  const response = await fetch("api/" + path + (text ? "?" + text : ""), {
    headers, method: body ? "POST" : "GET", body: body ? JSON.stringify(body) : undefined, cache: "no-store",
  });
  const answer = await response.json().catch(() => ({}));
  if (response.ok) return answer;
  if (response.status === 401) {
    at("#door").hidden = false;
    if (document.activeElement === document.body) at("#token").focus();
  }
  const error = new Error((answer.error && answer.error.message) || "status " + response.status);
  error.status = response.status;
  throw error;
}

// Numbers, as people read them.

function short(number) {
  if (number === null) return "–";
  if (number >= 1e6) return (number / 1e6).toFixed(number >= 1e7 ? 0 : 1) + " M";
  if (number >= 1e4) return (number / 1e3).toFixed(0) + " k";
  if (number >= 100 || Number.isInteger(number)) return Math.round(number).toLocaleString("en");
  return number.toFixed(1);
}

function bytes(number) {
  const units = ["B", "KiB", "MiB", "GiB"];
  let unit = 0;
  while (number >= 1024 && unit < units.length - 1) { number /= 1024; unit += 1; }
  return (unit === 0 || number >= 100 ? Math.round(number) : number.toFixed(1)) + " " + units[unit];
}

function duration(us) {
  if (us === null) return "–";
  if (us < 1000) return Math.round(us) + " µs";
  if (us < 1e6) return (us / 1e3).toFixed(us < 1e4 ? 1 : 0) + " ms";
  return (us / 1e6).toFixed(us < 1e7 ? 1 : 0) + " s";
}

function span(ms) {
  const seconds = Math.round(Math.abs(ms) / 1000);
  if (seconds < 120) return seconds + " s";
  if (seconds < 7200) return Math.round(seconds / 60) + " min";
  if (seconds < 172800) return Math.round(seconds / 3600) + " h";
  return Math.round(seconds / 86400) + " days";
}

function time(ms) {
  const date = new Date(ms);
  if (Number.isNaN(date.getTime())) return ms + " ms";
  const two = (number) => String(number).padStart(2, "0");
  const day = date.getFullYear() + "-" + two(date.getMonth() + 1) + "-" + two(date.getDate());
  return day + " " + two(date.getHours()) + ":" + two(date.getMinutes()) + ":" + two(date.getSeconds());
}

// Live.

const PLOTS = [
  { id: "rate", label: "Events per second", show: short },
  { id: "p50", label: "Median latency", show: duration },
  { id: "p99", label: "99th percentile", show: duration },
  { id: "errors", label: "Errors per second", show: short, alert: true },
  { id: "resets", label: "Resets per second", show: short, alert: true },
  { id: "memory", label: "Objects in memory", show: short },
];

function makePlots() {
  for (const plot of PLOTS) {
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", "0 0 " + (SAMPLES - 1) + " 26");
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("aria-hidden", "true");
    for (const part of ["area", "line"]) {
      plot[part] = document.createElementNS(SVG, "path");
      plot[part].setAttribute("class", part);
      svg.append(plot[part]);
    }
    plot.value = make("div", { class: "value", id: "plot-" + plot.id }, "–");
    plot.most = make("div", { class: "most" });
    plot.box = make("div", { class: "plot" }, make("div", { class: "label" }, plot.label), plot.value, plot.most, svg);
    at("#plots").append(plot.box);
  }
}

/// Adds up what is counted in the chosen namespace, or in all.
function total(sample) {
  const sum = { at: sample.at_ms, events: 0, errors: 0, resets: 0, memory: 0, latencies: [] };
  for (const one of sample.namespaces) {
    if (route.namespace !== null && one.name !== route.namespace) continue;
    sum.events += one.fetches + one.typed + one.alarms + one.sockets;
    sum.errors += one.errors;
    sum.resets += one.resets;
    sum.memory += one.in_memory;
    one.latencies.forEach((count, bucket) => { sum.latencies[bucket] = (sum.latencies[bucket] || 0) + count; });
  }
  return sum;
}

function quantile(before, after, part) {
  const counts = after.latencies.map((count, bucket) => (count || 0) - (before.latencies[bucket] || 0));
  const all = counts.reduce((sum, count) => sum + Math.max(0, count || 0), 0);
  if (all === 0) return null;
  let left = part * all;
  for (let bucket = 0; bucket < counts.length; bucket += 1) {
    const count = Math.max(0, counts[bucket] || 0);
    if (count >= left && count > 0) {
      const from = bucket === 0 ? 0 : server.bounds_us[bucket - 1];
      const to = server.bounds_us[bucket] || from;
      return from + (to - from) * (left / count);
    }
    left -= count;
  }
  return server.bounds_us[counts.length - 1] || null;
}

function drawPlots() {
  const totals = samples.map(total);
  const series = { rate: [], p50: [], p99: [], errors: [], resets: [], memory: [] };
  totals.forEach((after, index) => {
    if (index === 0) return;
    const before = totals[index - 1];
    const seconds = Math.max(0.001, (after.at - before.at) / 1000);
    const rate = (name) => Math.max(0, after[name] - before[name]) / seconds;
    const early = totals[Math.max(0, index - WINDOW)];
    series.rate.push(rate("events"));
    series.errors.push(rate("errors"));
    series.resets.push(rate("resets"));
    series.p50.push(quantile(early, after, 0.5));
    series.p99.push(quantile(early, after, 0.99));
    series.memory.push(after.memory);
  });
  for (const plot of PLOTS) {
    const values = series[plot.id];
    const last = values.length ? values[values.length - 1] : null;
    const most = Math.max(0, ...values.map((value) => value || 0));
    plot.value.textContent = plot.show(last);
    plot.most.textContent = most > 0 ? "max " + plot.show(most) : "";
    plot.box.classList.toggle("alert", Boolean(plot.alert) && most > 0);
    const shift = SAMPLES - values.length;
    let line = "", area = "", open = null;
    values.forEach((value, index) => {
      const x = shift + index, end = index === values.length - 1;
      if (value !== null) {
        const y = most > 0 ? 24 - (value / most) * 21 : 24;
        line += (open === null ? "M" : "L") + x + " " + y.toFixed(2);
        area += (open === null ? "M" + x + " 26L" : "L") + x + " " + y.toFixed(2);
        if (open === null) open = x;
      }
      if (open !== null && (value === null || end)) {
        area += "L" + (value === null ? x - 1 : x) + " 26Z";
        open = null;
      }
    });
    plot.line.setAttribute("d", line);
    plot.area.setAttribute("d", area);
  }
  at("#scope").textContent = route.namespace === null ? "all namespaces" : visible(route.namespace);
}

async function poll() {
  if (!document.hidden) {
    try {
      if (server.namespaces.length === 0) await loadNamespaces();
      const live = await ask("live");
      const before = samples.length ? samples[samples.length - 1] : null;
      // A server that began anew counts from zero.
      const counts = ["fetches", "typed", "alarms", "sockets"];
      const anew = before && live.namespaces.some((one, index) => counts.some((count) => one[count] < before.namespaces[index]?.[count]));
      if (anew) samples = [];
      samples.push(live);
      if (samples.length > SAMPLES) samples.shift();
      at("#state").textContent = "live";
      at("#state").className = "";
      drawPlots();
      drawNamespaces();
      turn += 1;
      if (turn % 3 === 0 && before && changed()) await refresh();
    } catch (error) {
      at("#state").textContent = error.status === 401 ? "asks for a token" : error.status ? error.message : "not reached";
      at("#state").className = "bad";
    }
  }
  setTimeout(poll, POLL_MS);
}

function changed() {
  const [early, late] = [samples[Math.max(0, samples.length - 4)], samples[samples.length - 1]];
  return JSON.stringify(early.namespaces) !== JSON.stringify(late.namespaces);
}

/// Loads again what changes by itself, where that disturbs nobody.
async function refresh() {
  const now = route;
  if (now.namespace !== null && objects.pages === 1 && !objects.find) await loadObjects(false);
  if (now !== route) return;
  if (now.id === null || now.tab === "events") await loadEvents();
  if (now.id !== null && now === route) await loadHead();
}

// Namespaces and objects.

async function loadNamespaces() {
  server = await ask("namespaces");
  at("#door").hidden = true;
  at("#version").textContent = server.version + ", " + server.threads + (server.threads === 1 ? " thread" : " threads");
  drawNamespaces();
}

function link(namespace, id, tab) {
  let hash = "#/";
  if (namespace !== null) hash += encodeURIComponent(namespace);
  if (id) hash += "/" + id;
  if (id && tab && tab !== "storage") hash += "/" + tab;
  return hash;
}

/// Replaces what is in a list. What leads where it led stays the same element, so that focus and clicks are not lost.
function fill(list, items) {
  const known = new Map([...list.children].map((child) => [child.getAttribute("href"), child]));
  const next = items.map((item) => {
    const old = known.get(item.getAttribute("href"));
    if (!old || old.isEqualNode(item)) return old || item;
    if (item.hasAttribute("aria-current")) old.setAttribute("aria-current", "true");
    else old.removeAttribute("aria-current");
    old.replaceChildren(...item.childNodes);
    return old;
  });
  if (next.length === list.children.length && next.every((item, index) => item === list.children[index])) return;
  const focused = list.contains(document.activeElement) ? document.activeElement : null;
  list.replaceChildren(...next);
  if (focused && focused.isConnected) focused.focus({ preventScroll: true });
}

function drawNamespaces() {
  const live = samples.length ? samples[samples.length - 1].namespaces : [];
  const memory = new Map(live.map((one) => [one.name, one.in_memory]));
  const items = server.namespaces.map((one) => make("a",
    { href: link(one.name), "aria-current": one.name === route.namespace ? "true" : null },
    make("div", { class: "title" },
      make("span", { class: "theirs" }, visible(one.name)),
      make("span", { class: "number", title: "objects in memory" }, short(memory.has(one.name) ? memory.get(one.name) : one.in_memory))),
    make("div", { class: "sub theirs", title: one.class }, visible(one.class.split("::").pop()) + (one.exposed ? ", over HTTP" : ""))));
  fill(at("#namespaces .list"), items);
}

async function loadObjects(more) {
  const now = route;
  const asked = objects.find;
  const page = await ask("objects", { namespace: now.namespace, find: asked, cursor: more ? objects.cursor : null });
  if (now.namespace !== route.namespace || asked !== objects.find) return;
  objects.list = more ? objects.list.concat(page.objects) : page.objects;
  objects.pages = more ? objects.pages + 1 : 1;
  objects.cursor = page.cursor;
  drawObjects();
}

function drawObjects() {
  const items = objects.list.map((one) => make("a",
    { href: link(route.namespace, one.id, route.tab), "aria-current": one.id === route.id ? "true" : null, title: one.id },
    make("div", { class: "title" },
      make("span", { class: "theirs" + (one.name === null ? " mono" : "") }, called(one)),
      one.in_memory ? make("span", { class: "tag on" }, "in memory") : null),
    make("div", { class: "sub mono theirs" }, one.id.slice(0, 24) + "…" + (one.has_stored_data ? "" : "  no data"))));
  fill(at("#objects .list"), items);
  at("#objects .more").hidden = objects.cursor === null;
  let note = "";
  if (route.namespace === null) note = "Choose a namespace.";
  else if (!objects.list.length && objects.pages) {
    note = objects.find ? "No object with that name or id has been used." : "No object has been used yet.";
  }
  at("#objects .note").textContent = note;
  at("#search").hidden = route.namespace === null;
}

// One object.

async function loadHead() {
  const now = route;
  try {
    const object = await ask("object", { namespace: now.namespace, id: now.id });
    if (now !== route) return;
    const first = detail === null || detail.id !== object.id;
    detail = object;
    if (first) drawDetail();
    else drawFacts();
  } catch (error) {
    if (now === route) at("#detail").replaceChildren(make("div", { class: "body" }, make("p", { class: "trouble" }, visible(error.message))));
    throw error;
  }
}

function drawFacts() {
  const head = at("#detail .head");
  if (!head) return;
  const fact = (label, value) => make("span", null, label + " ", make("b", null, value));
  const some = detail.counted_all ? "" : "over ";
  head.replaceChildren(
    make("div", { class: "row" },
      make("span", { class: "title theirs" }, called(detail)),
      make("span", { class: "tag" + (detail.in_memory ? " on" : "") }, detail.in_memory ? "in memory" : "not in memory")),
    make("div", { class: "mono soft theirs", title: detail.id }, detail.id),
    make("div", { class: "facts" },
      fact("keys", some + detail.keys.toLocaleString("en")),
      fact("key-value data", some + bytes(detail.bytes)),
      fact("SQL database", detail.sql_bytes ? bytes(detail.sql_bytes) : "none"),
      fact("alarm", detail.alarm ? due(detail.alarm) : "none"),
      fact("WebSockets", detail.sockets_count ? detail.sockets_count.toLocaleString("en") : "none")));
  if (route.tab === "alarm") drawAlarm();
  if (route.tab === "sockets") drawSockets();
}

function due(alarm) {
  const left = alarm.due_ms - Date.now();
  return left > 0 ? "in " + span(left) : "due for " + span(left);
}

function drawDetail() {
  const pane = at("#detail");
  if (route.id === null) {
    const where = route.namespace === null ? "Recent errors and resets" : "Recent errors and resets in " + visible(route.namespace);
    pane.replaceChildren(make("h2", null, where), make("div", { class: "body" }, make("div", { class: "events" })));
    loadEvents().catch(complain);
    return;
  }
  if (detail === null) return pane.replaceChildren();
  const tabs = TABS.map((tab, index) => make("a",
    { href: link(route.namespace, route.id, tab), role: "tab", "aria-selected": String(tab === route.tab), title: "Key " + (index + 1) },
    { storage: "Storage", sql: "SQL", alarm: "Alarm", sockets: "WebSockets", events: "Events" }[tab]));
  pane.replaceChildren(make("div", { class: "head" }), make("nav", { class: "tabs", role: "tablist" }, tabs), make("div", { class: "body", role: "tabpanel" }));
  drawFacts();
  if (route.tab === "storage") drawStorage();
  if (route.tab === "sql") drawSql();
  if (route.tab === "events") {
    at("#detail .body").replaceChildren(make("div", { class: "events" }));
    loadEvents().catch(complain);
  }
}

function complain(error) {
  const body = at("#detail .body");
  if (body) body.prepend(make("p", { class: "trouble" }, visible(error.message)));
}

function text(value, cut, limit) {
  const long = value.length > limit || cut;
  const shown = visible(value) + (cut ? " …" : "");
  const box = make("pre", { class: long ? "short" : "", tabindex: long ? "0" : null, title: long ? "Enter or click shows all" : null }, shown);
  const toggle = () => box.classList.toggle("short");
  if (long) {
    box.addEventListener("click", () => { if (!String(getSelection())) toggle(); });
    box.addEventListener("keydown", (event) => { if (event.key === "Enter") toggle(); });
  }
  return box;
}

function drawStorage() {
  const now = route;
  const rows = make("tbody");
  const note = make("p", { class: "empty", hidden: true });
  const more = make("button", { hidden: true }, "More");
  const prefix = make("input", { type: "search", id: "prefix", placeholder: "Keys that begin with…", "aria-label": "Keys that begin with", autocomplete: "off", spellcheck: "false" });
  let cursor = null, asked = 0;
  const load = async (next) => {
    const mine = asked += 1;
    const page = await ask("values", { namespace: now.namespace, id: now.id, prefix: prefix.value, cursor: next ? cursor : null });
    if (mine !== asked) return;
    const items = page.values.map((one) => make("tr", null,
      make("td", null, text(one.key, false, 300)),
      make("td", null, text(one.value, one.cut, 300)),
      make("td", { class: "size" }, bytes(one.bytes))));
    if (next) rows.append(...items);
    else rows.replaceChildren(...items);
    cursor = page.cursor;
    more.hidden = cursor === null;
    note.hidden = rows.childElementCount > 0;
    table.hidden = rows.childElementCount === 0;
    note.textContent = prefix.value ? "No key begins with that." : "No key-value data is stored.";
  };
  more.addEventListener("click", () => load(true).catch(complain));
  prefix.addEventListener("input", () => load(false).catch(complain));
  const table = make("table", { class: "pairs", hidden: true },
    make("thead", null, make("tr", null, make("th", null, "Key"), make("th", null, "Value"), make("th", { class: "size" }, "Size"))), rows);
  at("#detail .body").replaceChildren(make("div", { class: "bar" }, prefix), table, note, more);
  load(false).catch(complain);
}

function drawSql() {
  const now = route;
  const statement = make("textarea", { id: "statement", spellcheck: "false", "aria-label": "SQL", placeholder: "SELECT …" });
  statement.value = drafts.get(now.id) || "";
  const result = make("div", { id: "result" });
  const change = make("input", { type: "checkbox", id: "change" });
  const run = async () => {
    drafts.set(now.id, statement.value);
    if (!statement.value.trim()) return;
    try {
      const started = performance.now();
      const changes = change.checked ? { change: true } : {};
      const answer = await ask("sql", null, { namespace: now.namespace, id: now.id, sql: statement.value, ...changes });
      const took = Math.round(performance.now() - started);
      result.replaceChildren(...rowsOf(answer, took));
    } catch (error) {
      result.replaceChildren(make("p", { class: "trouble" }, visible(error.message)));
    }
  };
  statement.addEventListener("input", () => drafts.set(now.id, statement.value));
  statement.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); run(); }
  });
  const tables = detail.tables.map((one) => make("button", {
    type: "button", class: "mono theirs", title: visible(one.sql),
    onclick: () => { statement.value = 'SELECT * FROM "' + one.name.replaceAll('"', '""') + '" LIMIT 50'; run(); },
  }, visible(one.name)));
  const none = detail.tables_error ? make("span", { class: "soft" }, visible(detail.tables_error)) : make("span", { class: "soft" }, "no tables yet");
  at("#detail .body").replaceChildren(
    make("div", { class: "bar" }, make("span", { class: "soft" }, "Tables"), tables.length ? tables : none),
    statement,
    make("div", { class: "bar below" }, make("button", { type: "button", class: "main", id: "run", onclick: run }, "Run"),
      server.writes ? make("label", { class: "soft" }, change, " changes what is stored, while the object is in memory") : null,
      make("span", { class: "soft" }, (server.writes ? "Else r" : "R") + "ead-only: the last statement reads; what those before it change is dropped.")),
    result);
  if (statement.value.trim()) run();
}

function rowsOf(answer, took) {
  if (!answer.rows.length) return [make("p", { class: "empty" }, "No rows, in " + took + " ms.")];
  const isNumber = (one) => one.type === "integer" || one.type === "real";
  // A column of numbers, as far as there is anything in it.
  const numeric = (index) => answer.rows.every((row) => row[index] === null || isNumber(row[index]));
  const columns = answer.columns.map((_, index) => numeric(index) ? "numeric" : "");
  const cell = (one, index) => one === null ? make("td", { class: "null " + columns[index] }, "null")
    : make("td", { class: columns[index], title: one.type }, text(one.text, one.cut, 300));
  const table = make("table", null,
    make("thead", null, make("tr", null, answer.columns.map((name, index) => make("th", { class: columns[index] }, visible(name))))),
    make("tbody", null, answer.rows.map((row) => make("tr", null, row.map(cell)))));
  const count = answer.rows.length + (answer.more ? " rows and more" : answer.rows.length === 1 ? " row" : " rows");
  return [make("p", { class: "soft" }, count + ", in " + took + " ms"), make("div", { class: "scroll" }, table)];
}

function drawAlarm() {
  const alarm = detail.alarm;
  if (!alarm) return at("#detail .body").replaceChildren(make("p", { class: "empty" }, "No alarm is set."));
  at("#detail .body").replaceChildren(make("dl", null,
    make("dt", null, "Set to"), make("dd", null, time(alarm.scheduled_ms)),
    make("dt", null, "Rings"), make("dd", null, time(alarm.due_ms) + ", " + due(alarm)),
    make("dt", null, "Failed so far"), make("dd", null, alarm.failures === 1 ? "once" : alarm.failures + " times")));
}

function drawSockets() {
  const body = at("#detail .body");
  if (!detail.sockets.length) return body.replaceChildren(make("p", { class: "empty" }, "No hibernatable WebSocket is open."));
  const head = make("thead", null, make("tr", null, ["Number", "Tags", "Waiting", "Attachment"].map((name) => make("th", null, name))));
  const rows = detail.sockets.map((one) => make("tr", null,
    make("td", { class: "number" }, String(one.number)),
    make("td", { class: "theirs" }, one.tags.length ? one.tags.map(visible).join(", ") : "none"),
    make("td", { class: "number" }, bytes(one.waiting_bytes)),
    make("td", { class: "number" }, bytes(one.attachment_bytes))));
  const more = detail.sockets_count - rows.length;
  body.replaceChildren(
    make("div", { class: "scroll" }, make("table", { class: "sockets" }, head, make("tbody", null, rows))),
    make("p", { class: "soft", hidden: more === 0 }, "and " + more.toLocaleString("en") + " more"));
}

async function loadEvents() {
  const now = route;
  const answer = await ask("events", { namespace: now.namespace, id: now.id });
  const list = at("#detail .events");
  if (now !== route || !list) return;
  const whose = (one) => now.id === null ? make("a", { class: "theirs", href: link(one.namespace, one.id, "events") }, visible(one.namespace) + " / " + called(one)) : make("span");
  const lately = answer.recent.map((one) => make("div", { class: "event recent" },
    make("span", { class: "number" }, time(one.at_ms)),
    make("span", { class: "tag" + (one.failed ? " bad" : "") }, one.kind + (one.failed ? " failed" : "")),
    make("span", null, whose(one), " ", make("span", { class: "number" }, duration(one.took_us)))));
  const recent = lately.length ? [make("h2", null, "The last events"), ...lately] : [];
  if (!answer.events.length) return list.replaceChildren(make("p", { class: "empty" }, "Nothing has gone wrong lately."), ...recent);
  // What is said again and again of one object is shown once, with the last time.
  const groups = [];
  for (const one of answer.events) {
    const last = groups[groups.length - 1];
    const same = last && ["namespace", "id", "kind", "message"].every((field) => last[field] === one[field]);
    if (same) last.times += 1;
    else groups.push({ ...one, times: 1 });
  }
  list.replaceChildren(...groups.map((one) => make("div", { class: "event" },
    make("span", { class: "number" }, time(one.at_ms)),
    make("span", { class: "tag bad" }, (one.kind === "reset" ? "reset" : one.kind + " failed") + (one.times > 1 ? " × " + one.times : "")),
    whose(one),
    make("div", { class: "what" }, visible(one.message)))), ...recent);
}

// Where we are.

function read() {
  const parts = location.hash.replace(/^#\/?/, "").split("/");
  const decode = (part) => { try { return decodeURIComponent(part); } catch { return part; } };
  const [namespace, id, tab] = parts.map(decode);
  return { namespace: namespace || null, id: id || null, tab: TABS.includes(tab) ? tab : "storage" };
}

async function go() {
  const before = route;
  route = read();
  const elsewhere = before.namespace !== route.namespace;
  if (elsewhere) {
    objects = { list: [], cursor: null, find: "", pages: 0 };
    at("#find").value = "";
  }
  if (elsewhere || before.id !== route.id) detail = null;
  drawNamespaces();
  drawObjects();
  drawPlots();
  if (route.id === null || detail !== null) drawDetail();
  try {
    if (route.namespace !== null && objects.pages === 0) await loadObjects(false);
    if (route.id !== null && detail === null) await loadHead();
  } catch (error) {
    if (error.status !== 401 && route.namespace !== null && !objects.pages) at("#objects .note").textContent = visible(error.message);
  }
}

function reload() {
  objects.pages = 0;
  detail = null;
  return go();
}

at("#search").addEventListener("submit", async (event) => {
  event.preventDefault();
  objects.find = at("#find").value;
  await loadObjects(false).catch(complain);
  const only = at("#objects .list a");
  if (objects.find && only) location.hash = only.getAttribute("href");
});
at("#find").addEventListener("input", () => {
  if (at("#find").value === "" && objects.find) { objects.find = ""; loadObjects(false).catch(complain); }
});
at("#objects .more").addEventListener("click", () => loadObjects(true).catch(complain));
at("#door").addEventListener("submit", async (event) => {
  event.preventDefault();
  token = at("#token").value;
  at("#token").value = "";
  try { await loadNamespaces(); await reload(); } catch { at("#token").focus(); }
});

document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input, textarea");
  if (typing && event.key === "Escape") return event.target.blur();
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/" && !at("#search").hidden) { event.preventDefault(); at("#find").select(); at("#find").focus(); }
  if (event.key === "r") reload();
  const tab = TABS[Number(event.key) - 1];
  if (tab && route.id !== null) location.hash = link(route.namespace, route.id, tab);
  if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    const list = event.target.closest(".list") || at(route.namespace === null ? "#namespaces .list" : "#objects .list");
    const items = [...list.querySelectorAll("a")];
    const from = items.indexOf(document.activeElement);
    const to = items[from < 0 ? 0 : from + (event.key === "ArrowDown" ? 1 : -1)];
    if (to) { event.preventDefault(); to.focus(); }
  }
});
addEventListener("hashchange", go);

makePlots();
go();
poll();
