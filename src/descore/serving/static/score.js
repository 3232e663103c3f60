// The page at /: clips and a prompt in; frames, chains, marks and rewards out.

import { Refusal, announce, byId, call, element, isolated, plain, playTogether, wait } from "/page/common.js";

const AT_A_TIME = 4;
const TRIES = 20;
const MARK_WORDS = { 2: "right", 1: "partly", 0: "wrong" };
const maxUpload = Number(document.body.dataset.maxUpload);

const state = { clips: [], compared: [], running: null, next: 1, asked: null };

// ---- Clips ----

function addFiles(files) {
  for (const file of files) {
    const clip = { id: state.next++, file, name: file.name || "clip", url: URL.createObjectURL(file) };
    state.clips.push(clip);
    makeCard(clip);
    showFrames(clip);
  }
  byId("files").value = "";
  if (files.length) announce(`${count(files.length, "clip")} added, ${state.clips.length} in all`);
  refresh();
}

function removeClip(clip) {
  const index = state.clips.indexOf(clip);
  clip.reading?.abort();
  clip.card.remove();
  state.clips.splice(index, 1);
  state.compared = state.compared.filter((one) => one !== clip);
  const near = state.clips[Math.min(index, state.clips.length - 1)];
  (near ? near.card.querySelector("button.remove") : byId("files")).focus();
  announce(`${clip.name} removed`);
  rank();
  refresh();
  URL.revokeObjectURL(clip.url); // once no video reads it any more
}

function makeCard(clip) {
  const remove = element("button", { type: "button", class: "remove", "aria-label": `Remove ${plain(clip.name)}`,
    onclick: () => removeClip(clip) }, "✕");
  clip.badge = element("span", { class: "badge", hidden: true });
  clip.facts = element("p", { class: "small soft" }, sizeOf(clip.file));
  clip.frames = element("div", { class: "frames" });
  clip.body = element("div", { class: "body" });
  clip.card = element("li", { class: "clip" },
    element("div", { class: "clip-head" }, clip.badge,
      element("div", { class: "clip-title" }, element("h3", {}, isolated(clip.name)), clip.facts), remove),
    clip.frames, clip.body);
  byId("clips").append(clip.card);
}

// The frames that the model sees, read by the server: a browser plays fewer formats.
async function showFrames(clip) {
  clip.reading?.abort();
  clip.reading = new AbortController();
  clip.refused = null;
  clip.frames.replaceChildren(element("p", { class: "soft small" }, "reading the frames …"));
  try {
    const answer = await patiently(clip, "/v1/frames", { model: byId("model").value }, clip.reading.signal);
    const { frames, times, width, height, fps, duration } = await answer.json();
    clip.facts.replaceChildren(`${width}×${height}, ${fps.toPrecision(4).replace(/\.?0+$/, "")} fps, ${duration.toFixed(1)} s, ${sizeOf(clip.file)}`);
    clip.frames.replaceChildren(...frames.map((frame, index) => element("figure", {},
      element("img", { src: frame, alt: `Frame at ${times[index].toFixed(2)} seconds` }),
      element("figcaption", {}, `${times[index].toFixed(2)} s`))));
  } catch (error) {
    if (error.name === "AbortError") return;
    clip.frames.replaceChildren();
    if (!state.running) showError(clip, error);
  }
}

function showError(clip, error) {
  clip.refused = { kind: error.kind ?? "internal", message: error.message };
  clip.body.replaceChildren(element("p", { class: "notice bad" }, isolated(error.message)));
  announce(error.message);
}

// ---- Scores ----

async function scoreAll(event) {
  event.preventDefault();
  const prompt = byId("prompt").value.trim();
  if (!prompt) return fail("Write the prompt first.", byId("prompt"));
  if (!state.clips.length) return fail("Choose a clip first.", byId("files"));
  state.running = new AbortController();
  await state.learned;
  state.asked = { prompt, ...options() };
  state.compared = [];
  for (const clip of state.clips) Object.assign(clip, { result: null, refused: null, badge: reset(clip) });
  refresh();
  announce(`scoring ${count(state.clips.length, "clip")} …`);
  const waiting = [...state.clips];
  const worker = async () => { for (let clip; (clip = waiting.shift()); ) await scoreClip(clip, state.running.signal); };
  await Promise.all(Array.from({ length: AT_A_TIME }, worker));
  const cancelled = state.running.signal.aborted;
  state.running = null;
  rank();
  if (placed().length === 2) state.compared = placed();
  refresh();
  announce(cancelled ? "cancelled" : summary());
}

