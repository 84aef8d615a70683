// The page: an overview comes in, and everything that shows a part of it is told.

import { key } from "./api.js";
import { AgentTable } from "./agents.js";
import { Chat } from "./chat.js";
import { drawCharts } from "./charts.js";
import { ask } from "./dialog.js";
import { count, find } from "./dom.js";
import { PoolMap } from "./map.js";
import { Overview } from "./overview.js";

const STATES = {
  up: "ready", loading: "loading", exchanging: "changing the model", stuck: "stuck", lost: "restarting", down: "down",
};
const THEMES = ["system", "light", "dark"];

const table = new AgentTable({
  lit: (name) => map.lightUp(name),
  chat: (name) => { chat.pick(name); find("chat").scrollIntoView({ block: "nearest" }); find("message").focus(); },
  fork: (name) => chat.fork(name),
  fault: (error) => notify(error.message),
});
const map = new PoolMap((names) => table.light(names));
const chat = new Chat((error) => notify(error.message));
const overview = new Overview(take, lose);

function take(news) {
  const state = news.draining ? "draining" : news.state;
  tell(state, state === "draining" ? "shutting down" : STATES[state] ?? state);
  find("served").textContent = news.model ?? "";
  find("most").max = news.context_tokens ?? "";
  find("pool").hidden = !news.pool;
  document.querySelector(".charts").hidden = !news.history;
  if (news.pool) map.show(news);
  if (news.history) drawCharts(news.history);
  table.show(news);
  chat.show(news);
  document.title = news.running ? `(${count(news.running)}) Dovecote` : "Dovecote";
}

function lose(error) {
  if (error.status === 401 || error.status === 403) {
    tell("gone", "a key is needed");
    askKey(key.get() ? "The server does not know this key." : "This server asks for an API key.");
  } else {
    tell("gone", "no connection");
  }
}

function tell(state, words) {
  const place = find("state");
  place.dataset.state = state;
  if (place.textContent !== words) place.textContent = words;
}

let forgetting = 0;
function notify(message) {
  const place = find("notice");
  place.textContent = message;
  place.hidden = false;
  clearTimeout(forgetting);
  forgetting = setTimeout(() => { place.hidden = true; }, 8000);
}

async function askKey(text) {
  if (find("dialog").open) return;
  const given = await ask({ title: "API key", label: "Key", type: "password", ok: "Use", value: key.get(), optional: true, text: `${text} It is kept in this tab alone.` });
  if (given === null) return;
  key.set(given);
  overview.restart();
}

function themeNow() {
  return document.documentElement.dataset.theme ?? "system";
}

function nextTheme() {
  const next = THEMES[(THEMES.indexOf(themeNow()) + 1) % THEMES.length];
  if (next === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = next;
  try {
    if (next === "system") localStorage.removeItem("dovecote-theme");
    else localStorage.setItem("dovecote-theme", next);
  } catch {
    // It lasts as long as the page, then.
  }
  nameTheme();
  map.draw();
}

function nameTheme() {
  find("theme").textContent = { system: "Theme: system", light: "Theme: light", dark: "Theme: dark" }[themeNow()];
}

find("theme").addEventListener("click", nextTheme);
find("key").addEventListener("click", () => askKey("Sent with every request of this page."));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => map.draw());
nameTheme();
overview.start();
