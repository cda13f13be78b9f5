// Requests to the server, with its token where it asks for one.

import { $ } from "./small.js";

const TOKEN = "adloom.token";

export const holdsToken = () => sessionStorage.getItem(TOKEN) !== null;

export async function call(path, { body, signal } = {}) {
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

export async function answerOf(response) {
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

export async function showImage(img, id) {
  const url = `v1/items/${encodeURIComponent(id)}/image`;
  if (!holdsToken()) {
    img.loading = "lazy";
    img.src = url;
    return;
  }
  const response = await call(url); // an <img> cannot send the token
  if (!response.ok) return;
  img.src = URL.createObjectURL(await response.blob());
  img.onload = () => URL.revokeObjectURL(img.src);
}