function reset(clip) {
  clip.badge.hidden = true;
  clip.body.replaceChildren(element("p", { class: "waiting" }, "waiting …"));
  return clip.badge;
}

function fail(message, field) {
  announce(message);
  field.focus();
}

const options = () => Object.fromEntries(["model", "think", "samples", "seed"].map((id) => [id, byId(id).value]).filter(([, value]) => value !== ""));

async function scoreClip(clip, signal) {
  if (signal.aborted || !state.clips.includes(clip)) return clip.body.replaceChildren();
  try {
    const live = showLive(clip);
    const answer = await patiently(clip, "/v1/score", { ...state.asked, stream: "true" }, signal);
    clip.result = await scoreOf(answer, live);
    showScore(clip);
    announce(`${clip.name}: reward ${decimal(clip.result.reward)}`);
  } catch (error) {
    if (signal.aborted) clip.body.replaceChildren(element("p", { class: "soft small" }, "cancelled"));
    else showError(clip, error);
  }
}

// Sends a clip, and tries again while the server is busy.
async function patiently(clip, path, fields, signal) {
  if (clip.file.size > maxUpload) throw new Refusal("too_large", `${clip.name}: ${sizeOf(clip.file)}; this server takes ${sizeOf({ size: maxUpload })}`);
  await clip.file.slice(0, 1).arrayBuffer().catch(() => { throw new Refusal("no_video", `${clip.name}: cannot be read; was the file moved or changed?`); });
  for (let tries = 1; ; tries++) {
    const body = new FormData();
    for (const [name, value] of Object.entries(fields)) if (value !== "") body.append(name, value);
    body.append("video", clip.file, clip.name);
    try {
      return await call(path, { method: "POST", body, signal });
    } catch (error) {
      if (error.status !== 503 || tries === TRIES) throw error;
      await wait((error.after || 1) * (1 + Math.random()), signal);
    }
  }
}

// The score in an answer: one object, or events with the chain as it is written.
async function scoreOf(answer, live) {
  if (!(answer.headers.get("content-type") ?? "").startsWith("text/event-stream")) return answer.json();
  let result = null;
  // An error, the score, or a piece of a chain: what an event holds says which.
  for await (const data of eventsOf(answer.body)) {
    if (data.error) throw new Refusal(data.error.kind, data.error.message);
    if (typeof data.reward === "number") result = data;
    else if (typeof data.text === "string") live(data.text, data.sample ?? 0);
  }
  if (!result) throw new Refusal("gone", "the answer ended before the reward");
  return result;
}

// What server-sent events hold, as they come (https://html.spec.whatwg.org/multipage/server-sent-events.html).
async function* eventsOf(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (rest + value).replace(/\r\n/g, "\n").split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const lines = block.split("\n").filter((line) => line.startsWith("data:"));
      if (lines.length) yield JSON.parse(lines.map((line) => line.slice(5)).join("\n"));
    }
  }
}

// ---- What a card shows ----

// The chains while they are written. They are no live region: word by word nobody could listen to it.
function showLive(clip) {
  const several = Number(state.asked.samples) > 1;
  const note = element("p", { class: "waiting" }, "scoring …");
  const chains = [];
  clip.body.replaceChildren(note);
  return (more, sample) => {
    note.textContent = "writing …";
    if (!chains[sample]) {
      chains[sample] = liveChain(several ? `Chain ${sample + 1} of ${plain(clip.name)}` : `Chain of ${plain(clip.name)}`);
      (chains.slice(0, sample).findLast(Boolean)?.node ?? note).after(chains[sample].node);
    }
    chains[sample].add(more);
  };
}

function liveChain(label) {
  const text = element("bdi");
  const node = element("blockquote", { class: "chain live", tabindex: "0", "aria-busy": "true", "aria-label": label }, text);
  let written = "";
  const add = (more) => {
    written += more;
    text.textContent = withoutAnswer(plain(written));
    node.scrollTop = node.scrollHeight;
  };
  return { node, add };
}

// A chain without its answer block, whole or begun.
const withoutAnswer = (chain) => chain.replace(/<answer>(?![\s\S]*<answer>)[\s\S]*$/, "").trim();

