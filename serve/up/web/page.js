// The page of a funnel. It asks the server it came from and no other; what the server says is shown as text, never as HTML.

const $ = (id) => document.getElementById(id);
const TOKEN = "adloom.token";
const ROWS = 24; // dropped ones of a stage shown at first
const LARGE = 1.5e6; // bytes of a picture above which it is made smaller before it is sent
const SIDE = 1024;

let funnel = null; // what /v1/served says of it
let picture = null; // {data: base64, url}; it is not in the link
let asking = null; // AbortController of the request under way
let filled = ""; // the text of the chosen example, to see whether it was edited

// Talking to the server ---------------------------------------------------------------------------------------------

async function call(path, { body, signal } = {}) {
  for (;;) {
    const token = sessionStorage.getItem(TOKEN);
    const headers = token === null ? {} : { Authorization: `Bearer ${token}` };
    const options = { headers, signal };
    if (body !== undefined) {
      headers["Content-Type"] = "application/json";
      Object.assign(options, { method: "POST", body: JSON.stringify(body) });
    }
    const response = await fetch(path, options);
    if (response.status !== 401) return response;
    if (sessionStorage.getItem(TOKEN) === token) {
      sessionStorage.removeItem(TOKEN);
      await askToken(token !== null);
    } // else another request has been given one meanwhile
  }
}

async function answerOf(response) {
  let said = null;
  try {
    said = await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error(`status ${response.status}: the answer is no JSON`);
  }
  if (response.ok) return said;
  const field = said.field === undefined ? "" : ` (${said.field})`;
  throw new Error(`${said.error ?? `status ${response.status}`}${field}`);
}

let tokenAsked = null;

function askToken(refused) {
  $("token-wrong").hidden = !refused;
  tokenAsked ??= new Promise((resolve) => {
    $("token-dialog").showModal();
    $("token-dialog").addEventListener("cancel", (event) => event.preventDefault());
    $("token-form").onsubmit = (event) => {
      event.preventDefault();
      sessionStorage.setItem(TOKEN, $("token").value.trim());
      $("token").value = "";
      $("token-dialog").close();
      tokenAsked = null;
      resolve();
    };
  });
  return tokenAsked;
}

async function showImage(img, id) {
  const url = `v1/items/${encodeURIComponent(id)}/image`;
  if (sessionStorage.getItem(TOKEN) === null) {
    img.loading = "lazy";
    img.src = url;
    return;
  }
  const response = await call(url); // an <img> cannot send the token
  if (!response.ok) return;
  img.src = URL.createObjectURL(await response.blob());
  img.onload = () => URL.revokeObjectURL(img.src);
}

// What is asked -----------------------------------------------------------------------------------------------------

function readState() {
  const where = {};
  for (const { name, kind } of funnel.filters) {
    const value = readFilter(name, kind);
    if (value !== null) where[name] = value;
  }
  return {
    user: $("user").value,
    text: $("text").value.trim(),
    only: $("only").checked,
    k: $("k").valueAsNumber,
    skip: toggles().filter((box) => !box.checked).map((box) => box.value),
    where,
  };
}

function writeState(state) {
  $("user").value = state.user;
  $("text").value = state.text;
  $("only").checked = state.only;
  $("k").value = state.k;
  for (const box of toggles()) box.checked = !state.skip.includes(box.value);
  for (const { name, kind } of funnel.filters) writeFilter(name, kind, state.where[name] ?? null);
  chooseExample();
}

function fresh() {
  const first = funnel.examples[0] ?? Object.fromEntries(funnel.fields.map((name) => [name, null]));
  return { user: pretty(first), text: "", only: true, k: funnel.k, skip: [], where: {} };
}

function request(state) {
  let user;
  try {
    user = JSON.parse(state.user);
  } catch (error) {
    $("raw").open = true;
    throw new Error(`the user's raw fields are not JSON: ${error.message}`);
  }
  const body = { user, skip: [...state.skip], explain: true, display: true };
  if (Number.isFinite(state.k)) body.k = state.k;
  if (Object.keys(state.where).length) body.where = state.where;
  if (state.text) body.text = state.text;
  if (picture !== null) body.picture = picture.data;
  if (state.only && (state.text || picture !== null)) {
    const others = funnel.channels.filter((name) => !(name in funnel.searches));
    body.skip = [...new Set([...body.skip, ...others])];
  }
  return body;
}

