// What every part of the page uses.

export const $ = (id) => document.getElementById(id);

export function element(tag, { text, kind } = {}) {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (kind !== undefined) node.className = kind;
  return node;
}

export function bar(share, kind) {
  const node = element("span", { kind });
  node.style.width = `${100 * Math.min(1, Math.max(0, share))}%`;
  return node;
}

/** JSON with a field a line, and lists on one. */
export function pretty(user) {
  const lines = Object.entries(user).map(([name, value]) => `  ${JSON.stringify(name)}: ${JSON.stringify(value)}`);
  return `{\n${lines.join(",\n")}\n}`;
}

export const short = (value) => (Number.isInteger(value) ? String(value) : Number(value.toPrecision(3)).toString());
export const milliseconds = (seconds) => `${(1000 * seconds).toPrecision(3)} ms`;