function showScore(clip) {
  const { result } = clip;
  const compare = element("input", { type: "checkbox", onchange: () => choose(clip, compare.checked) });
  clip.compare = compare;
  clip.body.replaceChildren(...[
    element("p", { class: "numbers" }, ...numbersOf(result)),
    result.thinking && element("blockquote", { class: "chain", tabindex: "0", "aria-label": `Chain of ${plain(clip.name)}` },
      isolated(withoutAnswer(plain(result.thinking)) || "(nothing but the answer)")),
    ...warningsOf(result).map((text) => element("p", { class: "flag" }, text)),
    result.marks && marksTable(`Marks of ${plain(clip.name)}`, [clip]),
    element("label", { class: "choose", hidden: true }, compare, " Compare"),
  ].filter(Boolean));
}

function numbersOf({ reward, score, std, rewards }) {
  const named = Object.entries(rewards ?? {});
  const all = [["reward", reward], ["standardized", score], ["deviation of the chains", std], ...(named.length > 1 ? named : [])];
  return all.filter(([, value]) => value != null).map(([name, value]) =>
    element("span", {}, element("span", { class: "soft" }, name), " ", element("b", {}, decimal(value))));
}

function warningsOf({ truncated, partial_overall, unknown, left_out }) {
  return [
    truncated && "A chain was cut off at its limit.",
    partial_overall && `The overall leaves out what cannot be known: ${(unknown ?? []).join(", ")}.`,
    left_out && `${count(left_out, "chain")} without a reward left out.`,
  ].filter(Boolean);
}

function markCell({ marks, unknown }, name) {
  const mark = marks?.[name];
  const word = MARK_WORDS[mark] ?? (!marks ? "–" : unknown?.includes(name) ? "unknown" : "not asked");
  return element("td", { class: mark == null ? "none" : `m${mark}` }, word);
}

function marksTable(label, clips) {
  const results = clips.map((clip) => clip.result);
  const names = Object.keys(results.find((result) => result.marks)?.marks ?? {});
  const head = clips.length > 1 && element("thead", {}, element("tr", {}, element("td"), ...clips.map((_, index) => element("th", { scope: "col" }, "ab"[index]))));
  const rows = names.map((name) => element("tr", {}, element("th", { scope: "row" }, name), ...results.map((result) => markCell(result, name))));
  rows.push(element("tr", {}, element("th", { scope: "row" }, "overall"),
    ...results.map(({ overall }) => element("td", {}, overall == null ? "–" : `${overall.toFixed(2)} of 5`))));
  return element("table", { class: "verdict", "aria-label": label }, ...(head ? [head] : []), element("tbody", {}, ...rows));
}

// ---- Ranking and comparison ----

const placed = () => state.clips.filter((clip) => clip.result).sort((a, b) => b.result.reward - a.result.reward);

// Cards in the order of their rewards. A card that has the focus keeps it.
function rank() {
  const best = placed();
  const focused = document.activeElement;
  const order = [...best, ...state.clips.filter((clip) => !clip.result)];
  for (const clip of order) {
    byId("clips").append(clip.card);
    const place = best.indexOf(clip) + 1;
    clip.badge.hidden = !place || best.length < 2;
    clip.badge.className = place === 1 ? "badge emphasized" : "badge";
    clip.badge.replaceChildren(element("span", { class: "unseen" }, "Place "), String(place));
  }
  if (focused?.isConnected && focused !== document.activeElement) focused.focus();
}

function summary() {
  const best = placed();
  const failed = state.clips.length - best.length;
  const missing = failed ? `${failed} of ${state.clips.length} without a reward` : "";
  if (best.length < 2) return [best.length ? `${best[0].name}: reward ${decimal(best[0].result.reward)}` : "", missing].filter(Boolean).join("; ");
  return [`best: ${best[0].name}`, missing].filter(Boolean).join("; ");
}

function choose(clip, wanted) {
  state.compared = state.compared.filter((one) => one !== clip);
  if (wanted) state.compared = [...state.compared.slice(-1), clip];
  refresh();
  if (state.compared.length === 2) announce(byId("verdict").textContent);
  else if (wanted) announce("choose another clip to compare with");
}

// sigmoid(a - b), as /v1/compare has it (Bradley & Terry 1952), without a second scoring.
const probability = (a, b) => 0.5 + 0.5 * Math.tanh((a - b) / 2);

const percent = (share) => (share > 0.999 ? "over 99.9 %" : share < 0.001 ? "under 0.1 %" : `${(100 * share).toFixed(1)} %`);