async function ask() {
  asking?.abort();
  const mine = (asking = new AbortController());
  const state = readState();
  const link = `#${encodeURIComponent(JSON.stringify(state))}`;
  history.replaceState(null, "", link);
  $("link").href = link;
  document.body.classList.add("busy");
  try {
    const body = request(state);
    const begun = performance.now();
    const page = await answerOf(await call("v1/rank", { body, signal: mine.signal }));
    show(page, (performance.now() - begun) / 1000);
    fail(null);
  } catch (error) {
    if (mine.signal.aborted) return; // another request has taken its place
    fail(error);
  } finally {
    if (asking === mine) document.body.classList.remove("busy");
  }
}

function fail(error) {
  $("error").hidden = error === null;
  $("error").textContent = error === null ? "" : error.message;
  document.body.classList.toggle("failed", error !== null);
  if (error !== null) $("status").textContent = "";
}

// What is shown -----------------------------------------------------------------------------------------------------

function show(page, seconds) {
  const dropped = page.dropped ?? [];
  const all = [...page.items, ...dropped];
  const most = {};
  for (const item of all) {
    for (const [stage, score] of Object.entries(item.scores)) most[stage] = Math.max(most[stage] ?? 0, score);
  }
  $("status").textContent =
    `${page.items.length} of ${all.length} candidates, ${milliseconds(seconds)} from here to there and back`;
  showTimes(page.seconds, seconds);
  $("items").replaceChildren(...page.items.map((item, at) => card(item, { most, place: at + 1 })));
  $("page").hidden = false;
  showDropped(dropped);
  showVersions(page.versions);
}

function showTimes(seconds, whole) {
  const parts = Object.entries(seconds).filter(([stage]) => stage !== "total");
  const known = parts.reduce((sum, [, spent]) => sum + spent, 0);
  parts.push(["elsewhere", Math.max(0, whole - known)]);
  $("spent").replaceChildren(
    ...parts.map(([, spent], at) => bar(spent / whole, `part c${at % 6}`)),
  );
  $("legend").replaceChildren(
    ...parts.map(([stage, spent], at) => {
      const line = element("li", { text: `${stage} ${milliseconds(spent)}` });
      line.prepend(element("span", { kind: `dot c${at % 6}` }));
      if (stage === "elsewhere") line.title = "queue, titles, JSON and network";
      return line;
    }),
    element("li", { text: `round trip ${milliseconds(whole)}`, kind: "whole" }),
  );
  $("latency").hidden = false;
}

function card(item, { most, place }) {
  const node = $("card").content.firstElementChild.cloneNode(true);
  node.dataset.id = item.id;
  showImage(node.querySelector("img"), item.id);
  node.querySelector("h3").textContent = `${place}. ${nameOf(item)}`;
  node.querySelector(".facts").append(...facts(item));
  const scores = node.querySelector(".scores");
  for (const [stage, score] of Object.entries(item.scores)) {
    const value = element("dd");
    value.dataset.stage = stage;
    value.dataset.score = score;
    const track = element("span", { kind: "track" });
    track.append(bar(most[stage] > 0 ? score / most[stage] : 0, "fill"));
    value.append(track, element("span", { text: short(score), kind: "number" }));
    scores.append(element("dt", { text: stage }), value);
  }
  node.querySelector(".sources").textContent = sources(item);
  return node;
}

function nameOf(item) {
  return item.display?.title || `item ${item.id}`;
}

function facts(item) {
  const found = [element("span", { text: `id ${item.id}` })];
  const filters = new Map(funnel.filters.map((one) => [one.name, one.kind]));
  for (const [name, value] of Object.entries(item.display ?? {})) {
    if (name === "title" || value === null) continue;
    const text = `${name} ${typeof value === "number" ? short(value) : value}`;
    const kind = filters.get(name);
    if (kind === undefined || kind === "number") {
      found.push(element("span", { text }));
    } else {
      const button = element("button", { text });
      button.type = "button";
      button.title = `show only ${text}`;
      button.onclick = () => {
        writeFilter(name, kind, kind === "truth" ? value : [value]);
        ask();
      };
      found.push(button);
    }
  }
  return found;
}

function sources(item) {
  const found = Object.entries(item.sources).map(([channel, { rank, score }]) =>
    `${channel} #${rank}${score === null ? "" : ` (${short(score)})`}`);
  return found.length ? `found by ${found.join(", ")}` : "given";
}

function showDropped(dropped) {
  const groups = new Map();
  for (const item of dropped) {
    const stage = item.why.split(":", 1)[0];
    if (!groups.has(stage)) groups.set(stage, []);
    groups.get(stage).push(item);
  }
  const open = new Set([...$("groups").querySelectorAll("details[open]")].map((node) => node.dataset.stage));
  $("groups").replaceChildren(
    ...[...groups].map(([stage, items]) => {
      const group = element("details");
      group.dataset.stage = stage;
      const list = element("ul");
      group.append(element("summary", { text: `${stage}: ${items.length}` }), reasons(items), list);
      const fill = () => {
        if (!group.open || list.childElementCount) return;
        list.append(...items.slice(0, ROWS).map(row));
        if (items.length > ROWS) {
          const more = element("button", { text: `all ${items.length}` });
          more.type = "button";
          more.onclick = () => {
            more.remove();
            list.append(...items.slice(ROWS).map(row));
          };
          group.append(more);
        }
      };
      group.addEventListener("toggle", fill);
      group.open = open.has(stage);
      return group;
    }),
  );
  $("dropped").hidden = !dropped.length;
}

