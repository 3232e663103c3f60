// What both pages share: elements without HTML, requests with the token, and what a screen reader is told.

const BIDI = /[\u202a-\u202e\u2066-\u2069]/g;
const CONTROL = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g;
const NOBODY = "the server does not answer; is it still running?";

let token = null; // in memory only: a page that is closed forgets it

export const byId = (id) => document.getElementById(id);

// Untrusted text without the characters that reorder or hide what stands beside it.
export const plain = (text) => String(text).replace(/\r\n?/g, "\n").replace(BIDI, "\ufffd").replace(CONTROL, "\ufffd");

// An element; texts become text nodes, never HTML.
export function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child != null).map((child) => (child instanceof Node ? child : plain(child))));
  return node;
}

// A text of unknown direction, apart from the sentence around it.
export const isolated = (text) => element("bdi", {}, text);

export function announce(text) {
  byId("status").replaceChildren(plain(text));
}

// An error with the kind that the server gave it.
export class Refusal extends Error {
  constructor(kind, message, { status = 0, after = 0 } = {}) {
    super(message);
    Object.assign(this, { kind, status, after });
  }
}

async function refusalOf(response) {
  const after = Number(response.headers.get("retry-after")) || 0;
  try {
    const { error } = await response.json();
    return new Refusal(error.kind, error.message, { status: response.status, after });
  } catch {
    return new Refusal("internal", `the server answered with status ${response.status}`, { status: response.status });
  }
}

let asking = null;

// Asks for the token once, however many requests want it.
function askToken(reason) {
  asking ??= new Promise((resolve, reject) => {
    const dialog = byId("token-dialog");
    byId("token-reason").replaceChildren(plain(reason));
    byId("token").value = "";
    byId("token-cancel").onclick = () => dialog.close("");
    byId("token-form").onsubmit = () => { token = byId("token").value.trim(); };
    dialog.returnValue = "";
    const before = token;
    dialog.onclose = () => (token !== before && token ? resolve() : reject(new Refusal("unauthorized", "no token was given")));
    token = null;
    dialog.showModal();
  }).finally(() => { asking = null; });
  return asking;
}

// The answer to a request. Refusal for an error of the server; asks for a token where one is missing or wrong.
export async function call(path, options = {}) {
  for (;;) {
    const used = token;
    const headers = { ...options.headers, ...(used ? { Authorization: `Bearer ${used}` } : {}) };
    let response;
    try {
      response = await fetch(path, { ...options, headers, redirect: "error", cache: "no-store", credentials: "omit" });
    } catch (error) {
      throw error.name === "AbortError" ? error : new Refusal("gone", NOBODY);
    }
    if (response.ok) return response;
    const refusal = await refusalOf(response);
    // A 401 without the header that asks for a token is about something else, such as the name of the host.
    if (response.status !== 401 || !response.headers.has("www-authenticate")) throw refusal;
    if (used === token) await askToken(used ? "The token is wrong." : "This server asks for a token. It is kept until the page is closed.");
  }
}

export const wait = (seconds, signal) =>
  new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const timer = setTimeout(resolve, seconds * 1000);
    signal?.addEventListener("abort", () => { clearTimeout(timer); reject(signal.reason); }, { once: true });
  });

// Plays or pauses videos that stand at the same time; the shorter one waits at its end for the longer.
export function playTogether(videos) {
  if (videos.some((video) => !video.paused && !video.ended)) {
    for (const video of videos) video.pause();
    return false;
  }
  const again = videos.every((video) => video.ended);
  for (const video of videos) {
    if (again) video.currentTime = 0;
    if (again || !video.ended) video.play().catch(() => {});
  }
  return true;
}