function compare() {
  const pair = state.compared;
  for (const video of byId("sides").querySelectorAll("video")) {
    video.onerror = video.onloadedmetadata = null;
    video.removeAttribute("src");
    video.load();
  }
  byId("comparison").hidden = pair.length !== 2;
  if (pair.length !== 2) return byId("sides").replaceChildren();
  const [a, b] = pair;
  const chance = probability(a.result.reward, b.result.reward);
  byId("verdict").replaceChildren("a (", isolated(a.name), ") is preferred to b (", isolated(b.name), ") with a probability of ",
    element("b", {}, percent(chance)));
  const videos = pair.map((clip) => element("video", { src: clip.url, muted: true, playsinline: true, controls: true, preload: "auto",
    "aria-label": plain(clip.name) }));
  videos.forEach((video, index) => {
    video.muted = true;
    // A format that the browser does not play, or plays without a picture.
    video.onerror = () => video.replaceWith(pair[index].frames.cloneNode(true));
    video.onloadedmetadata = () => { if (!video.videoWidth) video.onerror(); };
  });
  byId("sides").replaceChildren(...pair.map((clip, index) => element("div", { class: "side" },
    element("h3", {}, `${"ab"[index]}: `, isolated(clip.name)), videos[index],
    element("p", { class: "numbers" }, ...numbersOf(clip.result)),
    clip.result.thinking && element("blockquote", { class: "chain", tabindex: "0", "aria-label": `Chain of ${"ab"[index]}` },
      isolated(withoutAnswer(plain(clip.result.thinking)))))),
    ...(pair.some((clip) => clip.result.marks) ? [marksTable("Marks of both", pair)] : []));
  byId("play").onclick = () => playTogether(videos.filter((video) => video.isConnected));
}

// ---- The page ----

function download() {
  const results = [...placed(), ...state.clips.filter((clip) => !clip.result)].map((clip) =>
    clip.result ? { ...clip.result, error: null } : { video: clip.name, prompt: state.asked.prompt, error: clip.refused ?? "not scored" });
  const text = JSON.stringify({ ...state.asked, results }, null, 2);
  const link = element("a", { href: URL.createObjectURL(new Blob([text], { type: "application/json" })), download: "descore.json" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

function refresh() {
  const running = state.running !== null;
  const many = placed().length > 1;
  byId("results").hidden = !state.clips.length;
  byId("results").setAttribute("aria-busy", running);
  byId("results-title").textContent = many && !running ? "Ranking" : "Clips";
  byId("score").textContent = state.clips.length > 1 ? "Score and rank" : "Score";
  byId("score").disabled = running;
  byId("cancel").hidden = !running;
  byId("download").hidden = running || !(placed().length || (state.asked && state.clips.some((clip) => clip.refused)));
  byId("clear").hidden = running || !state.clips.length;
  for (const button of document.querySelectorAll("button.remove")) button.disabled = running;
  for (const clip of placed()) {
    clip.compare.checked = state.compared.includes(clip);
    clip.compare.parentElement.hidden = !many || running;
  }
  compare();
}

const decimal = (value) => value.toFixed(2).replace("-", "−");
const count = (number, name) => `${number} ${name}${number === 1 ? "" : "s"}`;
const sizeOf = ({ size }) => (size < 1e6 ? `${Math.max(1, Math.round(size / 1e3))} kB` : `${(size / 1e6).toFixed(1)} MB`);

function clear() {
  for (const clip of [...state.clips]) removeClip(clip);
  announce("all clips removed");
}

function acceptDrops() {
  const over = (on) => (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    document.body.classList.toggle("over", on);
  };
  addEventListener("dragover", over(true));
  addEventListener("dragleave", (event) => event.relatedTarget ?? over(false)(event));
  addEventListener("drop", (event) => {
    over(false)(event);
    if (!state.running) addFiles(event.dataTransfer?.files ?? []);
  });
}

// The models that the server has.
async function learn() {
  try {
    const { models } = await (await call("/v1/models")).json();
    byId("model").replaceChildren(...models.map(({ name }) => element("option", { value: name }, name)));
  } catch (error) {
    announce(error.message);
  }
}

function start() {
  byId("ask").addEventListener("submit", scoreAll);
  byId("files").addEventListener("change", (event) => addFiles([...event.target.files]));
  byId("cancel").addEventListener("click", () => state.running?.abort());
  byId("download").addEventListener("click", download);
  byId("clear").addEventListener("click", clear);
  byId("model").addEventListener("change", () => state.clips.forEach(showFrames));
  acceptDrops();
  state.learned = learn();
  document.body.dataset.ready = "true";
}

start();
