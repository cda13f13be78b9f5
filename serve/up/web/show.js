// An answer as people read it: times, the page, what was dropped and why.

import { $, bar, element, milliseconds, short } from "./small.js";
import { showImage } from "./talk.js";

const ROWS = 24; // dropped ones of a stage shown at first

export function show(page, { seconds, filters, filterBy }) {
  const dropped = page.dropped ?? [];
  const all = [...page.items, ...dropped];
  const most = {};
  for (const item of all) {
    for (const [stage, score] of Object.entries(item.scores)) most[stage] = Math.max(most[stage] ?? 0, score);
  }
  $("status").textContent =
    `${page.items.length} of ${all.length} candidates, ${milliseconds(seconds)} from here to there and back`;
  showTimes(page.seconds, seconds);
  $("items").replaceChildren(...page.items.map((item, at) => card(item, { most, place: at + 1, filters, filterBy })));
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

function card(item, { most, place, filters, filterBy }) {
  const node = $("card").content.firstElementChild.cloneNode(true);
  node.dataset.id = item.id;
  showImage(node.querySelector("img"), item.id);
  node.querySelector("h3").textContent = `${place}. ${nameOf(item)}`;
  node.querySelector(".facts").append(...facts(item, { filters, filterBy }));
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

function facts(item, { filters, filterBy }) {
  const found = [element("span", { text: `id ${item.id}` })];
  const kinds = new Map(filters.map((one) => [one.name, one.kind]));
  for (const [name, value] of Object.entries(item.display ?? {})) {
    if (name === "title" || value === null) continue;
    const text = `${name} ${typeof value === "number" ? short(value) : value}`;
    const kind = kinds.get(name);
    if (kind === undefined || kind === "number") {
      found.push(element("span", { text }));
    } else {
      const button = element("button", { text });
      button.type = "button";
      button.title = `show only ${text}`;
      button.onclick = () => filterBy(name, kind, value);
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

export function showVersions(versions) {
  const list = $("versions").querySelector("dl");
  list.replaceChildren();
  for (const [part, version] of Object.entries(versions)) {
    list.append(element("dt", { text: part }), element("dd", { text: version }));
  }
  $("versions").hidden = false;
}
