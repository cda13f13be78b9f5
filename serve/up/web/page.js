// The page of a funnel. It asks the server it came from and no other; what the server says is shown as text, never as HTML.

import { show, showVersions } from "./show.js";
import { $, element, pretty } from "./small.js";
import { answerOf, call, holdsToken } from "./talk.js";

const LARGE = 1.5e6; // bytes of a picture above which it is made smaller before it is sent
const SIDE = 1024;

let funnel = null; // what /v1/served says of it
let picture = null; // {data: base64, url}; it is not in the link
let asking = null; // AbortController of the request under way
let filled = ""; // the text of the chosen example, to see whether it was edited

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
    show(page, { seconds: (performance.now() - begun) / 1000, filters: funnel.filters, filterBy });
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
    Object.assign(input, { id: `filter-${name}`, placeholder: "any, or: a, b", autocomplete: "off" });
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

/** From a button on an item. */
function filterBy(name, kind, value) {
  writeFilter(name, kind, kind === "truth" ? value : [value]);
  $("filter-part").open = true;
  ask();
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
      writeState(fresh());
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

async function start() {
  const served = await answerOf(await call("v1/served"));
  $("docs").hidden = holdsToken(); // a link cannot send the token
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