function reasons(items) {
  const count = new Map();
  for (const item of items) {
    const why = item.why.slice(item.why.indexOf(":") + 1).trim();
    count.set(why, (count.get(why) ?? 0) + 1);
  }
  const sorted = [...count].sort((a, b) => b[1] - a[1]).slice(0, 8);
  return element("p", { text: sorted.map(([why, n]) => `${n} × ${why}`).join("; "), kind: "small" });
}

function row(item) {
  const node = $("row").content.firstElementChild.cloneNode(true);
  node.dataset.id = item.id;
  showImage(node.querySelector("img"), item.id);
  node.querySelector("h4").textContent = nameOf(item);
  node.querySelector(".why").textContent = item.why;
  const scores = Object.entries(item.scores).map(([stage, score]) => `${stage} ${short(score)}`);
  node.querySelector(".sources").textContent = [...scores, sources(item)].join(" · ");
  return node;
}

function showVersions(versions) {
  const list = $("versions").querySelector("dl");
  list.replaceChildren();
  for (const [part, version] of Object.entries(versions)) {
    list.append(element("dt", { text: part }), element("dd", { text: version }));
  }
  $("versions").hidden = false;
}

// Controls ----------------------------------------------------------------------------------------------------------

const toggles = () => [...document.querySelectorAll("#channels input, #stages input")];

function buildControls() {
  $("example").replaceChildren(
    ...funnel.examples.map((user, at) => new Option(labelOf(user), String(at))),
    new Option("as edited", ""),
  );
  for (const [box, names] of [["channels", funnel.channels], ["stages", funnel.stages]]) {
    $(box).replaceChildren(...names.map(toggle));
  }
  $("filters").replaceChildren(...funnel.filters.map(filterField));
  const reads = Object.values(funnel.searches).flat();
  $("search").hidden = !reads.length;
  $("by-text").hidden = !reads.includes("text");
  $("by-picture").hidden = !reads.includes("picture");
}

function labelOf(user) {
  const plain = Object.entries(user).filter(([, value]) => value !== null && typeof value !== "object");
  return plain.slice(0, 3).map(([name, value]) => `${name} ${value}`).join(" · ") || "no fields";
}

function toggle(name) {
  const label = element("label", { kind: "tick" });
  const box = element("input");
  Object.assign(box, { type: "checkbox", value: name, checked: true });
  label.append(box, ` ${name}`);
  return label;
}

function chooseExample() {
  const at = funnel.examples.findIndex((user) => pretty(user) === $("user").value);
  $("example").value = at < 0 ? "" : String(at);
  filled = $("user").value;
}

function filterField({ name, kind }) {
  const line = element("p", { kind: "field" });
  const label = element("label", { text: name });
  label.htmlFor = `filter-${name}${kind === "number" ? "-min" : ""}`;
  line.append(label);
  if (kind === "number") {
    const span = element("span", { kind: "range" });
    for (const end of ["min", "max"]) {
      const input = element("input");
      Object.assign(input, { type: "number", step: "any", id: `filter-${name}-${end}`, placeholder: end });
      input.setAttribute("aria-label", `${name}, ${end}`);
      span.append(input);
    }
    line.append(span);
  } else if (kind === "truth") {
    const select = element("select");
    select.id = `filter-${name}`;
    select.append(new Option("any", ""), new Option("yes", "true"), new Option("no", "false"));
    line.append(select);
  } else {
    const input = element("input");
    Object.assign(input, { id: `filter-${name}`, placeholder: "any; or values with commas", autocomplete: "off" });
    line.append(input);
  }
  return line;
}

function readFilter(name, kind) {
  if (kind === "number") {
    const found = {};
    for (const end of ["min", "max"]) {
      const value = $(`filter-${name}-${end}`).valueAsNumber;
      if (Number.isFinite(value)) found[end] = value;
    }
    return Object.keys(found).length ? found : null;
  }
  const text = $(`filter-${name}`).value.trim();
  if (!text) return null;
  if (kind === "truth") return text === "true";
  const words = text.split(",").map((word) => word.trim()).filter(Boolean);
  return kind === "integer" ? words.map((word) => (/^-?\d+$/.test(word) ? Number(word) : word)) : words;
}

