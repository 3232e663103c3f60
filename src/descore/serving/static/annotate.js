// The page on which people judge pairs: two videos that play together, a choice by each label, and the next pair.

import { announce, byId, call, element, isolated, plain, playTogether } from "/page/common.js";

const CHOICES = [["left", "Left is better"], ["tie", "Tie"], ["right", "Right is better"]];
const KEYS = { 1: "left", 2: "tie", 3: "right" };

const state = { task: null, rater: null, pair: null, total: 0, shown: 0, videos: [], busy: false };

const post = async (path, body) =>
  (await call(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) })).json();

// ---- A pair ----

function show({ total, done, pair }) {
  state.pair = pair;
  state.total = total;
  byId("enter").hidden = true;
  byId("progress-line").hidden = false;
  byId("progress").max = total;
  byId("progress").value = done;
  byId("progress-text").textContent = `${done} of ${total}, ${state.rater}`;
  byId("judge").hidden = !pair;
  byId("end").hidden = Boolean(pair);
  for (const video of state.videos) video.removeAttribute("src");
  state.videos = [];
  if (!pair) return showEnd(total);
  byId("prompt").replaceChildren("“", isolated(pair.prompt), "”");
  byId("sides").replaceChildren(side("Left", pair.left), side("Right", pair.right));
  byId("labels").replaceChildren(...state.task.labels.map((label) => choicesOf(label, pair.choices[label])));
  byId("back").disabled = pair.number === 1;
  closeReasons();
  state.shown = performance.now();
  byId("prompt").focus({ preventScroll: true });
  scrollTo(0, 0);
  announce(`pair ${pair.number} of ${total}${pair.skipped ? `; you skipped it: ${pair.skipped}` : Object.keys(pair.choices).length ? "; your vote is filled in" : ""}`);
}

function showEnd(total) {
  byId("end-text").textContent = `You have judged all ${total} pairs. Thank you.`;
  byId("end-title").focus();
  announce("");
}

function side(name, { source, playable }) {
  const video = element("video", { playsinline: true, preload: "auto", "aria-label": name });
  const note = element("p", { class: "small soft", hidden: true });
  video.muted = true;
  // What the browser cannot play, or plays without a picture, comes once more as H.264.
  let tries = 0;
  const retry = () => {
    if (!video.isConnected) return;
    note.hidden = false;
    if (tries++ === 0) {
      note.textContent = "making a copy that this browser plays …";
      video.src = playable;
    } else explain(playable, note);
  };
  video.addEventListener("error", retry);
  video.addEventListener("loadedmetadata", () => (video.videoWidth ? null : retry()));
  video.addEventListener("loadeddata", () => { note.hidden = true; readyToPlay(); });
  video.addEventListener("ended", loop);
  video.addEventListener("timeupdate", showTime);
  video.src = source;
  state.videos.push(video);
  return element("figure", { class: "side" }, element("figcaption", {}, name), video, note);
}

async function explain(address, note) {
  try {
    await call(address);
    note.textContent = "this browser cannot play it; skip the pair";
  } catch (error) {
    note.textContent = `${error.message}; skip the pair`;
  }
  announce(note.textContent);
}

function choicesOf(label, chosen) {
  const options = CHOICES.map(([value, text]) => element("label", { class: "choice" },
    element("input", { type: "radio", name: `label-${label}`, value, checked: chosen === value, required: true }), text));
  return element("fieldset", { class: "choices" }, element("legend", {}, isolated(label === "overall" ? "Which one is better?" : label)), ...options);
}

const fieldsets = () => [...byId("labels").querySelectorAll("fieldset")];
const chosenIn = (fieldset) => fieldset.querySelector("input:checked")?.value;

// ---- Playing together ----

const longest = () => state.videos.reduce((best, video) => ((video.duration || 0) > (best.duration || 0) ? video : best), state.videos[0]);

function readyToPlay() {
  if (state.videos.every((video) => video.readyState >= 2) && state.videos.every((video) => video.paused && video.currentTime === 0)) play();
}

function play() {
  const playing = playTogether(state.videos);
  byId("play").textContent = playing ? "Pause" : "Play";
}

function restart() {
  for (const video of state.videos) {
    video.currentTime = 0;
    video.play().catch(() => {});
  }
  byId("play").textContent = "Pause";
}

// Both begin again once the longer one has ended.
function loop() {
  if (state.videos.every((video) => video.ended || video.paused)) restart();
}

function showTime() {
  const video = longest();
  if (video?.duration && document.activeElement !== byId("seek")) byId("seek").value = (1000 * video.currentTime) / video.duration;
}

function seek() {
  const time = (byId("seek").value / 1000) * (longest()?.duration || 0);
  for (const video of state.videos) {
    video.pause();
    video.currentTime = Math.min(time, video.duration || 0);
  }
  byId("play").textContent = "Play";
}

// ---- Votes ----

async function send(body) {
  if (state.busy || !state.pair) return;
  state.busy = true;
  byId("save").disabled = true;
  try {
    const seconds = Math.round((performance.now() - state.shown) / 100) / 10;
    show(await post("/v1/vote", { rater: state.rater, number: state.pair.number, seconds, ...body }));
  } catch (error) {
    announce(`not saved: ${error.message}`);
  } finally {
    state.busy = false;
    byId("save").disabled = false;
  }
}

function save(event) {
  event.preventDefault();
  const missing = fieldsets().find((fieldset) => !chosenIn(fieldset));
  if (missing) {
    missing.querySelector("input").focus();
    return announce("choose left, tie or right first");
  }
  send({ choices: Object.fromEntries(fieldsets().map((fieldset, index) => [state.task.labels[index], chosenIn(fieldset)])) });
}

// A key chooses in the group that has the focus, else in the first without a choice, and goes on to the next.
function choose(value) {
  const groups = fieldsets();
  const group = groups.find((one) => one.contains(document.activeElement)) ?? groups.find((one) => !chosenIn(one)) ?? groups.at(-1);
  group.querySelector(`input[value=${value}]`).checked = true;
  announce(`${group.querySelector("legend").textContent}: ${CHOICES.find(([name]) => name === value)[1]}`);
  const next = groups[groups.indexOf(group) + 1];
  (next ? next.querySelector("input:checked") ?? next.querySelector("input") : byId("save")).focus();
}

function openReasons() {
  const open = byId("reasons").hidden;
  byId("reasons").hidden = !open;
  byId("skip").setAttribute("aria-expanded", open);
  (open ? byId("reason") : byId("skip")).focus();
}

function closeReasons() {
  byId("reasons").hidden = true;
  byId("skip").setAttribute("aria-expanded", "false");
  byId("reason").selectedIndex = 0;
  byId("other").value = "";
  byId("other-field").hidden = true;
}

function skip() {
  const reason = byId("reason").value || byId("other").value.trim();
  if (!reason) {
    byId("other").focus();
    return announce("write the reason first");
  }
  send({ skipped: reason });
}

async function goTo(number) {
  if (state.busy || number < 1) return;
  try {
    show(await post("/v1/pair", { rater: state.rater, number }));
  } catch (error) {
    announce(error.message);
  }
}

function onKey(event) {
  const typing = event.target.matches("input:not([type=radio]):not([type=checkbox]):not([type=range]), select, textarea");
  if (!byId("shortcuts").checked || !state.pair || typing || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const pressed = event.target.matches("button, summary, a, input[type=checkbox], input[type=radio]");
  const actions = { r: restart, s: openReasons, b: () => goTo(state.pair.number - 1) };
  if (event.key in KEYS) choose(KEYS[event.key]);
  else if (event.key === " " && !pressed) play();
  else if (event.key in actions) actions[event.key]();
  else return;
  event.preventDefault();
}

// ---- The page ----

async function enter(event) {
  event.preventDefault();
  try {
    const progress = await post("/v1/pair", { rater: byId("rater").value });
    state.rater = progress.rater;
    show(progress);
  } catch (error) {
    announce(error.message);
    byId("rater").focus();
  }
}

async function learn() {
  try {
    state.task = await (await call("/v1/task")).json();
    byId("raters").replaceChildren(...state.task.raters.map((name) => element("option", { value: plain(name) })));
    byId("rater").focus();
  } catch (error) {
    announce(error.message);
  }
}

function start() {
  byId("enter").addEventListener("submit", async (event) => { event.preventDefault(); await learned; enter(event); });
  byId("judge").addEventListener("submit", save);
  byId("judge").noValidate = true;
  byId("play").addEventListener("click", play);
  byId("restart").addEventListener("click", restart);
  byId("seek").addEventListener("input", seek);
  byId("skip").addEventListener("click", openReasons);
  byId("skip-now").addEventListener("click", skip);
  byId("reason").addEventListener("change", () => { byId("other-field").hidden = byId("reason").value !== ""; });
  byId("back").addEventListener("click", () => goTo(state.pair.number - 1));
  byId("end-back").addEventListener("click", () => goTo(state.total));
  addEventListener("keydown", onKey);
  const learned = learn();
  document.body.dataset.ready = "true";
}

start();