function writeFilter(name, kind, value) {
  if (kind === "number") {
    for (const end of ["min", "max"]) $(`filter-${name}-${end}`).value = value?.[end] ?? "";
  } else if (kind === "truth") {
    $(`filter-${name}`).value = value === null ? "" : String(value);
  } else {
    $(`filter-${name}`).value = value === null ? "" : [value].flat().join(", ");
  }
}

async function choosePicture(file) {
  dropPicture();
  const sent = await smaller(file);
  const data = await new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(sent);
  });
  picture = { data, url: URL.createObjectURL(sent) };
  $("preview").src = picture.url;
  $("dropped-picture").hidden = false;
  await ask();
}

async function smaller(file) {
  if (file.size <= LARGE) return file;
  let drawn;
  try {
    drawn = await createImageBitmap(file);
  } catch {
    return file; // the server says what is wrong with it
  }
  const scale = Math.min(1, SIDE / Math.max(drawn.width, drawn.height));
  const canvas = element("canvas");
  canvas.width = Math.max(1, Math.round(drawn.width * scale));
  canvas.height = Math.max(1, Math.round(drawn.height * scale));
  canvas.getContext("2d").drawImage(drawn, 0, 0, canvas.width, canvas.height);
  return await new Promise((resolve) => canvas.toBlob((blob) => resolve(blob ?? file), "image/jpeg", 0.9));
}

function dropPicture() {
  if (picture !== null) URL.revokeObjectURL(picture.url);
  picture = null;
  $("file").value = "";
  $("preview").removeAttribute("src");
  $("dropped-picture").hidden = true;
}

function listen() {
  $("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    ask();
  });
  $("ask").addEventListener("change", (event) => {
    if (event.target.id === "file") {
      if (event.target.files.length) choosePicture(event.target.files[0]).catch(fail);
      return;
    }
    if (event.target.id === "example") {
      if (event.target.value !== "") $("user").value = pretty(funnel.examples[Number(event.target.value)]);
      chooseExample();
    }
    if (event.target.id === "user") chooseExample();
    ask();
  });
  $("user").addEventListener("input", () => {
    if ($("user").value !== filled) $("example").value = "";
  });
  $("remove").addEventListener("click", () => {
    dropPicture();
    $("file").focus();
    ask();
  });
  for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
    $("drop").addEventListener(kind, (event) => {
      event.preventDefault();
      $("drop").classList.toggle("over", kind === "dragenter" || kind === "dragover");
      const file = kind === "drop" ? event.dataTransfer.files[0] : undefined;
      if (file !== undefined) choosePicture(file).catch(fail);
    });
  }
  window.addEventListener("hashchange", restore);
}

function restore() {
  let state = fresh();
  if (location.hash.length > 1) {
    try {
      state = { ...state, ...JSON.parse(decodeURIComponent(location.hash.slice(1))) };
      writeState(state);
    } catch (error) {
      fail(new Error(`the link is damaged: ${error.message}`));
      return;
    }
  } else {
    writeState(state);
    if (!funnel.examples.length) {
      $("raw").open = true;
      $("status").textContent = "Give the user's raw fields, then ask for an answer.";
      return;
    }
  }
  ask();
}

// Small things ------------------------------------------------------------------------------------------------------

function element(tag, { text, kind } = {}) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (kind !== undefined) node.className = kind;
  return node;
}

function bar(share, kind) {
  const node = element("span", { kind });
  node.style.width = `${100 * Math.min(1, Math.max(0, share))}%`;
  return node;
}

/** JSON with a field a line, and lists on one. */
function pretty(user) {
  const lines = Object.entries(user).map(([name, value]) => `  ${JSON.stringify(name)}: ${JSON.stringify(value)}`);
  return `{\n${lines.join(",\n")}\n}`;
}

const short = (value) => (Number.isInteger(value) ? String(value) : Number(value.toPrecision(3)).toString());
const milliseconds = (seconds) => `${(1000 * seconds).toPrecision(3)} ms`;

async function start() {
  const served = await answerOf(await call("v1/served"));
  $("docs").hidden = sessionStorage.getItem(TOKEN) !== null; // a link cannot send the token
  $("name").textContent = served.name === "adloom" ? "" : served.name;
  funnel = served.funnel;
  if (funnel === null) {
    $("status").textContent = "Served here; the API says how it is asked. A page to try it comes with a funnel.";
    showVersions(served.versions);
    $("versions").open = true;
    return;
  }
  if (matchMedia("(max-width: 50rem)").matches) for (const part of ["stages-part", "filter-part"]) $(part).open = false;
  buildControls();
  listen();
  $("ask").hidden = false;
  restore();
}

start().catch(fail);
